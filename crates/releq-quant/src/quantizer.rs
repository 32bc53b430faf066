//! The trait that every quantization scheme implements.

use std::sync::Arc;

use releq_core::Bitwidth;

use crate::{LayerWeights, QuantError, Quantized};

/// Rounds the weights of one layer to the few levels that a bitwidth allows.
///
/// Three methods are required. `backward` is the straight-through estimator unless a scheme says otherwise,
/// and `quantize` reports that there are no integer codes unless a scheme provides them. The README has a
/// complete implementation; `check_quantizer` (feature `testing`) tests one.
pub trait Quantizer: Send + Sync + std::fmt::Debug {
    /// Name of the scheme, such as `wrpn`, with every setting that changes its answers.
    ///
    /// Reports show it, and a training resumes only with a quantizer of the same name.
    fn name(&self) -> &str;

    /// Whether weights can be quantized to this bitwidth.
    fn supports(&self, bits: Bitwidth) -> bool;

    /// Writes the quantized weights in floating point to `out`, at most `2^bits` different values in each
    /// channel. [`LayerWeights::check`] and [`LayerWeights::check_length`] do the checks listed below.
    ///
    /// # Shapes
    /// - `out`: as `weights`
    ///
    /// # Errors
    /// [`QuantError::BitwidthNotSupported`]; [`QuantError::Empty`] without weights;
    /// [`QuantError::NotFinite`] for a weight that is NaN or infinite; [`QuantError::Length`] if `out` has
    /// another length than the weights.
    fn fake_quantize(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        out: &mut [f32],
    ) -> Result<(), QuantError>;

    /// The clips that [`fake_quantize`](Self::fake_quantize) finds for these weights, one for each group of weights that share
    /// one, for a training to [hold](Self::fake_quantize_within): finite and not negative. `None`, the default, if there are
    /// none or a training is to find them anew at every step.
    ///
    /// A scheme that gives clips must round what it has rounded to itself, to the last bit: what a training ends with is kept
    /// without its clips. [`backward`](Self::backward) does not see clips that are held.
    ///
    /// # Errors
    /// As [`fake_quantize`](Self::fake_quantize).
    fn clips(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
    ) -> Result<Option<Vec<f32>>, QuantError> {
        let _ = (weights, bits);
        Ok(None)
    }

    /// As [`fake_quantize`](Self::fake_quantize), within clips that [`clips`](Self::clips) found for these weights or for those
    /// that they were. By default the clips make no difference.
    ///
    /// Weights that are trained move between the levels all the time, and a clip found anew at every step moves with them,
    /// which moves all others: one that is held leaves several points more of accuracy at 2 bits, see `docs/reproduction.md`.
    ///
    /// # Errors
    /// As [`fake_quantize`](Self::fake_quantize), and [`QuantError::Length`] for another number of clips.
    fn fake_quantize_within(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        clips: &[f32],
        out: &mut [f32],
    ) -> Result<(), QuantError> {
        let _ = clips;
        self.fake_quantize(weights, bits, out)
    }

    /// Writes the gradient with respect to the weights to `grad_in`, given `grad_out`, the gradient with
    /// respect to the quantized weights. It must be linear in `grad_out`.
    ///
    /// By default the straight-through estimator, which takes the derivative of rounding as 1: a copy.
    ///
    /// # Shapes
    /// - `grad_out` and `grad_in`: as `weights`
    ///
    /// # Errors
    /// As [`fake_quantize`](Self::fake_quantize).
    ///
    /// # Source
    /// Bengio et al. 2013 (arXiv 1308.3432), section 4.
    fn backward(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        grad_out: &[f32],
        grad_in: &mut [f32],
    ) -> Result<(), QuantError> {
        check_gradients(self, weights, bits, grad_out, grad_in)?;
        grad_in.copy_from_slice(grad_out);
        Ok(())
    }

    /// Quantizes to integer codes with one scale, or one for each channel. Dequantized, they equal what
    /// [`fake_quantize`](Self::fake_quantize) writes.
    ///
    /// Only a scheme with evenly spaced levels has such codes. Packing, export and integer kernels need
    /// them; training does not.
    ///
    /// # Errors
    /// [`QuantError::NoCodes`] if the scheme has no integer codes, which is the default. Otherwise as
    /// [`fake_quantize`](Self::fake_quantize).
    fn quantize(&self, weights: LayerWeights<'_>, bits: Bitwidth) -> Result<Quantized, QuantError> {
        let _ = (weights, bits);
        Err(QuantError::NoCodes { quantizer: self.name().to_owned() })
    }
}

macro_rules! forward {
    ($($type:ty),+) => {$(
        impl<Q: Quantizer + ?Sized> Quantizer for $type {
            fn name(&self) -> &str {
                (**self).name()
            }
            fn supports(&self, bits: Bitwidth) -> bool {
                (**self).supports(bits)
            }
            fn fake_quantize(
                &self,
                weights: LayerWeights<'_>,
                bits: Bitwidth,
                out: &mut [f32],
            ) -> Result<(), QuantError> {
                (**self).fake_quantize(weights, bits, out)
            }
            fn clips(
                &self,
                weights: LayerWeights<'_>,
                bits: Bitwidth,
            ) -> Result<Option<Vec<f32>>, QuantError> {
                (**self).clips(weights, bits)
            }
            fn fake_quantize_within(
                &self,
                weights: LayerWeights<'_>,
                bits: Bitwidth,
                clips: &[f32],
                out: &mut [f32],
            ) -> Result<(), QuantError> {
                (**self).fake_quantize_within(weights, bits, clips, out)
            }
            fn backward(
                &self,
                weights: LayerWeights<'_>,
                bits: Bitwidth,
                grad_out: &[f32],
                grad_in: &mut [f32],
            ) -> Result<(), QuantError> {
                (**self).backward(weights, bits, grad_out, grad_in)
            }
            fn quantize(
                &self,
                weights: LayerWeights<'_>,
                bits: Bitwidth,
            ) -> Result<Quantized, QuantError> {
                (**self).quantize(weights, bits)
            }
        }
    )+};
}
forward!(&Q, Box<Q>, Arc<Q>);

/// Checks the arguments of [`Quantizer::backward`].
pub(crate) fn check_gradients<Q: Quantizer + ?Sized>(
    quantizer: &Q,
    weights: LayerWeights<'_>,
    bits: Bitwidth,
    grad_out: &[f32],
    grad_in: &[f32],
) -> Result<(), QuantError> {
    weights.check(quantizer, bits)?;
    weights.check_length("grad_out", grad_out.len())?;
    weights.check_length("grad_in", grad_in.len())
}
