//! AlexNet.

use releq_core::{Conv2d, Network};

use crate::valid;

/// AlexNet with one tower (Krizhevsky 2014, arXiv 1404.5997), with the shapes of torchvision: 224x224
/// color images, 1000 classes, 61,100,840 parameters.
#[must_use]
pub fn alexnet() -> Network {
    valid(
        Network::builder("alexnet", [3, 224, 224])
            .conv("features.0", Conv2d::new(64, 11).stride(4).padding(2))
            .relu("features.1")
            .max_pool("features.2", 3, 2)
            .conv("features.3", Conv2d::new(192, 5).padding(2))
            .relu("features.4")
            .max_pool("features.5", 3, 2)
            .conv("features.6", Conv2d::new(384, 3).padding(1))
            .relu("features.7")
            .conv("features.8", Conv2d::new(256, 3).padding(1))
            .relu("features.9")
            .conv("features.10", Conv2d::new(256, 3).padding(1))
            .relu("features.11")
            .max_pool("features.12", 3, 2)
            .flatten("flatten")
            .dropout("classifier.0", 0.5)
            .linear("classifier.1", 4096)
            .relu("classifier.2")
            .dropout("classifier.3", 0.5)
            .linear("classifier.4", 4096)
            .relu("classifier.5")
            .linear("classifier.6", 1000),
    )
}
