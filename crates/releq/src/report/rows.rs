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

/// Full-precision accuracy that losses are measured against, in 0 to 1.
///
/// Full precision gets the long retrain that every row gets: an under-trained network would otherwise seem to
/// gain by quantization. If the retrain makes it worse on the validation images, the weights before it stand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Reference {
    /// On the validation images.
    pub validation_accuracy: f64,
    /// On the test images.
    pub test_accuracy: f64,
    /// Whether it is the accuracy after the long retrain.
    pub retrained: bool,
}

/// The assignment that a report settles on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Answer {
    /// Label of its row; of the first such row, where several searches found it.
    pub label: String,
    /// The bitwidths.
    pub bits: BitwidthAssignment,
    /// Whether its loss on the validation images is within the tolerance. If not, no row was good enough, and
    /// this one came nearest.
    pub within_tolerance: bool,
}

/// Accuracies of the answer's weights on the test images, in 0 to 1: those of the first of its long retrains.
///
/// Rounded activations are those of integer kernels: 8 bits, one scale and zero point for what leaves a layer, from its smallest to its
/// largest value on some training images; where activations were searched, theirs are as found. The logits are not rounded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RoundedAccuracy {
    /// With activations in full precision.
    pub weights_only: f64,
    /// With rounded activations.
    pub with_activations: f64,
    /// Training images that the ranges of the activations are from.
    pub calibration_images: usize,
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
    /// Test accuracy of the [`Reference`] less this one, in percentage points; negative where it gained.
    pub loss_points: f64,
    /// Standard error of the loss, in percentage points, as far as it comes of the choice of test images. Both networks saw the
    /// same ones, so it comes of those alone that one of the two classifies correctly. `None` with fewer than two images, or
    /// where the retrain failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_standard_error: Option<f64>,
    /// State_Quantization, above 1 where the search could not choose as many bits; `None` where the cost model
    /// has no price for one of the bitwidths.
    pub quant_state: Option<f64>,
    /// Cost over limit, of the limit that it exceeds most; `None` within all limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_limit: Option<f64>,
    /// What the cost models say that the run names, as far as they have a price for all bitwidths.
    pub costs: Vec<RowCost>,
    /// Retrains that differ by their seeds, whose mean the accuracies are: more than one where one left it uncertain
    /// whether the assignment is within the tolerance.
    #[serde(default = "one")]
    pub seeds: usize,
    /// Why the retrain failed, if it did; the accuracies are 0 then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

const fn one() -> usize {
    1
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
