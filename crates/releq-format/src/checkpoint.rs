//! A checkpoint file: its format, its tensors, and whether they fit a network.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use releq_core::{Network, Parameter, Weights, parameter_shapes};

use crate::{
    CheckpointError, Mismatch, NameMap, pytorch,
    stored::{self, Stored},
};

/// The named tensors of a file, their values not yet read.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
}

/// Reads the weights of `network` from a file, by the names that are [known](NameMap::of) for it.
///
/// # Errors
/// As [`Checkpoint::open`] and [`Checkpoint::state`].
pub fn load(path: impl AsRef<Path>, network: &Network) -> Result<Weights, CheckpointError> {
    Checkpoint::open(path)?.state(network, &NameMap::of(network.name()))
}

/// What a file begins like.
enum Format {
    Zip,
    Pickles,
    Safetensors,
    Tar,
}

impl Format {
    fn of(header: &[u8]) -> Option<Self> {
        let length = header.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        // The header's length can begin with a byte that begins a pickle, too.
        if length.is_some_and(|length| length < 1 << 30) && header.get(8) == Some(&b'{') {
            return Some(Self::Safetensors);
        }
        if header.starts_with(b"PK") {
            return Some(Self::Zip);
        }
        if header.get(257..262) == Some(b"ustar") {
            return Some(Self::Tar);
        }
        // What pickles of all protocols begin with.
        matches!(header.first(), Some(0x80 | b'(' | b'}' | b']' | b'c' | b'L'))
            .then_some(Self::Pickles)
    }
}

impl Checkpoint {
    /// Reads names, types and shapes. The format is told from the file's first bytes, not its name.
    ///
    /// # Errors
    /// [`CheckpointError`], naming the file: it cannot be read, is of another kind, is damaged, or asks
    /// for code to be run.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        let read = |source: io::Error| CheckpointError::Read { path: path.to_owned(), source };
        let mut header = Vec::new();
        File::open(path).map_err(read)?.take(512).read_to_end(&mut header).map_err(read)?;
        let tensors = match Format::of(&header) {
            Some(Format::Zip) => pytorch::open_zip(path)?,
            Some(Format::Pickles) => pytorch::open_pickles(path)?,
            Some(Format::Safetensors) => stored::open_safetensors(path)?,
            Some(Format::Tar) => return Err(CheckpointError::Tar { path: path.to_owned() }),
            None => return Err(CheckpointError::Foreign { path: path.to_owned() }),
        };
        Ok(Self { path: path.to_owned(), tensors })
    }

    /// Names and shapes of all tensors, as the file has them.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape()))
    }

    /// Whether the file holds the parameters of `network`, each in its shape; no value is read.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`].
    pub fn check(&self, network: &Network, names: &NameMap) -> Result<(), CheckpointError> {
        self.matched(network, names).map(drop)
    }

    /// The parameters of `network`, running statistics included.
    ///
    /// Half and double precision become single precision. `num_batches_tracked` is ignored, and so is
    /// what stands beside the weights in a file that keeps them under a key.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`], which lists everything that is missing, unexpected or of another
    /// shape; a tensor that is no floating-point one, cannot be read, or holds a value that is not finite.
    pub fn state(&self, network: &Network, names: &NameMap) -> Result<Weights, CheckpointError> {
        let mut state = Weights::default();
        for (parameter, name) in self.matched(network, names)? {
            let tensor = &self.tensors[name];
            let values = tensor.values(&self.path, name)?;
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                let (path, name, value) = (self.path.clone(), name.to_owned(), values[index]);
                return Err(CheckpointError::NotFinite { path, name, index, value });
            }
            let shape = tensor.shape().to_vec();
            state.0.insert(parameter, Parameter { shape, values });
        }
        Ok(state)
    }

    /// For every parameter of `network`, the name of its tensor.
    fn matched(
        &self,
        network: &Network,
        names: &NameMap,
    ) -> Result<BTreeMap<String, &str>, CheckpointError> {
        let expected: BTreeMap<String, Vec<usize>> = parameter_shapes(network).collect();
        let translated = names
            .translate(self.tensors.keys().map(String::as_str), |name| expected.contains_key(name));
        let (mut matched, mut mismatch) = (BTreeMap::new(), Mismatch::default());
        for (parameter, name) in translated {
            let shape = self.tensors[name].shape();
            match expected.get(&parameter) {
                None => mismatch.unexpected.push(name.to_owned()),
                Some(_) if matched.contains_key(&parameter) => {
                    mismatch.unexpected.push(name.to_owned());
                }
                Some(wanted) => {
                    if wanted != shape {
                        let [wanted, got] = [wanted.clone(), shape.to_vec()];
                        mismatch.shapes.push((parameter.clone(), wanted, got));
                    }
                    matched.insert(parameter, name);
                }
            }
        }
        let found: BTreeSet<&String> = matched.keys().collect();
        mismatch.missing = expected.keys().filter(|name| !found.contains(name)).cloned().collect();
        if mismatch == Mismatch::default() {
            return Ok(matched);
        }
        Err(CheckpointError::Mismatch {
            path: self.path.clone(),
            network: network.name().to_owned(),
            mismatch,
        })
    }
}
