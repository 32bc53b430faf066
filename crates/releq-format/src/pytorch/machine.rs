//! The stack machine that a pickle is a program for. It builds values and calls nothing.

use std::{collections::HashMap, ops::Range, sync::Arc};

use releq_pickle::{Instruction, Instructions, Located, Payload, PickleError};

use super::{
    globals::Global,
    value::{Id, Value, Values},
};

/// Most values, entries on the stack and remembered values of a pickle. A checkpoint of ten thousand
/// tensors needs a tenth of them.
pub(super) const MOST_VALUES: usize = 1 << 21;

/// Why a pickle is not read.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It imports `name` at `offset`, which may run code.
    Code { offset: u64, name: String },
    /// It cannot be read to its end.
    Damaged(PickleError),
    /// It makes no sense at `offset`.
    Senseless { offset: u64, problem: &'static str },
    /// It has too many values at `offset`.
    Excess { offset: u64 },
}

impl From<PickleError> for Refusal {
    fn from(error: PickleError) -> Self {
        Self::Damaged(error)
    }
}

/// The values of the pickle that is `range` of `pickle`.
pub(super) fn read(pickle: Arc<Vec<u8>>, range: Range<usize>) -> Result<Values, Refusal> {
    let mut machine = Machine {
        base: range.start,
        offset: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copied: 0,
    };
    let mut instructions = Instructions::new(&pickle[range]);
    loop {
        let located = instructions.read()?;
        machine.offset = located.offset;
        if located.instruction == Instruction::Stop {
            break;
        }
        machine.step(located, &pickle)?;
    }
    let root = machine.pop()?;
    let values = machine.values;
    Ok(Values { pickle, values, root })
}

struct Machine {
    /// Where the pickle begins in the bytes that ranges refer to.
    base: usize,
    offset: u64,
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Entries of dictionaries that were copied. A small pickle can copy one dictionary many times.
    copied: usize,
}

impl Machine {
    fn step(&mut self, located: Located, pickle: &[u8]) -> Result<(), Refusal> {
        use Instruction as I;
        match located.instruction {
            I::Stop | I::Proto(_) | I::Frame(_) => Ok(()),

            I::Mark => {
                self.marks.push(self.stack.len());
                self.limit(self.marks.len())
            }
            I::Pop => {
                // A mark is popped as if it were a value.
                if self.marks.pop_if(|mark| *mark == self.stack.len()).is_none() {
                    self.pop()?;
                }
                Ok(())
            }
            I::PopMark => self.pop_to_mark().map(drop),
            I::Dup => self.push_id(self.top()?),

            I::None => self.push(Value::None),
            I::True => self.push(Value::Bool(true)),
            I::False => self.push(Value::Bool(false)),
            I::Int(number) => self.push(Value::Int(number.into())),
            I::Long(payload) => {
                let number = little_endian(&pickle[self.place(&payload)]);
                self.push(number.map_or(Value::Other, Value::Int))
            }
            I::Float(bits) => self.push(Value::Float(f64::from_bits(bits))),
            I::NumberLine(line) => self.push(number(located.opcode, &line)),

            I::Bytes(payload) => self.push(Value::Bytes(self.place(&payload))),
            I::Text(payload) => self.push(Value::Text(self.place(&payload))),
            I::TextLine(line) => self.push(Value::Line(line.trim_matches(['\'', '"']).into())),

            I::EmptyList | I::EmptySet => self.push(Value::Sequence(Vec::new())),
            I::List | I::Tuple | I::FrozenSet => {
                let items = self.pop_to_mark()?;
                self.push(Value::Sequence(items))
            }
            I::TupleOf(count) => {
                let items = self.pop_many(count)?;
                self.push(Value::Sequence(items))
            }
            I::Append => {
                let item = self.pop()?;
                self.append(&[item])
            }
            I::Appends | I::AddItems => {
                let items = self.pop_to_mark()?;
                self.append(&items)
            }
            I::EmptyDict => self.push(Value::Dict(Vec::new())),
            I::Dict => {
                let items = self.pop_to_mark()?;
                self.push(Value::Dict(Vec::new()))?;
                self.insert(&items)
            }
            I::SetItem => {
                let items = self.pop_many(2)?;
                self.insert(&items)
            }
            I::SetItems => {
                let items = self.pop_to_mark()?;
                self.insert(&items)
            }

            I::Put(key) => self.put(key),
            I::Memoize => self.put(self.memo.len() as u64),
            I::Get(key) => match self.memo.get(&key) {
                Some(&id) => self.push_id(id),
                None => Err(self.senseless("the memo has no such entry")),
            },

            I::Global { module, name } => self.import(&module, &name),
            I::StackGlobal => {
                let ids = self.pop_many(2)?;
                match (self.text(ids[0], pickle), self.text(ids[1], pickle)) {
                    (Some(module), Some(name)) => self.import(&module, &name),
                    _ => Err(self.code("a computed name")),
                }
            }
            I::Extension(_) => Err(self.code("a function of the extension registry")),
            I::Reduce => {
                let ids = self.pop_many(2)?;
                self.call(ids[0], ids[1])
            }
            I::NewObj => {
                // The longer form has keyword arguments, too.
                let ids = self.pop_many(if located.opcode == 0x92 { 3 } else { 2 })?;
                self.call(ids[0], ids[1])
            }
            I::Inst { module, name } => {
                let arguments = self.pop_to_mark()?;
                self.import(&module, &name)?;
                let class = self.pop()?;
                self.call_with(class, arguments)
            }
            I::Obj => {
                let mut arguments = self.pop_to_mark()?;
                if arguments.is_empty() {
                    return Err(self.senseless("an object without a class"));
                }
                let class = arguments.remove(0);
                self.call_with(class, arguments)
            }
            I::Build => {
                let ids = self.pop_many(2)?;
                self.build(ids[0], ids[1])?;
                self.push_id(ids[0])
            }
            I::Persistent => {
                let description = self.pop()?;
                self.push(Value::Persistent(description))
            }
            I::PersistentLine(_) => self.push(Value::Other),
            _ => Err(self.senseless("an instruction that checkpoints do not have")),
        }
    }

    // The stack and the memo.

    fn senseless(&self, problem: &'static str) -> Refusal {
        Refusal::Senseless { offset: self.offset, problem }
    }

    fn code(&self, name: impl Into<String>) -> Refusal {
        Refusal::Code { offset: self.offset, name: name.into() }
    }

    fn limit(&self, count: usize) -> Result<(), Refusal> {
        if count > MOST_VALUES {
            return Err(Refusal::Excess { offset: self.offset });
        }
        Ok(())
    }

    fn push(&mut self, value: Value) -> Result<(), Refusal> {
        self.values.push(value);
        self.limit(self.values.len())?;
        self.push_id((self.values.len() - 1) as Id)
    }

    fn push_id(&mut self, id: Id) -> Result<(), Refusal> {
        self.stack.push(id);
        self.limit(self.stack.len())
    }

    fn top(&self) -> Result<Id, Refusal> {
        self.stack.last().copied().ok_or_else(|| self.senseless("the stack is empty"))
    }

    fn pop(&mut self) -> Result<Id, Refusal> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, Refusal> {
        match self.stack.len().checked_sub(count) {
            Some(start) => Ok(self.stack.split_off(start)),
            None => Err(self.senseless("the stack is empty")),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Refusal> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => Err(self.senseless("there is no mark on the stack")),
        }
    }

    fn put(&mut self, key: u64) -> Result<(), Refusal> {
        let top = self.top()?;
        self.memo.insert(key, top);
        self.limit(self.memo.len())
    }

    fn place(&self, payload: &Payload) -> Range<usize> {
        self.base + payload.range.start as usize..self.base + payload.range.end as usize
    }

    fn text(&self, id: Id, pickle: &[u8]) -> Option<String> {
        match &self.values[id as usize] {
            Value::Text(range) | Value::Bytes(range) => {
                String::from_utf8(pickle[range.clone()].to_vec()).ok()
            }
            Value::Line(line) => Some(line.to_string()),
            _ => None,
        }
    }

    // Containers, imports and calls.

    fn append(&mut self, items: &[Id]) -> Result<(), Refusal> {
        let list = self.top()?;
        match &mut self.values[list as usize] {
            Value::Sequence(list) => list.extend(items),
            Value::Other | Value::Special(_) => {}
            _ => return Err(self.senseless("items are appended to what is not a list")),
        }
        Ok(())
    }

    fn insert(&mut self, items: &[Id]) -> Result<(), Refusal> {
        let dict = self.top()?;
        let (pairs, odd) = items.as_chunks::<2>();
        match &mut self.values[dict as usize] {
            Value::Dict(dict) | Value::Object(dict) if odd.is_empty() => {
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
            }
            Value::Other | Value::Special(_) => {}
            _ => return Err(self.senseless("items are set in what is not a dictionary")),
        }
        Ok(())
    }

    fn import(&mut self, module: &str, name: &str) -> Result<(), Refusal> {
        match Global::of(module, name) {
            Some(global) => self.push(Value::Global(global)),
            None => Err(self.code(format!("{module}.{name}"))),
        }
    }

    fn call_with(&mut self, function: Id, arguments: Vec<Id>) -> Result<(), Refusal> {
        self.push(Value::Sequence(arguments))?;
        let arguments = self.pop()?;
        self.call(function, arguments)
    }

    fn call(&mut self, function: Id, tuple: Id) -> Result<(), Refusal> {
        let Value::Global(global) = self.values[function as usize] else {
            return Err(self.senseless("a call of what is not a function"));
        };
        let Value::Sequence(arguments) = &self.values[tuple as usize] else {
            return Err(self.senseless("a call with what are not arguments"));
        };
        let first = arguments.first().copied();
        let value = match global {
            Global::Dict => return self.dict(first),
            Global::Object => Value::Object(Vec::new()),
            Global::Sequence => match first {
                Some(items) if matches!(self.values[items as usize], Value::Sequence(_)) => {
                    return self.push_id(items);
                }
                _ => Value::Sequence(Vec::new()),
            },
            Global::First => match first {
                Some(first) => return self.push_id(first),
                None => Value::Other,
            },
            Global::Tensor | Global::TensorV2 | Global::TensorV3 | Global::Quantized => {
                Value::Tensor(global, tuple)
            }
            Global::FromType => {
                // Function, class, arguments, attributes.
                let &[function, class, arguments, ..] = &arguments[..] else {
                    return Err(self.senseless("a tensor without arguments"));
                };
                let is_from_type =
                    matches!(self.values[function as usize], Value::Global(Global::FromType));
                match self.values[class as usize] {
                    Value::Global(Global::Other | Global::First) if !is_from_type => {
                        return self.call(function, arguments);
                    }
                    _ => Value::Special("a tensor of a subclass"),
                }
            }
            Global::Special(kind) => Value::Special(kind),
            Global::NumpyDtype => Value::NumpyDtype(tuple, None),
            Global::NumpyReconstruct => Value::NumpyArray(None),
            Global::NumpyFromBuffer => Value::Tensor(global, tuple),
            Global::Encode => match first.map(|first| &self.values[first as usize]) {
                Some(Value::Text(range)) => Value::Latin1(range.clone()),
                _ => Value::Other,
            },
            Global::Storage(_) | Global::Dtype(_) | Global::Scheme { .. } | Global::Other => {
                Value::Other
            }
        };
        self.push(value)
    }

    /// A dictionary of what a constructor is given: nothing, another one, or a list of pairs.
    fn dict(&mut self, from: Option<Id>) -> Result<(), Refusal> {
        match from.map(|from| &self.values[from as usize]) {
            Some(Value::Dict(_)) => self.push_id(from.unwrap_or_default()),
            Some(Value::Sequence(pairs)) => {
                let pair = |&pair: &Id| match &self.values[pair as usize] {
                    Value::Sequence(pair) => Some((*pair.first()?, *pair.get(1)?)),
                    _ => None,
                };
                let pairs: Vec<(Id, Id)> = pairs.iter().filter_map(pair).collect();
                self.copy(pairs.len())?;
                self.push(Value::Dict(pairs))
            }
            _ => self.push(Value::Dict(Vec::new())),
        }
    }

    fn copy(&mut self, count: usize) -> Result<(), Refusal> {
        self.copied += count;
        self.limit(self.copied)
    }

    /// Sets the state of an object, where it matters for weights.
    fn build(&mut self, object: Id, state: Id) -> Result<(), Refusal> {
        match &mut self.values[object as usize] {
            Value::NumpyDtype(_, build) | Value::NumpyArray(build) => *build = Some(state),
            Value::Object(_) => {
                let Value::Dict(attributes) = &self.values[state as usize] else { return Ok(()) };
                let attributes = attributes.clone();
                self.copy(attributes.len())?;
                if let Value::Object(pairs) = &mut self.values[object as usize] {
                    pairs.extend(attributes);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The value of `bytes` in two's complement, lowest byte first; `None` if it has more than 64 bits.
fn little_endian(bytes: &[u8]) -> Option<i64> {
    if bytes.len() > 8 {
        return None;
    }
    let sign = if bytes.last().is_some_and(|&byte| byte > 127) { 0xFF } else { 0 };
    let mut whole = [sign; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    Some(i64::from_le_bytes(whole))
}

/// A number in decimal text, of the instructions `INT`, `LONG` and `FLOAT`.
fn number(opcode: u8, line: &str) -> Value {
    match (opcode, line) {
        (b'I', "00") => Value::Bool(false),
        (b'I', "01") => Value::Bool(true),
        (b'F', _) => line.parse().map_or(Value::Other, Value::Float),
        _ => line.trim_end_matches('L').parse().map_or(Value::Other, Value::Int),
    }
}
