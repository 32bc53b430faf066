//! A weighted sum of cost models.

use std::fmt;

use releq_core::{Cost, CostError, CostModel, LayerBits, LayerProfile};

use crate::{HwError, error::not_negative};

/// Weighted sum of other models' costs, to search with several goals at once.
///
/// The weights convert between units. To weigh relative costs, divide each weight by the cost of the baseline
/// under its model.
///
/// ```
/// use releq_hw::{ModelSize, Stripes, WeightedSum};
///
/// // A byte is worth a cycle.
/// let model = WeightedSum::new("cycles-and-bytes")
///     .with(1.0, Stripes::default())?
///     .with(1.0, ModelSize::default())?;
/// # Ok::<(), releq_hw::HwError>(())
/// ```
///
/// # Units
/// `weighted sum`: those of the weights times those of the models.
pub struct WeightedSum {
    name: String,
    terms: Vec<(f64, Box<dyn CostModel>)>,
}

impl WeightedSum {
    /// An empty sum, which is zero.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), terms: Vec::new() }
    }

    /// Adds `weight` times `model`.
    ///
    /// # Errors
    /// [`HwError::Parameter`] unless `weight` is finite and not negative: with a negative one, more bits could
    /// be cheaper.
    pub fn with(mut self, weight: f64, model: impl CostModel + 'static) -> Result<Self, HwError> {
        not_negative("weighted-sum", "weight", weight)?;
        self.terms.push((weight, Box::new(model)));
        Ok(self)
    }

    fn sum(
        &self,
        cost: impl Fn(&dyn CostModel) -> Result<Cost, CostError>,
    ) -> Result<Cost, CostError> {
        let mut total = 0.0;
        for (weight, model) in &self.terms {
            total += weight * cost(model)?.0;
        }
        Ok(Cost(total))
    }
}

impl CostModel for WeightedSum {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit(&self) -> &str {
        "weighted sum"
    }

    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        self.sum(|model| model.layer_cost(layer, bits))
    }

    fn network_cost(&self, layers: &[LayerProfile], bits: &[LayerBits]) -> Result<Cost, CostError> {
        self.sum(|model| model.network_cost(layers, bits))
    }
}

impl fmt::Debug for WeightedSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let terms = self.terms.iter().map(|(weight, model)| (model.name(), weight));
        write!(f, "WeightedSum {}: ", self.name)?;
        f.debug_map().entries(terms).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BitOperations, ModelSize,
        price::layers::{at, lenet},
    };

    #[test]
    fn sums_layers_and_networks() {
        let sum = WeightedSum::new("both")
            .with(2.0, BitOperations)
            .unwrap()
            .with(0.5, ModelSize::default())
            .unwrap();
        let layers = lenet();
        let expected = 2.0 * 18_432_000.0 + 0.5 * 504.0;
        assert_eq!(sum.layer_cost(&layers[0], at(8, 8)), Ok(Cost(expected)));
        let expected = 2.0 * 2_293_000.0 * 64.0 + 0.5 * 430_516.0;
        assert_eq!(sum.network_cost(&layers, &[at(8, 8); 4]), Ok(Cost(expected)));
        assert!(WeightedSum::new("bad").with(-1.0, BitOperations).is_err());
        assert_eq!(format!("{sum:?}"), r#"WeightedSum both: {"bitops": 2.0, "size": 0.5}"#);
    }
}
