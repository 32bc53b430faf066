//! Names of layers, from what exporters call nodes and weights.

use super::{super::graph::Node, Lowering};

/// Longest name that is kept.
const LONGEST: usize = 120;

impl Lowering<'_> {
    /// A name for the layer that `node` becomes: that of the module in PyTorch, where its weight tells it, or else
    /// what the exporter calls the node.
    pub(super) fn name(&mut self, node: &Node, weight: Option<&str>) -> String {
        let module = weight.and_then(|weight| weight.strip_suffix(".weight")).map(clean);
        let name = module.filter(|name| !name.is_empty()).unwrap_or_else(|| name_of(node));
        self.free(name)
    }

    /// `name`, with a number behind it if it is taken.
    pub(super) fn free(&mut self, name: String) -> String {
        let mut free = name.clone();
        if self.names.contains_key(&name) {
            let mut number = self.names.get(&name).copied().unwrap_or(1);
            while self.names.contains_key(&free) {
                number += 1;
                free = format!("{name}_{number}");
            }
            // The next one need not count from the beginning.
            self.names.insert(name, number);
        }
        self.names.insert(free.clone(), 1);
        free
    }
}

/// What a node is called, without what exporters add.
fn name_of(node: &Node) -> String {
    let op = node.op.to_lowercase();
    // A label without a name has a space in it.
    if node.label.contains(' ') {
        return op;
    }
    let path = node.label.trim_matches('/');
    let path = path.strip_prefix("node_").unwrap_or(path);
    let mut parts: Vec<&str> = path.split('/').collect();
    // PyTorch ends a path of modules with the operation.
    if parts.len() > 1 && parts.last().is_some_and(|last| last.starts_with(node.op.as_str())) {
        parts.pop();
    }
    let mut name = String::new();
    let mut last = "";
    for part in parts {
        // `layer1/layer1.0` is one place.
        let below =
            part.strip_prefix(last).filter(|rest| !last.is_empty() && rest.starts_with('.'));
        match below {
            Some(rest) => name.push_str(rest),
            None if name.is_empty() => name.push_str(part),
            None => {
                name.push('.');
                name.push_str(part);
            }
        }
        last = part;
    }
    let name = clean(&name);
    if name.is_empty() { op } else { name }
}

/// Letters, digits and a few signs alone, so that a name can be typed.
fn clean(name: &str) -> String {
    let kept = name.chars().take(LONGEST);
    let kept: String = kept
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' })
        .collect();
    kept.trim_matches(['_', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_modules_without_what_exporters_add() {
        for (label, op, expected) in [
            ("/layer1/layer1.0/conv1/Conv", "Conv", "layer1.0.conv1"),
            ("/features/features.1/block/block.0/block.0.0/Relu_1", "Relu", "features.1.block.0.0"),
            ("node_conv2d_3", "Conv", "conv2d_3"),
            (
                "model/dense/MatMul;model/dense/BiasAdd",
                "MatMul",
                "model.dense.MatMul_model.dense.BiasAdd",
            ),
            ("Relu no. 7", "Relu", "relu"),
            ("///", "Relu", "relu"),
            ("Conv_0", "Conv", "Conv_0"),
        ] {
            let node = Node {
                label: label.to_owned(),
                op: op.to_owned(),
                domain: String::new(),
                inputs: Vec::new(),
                outputs: Vec::new(),
                attributes: Default::default(),
                matters: true,
            };
            assert_eq!(name_of(&node), expected);
        }
    }
}
