//! What a pickle describes.
//!
//! Values refer to each other by number, so that nothing is copied, cycles do no harm, and dropping
//! them does not recurse. Every value takes at least one byte of the pickle.

use std::{ops::Range, rc::Rc, sync::Arc};

use super::globals::Global;

/// The number of a value.
pub(super) type Id = u32;

/// What a pickle describes. Text and bytes stay where they are in it.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Range<usize>),
    Line(Rc<str>),
    Bytes(Range<usize>),
    /// Bytes as text in which each character stands for one.
    Latin1(Range<usize>),
    /// A tuple, a list or a set.
    Sequence(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// An object with attributes.
    Object(Vec<(Id, Id)>),
    Global(Global),
    /// What is outside the pickle: the tuple that describes it.
    Persistent(Id),
    /// A tensor: the function that rebuilds it and the tuple of its arguments.
    Tensor(Global, Id),
    Special(&'static str),
    /// The arguments and the state of a NumPy type.
    NumpyDtype(Id, Option<Id>),
    /// The state of a NumPy array, once it is there.
    NumpyArray(Option<Id>),
    /// Something without weights.
    Other,
}

/// The values of a pickle.
#[derive(Debug)]
pub(super) struct Values {
    pub(super) pickle: Arc<Vec<u8>>,
    pub(super) values: Vec<Value>,
    pub(super) root: Id,
}

impl Values {
    pub(super) fn get(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    /// The items of a sequence; none of anything else.
    pub(super) fn items(&self, id: Id) -> &[Id] {
        match self.get(id) {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(range) | Value::Bytes(range) => {
                std::str::from_utf8(&self.pickle[range.clone()]).ok()
            }
            Value::Line(line) => Some(line),
            _ => None,
        }
    }

    pub(super) fn int(&self, id: Id) -> Option<i64> {
        match *self.get(id) {
            Value::Int(int) => Some(int),
            Value::Bool(bool) => Some(bool.into()),
            _ => None,
        }
    }

    pub(super) fn float(&self, id: Id) -> Option<f64> {
        match *self.get(id) {
            Value::Float(float) => Some(float),
            _ => self.int(id).map(|int| int as f64),
        }
    }

    /// Whether the dictionary `id` has the value true under `key`.
    pub(super) fn is_set(&self, id: Id, key: &str) -> bool {
        let (Value::Dict(pairs) | Value::Object(pairs)) = self.get(id) else { return false };
        let found = pairs.iter().rev().find(|(name, _)| self.text(*name) == Some(key));
        // Whatever Python takes for true, as PyTorch does.
        found.and_then(|&(_, value)| self.int(value)).is_some_and(|value| value != 0)
    }
}
