//! A checkpoint file: its format, its tensors, and whether they fit a network.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use releq_core::{Network, Parameter, StandIn, Weights, parameter_shapes};

use crate::{
    CheckpointError, Found, NameMap,
    place::{self, Nowhere, Place},
    pytorch,
    recipe::{self, Recipe},
    stored::{self, Stored, View},
};

/// Most places beside the first that are named where they differ.
const MOST_PLACES: usize = 8;

/// The named tensors of a file, their values not yet read.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
    again: Vec<Again>,
}

/// A tensor whose keys, joined by dots, are those of another tensor: `a.b` is `["a"]["b"]` and `["a.b"]`.
#[derive(Debug)]
pub(crate) struct Again {
    pub(crate) name: String,
    /// How the other is spelled.
    pub(crate) first: String,
    /// How this one is spelled.
    pub(crate) second: String,
    pub(crate) tensor: Stored,
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
        if let Some(what) = StandIn::of(&header) {
            return Err(CheckpointError::StandIn { path: path.to_owned(), what });
        }
        let (tensors, again) = match Format::of(&header) {
            Some(Format::Zip) => pytorch::open_zip(path)?,
            Some(Format::Pickles) => pytorch::open_pickles(path)?,
            Some(Format::Safetensors) => (stored::open_safetensors(path)?, Vec::new()),
            Some(Format::Tar) => return Err(CheckpointError::Tar { path: path.to_owned() }),
            None if path.to_string_lossy().ends_with(".index.json") => {
                return Err(CheckpointError::Index { path: path.to_owned() });
            }
            None => return Err(CheckpointError::Foreign { path: path.to_owned() }),
        };
        Ok(Self { path: path.to_owned(), tensors, again })
    }

    /// Names and shapes of all tensors, as the file has them. A tensor that is stored in two places has two names;
    /// sparse ones and others that are not read have no shape.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape()))
    }

    /// Where the file has the parameters of `network`, each in its shape, and what else it has. Values are read
    /// only where there are several such places, to tell whether they differ.
    ///
    /// # Errors
    /// [`CheckpointError::Mismatch`], [`CheckpointError::Ambiguous`] and those that name a key without tensors or a
    /// file without any.
    pub fn check(&self, network: &Network, names: &NameMap) -> Result<Found, CheckpointError> {
        self.place(network, names).map(|place| place.found(&self.tensors))
    }

    /// The parameters of `network`, running statistics included.
    ///
    /// Half and double precision become single precision, and quantized tensors what they stand for. Weights that are
    /// pruned or normalized are multiplied by their masks and norms. Everything else in the file is ignored, if it does not
    /// change what is computed.
    ///
    /// # Errors
    /// As [`check`](Self::check); a tensor that is no floating-point one, cannot be read, or holds a value that is not
    /// finite.
    pub fn state(&self, network: &Network, names: &NameMap) -> Result<Weights, CheckpointError> {
        self.read(&self.place(network, names)?)
    }

    /// The one place where the parameters are. Several are one if they have the same values.
    fn place(&self, network: &Network, names: &NameMap) -> Result<Place<'_>, CheckpointError> {
        let path = || self.path.clone();
        if self.tensors.is_empty() {
            return Err(CheckpointError::Empty { path: path() });
        }
        let expected: BTreeMap<String, Vec<usize>> = parameter_shapes(network).collect();
        let mut places = match place::find(&self.tensors, &expected, names) {
            Ok(places) => places,
            Err(Nowhere::Key { key, keys }) => {
                return Err(CheckpointError::Key { path: path(), key, keys });
            }
            Err(Nowhere::Mismatch(mismatch)) => {
                let (network, mismatch) = (network.name().to_owned(), Box::new(mismatch));
                return Err(CheckpointError::Mismatch { path: path(), network, mismatch });
            }
        };
        let first = places.remove(0);
        places.retain(|other| !self.is_same(&first, other));
        if places.is_empty() {
            self.check_twice(&first)?;
            return Ok(first);
        }
        let state = self.read(&first);
        let mut keys = vec![first.key.clone()];
        for other in &places {
            let is_equal =
                || matches!((&state, self.read(other)), (Ok(one), Ok(other)) if *one == other);
            if keys.len() <= MOST_PLACES && !is_equal() {
                keys.push(other.key.clone());
            }
        }
        if keys.len() > 1 {
            let network = network.name().to_owned();
            return Err(CheckpointError::Ambiguous { path: path(), network, keys });
        }
        self.check_twice(&first)?;
        Ok(first)
    }

    /// Refuses parameters of a place that are in the file a second time, under another name or another spelling of
    /// its own, with other values.
    fn check_twice(&self, place: &Place<'_>) -> Result<(), CheckpointError> {
        let twice = |name: &str, first: String, second: String| CheckpointError::Twice {
            path: self.path.clone(),
            parameter: name.to_owned(),
            first,
            second,
        };
        for &(name, other) in &place.twins {
            if !self.is_equal(name, &self.tensors[other]) {
                return Err(twice(name, format!("`{name}`"), format!("`{other}`")));
            }
        }
        for Again { name, first, second, tensor } in &self.again {
            let mut used = place.recipes.values().flat_map(Recipe::tensors);
            if used.any(|used| used == name) && !self.is_equal(name, tensor) {
                return Err(twice(name, format!("`{first}`"), format!("`{second}`")));
            }
        }
        Ok(())
    }

    /// Whether `other` has the shape and the values of the tensor called `name`. What cannot be read is not equal.
    fn is_equal(&self, name: &str, other: &Stored) -> bool {
        match (&self.tensors[name], other) {
            (Stored::Plain(one), Stored::Plain(other)) => {
                let values = |view: &View| self.values(name, view).ok();
                Arc::ptr_eq(one, other)
                    || one.shape == other.shape
                        && values(one).is_some_and(|one| values(other) == Some(one))
            }
            _ => false,
        }
    }

    /// Whether two places are made of the same tensors in the same ways.
    fn is_same(&self, one: &Place<'_>, other: &Place<'_>) -> bool {
        let same_tensor =
            |(one, other): (&str, &str)| match (&self.tensors[one], &self.tensors[other]) {
                (Stored::Plain(one), Stored::Plain(other)) => Arc::ptr_eq(one, other),
                (one, other) => std::ptr::eq(one, other),
            };
        one.recipes.values().zip(other.recipes.values()).all(|(one, other)| {
            std::mem::discriminant(one) == std::mem::discriminant(other)
                && one.tensors().zip(other.tensors()).all(same_tensor)
        })
    }

    fn read(&self, place: &Place<'_>) -> Result<Weights, CheckpointError> {
        let mut state = Weights::default();
        for (parameter, recipe) in &place.recipes {
            let name = recipe.main();
            let shape = self.tensors[name].shape().to_vec();
            let values = self.parameter(recipe)?;
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                let (path, name, value) = (self.path.clone(), name.to_owned(), values[index]);
                let stored = self.plain(&name)?.stored(index);
                return Err(match stored.filter(|stored| stored.is_finite()) {
                    Some(value) => CheckpointError::Range { path, name, index, value },
                    None => CheckpointError::NotFinite { path, name, index, value },
                });
            }
            state.0.insert(parameter.clone(), Parameter { shape, values });
        }
        Ok(state)
    }

    fn parameter(&self, recipe: &Recipe<'_>) -> Result<Vec<f32>, CheckpointError> {
        match *recipe {
            Recipe::Whole(name) | Recipe::Float(name) => self.weights(name),
            Recipe::Masked { original, mask } => {
                let values = self.weights(original)?;
                Ok(recipe::masked(values, &self.values(mask, self.plain(mask)?)?))
            }
            Recipe::Normalized { direction, norm } => {
                let (values, norms) = (self.weights(direction)?, self.weights(norm)?);
                let (direction, norm) = (self.plain(direction)?, self.plain(norm)?);
                Ok(recipe::normalized(values, direction, norm, &norms))
            }
        }
    }

    /// The values of a tensor of floating-point numbers.
    fn weights(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let view = self.plain(name)?;
        if !view.dtype.is_weight() {
            return Err(CheckpointError::Dtype {
                path: self.path.clone(),
                name: name.to_owned(),
                dtype: view.dtype.name().to_owned(),
            });
        }
        self.values(name, view)
    }

    fn values(&self, name: &str, view: &View) -> Result<Vec<f32>, CheckpointError> {
        view.values().map_err(|source| CheckpointError::Values {
            path: self.path.clone(),
            name: name.to_owned(),
            source,
        })
    }

    fn plain(&self, name: &str) -> Result<&View, CheckpointError> {
        match self.tensors[name] {
            Stored::Plain(ref view) => Ok(view),
            Stored::Special(kind) => {
                Err(CheckpointError::Kind { path: self.path.clone(), name: name.to_owned(), kind })
            }
        }
    }
}
