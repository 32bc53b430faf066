//! DoReFa: mid-rise rounding of the squashed weights.

use releq_core::Bitwidth;

use crate::{
    QuantError, Quantized, Quantizer, binary,
    quantizer::{check, check_gradients, max_abs},
    rounding::round_half_even,
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
/// **1 bit**: `sign(w) * mean |w|` as in the DoReFa paper, gradient 1 everywhere.
///
/// # Source
/// Zhou et al. 2016 (arXiv 1606.06160), equation 9, as in Distiller's `dorefa_quantize_param`, which
/// the ReLeQ authors used for LeNet and ResNet-20.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dorefa;

/// Below this largest magnitude the gradient, about its inverse, would not be finite.
const DEAD: f32 = 1e-30;

/// First place of the largest magnitude, whose tanh is the maximum in the formula; `None` for a layer of
/// zeros. Found before tanh, which maps neighbouring large weights to one number, so that the gradient
/// of the maximum reaches the same weight whoever computes tanh.
fn largest(weights: &[f32]) -> Option<usize> {
    let max = max_abs(weights);
    let place = || weights.iter().position(|weight| weight.abs() == max);
    if max < DEAD { None } else { place() }
}

/// The squashed weights and their largest magnitude, 1 for a layer of zeros.
fn squash(weights: &[f32]) -> (Vec<f32>, f32) {
    let max = largest(weights).map_or(1.0, |place| weights[place].tanh().abs());
    (weights.iter().map(|weight| weight.tanh()).collect(), max)
}

impl Quantizer for Dorefa {
    fn name(&self) -> &'static str {
        "dorefa"
    }

    fn quantize(&self, weights: &[f32], bits: Bitwidth) -> Result<Quantized, QuantError> {
        if check(self.name(), weights, bits)? == 1 {
            return Ok(binary::quantize(weights));
        }
        let m = ((1u32 << bits.get()) - 1) as f32;
        let (squashed, max) = squash(weights);
        // Within 0..=255 and whole, so the cast to a code is exact.
        let code = |value: f32| round_half_even(m * (value / (2.0 * max) + 0.5)) as u8;
        Ok(Quantized {
            codes: squashed.into_iter().map(code).collect(),
            scale: 2.0 / m,
            zero_point: m / 2.0,
            bits,
        })
    }

    fn backward(
        &self,
        weights: &[f32],
        bits: Bitwidth,
        grad_out: &[f32],
        grad_in: &mut [f32],
    ) -> Result<(), QuantError> {
        let one_bit = check(self.name(), weights, bits)? == 1;
        check_gradients(weights, grad_out, grad_in)?;
        if one_bit {
            grad_in.copy_from_slice(grad_out);
            return Ok(());
        }
        let (squashed, max) = squash(weights);
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

    #[cfg(feature = "burn")]
    fn fake_quantize_tensor(
        &self,
        weights: burn::tensor::Tensor<1>,
        bits: Bitwidth,
    ) -> Result<burn::tensor::Tensor<1>, QuantError> {
        let values = crate::tensor::read(&weights)?;
        let rounded = crate::tensor::round_values(self, &values, bits, &weights.device())?;
        if bits == Bitwidth::ONE {
            return Ok(crate::tensor::straight_through(weights, rounded));
        }
        let squashed = weights.tanh();
        let smooth = match largest(&values) {
            Some(place) => squashed.clone() / squashed.slice(place..place + 1).abs(),
            None => squashed,
        };
        Ok(crate::tensor::straight_through(smooth, rounded))
    }
}
