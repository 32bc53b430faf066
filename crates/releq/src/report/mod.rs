//! What a run found, as plain data that other tools can open.

mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use releq_core::{BitwidthAssignment, atomic_file};
use releq_data::Normalization;
use releq_hw::Machine;
use serde::{Deserialize, Serialize};

pub use rows::{Answer, FinalRow, LayerRow, Reference, RoundedAccuracy, RowCost};

use crate::{ExperimentConfig, ReleqError, SearchOutcome, Sensitivities};

/// Everything one [`Experiment`](crate::Experiment) found.
///
/// A report has no checksum: it is a result for people and other tools, which may edit it. Nothing resumes from one;
/// a run that is repeated from its configuration computes everything anew.
///
/// All of it is a function of the inputs and the seed, except `times` and the `times` of the
/// searches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// All settings of the run, which may be repeated from them.
    pub config: ExperimentConfig,
    /// Which data, and where it came from.
    pub data: String,
    /// Images trained on, held out for validation, and tested on.
    pub images: [usize; 3],
    /// Whether the images have no labels: every accuracy in the report is then an agreement, the share of images in
    /// which the network sees the class that it sees in full precision.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlabelled: bool,
    /// How pixels became numbers: as the configuration says, or as it was measured on the training images. `None` in reports of
    /// before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalization>,
    /// Full-precision accuracy on the validation images, before the long retrain.
    pub full_precision_validation: f64,
    /// Full-precision accuracy on the test images, before the long retrain.
    pub full_precision_test: f64,
    /// What losses are measured against; `None` if no long retrain was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// What single layers suffer from each bitwidth; `None` where that was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitivities: Option<Sensitivities>,
    /// The layers, with the bitwidths of `chosen`.
    pub layers: Vec<LayerRow>,
    /// The answer: of everything that got the long retrain, and that the search could have chosen, the cheapest
    /// whose validation loss is within the tolerance, or the most accurate if none is. `None` if no long
    /// retrain came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// What the answer loses where activations are rounded as well; `None` where that was not measured, because the run kept no
    /// weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounded: Option<RoundedAccuracy>,
    /// Bitwidths of the answer; without one, the best that the search has seen.
    pub chosen: Option<BitwidthAssignment>,
    /// What the searches found, full precision, what the configuration names, and uniform bitwidths, after the
    /// long retrain; after a cancellation, as far as they were retrained.
    pub rows: Vec<FinalRow>,
    /// The agent's search.
    pub search: SearchOutcome,
    /// The knapsack over the sensitivities, local search, evolution and random search, each with at most as many evaluations.
    pub comparisons: Vec<SearchOutcome>,
    /// Whether the caller stopped the run before its end.
    pub cancelled: bool,
    /// What failed after the searches: what ended the long retrains, or the first cost that a row lacks.
    /// [`failed`](Self::failed) has the searches' too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Version of this crate.
    pub version: String,
    /// The machine that the run was on. Answers differ in their last bits between kinds of processors.
    pub machine: Machine,
    /// Kinds of other machines that carried out some of the retrains, each its architecture and instruction set. A run by
    /// this machine's kind alone may differ in the last bits, and with them in what the search chose.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub other_machines: BTreeSet<String>,
    /// Wall seconds of every stage.
    pub times: BTreeMap<String, f64>,
}

impl Report {
    /// The row of the answer.
    #[must_use]
    pub fn chosen_row(&self) -> Option<&FinalRow> {
        let answer = self.answer.as_ref()?;
        self.rows.iter().find(|row| row.label == answer.label)
    }

    /// The first thing that failed in the run, if anything did.
    #[must_use]
    pub fn failed(&self) -> Option<&str> {
        let searches = std::iter::once(&self.search).chain(&self.comparisons);
        searches.map(|search| &search.error).chain([&self.error]).find_map(Option::as_deref)
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
        write(path.as_ref(), (self.to_json() + "\n").as_bytes())
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
        let fixed = [
            "label",
            "bits",
            "mean_bits",
            "validation_accuracy",
            "test_accuracy",
            "loss_points",
            "loss_standard_error",
            "quant_state",
            "over_limit",
            "failure",
        ];
        let mut models: Vec<(&str, &str)> = Vec::new();
        for RowCost { model, unit, .. } in self.rows.iter().flat_map(|row| &row.costs) {
            if !models.contains(&(model, unit)) {
                models.push((model, unit));
            }
        }
        let costs = models.iter().flat_map(|(model, unit)| {
            [format!("{model} ({unit})"), format!("{model}, times below 8 bits")]
        });
        csv.write_record(fixed.into_iter().map(str::to_owned).chain(costs)).map_err(fail)?;
        for row in &self.rows {
            let text = |number: f64| number.to_string();
            // What failed has no accuracy, whatever readers of numbers make of a zero.
            let measured =
                |number| if row.failure.is_some() { String::new() } else { text(number) };
            let fixed = [
                row.label.clone(),
                row.bits.to_string(),
                text(row.mean_bits),
                measured(row.validation_accuracy),
                measured(row.test_accuracy),
                measured(row.loss_points),
                row.loss_standard_error.map_or_else(String::new, text),
                row.quant_state.map_or_else(String::new, text),
                row.over_limit.map_or_else(String::new, text),
                row.failure.clone().unwrap_or_default(),
            ];
            let costs = models.iter().flat_map(|(model, _)| match row.cost(model) {
                Some(cost) => [text(cost.cost), text(cost.saving())],
                None => [String::new(), String::new()],
            });
            csv.write_record(fixed.into_iter().chain(costs)).map_err(fail)?;
        }
        let bytes = csv.into_inner().map_err(|error| fail(error.into_error().into()))?;
        write(path, &bytes)
    }

    /// Fails now, rather than after minutes of work, if a report cannot be written to `path`.
    ///
    /// # Errors
    /// [`ReleqError::Write`], naming the file.
    pub fn check_path(path: impl AsRef<Path>) -> Result<(), ReleqError> {
        atomic_file::check_writable(&path)
            .map_err(|source| ReleqError::Write { path: path.as_ref().to_owned(), source })
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ReleqError> {
    atomic_file::write(path, bytes)
        .map_err(|source| ReleqError::Write { path: path.to_owned(), source })
}
