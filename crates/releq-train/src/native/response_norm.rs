//! Normalization of every value by its neighbours in other channels of the same pixel.

use super::layer::{Backward, Layer, Parameters, Pass};

/// `y = x * d^-beta` with `d = bias + alpha / size * (sum of x^2 over the neighbours)`.
pub(super) struct ResponseNorm {
    /// Neighbours on either side.
    reach: usize,
    channels: usize,
    /// `alpha / size`.
    weight: f32,
    beta: f32,
    bias: f32,
    /// What is summed over neighbours, of one pixel; with zeros for those that the outermost channels lack.
    terms: Vec<f32>,
    /// The sums, or `d`.
    sums: Vec<f32>,
    /// `d^-beta`.
    powers: Vec<f32>,
}

impl ResponseNorm {
    pub(super) fn new(channels: usize, size: usize, [alpha, beta, bias]: [f32; 3]) -> Self {
        let reach = size / 2;
        Self {
            reach,
            channels,
            weight: alpha / size as f32,
            beta,
            bias,
            terms: vec![0.0; channels + 2 * reach],
            sums: vec![0.0; channels],
            powers: vec![0.0; channels],
        }
    }

    /// The terms of the channels themselves.
    fn own_terms(&mut self) -> &mut [f32] {
        &mut self.terms[self.reach..][..self.channels]
    }

    fn sum_neighbours(&mut self) {
        self.sums.fill(0.0);
        for first in 0..=2 * self.reach {
            for (sum, term) in self.sums.iter_mut().zip(&self.terms[first..]) {
                *sum += term;
            }
        }
    }

    /// Computes divisors and their powers for one pixel.
    fn divide(&mut self, pixel: &[f32]) {
        self.own_terms().iter_mut().zip(pixel).for_each(|(term, x)| *term = x * x);
        self.sum_neighbours();
        let (weight, beta, bias) = (self.weight, self.beta, self.bias);
        self.sums.iter_mut().for_each(|sum| *sum = bias + weight * *sum);
        let pairs = self.powers.iter_mut().zip(&self.sums);
        if beta == 0.75 {
            // The usual exponent: two roots are several times faster than a power.
            pairs.for_each(|(power, d)| *power = 1.0 / (d.sqrt() * d.sqrt().sqrt()));
        } else {
            pairs.for_each(|(power, d)| *power = d.powf(-beta));
        }
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
            for ((out, x), power) in out.iter_mut().zip(pixel).zip(&self.powers) {
                *out = x * power;
            }
        }
    }

    fn backward(&mut self, back: Backward<'_>, _: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { inputs, mut gradient, mut upstream, .. } = back;
        // With g the gradient of y, that of x is g * d^-beta of its own, and of every neighbour whose divisor it is
        // part of, -2 beta alpha / size * x * (g x d^(-beta - 1)).
        let factor = 2.0 * self.beta * self.weight;
        let pixels = inputs[0].chunks_exact(self.channels);
        for (pixel, gradient) in pixels.zip(gradient.chunks_exact_mut(self.channels)) {
            self.divide(pixel);
            gradient.iter_mut().zip(&self.powers).for_each(|(gradient, power)| *gradient *= power);
            let own = self.terms[self.reach..].iter_mut().zip(&self.sums);
            for ((term, divisor), (x, gradient)) in own.zip(pixel.iter().zip(&*gradient)) {
                *term = gradient * x / divisor;
            }
            self.sum_neighbours();
            for ((gradient, x), sum) in gradient.iter_mut().zip(pixel).zip(&self.sums) {
                *gradient -= factor * x * sum;
            }
        }
        upstream.hand_on(0, gradient, pass.buffers);
    }
}
