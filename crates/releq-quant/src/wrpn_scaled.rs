//! WRPN with a scale: our extension.

use releq_core::Bitwidth;
use serde::{Deserialize, Serialize};

use crate::{
    Granularity, LayerWeights, QuantError, Quantized, Quantizer, binary, exact,
    layer_weights::{check_length, max_abs},
    least_squares, mid_tread,
};

/// How [`WrpnScaled`] finds the clip of a layer or channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clip {
    /// The clip of least mean squared rounding error, searched over a histogram of the magnitudes, from the
    /// largest one down to 1/512 of it. No randomness.
    #[default]
    MinMse,
    /// The largest magnitude. At 2 bits this rounds all but the few largest weights to zero.
    MaxAbs,
}

/// `w_q = c / n * round(n * clamp(w / c, -1, 1))` with `n = 2^(bits - 1) - 1` and a clip `c` for each layer or
/// each output channel. **Our extension**, neither in the WRPN paper nor in ReLeQ.
///
/// The clip counts as constant in the gradient, and a training may [hold](Quantizer::fake_quantize_within) the one that it
/// began with. Weights that are quantized already keep their values to the last bit. The gradient is
/// 1 everywhere, outside the clip too: at 2 bits the clip of a bell-shaped layer is about 1.2 standard
/// deviations, and a gradient of 0 beyond it would freeze a fifth of the weights at the outer levels.
///
/// A layer or channel whose largest magnitude is zero or subnormal is rounded to zeros.
///
/// **1 bit**: `sign(w) * mean |w|`, the mean taken over the layer or channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WrpnScaled {
    /// How the clip is found.
    pub clip: Clip,
    /// Which weights share a clip.
    pub granularity: Granularity,
}

/// In place of the clip of a group whose weights tell none: it is found at every call.
const UNKNOWN: f32 = 0.0;

impl WrpnScaled {
    /// Whether clips are searched for; the mean magnitude and the largest one follow the weights by definition.
    fn searches(&self, bits: Bitwidth) -> bool {
        bits != Bitwidth::ONE && self.clip == Clip::MinMse
    }

    /// Rounds within `clips`, one for each group, or within those that are found.
    fn round(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        clips: Option<&[f32]>,
        out: &mut [f32],
    ) -> Result<(), QuantError> {
        weights.check(self, bits)?;
        weights.check_length("out", out.len())?;
        let group_len = self.granularity.group_len(weights);
        if let Some(clips) = clips {
            check_length("clips", clips.len(), weights.len() / group_len)?;
        }
        let groups = weights.values().chunks_exact(group_len);
        for (index, (group, out)) in groups.zip(out.chunks_exact_mut(group_len)).enumerate() {
            if bits == Bitwidth::ONE {
                binary::fake_quantize(group, out);
                continue;
            }
            let held = clips.map(|clips| clips[index]).filter(|&clip| clip > UNKNOWN);
            let clip = held.unwrap_or_else(|| self.clip(group, bits));
            mid_tread::fake_quantize(group, bits, clip, out);
        }
        Ok(())
    }

    fn clip(&self, weights: &[f32], bits: Bitwidth) -> f32 {
        let max = max_abs(weights);
        if max < f32::MIN_POSITIVE {
            // All zero, or too small for a scale of full precision: any large clip gives zeros.
            return 1.0;
        }
        // One level times the number of levels may round up; it must not round up to infinity.
        let max = max.min(f32::MAX * 0.999_999);
        match self.clip {
            Clip::MaxAbs => max,
            Clip::MinMse => {
                let n = mid_tread::levels(bits);
                if let Some(clip) = exact::clip(weights, max, n) {
                    return clip;
                }
                let bins = match self.granularity {
                    Granularity::PerLayer => least_squares::LAYER_BINS,
                    Granularity::PerChannel => least_squares::channel_bins(weights.len(), n),
                };
                least_squares::clip(weights, max, n, bins)
            }
        }
    }
}

impl Quantizer for WrpnScaled {
    fn name(&self) -> &str {
        match (self.clip, self.granularity) {
            (Clip::MinMse, Granularity::PerLayer) => "wrpn-scaled",
            (Clip::MinMse, Granularity::PerChannel) => "wrpn-scaled-per-channel",
            (Clip::MaxAbs, Granularity::PerLayer) => "wrpn-scaled-max-abs",
            (Clip::MaxAbs, Granularity::PerChannel) => "wrpn-scaled-max-abs-per-channel",
        }
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
        self.round(weights, bits, None, out)
    }

    fn clips(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
    ) -> Result<Option<Vec<f32>>, QuantError> {
        weights.check(self, bits)?;
        if !self.searches(bits) {
            return Ok(None);
        }
        let groups = weights.values().chunks_exact(self.granularity.group_len(weights));
        // Weights that are all zero tell no clip.
        let clip = |group: &[f32]| match max_abs(group) < f32::MIN_POSITIVE {
            true => UNKNOWN,
            false => self.clip(group, bits),
        };
        Ok(Some(groups.map(clip).collect()))
    }

    fn fake_quantize_within(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        clips: &[f32],
        out: &mut [f32],
    ) -> Result<(), QuantError> {
        self.round(weights, bits, Some(clips).filter(|_| self.searches(bits)), out)
    }

    fn quantize(&self, weights: LayerWeights<'_>, bits: Bitwidth) -> Result<Quantized, QuantError> {
        weights.check(self, bits)?;
        let mut codes = Vec::with_capacity(weights.len());
        let groups = weights.values().chunks_exact(self.granularity.group_len(weights));
        let scale = |group: &[f32]| match bits {
            Bitwidth::ONE => binary::quantize(group, &mut codes),
            _ => mid_tread::quantize(group, bits, self.clip(group, bits), &mut codes),
        };
        let scales = groups.map(scale).collect();
        let zero_point = match bits {
            Bitwidth::ONE => binary::ZERO_POINT,
            _ => mid_tread::levels(bits),
        };
        Quantized::new(codes, scales, zero_point, bits)
    }
}
