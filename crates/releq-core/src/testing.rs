//! What every cost model promises, as a test suite that any implementation can run.

use crate::{Bitwidth, Conv2d, Cost, CostModel, LayerBits, LayerProfile};

/// How a cost model prices a network, for [`check_cost_model`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkCost {
    /// As the sum of its layers, which is what [`CostModel::network_cost`] does unless it is overridden.
    SumOfLayers,
    /// By a rule of its own, such as layers that overlap in time.
    Own,
}

/// Integer bitwidths that the suite tries, in rising order.
const LADDER: [u8; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 16, 32];

/// Relative error that summing layers in another order may cause.
const SUM_TOLERANCE: f64 = 1e-9;

/// Asserts what every [`CostModel`] promises, on `layers`; [`sample_layers`] suit most models.
///
/// - The model has a name and a unit, and at 8 bits it covers at least one of the layers.
/// - Costs are finite and not negative, and the same call gives the same answer.
/// - More weight or activation bits are never cheaper, neither for a layer nor for the network.
/// - Float weights or activations cost at least as much as 8 bits, so that a search does not take them for
///   free.
/// - The network costs the sum of its layers, unless `network_cost` says that the model has its own rule.
/// - Different numbers of layers and bitwidths are an error.
///
/// Layers and bitwidths that the model rejects with an error are skipped.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// use releq_core::{
///     Cost, CostError, CostModel, LayerBits, LayerProfile, NetworkCost, check_cost_model, sample_layers,
/// };
///
/// /// Bits of all weights.
/// struct WeightBits;
///
/// impl CostModel for WeightBits {
///     fn name(&self) -> &str {
///         "weight-bits"
///     }
///     fn unit(&self) -> &str {
///         "bits"
///     }
///     fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
///         Ok(Cost((layer.weights() * u64::from(bits.weight.get())) as f64))
///     }
/// }
///
/// check_cost_model(&WeightBits, &sample_layers(), NetworkCost::SumOfLayers);
/// # }
/// ```
///
/// # Panics
/// If the model breaks one of these promises.
pub fn check_cost_model(model: &dyn CostModel, layers: &[LayerProfile], network_cost: NetworkCost) {
    assert!(!model.name().is_empty(), "a cost model needs a name");
    assert!(!model.unit().is_empty(), "{} needs a unit", model.name());
    for layer in layers {
        check_layer(model, layer);
    }
    let eight = LayerBits::weights_only(Bitwidth::EIGHT);
    let covered: Vec<LayerProfile> =
        layers.iter().filter(|layer| model.layer_cost(layer, eight).is_ok()).cloned().collect();
    assert!(!covered.is_empty(), "{} covers none of the layers at 8 bits", model.name());
    check_network(model, &covered, network_cost);

    let bits = vec![eight; covered.len()];
    let mismatch = "different numbers of layers and bitwidths must be an error";
    assert!(model.network_cost(&covered, &bits[1..]).is_err(), "{}: {mismatch}", model.name());
    assert!(model.network_cost(&covered[1..], &bits).is_err(), "{}: {mismatch}", model.name());
}

/// A convolution, a first layer with a stride, a depthwise and a fully connected layer, for
/// [`check_cost_model`].
#[must_use]
pub fn sample_layers() -> Vec<LayerProfile> {
    let convolutions = [
        ("convolution", [20, 12, 12], Conv2d::new(50, 5)),
        ("strided first layer", [3, 224, 224], Conv2d::new(64, 11).stride(4).padding(2)),
        ("depthwise convolution", [20, 12, 12], Conv2d::new(20, 5).groups(20)),
    ];
    convolutions
        .into_iter()
        .filter_map(|(name, input, conv)| LayerProfile::conv2d(name, input, conv).ok())
        .chain([LayerProfile::linear("fully connected layer", 800, 500)])
        .collect()
}

fn check_layer(model: &dyn CostModel, layer: &LayerProfile) {
    let cost = |bits: LayerBits| {
        let cost = model.layer_cost(layer, bits).ok()?;
        let case = format!(
            "{}, layer `{}` at {} x {} bits",
            model.name(),
            layer.name,
            bits.weight,
            bits.activation
        );
        check_number(cost, &case);
        assert_eq!(model.layer_cost(layer, bits), Ok(cost), "{case}: the second answer differs");
        Some((cost, case))
    };
    let not_cheaper = |less: LayerBits, more: LayerBits| {
        if let (Some((less, _)), Some((more, case))) = (cost(less), cost(more)) {
            assert!(more >= less, "{case}: {more:?}, but fewer bits cost {less:?}");
        }
    };
    let ladder = ladder();
    for pair in ladder.windows(2) {
        for &other in &ladder {
            not_cheaper(LayerBits::new(pair[0], other), LayerBits::new(pair[1], other));
            not_cheaper(LayerBits::new(other, pair[0]), LayerBits::new(other, pair[1]));
        }
    }
    let (eight, float) = (Bitwidth::EIGHT, Bitwidth::FLOAT);
    not_cheaper(LayerBits::new(eight, eight), LayerBits::new(float, eight));
    not_cheaper(LayerBits::new(eight, eight), LayerBits::new(eight, float));
}

fn check_network(model: &dyn CostModel, layers: &[LayerProfile], network_cost: NetworkCost) {
    let ladder = ladder();
    let eight = LayerBits::weights_only(Bitwidth::EIGHT);
    let uniform = ladder.iter().map(|&weight| vec![eight.with_weight(weight); layers.len()]);
    let mixed: Vec<LayerBits> =
        ladder.iter().cycle().zip(layers).map(|(&weight, _)| eight.with_weight(weight)).collect();
    for bits in uniform.chain([mixed]) {
        let each: Result<Vec<Cost>, _> =
            layers.iter().zip(&bits).map(|(layer, &bits)| model.layer_cost(layer, bits)).collect();
        let Ok(each) = each else { continue };
        let weights: Vec<String> = bits.iter().map(|bits| bits.weight.to_string()).collect();
        let case = format!("{}, network at {} bits", model.name(), weights.join("-"));
        let network = match model.network_cost(layers, &bits) {
            Ok(cost) => cost,
            Err(error) => panic!("{case}: {error}, though every layer has a cost"),
        };
        check_number(network, &case);
        assert_eq!(model.network_cost(layers, &bits), Ok(network), "{case}: twice");
        if network_cost == NetworkCost::SumOfLayers {
            let sum: f64 = each.iter().map(|cost| cost.0).sum();
            assert!(
                (network.0 - sum).abs() <= SUM_TOLERANCE * sum,
                "{case}: {network:?}, but its layers add up to {sum}"
            );
        }
        for index in 0..bits.len() {
            let wider = ladder.iter().find(|&&weight| weight > bits[index].weight);
            let mut more = bits.clone();
            more[index] = eight.with_weight(wider.copied().unwrap_or(Bitwidth::FLOAT));
            if wider.is_some()
                && let Ok(more) = model.network_cost(layers, &more)
            {
                let cheaper = network.0 - more.0;
                assert!(
                    cheaper <= SUM_TOLERANCE * network.0,
                    "{case}: {network:?}, but {more:?} with more bits in layer {index}"
                );
            }
        }
    }
}

fn check_number(cost: Cost, case: &str) {
    assert!(cost.checked(case).is_ok(), "{case}: {cost:?} is not a cost");
}

fn ladder() -> Vec<Bitwidth> {
    LADDER.iter().filter_map(|&bits| Bitwidth::new(bits).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::CostError;

    /// A model with two formulas: of a layer's bits, and of the network's costs.
    struct Formula(fn(LayerBits) -> f64, fn(&[f64]) -> f64);

    impl CostModel for Formula {
        fn name(&self) -> &str {
            "formula"
        }
        fn unit(&self) -> &str {
            "bits"
        }
        fn layer_cost(&self, _: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
            Ok(Cost((self.0)(bits)))
        }
        fn network_cost(
            &self,
            layers: &[LayerProfile],
            bits: &[LayerBits],
        ) -> Result<Cost, CostError> {
            if layers.len() != bits.len() {
                return Err(CostError::LengthMismatch { layers: layers.len(), bits: bits.len() });
            }
            Ok(Cost((self.1)(&bits.iter().map(|&bits| (self.0)(bits)).collect::<Vec<_>>())))
        }
    }

    fn passes(model: &Formula, network_cost: NetworkCost) -> bool {
        let check = || check_cost_model(model, &sample_layers(), network_cost);
        catch_unwind(AssertUnwindSafe(check)).is_ok()
    }

    fn bits(bits: LayerBits) -> f64 {
        f64::from(bits.weight.get()) + f64::from(bits.activation.get())
    }

    fn sum(costs: &[f64]) -> f64 {
        costs.iter().sum()
    }

    #[test]
    fn every_promise_is_checked() {
        use NetworkCost::{Own, SumOfLayers};

        assert_eq!(sample_layers().len(), 4);
        let longest = |costs: &[f64]| costs.iter().copied().fold(0.0, f64::max);
        assert!(passes(&Formula(bits, sum), SumOfLayers));
        assert!(passes(&Formula(bits, longest), Own));
        assert!(!passes(&Formula(bits, longest), SumOfLayers), "not the sum");
        assert!(!passes(&Formula(bits, |costs| 1e3 - sum(costs)), Own), "fewer bits are dearer");
        assert!(!passes(&Formula(|b| 100.0 - bits(b), sum), SumOfLayers), "more bits are cheaper");
        assert!(!passes(&Formula(|b| bits(b) - 3.0, sum), SumOfLayers), "negative");
        assert!(!passes(&Formula(|_| f64::NAN, sum), Own), "NaN");
        let free = |b: LayerBits| if b.weight.is_float() { 0.0 } else { bits(b) };
        assert!(!passes(&Formula(free, sum), SumOfLayers), "float for free");
    }
}
