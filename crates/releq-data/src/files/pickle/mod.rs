//! Reads pickles of plain data: numbers, text, lists, dictionaries and arrays of bytes.
//!
//! A pickle is a program for a small stack machine. What makes it dangerous are imports and calls. Here
//! each of the few calls that rebuild NumPy arrays is implemented by hand, and any other import is an
//! error.

use std::{collections::HashMap, ops::Range, path::Path};

use releq_pickle::{Instruction, Instructions, Located, Payload};

use crate::DataError;

const FORMAT: &str = "pickle";

/// Most values that a pickle may build; a batch of CIFAR-10 needs some 30,000.
const LARGEST: usize = 1 << 21;
/// Most bytes that are copied out of a pickle; a batch of CIFAR-10 needs 30 MB.
const LARGEST_COPY: usize = 1 << 27;

/// Index of a value among all that were built. Lists and dictionaries grow after they were memoized,
/// so values refer to each other by index.
type Id = usize;

/// A value.
#[derive(Debug, Clone)]
enum Value {
    /// Not needed: `None`, floats, large numbers.
    Other,
    Int(i64),
    Bytes(Range<usize>),
    /// Bytes that were encoded as text.
    Decoded(Vec<u8>),
    Text(String),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function, by name.
    Name(String),
    /// A NumPy data type, by its short name.
    Dtype(String),
    /// A NumPy array before it is filled.
    Empty,
    Array(Array),
}

/// A NumPy array of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<u8>,
    /// Whether the first dimension is the fastest.
    pub(crate) columns_first: bool,
}

/// The contents of a pickle.
#[derive(Debug)]
pub(crate) struct Pickle {
    values: Vec<Value>,
    root: Id,
}

impl Pickle {
    /// Reads the pickle `bytes`, which came from `path`.
    pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<Self, DataError> {
        let mut machine = Machine {
            path,
            bytes,
            instructions: Instructions::new(bytes),
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        };
        let root = loop {
            if let Some(root) = machine.step()? {
                break root;
            }
        };
        Ok(Self { values: machine.values, root })
    }

    /// The value under `key`, if the pickle contains a dictionary that has it.
    fn get(&self, key: &str, bytes: &[u8]) -> Option<&Value> {
        let Value::Dict(pairs) = &self.values[self.root] else { return None };
        let is_key = |id: Id| match &self.values[id] {
            Value::Text(text) => text == key,
            Value::Bytes(range) => bytes[range.clone()] == *key.as_bytes(),
            _ => false,
        };
        pairs.iter().find(|&&(id, _)| is_key(id)).map(|&(_, id)| &self.values[id])
    }

    /// The array under `key`.
    pub(crate) fn array(&self, key: &str, bytes: &[u8]) -> Option<&Array> {
        match self.get(key, bytes)? {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }

    /// The list of numbers under `key`.
    pub(crate) fn numbers(&self, key: &str, bytes: &[u8]) -> Option<Vec<i64>> {
        let Value::List(ids) = self.get(key, bytes)? else { return None };
        ids.iter().map(|&id| self.values[id].int()).collect()
    }
}

impl Value {
    fn int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }
}

struct Machine<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    instructions: Instructions<&'a [u8]>,
    /// Offset of the current instruction.
    at: u64,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Bytes copied out of the pickle.
    copied: usize,
}

impl Machine<'_> {
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

    /// Runs one instruction. Returns the result at the last one.
    fn step(&mut self) -> Result<Option<Id>, DataError> {
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

            I::Mark => self.marks.push(self.stack.len()),
            I::Pop => drop(self.pop()?),
            I::PopMark => drop(self.pop_to_mark()?),
            I::Dup => {
                let top = self.top()?;
                self.stack.push(top);
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
        if self.values.len() == LARGEST {
            return Err(self.damaged(format!("more than {LARGEST} values")));
        }
        self.stack.push(self.values.len());
        self.values.push(value);
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
        self.memo.insert(key, top);
        Ok(())
    }

    fn get(&mut self, key: u64) -> Result<(), DataError> {
        match self.memo.get(&key) {
            Some(&id) => {
                self.stack.push(id);
                Ok(())
            }
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
            | ("numpy.core.multiarray", "_reconstruct")
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
            ("numpy.dtype", [Value::Text(name), ..]) => Value::Dtype(name.clone()),
            ("numpy.dtype", [Value::Bytes(name), ..]) => {
                Value::Dtype(String::from_utf8_lossy(&self.bytes[name.clone()]).into_owned())
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
            // Byte order and alignment, which do not matter for bytes.
            (Value::Dtype(_), _) => {}
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
        if dtype != "u1" {
            return Err(self.damaged(format!("a NumPy array of type {dtype}, expected u1")));
        }
        let expected = shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
        if expected != Some(data.len()) {
            let problem = format!("a NumPy array of shape {shape:?} with {} bytes", data.len());
            return Err(self.damaged(problem));
        }
        Ok(Value::Array(Array { shape, data, columns_first }))
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

    /// `{'data': numpy.array([[0, 1, 2], [128, 254, 255]], dtype='u1'), 'labels': [6, 9]}` as written by
    /// Python 2.7.18 with NumPy 1.16.6, as CIFAR-10 was, and by Python 3.11 with NumPy 2.4.6 in the protocols
    /// 2, 4 and 5.
    const WRITTEN: [&[u8]; 4] = [
        b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06K\teU\x04dataq\x04cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\t(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06\x00\x01\x02\x80\xfe\xfftbu.",
        b"\x80\x02}q\x00(X\x04\x00\x00\x00dataq\x01cnumpy._core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04c_codecs\nencode\nq\x05X\x01\x00\x00\x00bq\x06X\x06\x00\x00\x00latin1q\x07\x86q\x08Rq\t\x87q\nRq\x0b(K\x01K\x02K\x03\x86q\x0ccnumpy\ndtype\nq\rX\x02\x00\x00\x00u1q\x0e\x89\x88\x87q\x0fRq\x10(K\x03X\x01\x00\x00\x00|q\x11NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x12b\x89h\x05X\t\x00\x00\x00\x00\x01\x02\xc2\x80\xc3\xbe\xc3\xbfq\x13h\x07\x86q\x14Rq\x15tq\x16bX\x06\x00\x00\x00labelsq\x17]q\x18(K\x06K\teu.",
        b"\x80\x04\x95\xad\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x04data\x94\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x02K\x03\x86\x94h\x05\x8c\x05dtype\x94\x93\x94\x8c\x02u1\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94b\x89C\x06\x00\x01\x02\x80\xfe\xff\x94t\x94b\x8c\x06labels\x94]\x94(K\x06K\teu.",
        b"\x80\x05\x95\x98\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x04data\x94\x8c\x13numpy._core.numeric\x94\x8c\x0b_frombuffer\x94\x93\x94(\x96\x06\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02\x80\xfe\xff\x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02u1\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x02K\x03\x86\x94\x8c\x01C\x94t\x94R\x94\x8c\x06labels\x94]\x94(K\x06K\teu.",
    ];

    fn read(bytes: &[u8]) -> Result<Pickle, DataError> {
        Pickle::read(Path::new("some/batch"), bytes)
    }

    #[test]
    fn what_python_writes_is_read() {
        for bytes in WRITTEN {
            let pickle = read(bytes).unwrap();
            let data = vec![0, 1, 2, 128, 254, 255];
            let array = Array { shape: vec![2, 3], data, columns_first: false };
            assert_eq!(pickle.array("data", bytes), Some(&array));
            assert_eq!(pickle.numbers("labels", bytes), Some(vec![6, 9]));
            assert_eq!(pickle.numbers("data", bytes), None);
            assert!(pickle.array("fine_labels", bytes).is_none());
        }
        // Columns first, as NumPy says with one byte.
        let mut columns_first = WRITTEN[0].to_vec();
        let place = columns_first.iter().position(|&byte| byte == 0x89).unwrap();
        columns_first[place] = 0x88;
        let pickle = read(&columns_first).unwrap();
        assert!(pickle.array("data", &columns_first).unwrap().columns_first);
    }

    #[test]
    fn a_pickle_that_tries_to_run_code_is_refused_and_runs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace");
        let command = format!("touch {}", trace.display());
        let short = command.len() as u8;
        let check = |bytes: &[u8], callable: &str| {
            let error = read(bytes).unwrap_err();
            let message = error.to_string();
            assert!(matches!(error, DataError::PickleCode { .. }), "{message}");
            assert!(message.contains("some/batch") && message.contains(callable), "{message}");
            assert!(!trace.exists());
        };
        // What `pickle.dumps` makes of an object whose `__reduce__` asks for `os.system`.
        let head = b"\x80\x02cposix\nsystem\nq\x00X";
        let system = [head, &u32::from(short).to_le_bytes()[..], command.as_bytes(), b"\x85R."];
        check(&system.concat(), "posix.system");
        // The same by other instructions: names from the stack, INST, the registry, a constructor.
        let names =
            [&b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c"[..], &[short], command.as_bytes()];
        check(&[&names.concat()[..], b"\x85R."].concat(), "os.system");
        let inst = [&b"(U"[..], &[short], command.as_bytes(), b"ios\nsystem\n."];
        check(&inst.concat(), "os.system");
        check(b"\x80\x02\x82\x01)R.", "extension registry");
        check(b"\x80\x02cnumpy\nndarray\n)\x81.", "constructor");
        check(b"\x80\x04K\x01K\x02\x93.", "a computed name");
        check(b"\x80\x02cbuiltins\neval\n.", "builtins.eval");
        // Harmless names, but hidden behind the array that is asked for.
        let mut late = WRITTEN[0].to_vec();
        late.pop();
        late.extend(b"cnumpy\nload\n.");
        check(&late, "numpy.load");
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let check = |bytes: &[u8], expected: &str| {
            let message = read(bytes).unwrap_err().to_string();
            assert!(message.contains("some/batch, byte"), "{message}");
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        };
        for bytes in WRITTEN {
            for length in 0..bytes.len() {
                check(&bytes[..length], "byte");
            }
        }
        check(b"", "ends within");
        check(b"hello", "the memo has no entry 101");
        check(b"\x80\x02.", "stack is empty");
        check(b"\x80\x02u.", "no mark");
        check(b"K\x01K\x02a.", "not a list");
        check(b"}(K\x01u.", "not a dictionary");
        check(b"K\x01K\x02R.", "not a function");
        check(b"cnumpy\ndtype\n)R.", "arguments that NumPy does not write");
        check(b"T\xff\xff\xff\xffabc.", "ends within an instruction");
        check(b"cnumpy", "ends within a line");
        check(b"\xff.", "instruction 0xff");
        let other = |from: &[u8], to: &[u8]| {
            let bytes = WRITTEN[0];
            let place = bytes.windows(from.len()).position(|part| part == from).unwrap();
            [&bytes[..place], to, &bytes[place + from.len()..]].concat()
        };
        check(&other(b"u1", b"f4"), "type f4, expected u1");
        check(&other(b"K\x02K\x03\x86", b"K\x02K\x04\x86"), "shape [2, 4] with 6 bytes");
        check(&[b'N'; LARGEST + 1], "more than 2097152 values");
        // One text that is copied with every call.
        let mut bomb = b"c_codecs\nencode\nX\x00\x00\x10\x00".to_vec();
        bomb.extend(vec![b'x'; 1 << 20]);
        bomb.extend(b"X\x06\x00\x00\x00latin1\x86q\x00");
        bomb.extend(b"0q\x01");
        for _ in 0..200 {
            bomb.extend(b"h\x01h\x00R");
        }
        check(&bomb, "bytes of values");
    }

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
