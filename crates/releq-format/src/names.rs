//! From the names in a file to those of a network.

/// Keys that checkpoints keep their weights under, in the order in which they are tried.
const KEYS: [&str; 6] = ["", "state_dict", "model_state_dict", "model", "net", "weights"];

/// Parts of a name that wrappers of models add: `DataParallel`, `torch.compile`.
const WRAPPERS: [&str; 2] = ["module", "_orig_mod"];

/// Counters of batch norm that a forward pass does not need.
const IGNORED: &str = "num_batches_tracked";

/// How layers of a network are called in checkpoints that call them something else.
///
/// # Examples
///
/// ```
/// use releq_format::NameMap;
///
/// let names = NameMap::new().key("ema").layer("head", "fc");
/// # let _ = names;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameMap {
    key: Option<String>,
    layers: Vec<(String, String)>,
}

impl NameMap {
    /// Names as the network has them, the usual keys, wrappers dropped.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known to differ for a network of the zoo; [`new`](Self::new) for any other.
    ///
    /// The ResNets of akamaster/pytorch_resnet_cifar10 and kuangliu/pytorch-cifar have `linear` and
    /// `shortcut` where others have `fc` and `downsample`.
    #[must_use]
    pub fn of(network: &str) -> Self {
        match network {
            "resnet20" => Self::new()
                .layer("linear", "fc")
                .layer("layer2.0.shortcut", "layer2.0.downsample")
                .layer("layer3.0.shortcut", "layer3.0.downsample"),
            "resnet20_option_a" => Self::new().layer("fc", "linear"),
            _ => Self::new(),
        }
    }

    /// Takes the weights that stand under this key (a dotted path), where a file has several.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The layer that a file calls `file`, and all below it, is called `network` in the network.
    #[must_use]
    pub fn layer(mut self, file: impl Into<String>, network: impl Into<String>) -> Self {
        self.layers.push((file.into(), network.into()));
        self
    }

    /// The parameters that the tensors `names` stand for, beside the names, under the key where most of
    /// them are `known`.
    pub(crate) fn translate<'a>(
        &self,
        names: impl Iterator<Item = &'a str> + Clone,
        known: impl Fn(&str) -> bool,
    ) -> Vec<(String, &'a str)> {
        let below = |key: &str| -> Vec<(String, &'a str)> {
            names.clone().filter_map(|name| Some((self.parameter(name, key)?, name))).collect()
        };
        if let Some(key) = &self.key {
            return below(key);
        }
        let count = |tensors: &[(String, &str)]| tensors.iter().filter(|(p, _)| known(p)).count();
        let mut best = below(KEYS[0]);
        for key in &KEYS[1..] {
            let tensors = below(key);
            if count(&tensors) > count(&best) {
                best = tensors;
            }
        }
        best
    }

    /// The parameter that the tensor `name` stands for, if it is one under `key`.
    fn parameter(&self, name: &str, key: &str) -> Option<String> {
        let name = if key.is_empty() { name } else { name.strip_prefix(key)?.strip_prefix('.')? };
        let parts: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
        if parts.last() == Some(&IGNORED) {
            return None;
        }
        let name = parts.join(".");
        let renamed = self.layers.iter().find_map(|(file, network)| {
            let rest = name.strip_prefix(file.as_str())?;
            rest.starts_with('.').then(|| format!("{network}{rest}"))
        });
        Some(renamed.unwrap_or(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(map: &NameMap, file: &[&str], known: &[&str], expected: &[(&str, &str)]) {
        let got = map.translate(file.iter().copied(), |name| known.contains(&name));
        let got: Vec<_> = got.iter().map(|(parameter, name)| (parameter.as_str(), *name)).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn keys_and_wrappers_are_found_and_siblings_left_out() {
        let map = NameMap::new();
        let known = ["conv1.weight", "features.0.weight"];
        check(&map, &["conv1.weight"], &known, &[("conv1.weight", "conv1.weight")]);
        check(
            &map,
            &["optimizer.state.0.momentum_buffer", "state_dict.module.conv1.weight"],
            &known,
            &[("conv1.weight", "state_dict.module.conv1.weight")],
        );
        check(
            &map,
            &["model._orig_mod.conv1.weight", "model.bn1.num_batches_tracked"],
            &known,
            &[("conv1.weight", "model._orig_mod.conv1.weight")],
        );
        // The ImageNet example wraps the features only.
        let name = "state_dict.features.module.0.weight";
        check(&map, &[name], &known, &[("features.0.weight", name)]);
        // MobileNet's own layers begin with what is a key elsewhere.
        let name = "model.0.0.weight";
        check(&map, &[name], &[name], &[(name, name)]);
    }

    #[test]
    fn renaming_takes_whole_parts_and_a_given_key_is_final() {
        let map = NameMap::of("resnet20");
        check(
            &map,
            &["linear.bias", "linear2.bias", "layer2.0.shortcut.1.running_var"],
            &[],
            &[
                ("fc.bias", "linear.bias"),
                ("linear2.bias", "linear2.bias"),
                ("layer2.0.downsample.1.running_var", "layer2.0.shortcut.1.running_var"),
            ],
        );
        let map = NameMap::new().key("ema.model");
        let file = ["ema.model.fc.bias", "ema.models.fc.bias", "state_dict.fc.bias"];
        check(&map, &file, &["fc.bias"], &[("fc.bias", "ema.model.fc.bias")]);
    }
}
