//! The seam between the search and whatever computes gradients.

use releq_core::{Bitwidth, BitwidthAssignment, Network, Shape, Weights, WeightsError};
use releq_data::{DataError, Label};
use releq_quant::{LayerWeights, QuantError, Quantizer};

/// Stochastic gradient descent with momentum, as PyTorch defines it:
/// `v = momentum * v + (gradient + weight_decay * w)`, `w = w - learning_rate * v`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Sgd {
    /// Step size.
    pub learning_rate: f32,
    /// Share of the last update that is kept.
    pub momentum: f32,
    /// L2 penalty, on weights and biases alike.
    pub weight_decay: f32,
}

/// What can go wrong while training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Weights that do not belong to the network.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A data set of images that the network does not take.
    #[error(
        "data set `{data}` has images of {got:?} (channels, height, width), but network `{network}` takes {expected:?}"
    )]
    Images {
        /// Name of the data set.
        data: String,
        /// Name of the network.
        network: String,
        /// What the network takes.
        expected: [usize; 3],
        /// What the data set has.
        got: [usize; 3],
    },
    /// As many bitwidths as quantizable layers are needed.
    #[error("the network has {layers} quantizable layers, but {bits} bitwidths came")]
    AssignmentLength {
        /// Quantizable layers.
        layers: usize,
        /// Bitwidths given.
        bits: usize,
    },
    /// Images and labels that do not make a batch of this network.
    #[error("a batch of {labels} labels needs {expected} pixel values, got {got}")]
    Batch {
        /// Number of labels.
        labels: usize,
        /// Pixels that many images have.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// A step needs something to learn from.
    #[error("a batch needs at least one image")]
    EmptyBatch,
    /// A label the network has no output for.
    #[error("label {label} is not below the {outputs} outputs of the network")]
    Label {
        /// What came.
        label: Label,
        /// Outputs of the network.
        outputs: usize,
    },
    /// Batch norm cannot estimate a variance from one value per channel.
    #[error(
        "layer `{layer}`: batch norm trains on more than one value per channel, got a batch of one"
    )]
    SingleValue {
        /// Name of the layer.
        layer: String,
    },
    /// A field of a training schedule that cannot be.
    #[error("schedule: `{field}` must be {allowed}, got {got}")]
    Schedule {
        /// Name of the field.
        field: &'static str,
        /// What it may be.
        allowed: &'static str,
        /// What came.
        got: f64,
    },
    /// A normalization for another number of channels.
    #[error(
        "normalization: {channels} channels need as many means and deviations, got {means} and {deviations}"
    )]
    Normalization {
        /// Channels of the images.
        channels: usize,
        /// Means given.
        means: usize,
        /// Deviations given.
        deviations: usize,
    },
    /// The loss is not finite any more.
    #[error("the loss became {loss} at step {step}")]
    Diverged {
        /// The loss.
        loss: f32,
        /// Steps taken before.
        step: usize,
    },
    /// A training cannot go on with something else than it was begun with.
    #[error("the training was begun with {what} {expected}, it cannot go on with {got}")]
    Resume {
        /// What is different.
        what: &'static str,
        /// What it was begun with.
        expected: String,
        /// What came.
        got: String,
    },
    /// The trainer does not cover this layer.
    #[error("layer `{layer}`: the {trainer} trainer does not cover {what}")]
    Unsupported {
        /// Name of the layer.
        layer: String,
        /// Name of the trainer.
        trainer: &'static str,
        /// What it does not cover.
        what: String,
    },
    /// The device to train on is not there.
    #[error("backend `{backend}`: {reason}")]
    Device {
        /// Name of the backend.
        backend: &'static str,
        /// Why, and what helps.
        reason: String,
    },
    /// A failure of a trainer of one's own that none of the other variants describes.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
    /// The quantizer refused.
    #[error(transparent)]
    Quant(#[from] QuantError),
    /// An image could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// What an optimizer remembers between two steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptimizerState {
    /// Velocity of every weight and bias, under the name and in the shape of the parameter.
    pub velocity: Weights,
    /// Steps since the weights were loaded; what dropout leaves out follows from it.
    pub steps: u64,
}

impl OptimizerState {
    /// Checks that this holds exactly the velocities of `network`.
    ///
    /// # Errors
    /// As [`Weights::check`].
    pub fn check(&self, network: &Network) -> Result<(), WeightsError> {
        self.velocity.check_trainable(network)
    }
}

/// Trains and runs one network on one device; each evaluation worker owns one.
///
/// A float master copy of the weights is kept. While bitwidths are set, every use of a quantizable
/// layer sees its weights fake-quantized, and the gradient passes straight through to the master
/// copy (spec of the quantizer). Biases and batch norm stay in floating point.
///
/// Equal calls give equal bits, on whatever thread they run.
pub trait Trainer: Send {
    /// What it trains.
    fn network(&self) -> &Network;

    /// What its weights are quantized with, while bitwidths are set.
    fn quantizer(&self) -> &dyn Quantizer;

    /// Replaces all weights and statistics and forgets the optimizer's momentum.
    ///
    /// # Errors
    /// [`TrainError`] if names or shapes differ from the network's; nothing is changed then.
    fn load(&mut self, state: &Weights) -> Result<(), TrainError>;

    /// The float master weights and the statistics.
    fn state(&self) -> Weights;

    /// What the optimizer remembers.
    fn optimizer(&self) -> OptimizerState;

    /// Lets the optimizer go on from there; the weights stay.
    ///
    /// # Errors
    /// [`TrainError`] if names or shapes differ from the network's; nothing is changed then.
    fn set_optimizer(&mut self, state: &OptimizerState) -> Result<(), TrainError>;

    /// The bitwidths of the quantizable layers, if they are quantized.
    fn bits(&self) -> Option<BitwidthAssignment>;

    /// Quantizes every quantizable layer from now on, or none.
    ///
    /// # Errors
    /// [`TrainError::AssignmentLength`], or a bitwidth that the quantizer refuses.
    fn set_bits(&mut self, bits: Option<&BitwidthAssignment>) -> Result<(), TrainError>;

    /// One step on one batch, batch norm in training mode; gives the mean cross-entropy before it.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`, already normalized
    /// - `labels`: `[batch]`
    ///
    /// # Errors
    /// [`TrainError`] for a batch that does not fit. A loss that is not finite is returned, not refused.
    fn train_step(&mut self, images: &[f32], labels: &[Label], sgd: Sgd)
    -> Result<f32, TrainError>;

    /// Outputs for a batch, batch norm with running statistics, no dropout.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`; output: `[batch, outputs]`
    ///
    /// # Errors
    /// [`TrainError::Batch`] if `images` is no whole number of images.
    fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, TrainError>;
}

/// The bitwidth of each quantizable layer of `network`, in order; `None` where its weights stay in floating
/// point.
///
/// # Errors
/// [`TrainError::AssignmentLength`], or [`TrainError::Quant`] for a bitwidth that `quantizer` does not support.
pub(crate) fn layer_bits(
    network: &Network,
    quantizer: &dyn Quantizer,
    bits: Option<&BitwidthAssignment>,
) -> Result<Vec<Option<Bitwidth>>, TrainError> {
    let layers = network.quantizable_layers();
    let Some(assignment) = bits else { return Ok(vec![None; layers]) };
    if assignment.len() != layers {
        return Err(TrainError::AssignmentLength { layers, bits: assignment.len() });
    }
    let checked = |&bits: &Bitwidth| {
        if quantizer.supports(bits) {
            Ok(Some(bits))
        } else {
            Err(QuantError::unsupported(quantizer, bits).into())
        }
    };
    assignment.iter().map(checked).collect()
}

/// The weights of quantizable layer `index` of `network`, with its output channels, for a quantizer.
///
/// # Errors
/// None for weights of a checked network.
pub(crate) fn layer_weights<'a>(
    network: &Network,
    index: usize,
    values: &'a [f32],
) -> Result<LayerWeights<'a>, TrainError> {
    let channels = match network.shape(index) {
        Shape::Image { channels, .. } => channels,
        Shape::Vector { features } => features,
    };
    Ok(LayerWeights::new(values, channels)?)
}
