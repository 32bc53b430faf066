//! DoReFa: mid-rise rounding of the squashed weights.

use releq_core::Bitwidth;

use crate::{
    LayerWeights, QuantError, Quantized, Quantizer, binary, layer_weights::max_abs,
    quantizer::check_gradients, rounding::round_half_even,
};

/// `w_q = 2 / m * round(m * (tanh(w) / (2 max |tanh(w)|) + 1/2)) - 1` with `m = 2^bits - 1`.
///
/// `2^bits` levels from -1 to 1, zero not among them (mid-rise). The outputs of a layer are rescaled
/// against the trained network, so retraining is needed even at 8 bits. The gradient goes straight
/// through the rounding alone: tanh, the division and the maximum are differentiated.
///
/// A layer of zeros has no maximum: it is divided by 1 instead, which puts every weight half way between
/// the two middle levels. Magnitudes below 1e-30 count as zero here.
///
/// **1 bit**: `sign(w) * mean |w|` over the layer as in the DoReFa paper, gradient 1 everywhere.
///
/// # Source
/// Zhou et al. 2016 (arXiv 1606.06160), equation 9, as in Distiller's `dorefa_quantize_param`, which
/// the ReLeQ authors used for LeNet and ResNet-20.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dorefa;

/// Below this largest magnitude the gradient, about its inverse, would not be finite.
const DEAD: f32 = 1e-30;

/// Index of the first weight of largest magnitude, whose tanh is the maximum in the formula; `None` for a
/// layer of zeros. Found before tanh, which maps neighbouring large weights to one number, so that the
/// gradient of the maximum reaches the same weight whoever computes tanh.
fn largest(weights: &[f32]) -> Option<usize> {
    let max = max_abs(weights);
    let place = || weights.iter().position(|weight| weight.abs() == max);
    if max < DEAD { None } else { place() }
}

/// The formula's rounding, at 2 bits or more.
struct Rounding {
    /// `2^bits - 1`, the highest code.
    m: f32,
    /// Largest magnitude of the squashed weights, 1 for a layer of zeros.
    max: f32,
}

impl Rounding {
    fn new(weights: &[f32], bits: Bitwidth) -> Self {
        let m = ((1u32 << bits.get()) - 1) as f32;
        Self { m, max: max_squashed(weights) }
    }

    /// The code of a weight: whole, from 0 to `m`.
    fn code(&self, weight: f32) -> f32 {
        round_half_even(self.m * (weight.tanh() / (2.0 * self.max) + 0.5))
    }

    fn scale(&self) -> f32 {
        2.0 / self.m
    }

    fn zero_point(&self) -> f32 {
        self.m / 2.0
    }
}

/// Largest magnitude of the squashed weights, 1 for a layer of zeros.
fn max_squashed(weights: &[f32]) -> f32 {
    largest(weights).map_or(1.0, |place| weights[place].tanh().abs())
}

impl Quantizer for Dorefa {
    fn name(&self) -> &str {
        "dorefa"
    }

    fn supports(&self, bits: Bitwidth) -> bool {
        bits <= Bitwidth::EIGHT
    }

    fn fake_quantize(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        out: &mut [f32],
    ) -> Result<(), QuantError> {
        weights.check(self, bits)?;
        weights.check_length("out", out.len())?;
        if bits == Bitwidth::ONE {
            binary::fake_quantize(weights.values(), out);
            return Ok(());
        }
        let rounding = Rounding::new(weights.values(), bits);
        let (scale, zero_point) = (rounding.scale(), rounding.zero_point());
        for (out, &weight) in out.iter_mut().zip(weights.values()) {
            *out = scale * (rounding.code(weight) - zero_point);
        }
        Ok(())
    }

    fn backward(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        grad_out: &[f32],
        grad_in: &mut [f32],
    ) -> Result<(), QuantError> {
        check_gradients(self, weights, bits, grad_out, grad_in)?;
        if bits == Bitwidth::ONE {
            grad_in.copy_from_slice(grad_out);
            return Ok(());
        }
        let weights = weights.values();
        let squashed: Vec<f32> = weights.iter().map(|weight| weight.tanh()).collect();
        let max = max_squashed(weights);
        // v = t / max: dv_i/dt_i = 1 / max, and through the maximum -t_i sign(t_max) / max^2.
        let through_max: f64 = squashed
            .iter()
            .zip(grad_out)
            .map(|(&value, &grad)| f64::from(value) * f64::from(grad))
            .sum();
        for ((grad_in, &grad_out), &value) in grad_in.iter_mut().zip(grad_out).zip(&squashed) {
            *grad_in = grad_out / max * (1.0 - value * value);
        }
        if let Some(place) = largest(weights) {
            let value = squashed[place];
            let correction = (through_max / (f64::from(max) * f64::from(max))) as f32;
            grad_in[place] -= value.signum() * correction * (1.0 - value * value);
        }
        Ok(())
    }

    fn quantize(&self, weights: LayerWeights<'_>, bits: Bitwidth) -> Result<Quantized, QuantError> {
        weights.check(self, bits)?;
        let values = weights.values();
        if bits == Bitwidth::ONE {
            let mut codes = Vec::with_capacity(values.len());
            let scale = binary::quantize(values, &mut codes);
            return Quantized::new(codes, vec![scale], binary::ZERO_POINT, bits);
        }
        let rounding = Rounding::new(values, bits);
        // Within 0..=255 and whole, so the cast to a code is exact.
        let codes = values.iter().map(|&weight| rounding.code(weight) as u8).collect();
        Quantized::new(codes, vec![rounding.scale()], rounding.zero_point(), bits)
    }
}
