//! Retrains as jobs: plain data that names everything a retrain follows from, and what carries it out anywhere.
//!
//! A run that has [`Workers`] hands its retrains to them, those of the search and the long ones at the end. Whoever
//! carries out a [`Job`] needs a [`Bench`], which anybody can make from a [`RunSpec`] and the weights in full precision. An
//! answer follows from the job alone, so it does not matter who computed it, or how often.

mod evaluator;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use releq_core::{BitwidthAssignment, Weights};
use releq_train::Hits;
use serde::{Deserialize, Serialize};

pub use evaluator::RemoteEvaluator;
pub(crate) use evaluator::other_answer;

pub use crate::experiment::{Bench, JobRunner};
use crate::{Cancel, ExperimentConfig, ReleqError, evaluate::Evaluation};

/// What all retrains of a run follow from, besides the weights themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// The settings of the run. Those that no retrain depends on, such as agent and budget, have some value or other.
    pub config: ExperimentConfig,
    /// Fingerprints of the images, by what they are for.
    pub data: BTreeMap<String, String>,
    /// [Fingerprint](Weights::fingerprint) of the weights in full precision.
    pub weights: String,
}

/// Which retrain of an assignment is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Task {
    /// The short one of the search, measured on its validation images.
    Short {
        /// Accuracy in full precision on those images, above 0 and at most 1, which says when a retrain is given up.
        full_precision: f64,
    },
    /// The long one at the end, measured on all validation images and on the test images.
    Long {
        /// Retrains of this assignment before, each of which has a seed of its own.
        again: usize,
        /// Whether the retrained weights are wanted.
        weights: bool,
    },
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short { .. } => "short retrain",
            Self::Long { .. } => "long retrain",
        })
    }
}

/// One retrain of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The assignment.
    pub bits: BitwidthAssignment,
    /// Which retrain of it.
    pub task: Task,
}

/// What a job came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum JobAnswer {
    /// Of [`Task::Short`].
    Short(Evaluation),
    /// Of [`Task::Long`].
    Long {
        /// On the validation and the test images, or why the weights diverged.
        retrained: Result<[Hits; 2], String>,
        /// The retrained weights, where they are wanted and did not diverge. They do not travel in JSON.
        #[serde(skip)]
        weights: Option<Weights>,
    },
}

impl JobAnswer {
    /// Whether this is an answer to such a task, with numbers that can be.
    #[must_use]
    pub fn fits(&self, task: &Task) -> bool {
        match (self, task) {
            (Self::Short(evaluation), Task::Short { .. }) => {
                matches!(evaluation, Evaluation::Failed { .. }) || {
                    evaluation.accuracy().is_some() && evaluation.clone().checked() == *evaluation
                }
            }
            (Self::Long { retrained, .. }, Task::Long { .. }) => {
                retrained.as_ref().map_or(true, |sets| sets.iter().all(|hits| hits.total() > 0))
            }
            _ => false,
        }
    }
}

/// Carries out jobs somewhere else, as on other machines.
pub trait Workers: Send + Sync {
    /// How many jobs are carried out at a time, as far as is known now. More may be asked for, and wait. The long retrains
    /// that may turn out not to be needed are asked for while workers would stand idle.
    fn width(&self) -> usize;

    /// The answer to a job of `bench`, as [`JobRunner::carry_out`] gives it on any machine of one kind. Waits until it is
    /// there; called from several threads.
    ///
    /// # Errors
    /// [`ReleqError::Cancelled`] soon after somebody asked to stop; [`ReleqError`] if no answer can be had, which ends the search.
    fn carry_out(
        &self,
        bench: &Arc<Bench>,
        job: &Job,
        cancel: &Cancel,
    ) -> Result<JobAnswer, ReleqError>;

    /// Kinds of machines, other than this one's, whose answers [`carry_out`](Self::carry_out) has given. A run asks after
    /// every answer, and its report names them, since answers of different kinds may differ in their last bits.
    fn other_machines(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// Name for messages.
    fn name(&self) -> &str {
        "workers"
    }
}

impl<W: Workers + ?Sized> Workers for Arc<W> {
    fn width(&self) -> usize {
        (**self).width()
    }

    fn carry_out(
        &self,
        bench: &Arc<Bench>,
        job: &Job,
        cancel: &Cancel,
    ) -> Result<JobAnswer, ReleqError> {
        (**self).carry_out(bench, job, cancel)
    }

    fn other_machines(&self) -> BTreeSet<String> {
        (**self).other_machines()
    }

    fn name(&self) -> &str {
        (**self).name()
    }
}
