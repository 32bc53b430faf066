//! Names for the tensors of a pickle: the keys on the way to each, joined by dots.

use std::collections::BTreeMap;

use super::{
    rebuild::Rebuild,
    value::{Id, Value, Values},
};
use crate::stored::Stored;

/// Deepest nesting that is looked into. Weights lie a few levels deep.
const DEEPEST: usize = 32;
/// Most bytes of names, for each byte of the pickle and beyond that.
const NAMES_PER_BYTE: usize = 4;
const NAMES: usize = 4 << 20;
/// The name of a tensor that is the whole of a file.
const ROOT: &str = "(root)";
/// What an entry takes beside its name.
const ENTRY: usize = 128;

/// The pickle has few values that refer to each other in more ways than can be listed.
#[derive(Debug)]
pub(super) struct TooManyNames;

/// All tensors below the root. A container under several keys is listed under each of them.
pub(super) fn tensors(
    values: &Values,
    rebuild: &Rebuild<'_>,
    pickle: usize,
) -> Result<BTreeMap<String, Stored>, TooManyNames> {
    let budget = NAMES + NAMES_PER_BYTE.saturating_mul(pickle);
    let mut walk = Walk { values, rebuild, budget, above: Vec::new(), tensors: BTreeMap::new() };
    walk.visit(values.root, &mut String::new())?;
    Ok(walk.tensors)
}

struct Walk<'a> {
    values: &'a Values,
    rebuild: &'a Rebuild<'a>,
    budget: usize,
    /// The containers that are being listed, so that none is listed within itself.
    above: Vec<Id>,
    tensors: BTreeMap<String, Stored>,
}

impl Walk<'_> {
    /// Lists what is in value `id`, whose name is `name`.
    fn visit(&mut self, id: Id, name: &mut String) -> Result<(), TooManyNames> {
        let pairs: &mut dyn Iterator<Item = (Option<Id>, Id)> = match self.values.get(id) {
            Value::Dict(pairs) | Value::Object(pairs) => {
                &mut pairs.iter().map(|&(key, value)| (Some(key), value))
            }
            Value::Sequence(items) => &mut items.iter().map(|&item| (None, item)),
            _ => {
                if let Some(tensor) = self.rebuild.tensor(id) {
                    self.spend(name.len() + ENTRY)?;
                    let name = if name.is_empty() { ROOT } else { name.as_str() };
                    self.tensors.insert(name.to_owned(), tensor);
                }
                return Ok(());
            }
        };
        if self.above.len() == DEEPEST || self.above.contains(&id) {
            return Ok(());
        }
        self.above.push(id);
        let length = name.len();
        for (index, (key, value)) in pairs.enumerate() {
            self.spend(1)?;
            if !self.may_hold_tensors(value) {
                continue;
            }
            if length > 0 {
                name.push('.');
            }
            match key {
                None => name.push_str(&index.to_string()),
                Some(key) => match (self.values.text(key), self.values.int(key)) {
                    (Some(key), _) => name.push_str(key),
                    (None, Some(key)) => name.push_str(&key.to_string()),
                    (None, None) => name.push('?'),
                },
            }
            self.visit(value, name)?;
            name.truncate(length);
        }
        self.above.pop();
        Ok(())
    }

    fn may_hold_tensors(&self, id: Id) -> bool {
        match self.values.get(id) {
            Value::Dict(pairs) | Value::Object(pairs) => !pairs.is_empty(),
            Value::Sequence(items) => !items.is_empty(),
            Value::Tensor(..) | Value::Special(_) | Value::NumpyArray(_) => true,
            _ => false,
        }
    }

    fn spend(&mut self, bytes: usize) -> Result<(), TooManyNames> {
        self.budget = self.budget.checked_sub(bytes).ok_or(TooManyNames)?;
        Ok(())
    }
}
