//! A factor and a summand for every channel.

use releq_kernels::{FloatNorm, Isa, KernelError, Rectifier};

use super::{
    affine::Affine,
    layer::{Backward, Layer, Parameters, Pass},
};

pub(super) struct ScaleShift {
    /// A batch norm whose mean is zero and whose scale does not depend on the batch.
    kernel: FloatNorm,
    mean: Vec<f32>,
    rectifier: Rectifier,
}

impl ScaleShift {
    pub(super) fn new(
        channels: usize,
        rectifier: Rectifier,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        Ok(Self { kernel: FloatNorm::new(channels, isa)?, mean: vec![0.0; channels], rectifier })
    }
}

impl Layer for ScaleShift {
    fn affine(&self, parameters: &Parameters) -> Option<Affine> {
        let (scale, shift) = (parameters.weight.as_ref()?, parameters.bias.as_ref()?);
        let (scale, shift) = (scale.values.clone(), shift.values.clone());
        Some(Affine { mean: self.mean.clone(), scale, shift })
    }

    fn forward(
        &mut self,
        inputs: &[&[f32]],
        parameters: &mut Parameters,
        _: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        let (Some(scale), Some(shift)) = (&parameters.weight, &parameters.bias) else { return };
        let factors = [&self.mean[..], &scale.values, &shift.values];
        self.kernel.normalize(inputs[0], factors, self.rectifier, out);
    }

    fn backward(&mut self, back: Backward<'_>, parameters: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { inputs, mut gradient, mut upstream, .. } = back;
        let Parameters { weight: Some(scale), bias: Some(shift), .. } = parameters else { return };
        self.kernel.backward(
            inputs[0],
            [&self.mean, &scale.values, &shift.values],
            None,
            self.rectifier,
            &mut gradient,
            [&mut scale.gradient, &mut shift.gradient],
        );
        upstream.hand_on(0, gradient, pass.buffers);
    }
}
