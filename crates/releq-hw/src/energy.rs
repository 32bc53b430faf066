//! Energy of a bit-parallel circuit, from energies per operation.

use releq_core::{Cost, CostError, CostModel, LayerBits, LayerProfile};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    HwError,
    error::not_negative,
    price::{whole, wide},
};

/// Energy of one layer in picojoules, split into its parts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnergyPj {
    /// Multiplications and additions.
    pub mac: f64,
    /// Reading every weight once from DRAM.
    pub weight_memory: f64,
    /// Reading inputs and writing outputs once, on chip.
    pub activation_memory: f64,
}

impl EnergyPj {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.mac + self.weight_memory + self.activation_memory
    }
}

/// Energy of bit-parallel multipliers with an adder of fixed width, weights from DRAM and activations from
/// SRAM, all constants at 45 nm.
///
/// ```text
/// mac    = mul_pj_per_bit2 * bw * ba + mul_pj_per_bit * sqrt(bw * ba) + add_pj_per_bit * accumulator_bits
/// energy = macs * mac + weights * bw * dram_pj_per_bit + (inputs + outputs) * ba * sram_pj_per_bit
/// ```
///
/// A MAC with a float operand takes `float_mac_pj`, whatever the bits of the other operand.
///
/// Not a model of bit-serial hardware, whose arithmetic is linear in the bits: see
/// [`ConstantPower`](crate::ConstantPower) for that. The addition alone, 0.1 pJ, limits what fewer bits
/// can save on a MAC.
///
/// # Units
/// Picojoules of one inference, batch 1. Any bitwidth from 1 to 32, and float.
///
/// # Source
/// Horowitz, "Computing's energy problem", ISSCC 2014 (int32 addition 0.1 pJ, multiplication 3.1 pJ; float32
/// addition 0.9 pJ, multiplication 3.7 pJ; 32 bits of DRAM 640 pJ), scaled with the bits as in QKeras (`qtools/config_public.py`; for unequal operands
/// `multiplier_impl.py` takes their geometric mean).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct Energy {
    /// Quadratic part of a multiplication in pJ/bit^2: 0.002994791667 (QKeras `fpm_mul`).
    pub mul_pj_per_bit2: f64,
    /// Linear part of a multiplication in pJ/bit: 0.001041666667 (QKeras `fpm_mul`).
    pub mul_pj_per_bit: f64,
    /// An addition in pJ/bit: 0.003125 (QKeras `fpm_add`).
    pub add_pj_per_bit: f64,
    /// Width of the accumulator in bits: 32 (our assumption).
    pub accumulator_bits: u8,
    /// A float32 multiplication and addition in pJ: 3.7 + 0.9 (Horowitz).
    pub float_mac_pj: f64,
    /// DRAM in pJ/bit: 20.3125 (QKeras `dram_rd`; Horowitz has 640 pJ for 32 bits, 20 pJ/bit).
    pub dram_pj_per_bit: f64,
    /// SRAM in pJ/bit: 0.15625, from 5 pJ for 32 bits of a 32 KB array (EIE, table I).
    pub sram_pj_per_bit: f64,
}

impl Default for Energy {
    fn default() -> Self {
        Self {
            mul_pj_per_bit2: 0.002_994_791_667,
            mul_pj_per_bit: 0.001_041_666_667,
            add_pj_per_bit: 0.003_125,
            accumulator_bits: 32,
            float_mac_pj: 4.6,
            dram_pj_per_bit: 20.312_5,
            sram_pj_per_bit: 5.0 / 32.0,
        }
    }
}

impl Energy {
    /// The constants, if every one is finite and not negative.
    ///
    /// # Errors
    /// [`HwError::Parameter`] naming the first that is not.
    pub fn checked(self) -> Result<Self, HwError> {
        for (field, value) in [
            ("mul_pj_per_bit2", self.mul_pj_per_bit2),
            ("mul_pj_per_bit", self.mul_pj_per_bit),
            ("add_pj_per_bit", self.add_pj_per_bit),
            ("float_mac_pj", self.float_mac_pj),
            ("dram_pj_per_bit", self.dram_pj_per_bit),
            ("sram_pj_per_bit", self.sram_pj_per_bit),
        ] {
            not_negative("energy", field, value)?;
        }
        Ok(self)
    }

    /// Energy in picojoules of one multiply-accumulate.
    #[must_use]
    pub fn mac_pj(&self, bits: LayerBits) -> f64 {
        let (Some(weight), Some(activation)) = (bits.weight.integer(), bits.activation.integer())
        else {
            return self.float_mac_pj;
        };
        let product = f64::from(weight) * f64::from(activation);
        self.mul_pj_per_bit2 * product
            + self.mul_pj_per_bit * product.sqrt()
            + self.add_pj_per_bit * f64::from(self.accumulator_bits)
    }

    /// Energy of one inference through `layer`, split into its parts.
    #[must_use]
    pub fn breakdown(&self, layer: &LayerProfile, bits: LayerBits) -> EnergyPj {
        let weights = layer.weights() * wide(bits.weight);
        let activations =
            (layer.in_activations() + layer.out_activations()) * wide(bits.activation);
        EnergyPj {
            mac: whole(layer.macs()).0 * self.mac_pj(bits),
            weight_memory: whole(weights).0 * self.dram_pj_per_bit,
            activation_memory: whole(activations).0 * self.sram_pj_per_bit,
        }
    }
}

impl Serialize for Energy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Energy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(releq_core::Named(deserializer))?.checked().map_err(de::Error::custom)
    }
}

impl CostModel for Energy {
    fn name(&self) -> &str {
        "energy"
    }

    fn unit(&self) -> &str {
        "pJ"
    }

    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        Ok(Cost(self.breakdown(layer, bits).total()))
    }
}

#[cfg(test)]
mod tests {
    use releq_core::Bitwidth;

    use super::*;
    use crate::price::layers::{at, lenet};

    #[test]
    fn hand_computed_cases() {
        let energy = Energy::default();
        // 32 bits: Horowitz's 3.1 + 0.1; 8 bits: 0.2 + 0.1.
        assert!((energy.mac_pj(at(32, 32)) - 3.2).abs() < 1e-6);
        assert!((energy.mac_pj(at(8, 8)) - 0.3).abs() < 1e-6);
        let float = LayerBits::weights_only(Bitwidth::FLOAT);
        assert_eq!(energy.mac_pj(float), 4.6);
        assert_eq!(energy.breakdown(&lenet()[0], float).weight_memory, 500.0 * 32.0 * 20.3125);
        let layer = energy.breakdown(&lenet()[0], at(2, 8));
        assert!((layer.mac - 43_800.0).abs() < 1e-4);
        assert_eq!(layer.weight_memory, 20_312.5);
        assert_eq!(layer.activation_memory, (784.0 + 11_520.0) * 8.0 * 0.15625);
    }

    #[test]
    fn bad_constants_are_named() {
        let bad = Energy { dram_pj_per_bit: -1.0, ..Energy::default() }.checked();
        assert!(matches!(bad, Err(HwError::Parameter { field: "dram_pj_per_bit", .. })));
        assert!(Energy { add_pj_per_bit: f64::NAN, ..Energy::default() }.checked().is_err());
        assert!(Energy::default().checked().is_ok());
        let read = |json| serde_json::from_str::<Energy>(json);
        let bad = read(r#"{"dram_pj_per_bit": -1}"#).unwrap_err().to_string();
        assert!(bad.contains("dram_pj_per_bit must be finite and not negative, got -1"), "{bad}");
        let free = Energy { dram_pj_per_bit: 0.0, ..Energy::default() };
        assert_eq!(read(&serde_json::to_string(&free).unwrap()).unwrap(), free);
    }
}
