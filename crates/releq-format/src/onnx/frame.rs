//! What an exporter needs beside network and weights to give back the user's model.

use std::collections::BTreeMap;

use releq_core::Network;
use serde::{Deserialize, Serialize};

/// Size of the batch, as the model has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Batch {
    /// A number that is part of the model.
    Fixed(usize),
    /// Any, perhaps by a name such as `batch`.
    Any(Option<String>),
}

/// Order of the dimensions of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// `[batch, channels, height, width]`, as in PyTorch.
    ChannelsFirst,
    /// `[batch, height, width, channels]`, as in Keras.
    ChannelsLast,
    /// `[batch, features]`.
    Features,
}

/// What a model does with what its last layer gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    /// Program that wrote the model, with its version; empty for a network that is from none.
    pub producer: String,
    /// Version of ONNX's operators; 0 for a network that is from no model.
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
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub origins: BTreeMap<String, String>,
}

impl Frame {
    /// The frame of a network that is from no model: a batch of any size of images with channels first, and the names
    /// that PyTorch's users choose most.
    #[must_use]
    pub fn of(network: &Network) -> Self {
        let (output, end) = match network.has_softmax() {
            true => ("probabilities", End::Softmax),
            false => ("logits", End::Logits),
        };
        Self {
            producer: String::new(),
            opset: 0,
            input: "input".to_owned(),
            layout: Layout::ChannelsFirst,
            batch: Batch::Any(Some("batch".to_owned())),
            output: output.to_owned(),
            output_rank: 2,
            end,
            origins: BTreeMap::new(),
        }
    }
}
