//! Bit operations, the form of NNCF.

use releq_core::{Cost, CostError, CostModel, LayerBits, LayerProfile};
use serde::{Deserialize, Serialize};

use crate::price::{whole, wide};

/// Bit complexity as NNCF counts it: `macs * max(weight bits, activation bits)`.
///
/// It is *not* the product of [`BitOperations`](crate::BitOperations): with activations at 8 bits, it never
/// rewards fewer weight bits.
///
/// # Units
/// MACs times bits of one inference. Any bitwidth from 1 to 32; float counts as 32.
///
/// # Source
/// The source code of Intel's NNCF (neural network compression framework); there the count is of FLOPs, two
/// for every MAC, which the ratios do not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BitOperationsNncf;

impl BitOperationsNncf {
    /// Exact bit complexity of one inference through `layer`.
    #[must_use]
    pub fn count(&self, layer: &LayerProfile, bits: LayerBits) -> u64 {
        layer.macs() * wide(bits.weight.max(bits.activation))
    }
}

impl CostModel for BitOperationsNncf {
    fn name(&self) -> &str {
        "bitops-nncf"
    }

    fn unit(&self) -> &str {
        "mac bits"
    }

    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        Ok(whole(self.count(layer, bits)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::layers::{at, linear};

    #[test]
    fn only_the_wider_operand_counts() {
        let layer = linear(10, 10);
        for (bits, expected) in [(at(2, 8), 800), (at(8, 8), 800), (at(8, 2), 800), (at(2, 2), 200)]
        {
            assert_eq!(BitOperationsNncf.count(&layer, bits), expected);
        }
    }
}
