//! Bit operations, the product form.

use releq_core::{Cost, CostError, CostModel, LayerBits, LayerProfile};
use serde::{Deserialize, Serialize};

use crate::price::{whole, wide};

/// Bit operations (BOPs): `macs * weight bits * activation bits`.
///
/// A proxy that assumes no particular machine: half the bits are half the work. For NNCF's other count of
/// the same name see [`BitOperationsNncf`](crate::BitOperationsNncf).
///
/// # Units
/// Bit operations of one inference. Any bitwidth from 1 to 32; float counts as 32.
///
/// # Source
/// The form of public BOPs calculators (`macs * bw * ba`); remembered to be that of HAWQ as well. Adders and
/// accumulator width, which Baskin et al. 2018 include, are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BitOperations;

impl BitOperations {
    /// Exact bit operations of one inference through `layer`.
    #[must_use]
    pub fn count(&self, layer: &LayerProfile, bits: LayerBits) -> u64 {
        layer.macs() * wide(bits.weight) * wide(bits.activation)
    }
}

impl CostModel for BitOperations {
    fn name(&self) -> &str {
        "bitops"
    }

    fn unit(&self) -> &str {
        "bit operations"
    }

    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        Ok(whole(self.count(layer, bits)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::layers::{at, lenet};

    #[test]
    fn hand_computed_cases() {
        let lenet = lenet();
        // 24 * 24 windows of 20 * 25 weights, times 8 * 8 and times 2 * 8.
        assert_eq!(BitOperations.count(&lenet[0], at(8, 8)), 18_432_000);
        assert_eq!(BitOperations.count(&lenet[0], at(2, 8)), 4_608_000);
        assert_eq!(BitOperations.count(&lenet[3], at(1, 1)), 5_000);
    }
}
