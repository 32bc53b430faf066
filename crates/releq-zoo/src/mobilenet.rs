//! MobileNet-V1.

use releq_core::{Conv2d, Network};

use crate::valid;

/// MobileNet-V1 (Howard et al. 2017, arXiv 1704.04861) with width multiplier 1: 224x224 color images, 1000
/// classes, 28 quantizable layers, 4,231,976 parameters.
#[must_use]
pub fn mobilenet_v1() -> Network {
    let mut builder = Network::builder("mobilenet_v1", [3, 224, 224])
        .conv("model.0.0", Conv2d::new(32, 3).stride(2).padding(1).without_bias())
        .batch_norm("model.0.1")
        .relu("model.0.2");
    let mut channels = 32;
    let blocks = [
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        (512, 1),
        (512, 1),
        (512, 1),
        (512, 1),
        (512, 1),
        (1024, 2),
        (1024, 1),
    ];
    for (index, (out_channels, stride)) in blocks.into_iter().enumerate() {
        let name = |part: usize| format!("model.{}.{part}", index + 1);
        let depthwise = Conv2d::new(channels, 3).stride(stride).padding(1).groups(channels);
        builder = builder
            .conv(name(0), depthwise.without_bias())
            .batch_norm(name(1))
            .relu(name(2))
            .conv(name(3), Conv2d::new(out_channels, 1).without_bias())
            .batch_norm(name(4))
            .relu(name(5));
        channels = out_channels;
    }
    valid(builder.global_avg_pool("avgpool").linear("fc", 1000))
}
