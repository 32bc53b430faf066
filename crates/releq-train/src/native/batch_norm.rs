//! Batch norm: statistics of the batch in training, running ones in evaluation.

use releq_kernels::{BatchMoments, FloatNorm, Isa, KernelError, Rectifier};

use super::{
    affine::Affine,
    layer::{Backward, Layer, Parameters, Pass},
};

pub(super) struct BatchNorm {
    kernel: FloatNorm,
    channels: usize,
    epsilon: f64,
    momentum: f64,
    rectifier: Rectifier,
    moments: BatchMoments,
    inverse: Vec<f32>,
    scale: Vec<f32>,
}

impl BatchNorm {
    pub(super) fn new(
        channels: usize,
        (epsilon, momentum): (f64, f64),
        rectifier: Rectifier,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            kernel: FloatNorm::new(channels, isa)?,
            channels,
            epsilon,
            momentum,
            rectifier,
            moments: BatchMoments::default(),
            inverse: Vec::new(),
            scale: Vec::new(),
        })
    }
}

/// `1 / sqrt(variance + epsilon)` and that times the weight.
fn factors(
    variance: &[f32],
    epsilon: f64,
    weight: &[f32],
    inverse: &mut Vec<f32>,
    scale: &mut Vec<f32>,
) {
    inverse.clear();
    inverse.extend(variance.iter().map(|&v| (1.0 / (f64::from(v) + epsilon).sqrt()) as f32));
    scale.clear();
    scale.extend(weight.iter().zip(&*inverse).map(|(weight, inverse)| weight * inverse));
}

impl Layer for BatchNorm {
    fn affine(&self, parameters: &Parameters) -> Option<Affine> {
        let (weight, shift) = (parameters.weight.as_ref()?, parameters.bias.as_ref()?);
        let [mean, variance] = &parameters.running;
        let (mut inverse, mut scale) = (Vec::new(), Vec::new());
        factors(variance, self.epsilon, &weight.values, &mut inverse, &mut scale);
        Some(Affine { mean: mean.clone(), scale, shift: shift.values.clone() })
    }

    fn forward(
        &mut self,
        inputs: &[&[f32]],
        parameters: &mut Parameters,
        pass: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        let (Some(weight), Some(bias)) = (&parameters.weight, &parameters.bias) else { return };
        let running = &mut parameters.running;
        if pass.step.is_some() {
            self.kernel.moments(inputs[0], &mut self.moments);
            let BatchMoments { mean, variance } = &self.moments;
            // PyTorch normalizes with the biased variance, but keeps the unbiased one.
            let count = (inputs[0].len() / self.channels) as f64;
            let unbiased = count / (count - 1.0);
            for (running, (seen, factor)) in
                running.iter_mut().zip([(mean, 1.0), (variance, unbiased)])
            {
                for (old, new) in running.iter_mut().zip(seen) {
                    let new = f64::from(*new) * factor;
                    *old = ((1.0 - self.momentum) * f64::from(*old) + self.momentum * new) as f32;
                }
            }
        } else {
            let [mean, variance] = running;
            self.moments.mean.clone_from(mean);
            self.moments.variance.clone_from(variance);
        }
        let BatchMoments { mean, variance } = &self.moments;
        factors(variance, self.epsilon, &weight.values, &mut self.inverse, &mut self.scale);
        self.kernel.normalize(inputs[0], [mean, &self.scale, &bias.values], self.rectifier, out);
    }

    fn backward(&mut self, back: Backward<'_>, parameters: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { inputs, mut gradient, mut upstream, .. } = back;
        let Parameters { weight: Some(weight), bias: Some(bias), .. } = parameters else { return };
        self.kernel.backward(
            inputs[0],
            [&self.moments.mean, &self.scale, &bias.values],
            Some(&self.inverse),
            self.rectifier,
            &mut gradient,
            [&mut weight.gradient, &mut bias.gradient],
        );
        upstream.hand_on(0, gradient, pass.buffers);
    }
}
