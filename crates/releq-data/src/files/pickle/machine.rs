//! The stack machine that a pickle is a program for.

use std::{collections::HashMap, ops::Range, path::Path};

use releq_pickle::{Instruction, Instructions, Located, Payload};

use super::{Array, Dtype, FORMAT, Id, LARGEST, LARGEST_COPY, Value};
use crate::DataError;

/// The stack machine.
pub(super) struct Machine<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    instructions: Instructions<&'a [u8]>,
    /// Offset of the current instruction.
    at: u64,
    pub(super) values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Bytes copied out of the pickle.
    copied: usize,
}

impl<'a> Machine<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self {
            path,
            bytes,
            instructions: Instructions::new(bytes),
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        }
    }

    fn damaged(&self, problem: impl Into<String>) -> DataError {
        DataError::Format {
            path: self.path.to_owned(),
            format: FORMAT,
            offset: self.at,
            problem: problem.into(),
        }
    }

    fn refused(&self, callable: impl Into<String>) -> DataError {
        DataError::PickleCode {
            path: self.path.to_owned(),
            offset: self.at,
            callable: callable.into(),
        }
    }

    /// Runs one instruction. Returns the result after the last one.
    pub(super) fn step(&mut self) -> Result<Option<Id>, DataError> {
        use Instruction as I;
        let Located { offset, opcode, instruction } =
            self.instructions.read().map_err(|error| {
                self.at = error.offset;
                self.damaged(error.problem.to_string())
            })?;
        self.at = offset;
        match instruction {
            I::Stop => return self.pop().map(Some),
            I::Proto(_) | I::Frame(_) => {}

            I::Mark => {
                self.check_room(self.marks.len())?;
                self.marks.push(self.stack.len());
            }
            I::Pop => drop(self.pop()?),
            I::PopMark => drop(self.pop_to_mark()?),
            I::Dup => {
                let top = self.top()?;
                self.push_id(top)?;
            }

            I::None | I::Float(_) => self.push(Value::Other)?,
            I::True => self.push(Value::Int(1))?,
            I::False => self.push(Value::Int(0))?,
            I::Int(value) => self.push(Value::Int(value.into()))?,
            I::Long(payload) => {
                let value = little_endian(&self.bytes[place(&payload)]);
                self.push(value.map_or(Value::Other, Value::Int))?;
            }
            I::Bytes(payload) => self.push(Value::Bytes(place(&payload)))?,
            I::Text(payload) => {
                let text = std::str::from_utf8(&self.bytes[place(&payload)]);
                let text = text.map_err(|_| self.damaged("text that is not UTF-8"))?;
                self.push(Value::Text(text.to_owned()))?;
            }

            I::EmptyList => self.push(Value::List(Vec::new()))?,
            I::Append => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            I::Appends => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            I::List => {
                let items = self.pop_to_mark()?;
                self.push(Value::List(items))?;
            }
            I::TupleOf(count) => {
                let items = self.pop_many(count)?;
                self.push(Value::Tuple(items))?;
            }
            I::Tuple => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items))?;
            }
            I::EmptyDict => self.push(Value::Dict(Vec::new()))?,
            I::SetItem => {
                let items = self.pop_many(2)?;
                self.insert(&items)?;
            }
            I::SetItems => {
                let items = self.pop_to_mark()?;
                self.insert(&items)?;
            }
            I::Dict => {
                let items = self.pop_to_mark()?;
                self.push(Value::Dict(Vec::new()))?;
                self.insert(&items)?;
            }

            I::Put(key) => self.put(key)?,
            I::Memoize => self.put(self.memo.len() as u64)?,
            I::Get(key) => self.get(key)?,

            I::Global { module, name } => self.import(&module, &name)?,
            I::StackGlobal => {
                let names = self.pop_many(2)?;
                match (&self.values[names[0]], &self.values[names[1]]) {
                    (Value::Text(module), Value::Text(name)) => {
                        let (module, name) = (module.clone(), name.clone());
                        self.import(&module, &name)?;
                    }
                    _ => return Err(self.refused("a computed name")),
                }
            }
            I::Reduce => self.call()?,
            I::Build => self.build()?,
            I::Inst { module, name } => return Err(self.refused(format!("{module}.{name}"))),
            I::Obj | I::NewObj => return Err(self.refused("the constructor of a class")),
            I::Extension(_) => {
                return Err(self.refused("a function of the extension registry"));
            }
            _ => {
                let problem = format!("instruction {opcode:#04x}, which plain data does not need");
                return Err(self.damaged(problem));
            }
        }
        Ok(None)
    }

    // The stack.

    fn push(&mut self, value: Value) -> Result<(), DataError> {
        self.check_room(self.values.len())?;
        self.push_id(self.values.len())?;
        self.values.push(value);
        Ok(())
    }

    fn push_id(&mut self, id: Id) -> Result<(), DataError> {
        self.check_room(self.stack.len())?;
        self.stack.push(id);
        Ok(())
    }

    /// Limits the memory that instructions of one byte can take.
    fn check_room(&self, len: usize) -> Result<(), DataError> {
        if len >= LARGEST {
            return Err(self.damaged(format!("more than {LARGEST} values")));
        }
        Ok(())
    }

    fn top(&self) -> Result<Id, DataError> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.get(bottom..).and_then(<[Id]>::last);
        top.copied().ok_or_else(|| self.damaged("the stack is empty"))
    }

    fn pop(&mut self) -> Result<Id, DataError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, DataError> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        Ok(items)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, DataError> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => Err(self.damaged("no mark on the stack")),
        }
    }

    fn put(&mut self, key: u64) -> Result<(), DataError> {
        let top = self.top()?;
        self.check_room(self.memo.len())?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn get(&mut self, key: u64) -> Result<(), DataError> {
        match self.memo.get(&key) {
            Some(&id) => self.push_id(id),
            None => Err(self.damaged(format!("the memo has no entry {key}"))),
        }
    }

    // Lists, dictionaries, imports and calls.

    fn append(&mut self, items: &[Id]) -> Result<(), DataError> {
        let list = self.top()?;
        match &mut self.values[list] {
            Value::List(list) => {
                list.extend(items);
                Ok(())
            }
            _ => Err(self.damaged("items are appended to what is not a list")),
        }
    }

    fn insert(&mut self, items: &[Id]) -> Result<(), DataError> {
        let dict = self.top()?;
        match &mut self.values[dict] {
            Value::Dict(dict) if items.len().is_multiple_of(2) => {
                dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                Ok(())
            }
            _ => Err(self.damaged("items are set in what is not a dictionary")),
        }
    }

    fn import(&mut self, module: &str, name: &str) -> Result<(), DataError> {
        // NumPy moved its parts from `core` to `_core` in version 2.
        let short = module.replacen("numpy._core", "numpy.core", 1);
        match (short.as_str(), name) {
            ("numpy", "ndarray" | "dtype")
            | ("_codecs", "encode")
            | ("numpy.core.multiarray", "_reconstruct" | "scalar")
            | ("numpy.core.numeric", "_frombuffer") => {
                self.push(Value::Name(format!("{short}.{name}")))
            }
            _ => Err(self.refused(format!("{module}.{name}"))),
        }
    }

    /// Copies of the items of a tuple. The calls implemented here take few arguments.
    fn items(&mut self, tuple: Id) -> Result<Vec<Value>, DataError> {
        let Value::Tuple(ids) = &self.values[tuple] else { return Ok(Vec::new()) };
        let items: Vec<Value> = ids.iter().take(8).map(|&id| self.values[id].clone()).collect();
        let copied = items.iter().map(|item| match item {
            Value::Text(text) => text.len(),
            Value::Decoded(bytes) => bytes.len(),
            Value::List(ids) | Value::Tuple(ids) => 8 * ids.len(),
            Value::Dict(pairs) => 16 * pairs.len(),
            Value::Array(array) => array.data.len(),
            _ => 0,
        });
        let copied = copied.sum();
        self.spend(copied)?;
        Ok(items)
    }

    /// Limits the memory of a pickle that copies one value again and again.
    fn spend(&mut self, bytes: usize) -> Result<(), DataError> {
        self.copied += bytes;
        if self.copied > LARGEST_COPY {
            return Err(self.damaged(format!("more than {LARGEST_COPY} bytes of values")));
        }
        Ok(())
    }

    fn call(&mut self) -> Result<(), DataError> {
        let ids = self.pop_many(2)?;
        let arguments = self.items(ids[1])?;
        let Value::Name(name) = &self.values[ids[0]] else {
            return Err(self.refused("a value that is not a function"));
        };
        let value = match (name.as_str(), &arguments[..]) {
            ("numpy.dtype", [Value::Text(name), ..]) => Value::Dtype(Dtype::new(name)),
            ("numpy.dtype", [Value::Bytes(name), ..]) => {
                let name = String::from_utf8_lossy(&self.bytes[name.clone()]);
                Value::Dtype(Dtype::new(&name))
            }
            ("numpy.core.multiarray.scalar", [Value::Dtype(dtype), data]) => {
                let bytes = match data {
                    Value::Bytes(range) => &self.bytes[range.clone()],
                    Value::Decoded(bytes) => bytes,
                    _ => return Err(self.damaged("a NumPy number without its bytes")),
                };
                Value::Int(dtype.number(bytes).map_err(|problem| self.damaged(problem))?)
            }
            ("numpy.core.multiarray._reconstruct", [Value::Name(class), ..])
                if class == "numpy.ndarray" =>
            {
                Value::Empty
            }
            // Python 3 writes bytes for Python 2 as Latin-1 text.
            ("_codecs.encode", [Value::Text(text), Value::Text(code)]) if code == "latin1" => {
                let bytes = text.chars().map(u8::try_from).collect::<Result<_, _>>();
                Value::Decoded(bytes.map_err(|_| self.damaged("text that is not Latin-1"))?)
            }
            // Data, type, shape, order.
            ("numpy.core.numeric._frombuffer", [data, dtype, shape, order]) => {
                let order = match order {
                    Value::Text(order) => order == "F",
                    _ => false,
                };
                self.filled(shape, dtype, order, data)?
            }
            (name, _) => {
                let problem =
                    format!("a call of `{name}` with arguments that NumPy does not write");
                return Err(self.damaged(problem));
            }
        };
        self.push(value)
    }

    fn build(&mut self) -> Result<(), DataError> {
        let ids = self.pop_many(2)?;
        let state = self.items(ids[1])?;
        match (&self.values[ids[0]], &state[..]) {
            // Version, byte order, and what only structures have.
            (Value::Dtype(dtype), [_, order, ..]) => {
                let big_endian = match order {
                    Value::Text(order) => order == ">",
                    Value::Bytes(range) => self.bytes[range.clone()] == *b">",
                    _ => return Err(self.damaged("a NumPy type without its byte order")),
                };
                let dtype = Dtype { big_endian, ..dtype.clone() };
                self.values[ids[0]] = Value::Dtype(dtype);
            }
            // Version, shape, type, whether columns come first, data.
            (Value::Empty, [Value::Int(_), shape, dtype, Value::Int(columns_first), data]) => {
                let array = self.filled(shape, dtype, *columns_first != 0, data)?;
                self.values[ids[0]] = array;
            }
            _ => return Err(self.damaged("state is set in what is not a NumPy array")),
        }
        self.stack.push(ids[0]);
        Ok(())
    }

    fn filled(
        &mut self,
        shape: &Value,
        dtype: &Value,
        columns_first: bool,
        data: &Value,
    ) -> Result<Value, DataError> {
        let shape = match shape {
            Value::Tuple(ids) => ids
                .iter()
                .map(|&id| usize::try_from(self.values[id].int()?).ok())
                .collect::<Option<Vec<usize>>>(),
            _ => None,
        };
        let data = match data {
            Value::Bytes(range) => {
                self.spend(range.len())?;
                Some(self.bytes[range.clone()].to_vec())
            }
            Value::Decoded(bytes) => Some(bytes.clone()),
            _ => None,
        };
        let (Some(shape), Value::Dtype(dtype), Some(data)) = (shape, dtype, data) else {
            return Err(self.damaged("a NumPy array without shape, type or data"));
        };
        let Some(width) = dtype.width() else {
            return Err(self.damaged(format!("a NumPy array of type {}", dtype.name)));
        };
        let expected = shape.iter().try_fold(width, |product, &dim| product.checked_mul(dim));
        if expected != Some(data.len()) {
            let problem = format!(
                "a NumPy array of shape {shape:?}, type {}, with {} bytes",
                dtype.name,
                data.len()
            );
            return Err(self.damaged(problem));
        }
        Ok(Value::Array(Array { shape, dtype: dtype.clone(), data, columns_first }))
    }
}

/// Where the bytes of an operand are. All are in memory, so the offsets fit.
fn place(payload: &Payload) -> Range<usize> {
    payload.range.start as usize..payload.range.end as usize
}

/// The value of `bytes` in two's complement, lowest byte first; `None` if it has more than 64 bits.
fn little_endian(bytes: &[u8]) -> Option<i64> {
    if bytes.len() > 8 {
        return None;
    }
    let sign = if bytes.last().is_some_and(|&byte| byte > 127) { 0xff } else { 0 };
    let mut whole = [sign; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    Some(i64::from_le_bytes(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_length_have_a_sign() {
        let check =
            |bytes: &[u8], expected| assert_eq!(little_endian(bytes), expected, "{bytes:?}");
        check(&[], Some(0));
        check(&[255], Some(-1));
        check(&[0, 1], Some(256));
        check(&[0xff, 0x00], Some(255));
        check(&[1; 8], Some(0x0101_0101_0101_0101));
        check(&[1; 9], None);
    }
}
