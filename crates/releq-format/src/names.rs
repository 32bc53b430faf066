//! From the names in a file to those of a network.

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
    ignored: Vec<String>,
}

impl NameMap {
    /// Names as the network has them, wherever in a file they are. What wrappers add to names, such as the
    /// `module` of `DataParallel`, is dropped.
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

    /// Takes the weights under this key (a dotted path), where a file has several. The empty key is the top of
    /// the file.
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

    /// Passes over a layer that the network lacks, and all below it.
    #[must_use]
    pub fn ignore(mut self, layer: impl Into<String>) -> Self {
        self.ignored.push(layer.into());
        self
    }

    /// The key that was given.
    pub(crate) fn given_key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The name in the network of what a file calls `name`.
    pub(crate) fn renamed(&self, name: String) -> String {
        let renamed = self.layers.iter().find_map(|(file, network)| {
            let rest = below(&name, file)?;
            Some(format!("{network}{rest}"))
        });
        renamed.unwrap_or(name)
    }

    /// Whether `name` is in a layer to pass over.
    pub(crate) fn is_ignored(&self, name: &str) -> bool {
        self.ignored.iter().any(|layer| below(name, layer).is_some())
    }

    /// The most parts of a name that is renamed.
    pub(crate) fn longest(&self) -> usize {
        let parts = |(file, _): &(String, String)| file.split('.').count() + 1;
        self.layers.iter().map(parts).max().unwrap_or_default()
    }
}

/// What follows `layer` in the name of something below it.
fn below<'a>(name: &'a str, layer: &str) -> Option<&'a str> {
    name.strip_prefix(layer).filter(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renaming_takes_whole_parts() {
        let map = NameMap::of("resnet20");
        for (file, network) in [
            ("linear.bias", "fc.bias"),
            ("linear2.bias", "linear2.bias"),
            ("layer2.0.shortcut.1.running_var", "layer2.0.downsample.1.running_var"),
            ("fc.bias", "fc.bias"),
        ] {
            assert_eq!(map.renamed(file.to_owned()), network);
        }
        assert_eq!(map.longest(), 4);
    }

    #[test]
    fn what_is_ignored_is_a_whole_layer() {
        let map = NameMap::new().ignore("aux");
        assert!(map.is_ignored("aux.0.weight"));
        assert!(!map.is_ignored("auxiliary.weight"));
    }
}
