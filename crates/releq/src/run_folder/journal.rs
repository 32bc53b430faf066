//! Files that are only appended to: one JSON object in a line, each with a checksum.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use releq_core::Checksum;
use serde::{Serialize, de::DeserializeOwned};

use super::RunFolderError;

/// What stands between the fields of a line and its checksum.
const CHECKSUM: &str = ",\"checksum\":\"";

/// What ends a line.
const END: &str = "\"}\n";

/// Lines are synced to the disk at most this often, so that many small ones cost nothing. A process that is
/// killed loses none of them, a machine that loses its power at most the work of this time.
const SYNC_EVERY: Duration = Duration::from_secs(1);

const REMEDY: &str = "delete that line and those after it, which are then measured again";

/// A file of lines that belongs to one run.
///
/// The checksum of a line covers the run's identity too, so that a line of another run is noticed.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    run: String,
    /// Length of what is known to be whole.
    len: u64,
    synced: Instant,
}

impl Journal {
    /// Opens the file, or creates it, and reads its lines. What was being written when a process was killed,
    /// a last line without its end, is cut off.
    pub(super) fn open<T: DeserializeOwned>(
        path: PathBuf,
        run: &str,
    ) -> Result<(Self, Vec<T>), RunFolderError> {
        let io = |what, source| RunFolderError::Io { what, path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| io("open", source))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|source| io("read", source))?;
        let whole = whole(&bytes);
        let lines = parse(&path, &bytes[..whole], run)?;
        let len = whole as u64;
        if whole < bytes.len() {
            file.set_len(len).map_err(|source| io("write", source))?;
        }
        let journal = Self { path, file, run: run.to_owned(), len, synced: Instant::now() };
        Ok((journal, lines))
    }

    /// The whole lines of a file that another process may be writing; none where there is no file.
    pub(super) fn read<T: DeserializeOwned>(
        path: &Path,
        run: &str,
    ) -> Result<Vec<T>, RunFolderError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(RunFolderError::Io { what: "read", path: path.to_owned(), source });
            }
        };
        parse(path, &bytes[..whole(&bytes)], run)
    }

    /// Appends a line. If that fails, the file is as it was.
    pub(super) fn append(&mut self, line: &impl Serialize) -> Result<(), RunFolderError> {
        let result = self.try_append(line);
        if result.is_err() {
            // What was written of the line would spoil the next one. Should this fail as well, the next start
            // finds the line damaged and says so.
            let _ = self.file.set_len(self.len);
        }
        result.map_err(|source| RunFolderError::Io {
            what: "write",
            path: self.path.clone(),
            source,
        })
    }

    fn try_append(&mut self, line: &impl Serialize) -> std::io::Result<()> {
        let text = render(line, &self.run)?;
        self.file.seek(SeekFrom::Start(self.len))?;
        self.file.write_all(text.as_bytes())?;
        self.len += text.len() as u64;
        if self.synced.elapsed() >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }

    /// Makes sure that the lines survive a loss of power.
    pub(super) fn sync(&mut self) -> std::io::Result<()> {
        self.file.sync_data()?;
        self.synced = Instant::now();
        Ok(())
    }
}

/// Length of the whole lines.
fn whole(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1)
}

fn parse<T: DeserializeOwned>(
    path: &Path,
    bytes: &[u8],
    run: &str,
) -> Result<Vec<T>, RunFolderError> {
    let damaged = |number: usize, what: &str| RunFolderError::Damaged {
        path: path.to_owned(),
        reason: format!("line {} {what}", number + 1),
        remedy: REMEDY,
    };
    let lines = bytes.split_inclusive(|&byte| byte == b'\n').enumerate();
    lines
        .map(|(number, line)| {
            let other = || damaged(number, "is damaged, or was written by another run");
            let line = std::str::from_utf8(line).map_err(|_| other())?;
            let start = line.rfind(CHECKSUM).ok_or_else(other)?;
            let (fields, checksum) = line.split_at(start);
            if checksum != format!("{CHECKSUM}{}{END}", checksum_of(fields, run)) {
                return Err(other());
            }
            serde_json::from_str(&format!("{fields}}}")).map_err(|error| {
                damaged(number, &format!("is not what this version writes: {error}"))
            })
        })
        .collect()
}

fn render(line: &impl Serialize, run: &str) -> std::io::Result<String> {
    let mut text = serde_json::to_string(line)?;
    if text.pop() != Some('}') {
        return Err(std::io::Error::other("a line must be a JSON object"));
    }
    let checksum = checksum_of(&text, run);
    text.push_str(&format!("{CHECKSUM}{checksum}{END}"));
    Ok(text)
}

fn checksum_of(fields: &str, run: &str) -> String {
    Checksum::new().part(run).part(fields).finish()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line {
        name: String,
        value: f64,
    }

    fn line(name: &str, value: f64) -> Line {
        Line { name: name.to_owned(), value }
    }

    #[test]
    fn a_file_cut_anywhere_gives_its_whole_lines_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines.jsonl");
        let lines = [line("ä \" , checksum", 0.1), line("b", 1e-300), line("c", -3.0)];
        let (mut journal, none) = Journal::open::<Line>(path.clone(), "run").unwrap();
        assert!(none.is_empty());
        lines.iter().for_each(|line| journal.append(line).unwrap());
        drop(journal);
        let whole = fs::read(&path).unwrap();
        let ends: Vec<usize> =
            (0..whole.len()).filter(|&at| whole[at] == b'\n').map(|at| at + 1).collect();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let expected = ends.iter().filter(|&&end| end <= cut).count();
            let (mut journal, kept) = Journal::open::<Line>(path.clone(), "run").unwrap();
            assert_eq!(kept, lines[..expected], "cut at {cut}");
            lines[expected..].iter().for_each(|line| journal.append(line).unwrap());
            assert_eq!(fs::read(&path).unwrap(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_changed_byte_or_a_line_of_another_run_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines.jsonl");
        let (mut journal, _) = Journal::open::<Line>(path.clone(), "run").unwrap();
        for value in [1.0, 2.0] {
            journal.append(&line("a", value)).unwrap();
        }
        let whole = fs::read(&path).unwrap();
        let refused = |expected: &str| {
            let message = Journal::open::<Line>(path.clone(), "run").unwrap_err().to_string();
            for part in ["lines.jsonl", "delete that line", expected] {
                assert!(message.contains(part), "`{message}` lacks `{part}`");
            }
        };
        for at in 0..whole.len() - 1 {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            let line = 1 + whole[..at].iter().filter(|&&byte| byte == b'\n').count();
            refused(&format!("line {line} "));
        }
        fs::write(&path, &whole).unwrap();
        let (mut other, _) = Journal::open::<Line>(folder.path().join("other"), "other").unwrap();
        other.append(&line("a", 1.0)).unwrap();
        fs::copy(folder.path().join("other"), &path).unwrap();
        refused("line 1 is damaged, or was written by another run");
    }
}
