//! The costs of one assignment under several models, next to its baselines.

use releq_core::{
    Bitwidth, CostError, CostModel, LayerBits, LayerProfile, checked_network_cost, with_causes,
};
use serde::{Deserialize, Serialize};

use crate::speedup::ratio;

/// Costs of one assignment under several models, per layer and in total; see [`cost_report`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostReport {
    /// One entry for each model that could price the network, in the order given.
    pub models: Vec<ModelCosts>,
    /// The other models, with the reason.
    pub unpriced: Vec<Unpriced>,
}

/// Costs under one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelCosts {
    /// Name of the model.
    pub model: String,
    /// Unit of all its costs.
    pub unit: String,
    /// One entry for each layer.
    pub layers: Vec<LayerCosts>,
    /// Of the whole network.
    pub total: Costs,
}

/// Costs of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerCosts {
    /// Name of the layer.
    pub layer: String,
    /// Its bitwidths in the assignment.
    pub bits: LayerBits,
    /// What they cost.
    #[serde(flatten)]
    pub costs: Costs,
}

/// Costs of the same thing at different bitwidths, in the model's unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// At the assignment's bitwidths.
    pub cost: f64,
    /// With all weights at 8 bits and the same activations.
    pub uniform8: f64,
    /// At the bitwidths of the other assignment, if one was given.
    pub other: Option<f64>,
}

impl Costs {
    /// How many times cheaper the assignment is than 8 bits.
    #[must_use]
    pub fn gain_over_uniform8(&self) -> f64 {
        ratio(self.uniform8, self.cost)
    }

    /// How many times cheaper the assignment is than the other one.
    #[must_use]
    pub fn gain_over_other(&self) -> Option<f64> {
        self.other.map(|other| ratio(other, self.cost))
    }
}

/// A model that gave no cost for one of the assignments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpriced {
    /// Name of the model.
    pub model: String,
    /// The error and its sources.
    pub reason: String,
}

/// Prices `bits` under every model, together with 8-bit weights and, if given, with `other`.
///
/// A model that does not cover a layer or a bitwidth is listed in [`CostReport::unpriced`].
///
/// ```
/// use releq_core::{CostModel, Network};
/// use releq_hw::{DaDianNao, Stripes, cost_report, weights_only};
///
/// let network = Network::builder("tiny", [1, 8, 8]).conv2d("conv", 4, 3).flatten("flat").build()?;
/// let models: [&dyn CostModel; 2] = [&Stripes::default(), &DaDianNao];
/// let bits = weights_only(&[2.try_into()?]);
/// let report = cost_report(models, &network.profiles(), &bits, None)?;
/// assert_eq!(report.models[0].model, "stripes");
/// assert_eq!(report.models[0].total.gain_over_uniform8(), 4.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`CostError::LengthMismatch`] unless both assignments have one entry for each layer.
pub fn cost_report<M: CostModel>(
    models: impl IntoIterator<Item = M>,
    layers: &[LayerProfile],
    bits: &[LayerBits],
    other: Option<&[LayerBits]>,
) -> Result<CostReport, CostError> {
    for given in [Some(bits.len()), other.map(<[_]>::len)].into_iter().flatten() {
        if given != layers.len() {
            return Err(CostError::LengthMismatch { layers: layers.len(), bits: given });
        }
    }
    let mut report = CostReport { models: Vec::new(), unpriced: Vec::new() };
    for model in models {
        match model_costs(&model, layers, bits, other) {
            Ok(costs) => report.models.push(costs),
            Err(error) => report
                .unpriced
                .push(Unpriced { model: model.name().to_owned(), reason: with_causes(&error) }),
        }
    }
    Ok(report)
}

fn model_costs<M: CostModel>(
    model: &M,
    layers: &[LayerProfile],
    bits: &[LayerBits],
    other: Option<&[LayerBits]>,
) -> Result<ModelCosts, CostError> {
    let uniform8: Vec<LayerBits> =
        bits.iter().map(|bits| bits.with_weight(Bitwidth::EIGHT)).collect();
    let layer_cost = |layer, bits| -> Result<f64, CostError> {
        Ok(model.layer_cost(layer, bits)?.checked(model.name())?.0)
    };
    let network_cost =
        |bits| -> Result<f64, CostError> { Ok(checked_network_cost(model, layers, bits)?.0) };
    let mut rows = Vec::with_capacity(layers.len());
    for (index, (layer, &bits)) in layers.iter().zip(bits).enumerate() {
        let costs = Costs {
            cost: layer_cost(layer, bits)?,
            uniform8: layer_cost(layer, uniform8[index])?,
            other: other.map(|other| layer_cost(layer, other[index])).transpose()?,
        };
        rows.push(LayerCosts { layer: layer.name.clone(), bits, costs });
    }
    let total = Costs {
        cost: network_cost(bits)?,
        uniform8: network_cost(&uniform8)?,
        other: other.map(network_cost).transpose()?,
    };
    let (model, unit) = (model.name().to_owned(), model.unit().to_owned());
    Ok(ModelCosts { model, unit, layers: rows, total })
}

#[cfg(test)]
mod tests {
    use releq_core::Cost;

    use super::*;
    use crate::{
        CostKind, Stripes,
        price::layers::{at, lenet},
    };

    #[test]
    fn layers_total_and_gains() {
        let layers = lenet();
        let bits = [at(2, 8), at(2, 8), at(3, 8), at(2, 8)];
        let other = [at(5, 8), at(3, 8), at(2, 8), at(3, 8)];
        let report = cost_report([Stripes::default()], &layers, &bits, Some(&other)).unwrap();
        let stripes = &report.models[0];
        let cycles: Vec<f64> = stripes.layers.iter().map(|layer| layer.costs.cost).collect();
        assert_eq!(cycles, [1800.0, 400.0, 102.0, 33.0]);
        let total = Costs { cost: 2335.0, uniform8: 8946.0, other: Some(5235.0) };
        assert_eq!(stripes.total, total);
        assert_eq!(total.gain_over_uniform8(), 8946.0 / 2335.0);
        assert_eq!(total.gain_over_other(), Some(5235.0 / 2335.0));

        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<CostReport>(&json).unwrap(), report);
    }

    #[test]
    fn a_model_that_cannot_price_does_not_stop_the_others() {
        let models: Vec<_> = CostKind::all().iter().map(|kind| kind.build().unwrap()).collect();
        let report = cost_report(&models, &lenet(), &[at(9, 8); 4], None).unwrap();
        assert_eq!(report.models.len(), models.len() - 1);
        assert_eq!(report.unpriced[0].model, "bitserial-cpu");
        assert!(cost_report(&models, &lenet(), &[at(9, 8); 3], None).is_err());
        assert!(cost_report(&models, &lenet(), &[at(9, 8); 4], Some(&[])).is_err());
    }
    /// Fails, or returns what is not a cost.
    struct Broken(Option<f64>);

    impl CostModel for Broken {
        fn name(&self) -> &str {
            "broken"
        }
        fn unit(&self) -> &str {
            "1"
        }
        fn layer_cost(&self, _: &LayerProfile, _: LayerBits) -> Result<Cost, CostError> {
            self.0.map(Cost).ok_or_else(|| CostError::other("broken", "no power"))
        }
    }

    #[test]
    fn the_reason_has_the_source_of_an_error() {
        for (model, expected) in [
            (Broken(None), "broken failed: no power"),
            (
                Broken(Some(-1.0)),
                "broken returned a cost of -1.0: a cost must be finite and not negative",
            ),
        ] {
            let report = cost_report([model], &lenet(), &[at(4, 8); 4], None).unwrap();
            assert_eq!(report.unpriced[0].reason, expected);
        }
    }
}
