//! What an exporter needs beside network and weights to give back the user's model.

use std::collections::BTreeMap;

/// Size of the batch, as the model has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Batch {
    /// A number that is part of the model.
    Fixed(usize),
    /// Any, perhaps by a name such as `batch`.
    Any(Option<String>),
}

/// Order of the dimensions of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[batch, channels, height, width]`, as in PyTorch.
    ChannelsFirst,
    /// `[batch, height, width, channels]`, as in Keras.
    ChannelsLast,
    /// `[batch, features]`.
    Features,
}

/// What a model does with what its last layer gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// Nothing.
    #[default]
    Logits,
    /// Makes probabilities of it.
    Softmax,
    /// Makes the logarithms of probabilities of it.
    LogSoftmax,
}

impl End {
    /// Applies this to the logits of one image.
    pub fn apply(self, logits: &mut [f32]) {
        if self == Self::Logits {
            return;
        }
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = logits.iter().map(|logit| (logit - most).exp()).sum();
        for logit in logits {
            *logit -= most + sum.ln();
            if self == Self::Softmax {
                *logit = logit.exp();
            }
        }
    }
}

/// Names and forms around a network, as the model had them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Program that wrote the model, with its version.
    pub producer: String,
    /// Version of ONNX's operators.
    pub opset: i64,
    /// Name of the input.
    pub input: String,
    /// Order of its dimensions.
    pub layout: Layout,
    /// Size of the batch.
    pub batch: Batch,
    /// Name of the output.
    pub output: String,
    /// Dimensions of the output: 2 for `[batch, classes]`, more if sides of 1 follow.
    pub output_rank: usize,
    /// What follows the network.
    pub end: End,
    /// Initialiser in the model that a parameter of the network was read from, for those that are one.
    pub origins: BTreeMap<String, String>,
}
