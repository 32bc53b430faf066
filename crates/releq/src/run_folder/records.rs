//! What the lines of a run's journals say.

use releq_core::{Bitwidth, BitwidthAssignment};
use releq_train::{Compared, Hits};
use serde::{Deserialize, Serialize};

use crate::{
    SearchOutcome,
    evaluate::{Evaluation, Measurement},
};

/// A line of `evaluations.jsonl`: what the short retrain of one assignment came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvaluationRecord {
    pub(crate) bits: BitwidthAssignment,
    /// In 0 to 1, unless the evaluation failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accuracy: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    standard_error: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compared: Option<Compared>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answered_by: Option<BitwidthAssignment>,
    /// The step after which the retrain was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    given_up_after: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// Working time of the run when the answer came.
    pub(crate) run_seconds: f64,
}

impl EvaluationRecord {
    pub(crate) fn new(bits: BitwidthAssignment, evaluation: &Evaluation, run_seconds: f64) -> Self {
        let (seen, given_up_after, failure) = match evaluation.clone() {
            Evaluation::Measured(seen) => (Some(seen), None, None),
            Evaluation::GivenUp { after_step, seen } => (Some(seen), Some(after_step), None),
            Evaluation::Failed { reason } => (None, None, Some(reason)),
        };
        Self {
            bits,
            accuracy: seen.as_ref().map(|seen| seen.accuracy),
            standard_error: seen.as_ref().and_then(|seen| seen.standard_error),
            compared: seen.as_ref().and_then(|seen| seen.compared),
            answered_by: seen.and_then(|seen| seen.answered_by),
            given_up_after,
            failure,
            run_seconds,
        }
    }

    /// The same answer for a run that has not worked for it.
    pub(super) fn for_free(self) -> Self {
        Self { run_seconds: 0.0, ..self }
    }

    pub(crate) fn evaluation(&self) -> Evaluation {
        let Some(accuracy) = self.accuracy else {
            return Evaluation::failed(self.failure.clone().unwrap_or_default());
        };
        let seen = Measurement {
            accuracy,
            standard_error: self.standard_error,
            compared: self.compared,
            estimated: None,
            answered_by: self.answered_by.clone(),
        };
        match self.given_up_after {
            Some(after_step) => Evaluation::GivenUp { after_step, seen },
            None => Evaluation::Measured(seen),
        }
    }
}

/// A line of `finals.jsonl`: what the long retrain of one assignment came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FinalRecord {
    pub(crate) bits: BitwidthAssignment,
    /// Which retrain of this assignment it is, from 0.
    #[serde(default)]
    pub(crate) seed: usize,
    /// On the validation and the test images; `None` if the retrain failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    validation: Option<Hits>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    test: Option<Hits>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// Working time of the run when it was done.
    pub(crate) run_seconds: f64,
}

impl FinalRecord {
    pub(crate) fn new(
        bits: BitwidthAssignment,
        seed: usize,
        retrained: &Result<[Hits; 2], String>,
        run_seconds: f64,
    ) -> Self {
        let [validation, test] = match retrained {
            Ok(sets) => sets.clone().map(Some),
            Err(_) => [None, None],
        };
        Self {
            bits,
            seed,
            validation,
            test,
            failure: retrained.as_ref().err().cloned(),
            run_seconds,
        }
    }

    pub(crate) fn retrained(&self) -> Result<[Hits; 2], String> {
        match (&self.validation, &self.test) {
            (Some(validation), Some(test)) => Ok([validation.clone(), test.clone()]),
            _ => Err(self.failure.clone().unwrap_or_default()),
        }
    }
}

/// What the full-precision weights classify correctly before the long retrain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FullPrecision {
    pub(crate) validation: Hits,
    pub(crate) test: Hits,
    /// Accuracy on the validation images of short retrains, in 0 to 1; `None` where the evaluator is one's own.
    pub(crate) search_validation: Option<f64>,
}

/// A line of `stages.jsonl`: a part of the run that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum StageRecord {
    /// The weights in full precision are there.
    Weights { fingerprint: String, run_seconds: f64 },
    /// What those weights classify correctly.
    FullPrecision { measured: FullPrecision, run_seconds: f64 },
    /// What one layer suffers at one bitwidth is measured.
    Sensitivity { layer: usize, bits: Bitwidth, compared: Compared, run_seconds: f64 },
    /// A machine of another kind than the run's has carried out a retrain.
    OtherMachine { kind: String },
    /// A search came to its end: the agent's first, then those that it is compared with.
    Search { outcome: Box<SearchOutcome>, run_seconds: f64 },
}
