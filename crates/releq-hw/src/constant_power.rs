//! Energy of a machine whose power does not depend on the bitwidths.

use releq_core::{Cost, CostError, CostModel, LayerBits, LayerProfile};

use crate::{HwError, error::positive, price::named};

/// Energy of another model under one assumption: power is constant, so energy is power times time.
///
/// The energy reduction then *equals* the speedup, whatever the power. ReLeQ reports 2.0x for both on Stripes,
/// which agrees with this assumption; that the paper made it is our reading. We do not know the absolute power
/// of the chip.
///
/// ```
/// use releq_core::CostModel;
/// use releq_hw::{ConstantPower, Stripes};
///
/// let energy = ConstantPower::relative(Stripes::default());
/// assert_eq!(energy.name(), "stripes-constant-power");
/// ```
///
/// # Units
/// `pJ` with a power given in picojoules per unit of the inner model's cost; relative without.
#[derive(Clone, Debug, PartialEq)]
pub struct ConstantPower<M> {
    model: M,
    name: String,
    unit: &'static str,
    pj_per_unit: f64,
}

impl<M: CostModel> ConstantPower<M> {
    /// Energy in picojoules at `pj_per_unit` for each unit of `model`'s cost, as for a cycle.
    ///
    /// # Errors
    /// [`HwError::Parameter`] unless `pj_per_unit` is positive and finite.
    pub fn new(model: M, pj_per_unit: f64) -> Result<Self, HwError> {
        let pj_per_unit = positive("constant-power", "pj_per_unit", pj_per_unit)?;
        let name = format!("{}-constant-power", model.name());
        Ok(Self { model, name, unit: "pJ", pj_per_unit })
    }

    /// Energy up to an unknown factor, which is enough for every comparison.
    #[must_use]
    pub fn relative(model: M) -> Self {
        let name = format!("{}-constant-power", model.name());
        Self { model, name, unit: "relative energy", pj_per_unit: 1.0 }
    }

    /// The same model under another name.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }
}

impl<M: CostModel> CostModel for ConstantPower<M> {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit(&self) -> &str {
        self.unit
    }

    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        let cost = self.model.layer_cost(layer, bits).map_err(|error| named(&self.name, error))?;
        Ok(Cost(cost.0 * self.pj_per_unit))
    }

    fn network_cost(&self, layers: &[LayerProfile], bits: &[LayerBits]) -> Result<Cost, CostError> {
        let cost = self.model.network_cost(layers, bits);
        Ok(Cost(cost.map_err(|error| named(&self.name, error))?.0 * self.pj_per_unit))
    }
}

#[cfg(test)]
mod tests {
    use releq_core::Bitwidth;

    use super::*;
    use crate::{
        Stripes,
        price::layers::{at, lenet},
        speedup,
    };

    #[test]
    fn energy_reduction_is_the_speedup() {
        let (layers, bits, wide) = (lenet(), [at(3, 8); 4], [at(8, 8); 4]);
        let stripes = Stripes::default();
        let energy = ConstantPower::new(stripes, 1200.0).unwrap();
        let of_energy = speedup(&energy, &layers, &bits, &wide).unwrap();
        let of_time = speedup(&stripes, &layers, &bits, &wide).unwrap();
        assert!((of_energy - of_time).abs() < 1e-12);
        assert_eq!(energy.layer_cost(&layers[1], at(8, 8)).unwrap(), Cost(1600.0 * 1200.0));
        assert!(ConstantPower::new(stripes, 0.0).is_err());
    }

    #[test]
    fn errors_name_the_model_that_was_asked_for() {
        let energy = ConstantPower::relative(Stripes::default()).named("stripes-energy");
        let (layers, float) = (lenet(), LayerBits::weights_only(Bitwidth::FLOAT));
        let expected = "stripes-energy takes integer bitwidths of 1 to 16, got float";
        for error in [
            energy.layer_cost(&layers[0], float).unwrap_err(),
            energy.network_cost(&layers, &[float; 4]).unwrap_err(),
        ] {
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
