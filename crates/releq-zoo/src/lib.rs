#![doc = include_str!("../README.md")]

mod alexnet;
mod lenet;
mod mobilenet;
mod preset;
mod resnet;
mod simplenet;
mod svhn;
mod vgg;

use releq_core::{BitwidthAssignment, Network, NetworkBuilder, UnknownName};

pub use alexnet::alexnet;
pub use lenet::lenet;
pub use mobilenet::{MobileNetV1, mobilenet_v1, mobilenet_v1_tf};
pub use preset::{Preset, Published, preset};
pub use resnet::{resnet20, resnet20_option_a};
pub use simplenet::simplenet;
pub use svhn::{svhn, svhn10};
pub use vgg::{vgg11, vgg16, vgg16_3fc};

/// Name, definition, and the weight bitwidths that the paper publishes.
type Entry = (&'static str, fn() -> Network, Option<&'static str>);

/// Bitwidths of MobileNet-V1, in either variant.
const MOBILENET_V1: &str = "5-6-6-4-4-7-8-4-6-8-5-5-8-6-7-7-7-6-8-6-8-8-6-7-5-5-7-8";

/// All networks.
const ZOO: [Entry; 12] = [
    ("lenet", lenet, Some("2-2-3-2")),
    ("simplenet", simplenet, Some("5-5-5-5-5")),
    ("svhn", svhn, Some("4-4-4-4-4-4-4-4")),
    ("svhn10", svhn10, Some("8-4-4-4-4-4-4-4-4-8")),
    ("vgg11", vgg11, Some("8-5-8-5-6-6-6-6-8")),
    ("vgg16", vgg16, None),
    ("vgg16_3fc", vgg16_3fc, Some("8-8-8-6-8-6-8-6-8-6-8-6-8-6-8-8")),
    ("resnet20", resnet20, Some("8-2-2-3-2-2-2-3-2-3-3-3-2-2-2-3-2-2-2-2-2-8")),
    ("resnet20_option_a", resnet20_option_a, Some("8-2-2-3-2-2-2-3-2-3-3-2-2-2-3-2-2-2-2-8")),
    ("alexnet", alexnet, Some("8-4-4-4-4-4-4-8")),
    ("mobilenet_v1", mobilenet_v1, Some(MOBILENET_V1)),
    ("mobilenet_v1_tf", mobilenet_v1_tf, None),
];

/// The names of all networks, for [`by_name`].
pub const NAMES: [&str; ZOO.len()] = {
    let mut names = [""; ZOO.len()];
    let mut index = 0;
    while index < ZOO.len() {
        names[index] = ZOO[index].0;
        index += 1;
    }
    names
};

/// Returns the network with this name, one of [`NAMES`].
///
/// # Errors
/// [`UnknownName`], suggesting the nearest name.
pub fn by_name(name: &str) -> Result<Network, UnknownName> {
    let found = ZOO.iter().find(|(known, ..)| *known == name);
    found.map(|(_, network, _)| network()).ok_or_else(|| UnknownName::new("network", name, NAMES))
}

/// Weight bitwidths that the ReLeQ paper (arXiv 1811.01704) publishes for a network, one for each of its
/// quantizable layers; `None` if there are none.
///
/// Some published lists do not fit the authors' networks. The mappings are our interpretation:
///
/// - `svhn` and `mobilenet_v1`: the list is longer than the network. The 8s at both ends, which have no layer, are left out.
///   `mobilenet_v1_tf` has the same layers, but is not the network that the paper searched, so it has no list.
/// - `svhn10` and `vgg16_3fc`: networks that have as many layers as the published list.
/// - `resnet20_option_a`: the list of `resnet20` without its two projections.
/// - `vgg16`: no list.
#[must_use]
pub fn published_bits(name: &str) -> Option<BitwidthAssignment> {
    let (.., bits) = ZOO.iter().find(|(known, ..)| *known == name)?;
    bits.and_then(|bits| bits.parse().ok())
}

/// Builds a network whose definition the tests check.
#[allow(clippy::expect_used, reason = "constants, all of which the tests build")]
fn valid(builder: NetworkBuilder) -> Network {
    builder.build().expect("a network of the zoo is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_network_and_published_bits_fit() {
        for name in NAMES {
            let network = by_name(name).unwrap();
            assert_eq!(network.name(), name);
            match published_bits(name) {
                Some(bits) => assert_eq!(bits.len(), network.quantizable_layers(), "{name}"),
                None => assert!(["vgg16", "mobilenet_v1_tf"].contains(&name), "{name}"),
            }
        }
        // The projections are the layers that only the list of `resnet20` has.
        let with = published_bits("resnet20").unwrap();
        let layers = by_name("resnet20").unwrap().profiles();
        let kept = layers.iter().zip(with.iter()).filter(|(l, _)| !l.name.contains("downsample"));
        let kept = BitwidthAssignment::new(kept.map(|(_, &bits)| bits).collect());
        assert_eq!(published_bits("resnet20_option_a"), Some(kept.unwrap()));
        assert!(
            by_name("vgg99").unwrap_err().nearest().is_some_and(|near| near.starts_with("vgg"))
                && published_bits("vgg99").is_none()
        );
    }
}
