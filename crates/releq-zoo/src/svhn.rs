//! Two networks for SVHN, the street view house numbers.

use releq_core::{Conv2d, Network};

use crate::valid;

/// The network for SVHN that the ReLeQ authors released: 7 convolutions, each followed by ReLU and dropout,
/// and 1 linear layer on 32x32 color images, 584,746 parameters.
#[must_use]
pub fn svhn() -> Network {
    let mut builder = Network::builder("svhn", [3, 32, 32]);
    // Index of the convolution in the model file, its channels, its padding, and whether pooling follows.
    for (index, channels, padding, pool) in [
        (0, 32, 1, false),
        (3, 32, 1, true),
        (7, 64, 1, false),
        (10, 64, 1, true),
        (14, 128, 1, false),
        (17, 128, 1, true),
        (21, 256, 0, true),
    ] {
        builder = builder
            .conv(format!("features.{index}"), Conv2d::new(channels, 3).padding(padding))
            .relu(format!("features.{}", index + 1))
            .dropout(format!("features.{}", index + 2), 0.3);
        if pool {
            builder = builder.max_pool(format!("features.{}", index + 3), 2, 2);
        }
    }
    valid(builder.flatten("flatten").linear("classifier.0", 10))
}

/// A network of **our own** for SVHN: 8 convolutions and 2 linear layers on 32x32 color images.
///
/// The paper publishes ten bitwidths for SVHN, but the authors' code does not contain a network with ten
/// layers. Convolutions come in pairs of 32, 64, 128 and 256 channels, each pair followed by pooling;
/// 53 million multiply-accumulates.
#[must_use]
pub fn svhn10() -> Network {
    let mut builder = Network::builder("svhn10", [3, 32, 32]);
    for (index, channels) in [32, 32, 64, 64, 128, 128, 256, 256].into_iter().enumerate() {
        let number = index + 1;
        builder = builder
            .conv(format!("conv{number}"), Conv2d::new(channels, 3).padding(1))
            .relu(format!("relu{number}"));
        if number % 2 == 0 {
            builder = builder.max_pool(format!("pool{number}"), 2, 2);
        }
    }
    valid(builder.flatten("flatten").linear("fc1", 256).relu("relu9").linear("fc2", 10))
}
