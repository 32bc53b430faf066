//! The seam between the search and whatever computes gradients.

use std::collections::BTreeMap;

use releq_core::{
    Bitwidth, BitwidthAssignment, Network, Node, Op, Parameter, ParameterRole, Shape, Weights,
    WeightsError, trainable_shapes,
};
use releq_data::{DataError, Label};
use releq_quant::{ActivationGrid, LayerWeights, QuantError, Quantizer};

use crate::{
    Moments,
    difference::{Difference, difference},
};

/// Stochastic gradient descent with momentum, as PyTorch defines it:
/// `v = momentum * v + (gradient + weight_decay * w)`, `w = w - learning_rate * v`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sgd {
    /// Step size.
    pub learning_rate: f32,
    /// Share of the last update that is kept.
    pub momentum: f32,
    /// L2 penalty, on weights and biases alike.
    pub weight_decay: f32,
}

/// Why training failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Weights that do not belong to the network.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The images of a data set have another shape than the network takes.
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
    /// Images and labels do not form a batch of this network.
    #[error("a batch of {labels} images needs {expected} pixel values, got {got}")]
    Batch {
        /// Number of images by labels or logits.
        labels: usize,
        /// Pixels that many images have.
        expected: usize,
        /// The rejected value.
        got: usize,
    },
    /// A step needs something to learn from.
    #[error("a batch needs at least one image")]
    EmptyBatch,
    /// Images or settings that tell no ranges of activations.
    #[error("calibration: {reason}")]
    Calibration {
        /// What is wrong.
        reason: String,
    },
    /// A label the network has no output for.
    #[error("label {label} is not below the {outputs} outputs of the network")]
    Label {
        /// The rejected value.
        label: Label,
        /// Outputs of the network.
        outputs: usize,
    },
    /// Logits of a teacher that do not make whole images.
    #[error(
        "a teacher's logits come in groups of {outputs}, one for each output, but there are {got}"
    )]
    Teacher {
        /// Outputs of the network.
        outputs: usize,
        /// Logits given.
        got: usize,
    },
    /// A logit of a teacher is NaN or infinite.
    #[error("a teacher's logit {index} is {value}; all must be finite")]
    TeacherNotFinite {
        /// Place of the first such logit.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// Batch norm cannot estimate a variance from one value per channel.
    #[error(
        "layer `{layer}`: batch norm trains on more than one value per channel, got a batch of one"
    )]
    SingleValue {
        /// Name of the layer.
        layer: String,
    },
    /// A field of a training schedule is out of its range.
    #[error("schedule: `{field}` must be {allowed}, got {got:?}")]
    Schedule {
        /// Name of the field.
        field: &'static str,
        /// What it may be.
        allowed: &'static str,
        /// The rejected value.
        got: f64,
    },
    /// A batch that would need images twice.
    #[error(
        "schedule: `batch_size` is {batch_size}, but data set `{data}` has only {images} images to train on"
    )]
    BatchTooLarge {
        /// Images in a batch.
        batch_size: usize,
        /// Name of the data set.
        data: String,
        /// Images that it has.
        images: usize,
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
    /// The loss became infinite or NaN.
    #[error("the loss became {loss} at step {step}")]
    Diverged {
        /// The loss.
        loss: f32,
        /// Steps taken before.
        step: usize,
    },
    /// An output became NaN.
    #[error("the output for image {image} is not a number")]
    NotANumber {
        /// The first such image of the data set.
        image: usize,
    },
    /// A trainer of one's own gave another number of outputs than the images have.
    #[error("{images} images have {expected} outputs, but the trainer gave {got}")]
    Logits {
        /// Images shown.
        images: usize,
        /// Outputs that they have.
        expected: usize,
        /// Outputs that came.
        got: usize,
    },
    /// A training is resumed with something else than it was begun with.
    #[error("the training was begun with {what} {expected}; it cannot be resumed with {got}")]
    Resume {
        /// What is different.
        what: String,
        /// What it was begun with.
        expected: String,
        /// The rejected value.
        got: String,
    },
    /// Moments of other layers than those of the network.
    #[error(
        "the network has {expected} layers whose means can be restored; these moments are of {got} or of other channels"
    )]
    Moments {
        /// Layers of the network whose moments are taken.
        expected: usize,
        /// Moments given.
        got: usize,
    },
    /// The trainer is one that does not tell moments.
    #[error(
        "the trainer does not tell the means of its layers (`Trainer::moments`), which corrections need"
    )]
    NoMoments,
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
    /// The device to train on is not available.
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

impl TrainError {
    /// [`Resume`](Self::Resume), unless a training that is resumed has the same `what` as it was begun with.
    pub(crate) fn unless_same(what: &str, begun: &str, now: &str) -> Result<(), Self> {
        if begun == now {
            return Ok(());
        }
        let (what, expected, got) = (what.to_owned(), begun.to_owned(), now.to_owned());
        Err(Self::Resume { what, expected, got })
    }

    /// As [`unless_same`](Self::unless_same), for settings with fields.
    pub(crate) fn unless_alike<T: serde::Serialize>(
        what: &str,
        begun: &T,
        now: &T,
    ) -> Result<(), Self> {
        match difference(begun, now) {
            None => Ok(()),
            Some(Difference { field, begun, now }) => {
                let what = format!("{what} `{field}`");
                Err(Self::Resume { what, expected: begun, got: now })
            }
        }
    }
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
    /// Before the first step: every velocity is 0.
    #[must_use]
    pub fn start(network: &Network) -> Self {
        let zeros = |(name, shape): (String, Vec<usize>)| {
            let values = vec![0.0; shape.iter().product()];
            (name, Parameter { shape, values })
        };
        Self { velocity: Weights(trainable_shapes(network).map(zeros).collect()), steps: 0 }
    }

    /// Checks that this holds exactly the velocities of `network`.
    ///
    /// # Errors
    /// As [`Weights::check`].
    pub fn check(&self, network: &Network) -> Result<(), WeightsError> {
        self.velocity.check_trainable(network)
    }
}

/// Everything that the future answers of a [`Trainer`] depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainerState {
    /// The float master weights and the statistics.
    pub weights: Weights,
    /// What the optimizer remembers.
    pub optimizer: OptimizerState,
    /// Bitwidths of the quantizable layers, if they are quantized.
    pub bits: Option<BitwidthAssignment>,
    /// [Name](Quantizer::name) of what quantizes them.
    pub quantizer: String,
    /// The [clips](Quantizer::clips) that the weights of layers are quantized within, by the layers' names; of those whose
    /// clips have been found.
    pub clips: BTreeMap<String, Vec<f32>>,
}

impl TrainerState {
    /// Checks that this fits `network` and a quantizer of this name.
    ///
    /// # Errors
    /// [`TrainError::Weights`] if names or shapes differ from the network's, [`TrainError::Resume`] for another
    /// quantizer.
    pub fn check(&self, network: &Network, quantizer: &str) -> Result<(), TrainError> {
        TrainError::unless_same("the quantizer", &self.quantizer, quantizer)?;
        self.weights.check(network)?;
        let fits = |(name, clips): &(&String, &Vec<f32>)| {
            clips.iter().all(|clip| clip.is_finite() && *clip >= 0.0)
                && network.nodes().iter().any(|node| node.name == **name && node.op.has_weights())
        };
        if let Some((layer, _)) = self.clips.iter().find(|entry| !fits(entry)) {
            return Err(WeightsError::Unexpected(format!("{layer}.clips")).into());
        }
        Ok(self.optimizer.check(network)?)
    }

    /// As [`check`](Self::check), and that the clips are as many as `quantizer` takes; gives the bitwidths of the quantizable
    /// layers.
    pub(crate) fn checked(
        &self,
        network: &Network,
        quantizer: &dyn Quantizer,
    ) -> Result<Vec<Option<Bitwidth>>, TrainError> {
        self.check(network, quantizer.name())?;
        self.rounded(network, quantizer)?;
        layer_bits(network, quantizer, self.bits.as_ref())
    }

    /// The weights as `network` computes with them: those whose clips are held are rounded within them. Quantized again, they
    /// stay as they are.
    ///
    /// # Errors
    /// [`TrainError`] for a state of another network or quantizer.
    pub fn settled(
        self,
        network: &Network,
        quantizer: &dyn Quantizer,
    ) -> Result<Weights, TrainError> {
        let rounded = self.rounded(network, quantizer)?;
        let mut weights = self.weights;
        for (name, values) in rounded {
            if let Some(weight) = weights.0.get_mut(&name) {
                weight.values = values;
            }
        }
        Ok(weights)
    }

    /// The weights whose clips are held, by name, rounded within them.
    fn rounded(
        &self,
        network: &Network,
        quantizer: &dyn Quantizer,
    ) -> Result<Vec<(String, Vec<f32>)>, TrainError> {
        let bits = layer_bits(network, quantizer, self.bits.as_ref())?;
        let quantizable =
            (0..network.nodes().len()).filter(|&index| network.nodes()[index].op.is_quantizable());
        let mut rounded = Vec::new();
        for (index, bits) in quantizable.zip(bits) {
            let layer = &network.nodes()[index].name;
            let name = ParameterRole::Weight.name(layer);
            let held = bits.zip(self.clips.get(layer)).zip(self.weights.0.get(&name));
            let Some(((bits, clips), weight)) = held else { continue };
            let mut values = vec![0.0; weight.values.len()];
            let weights = layer_weights(network, index, &weight.values)?;
            quantizer.fake_quantize_within(weights, bits, clips, &mut values)?;
            rounded.push((name, values));
        }
        Ok(rounded)
    }
}

/// What a step learns from.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Target<'a> {
    /// Classes: the loss is the mean cross-entropy.
    ///
    /// # Shapes
    /// - `[batch]`
    Labels(&'a [Label]),
    /// Outputs of another network, a teacher: the loss is the mean cross-entropy between the softmax of its
    /// logits and that of the trained network's, at temperature 1.
    ///
    /// # Shapes
    /// - `[batch, outputs]`
    ///
    /// # Source
    /// Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), section 2.
    Teacher(&'a [f32]),
}

/// Images and what a step learns from them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batch<'a> {
    /// Normalized pixels.
    ///
    /// # Shapes
    /// - `[batch, channels, height, width]`
    pub images: &'a [f32],
    /// What to learn.
    pub target: Target<'a>,
}

impl<'a> Batch<'a> {
    /// Images with their classes.
    #[must_use]
    pub const fn labelled(images: &'a [f32], labels: &'a [Label]) -> Self {
        Self { images, target: Target::Labels(labels) }
    }

    /// Images with a teacher's logits.
    #[must_use]
    pub const fn taught(images: &'a [f32], logits: &'a [f32]) -> Self {
        Self { images, target: Target::Teacher(logits) }
    }

    /// Checks that `network` can learn from this; gives the number of images.
    ///
    /// # Errors
    /// [`TrainError`], saying what does not fit: another number of pixels than labels or logits ask for, no
    /// image, a label without an output, a teacher's logit that is not finite, or a batch of one where batch
    /// norm needs more.
    pub fn check(&self, network: &Network) -> Result<usize, TrainError> {
        let outputs = network.outputs();
        let images = match self.target {
            Target::Labels(labels) => labels.len(),
            Target::Teacher(logits) if logits.len().is_multiple_of(outputs) => {
                logits.len() / outputs
            }
            Target::Teacher(logits) => {
                return Err(TrainError::Teacher { outputs, got: logits.len() });
            }
        };
        let expected = images * network.input().iter().product::<usize>();
        if self.images.len() != expected {
            let got = self.images.len();
            return Err(TrainError::Batch { labels: images, expected, got });
        }
        if images == 0 {
            return Err(TrainError::EmptyBatch);
        }
        match self.target {
            Target::Labels(labels) => {
                if let Some(&label) = labels.iter().find(|&&label| usize::from(label) >= outputs) {
                    return Err(TrainError::Label { label, outputs });
                }
            }
            Target::Teacher(logits) => {
                if let Some(index) = logits.iter().position(|logit| !logit.is_finite()) {
                    return Err(TrainError::TeacherNotFinite { index, value: logits[index] });
                }
            }
        }
        for (index, node) in network.nodes().iter().enumerate() {
            let area = match network.shape(index) {
                Shape::Image { height, width, .. } => height * width,
                Shape::Vector { .. } => 1,
            };
            if matches!(node.op, Op::BatchNorm { .. }) && images * area == 1 {
                return Err(TrainError::SingleValue { layer: node.name.clone() });
            }
        }
        Ok(images)
    }
}

/// Trains and runs one network on one device; each evaluation worker owns one.
///
/// A float master copy of the weights is kept. While bitwidths are set, every use of a quantizable
/// layer sees its weights fake-quantized, and the gradient passes to the master copy as
/// [`Quantizer::backward`] says. The [clips](Quantizer::clips) of the first use are held from then on, until bitwidths are set
/// or weights loaded again; [`TrainerState::settled`] gives the weights within them. So a training that begins with
/// random weights keeps to their clips: train in full precision first. Biases and batch norm stay in floating point.
///
/// Equal calls give equal bits, on whatever thread they run.
pub trait Trainer: Send {
    /// What it trains.
    fn network(&self) -> &Network;

    /// Quantizes every quantizable layer from now on, or none. A layer at
    /// [`Bitwidth::FLOAT`] stays as it is.
    ///
    /// # Errors
    /// [`TrainError::AssignmentLength`], or a bitwidth that the quantizer refuses; nothing is changed then.
    fn set_bits(&mut self, bits: Option<&BitwidthAssignment>) -> Result<(), TrainError>;

    /// One step on one batch, batch norm in training mode; gives the mean loss before it.
    ///
    /// # Errors
    /// Those of [`Batch::check`]. A loss that is not finite is returned, not refused.
    fn train_step(&mut self, batch: &Batch<'_>, optimizer: Sgd) -> Result<f32, TrainError>;

    /// Outputs for a batch, batch norm with running statistics, no dropout.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`; output: `[batch, outputs]`
    ///
    /// # Errors
    /// [`TrainError::Batch`] if `images` is no whole number of images.
    fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, TrainError>;

    /// Mean and variance of every channel at the layers that a [`Corrector`](crate::Corrector) corrects, for a batch as
    /// in [`logits`](Self::logits): of what layers with a bias give, and of what batch norms and [`Op::ScaleShift`] read, in
    /// the order of the layers. Given the moments to `restore`, each layer's are moved there before the next layer sees them,
    /// but given as they were. Only corrections need it; a trainer that cannot tell keeps the default.
    ///
    /// # Errors
    /// [`TrainError::Batch`], [`TrainError::EmptyBatch`] and [`TrainError::Moments`] for images and moments that do not fit;
    /// [`TrainError::NoMoments`] unless overridden.
    fn moments(
        &mut self,
        images: &[f32],
        restore: Option<&[Moments]>,
    ) -> Result<Vec<Moments>, TrainError> {
        let _ = (images, restore);
        Err(TrainError::NoMoments)
    }

    /// Everything that future answers depend on.
    fn snapshot(&self) -> TrainerState;

    /// Continues from `state` exactly as the trainer that it was taken from would have.
    ///
    /// # Errors
    /// Those of [`TrainerState::check`] and [`set_bits`](Self::set_bits); nothing is changed then.
    fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError>;

    /// Replaces all weights and statistics, and forgets the optimizer's momentum; the bitwidths stay.
    ///
    /// # Errors
    /// [`TrainError::Weights`] if names or shapes differ from the network's; nothing is changed then.
    fn load(&mut self, weights: &Weights) -> Result<(), TrainError> {
        let optimizer = OptimizerState::start(self.network());
        let (weights, clips) = (weights.clone(), BTreeMap::new());
        let state = TrainerState { weights, optimizer, clips, ..self.snapshot() };
        self.restore(&state)
    }

    /// The float master weights and the statistics.
    fn weights(&self) -> Weights {
        self.snapshot().weights
    }
}

macro_rules! forward {
    ($($type:ty),+) => {$(
        impl<T: Trainer + ?Sized> Trainer for $type {
            fn network(&self) -> &Network {
                (**self).network()
            }
            fn set_bits(&mut self, bits: Option<&BitwidthAssignment>) -> Result<(), TrainError> {
                (**self).set_bits(bits)
            }
            fn train_step(&mut self, batch: &Batch<'_>, optimizer: Sgd) -> Result<f32, TrainError> {
                (**self).train_step(batch, optimizer)
            }
            fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, TrainError> {
                (**self).logits(images)
            }
            fn moments(
                &mut self,
                images: &[f32],
                restore: Option<&[Moments]>,
            ) -> Result<Vec<Moments>, TrainError> {
                (**self).moments(images, restore)
            }
            fn snapshot(&self) -> TrainerState {
                (**self).snapshot()
            }
            fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError> {
                (**self).restore(state)
            }
            fn load(&mut self, weights: &Weights) -> Result<(), TrainError> {
                (**self).load(weights)
            }
            fn weights(&self) -> Weights {
                (**self).weights()
            }
        }
    )+};
}
forward!(&mut T, Box<T>);

/// Pixels of one image of `network`, of which `images` has whole ones.
///
/// # Errors
/// [`TrainError::Batch`].
pub(crate) fn pixels_of(network: &Network, images: &[f32]) -> Result<usize, TrainError> {
    let pixels = network.input().iter().product();
    if images.len().is_multiple_of(pixels) {
        return Ok(pixels);
    }
    let labels = images.len().div_ceil(pixels);
    Err(TrainError::Batch { labels, expected: labels * pixels, got: images.len() })
}

/// The bitwidth of each quantizable layer of `network`, in order; `None` where its weights stay in floating
/// point.
///
/// # Errors
/// [`TrainError::AssignmentLength`], or [`TrainError::Quant`] for a bitwidth that `quantizer` does not support, or one above 8
/// for activations.
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
    let quantizable = network.nodes().iter().filter(|node| node.op.is_quantizable());
    let checked = |(node, &bits): (&Node, &Bitwidth)| {
        if bits.is_float() {
            Ok(None)
        } else if !node.op.has_weights() {
            match bits > Bitwidth::EIGHT {
                true => Err(QuantError::ActivationBits { bits }.into()),
                false => Ok(Some(bits)),
            }
        } else if quantizer.supports(bits) {
            Ok(Some(bits))
        } else {
            Err(QuantError::unsupported(quantizer, bits).into())
        }
    };
    quantizable.zip(assignment.iter()).map(checked).collect()
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

/// The grid that layer `index` of `network`, a [`FakeQuantize`](releq_core::Op::FakeQuantize), rounds to at a bitwidth of 1
/// to 8, from its ranges `[8, 2]`.
///
/// # Errors
/// [`TrainError::Calibration`] where the ranges have not been found, [`TrainError::Quant`] where they have no scale.
pub(crate) fn activation_grid(
    network: &Network,
    index: usize,
    ranges: &[f32],
    bits: Bitwidth,
) -> Result<ActivationGrid, TrainError> {
    let row = usize::from(bits.get()).saturating_sub(1);
    match ranges.chunks_exact(2).nth(row) {
        Some(&[min, max]) if min <= max => Ok(ActivationGrid::of_range(min, max, bits)?),
        _ => {
            let layer = &network.nodes()[index].name;
            let reason = format!("the range of `{layer}` is not known at {bits} bits");
            Err(TrainError::Calibration { reason })
        }
    }
}
