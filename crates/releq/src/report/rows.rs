//! The rows of a report.

use releq_core::{Bitwidth, BitwidthAssignment};
use serde::{Deserialize, Serialize};

/// One quantizable layer and the bitwidth found for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LayerRow {
    /// Name of the layer.
    pub name: String,
    /// Number of weights.
    pub weights: u64,
    /// Multiply-accumulates of one inference.
    pub macs: u64,
    /// Standard deviation of the full-precision weights.
    pub weight_std: f64,
    /// Bitwidth in the assignment that the report settles on, if there is one.
    pub bits: Option<Bitwidth>,
}

/// One assignment after the long retrain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FinalRow {
    /// Where the assignment comes from, as `releq` or `uniform 4`.
    pub label: String,
    /// The bitwidths.
    pub bits: BitwidthAssignment,
    /// Their mean.
    pub mean_bits: f64,
    /// Accuracy on the validation images, which choices are made on.
    pub validation_accuracy: f64,
    /// Accuracy on the test images, which nothing is chosen by.
    pub test_accuracy: f64,
    /// Full-precision test accuracy less this one, in percentage points; negative where it gained.
    pub loss_points: f64,
    /// State_Quantization; above 1 where the search could not choose as many bits.
    pub quant_state: f64,
    /// Cost over limit, of the limit that it exceeds most; `None` within all limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_limit: Option<f64>,
    /// What the cost models say that the run names.
    pub costs: Vec<RowCost>,
    /// Why the retrain failed, if it did; the accuracies are 0 then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What one cost model says of an assignment, activations of 8 bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RowCost {
    /// Name of the model.
    pub model: String,
    /// Unit of both costs.
    pub unit: String,
    /// Cost of the assignment.
    pub cost: f64,
    /// Cost of 8 bits in every layer.
    pub at_eight_bits: f64,
}

impl RowCost {
    /// How many times cheaper than 8 bits in every layer.
    #[must_use]
    pub fn saving(&self) -> f64 {
        self.at_eight_bits / self.cost
    }
}

impl FinalRow {
    /// What the model of this name says, if the run names it.
    #[must_use]
    pub fn cost(&self, model: &str) -> Option<&RowCost> {
        self.costs.iter().find(|cost| cost.model == model)
    }
}
