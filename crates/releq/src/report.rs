//! What a run found, as plain data that other tools can open.

use std::{collections::BTreeMap, path::Path};

use releq_core::{Bitwidth, BitwidthAssignment};
use releq_quant::QuantizerKind;
use serde::{Deserialize, Serialize};

use crate::{
    ReleqError, SearchOutcome,
    files::{check_writable, write_atomically},
};

/// One quantizable layer and the bitwidth found for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Size of the quantized weights with their scales, and of the biases in floating point.
    pub model_bytes: f64,
    /// Cycles on Stripes for one inference, activations of 8 bits.
    pub stripes_cycles: f64,
    /// Stripes cycles at uniform 8 bits over these.
    pub stripes_speedup_over_8: f64,
    /// Why the retrain failed, if it did; the accuracies are 0 then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Everything one [`Experiment`](crate::Experiment) found.
///
/// All of it is a function of the inputs and the seed, except `times` and the `times` of the
/// searches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the network.
    pub network: String,
    /// Which data, and where it came from.
    pub data: String,
    /// Seed of the run.
    pub seed: u64,
    /// How weights were quantized.
    pub quantizer: QuantizerKind,
    /// Name of the reward.
    pub reward: String,
    /// Form of State_Quantization.
    pub state_quantization: String,
    /// Accepted loss against full precision, in 0 to 1.
    pub tolerance: f64,
    /// Images trained on, held out for validation, and tested on.
    pub images: [usize; 3],
    /// Full-precision accuracy on the validation images.
    pub full_precision_validation: f64,
    /// Full-precision accuracy on the test images.
    pub full_precision_test: f64,
    /// The layers, with the bitwidths of `chosen`.
    pub layers: Vec<LayerRow>,
    /// The assignment that the report settles on: of the frontier of the agent's search, from the
    /// cheapest upwards, the first whose validation loss after the long retrain is within the
    /// tolerance, or the most accurate if none is. After a cancellation, the best the search had seen.
    pub chosen: Option<BitwidthAssignment>,
    /// `chosen`, and what it is compared with, after the long retrain; empty after a cancellation.
    pub rows: Vec<FinalRow>,
    /// The agent's search.
    pub search: SearchOutcome,
    /// Random search and layer-by-layer search, each with at most as many evaluations.
    pub comparisons: Vec<SearchOutcome>,
    /// Whether the caller stopped the run before its end.
    pub cancelled: bool,
    /// Wall seconds of every stage.
    pub times: BTreeMap<String, f64>,
}

impl Report {
    /// The row that the report settles on.
    #[must_use]
    pub fn chosen_row(&self) -> Option<&FinalRow> {
        self.rows.iter().find(|row| row.label == crate::finals::RELEQ)
    }

    /// As indented JSON.
    ///
    /// # Panics
    /// Never: a report has no map with keys that JSON cannot hold.
    #[must_use]
    #[allow(clippy::expect_used, reason = "plain structs of numbers and strings always serialize")]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report is plain data")
    }

    /// Writes [`to_json`](Self::to_json) to a file, whole or not at all.
    ///
    /// # Errors
    /// [`ReleqError::Write`], naming the file.
    pub fn write_json(&self, path: impl AsRef<Path>) -> Result<(), ReleqError> {
        write_atomically(path.as_ref(), (self.to_json() + "\n").as_bytes())
    }

    /// Writes `rows` as CSV with a header, whole or not at all.
    ///
    /// # Errors
    /// [`ReleqError::Write`], naming the file.
    pub fn write_csv(&self, path: impl AsRef<Path>) -> Result<(), ReleqError> {
        let path = path.as_ref();
        let fail = |error: csv::Error| ReleqError::Write {
            path: path.to_owned(),
            source: std::io::Error::other(error),
        };
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record([
            "label",
            "bits",
            "mean_bits",
            "validation_accuracy",
            "test_accuracy",
            "loss_points",
            "quant_state",
            "model_bytes",
            "stripes_cycles",
            "stripes_speedup_over_8",
            "failure",
        ])
        .map_err(fail)?;
        for row in &self.rows {
            csv.write_record([
                row.label.clone(),
                row.bits.to_string(),
                row.mean_bits.to_string(),
                row.validation_accuracy.to_string(),
                row.test_accuracy.to_string(),
                row.loss_points.to_string(),
                row.quant_state.to_string(),
                row.model_bytes.to_string(),
                row.stripes_cycles.to_string(),
                row.stripes_speedup_over_8.to_string(),
                row.failure.clone().unwrap_or_default(),
            ])
            .map_err(fail)?;
        }
        let bytes = csv.into_inner().map_err(|error| fail(error.into_error().into()))?;
        write_atomically(path, &bytes)
    }

    /// Fails now, rather than after minutes of work, if a report cannot be written to `path`.
    ///
    /// # Errors
    /// [`ReleqError::Write`], naming the file.
    pub fn check_path(path: impl AsRef<Path>) -> Result<(), ReleqError> {
        check_writable(path.as_ref())
    }
}
