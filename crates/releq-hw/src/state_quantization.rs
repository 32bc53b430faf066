//! The state of quantization: what bits cost, relative to the widest.

use std::{fmt, str::FromStr};

use releq_core::{Bitwidth, CostError, LayerProfile};
use serde::{Deserialize, Serialize};

use crate::{HwError, error::not_negative, price::whole};

/// How bitwidths become the relative cost that a reward sees, in (0, 1].
///
/// Written as `cost-weighted`, `cost-weighted:200` for another ratio than 120, or `mean-bits`.
///
/// # Source
/// Elthakeb et al., "ReLeQ", arXiv 1811.01704, has the weighted form; the code that it was released with
/// computes only the mean. On the authors' complete LeNet table, their published answer 2-2-3-2 is the best
/// under the mean and not under the weighted form.
///
/// ```
/// use releq_hw::StateQuantization;
///
/// let state: StateQuantization = "cost-weighted".parse()?;
/// assert_eq!(state, StateQuantization::default());
/// assert_eq!("mean-bits".parse(), Ok(StateQuantization::MeanBits));
/// # Ok::<(), releq_hw::HwError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum StateQuantization {
    /// `sum((weights * R + macs) * bits) / (max_bits * sum(weights * R + macs))` over all layers, also those
    /// whose bits are fixed.
    CostWeighted {
        /// `R`, energy of a memory access over that of a MAC. The default 120 is cited by ReLeQ to TETRIS
        /// (Gao et al., ASPLOS 2017); we found it in no text that we could read, and `nn_dataflow`, the tool
        /// of TETRIS's authors, has 200 for DRAM.
        memory_over_mac: f64,
    },
    /// `sum(bits) / (max_bits * searched layers)` over the searched layers alone.
    MeanBits,
}

/// ReLeQ's ratio.
const MEMORY_OVER_MAC: f64 = 120.0;

const COST_WEIGHTED: &str = "cost-weighted";
const MEAN_BITS: &str = "mean-bits";

impl Default for StateQuantization {
    fn default() -> Self {
        Self::CostWeighted { memory_over_mac: MEMORY_OVER_MAC }
    }
}

impl StateQuantization {
    /// Cost of `bits` over that of `max_bits` everywhere: in (0, 1] where no layer has more.
    ///
    /// `searched` says of every layer whether its bits are searched for rather than fixed. `max_bits` is
    /// the yardstick and no limit: 8 bits cost 2 by the yardstick of 4.
    ///
    /// # Errors
    /// [`CostError::LengthMismatch`] unless there are as many `bits` and `searched` as `layers`;
    /// [`CostError::Unsupported`] if no layer counts or the ratio is negative or not finite.
    pub fn quant_state(
        &self,
        layers: &[LayerProfile],
        bits: &[Bitwidth],
        searched: &[bool],
        max_bits: Bitwidth,
    ) -> Result<f64, CostError> {
        for given in [bits.len(), searched.len()] {
            if given != layers.len() {
                return Err(CostError::LengthMismatch { layers: layers.len(), bits: given });
            }
        }
        let unsupported = |what: String| CostError::Unsupported {
            layer: "all".to_owned(),
            model: self.to_string(),
            what,
        };
        let (mut cost, mut most) = (0.0, 0.0);
        for ((layer, &bits), &searched) in layers.iter().zip(bits).zip(searched) {
            let weight = match *self {
                Self::CostWeighted { memory_over_mac } => {
                    not_negative(COST_WEIGHTED, "memory_over_mac", memory_over_mac)
                        .map_err(|error| unsupported(error.to_string()))?;
                    whole(layer.weights()).0 * memory_over_mac + whole(layer.macs()).0
                }
                Self::MeanBits if searched => 1.0,
                Self::MeanBits => continue,
            };
            cost += weight * f64::from(bits.get());
            most += weight * f64::from(max_bits.get());
        }
        if most > 0.0 {
            Ok(cost / most)
        } else {
            Err(unsupported("an empty set of layers".to_owned()))
        }
    }
}

impl fmt::Display for StateQuantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CostWeighted { memory_over_mac } if memory_over_mac == MEMORY_OVER_MAC => {
                f.pad(COST_WEIGHTED)
            }
            Self::CostWeighted { memory_over_mac } => {
                f.pad(&format!("{COST_WEIGHTED}:{memory_over_mac}"))
            }
            Self::MeanBits => f.pad(MEAN_BITS),
        }
    }
}

impl FromStr for StateQuantization {
    type Err = HwError;
    fn from_str(text: &str) -> Result<Self, HwError> {
        let text = text.trim();
        let unknown = || HwError::UnknownName {
            what: "state of quantization",
            got: text.to_owned(),
            allowed: format!("{COST_WEIGHTED}, {COST_WEIGHTED}:RATIO or {MEAN_BITS}"),
        };
        match text.split_once(':') {
            None if text == COST_WEIGHTED => Ok(Self::default()),
            None if text == MEAN_BITS => Ok(Self::MeanBits),
            Some((COST_WEIGHTED, ratio)) => {
                let memory_over_mac = ratio.parse().map_err(|_| unknown())?;
                not_negative(COST_WEIGHTED, "memory_over_mac", memory_over_mac)?;
                Ok(Self::CostWeighted { memory_over_mac })
            }
            _ => Err(unknown()),
        }
    }
}

impl TryFrom<String> for StateQuantization {
    type Error = HwError;
    fn try_from(text: String) -> Result<Self, HwError> {
        text.parse()
    }
}

impl From<StateQuantization> for String {
    fn from(state: StateQuantization) -> Self {
        state.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use releq_core::BitwidthAssignment;

    use super::*;
    use crate::price::layers::lenet;

    fn state(
        form: StateQuantization,
        bits: impl IntoIterator<Item = u8>,
        searched: [bool; 4],
    ) -> Result<f64, CostError> {
        let bits = BitwidthAssignment::from_bits(bits).unwrap();
        form.quant_state(&lenet(), &bits, &searched, Bitwidth::EIGHT)
    }

    #[test]
    fn worked_cases() {
        let weighted = |memory_over_mac| StateQuantization::CostWeighted { memory_over_mac };
        let all = [true; 4];
        assert_eq!(state(StateQuantization::MeanBits, [2, 2, 3, 2], all), Ok(0.28125));
        let got = state(StateQuantization::default(), [2, 2, 3, 2], all).unwrap();
        assert!((got - 0.362134636).abs() < 1e-9, "{got}");
        for form in [StateQuantization::MeanBits, weighted(0.0), weighted(120.0)] {
            assert_eq!(state(form, [8; 4], all), Ok(1.0));
        }
        // MACs alone: (288000 * 2 + 1600000 * 2 + 400000 * 3 + 5000 * 2) / (8 * 2293000).
        let got = state(weighted(0.0), [2, 2, 3, 2], all).unwrap();
        assert!((got - 4_986_000.0 / 18_344_000.0).abs() < 1e-12);
    }

    #[test]
    fn fixed_layers_count_only_where_layers_are_weighted() {
        let ends = [false, true, true, false];
        assert_eq!(state(StateQuantization::MeanBits, [8, 2, 4, 8], ends), Ok(0.375));
        let form = StateQuantization::default();
        assert_eq!(state(form, [8, 2, 4, 8], ends), state(form, [8, 2, 4, 8], [true; 4]));
    }

    #[test]
    fn more_than_the_yardstick_costs_more_than_one() {
        let four = Bitwidth::new(4).unwrap();
        for form in [StateQuantization::MeanBits, StateQuantization::default()] {
            let got = form.quant_state(&lenet(), &[Bitwidth::EIGHT; 4], &[true; 4], four);
            assert_eq!(got, Ok(2.0));
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let message =
            |form, bits: [u8; 4], searched| state(form, bits, searched).unwrap_err().to_string();
        let nan = StateQuantization::CostWeighted { memory_over_mac: f64::NAN };
        assert!(message(nan, [8; 4], [true; 4]).contains("got NaN"));
        let text = message(StateQuantization::MeanBits, [8; 4], [false; 4]);
        assert!(text.contains("an empty set of layers"), "{text}");
        let few = StateQuantization::MeanBits.quant_state(
            &lenet(),
            &[Bitwidth::EIGHT; 4],
            &[true; 3],
            Bitwidth::EIGHT,
        );
        assert_eq!(few, Err(CostError::LengthMismatch { layers: 4, bits: 3 }));
    }

    #[test]
    fn text_round_trips() {
        for text in ["cost-weighted", "cost-weighted:200", "cost-weighted:0.5", "mean-bits"] {
            let form: StateQuantization = text.parse().unwrap();
            assert_eq!(form.to_string(), text);
            let json = serde_json::to_string(&form).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<StateQuantization>(&json).unwrap(), form);
        }
        for bad in
            ["", "mean", "mean-bits:2", "cost-weighted:", "cost-weighted:-1", "cost-weighted:nan"]
        {
            assert!(bad.parse::<StateQuantization>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn in_the_unit_interval_and_rising_with_bits(
            bits in proptest::array::uniform4(1u8..8), layer in 0usize..4, ratio in 0.0..500.0,
        ) {
            let mut more = bits;
            more[layer] += 1;
            let weighted = StateQuantization::CostWeighted { memory_over_mac: ratio };
            for form in [StateQuantization::MeanBits, weighted] {
                let here = state(form, bits, [true; 4]).unwrap();
                prop_assert!(here > 0.0 && here <= 1.0);
                prop_assert!(state(form, more, [true; 4]).unwrap() > here);
            }
        }
    }
}
