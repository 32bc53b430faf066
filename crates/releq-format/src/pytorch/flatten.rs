//! Names for the tensors of a pickle: the keys on the way to each, joined by dots.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{
    rebuild::Rebuild,
    value::{Id, Value, Values},
};
use crate::{checkpoint::Again, stored::Stored};

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

/// All tensors below the root. A container under several keys is listed under each of them. Of several tensors with
/// one name, as `a.b` is that of both `["a"]["b"]` and `["a.b"]`, all but the first come apart.
pub(super) fn tensors(
    values: &Values,
    rebuild: &Rebuild<'_>,
    pickle: usize,
) -> Result<(BTreeMap<String, Stored>, Vec<Again>), TooManyNames> {
    let budget = NAMES + NAMES_PER_BYTE.saturating_mul(pickle);
    let (above, ends, again) = (Vec::new(), Vec::new(), Vec::new());
    let mut walk = Walk { values, rebuild, budget, above, ends, tensors: BTreeMap::new(), again };
    walk.visit(values.root, &mut String::new())?;
    Ok((walk.tensors.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect(), walk.again))
}

struct Walk<'a> {
    values: &'a Values,
    rebuild: &'a Rebuild<'a>,
    budget: usize,
    /// The containers that are being listed, so that none is listed within itself.
    above: Vec<Id>,
    /// Where in the name of what is being listed each key ends, and what it is.
    ends: Vec<(usize, Key)>,
    /// With the ends of the keys.
    tensors: BTreeMap<String, (Vec<(usize, Key)>, Stored)>,
    again: Vec<Again>,
}

/// What a part of a name stands for: the key `1` and the key `"1"` are two.
#[derive(Clone, Copy, PartialEq)]
enum Key {
    Text,
    Number,
    /// Something that has no name, as 0.5 or None.
    Other(Id),
}

/// A name as Python would spell it, from where in it each key ends.
fn spelled(name: &str, ends: &[(usize, Key)]) -> String {
    let mut start = 0;
    let part = |&(end, key): &(usize, Key)| {
        let part = &name[start..end];
        start = end + 1;
        if key == Key::Text { format!("[\"{part}\"]") } else { format!("[{part}]") }
    };
    ends.iter().map(part).collect()
}

impl Walk<'_> {
    /// Lists what is in value `id`, whose name is `name`.
    fn visit(&mut self, id: Id, name: &mut String) -> Result<(), TooManyNames> {
        let pairs: &mut dyn Iterator<Item = (Option<Id>, Id)> = match self.values.get(id) {
            Value::Dict(pairs) | Value::Object(pairs) => {
                &mut pairs.iter().map(|&(key, value)| (Some(key), value))
            }
            Value::Sequence(items) => &mut items.iter().map(|&item| (None, item)),
            _ => return self.tensor(id, name),
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
            let kind = match key {
                None => {
                    name.push_str(&index.to_string());
                    Key::Number
                }
                Some(key) => match (self.values.text(key), self.values.int(key)) {
                    (Some(key), _) => {
                        name.push_str(key);
                        Key::Text
                    }
                    (None, Some(key)) => {
                        name.push_str(&key.to_string());
                        Key::Number
                    }
                    (None, None) => {
                        name.push('?');
                        Key::Other(key)
                    }
                },
            };
            self.ends.push((name.len(), kind));
            self.visit(value, name)?;
            self.ends.pop();
            name.truncate(length);
        }
        self.above.pop();
        Ok(())
    }

    fn tensor(&mut self, id: Id, name: &str) -> Result<(), TooManyNames> {
        let Some(tensor) = self.rebuild.tensor(id) else { return Ok(()) };
        self.spend(name.len() + ENTRY + size_of_val(&*self.ends))?;
        let name = if name.is_empty() { ROOT } else { name };
        match self.tensors.entry(name.to_owned()) {
            Entry::Vacant(entry) => drop(entry.insert((self.ends.clone(), tensor))),
            // One key that is set twice: the later value counts.
            Entry::Occupied(mut entry) if entry.get().0 == self.ends => entry.get_mut().1 = tensor,
            Entry::Occupied(entry) => self.again.push(Again {
                name: name.to_owned(),
                first: spelled(name, &entry.get().0),
                second: spelled(name, &self.ends),
                tensor,
            }),
        }
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
