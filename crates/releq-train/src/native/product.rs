//! Products of two inputs.

use super::layer::{Backward, Layer, Parameters, Pass};

/// Product of two inputs of one shape.
pub(super) struct Mul;

impl Layer for Mul {
    fn forward(
        &mut self,
        inputs: &[&[f32]],
        _: &mut Parameters,
        _: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        for (out, (first, second)) in out.iter_mut().zip(inputs[0].iter().zip(inputs[1])) {
            *out = first * second;
        }
    }

    fn backward(&mut self, back: Backward<'_>, _: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { inputs, mut gradient, mut upstream, .. } = back;
        upstream.write(1, gradient.len(), pass.buffers, |into, accumulate| {
            multiply(&gradient, inputs[0], into, accumulate);
        });
        gradient.iter_mut().zip(inputs[1]).for_each(|(gradient, second)| *gradient *= second);
        upstream.hand_on(0, gradient, pass.buffers);
    }
}

/// `into = a * b`, or added to it.
fn multiply(a: &[f32], b: &[f32], into: &mut [f32], accumulate: bool) {
    let terms = into.iter_mut().zip(a.iter().zip(b));
    if accumulate {
        terms.for_each(|(into, (a, b))| *into += a * b);
    } else {
        terms.for_each(|(into, (a, b))| *into = a * b);
    }
}

/// Product of an image and a factor for every channel, as in squeeze and excitation.
pub(super) struct Gate {
    /// Which input is the image; the other one has the factors.
    pub(super) image: usize,
    pub(super) channels: usize,
    pub(super) area: usize,
}

impl Layer for Gate {
    fn forward(
        &mut self,
        inputs: &[&[f32]],
        _: &mut Parameters,
        _: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        let (image, factors) = (inputs[self.image], inputs[1 - self.image]);
        let values = self.channels * self.area;
        let samples = image.chunks_exact(values).zip(factors.chunks_exact(self.channels));
        for ((image, factors), out) in samples.zip(out.chunks_exact_mut(values)) {
            let pixels = image.chunks_exact(self.channels);
            for (pixel, out) in pixels.zip(out.chunks_exact_mut(self.channels)) {
                multiply(pixel, factors, out, false);
            }
        }
    }

    fn backward(&mut self, back: Backward<'_>, _: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { inputs, mut gradient, mut upstream, .. } = back;
        let (image, factors) = (inputs[self.image], inputs[1 - self.image]);
        let values = self.channels * self.area;
        upstream.write(1 - self.image, factors.len(), pass.buffers, |into, accumulate| {
            if !accumulate {
                into.fill(0.0);
            }
            let samples = image.chunks_exact(values).zip(gradient.chunks_exact(values));
            for ((image, gradient), into) in samples.zip(into.chunks_exact_mut(self.channels)) {
                let pixels = image.chunks_exact(self.channels);
                for (pixel, gradient) in pixels.zip(gradient.chunks_exact(self.channels)) {
                    multiply(pixel, gradient, into, true);
                }
            }
        });
        let samples = gradient.chunks_exact_mut(values).zip(factors.chunks_exact(self.channels));
        for (gradient, factors) in samples {
            for gradient in gradient.chunks_exact_mut(self.channels) {
                gradient.iter_mut().zip(factors).for_each(|(gradient, factor)| *gradient *= factor);
            }
        }
        upstream.hand_on(self.image, gradient, pass.buffers);
    }
}
