//! A dense layer.

use burn::tensor::{Tensor, activation};

/// Kernel and bias: [`Parameter`](crate::parameter::Parameter)s on the host, tensors on a device.
///
/// # Shapes
/// - `kernel`: `[inputs, outputs]`; `bias`: `[1, outputs]`
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dense<P> {
    pub(crate) kernel: P,
    pub(crate) bias: P,
}

impl Dense<Tensor<2>> {
    /// # Shapes
    /// - input: `[rows, inputs]`; output: `[rows, outputs]`
    pub(crate) fn linear(&self, input: Tensor<2>) -> Tensor<2> {
        input.matmul(self.kernel.clone()) + self.bias.clone()
    }

    /// [`linear`](Self::linear), then ReLU.
    pub(crate) fn relu(&self, input: Tensor<2>) -> Tensor<2> {
        activation::relu(self.linear(input))
    }
}
