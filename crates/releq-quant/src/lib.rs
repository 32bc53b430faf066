#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod activation;
mod binary;
#[cfg(any(test, feature = "testing"))]
mod check;
mod dorefa;
mod error;
mod exact;
mod granularity;
mod kind;
mod layer_weights;
mod least_squares;
mod mid_tread;
mod packed;
mod powers_of_two;
mod quantized;
mod quantizer;
mod rounding;
#[cfg(test)]
mod tests;
mod wrpn;
mod wrpn_scaled;

pub use activation::{ActivationGrid, ActivationGrids};
#[cfg(any(test, feature = "testing"))]
pub use check::check_quantizer;
pub use dorefa::Dorefa;
pub use error::QuantError;
pub use granularity::Granularity;
pub use kind::QuantizerKind;
pub use layer_weights::LayerWeights;
pub use packed::PackedCodes;
pub use powers_of_two::PowersOfTwo;
pub use quantized::Quantized;
pub use quantizer::Quantizer;
pub use releq_core::{Bitwidth, BitwidthError, UnknownName};
pub use wrpn::Wrpn;
pub use wrpn_scaled::{Clip, WrpnScaled};
