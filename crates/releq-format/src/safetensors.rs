//! Weights on disk as safetensors: read and written bit for bit.
//!
//! The files written here have a checksum in their metadata, since the format has none of its own and a flipped bit of
//! a weight is a weight. Where it is there, it is compared whenever the file is read. Other programs read such files as
//! any other; those that change tensors and keep metadata that they do not know have to drop the entry `releq_checksum`.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
};

use ::safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};
use releq_core::{Checksum, Parameter, StandIn, Weights, atomic_file};

/// Key of the checksum in the metadata of a file.
pub const CHECKSUM: &str = "releq_checksum";

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
    /// The file has something else in place of its content.
    #[error("{} {what}", path.display())]
    StandIn {
        /// The file.
        path: PathBuf,
        /// What it has.
        what: StandIn,
    },
    /// The file is no safetensors file, or a damaged one.
    #[error("{} is not a safetensors file", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SafeTensorError,
    },
    /// The metadata is not text.
    #[error("{} is not read: {what}; save it with text alone", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What it has.
        what: String,
    },
    /// The file is not what was written.
    #[error(
        "{} is damaged: its checksum is of other content; fetch it again, or take an earlier copy",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
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

/// The tensors of a safetensors file, and its metadata, with the [checksum](CHECKSUM) if there is one.
///
/// # Errors
/// [`SafetensorsError`], naming the file.
pub fn read_tensors(
    path: impl AsRef<Path>,
) -> Result<(Tensors, HashMap<String, String>), SafetensorsError> {
    let path = path.as_ref();
    let bytes = fs::read(path)
        .map_err(|source| SafetensorsError::Read { path: path.to_owned(), source })?;
    if let Some(what) = StandIn::of(&bytes) {
        return Err(SafetensorsError::StandIn { path: path.to_owned(), what });
    }
    let format = |source| match odd_metadata(&bytes) {
        Some(what) => SafetensorsError::Metadata { path: path.to_owned(), what },
        None => SafetensorsError::Format { path: path.to_owned(), source },
    };
    let tensors = SafeTensors::deserialize(&bytes).map_err(format)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(format)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    if !is_intact(&tensors, &metadata) {
        return Err(SafetensorsError::Damaged { path: path.to_owned() });
    }
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
    Ok((tensors, metadata))
}

/// What the metadata of a file has that is no text, which the format does not allow and some programs write.
pub(crate) fn odd_metadata(file: &[u8]) -> Option<String> {
    let (length, rest) = file.split_first_chunk()?;
    let header = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let header: serde_json::Value = serde_json::from_slice(header).ok()?;
    let metadata = header.get("__metadata__")?;
    let Some(entries) = metadata.as_object() else {
        return Some("its `__metadata__` is not a map of text".to_owned());
    };
    let (key, value) = entries.iter().find(|(_, value)| !value.is_string())?;
    let text: String = value.to_string().chars().take(40).collect();
    Some(format!("its metadata has {text} under `{key}`, where safetensors allow only text"))
}

/// Whether tensors and metadata are those that the checksum is of, where there is one.
pub(crate) fn is_intact(tensors: &SafeTensors<'_>, metadata: &HashMap<String, String>) -> bool {
    metadata.get(CHECKSUM).is_none_or(|found| *found == checksum(tensors.iter(), metadata))
}

fn checksum<'a>(
    tensors: impl Iterator<Item = (&'a str, TensorView<'a>)>,
    metadata: &HashMap<String, String>,
) -> String {
    let tensors: BTreeMap<_, _> = tensors.collect();
    let sum = tensors.iter().fold(checksum_of_metadata(metadata), |sum, (name, view)| {
        with_header(sum, name, view.dtype(), view.shape()).part(view.data())
    });
    sum.finish()
}

/// What the checksum of a file begins with; that of every tensor follows, by name.
pub(crate) fn checksum_of_metadata(metadata: &HashMap<String, String>) -> Checksum {
    let metadata: BTreeMap<_, _> = metadata.iter().filter(|(key, _)| *key != CHECKSUM).collect();
    metadata.into_iter().fold(Checksum::new(), |sum, (key, text)| sum.part(key).part(text))
}

/// A checksum with what there is of a tensor before its data.
pub(crate) fn with_header(sum: Checksum, name: &str, dtype: Dtype, shape: &[usize]) -> Checksum {
    sum.part(name).part(format!("{dtype:?} {shape:?}"))
}

/// Writes tensors with metadata and a checksum as a safetensors file; a file of that name is replaced at once or
/// not at all.
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
            Ok((name.as_str(), view.map_err(encode)?))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let file = encoded(views, metadata).map_err(encode)?;
    atomic_file::write(path, &file)
        .map_err(|source| SafetensorsError::Write { path: path.to_owned(), source })
}

/// A file of these tensors, with metadata and a checksum of both.
pub(crate) fn encoded(
    views: Vec<(&str, TensorView<'_>)>,
    mut metadata: HashMap<String, String>,
) -> Result<Vec<u8>, SafeTensorError> {
    let checksum = checksum(views.iter().map(|(name, view)| (*name, view.clone())), &metadata);
    metadata.insert(CHECKSUM.to_owned(), checksum);
    let sorted: BTreeMap<String, String> =
        metadata.iter().map(|(key, text)| (key.clone(), text.clone())).collect();
    let mut file = ::safetensors::serialize(views, Some(metadata))?;
    sort_metadata(&mut file, &sorted);
    Ok(file)
}

/// Puts the entries of the metadata in order, so that the same content gives the same bytes: the crate writes them in the order of
/// a hash map, which differs from run to run.
fn sort_metadata(file: &mut [u8], metadata: &BTreeMap<String, String>) {
    const BEFORE: &[u8] = b"{\"__metadata__\":";
    let Ok(text) = serde_json::to_vec(metadata) else { return };
    let Some((before, rest)) =
        file.get_mut(8..).and_then(|file| file.split_at_mut_checked(BEFORE.len()))
    else {
        return;
    };
    let Some(place) = rest.get_mut(..text.len()) else { return };
    // The same entries take the same room, whatever their order.
    if before == BEFORE
        && serde_json::from_slice::<BTreeMap<String, String>>(place).is_ok_and(|is| is == *metadata)
    {
        place.copy_from_slice(&text);
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn the_same_content_is_the_same_bytes() {
        let values = [0; 8];
        let file = || {
            let keys = (0..9).map(|key| (format!("key {key}"), format!("\"text\" {key}\n")));
            let view = TensorView::new(Dtype::U8, vec![8], &values).unwrap();
            encoded(vec![("values", view)], keys.collect()).unwrap()
        };
        let first = file();
        for _ in 0..20 {
            assert!(file() == first, "the order of hash maps differs from map to map");
        }
        let (_, header) = SafeTensors::read_metadata(&first).unwrap();
        let metadata = header.metadata().clone().unwrap();
        assert_eq!((metadata.len(), metadata["key 3"].as_str()), (10, "\"text\" 3\n"));
        assert!(is_intact(&SafeTensors::deserialize(&first).unwrap(), &metadata));
    }

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
    fn a_file_with_any_bit_flipped_or_any_end_missing_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        save(&path, &weights(1)).unwrap();
        let whole = fs::read(&path).unwrap();
        // Without its checksum, the content is that of any safetensors file.
        let key =
            whole.windows(CHECKSUM.len()).position(|part| part == CHECKSUM.as_bytes()).unwrap();
        for case in 0..200 {
            let place = case * (whole.len() - 1) / 199;
            let mut flipped = whole.clone();
            flipped[place] ^= 1 << (case % 8);
            for damaged in [&flipped, &whole[..place]] {
                fs::write(&path, damaged).unwrap();
                let (read, opened) = (load(&path), crate::Checkpoint::open(&path));
                if (key..key + CHECKSUM.len()).contains(&place) && damaged.len() == whole.len() {
                    assert!(read.is_err() || read.unwrap() == weights(1), "byte {place}");
                    continue;
                }
                for message in [read.unwrap_err().to_string(), opened.unwrap_err().to_string()] {
                    assert!(message.contains("weights.safetensors"), "{message}");
                }
            }
        }
    }

    #[test]
    fn files_of_other_programs_have_no_checksum() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
        fs::write(&path, ::safetensors::serialize([("fc.weight", view)], None).unwrap()).unwrap();
        assert_eq!(load(&path).unwrap().0["fc.weight"].values, [0.0]);
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
