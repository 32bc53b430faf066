//! The bit-parallel accelerator that Stripes is compared with.

use releq_core::{Cost, CostError, CostModel, LayerBits, LayerKind, LayerProfile};
use serde::{Deserialize, Serialize};

use crate::{
    StripesConfig,
    price::{at_most, named, whole},
};

/// Cycles of DaDianNao, the bit-parallel counterpart of [`Stripes`](crate::Stripes): the same peak at 16 bits,
/// and no gain from fewer.
///
/// A convolution, in groups or not, takes what Stripes takes at 16 bits, a fully connected layer
/// `ceil(In/16) * ceil(Out/256)` cycles.
///
/// # Units
/// Cycles of one inference, batch 1. The bitwidths do not matter; above 16 they are an error, as is float: the
/// chip computes with integers of 16 bits.
///
/// # Source
/// Chen et al., "DaDianNao: A Machine-Learning Supercomputer", MICRO 2014, as the baseline of Stripes
/// (MICRO 2016). Equal to Stripes at 16 bits by construction: the last, partly filled group of 16 windows is
/// counted as full, and both fold first layers of three channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaDianNao;

/// Bits of both operands.
const BITS: u8 = 16;

impl DaDianNao {
    /// Exact cycles of one inference through `layer`.
    ///
    /// # Errors
    /// As [`Stripes::cycles`](crate::Stripes::cycles).
    pub fn cycles(&self, layer: &LayerProfile, bits: LayerBits) -> Result<u64, CostError> {
        at_most(BITS, bits.weight, self.name(), layer)?;
        at_most(BITS, bits.activation, self.name(), layer)?;
        let steps =
            StripesConfig::default().steps(layer).map_err(|error| named(self.name(), error))?;
        Ok(if layer.kind == LayerKind::Linear { steps } else { steps * u64::from(BITS) })
    }
}

impl CostModel for DaDianNao {
    fn name(&self) -> &str {
        "dadiannao"
    }

    fn unit(&self) -> &str {
        "cycles"
    }

    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        self.cycles(layer, bits).map(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Stripes,
        price::layers::{at, grouped, lenet},
    };

    #[test]
    fn stripes_at_16_bits() {
        for layer in lenet().into_iter().chain([grouped(4, [64, 640], 8, [3, 1, 1])]) {
            let (twin, stripes) =
                (DaDianNao.cycles(&layer, at(2, 8)), Stripes::default().cycles(&layer, at(16, 16)));
            let stagger = if layer.kind == LayerKind::Linear { 15 } else { 0 };
            assert_eq!(twin.unwrap() + stagger, stripes.unwrap());
        }
    }

    #[test]
    fn errors_carry_its_own_name() {
        let mut uneven = grouped(2, [4, 4], 8, [3, 1, 1]);
        uneven.groups = 3;
        let message = DaDianNao.cycles(&uneven, at(8, 8)).unwrap_err().to_string();
        assert!(message.contains("dadiannao"), "{message}");
        assert!(DaDianNao.cycles(&lenet()[0], at(17, 8)).is_err());
    }
}
