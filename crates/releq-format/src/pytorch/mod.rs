//! PyTorch checkpoints, of the zip archives of today and of the streams of pickles before.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
    sync::{Arc, Mutex},
};

mod archive;
mod flatten;
mod globals;
mod legacy;
mod machine;
mod rebuild;
mod value;

use releq_pickle::{PickleError, Problem};

use self::{
    archive::{Archive, ArchiveError},
    machine::{MOST_VALUES, Refusal, Refused},
    rebuild::Rebuild,
    value::Values,
};
use crate::{CheckpointError, bytes::Bytes, checkpoint::Again, stored::Stored};

/// Most bytes that a pickle may inflate to, whatever its size in the file.
const SMALL_PICKLE: u64 = 1 << 20;

type Tensors = (BTreeMap<String, Stored>, Vec<Again>);

/// A file that is being read, for the errors.
struct Input<'a> {
    path: &'a Path,
}

/// The tensors of an archive of PyTorch 1.6 or later.
pub(crate) fn open_zip(path: &Path) -> Result<Tensors, CheckpointError> {
    let input = Input { path };
    let file = Arc::new(Mutex::new(input.open()?));
    let archive = Archive::open(file).map_err(|error| input.archive(error))?;
    let is_pickle = |name: &&str| *name == "data.pkl" || name.ends_with("/data.pkl");
    let pickles: Vec<&str> = archive.names().filter(is_pickle).collect();
    // The one nearest the root, where a whole folder was zipped again.
    let depth = |name: &str| name.matches('/').count();
    let nearest = pickles.iter().map(|name| depth(name)).min();
    let mut nearest = pickles.into_iter().filter(|name| Some(depth(name)) == nearest);
    let (part, other) = (nearest.next(), nearest.next());
    let Some(part) = part else {
        if archive.names().any(|name| name.ends_with(".npy")) {
            return Err(input.unsupported("it is an archive of NumPy arrays".to_owned()));
        }
        return Err(CheckpointError::Foreign { path: path.to_owned() });
    };
    if let Some(other) = other {
        let (first, second) = (part.min(other), part.max(other));
        return Err(
            input.unsupported(format!("it holds two checkpoints, `{first}` and `{second}`"))
        );
    }
    let folder = part.strip_suffix("data.pkl").unwrap_or_default();
    if archive.names().any(|name| name.strip_prefix(folder) == Some("constants.pkl")) {
        return Err(input.unsupported("it is a TorchScript program, not a checkpoint".to_owned()));
    }
    let all = |name: &str| -> Result<Option<Vec<u8>>, CheckpointError> {
        let Some(bytes) = archive.entry(name) else { return Ok(None) };
        let bytes = bytes.map_err(|error| input.archive(error))?;
        if let Some(problem) = bytes.bomb(bytes.len(), SMALL_PICKLE) {
            return Err(input.excessive(format!("{name}: {problem}")));
        }
        bytes.read(0..bytes.len()).map(Some).map_err(|error| input.damaged(name, error))
    };
    let big_endian = match all(&format!("{folder}byteorder"))?.as_deref() {
        None | Some(b"little") => false,
        Some(b"big") => true,
        Some(other) => {
            let other = String::from_utf8_lossy(&other[..other.len().min(16)]).into_owned();
            return Err(input.unsupported(format!(
                "its byte order is {other:?}, where there are only `little` and `big`"
            )));
        }
    };
    let pickle = Arc::new(all(part)?.unwrap_or_default());
    let length = pickle.len();
    let values =
        machine::read(pickle, 0..length).map_err(|refusal| input.refused(part, refusal))?;
    let storage = |key: &str| {
        let name = format!("{folder}data/{key}");
        match archive.entry(&name) {
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => Bytes::Missing(error.to_string()),
            None => Bytes::Missing(format!("the archive has no entry `{name}`")),
        }
    };
    input.tensors(&values, &storage, big_endian, part, length)
}

/// The tensors of a stream of pickles, as PyTorch wrote it before 1.6, or of a single pickle.
pub(crate) fn open_pickles(path: &Path) -> Result<Tensors, CheckpointError> {
    const PARTS: [&str; 5] =
        ["the magic number", "the version", "the system information", "the weights", "the keys"];
    let input = Input { path };
    let read = |source: io::Error| CheckpointError::Read { path: path.to_owned(), source };
    let mut header = Vec::new();
    input.open()?.take(64).read_to_end(&mut header).map_err(read)?;
    let parts = if legacy::is_stream(&header) { &PARTS[..] } else { &["the pickle"] };
    let mut reader = BufReader::new(input.open()?);
    let mut extents = Vec::new();
    let mut end = 0;
    for part in parts {
        let extent =
            legacy::extent(&mut reader, end).map_err(|error| input.refused(part, error.into()))?;
        end = extent.end;
        extents.push(extent.start as usize..extent.end as usize);
    }
    // Only the pickles; values may be many times as large.
    let mut pickles = Vec::new();
    reader.seek(SeekFrom::Start(0)).map_err(read)?;
    (&mut reader).take(end).read_to_end(&mut pickles).map_err(read)?;
    let pickles = Arc::new(pickles);
    let mut values = Vec::new();
    for (part, extent) in parts.iter().zip(&extents) {
        let pickle = machine::read(Arc::clone(&pickles), extent.clone());
        values.push(pickle.map_err(|refusal| input.refused(part, refusal))?);
    }
    let (weights, part, extent) = match &values[..] {
        [_, _, _, weights, _] => (weights, PARTS[3], &extents[3]),
        _ => (&values[0], parts[0], &extents[0]),
    };
    let storages = match &values[..] {
        [.., keys] if values.len() == PARTS.len() => {
            let file = Arc::new(Mutex::new(input.open()?));
            let sizes = legacy::element_sizes(weights);
            legacy::storages(&mut reader, &file, end, keys, &sizes)
                .map_err(|error| input.damaged("the values", error))?
        }
        _ => HashMap::new(),
    };
    let storage = |key: &str| match storages.get(key) {
        Some(bytes) => bytes.clone(),
        None => Bytes::Missing(format!("the file has no values under the key `{key}`")),
    };
    input.tensors(weights, &storage, false, part, extent.len())
}

impl Input<'_> {
    fn open(&self) -> Result<File, CheckpointError> {
        let path = self.path;
        File::open(path).map_err(|source| CheckpointError::Read { path: path.to_owned(), source })
    }

    fn tensors(
        &self,
        values: &Values,
        storages: rebuild::Storages<'_>,
        big_endian: bool,
        part: &str,
        pickle: usize,
    ) -> Result<Tensors, CheckpointError> {
        let rebuild = Rebuild::new(values, storages, big_endian);
        flatten::tensors(values, &rebuild, pickle).map_err(|flatten::TooManyNames| {
            let what = format!("{part}: the values refer to each other in too many ways to list");
            self.excessive(what)
        })
    }

    fn damaged(&self, part: &str, source: io::Error) -> CheckpointError {
        let source = io::Error::new(source.kind(), format!("{part}: {source}"));
        CheckpointError::Damaged { path: self.path.to_owned(), source: Box::new(source) }
    }

    fn unsupported(&self, what: String) -> CheckpointError {
        CheckpointError::Unsupported { path: self.path.to_owned(), what }
    }

    fn excessive(&self, what: String) -> CheckpointError {
        CheckpointError::Excessive { path: self.path.to_owned(), what }
    }

    fn archive(&self, error: ArchiveError) -> CheckpointError {
        let path = self.path.to_owned();
        match error {
            ArchiveError::Io(source) => CheckpointError::Read { path, source },
            ArchiveError::Unsupported(what) => CheckpointError::Unsupported { path, what },
            error => CheckpointError::Damaged { path, source: Box::new(error) },
        }
    }

    fn refused(&self, part: &str, refused: Refused) -> CheckpointError {
        let (path, offset) = (self.path.to_owned(), refused.offset);
        match refused.why {
            Refusal::Code(name) => {
                CheckpointError::Code { path, part: part.to_owned(), offset, name }
            }
            Refusal::Excess => self.excessive(format!(
                "byte {offset} of {part}: more than {MOST_VALUES} values beside the tensors"
            )),
            Refusal::Senseless(problem) => {
                let source = format!("byte {offset} of {part}: {problem}").into();
                CheckpointError::Damaged { path, source }
            }
            Refusal::Damaged(PickleError { problem: Problem::Read(source), .. }) => {
                CheckpointError::Read { path, source }
            }
            // Whole, but not what PyTorch writes.
            Refusal::Damaged(error @ PickleError { problem: Problem::LongLine, .. }) => {
                self.unsupported(format!("{part}: {error}"))
            }
            Refusal::Damaged(error) => {
                let source = format!("{part}: {error}").into();
                CheckpointError::Damaged { path, source }
            }
        }
    }
}
