//! Tensors beside a network's parameters that change what is computed.
//!
//! Counters, scales of quantizers and copies of the weights change nothing, and are passed over. A layer that the
//! network lacks does: PyTorch's `load_state_dict` refuses it, and so does this crate.

use std::collections::BTreeMap;

use crate::stored::Stored;

/// Last parts of the names of what a layer computes with.
const ROLES: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// How the parts of names begin that adapters add: LoRA, `LoHa`, `LoKr`, OFT, (IA)3.
const ADAPTERS: [&str; 5] = ["lora_", "hada_", "lokr_", "oft_", "ia3_"];

/// First parts of the names of what training computes with and a network does not.
const TRAINING: [&str; 5] = ["criterion", "criterions", "loss", "loss_fn", "loss_function"];

/// Whether a part of a name is of an adapter.
pub(crate) fn is_adapter(part: &str) -> bool {
    ADAPTERS.iter().any(|adapter| part.starts_with(adapter))
}

/// Whether a part of a name is of an optimizer.
pub(crate) fn is_optimizer(part: &str) -> bool {
    part == "optim" || part.starts_with("optim_") || part.starts_with("optimizer")
}

/// Whether the tensor that is called `name` where the network is, and is no parameter of it, changes what a network
/// with it computes.
pub(crate) fn is_extra(
    name: &str,
    tensor: &Stored,
    expected: &BTreeMap<String, Vec<usize>>,
) -> bool {
    let Stored::Plain(view) = tensor else { return false };
    if !view.dtype.is_weight() || expected.contains_key(name) {
        return false;
    }
    if name.split('.').any(is_adapter) {
        return true;
    }
    let Some((layer, role)) = name.rsplit_once('.') else { return false };
    let first = layer.split('.').next().unwrap_or_default();
    if !ROLES.contains(&role) || TRAINING.contains(&first) || layer.split('.').any(is_optimizer) {
        return false;
    }
    // Of an average of the weights, or of a teacher.
    let mut endings = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
    let is_copy = |ending| expected.get(ending).is_some_and(|shape| **shape == *view.shape);
    !endings.any(is_copy)
}
