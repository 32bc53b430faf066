//! Layers that change values in place: rectifiers that could not be folded into the layer before, sums, dropout.

use releq_core::Shape;
use releq_kernels::Rectifier;

use super::layer::{Backward, Layer, Parameters, Pass, pixels, to_channels_last};
use crate::dropout::dropout_mask;

/// A rectifier on its own.
pub(super) struct Rectify(pub(super) Rectifier);

impl Layer for Rectify {
    fn is_in_place(&self) -> bool {
        true
    }

    fn keeps_output(&self) -> bool {
        true
    }

    fn forward(&mut self, _: &[&[f32]], _: &mut Parameters, _: &mut Pass<'_>, out: &mut [f32]) {
        self.0.rectify(out);
    }

    fn backward(&mut self, back: Backward<'_>, _: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { output, mut gradient, mut upstream, .. } = back;
        self.0.rectify_backward(&mut gradient, output);
        upstream.hand_on(0, gradient, pass.buffers);
    }
}

/// Sum of the inputs.
pub(super) struct Add {
    pub(super) rectifier: Rectifier,
}

impl Layer for Add {
    fn is_in_place(&self) -> bool {
        true
    }

    fn keeps_output(&self) -> bool {
        self.rectifier != Rectifier::None
    }

    fn forward(
        &mut self,
        inputs: &[&[f32]],
        _: &mut Parameters,
        _: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        let Some((last, others)) = inputs.split_last() else {
            return self.rectifier.rectify(out);
        };
        for input in others {
            for (out, value) in out.iter_mut().zip(*input) {
                *out += value;
            }
        }
        // One pass for the last sum and the rectifier.
        let pairs = out.iter_mut().zip(*last);
        match self.rectifier {
            Rectifier::Relu => pairs.for_each(|(out, value)| {
                let sum = *out + value;
                *out = if sum < 0.0 { 0.0 } else { sum };
            }),
            rectifier => {
                pairs.for_each(|(out, value)| *out += value);
                rectifier.rectify(out);
            }
        }
    }

    fn backward(&mut self, back: Backward<'_>, _: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { output, mut gradient, mut upstream, .. } = back;
        self.rectifier.rectify_backward(&mut gradient, output);
        for input in 1..upstream.sources.len() {
            upstream.write(input, gradient.len(), pass.buffers, |into, accumulate| {
                if accumulate {
                    for (into, gradient) in into.iter_mut().zip(&gradient) {
                        *into += gradient;
                    }
                } else {
                    into.copy_from_slice(&gradient);
                }
            });
        }
        upstream.hand_on(0, gradient, pass.buffers);
    }
}

/// Zeroes values at random while training.
pub(super) struct Dropout {
    /// Index of the layer in the network, which chooses the mask.
    pub(super) node: usize,
    pub(super) probability: f64,
    pub(super) shape: Shape,
    pub(super) mask: Vec<f32>,
}

impl Layer for Dropout {
    fn is_in_place(&self) -> bool {
        true
    }

    fn forward(&mut self, _: &[&[f32]], _: &mut Parameters, pass: &mut Pass<'_>, out: &mut [f32]) {
        let Some(step) = pass.step else { return };
        let mask = dropout_mask(step, self.node, self.probability, out.len());
        // The mask is in the network's order.
        let (channels, area) = pixels(self.shape);
        self.mask.resize(mask.len(), 0.0);
        to_channels_last(&mask, channels, area, &mut self.mask);
        for (out, mask) in out.iter_mut().zip(&self.mask) {
            *out *= mask;
        }
    }

    fn backward(&mut self, back: Backward<'_>, _: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { mut gradient, mut upstream, .. } = back;
        for (gradient, mask) in gradient.iter_mut().zip(&self.mask) {
            *gradient *= mask;
        }
        upstream.hand_on(0, gradient, pass.buffers);
    }
}
