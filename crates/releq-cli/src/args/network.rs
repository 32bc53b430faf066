//! The options that name a network and its weights, and the precision of the weights.

use std::path::{Path, PathBuf};

use anyhow::Result;
use releq::{
    core::{BitwidthAssignment, Network, Weights},
    quant::QuantizerKind,
};

use super::{NetworkName, UsageError, checkpoint, model::NamedNetwork, options, usage};

/// The network that a command is about: the first word after the command, or an option.
#[derive(clap::Args, Clone, Debug)]
pub struct NetworkArgs {
    /// Network: one of `releq list networks`, or a file: model.onnx, a packed .safetensors, or net.json
    #[arg(value_name = "NETWORK", conflicts_with = "network")]
    network_name: Option<NetworkName>,
    /// Network, as an option instead of the first word
    #[arg(long, value_name = "NETWORK")]
    network: Option<NetworkName>,
}

impl NetworkArgs {
    fn name(&self) -> Option<&NetworkName> {
        self.network_name.as_ref().or(self.network.as_ref())
    }

    /// The file that the network is read from, if it is in one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.name().and_then(NetworkName::file)
    }

    /// The packed file that the network is in, if it is in one.
    #[must_use]
    pub fn packed(&self) -> Option<&Path> {
        match self.name() {
            Some(NetworkName::Packed(path)) => Some(path),
            _ => None,
        }
    }

    /// The network, if one is named.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn get(&self) -> Result<Option<NamedNetwork>> {
        self.name().map(NetworkName::read).transpose()
    }

    /// The network without its weights, if one is named.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn layers(&self) -> Result<Option<Network>> {
        Ok(self.get()?.map(|named| named.network))
    }

    /// The network.
    ///
    /// # Errors
    /// [`UsageError`] if none is named; as [`get`](Self::get).
    pub fn required(&self) -> Result<NamedNetwork> {
        self.get()?.ok_or_else(|| {
            let reason =
                "name a network, such as lenet or model.onnx; `releq list networks` lists those with a name";
            UsageError(reason.to_owned()).into()
        })
    }
}

/// Weights in a file.
#[derive(clap::Args, Clone, Debug)]
pub struct WeightsArgs {
    /// Weights to start from: PyTorch (.pt, .pth, .th, .tar) or safetensors [default: those in the file of the network]
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Key of the checkpoint under which the weights are stored [default: detected]
    #[arg(long, value_name = "KEY", requires = "weights")]
    pub key: Option<String>,
    /// Layer of the checkpoint that the network lacks and that is passed over; may be given several times
    #[arg(long, value_name = "LAYER", requires = "weights")]
    pub ignore: Vec<String>,
}

impl WeightsArgs {
    /// The network with its weights and the file that they are from: the one that the option names, or else that of the
    /// network.
    ///
    /// # Errors
    /// As [`checkpoint::open`].
    pub fn of(&self, named: NamedNetwork) -> Result<(Network, Option<(PathBuf, Weights)>)> {
        match &self.weights {
            Some(path) => {
                let (network, weights) = checkpoint::open(path, self, named.network)?;
                Ok((network, Some((path.clone(), weights))))
            }
            None => Ok((named.network, named.weights)),
        }
    }
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
    #[arg(long, default_value_t = QuantizerKind::WrpnScaledPerChannel)]
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
