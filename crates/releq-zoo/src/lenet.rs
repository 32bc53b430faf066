//! LeNet.

use releq_core::Network;

use crate::valid;

/// LeNet as the ReLeQ authors train it: 20-50-500-10 on 28x28 grayscale images, 431,080 parameters.
///
/// ReLU follows the convolutions and the first linear layer. The authors' code also applies ReLU to the
/// logits. We do not, because it makes training runs fail.
#[must_use]
pub fn lenet() -> Network {
    valid(
        Network::builder("lenet", [1, 28, 28])
            .conv2d("conv1", 20, 5)
            .relu("relu1")
            .max_pool("pool1", 2, 2)
            .conv2d("conv2", 50, 5)
            .relu("relu2")
            .max_pool("pool2", 2, 2)
            .flatten("flatten")
            .linear("fc1", 500)
            .relu("relu3")
            .linear("fc2", 10),
    )
}
