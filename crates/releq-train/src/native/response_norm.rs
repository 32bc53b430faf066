//! Normalization of every value by its neighbours in other channels of the same pixel.

use super::layer::{Backward, Layer, Parameters, Pass};

/// `y = x * d^-beta` with `d = bias + alpha / size * (sum of x^2 over the neighbours)`.
pub(super) struct ResponseNorm {
    channels: usize,
    /// Neighbours on either side.
    reach: usize,
    /// `alpha / size`.
    weight: f32,
    beta: f32,
    bias: f32,
    /// `d` of one pixel, and in the backward pass what its neighbours add to the gradient.
    divisors: Vec<f32>,
    terms: Vec<f32>,
}

impl ResponseNorm {
    pub(super) fn new(channels: usize, size: usize, [alpha, beta, bias]: [f32; 3]) -> Self {
        Self {
            channels,
            reach: size / 2,
            weight: alpha / size as f32,
            beta,
            bias,
            divisors: vec![0.0; channels],
            terms: vec![0.0; channels],
        }
    }

    /// Computes the divisors of one pixel.
    fn divide(&mut self, pixel: &[f32]) {
        for (term, x) in self.terms.iter_mut().zip(pixel) {
            *term = x * x;
        }
        for channel in 0..self.channels {
            self.divisors[channel] = self.bias + self.weight * self.neighbours(channel);
        }
    }

    /// Sum of the terms of a channel's neighbours and its own.
    fn neighbours(&self, channel: usize) -> f32 {
        let end = (channel + self.reach + 1).min(self.channels);
        self.terms[channel.saturating_sub(self.reach)..end].iter().sum()
    }

    /// `d^-beta`.
    fn power(&self, divisor: f32) -> f32 {
        // Two roots are several times faster than a power, and all networks have this exponent.
        if self.beta == 0.75 {
            let root = divisor.sqrt();
            return 1.0 / (root * root.sqrt());
        }
        divisor.powf(-self.beta)
    }
}

impl Layer for ResponseNorm {
    fn forward(
        &mut self,
        inputs: &[&[f32]],
        _: &mut Parameters,
        _: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        let pixels = inputs[0].chunks_exact(self.channels);
        for (pixel, out) in pixels.zip(out.chunks_exact_mut(self.channels)) {
            self.divide(pixel);
            for ((out, x), divisor) in out.iter_mut().zip(pixel).zip(&self.divisors) {
                *out = x * self.power(*divisor);
            }
        }
    }

    fn backward(&mut self, back: Backward<'_>, _: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { inputs, mut gradient, mut upstream, .. } = back;
        let pixels = inputs[0].chunks_exact(self.channels);
        for (pixel, gradient) in pixels.zip(gradient.chunks_exact_mut(self.channels)) {
            self.divide(pixel);
            // With g the gradient of y, that of x is g * d^-beta of its own, and of every neighbour whose divisor
            // it is part of, -2 beta alpha / size * x * (g x d^(-beta - 1)).
            for channel in 0..self.channels {
                let divisor = self.divisors[channel];
                let scaled = gradient[channel] * self.power(divisor);
                self.terms[channel] = scaled * pixel[channel] / divisor;
                gradient[channel] = scaled;
            }
            let factor = 2.0 * self.beta * self.weight;
            for channel in 0..self.channels {
                gradient[channel] -= factor * pixel[channel] * self.neighbours(channel);
            }
        }
        upstream.hand_on(0, gradient, pass.buffers);
    }
}
