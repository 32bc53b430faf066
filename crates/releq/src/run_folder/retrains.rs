//! What a run has measured by retrains, for whoever looks at it from outside.

use releq_core::BitwidthAssignment;
use releq_train::Hits;

use crate::evaluate::Evaluation;

/// One retrain of a run, and what it came to.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedRetrain<T> {
    /// The assignment.
    pub bits: BitwidthAssignment,
    /// What it came to.
    pub answer: T,
    /// Seconds that the run had worked when the answer came, over all of its lives; 0 for one that was taken over from
    /// another run.
    pub run_seconds: f64,
}

/// The retrains of a run in the order in which their answers came.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RecordedRetrains {
    /// Those of the searches.
    pub short: Vec<RecordedRetrain<Evaluation>>,
    /// The long ones at the end: correct images of the validation and the test images, or why one failed.
    pub long: Vec<RecordedRetrain<Result<[Hits; 2], String>>>,
}
