//! Network states on disk, as safetensors.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use atomic_write_file::AtomicWriteFile;
use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};

use super::{NetworkState, Parameter};

/// A state that cannot be read from a file or written to one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no safetensors file, or a damaged one.
    #[error("{} is not a safetensors file", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SafeTensorError,
    },
    /// The state cannot be expressed: a parameter has as many values as its shape does not say.
    #[error("cannot write {}: the state cannot be encoded", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SafeTensorError,
    },
    /// The file holds no training that can be gone on with.
    #[error("{}: {reason}", path.display())]
    Training {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A tensor is not in single precision.
    #[error("{}: tensor `{name}` has type {dtype:?}, only F32 is read", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Its type.
        dtype: Dtype,
    },
}

impl NetworkState {
    /// Reads a safetensors file; [`check`](Self::check) tells whether it fits a network.
    ///
    /// # Errors
    /// [`StateError`], naming the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, StateError> {
        Ok(Self(read_tensors(path.as_ref())?.0))
    }

    /// Writes a safetensors file; a file of that name is replaced at once or not at all.
    ///
    /// # Errors
    /// [`StateError`], naming the file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), StateError> {
        write_tensors(path.as_ref(), &self.0, HashMap::new())
    }
}

type Tensors = BTreeMap<String, Parameter>;

/// The tensors of a safetensors file, and its metadata.
pub(super) fn read_tensors(path: &Path) -> Result<(Tensors, HashMap<String, String>), StateError> {
    let bytes =
        fs::read(path).map_err(|source| StateError::Read { path: path.to_owned(), source })?;
    let format = |source| StateError::Format { path: path.to_owned(), source };
    let tensors = SafeTensors::deserialize(&bytes).map_err(format)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(format)?;
    let parameter = |(name, tensor): (&str, TensorView<'_>)| {
        if tensor.dtype() != Dtype::F32 {
            let (name, dtype) = (name.to_owned(), tensor.dtype());
            return Err(StateError::Dtype { path: path.to_owned(), name, dtype });
        }
        let (values, _) = tensor.data().as_chunks();
        let values = values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        Ok((name.to_owned(), Parameter { shape: tensor.shape().to_vec(), values }))
    };
    let tensors = tensors.iter().map(parameter).collect::<Result<_, _>>()?;
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}

/// Replaces a safetensors file.
pub(super) fn write_tensors<P: Borrow<Parameter>>(
    path: &Path,
    tensors: &BTreeMap<String, P>,
    metadata: HashMap<String, String>,
) -> Result<(), StateError> {
    let encode = |source| StateError::Encode { path: path.to_owned(), source };
    let bytes: BTreeMap<&str, Vec<u8>> = tensors
        .iter()
        .map(|(name, parameter)| {
            let values = parameter.borrow().values.iter();
            (name.as_str(), values.flat_map(|value| value.to_le_bytes()).collect())
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, parameter)| {
            let shape = parameter.borrow().shape.clone();
            let view = TensorView::new(Dtype::F32, shape, &bytes[name.as_str()]);
            Ok((name, view.map_err(encode)?))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let metadata = (!metadata.is_empty()).then_some(metadata);
    let file = safetensors::serialize(views, metadata).map_err(encode)?;
    replace(path, &file).map_err(|source| StateError::Write { path: path.to_owned(), source })
}

/// Writes beside `path`, then renames, so that no reader ever sees half a file.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicWriteFile::open(path)?;
    file.write_all(bytes)?;
    file.commit()
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;
    use crate::networks::lenet;

    #[test]
    fn a_state_round_trips_bit_for_bit_and_replaces_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lenet.safetensors");
        for seed in [1, 2] {
            let mut state = NetworkState::init(&lenet(), seed);
            state.0.get_mut("fc2.bias").unwrap().values[0] = -0.0;
            state.save(&path).unwrap();
            let read = NetworkState::load(&path).unwrap();
            assert_eq!(read, state);
            assert!(read.0["fc2.bias"].values[0].is_sign_negative());
            read.check(&lenet()).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn every_error_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        let check = |error: StateError, expected: &str| {
            let message = error.to_string();
            assert!(message.contains("weights.safetensors"), "{message}");
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        };
        check(NetworkState::load(&path).unwrap_err(), "cannot read");
        fs::write(&path, b"{\"layers\": []}").unwrap();
        let error = NetworkState::load(&path).unwrap_err();
        assert!(error.source().is_some());
        check(error, "is not a safetensors file");
        let halves = TensorView::new(Dtype::F16, vec![2], &[0; 4]).unwrap();
        fs::write(&path, safetensors::serialize([("fc.weight", halves)], None).unwrap()).unwrap();
        check(NetworkState::load(&path).unwrap_err(), "tensor `fc.weight` has type F16");
        let missing = folder.path().join("missing").join("weights.safetensors");
        check(NetworkState::init(&lenet(), 0).save(missing).unwrap_err(), "cannot write");
        let wrong = Parameter { shape: vec![3], values: vec![0.0] };
        let wrong = NetworkState(BTreeMap::from([("fc.bias".to_owned(), wrong)]));
        check(wrong.save(&path).unwrap_err(), "cannot be encoded");
    }
}
