//! Settings of a node, by name.

use super::proto;

/// Attributes of a node.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<proto::Attribute>);

impl Attributes {
    pub(super) const fn new(attributes: Vec<proto::Attribute>) -> Self {
        Self(attributes)
    }

    fn get(&self, name: &str) -> Option<&proto::Attribute> {
        self.0.iter().find(|attribute| attribute.name == name)
    }

    pub(super) fn integer(&self, name: &str, default: i64) -> i64 {
        self.get(name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.optional_float(name).unwrap_or(default)
    }

    pub(super) fn optional_float(&self, name: &str) -> Option<f32> {
        self.get(name)?.f
    }

    /// A list of integers; `None` if there is none of that name.
    pub(super) fn integers(&self, name: &str) -> Option<&[i64]> {
        self.get(name).map(|attribute| attribute.ints.as_slice())
    }

    pub(super) fn floats(&self, name: &str) -> Option<&[f32]> {
        self.get(name).map(|attribute| attribute.floats.as_slice())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?.s.as_ref()?).ok()
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&proto::Tensor> {
        self.get(name)?.t.as_ref()
    }

    /// Moves a tensor out, so that its values need not be copied.
    pub(super) fn take_tensor(&mut self, name: &str) -> Option<proto::Tensor> {
        self.0.iter_mut().find(|attribute| attribute.name == name)?.t.take()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}
