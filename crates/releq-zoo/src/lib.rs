#![doc = include_str!("../README.md")]

mod alexnet;
mod lenet;
mod mobilenet;
mod preset;
mod resnet;
mod simplenet;
mod svhn;
mod vgg;

use releq_core::{BitwidthAssignment, Network, NetworkBuilder};

pub use alexnet::alexnet;
pub use lenet::lenet;
pub use mobilenet::mobilenet_v1;
pub use preset::{Preset, Published, preset};
pub use resnet::{resnet20, resnet20_option_a};
pub use simplenet::simplenet;
pub use svhn::{svhn, svhn10};
pub use vgg::{vgg11, vgg16, vgg16_3fc};

/// Names of all networks, for [`by_name`].
pub const NAMES: [&str; 11] = [
    "lenet",
    "simplenet",
    "svhn",
    "svhn10",
    "vgg11",
    "vgg16",
    "vgg16_3fc",
    "resnet20",
    "resnet20_option_a",
    "alexnet",
    "mobilenet_v1",
];

/// The network of this name, one of [`NAMES`].
#[must_use]
pub fn by_name(name: &str) -> Option<Network> {
    Some(match name {
        "lenet" => lenet(),
        "simplenet" => simplenet(),
        "svhn" => svhn(),
        "svhn10" => svhn10(),
        "vgg11" => vgg11(),
        "vgg16" => vgg16(),
        "vgg16_3fc" => vgg16_3fc(),
        "resnet20" => resnet20(),
        "resnet20_option_a" => resnet20_option_a(),
        "alexnet" => alexnet(),
        "mobilenet_v1" => mobilenet_v1(),
        _ => return None,
    })
}

/// Weight bits that the ReLeQ paper (arXiv 1811.01704) publishes for a network, one for each of its
/// quantizable layers.
///
/// Two published lists are longer than the authors' networks: for `svhn` and `mobilenet_v1` the 8s at
/// both ends, which have no layer, are left out (our reading); `svhn10` and `vgg16_3fc` are networks of
/// the length of the list. `resnet20_option_a` gets the list of `resnet20` without the two projections, our
/// reading again. `vgg16` has none.
#[must_use]
pub fn published_bits(name: &str) -> Option<BitwidthAssignment> {
    let bits = match name {
        "lenet" => "2-2-3-2",
        "simplenet" => "5-5-5-5-5",
        "svhn" => "4-4-4-4-4-4-4-4",
        "svhn10" => "8-4-4-4-4-4-4-4-4-8",
        "vgg11" => "8-5-8-5-6-6-6-6-8",
        "vgg16_3fc" => "8-8-8-6-8-6-8-6-8-6-8-6-8-6-8-8",
        "resnet20" => "8-2-2-3-2-2-2-3-2-3-3-3-2-2-2-3-2-2-2-2-2-8",
        "resnet20_option_a" => "8-2-2-3-2-2-2-3-2-3-3-2-2-2-3-2-2-2-2-8",
        "alexnet" => "8-4-4-4-4-4-4-8",
        "mobilenet_v1" => "5-6-6-4-4-7-8-4-6-8-5-5-8-6-7-7-7-6-8-6-8-8-6-7-5-5-7-8",
        _ => return None,
    };
    bits.parse().ok()
}

/// The network of a definition that the tests check.
#[allow(clippy::expect_used, reason = "constants that the tests build, every one")]
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
                None => assert_eq!(name, "vgg16"),
            }
        }
        // The shortcuts are the layers that the list of the other ResNet-20 has in addition.
        let with = published_bits("resnet20").unwrap();
        let layers = by_name("resnet20").unwrap().profiles();
        let kept = layers.iter().zip(with.iter()).filter(|(l, _)| !l.name.contains("downsample"));
        let kept = BitwidthAssignment::new(kept.map(|(_, &bits)| bits).collect());
        assert_eq!(published_bits("resnet20_option_a"), Some(kept.unwrap()));
        assert!(by_name("vgg99").is_none() && published_bits("vgg99").is_none());
    }
}
