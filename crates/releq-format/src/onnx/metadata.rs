//! What an exported model says of its weights: their true bitwidths, which the types of ONNX round up.

use std::collections::BTreeMap;

use releq_core::Bitwidth;
use serde::{Deserialize, Serialize};

/// Key in the metadata of a model.
pub(super) const KEY: &str = "releq";
/// Changes whenever the meaning of an export does.
const FORMAT: &str = "releq onnx 1";

/// What the metadata of an exported model has, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Metadata {
    format: String,
    /// Name of the quantizer, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) quantizer: Option<String>,
    /// Bits of activations, where they are rounded as well. Such a model is for runtimes, and is not read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) activation_bits: Option<u8>,
    /// By the name of the tensor with the dequantized weights, which the layer reads.
    pub(super) weights: BTreeMap<String, Grid>,
}

/// The grid that weights are on: `scale * (code - zero_point)`, with codes below `2^bits`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Grid {
    pub(super) bits: Bitwidth,
    pub(super) zero_point: f32,
}

impl Metadata {
    pub(super) fn new(
        quantizer: Option<&str>,
        activation_bits: Option<u8>,
        weights: BTreeMap<String, Grid>,
    ) -> Self {
        let quantizer = quantizer.map(str::to_owned);
        Self { format: FORMAT.to_owned(), quantizer, activation_bits, weights }
    }

    /// Reads the text under [`KEY`].
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
        }
        let wrong = |error: serde_json::Error| format!("its metadata `{KEY}` is damaged: {error}");
        let Head { format } = serde_json::from_str(text).map_err(wrong)?;
        match format.as_str() {
            FORMAT => serde_json::from_str(text).map_err(wrong),
            other => Err(format!("its format is `{other}`; this version reads `{FORMAT}`")),
        }
    }
}
