//! SimpleNet.

use releq_core::Network;

use crate::valid;

/// SimpleNet as the ReLeQ authors train it: 6-16-120-84-10 on 32x32 color images, 62,006 parameters.
#[must_use]
pub fn simplenet() -> Network {
    valid(
        Network::builder("simplenet", [3, 32, 32])
            .conv2d("conv1", 6, 5)
            .relu("relu1")
            .max_pool("pool1", 2, 2)
            .conv2d("conv2", 16, 5)
            .relu("relu2")
            .max_pool("pool2", 2, 2)
            .flatten("flatten")
            .linear("fc1", 120)
            .relu("relu3")
            .linear("fc2", 84)
            .relu("relu4")
            .linear("fc3", 10),
    )
}
