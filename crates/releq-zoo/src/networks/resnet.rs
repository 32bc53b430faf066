//! ResNet-20.

use releq_core::{Conv2d, Network};

use super::valid;

/// ResNet-20 for 32x32 colour images (He et al. 2015, section 4.2) with 1x1 projections as shortcuts,
/// as the ReLeQ authors train it: 22 quantizable layers, 272,474 parameters.
#[must_use]
pub fn resnet20() -> Network {
    let conv = |channels, kernel: usize, stride| {
        Conv2d::new(channels, kernel).stride(stride).padding(kernel / 2).without_bias()
    };
    let mut builder = Network::builder("resnet20", [3, 32, 32])
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
            let mut shortcut = input;
            if narrows {
                builder = builder
                    .conv(name("downsample.0"), conv(channels, 1, 2))
                    .from(&shortcut)
                    .batch_norm(name("downsample.1"));
                shortcut = name("downsample.1");
            }
            builder = builder.add(name("add"), &[&name("bn2"), &shortcut]).relu(name("relu2"));
            input = name("relu2");
        }
    }
    valid(builder.global_avg_pool("avgpool").linear("fc", 10))
}
