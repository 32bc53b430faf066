//! Event files for TensorBoard, from the events of a run as they come, or from its report.
//!
//! ```text
//! training/loss, training/learning_rate                             over the steps of the training
//! search/reward, search/state_accuracy, search/state_quantization   means of a batch, over episodes
//! search/evaluations, search/failures                               counts so far
//! best/reward, best/accuracy, best/state_quantization               the best so far
//! bits/LAYER                                                        its bitwidths
//! probability/LAYER/N bits                                          the policy's, mean of a batch
//! agent/entropy, agent/approx_kl, agent/clip_fraction, ...          what the agent learned from a batch
//! final/validation_accuracy                                         long retrains, in the order they ended
//! ```
//!
//! The searches for comparison have the same tags behind the name of their agent, as `random/search/reward`.

mod proto;
mod record;
mod tags;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use prost::Message;
use releq::{Event, Report, core::atomic_file};

pub use tags::Names;

use proto::{Summary, Value};

/// The version of the format, as TensorBoard expects it in the first record.
const VERSION: &str = "brain.Event:2";

/// A file that is written while the run goes on.
///
/// Every event is handed to the operating system as a whole, so that a reader sees the run up to its last
/// event. A process that is killed within a write leaves half a record, which TensorBoard ignores.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    path: PathBuf,
    names: Names,
}

impl EventFile {
    /// Begins a new file in the folder `dir`, which is created if it does not exist. Files of earlier lives of
    /// the run stay, and TensorBoard shows all of them as one.
    ///
    /// # Errors
    /// When the folder or the file cannot be written; the message names it.
    pub fn create(dir: impl AsRef<Path>, names: Names) -> io::Result<Self> {
        let dir = dir.as_ref();
        fs::create_dir_all(dir).map_err(|error| named(dir, &error))?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut number = 0;
        let (file, path) = loop {
            // In order of time, as TensorBoard reads them in order of their names.
            let name = format!(
                "events.out.tfevents.{:010}.{}.{number}.releq",
                since.as_secs(),
                std::process::id()
            );
            let path = dir.join(name);
            match File::create_new(&path) {
                Ok(file) => break (file, path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(named(&path, &error)),
            }
        };
        let mut file = Self { file, path, names };
        file.append(&record::frame(&version(since.as_secs_f64()).encode_to_vec()))?;
        Ok(file)
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds what an event says.
    ///
    /// # Errors
    /// When the file cannot be written; the message names it.
    pub fn add(&mut self, event: &Event) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let bytes = encoded(event, &self.names, now.as_secs_f64());
        if bytes.is_empty() { Ok(()) } else { self.append(&bytes) }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).map_err(|error| named(&self.path, &error))
    }
}

/// Writes the event file of a finished run, whole or not at all, into the folder `dir`; gives its path. Equal
/// reports give equal bytes, so all events have the time 0.
///
/// # Errors
/// When the folder or the file cannot be written; the message names it.
pub fn write(dir: impl AsRef<Path>, report: &Report) -> io::Result<PathBuf> {
    let dir = dir.as_ref();
    fs::create_dir_all(dir).map_err(|error| named(dir, &error))?;
    let path = dir.join("events.out.tfevents.0000000000.report.releq");
    atomic_file::write(&path, &bytes(report)).map_err(|error| named(&path, &error))?;
    Ok(path)
}

/// The event file of a finished run.
#[must_use]
pub fn bytes(report: &Report) -> Vec<u8> {
    let names = Names::of(report);
    let mut bytes = record::frame(&version(0.0).encode_to_vec());
    for event in tags::events(report) {
        bytes.extend(encoded(&event, &names, 0.0));
    }
    bytes
}

fn version(wall_time: f64) -> proto::Event {
    proto::Event { wall_time, file_version: Some(VERSION.to_owned()), ..proto::Event::default() }
}

/// The records of an event; none for one that has no numbers.
fn encoded(event: &Event, names: &Names, wall_time: f64) -> Vec<u8> {
    let tags::Scalars { step, values } = names.scalars(event);
    if values.is_empty() {
        return Vec::new();
    }
    let value = |(tag, value): (String, f64)| Value { tag, simple_value: Some(value as f32) };
    let event = proto::Event {
        wall_time,
        step,
        summary: Some(Summary { value: values.into_iter().map(value).collect() }),
        ..proto::Event::default()
    };
    record::frame(&event.encode_to_vec())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
