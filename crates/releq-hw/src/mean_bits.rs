//! Mean bitwidth of the weights, as a cost.

use releq_core::{Cost, CostError, CostModel, LayerBits, LayerProfile};
use serde::{Deserialize, Serialize};

/// Weight bits of every layer, whatever its size.
///
/// A network costs the *sum* of its layers' bits, so that the model is additive like the others. Divided by
/// the cost at the highest bitwidth, that is the mean bitwidth over the highest one: the State_Quantization
/// of the code released with ReLeQ.
///
/// A float layer costs 32 bits, although
/// [`BitwidthAssignment::mean`](releq_core::BitwidthAssignment::mean) leaves it out: if it cost nothing, a
/// search that may choose float would choose nothing else. Where float layers are fixed in advance, price
/// the searched layers alone, and the two agree.
///
/// # Units
/// Bits, summed over layers. Any bitwidth from 1 to 32; float counts as 32.
///
/// # Source
/// The code released with Elthakeb et al., "ReLeQ", arXiv 1811.01704.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeanBits;

impl CostModel for MeanBits {
    fn name(&self) -> &str {
        "mean-bits"
    }

    fn unit(&self) -> &str {
        "bits"
    }

    fn layer_cost(&self, _: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        Ok(Cost(bits.weight.get().into()))
    }

    fn searched_layers_only(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use releq_core::Bitwidth;

    use super::*;
    use crate::price::layers::{at, lenet};

    #[test]
    fn the_sum_of_bits_and_no_free_float() {
        let layers = lenet();
        let bits = [at(2, 8), at(2, 8), at(3, 8), at(2, 8)];
        assert_eq!(MeanBits.network_cost(&layers, &bits), Ok(Cost(9.0)));
        let float = LayerBits::weights_only(Bitwidth::FLOAT);
        assert_eq!(MeanBits.layer_cost(&layers[0], float), Ok(Cost(32.0)));
    }
}
