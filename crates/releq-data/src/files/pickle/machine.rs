//! The stack machine that a pickle is a program for.

use std::num::IntErrorKind;

use releq_pickle::{
    Instruction, Instructions, Located, Stack, StackError, little_endian, string_line, unicode_line,
};

use super::{Array, Dtype, Id, LARGEST, LARGEST_COPY, Value};

/// Why a pickle is not read.
pub(super) enum Failure {
    /// It asks for this function or class.
    Code(String),
    Damaged(String),
}

impl From<StackError> for Failure {
    fn from(error: StackError) -> Self {
        Self::Damaged(error.to_string())
    }
}

fn damaged(problem: impl Into<String>) -> Failure {
    Failure::Damaged(problem.into())
}

fn refused(callable: impl Into<String>) -> Failure {
    Failure::Code(callable.into())
}

/// The stack machine.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    instructions: Instructions<&'a [u8]>,
    /// Offset of the current instruction.
    pub(super) at: u64,
    pub(super) values: Vec<Value>,
    stack: Stack<Id>,
    /// Bytes copied out of the pickle.
    copied: usize,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            instructions: Instructions::new(bytes).text_in_place(),
            at: 0,
            values: Vec::new(),
            stack: Stack::new(LARGEST),
            copied: 0,
        }
    }

    /// Runs one instruction. Returns the result after the last one.
    pub(super) fn step(&mut self) -> Result<Option<Id>, Failure> {
        use Instruction as I;
        let Located { offset, opcode, instruction } =
            self.instructions.read().map_err(|error| {
                self.at = error.offset;
                damaged(error.problem.to_string())
            })?;
        self.at = offset;
        if self.stack.run(&instruction)? {
            return Ok(None);
        }
        match instruction {
            I::Stop => return Ok(Some(self.stack.pop()?)),

            I::None | I::Float(_) => self.push(Value::Other)?,
            I::True => self.push(Value::Int(1))?,
            I::False => self.push(Value::Int(0))?,
            I::Int(value) => self.push(Value::Int(value.into()))?,
            I::Long(payload) => {
                let value = little_endian(&self.bytes[payload.place()]);
                self.push(value.map_or(Value::Other, Value::Int))?;
            }
            I::Bytes(payload) => self.push(Value::Bytes(payload.place()))?,
            I::Text(payload) => {
                let text = std::str::from_utf8(&self.bytes[payload.place()]);
                let text = text.map_err(|_| damaged("text that is not UTF-8"))?;
                self.push(Value::Text(text.to_owned()))?;
            }

            I::NumberLine(line) => {
                let value =
                    number(opcode, &line).ok_or_else(|| damaged("a line that is no number"));
                self.push(value?)?;
            }
            I::TextPlace(payload) => {
                let line = &self.bytes[payload.place()];
                let value = match opcode {
                    b'S' => string_line(line).map(Value::Decoded),
                    _ => unicode_line(line).map(Value::Text),
                };
                let value = value.ok_or_else(|| damaged("a line of text as Python writes none"));
                self.push(value?)?;
            }

            I::EmptyList => self.push(Value::List(Vec::new()))?,
            I::Append => {
                let item = self.stack.pop()?;
                self.append(&[item])?;
            }
            I::Appends => {
                let items = self.stack.pop_to_mark()?;
                self.append(&items)?;
            }
            I::List => {
                let items = self.stack.pop_to_mark()?;
                self.push(Value::List(items))?;
            }
            I::TupleOf(count) => {
                let items = self.stack.pop_many(count)?;
                self.push(Value::Tuple(items))?;
            }
            I::Tuple => {
                let items = self.stack.pop_to_mark()?;
                self.push(Value::Tuple(items))?;
            }
            I::EmptyDict => self.push(Value::Dict(Vec::new()))?,
            I::SetItem => {
                let items = self.stack.pop_many(2)?;
                self.insert(&items)?;
            }
            I::SetItems => {
                let items = self.stack.pop_to_mark()?;
                self.insert(&items)?;
            }
            I::Dict => {
                let items = self.stack.pop_to_mark()?;
                self.push(Value::Dict(Vec::new()))?;
                self.insert(&items)?;
            }

            I::Global { module, name } => self.import(&module, &name)?,
            I::StackGlobal => {
                let names = self.stack.pop_many(2)?;
                match (&self.values[names[0]], &self.values[names[1]]) {
                    (Value::Text(module), Value::Text(name)) => {
                        let (module, name) = (module.clone(), name.clone());
                        self.import(&module, &name)?;
                    }
                    _ => return Err(refused("a computed name")),
                }
            }
            I::Reduce => self.call()?,
            I::Build => self.build()?,
            I::Inst { module, name } => return Err(refused(format!("{module}.{name}"))),
            I::Obj | I::NewObj => return Err(refused("the constructor of a class")),
            I::Extension(_) => {
                return Err(refused("a function of the extension registry"));
            }
            _ => {
                let problem = format!("instruction {opcode:#04x}, which plain data does not need");
                return Err(damaged(problem));
            }
        }
        Ok(None)
    }

    fn push(&mut self, value: Value) -> Result<(), Failure> {
        if self.values.len() >= LARGEST {
            return Err(StackError::Full(LARGEST).into());
        }
        self.stack.push(self.values.len())?;
        self.values.push(value);
        Ok(())
    }

    // Lists, dictionaries, imports and calls.

    fn append(&mut self, items: &[Id]) -> Result<(), Failure> {
        let list = self.stack.top()?;
        match &mut self.values[list] {
            Value::List(list) => {
                list.extend(items);
                Ok(())
            }
            _ => Err(damaged("items are appended to what is not a list")),
        }
    }

    fn insert(&mut self, items: &[Id]) -> Result<(), Failure> {
        let dict = self.stack.top()?;
        match &mut self.values[dict] {
            Value::Dict(dict) if items.len().is_multiple_of(2) => {
                dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                Ok(())
            }
            _ => Err(damaged("items are set in what is not a dictionary")),
        }
    }

    fn import(&mut self, module: &str, name: &str) -> Result<(), Failure> {
        // NumPy moved its parts from `core` to `_core` in version 2.
        let short = module.replacen("numpy._core", "numpy.core", 1);
        match (short.as_str(), name) {
            ("numpy", "ndarray" | "dtype")
            | ("_codecs", "encode")
            | ("numpy.core.multiarray", "_reconstruct" | "scalar")
            | ("numpy.core.numeric", "_frombuffer") => {
                self.push(Value::Name(format!("{short}.{name}")))
            }
            _ => Err(refused(format!("{module}.{name}"))),
        }
    }

    /// Copies of the items of a tuple. The calls implemented here take few arguments.
    fn items(&mut self, tuple: Id) -> Result<Vec<Value>, Failure> {
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
    fn spend(&mut self, bytes: usize) -> Result<(), Failure> {
        self.copied += bytes;
        if self.copied > LARGEST_COPY {
            return Err(damaged(format!("more than {LARGEST_COPY} bytes of values")));
        }
        Ok(())
    }

    fn call(&mut self) -> Result<(), Failure> {
        let ids = self.stack.pop_many(2)?;
        let arguments = self.items(ids[1])?;
        let Value::Name(name) = &self.values[ids[0]] else {
            return Err(refused("a value that is not a function"));
        };
        let value = match (name.as_str(), &arguments[..]) {
            ("numpy.dtype", [Value::Text(name), ..]) => Value::Dtype(Dtype::new(name)),
            ("numpy.dtype", [Value::Bytes(name), ..]) => {
                let name = String::from_utf8_lossy(&self.bytes[name.clone()]);
                Value::Dtype(Dtype::new(&name))
            }
            ("numpy.dtype", [Value::Decoded(name), ..]) => {
                Value::Dtype(Dtype::new(&String::from_utf8_lossy(name)))
            }
            ("numpy.core.multiarray.scalar", [Value::Dtype(dtype), data]) => {
                let bytes = match data {
                    Value::Bytes(range) => &self.bytes[range.clone()],
                    Value::Decoded(bytes) => bytes,
                    _ => return Err(damaged("a NumPy number without its bytes")),
                };
                Value::Int(dtype.number(bytes).map_err(damaged)?)
            }
            ("numpy.core.multiarray._reconstruct", [Value::Name(class), ..])
                if class == "numpy.ndarray" =>
            {
                Value::Empty
            }
            // Python 3 writes bytes for Python 2 as Latin-1 text.
            ("_codecs.encode", [Value::Text(text), Value::Text(code)]) if code == "latin1" => {
                let bytes = text.chars().map(u8::try_from).collect::<Result<_, _>>();
                Value::Decoded(bytes.map_err(|_| damaged("text that is not Latin-1"))?)
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
                return Err(damaged(problem));
            }
        };
        self.push(value)
    }

    fn build(&mut self) -> Result<(), Failure> {
        let ids = self.stack.pop_many(2)?;
        let state = self.items(ids[1])?;
        match (&self.values[ids[0]], &state[..]) {
            // Version, byte order, and what only structures have.
            (Value::Dtype(dtype), [_, order, ..]) => {
                let big_endian = match order {
                    Value::Text(order) => order == ">",
                    Value::Bytes(range) => self.bytes[range.clone()] == *b">",
                    Value::Decoded(order) => order == b">",
                    _ => return Err(damaged("a NumPy type without its byte order")),
                };
                let dtype = Dtype { big_endian, ..dtype.clone() };
                self.values[ids[0]] = Value::Dtype(dtype);
            }
            // Version, shape, type, whether columns come first, data.
            (Value::Empty, [Value::Int(_), shape, dtype, Value::Int(columns_first), data]) => {
                let array = self.filled(shape, dtype, *columns_first != 0, data)?;
                self.values[ids[0]] = array;
            }
            _ => return Err(damaged("state is set in what is not a NumPy array")),
        }
        Ok(self.stack.push(ids[0])?)
    }

    fn filled(
        &mut self,
        shape: &Value,
        dtype: &Value,
        columns_first: bool,
        data: &Value,
    ) -> Result<Value, Failure> {
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
            return Err(damaged("a NumPy array without shape, type or data"));
        };
        let Some(width) = dtype.width() else {
            return Err(damaged(format!("a NumPy array of type {}", dtype.name)));
        };
        let expected = shape.iter().try_fold(width, |product, &dim| product.checked_mul(dim));
        if expected != Some(data.len()) {
            let problem = format!(
                "a NumPy array of shape {shape:?}, type {}, with {} bytes",
                dtype.name,
                data.len()
            );
            return Err(damaged(problem));
        }
        Ok(Value::Array(Array { shape, dtype: dtype.clone(), data, columns_first }))
    }
}

/// The number in the line of an instruction `INT`, `LONG` or `FLOAT`; `None` if there is none. `INT` has `00` and `01` for
/// what is false and true.
fn number(opcode: u8, line: &str) -> Option<Value> {
    if opcode == b'F' {
        return line.parse::<f64>().ok().map(|_| Value::Other);
    }
    match line.strip_suffix('L').unwrap_or(line).parse() {
        Ok(value) => Some(Value::Int(value)),
        Err(error) => {
            let is_large =
                [IntErrorKind::PosOverflow, IntErrorKind::NegOverflow].contains(error.kind());
            is_large.then_some(Value::Other)
        }
    }
}
