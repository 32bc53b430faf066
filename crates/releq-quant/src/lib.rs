#![doc = include_str!("../README.md")]

mod binary;
mod dorefa;
mod error;
mod kind;
mod mid_tread;
mod packed;
mod quantized;
mod quantizer;
#[cfg(feature = "burn")]
mod tensor;
#[cfg(test)]
mod tests;
mod wrpn;
mod wrpn_scaled;

pub use dorefa::Dorefa;
pub use error::QuantError;
pub use kind::QuantizerKind;
pub use packed::PackedCodes;
pub use quantized::Quantized;
pub use quantizer::Quantizer;
pub use releq_core::{Bitwidth, BitwidthError};
#[cfg(feature = "burn")]
pub use tensor::fake_quantize;
pub use wrpn::Wrpn;
pub use wrpn_scaled::{Clip, WrpnScaled};
