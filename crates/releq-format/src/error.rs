//! What can go wrong with a checkpoint.

use std::{fmt, io, path::PathBuf};

/// Names in one list of an error; more are counted.
const SHOWN: usize = 6;

/// Where a checkpoint and a network differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Parameters of the network that the file lacks.
    pub missing: Vec<String>,
    /// Tensors of the file that the network has no place for, as the file names them.
    pub unexpected: Vec<String>,
    /// Parameters of another shape: name, shape in the network, shape in the file.
    pub shapes: Vec<(String, Vec<usize>, Vec<usize>)>,
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
        let mut separator = "";
        for (title, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
            let shown = names[..names.len().min(SHOWN)].join(", ");
            write!(f, "{separator}{title}: {shown}")?;
            if names.len() > SHOWN {
                write!(f, " and {} more", names.len() - SHOWN)?;
            }
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
    /// A sparse, quantized or nested tensor.
    #[error("{} holds a `{kind}`, which is no plain tensor; save it as one from PyTorch", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// What rebuilds it in PyTorch.
        kind: String,
    },
    /// The values of a tensor cannot be read.
    #[error("{}: the values of tensor `{name}` cannot be read; fetch the file again", path.display())]
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
    /// The file holds weights of something else.
    #[error(
        "{} does not fit network `{network}` ({mismatch}); is it a checkpoint of another network?",
        path.display()
    )]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Name of the network.
        network: String,
        /// Everything that differs.
        mismatch: Mismatch,
    },
}
