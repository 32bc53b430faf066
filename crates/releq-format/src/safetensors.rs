//! Weights on disk as safetensors: read and written bit for bit.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
};

use ::safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};
use releq_core::{Parameter, Weights, atomic_file};

/// A state that cannot be read from a file or written to one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsError {
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

/// Reads the weights in a safetensors file; [`Weights::check`] tells whether they fit a network.
///
/// # Errors
/// [`SafetensorsError`], naming the file.
pub fn load(path: impl AsRef<Path>) -> Result<Weights, SafetensorsError> {
    Ok(Weights(read_tensors(path)?.0))
}

/// Writes weights as a safetensors file; a file of that name is replaced at once or not at all.
///
/// # Errors
/// [`SafetensorsError`], naming the file.
pub fn save(path: impl AsRef<Path>, weights: &Weights) -> Result<(), SafetensorsError> {
    write_tensors(path, &weights.0, HashMap::new())
}

/// Tensors by name.
pub type Tensors = BTreeMap<String, Parameter>;

/// The tensors of a safetensors file, and its metadata.
///
/// # Errors
/// [`SafetensorsError`], naming the file.
pub fn read_tensors(
    path: impl AsRef<Path>,
) -> Result<(Tensors, HashMap<String, String>), SafetensorsError> {
    let path = path.as_ref();
    let bytes = fs::read(path)
        .map_err(|source| SafetensorsError::Read { path: path.to_owned(), source })?;
    let format = |source| SafetensorsError::Format { path: path.to_owned(), source };
    let tensors = SafeTensors::deserialize(&bytes).map_err(format)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(format)?;
    let parameter = |(name, tensor): (&str, TensorView<'_>)| {
        if tensor.dtype() != Dtype::F32 {
            let (name, dtype) = (name.to_owned(), tensor.dtype());
            return Err(SafetensorsError::Dtype { path: path.to_owned(), name, dtype });
        }
        let (values, _) = tensor.data().as_chunks();
        let values = values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        Ok((name.to_owned(), Parameter { shape: tensor.shape().to_vec(), values }))
    };
    let tensors = tensors.iter().map(parameter).collect::<Result<_, _>>()?;
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}

/// Writes tensors with metadata as a safetensors file; a file of that name is replaced at once or not
/// at all.
///
/// # Errors
/// [`SafetensorsError`], naming the file.
pub fn write_tensors<P: Borrow<Parameter>>(
    path: impl AsRef<Path>,
    tensors: &BTreeMap<String, P>,
    metadata: HashMap<String, String>,
) -> Result<(), SafetensorsError> {
    let path = path.as_ref();
    let encode = |source| SafetensorsError::Encode { path: path.to_owned(), source };
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
    let file = ::safetensors::serialize(views, metadata).map_err(encode)?;
    atomic_file::write(path, &file)
        .map_err(|source| SafetensorsError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    /// Weights of a small layer, different for every seed.
    fn weights(seed: u16) -> Weights {
        let parameter = |len: u16| Parameter {
            shape: vec![len.into()],
            values: (0..len).map(|index| f32::from(index * 31 + seed) / 7.0).collect(),
        };
        let named = [("fc2.weight", 50), ("fc2.bias", 10)];
        Weights(named.into_iter().map(|(name, len)| (name.to_owned(), parameter(len))).collect())
    }

    #[test]
    fn a_state_round_trips_bit_for_bit_and_replaces_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lenet.safetensors");
        for seed in [1, 2] {
            let mut state = weights(seed);
            state.0.get_mut("fc2.bias").unwrap().values[0] = -0.0;
            save(&path, &state).unwrap();
            let read = load(&path).unwrap();
            assert_eq!(read, state);
            assert!(read.0["fc2.bias"].values[0].is_sign_negative());
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn every_error_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        let check = |error: SafetensorsError, expected: &str| {
            let message = error.to_string();
            assert!(message.contains("weights.safetensors"), "{message}");
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        };
        check(load(&path).unwrap_err(), "cannot read");
        fs::write(&path, b"{\"layers\": []}").unwrap();
        let error = load(&path).unwrap_err();
        assert!(error.source().is_some());
        check(error, "is not a safetensors file");
        let halves = TensorView::new(Dtype::F16, vec![2], &[0; 4]).unwrap();
        fs::write(&path, ::safetensors::serialize([("fc.weight", halves)], None).unwrap()).unwrap();
        check(load(&path).unwrap_err(), "tensor `fc.weight` has type F16");
        let missing = folder.path().join("missing").join("weights.safetensors");
        check(save(missing, &weights(0)).unwrap_err(), "cannot write");
        let wrong = Parameter { shape: vec![3], values: vec![0.0] };
        let wrong = Weights(BTreeMap::from([("fc.bias".to_owned(), wrong)]));
        check(save(&path, &wrong).unwrap_err(), "cannot be encoded");
    }
}
