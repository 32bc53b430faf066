//! VGG for 32x32 color images, without batch normalization.

use releq_core::{Conv2d, Network, NetworkBuilder};

use crate::valid;

/// Convolutions with these numbers of channels, where 0 stands for pooling. Layers are numbered as in the
/// model file, where a convolution and its ReLU have one number each.
fn features(name: &str, channels: &[usize]) -> NetworkBuilder {
    let mut builder = Network::builder(name, [3, 32, 32]);
    let mut index = 0;
    for &channels in channels {
        if channels == 0 {
            builder = builder.max_pool(format!("features.{index}"), 2, 2);
            index += 1;
        } else {
            builder = builder
                .conv(format!("features.{index}"), Conv2d::new(channels, 3).padding(1))
                .relu(format!("features.{}", index + 1));
            index += 2;
        }
    }
    builder.flatten("flatten")
}

const VGG16: [usize; 18] =
    [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0];

/// VGG-11 as the ReLeQ authors train it: 8 convolutions and 1 linear layer, 9,225,610 parameters.
#[must_use]
pub fn vgg11() -> Network {
    let channels = [64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0];
    valid(features("vgg11", &channels).linear("classifier", 10))
}

/// VGG-16 with the single linear layer of the authors' repository: 14 layers, 14,719,818 parameters.
#[must_use]
pub fn vgg16() -> Network {
    valid(features("vgg16", &VGG16).linear("classifier", 10))
}

/// VGG-16 with three linear layers, the network to which the 16 published bitwidths apply. The width of 512
/// of the linear layers is our assumption.
#[must_use]
pub fn vgg16_3fc() -> Network {
    valid(
        features("vgg16_3fc", &VGG16)
            .linear("classifier.0", 512)
            .relu("classifier.1")
            .dropout("classifier.2", 0.5)
            .linear("classifier.3", 512)
            .relu("classifier.4")
            .dropout("classifier.5", 0.5)
            .linear("classifier.6", 10),
    )
}
