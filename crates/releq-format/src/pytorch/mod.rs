//! PyTorch checkpoints: audited by us, read by `pytorch-reader`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use pytorch_reader::{MAX_PICKLE_SIZE, PickleError, PytorchError, PytorchReader};
use zip::ZipArchive;

mod audit;

use self::audit::{LARGEST_MEMO, Refusal, audit};
use crate::{CheckpointError, stored::Stored};

/// The number that opens the stream of pickles, as protocols 2 and later write it.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// Pickles before the values: that number, a version, the machine, the weights, the keys of the values.
const PICKLES: [&str; 5] =
    ["the magic number", "the version", "the system information", "the weights", "the keys"];

/// The tensors of an archive of PyTorch 1.6 or later.
pub(crate) fn open_zip(path: &Path) -> Result<BTreeMap<String, Stored>, CheckpointError> {
    let damaged = |source: zip::result::ZipError| CheckpointError::Damaged {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let file = open(path)?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
    let mut is_checkpoint = false;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(damaged)?;
        let part = entry.name().map_err(damaged)?.into_owned();
        if part.ends_with(".pkl") {
            is_checkpoint |= part == "data.pkl" || part.ends_with("/data.pkl");
            let mut pickle = BufReader::new(entry.take(MAX_PICKLE_SIZE));
            audit(&mut pickle).map_err(|refusal| refused(path, &part, refusal))?;
        }
    }
    if is_checkpoint {
        tensors(path)
    } else {
        Err(CheckpointError::Foreign { path: path.to_owned() })
    }
}

/// The tensors of a stream of pickles, as PyTorch wrote it before 1.6.
pub(crate) fn open_pickles(path: &Path) -> Result<BTreeMap<String, Stored>, CheckpointError> {
    let mut input = BufReader::new(open(path)?);
    let mut header = Vec::new();
    let read = |source: io::Error| CheckpointError::Read { path: path.to_owned(), source };
    open(path)?.take(64).read_to_end(&mut header).map_err(read)?;
    let is_stream = header.windows(MAGIC.len()).any(|bytes| bytes == MAGIC);
    let parts = if is_stream { &PICKLES[..] } else { &["the pickle"] };
    for part in parts {
        audit(&mut input).map_err(|refusal| refused(path, part, refusal))?;
    }
    tensors(path)
}

fn open(path: &Path) -> Result<File, CheckpointError> {
    File::open(path).map_err(|source| CheckpointError::Read { path: path.to_owned(), source })
}

fn refused(path: &Path, part: &str, refusal: Refusal) -> CheckpointError {
    let path = path.to_owned();
    match refusal {
        Refusal::Name { offset, name } => {
            CheckpointError::Code { path, part: part.to_owned(), offset, name }
        }
        Refusal::Memo { offset } => {
            let source = format!("byte {offset} of {part}: more than {LARGEST_MEMO} values");
            CheckpointError::Damaged { path, source: source.into() }
        }
        Refusal::Damaged(source) => CheckpointError::Damaged { path, source: Box::new(source) },
    }
}

fn tensors(path: &Path) -> Result<BTreeMap<String, Stored>, CheckpointError> {
    let path_of = || path.to_owned();
    let reader = PytorchReader::new(path).map_err(|source| match source {
        PytorchError::Pickle(PickleError::UnsupportedType(kind)) => {
            CheckpointError::Kind { path: path_of(), kind }
        }
        source => CheckpointError::Damaged { path: path_of(), source: Box::new(source) },
    })?;
    let tensors = reader.into_tensors().into_iter();
    Ok(tensors.map(|(name, tensor)| (name, Stored::PyTorch(tensor))).collect())
}
