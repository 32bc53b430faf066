//! ResNet-20.

use releq_core::{Conv2d, Network};

use crate::valid;

/// Type of the shortcuts between stages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shortcut {
    /// A 1x1 convolution with batch norm: option B.
    Projection,
    /// Every other pixel, padded with channels of zeros: option A.
    Padding,
}

/// ResNet-20 for 32x32 color images (He et al. 2015, section 4.2) with 1x1 projections as shortcuts,
/// as the ReLeQ authors train it: 22 quantizable layers, 272,474 parameters.
#[must_use]
pub fn resnet20() -> Network {
    resnet("resnet20", Shortcut::Projection, "fc")
}

/// ResNet-20 whose shortcuts have no parameters, as its authors describe it for CIFAR-10 and as in most
/// published checkpoints: 20 quantizable layers, 269,722 parameters.
///
/// Layer names are those of akamaster/pytorch_resnet_cifar10.
#[must_use]
pub fn resnet20_option_a() -> Network {
    resnet("resnet20_option_a", Shortcut::Padding, "linear")
}

fn resnet(name: &str, shortcut: Shortcut, classifier: &str) -> Network {
    let conv = |channels, kernel: usize, stride| {
        Conv2d::new(channels, kernel).stride(stride).padding(kernel / 2).without_bias()
    };
    let mut builder = Network::builder(name, [3, 32, 32])
        .conv("conv1", conv(16, 3, 1))
        .batch_norm("bn1")
        .relu("relu1");
    let mut input = "relu1".to_owned();
    for (stage, channels) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..3 {
            let name = |part: &str| format!("layer{}.{block}.{part}", stage + 1);
            let narrows = stage > 0 && block == 0;
            builder = builder
                .conv(name("conv1"), conv(channels, 3, if narrows { 2 } else { 1 }))
                .from(&input)
                .batch_norm(name("bn1"))
                .relu(name("relu1"))
                .conv(name("conv2"), conv(channels, 3, 1))
                .batch_norm(name("bn2"));
            let mut from = input;
            if narrows {
                (builder, from) = match shortcut {
                    Shortcut::Projection => {
                        let builder = builder
                            .conv(name("downsample.0"), conv(channels, 1, 2))
                            .from(&from)
                            .batch_norm(name("downsample.1"));
                        (builder, name("downsample.1"))
                    }
                    Shortcut::Padding => {
                        let builder =
                            builder.padded_shortcut(name("shortcut"), channels, 2).from(&from);
                        (builder, name("shortcut"))
                    }
                };
            }
            builder = builder.add(name("add"), &[&name("bn2"), &from]).relu(name("relu2"));
            input = name("relu2");
        }
    }
    valid(builder.global_avg_pool("avgpool").linear(classifier, 10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use releq_core::parameter_shapes;

    #[test]
    fn option_a_is_resnet20_without_the_two_projections() {
        let [with, without] = [resnet20(), resnet20_option_a()];
        let parameters = |network: &Network| -> usize {
            let trained = parameter_shapes(network).filter(|(name, _)| !name.contains("running_"));
            trained.map(|(_, shape)| shape.iter().product::<usize>()).sum()
        };
        // By hand: 1x1x16x32 and 1x1x32x64 weights, two batch norm parameters for each of 32 and 64 channels.
        assert_eq!(parameters(&with) - parameters(&without), 512 + 2048 + 2 * (32 + 64));
        assert_eq!(parameters(&without), 269_722);
        let kept = with.profiles().into_iter().filter(|layer| !layer.name.contains("downsample"));
        let macs = |layers: Vec<releq_core::LayerProfile>| -> Vec<u64> {
            layers.iter().map(releq_core::LayerProfile::macs).collect()
        };
        assert_eq!(macs(without.profiles()), macs(kept.collect()));
        assert_eq!(without.quantizable_layers(), 20);
    }
}
