//! What can go wrong with a checkpoint.

use std::{fmt, io, path::PathBuf};

use releq_core::StandIn;

use crate::extra::is_adapter;

/// Names in one list of an error; more are counted.
const SHOWN: usize = 6;

/// Where a checkpoint and a network differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// The key of the place that is closest to the network; empty at the top of the file.
    pub key: String,
    /// Parameters of the network that the file lacks.
    pub missing: Vec<String>,
    /// Tensors of the file, where it is closest to the network, that belong to no parameter: as the file names them.
    pub unexpected: Vec<String>,
    /// Parameters of another shape: name, shape in the network, shape in the file.
    pub shapes: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Mismatch {
    /// What to do about it.
    fn remedy(&self) -> &'static str {
        let is_computed = |name: &String| {
            name.contains(".parametrizations.") || name.ends_with("_orig") || name.ends_with("_g")
        };
        if !self.missing.is_empty() && self.unexpected.iter().any(is_computed) {
            return "weights are stored in a form that is not read; remove pruning and parametrizations \
                    in PyTorch (`torch.nn.utils.prune.remove`, `parametrize.remove_parametrizations`) and save anew";
        }
        if self.missing.is_empty() && self.shapes.is_empty() {
            if self.unexpected.iter().any(|name| name.split('.').any(is_adapter)) {
                return "merge the adapters into the weights first (`model.merge_and_unload()`) and save anew";
            }
            return "the network computes without them: is it a checkpoint of another network? If they are for \
                    training alone, remove them and save anew, or leave them out with `NameMap::ignore`";
        }
        "is it a checkpoint of another network?"
    }
}

/// The first names of a list, and how many more there are.
pub(crate) fn shortened(names: &[String]) -> String {
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{shown} and {more} more"),
        _ => shown,
    }
}

/// Keys in backquotes; the top of the file has none.
fn listed(keys: &[String]) -> String {
    let key = |key: &String| match key.as_str() {
        "" => "the top of the file".to_owned(),
        key => format!("`{key}`"),
    };
    shortened(&keys.iter().map(key).collect::<Vec<_>>())
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes = self.shapes.iter().map(|(name, network, file)| {
            format!("{name} ({file:?} in the file, {network:?} in the network)")
        });
        let lists = [
            ("missing", self.missing.clone()),
            ("unexpected", self.unexpected.clone()),
            ("of another shape", shapes.collect()),
        ];
        if !self.key.is_empty() {
            write!(f, "under `{}`: ", self.key)?;
        }
        let mut separator = "";
        for (title, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
            write!(f, "{separator}{title}: {}", shortened(&names))?;
            separator = "; ";
        }
        Ok(())
    }
}

/// Why weights could not be taken from a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be read.
    #[error("cannot read {}; check that it exists and is readable", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has something else in place of its content.
    #[error("{} {what}", path.display())]
    StandIn {
        /// The file.
        path: PathBuf,
        /// What it has.
        what: StandIn,
    },
    /// The file begins like no checkpoint.
    #[error(
        "{} is neither a PyTorch checkpoint nor a safetensors file; \
         is it compressed, or another file under that name?",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The list of the parts of a checkpoint.
    #[error(
        "{} says which part of a checkpoint has which weights; load the parts, in Python, and save them as one file",
        path.display()
    )]
    Index {
        /// The file.
        path: PathBuf,
    },
    /// A format that nothing has written since 2017.
    #[error(
        "{} is a tar archive: either one to unpack first, or a checkpoint of PyTorch before 0.1.10, \
         which a later PyTorch can load and save again",
        path.display()
    )]
    Tar {
        /// The file.
        path: PathBuf,
    },
    /// A pickle asks for something else than to rebuild tensors.
    #[error(
        "{}, byte {offset} of {part}: the pickle asks for `{name}`, which may run code; it is refused \
         and nothing was run. If you trust the file, save `model.state_dict()` alone from PyTorch",
        path.display()
    )]
    Code {
        /// The file.
        path: PathBuf,
        /// The pickle in the file.
        part: String,
        /// Where in the pickle.
        offset: u64,
        /// What it asks for, as `module.name`.
        name: String,
    },
    /// The file is not what its beginning promises.
    #[error("{} is damaged or cut short; fetch it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file is whole, but written in a way that is not read.
    #[error("{} is not read: {what}; save `model.state_dict()` anew from PyTorch", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it has.
        what: String,
    },
    /// Reading the file would take memory out of proportion to it.
    #[error(
        "{} asks for too much memory and is not read: {what}. If you trust the file, save \
         `model.state_dict()` alone from PyTorch",
        path.display()
    )]
    Excessive {
        /// The file.
        path: PathBuf,
        /// What asks for it.
        what: String,
    },
    /// The file has no tensors at all.
    #[error(
        "{} holds no tensors; save `model.state_dict()` from PyTorch, or the dictionary that it is part of",
        path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing under the key that was given.
    #[error("{} has no tensors under the key `{key}`; it has some under {}", path.display(), listed(keys))]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The first parts of the names of its tensors.
        keys: Vec<String>,
    },
    /// A parameter is a sparse tensor, a tensor without values or of a subclass.
    #[error("{}: `{name}` is {kind}; save it as a plain tensor from PyTorch", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// What it is.
        kind: &'static str,
    },
    /// All parameters of the network are in several places, with different values.
    #[error(
        "{} has all parameters of network `{network}` in several places, with different values: {}; \
         choose one by its key, as with `--key {}`",
        path.display(),
        listed(keys),
        keys.last().map_or("", |key| key)
    )]
    Ambiguous {
        /// The file.
        path: PathBuf,
        /// Name of the network.
        network: String,
        /// The keys of the places; an empty one is the top of the file.
        keys: Vec<String>,
    },
    /// A parameter is in the file twice, with different values.
    #[error(
        "{} has two values of parameter `{parameter}`, as {first} and as {second}; remove the one that is not \
         meant and save anew from PyTorch",
        path.display()
    )]
    Twice {
        /// The file.
        path: PathBuf,
        /// Name of the parameter, or of a tensor that it follows from.
        parameter: String,
        /// How the one is spelled.
        first: String,
        /// How the other is spelled.
        second: String,
    },
    /// The values of a tensor cannot be read.
    #[error(
        "{}: the values of tensor `{name}` cannot be read; fetch the file again, or save it anew from PyTorch",
        path.display()
    )]
    Values {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// What is wrong.
        source: io::Error,
    },
    /// A parameter that is no floating-point tensor.
    #[error(
        "{}: tensor `{name}` has type {dtype}, expected float32, float64, float16 or bfloat16",
        path.display()
    )]
    Dtype {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// A weight that is infinite or not a number.
    #[error(
        "{}: tensor `{name}` holds {value} at index {index}; the training it comes from diverged",
        path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Where, counted flat from 0.
        index: usize,
        /// The value in single precision.
        value: f32,
    },
    /// A weight that single precision cannot hold, as it is or after it is multiplied by its mask, norm or scale.
    #[error(
        "{}: tensor `{name}` holds {value:?} at index {index}, which is out of the range of 32-bit weights; \
         are these the weights?",
        path.display()
    )]
    Range {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Where, counted flat from 0.
        index: usize,
        /// The value as it is stored.
        value: f64,
    },
    /// The file holds weights of something else.
    #[error(
        "{} does not fit network `{network}` ({mismatch}); {}",
        path.display(),
        mismatch.remedy()
    )]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Name of the network.
        network: String,
        /// Everything that differs.
        mismatch: Box<Mismatch>,
    },
}
