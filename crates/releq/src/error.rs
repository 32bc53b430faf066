//! Why a search or an experiment failed.

use std::path::PathBuf;

use releq_core::{
    BitwidthAssignment, BitwidthError, CostError, NetworkError, text::TextError, with_causes,
};

/// Every failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleqError {
    /// A setting of the search that cannot work.
    #[error("`{setting}`: {reason}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration that cannot be read or written.
    #[error("configuration{}: {error}", in_field(.field))]
    Config {
        /// The field, as in `budget.evaluations`; empty where there is none to blame.
        field: String,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// A checkpoint that cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] releq_format::CheckpointError),
    /// An ONNX model that cannot be used.
    #[error(transparent)]
    Onnx(#[from] releq_format::onnx::OnnxError),
    /// A packed network that cannot be used.
    #[error(transparent)]
    Packed(#[from] releq_format::packed::PackedError),
    /// A network that cannot be exported.
    #[error(transparent)]
    Export(#[from] releq_format::ExportError),
    /// Weights that are not those of the network.
    #[error(transparent)]
    Weights(#[from] releq_core::WeightsError),
    /// A table of measured accuracies that cannot be read.
    #[error(transparent)]
    Table(#[from] TextError),
    /// An assignment that the table does not hold.
    #[error(
        "the table has no entry for {0}; answer misses with the nearest entry (`on_miss`), or search only its bitwidths"
    )]
    TableMiss(BitwidthAssignment),
    /// A file that cannot be written.
    #[error("cannot write {file}", file = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The agent failed.
    #[error(transparent)]
    Agent(#[from] releq_agent::AgentError),
    /// The training in full precision diverged, so that there is nothing to quantize.
    #[error(
        "full precision: the loss became {loss} at step {step}; a lower `{schedule}.sgd.learning_rate` may do"
    )]
    Pretraining {
        /// Name of the setting with its schedule, `pretrain` or `fine_tune`.
        schedule: &'static str,
        /// The loss.
        loss: f32,
        /// Steps taken before.
        step: usize,
    },
    /// Training failed for another reason than a diverging loss.
    #[error(transparent)]
    Train(#[from] releq_train::TrainError),
    /// The state of a training cannot be read or written.
    #[error(transparent)]
    TrainingState(#[from] releq_train::TrainingStateError),
    /// The folder of a run cannot be used.
    #[error(transparent)]
    RunFolder(#[from] crate::RunFolderError),
    /// A data set cannot be used.
    #[error(transparent)]
    Data(#[from] releq_data::DataError),
    /// A name that nothing has.
    #[error(transparent)]
    Name(#[from] releq_core::UnknownName),
    /// A quantizer refused.
    #[error(transparent)]
    Quant(#[from] releq_quant::QuantError),
    /// A cost model or a limit with settings that cannot work.
    #[error(transparent)]
    Hardware(#[from] releq_hw::HwError),
    /// A reward with settings that cannot work.
    #[error(transparent)]
    Reward(#[from] releq_reward::RewardError),
    /// A cost model does not cover the network.
    #[error(transparent)]
    Cost(#[from] CostError),
    /// An invalid bitwidth.
    #[error(transparent)]
    Bitwidth(#[from] BitwidthError),
    /// Layers that make no network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A search that cannot be resumed from this state.
    #[error("cannot resume, `{field}`: {reason}")]
    Resume {
        /// Field of the state.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A piece of the run failed with an error of its own.
    #[error("{piece} failed")]
    Piece {
        /// Which one.
        piece: String,
        /// What it says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A piece of the run panicked.
    #[error("{piece} panicked: {message}")]
    Panicked {
        /// Which one.
        piece: String,
        /// The message of the panic.
        message: String,
    },
    /// A piece of the run returned a number that it may not return.
    #[error("{piece}: {value:?} is not {allowed}")]
    OutOfRange {
        /// Which one.
        piece: String,
        /// The value.
        value: f64,
        /// What it may return.
        allowed: &'static str,
    },
    /// An evaluator returned another number of answers than it was asked for.
    #[error("{piece} gave {got} answers to {expected} questions")]
    Answers {
        /// The evaluator.
        piece: String,
        /// Assignments asked.
        expected: usize,
        /// Evaluations that came back.
        got: usize,
    },
    /// A failure of a piece that is not ours; none of the other variants describes it.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
    /// Stopped by the caller.
    #[error("stopped before there was a result")]
    Cancelled,
}

fn in_field(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!(", `{field}`") }
}

impl ReleqError {
    /// `path` is what Serde calls the place.
    pub(crate) fn config(path: &str, error: serde_json::Error) -> Self {
        // A dot stands for the whole.
        let field = if path == "." { String::new() } else { path.to_owned() };
        Self::Config { field, error }
    }

    /// The error with its causes, in one line.
    pub(crate) fn chain(&self) -> String {
        with_causes(self)
    }
}
