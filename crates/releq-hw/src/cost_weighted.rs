//! Bits weighed by memory accesses and MACs.

use releq_core::{Cost, CostError, CostModel, LayerBits, LayerProfile};
use serde::{Deserialize, Serialize};

use crate::{HwError, error::not_negative, price::whole};

/// Weight bits of every layer, weighed by its memory accesses and MACs: `(weights * R + macs) * bits`, where
/// `R` is `memory_over_mac`.
///
/// # Units
/// Bits times the cost of a MAC. Any bitwidth from 1 to 32; float counts as 32.
///
/// # Source
/// Elthakeb et al., "ReLeQ", arXiv 1811.01704, the definition of State_Quantization.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Settings", into = "Settings")]
pub struct CostWeighted {
    memory_over_mac: f64,
}

/// The constants as written in a file, before they are checked.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
struct Settings {
    memory_over_mac: f64,
}

releq_core::named_fields!(Settings);

impl Default for Settings {
    fn default() -> Self {
        CostWeighted::default().into()
    }
}

impl Default for CostWeighted {
    /// ReLeQ's ratio, 120.
    ///
    /// The paper cites it to TETRIS (Gao et al., ASPLOS 2017). We found it in no text that we could read;
    /// `nn_dataflow`, the tool of TETRIS's authors, has 200 for DRAM.
    fn default() -> Self {
        Self { memory_over_mac: 120.0 }
    }
}

impl CostWeighted {
    /// A memory access costs `memory_over_mac` times as much as a MAC.
    ///
    /// # Errors
    /// [`HwError::Parameter`] unless `memory_over_mac` is finite and not negative.
    pub fn new(memory_over_mac: f64) -> Result<Self, HwError> {
        let memory_over_mac = not_negative("cost-weighted", "memory_over_mac", memory_over_mac)?;
        Ok(Self { memory_over_mac })
    }

    /// Cost of a memory access over that of a MAC.
    #[must_use]
    pub const fn memory_over_mac(&self) -> f64 {
        self.memory_over_mac
    }
}

impl TryFrom<Settings> for CostWeighted {
    type Error = HwError;
    fn try_from(settings: Settings) -> Result<Self, HwError> {
        Self::new(settings.memory_over_mac)
    }
}

impl From<CostWeighted> for Settings {
    fn from(model: CostWeighted) -> Self {
        Self { memory_over_mac: model.memory_over_mac }
    }
}

impl CostModel for CostWeighted {
    fn name(&self) -> &str {
        "cost-weighted"
    }

    fn unit(&self) -> &str {
        "weighted bits"
    }

    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        let per_bit = whole(layer.weights()).0 * self.memory_over_mac + whole(layer.macs()).0;
        Ok(Cost(per_bit * f64::from(bits.weight.get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::layers::{at, linear};

    #[test]
    fn hand_computed_cases() {
        let layer = linear(10, 10);
        let cost = |ratio| CostWeighted::new(ratio).unwrap().layer_cost(&layer, at(3, 8));
        assert_eq!(cost(120.0), Ok(Cost(121.0 * 100.0 * 3.0)));
        assert_eq!(cost(0.0), Ok(Cost(300.0)));
        assert!(CostWeighted::new(-1.0).is_err() && CostWeighted::new(f64::NAN).is_err());
        assert_eq!(serde_json::from_str::<CostWeighted>("{}").unwrap(), CostWeighted::default());
        let bad = serde_json::from_str::<CostWeighted>(r#"{"memory_over_mac":-1}"#).unwrap_err();
        assert!(bad.to_string().contains("memory_over_mac must be finite"), "{bad}");
    }
}
