//! Networks by name and from files.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail};
use releq::{
    core::{Network, UnknownName, Weights, text},
    data::Normalization,
    format::{
        QuantizedNetwork,
        onnx::{self, Frame, Remark},
        packed,
    },
    quant::ActivationGrids,
    zoo,
};

use crate::terminal::output::note;

/// How a network is named: as one of the zoo, or by the file that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkName {
    /// One of [`zoo::NAMES`].
    Zoo(String),
    /// An ONNX model, with its weights.
    Onnx(PathBuf),
    /// A packed network, with its weights.
    Packed(PathBuf),
    /// Layers in JSON.
    Layers(PathBuf),
}

/// A name that is none of a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoNetwork {
    /// It is neither one of the zoo nor a file's.
    #[error(transparent)]
    Unknown(#[from] UnknownName),
    /// It is a folder, such as that of a run.
    #[error(
        "`{0}` is a folder; if it is that of a run, `releq export {0} --form packed --output FILE.safetensors` writes the \
         network that was found, which is named by that file"
    )]
    Folder(String),
}

impl FromStr for NetworkName {
    type Err = NoNetwork;

    fn from_str(name: &str) -> Result<Self, NoNetwork> {
        let path = Path::new(name);
        let is = |extension: &str| {
            path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case(extension))
        };
        match name {
            _ if is("onnx") => Ok(Self::Onnx(path.to_owned())),
            _ if is("safetensors") => Ok(Self::Packed(path.to_owned())),
            _ if is("json") => Ok(Self::Layers(path.to_owned())),
            _ => match zoo::by_name(name) {
                Ok(network) => Ok(Self::Zoo(network.name().to_owned())),
                Err(_) if path.is_dir() => Err(NoNetwork::Folder(name.to_owned())),
                Err(unknown) => Err(unknown.into()),
            },
        }
    }
}

/// A network that was named.
#[derive(Clone, Debug)]
pub struct NamedNetwork {
    /// Its layers.
    pub network: Network,
    /// The weights that came with it, and the file.
    pub weights: Option<(PathBuf, Weights)>,
    /// Those weights as codes, where the file has codes.
    pub quantized: Option<QuantizedNetwork>,
    /// Grids of its activations, where the file has them.
    pub activations: Option<ActivationGrids>,
    /// How its images were normalized, where the file says so.
    pub normalization: Option<Normalization>,
    /// Names of its classes, where the file has them.
    pub classes: Vec<String>,
    /// Names and forms around it.
    pub frame: Frame,
    /// What whoever trains it should know.
    pub remarks: Vec<Remark>,
}

impl NetworkName {
    /// The file, if it is in one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Zoo(_) => None,
            Self::Onnx(path) | Self::Packed(path) | Self::Layers(path) => Some(path),
        }
    }

    /// The network.
    ///
    /// # Errors
    /// If the file cannot be read, or is no network.
    pub fn read(&self) -> Result<NamedNetwork> {
        match self {
            Self::Zoo(name) => Ok(NamedNetwork::layers(zoo::by_name(name)?)),
            Self::Layers(path) => {
                let layers = text::read(path)?;
                let network: Network = serde_json::from_str(&layers)
                    .with_context(|| format!("{} is no network", path.display()))?;
                Ok(NamedNetwork::layers(unlike_the_zoo(network)))
            }
            Self::Onnx(path) => {
                let model = onnx::open(path)?;
                Ok(NamedNetwork {
                    quantized: model.quantized(),
                    activations: None,
                    network: unlike_the_zoo(model.network),
                    weights: Some((path.clone(), model.weights)),
                    normalization: None,
                    classes: Vec::new(),
                    frame: model.frame,
                    remarks: model.remarks,
                })
            }
            Self::Packed(path) => {
                let packed = packed::load(path)?;
                let (mean, std) = (packed.about.mean, packed.about.std);
                let normalization = match mean.is_empty() && std.is_empty() {
                    true => None,
                    false => {
                        let normalization = Normalization::new(mean, std);
                        Some(normalization.with_context(|| path.display().to_string())?)
                    }
                };
                Ok(NamedNetwork {
                    network: unlike_the_zoo(packed.model.network().clone()),
                    weights: Some((path.clone(), packed.model.dequantized())),
                    quantized: Some(packed.model),
                    activations: packed.activations,
                    normalization,
                    classes: packed.about.classes,
                    frame: packed.frame,
                    remarks: Vec::new(),
                })
            }
        }
    }
}

impl NamedNetwork {
    /// The same with the output channels of its layers in groups.
    ///
    /// # Errors
    /// If they are in groups already, or a layer has the name of a group.
    pub fn with_channel_groups(self, groups: NonZeroUsize) -> Result<Self> {
        if self.network.has_channel_groups() {
            bail!("--channel-groups: the layers of this network are in groups already");
        }
        let network = self.network.with_channel_groups(groups)?;
        let divide = |(path, weights): (PathBuf, Weights)| {
            let weights = weights.into_channel_groups(&network);
            (path, weights)
        };
        Ok(Self { weights: self.weights.map(divide), network, ..self })
    }

    /// Prints what whoever trains it should know.
    pub fn remark(&self) {
        self.remarks.iter().for_each(note);
    }

    /// Without weights.
    #[must_use]
    pub fn layers(network: Network) -> Self {
        let frame = Frame::of(&network);
        Self {
            network,
            weights: None,
            quantized: None,
            activations: None,
            normalization: None,
            classes: Vec::new(),
            frame,
            remarks: Vec::new(),
        }
    }
}

/// A network under a name that is not that of another one in the zoo, whose settings it would get.
fn unlike_the_zoo(network: Network) -> Network {
    match zoo::by_name(network.name()) {
        Ok(known) if known != network => {
            let name = format!("{}_imported", network.name());
            network.with_name(name)
        }
        _ => network,
    }
}
