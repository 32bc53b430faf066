//! Opens files that hold data.

use std::{
    fs::File,
    io::{Read, Seek},
    path::Path,
};

use releq_core::StandIn;

use crate::DataError;

/// Opens a file, which must not be empty or a pointer to somewhere else. Returns its length, too.
pub(crate) fn open(path: &Path) -> Result<(File, u64), DataError> {
    let fail = |source| DataError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if metadata.is_file() {
        let mut start = Vec::new();
        file.by_ref().take(StandIn::START as u64).read_to_end(&mut start).map_err(fail)?;
        if let Some(what) = StandIn::of(&start) {
            return Err(DataError::StandIn { path: path.to_owned(), what });
        }
        file.rewind().map_err(fail)?;
    }
    Ok((file, metadata.len()))
}
