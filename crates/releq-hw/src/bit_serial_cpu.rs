//! Words counted by a bit-serial CPU kernel.

use std::num::NonZeroU32;

use releq_core::{Cost, CostError, CostModel, LayerBits, LayerProfile};
use serde::{Deserialize, Serialize};

use crate::price::{at_most, channels_per_group, whole};

/// Number of popcounts for one pair of bit planes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Polarity {
    /// One: `popcount(a & w)`.
    #[default]
    Bipolar,
    /// Two: `popcount(a & w) - popcount(a & !w)`, TVM's `unipolar=True`.
    Unipolar,
}

/// The dimension along which bits are packed into words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// Input channels, as TVM does: a first layer of 3 channels fills 3 bits of every word.
    #[default]
    Channels,
    /// Input channels and kernel positions together (im2col).
    Im2col,
}

/// Words that a bit-serial CPU kernel combines by AND and popcount, for a kernel structured like TVM's.
///
/// `out_pixels * Cout * K^2 * ceil(Cin/word_bits) * bw * ba`, twice that for [`Polarity::Unipolar`]; with
/// [`Packing::Im2col`] the middle is `ceil(K^2 * Cin/word_bits)`. In a convolution of `g` groups an output channel
/// sums over `Cin/g` channels alone, which stand for `Cin`: no word holds channels of two groups, since a popcount
/// adds up its whole word. A depthwise layer thus fills one bit of every word. The time to pack the activations, linear in
/// their bits and shared by all output channels, is left out; weights are packed ahead of time.
///
/// Eight by eight bits take 64 products of planes here, but one native int8 instruction. A ratio of two of
/// these counts compares bit-serial with bit-serial kernels, not with the fastest 8-bit kernel.
///
/// # Units
/// Words of one inference, batch 1; bitwidths of 1 to 8. Float has no bit planes to count, and is an error.
///
/// # Source
/// TVM, `topi/nn/bitserial_conv2d.py` and `bitserial_util.py` (Cowan et al. 2018), whose packing
/// covers at most 8 bits. TVM has no grouped form; that rule is derived from the dense one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct BitSerialCpu {
    /// Bits of a word: 64 by default.
    pub word_bits: NonZeroU32,
    /// Number of popcounts for a pair of planes.
    pub polarity: Polarity,
    /// The dimension along which bits are packed.
    pub packing: Packing,
}

releq_core::named_fields!(BitSerialCpu);

impl Default for BitSerialCpu {
    fn default() -> Self {
        Self { word_bits: WORD_BITS, polarity: Polarity::Bipolar, packing: Packing::Channels }
    }
}

/// Most bits of either operand.
const MAX_BITS: u8 = 8;

/// A general-purpose register's 64 bits.
const WORD_BITS: NonZeroU32 = NonZeroU32::MIN.saturating_add(63);

impl BitSerialCpu {
    /// Exact words of one inference through `layer`.
    ///
    /// # Errors
    /// [`CostError::Bitwidth`] above 8 bits.
    pub fn words(&self, layer: &LayerProfile, bits: LayerBits) -> Result<u64, CostError> {
        let planes = at_most(MAX_BITS, bits.weight, self.name(), layer)?
            * at_most(MAX_BITS, bits.activation, self.name(), layer)?;
        let channels = channels_per_group(layer);
        let taps = layer.kernel.area() as u64;
        let word_bits = u64::from(self.word_bits.get());
        let words = match self.packing {
            Packing::Channels => taps * channels.div_ceil(word_bits),
            Packing::Im2col => (taps * channels).div_ceil(word_bits),
        };
        let popcounts = match self.polarity {
            Polarity::Bipolar => 1,
            Polarity::Unipolar => 2,
        };
        Ok(layer.out_activations() * words * planes * popcounts)
    }
}

impl CostModel for BitSerialCpu {
    fn name(&self) -> &str {
        "bitserial-cpu"
    }

    fn unit(&self) -> &str {
        "words"
    }

    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        self.words(layer, bits).map(whole)
    }
}

#[cfg(test)]
mod tests {
    use releq_core::Bitwidth;

    use super::*;
    use crate::price::layers::{at, depthwise, grouped, lenet};

    #[test]
    fn hand_computed_cases() {
        let lenet = lenet();
        let default = BitSerialCpu::default();
        // 576 pixels * 20 channels * 25 taps * 1 word * 64 planes; then 800 inputs are 13 words.
        assert_eq!(default.words(&lenet[0], at(8, 8)), Ok(18_432_000));
        assert_eq!(default.words(&lenet[2], at(8, 8)), Ok(416_000));
        let narrow = BitSerialCpu { word_bits: 32.try_into().unwrap(), ..default };
        assert_eq!(narrow.words(&lenet[2], at(3, 8)), Ok(300_000));
        let packed = BitSerialCpu { packing: Packing::Im2col, ..default };
        assert_eq!(packed.words(&lenet[0], at(8, 8)), Ok(18_432_000 / 25));
        let unipolar = BitSerialCpu { polarity: Polarity::Unipolar, ..default };
        assert_eq!(unipolar.words(&lenet[0], at(8, 8)), Ok(2 * 18_432_000));
        assert!(default.words(&lenet[0], at(9, 8)).is_err());
        assert!(default.words(&lenet[0], LayerBits::weights_only(Bitwidth::FLOAT)).is_err());
    }
    #[test]
    fn a_word_holds_channels_of_one_group() {
        let default = BitSerialCpu::default();
        let packed = BitSerialCpu { packing: Packing::Im2col, ..default };
        // 64 pixels of 256 outputs; 9 taps of 64 channels, of one group of 128 two words.
        let layer = |groups| grouped(groups, [128, 256], 8, [3, 1, 1]);
        assert_eq!(default.words(&layer(1), at(1, 1)), Ok(64 * 256 * 9 * 2));
        assert_eq!(default.words(&layer(2), at(1, 1)), Ok(64 * 256 * 9));
        assert_eq!(default.words(&layer(4), at(1, 1)), Ok(64 * 256 * 9));
        // 9 * 32 bits are 4.5 words.
        assert_eq!(packed.words(&layer(4), at(1, 1)), Ok(64 * 256 * 5));
        let depthwise = depthwise(32, 14, [3, 1, 1]);
        assert_eq!(default.words(&depthwise, at(4, 8)), Ok(196 * 32 * 9 * 4 * 8));
        assert_eq!(packed.words(&depthwise, at(4, 8)), Ok(196 * 32 * 4 * 8));
    }
}
