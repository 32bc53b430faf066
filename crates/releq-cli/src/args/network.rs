//! The options that name a network and its weights, and the precision of the weights.

use std::path::PathBuf;

use anyhow::Result;
use releq::{
    core::{BitwidthAssignment, Network},
    quant::QuantizerKind,
};

use super::{UsageError, checkpoint, options, usage};

/// The network that a command is about: the first word after the command, or an option.
#[derive(clap::Args, Clone, Debug)]
pub struct NetworkArgs {
    /// Network, one of `releq list networks`
    #[arg(value_name = "NETWORK", value_parser = options::network, conflicts_with = "network")]
    network_name: Option<Network>,
    /// Network, as an option instead of the first word
    #[arg(long, value_name = "NETWORK", value_parser = options::network)]
    network: Option<Network>,
}

impl NetworkArgs {
    /// The network, if one is named.
    #[must_use]
    pub fn get(&self) -> Option<&Network> {
        self.network_name.as_ref().or(self.network.as_ref())
    }

    /// The network.
    ///
    /// # Errors
    /// [`UsageError`] if none is named.
    pub fn required(&self) -> Result<Network> {
        self.get().cloned().ok_or_else(|| {
            let reason = "name a network, such as lenet; `releq list networks` lists them";
            UsageError(reason.to_owned()).into()
        })
    }
}

/// Weights in a file.
#[derive(clap::Args, Clone, Debug)]
pub struct WeightsArgs {
    /// Weights to start from: PyTorch (.pt, .pth, .th, .tar) or safetensors
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Key of the checkpoint under which the weights are stored [default: detected]
    #[arg(long, value_name = "KEY", requires = "weights")]
    pub key: Option<String>,
    /// Layer of the checkpoint that the network lacks and that is passed over; may be given several times
    #[arg(long, value_name = "LAYER", requires = "weights")]
    pub ignore: Vec<String>,
}

/// At what bitwidths the weights of a network are.
#[derive(clap::Args, Clone, Debug)]
pub struct PrecisionArgs {
    /// Bitwidths of the weights, one per layer or one for all layers; 32 is full precision [default: 32]
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        value_parser = options::bits,
        allow_negative_numbers = true
    )]
    pub bits: Vec<BitwidthAssignment>,
    /// Quantizer, one of `releq list quantizers`; wrpn and dorefa do not keep the scale of a layer and need
    /// retraining
    #[arg(long, default_value_t = QuantizerKind::WrpnScaled)]
    pub quantizer: QuantizerKind,
}

impl PrecisionArgs {
    /// One bitwidth for each layer of `network`; `None` for full precision.
    ///
    /// # Errors
    /// [`UsageError`] for bitwidths that the quantizer does not take, or another number of them than layers.
    pub fn assignment(&self, network: &Network) -> Result<Option<BitwidthAssignment>> {
        let bits = usage(options::weight_bits("--bits", &self.bits, self.quantizer))?;
        usage(bits.map(|bits| checkpoint::per_layer("--bits", &bits, network)).transpose())
    }
}
