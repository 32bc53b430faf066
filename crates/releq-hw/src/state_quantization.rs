//! State_Quantization: the cost of an assignment, relative to that of the highest bitwidth.

use std::{fmt, str::FromStr, sync::Arc};

use releq_core::{Bitwidth, CostError, CostModel, LayerBits, LayerProfile};
use serde::{Deserialize, Serialize};

use crate::{CostWeighted, HwError, MeanBits, error::unknown_name};

/// How bitwidths become the relative cost that a reward sees, in (0, 1]: by [`MeanBits`] or [`CostWeighted`].
///
/// Written as `cost-weighted`, `cost-weighted:200` for another ratio than 120, or `mean-bits`.
///
/// # Source
/// Elthakeb et al., "ReLeQ", arXiv 1811.01704, defines the weighted form; the code released with it computes
/// only the mean. On the authors' complete LeNet table, their published answer 2-2-3-2 is the optimum under
/// the mean and not under the weighted form. The mean is therefore the default.
///
/// ```
/// use releq_hw::StateQuantization;
///
/// let state: StateQuantization = "cost-weighted".parse()?;
/// assert_eq!(state, StateQuantization::CostWeighted { memory_over_mac: 120.0 });
/// assert_eq!("mean-bits".parse(), Ok(StateQuantization::default()));
/// # Ok::<(), releq_hw::HwError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum StateQuantization {
    /// `sum((weights * R + macs) * bits) / (max_bits * sum(weights * R + macs))` over all layers, also those
    /// whose bits are fixed.
    CostWeighted {
        /// `R`, cost of a memory access over that of a MAC; see [`CostWeighted::default`].
        memory_over_mac: f64,
    },
    /// `sum(bits) / (max_bits * searched layers)` over the searched layers alone.
    #[default]
    MeanBits,
}

const COST_WEIGHTED: &str = "cost-weighted";
const MEAN_BITS: &str = "mean-bits";

impl StateQuantization {
    /// The cost model that this form stands for.
    ///
    /// # Errors
    /// [`HwError::Parameter`] if the ratio is negative or not finite.
    pub fn build(&self) -> Result<Arc<dyn CostModel>, HwError> {
        Ok(match *self {
            Self::CostWeighted { memory_over_mac } => Arc::new(CostWeighted::new(memory_over_mac)?),
            Self::MeanBits => Arc::new(MeanBits),
        })
    }

    /// Cost of `bits` over that of `max_bits` in every layer: in (0, 1] if no layer has more.
    ///
    /// `searched` tells for every layer whether its bits are searched rather than fixed. `max_bits` is a
    /// reference and not a limit: relative to 4 bits, 8 bits cost 2.
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
        let model = self.build().map_err(|error| unsupported(error.to_string()))?;
        let max_bits = LayerBits::weights_only(max_bits);
        let (mut cost, mut most) = (0.0, 0.0);
        for ((layer, &bits), &searched) in layers.iter().zip(bits).zip(searched) {
            if searched || *self != Self::MeanBits {
                cost += model.layer_cost(layer, LayerBits::weights_only(bits))?.0;
                most += model.layer_cost(layer, max_bits)?.0;
            }
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
            Self::CostWeighted { memory_over_mac }
                if memory_over_mac == CostWeighted::default().memory_over_mac() =>
            {
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
        let unknown = || {
            let forms = [COST_WEIGHTED, "cost-weighted:RATIO", MEAN_BITS];
            unknown_name("state of quantization", text, &forms)
        };
        let memory_over_mac = match text.split_once(':') {
            None if text == MEAN_BITS => return Ok(Self::MeanBits),
            None if text == COST_WEIGHTED => CostWeighted::default().memory_over_mac(),
            Some((COST_WEIGHTED, ratio)) => ratio.parse().map_err(|_| unknown())?,
            _ => return Err(unknown()),
        };
        CostWeighted::new(memory_over_mac)?;
        Ok(Self::CostWeighted { memory_over_mac })
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
    use releq_core::{BitwidthAssignment, checked_network_cost};

    use super::*;
    use crate::{price::layers::lenet, weights_only};

    const WEIGHTED: StateQuantization = StateQuantization::CostWeighted { memory_over_mac: 120.0 };

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
        let got = state(WEIGHTED, [2, 2, 3, 2], all).unwrap();
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
        let form = WEIGHTED;
        assert_eq!(state(form, [8, 2, 4, 8], ends), state(form, [8, 2, 4, 8], [true; 4]));
    }

    #[test]
    fn more_than_the_yardstick_costs_more_than_one() {
        let four = Bitwidth::new(4).unwrap();
        for form in [StateQuantization::MeanBits, WEIGHTED] {
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
        fn equals_the_cost_of_searched_layers_over_that_of_the_highest_bits(
            (bits, max_bits) in (proptest::array::uniform4(1u8..=32), 1u8..=32),
            searched in proptest::array::uniform4(proptest::bool::ANY),
        ) {
            let highest = Bitwidth::new(max_bits).unwrap();
            let assignment = BitwidthAssignment::from_bits(bits).unwrap();
            let quant_state = |form: StateQuantization, searched: [bool; 4]| {
                form.quant_state(&lenet(), &assignment, &searched, highest)
            };
            let ratio = |model: &dyn CostModel, searched: [bool; 4]| {
                let chosen = |bits: Vec<LayerBits>| {
                    let layers = lenet().into_iter().zip(bits).zip(searched);
                    let layers = layers.filter_map(|(layer, searched)| searched.then_some(layer));
                    let (layers, bits): (Vec<_>, Vec<_>) = layers.unzip();
                    checked_network_cost(model, &layers, &bits).unwrap().0
                };
                let highest = vec![LayerBits::weights_only(highest); 4];
                chosen(weights_only(&assignment)) / chosen(highest)
            };
            // The old formulas, bit for bit.
            let count = searched.iter().filter(|&&searched| searched).count();
            if count > 0 {
                let bits = bits.iter().zip(searched).filter(|(_, searched)| *searched);
                let sum: f64 = bits.map(|(&bits, _)| f64::from(bits)).sum();
                let mean = sum / (f64::from(max_bits) * count as f64);
                prop_assert_eq!(quant_state(StateQuantization::MeanBits, searched), Ok(mean));
                prop_assert_eq!(ratio(&MeanBits, searched), mean);
            }
            let (mut cost, mut most) = (0.0, 0.0);
            for (layer, bits) in lenet().iter().zip(bits) {
                let weight = layer.weights() as f64 * 120.0 + layer.macs() as f64;
                cost += weight * f64::from(bits);
                most += weight * f64::from(max_bits);
            }
            prop_assert_eq!(quant_state(WEIGHTED, searched), Ok(cost / most));
            prop_assert_eq!(ratio(&CostWeighted::default(), [true; 4]), cost / most);
        }

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
