//! The stack machine that a pickle is a program for. It builds values and calls nothing.

use std::{ops::Range, sync::Arc};

use releq_pickle::{
    Instruction, Instructions, Located, Payload, PickleError, Stack, StackError, little_endian,
};

use super::{
    globals::Global,
    value::{Id, Value, Values},
};

/// Most values, entries on the stack and remembered values of a pickle. A checkpoint of ten thousand
/// tensors needs a tenth of them.
pub(super) const MOST_VALUES: usize = 1 << 21;

/// Why a pickle is not read, from `offset` on.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) offset: u64,
    pub(super) why: Refusal,
}

/// Why a pickle is not read.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It imports something of this name, which may run code.
    Code(String),
    /// It cannot be read to its end.
    Damaged(PickleError),
    /// It makes no sense.
    Senseless(String),
    /// It has too many values.
    Excess,
}

impl From<PickleError> for Refused {
    fn from(error: PickleError) -> Self {
        Self { offset: error.offset, why: Refusal::Damaged(error) }
    }
}

impl From<StackError> for Refusal {
    fn from(error: StackError) -> Self {
        match error {
            StackError::Full(_) => Self::Excess,
            error => Self::Senseless(error.to_string()),
        }
    }
}

fn senseless(problem: &str) -> Refusal {
    Refusal::Senseless(problem.to_owned())
}

fn code(name: impl Into<String>) -> Refusal {
    Refusal::Code(name.into())
}

fn limit(count: usize) -> Result<(), Refusal> {
    if count > MOST_VALUES { Err(Refusal::Excess) } else { Ok(()) }
}

/// The values of the pickle that is `range` of `pickle`.
pub(super) fn read(pickle: Arc<Vec<u8>>, range: Range<usize>) -> Result<Values, Refused> {
    let mut machine = Machine {
        base: range.start,
        values: Vec::new(),
        stack: Stack::new(MOST_VALUES),
        copied: 0,
    };
    let mut instructions = Instructions::new(&pickle[range]);
    let root = loop {
        let located = instructions.read()?;
        let offset = located.offset;
        let refused = |why| Refused { offset, why };
        if located.instruction == Instruction::Stop {
            break machine.stack.pop().map_err(|error| refused(error.into()))?;
        }
        machine.step(located, &pickle).map_err(refused)?;
    };
    let values = machine.values;
    Ok(Values { pickle, values, root })
}

struct Machine {
    /// Where the pickle begins in the bytes that ranges refer to.
    base: usize,
    values: Vec<Value>,
    stack: Stack<Id>,
    /// Entries of dictionaries that were copied. A small pickle can copy one dictionary many times.
    copied: usize,
}

impl Machine {
    fn step(&mut self, located: Located, pickle: &[u8]) -> Result<(), Refusal> {
        use Instruction as I;
        if self.stack.run(&located.instruction)? {
            return Ok(());
        }
        match located.instruction {
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
                let items = self.stack.pop_to_mark()?;
                self.push(Value::Sequence(items))
            }
            I::TupleOf(count) => {
                let items = self.stack.pop_many(count)?;
                self.push(Value::Sequence(items))
            }
            I::Append => {
                let item = self.stack.pop()?;
                self.append(&[item])
            }
            I::Appends | I::AddItems => {
                let items = self.stack.pop_to_mark()?;
                self.append(&items)
            }
            I::EmptyDict => self.push(Value::Dict(Vec::new())),
            I::Dict => {
                let items = self.stack.pop_to_mark()?;
                self.push(Value::Dict(Vec::new()))?;
                self.insert(&items)
            }
            I::SetItem => {
                let items = self.stack.pop_many(2)?;
                self.insert(&items)
            }
            I::SetItems => {
                let items = self.stack.pop_to_mark()?;
                self.insert(&items)
            }

            I::Global { module, name } => self.import(&module, &name),
            I::StackGlobal => {
                let ids = self.stack.pop_many(2)?;
                match (self.text(ids[0], pickle), self.text(ids[1], pickle)) {
                    (Some(module), Some(name)) => self.import(&module, &name),
                    _ => Err(code("a computed name")),
                }
            }
            I::Extension(_) => Err(code("a function of the extension registry")),
            I::Reduce => {
                let ids = self.stack.pop_many(2)?;
                self.call(ids[0], ids[1])
            }
            I::NewObj => {
                // The longer form has keyword arguments, too.
                let ids = self.stack.pop_many(if located.opcode == 0x92 { 3 } else { 2 })?;
                self.call(ids[0], ids[1])
            }
            I::Inst { module, name } => {
                let arguments = self.stack.pop_to_mark()?;
                self.import(&module, &name)?;
                let class = self.stack.pop()?;
                self.call_with(class, arguments)
            }
            I::Obj => {
                let mut arguments = self.stack.pop_to_mark()?;
                if arguments.is_empty() {
                    return Err(senseless("an object without a class"));
                }
                let class = arguments.remove(0);
                self.call_with(class, arguments)
            }
            I::Build => {
                let ids = self.stack.pop_many(2)?;
                self.build(ids[0], ids[1])?;
                Ok(self.stack.push(ids[0])?)
            }
            I::Persistent => {
                let description = self.stack.pop()?;
                self.push(Value::Persistent(description))
            }
            I::PersistentLine(_) => self.push(Value::Other),
            _ => Err(senseless("an instruction that checkpoints do not have")),
        }
    }

    // Values.

    fn push(&mut self, value: Value) -> Result<(), Refusal> {
        self.values.push(value);
        limit(self.values.len())?;
        Ok(self.stack.push((self.values.len() - 1) as Id)?)
    }

    fn place(&self, payload: &Payload) -> Range<usize> {
        let place = payload.place();
        self.base + place.start..self.base + place.end
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
        let list = self.stack.top()?;
        match &mut self.values[list as usize] {
            Value::Sequence(list) => list.extend(items),
            Value::Other | Value::Special(_) => {}
            _ => return Err(senseless("items are appended to what is not a list")),
        }
        Ok(())
    }

    fn insert(&mut self, items: &[Id]) -> Result<(), Refusal> {
        let dict = self.stack.top()?;
        let (pairs, odd) = items.as_chunks::<2>();
        match &mut self.values[dict as usize] {
            Value::Dict(dict) | Value::Object(dict) if odd.is_empty() => {
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
            }
            Value::Other | Value::Special(_) => {}
            _ => return Err(senseless("items are set in what is not a dictionary")),
        }
        Ok(())
    }

    fn import(&mut self, module: &str, name: &str) -> Result<(), Refusal> {
        match Global::of(module, name) {
            Some(global) => self.push(Value::Global(global)),
            None => Err(code(format!("{module}.{name}"))),
        }
    }

    fn call_with(&mut self, function: Id, arguments: Vec<Id>) -> Result<(), Refusal> {
        self.push(Value::Sequence(arguments))?;
        let arguments = self.stack.pop()?;
        self.call(function, arguments)
    }

    fn call(&mut self, function: Id, tuple: Id) -> Result<(), Refusal> {
        let Value::Global(global) = self.values[function as usize] else {
            return Err(senseless("a call of what is not a function"));
        };
        let Value::Sequence(arguments) = &self.values[tuple as usize] else {
            return Err(senseless("a call with what are not arguments"));
        };
        let first = arguments.first().copied();
        let value = match global {
            Global::Dict => return self.dict(first),
            Global::Object => Value::Object(Vec::new()),
            Global::Sequence => match first {
                Some(items) if matches!(self.values[items as usize], Value::Sequence(_)) => {
                    return Ok(self.stack.push(items)?);
                }
                _ => Value::Sequence(Vec::new()),
            },
            Global::First => match first {
                Some(first) => return Ok(self.stack.push(first)?),
                None => Value::Other,
            },
            Global::Tensor | Global::TensorV2 | Global::TensorV3 | Global::Quantized => {
                Value::Tensor(global, tuple)
            }
            Global::FromType => {
                // Function, class, arguments, attributes.
                let &[function, class, arguments, ..] = &arguments[..] else {
                    return Err(senseless("a tensor without arguments"));
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
            Some(Value::Dict(_)) => Ok(self.stack.push(from.unwrap_or_default())?),
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
        limit(self.copied)
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

/// A number in decimal text, of the instructions `INT`, `LONG` and `FLOAT`.
fn number(opcode: u8, line: &str) -> Value {
    match (opcode, line) {
        (b'I', "00") => Value::Bool(false),
        (b'I', "01") => Value::Bool(true),
        (b'F', _) => line.parse().map_or(Value::Other, Value::Float),
        _ => line.trim_end_matches('L').parse().map_or(Value::Other, Value::Int),
    }
}
