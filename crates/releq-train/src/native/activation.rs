//! Functions of one value, other than the rectifiers that the layer before does.

use releq_core::Activation;
use releq_kernels::{FloatFunction, FloatMap, Isa, KernelError};

use super::layer::{Backward, Layer, Parameters, Pass};

pub(super) struct Activate(FloatMap);

impl Activate {
    /// `None` for a function that there is no kernel for.
    pub(super) fn new(activation: Activation, isa: Isa) -> Result<Option<Self>, KernelError> {
        let function = match activation {
            Activation::Clip { min, max } => FloatFunction::Clip { min, max },
            Activation::Sigmoid => FloatFunction::Sigmoid,
            Activation::HardSigmoid { alpha, beta } => FloatFunction::HardSigmoid { alpha, beta },
            Activation::Silu => FloatFunction::Silu,
            Activation::HardSwish => FloatFunction::HardSwish,
            Activation::LeakyRelu { slope } => FloatFunction::LeakyRelu { slope },
            Activation::Tanh => FloatFunction::Tanh,
            Activation::Gelu => FloatFunction::Gelu,
            _ => return Ok(None),
        };
        FloatMap::new(function, isa).map(|map| Some(Self(map)))
    }
}

impl Layer for Activate {
    fn forward(
        &mut self,
        inputs: &[&[f32]],
        _: &mut Parameters,
        _: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        self.0.forward(inputs[0], out);
    }

    fn backward(&mut self, back: Backward<'_>, _: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { inputs, mut gradient, mut upstream, .. } = back;
        self.0.backward(inputs[0], &mut gradient);
        upstream.hand_on(0, gradient, pass.buffers);
    }
}
