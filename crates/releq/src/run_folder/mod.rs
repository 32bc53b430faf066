//! A run on disk: its settings, what it has measured, and what it found.
//!
//! | file | what |
//! |---|---|
//! | `config.json` | every setting, the version and the kind of machine, and fingerprints of data and weights |
//! | `weights.safetensors` | the weights in full precision that the search starts from |
//! | `states/` | trainings and retrains that are under way, at most ten seconds old |
//! | `stages.jsonl` | the parts of the run that are done, one line each |
//! | `evaluations.jsonl` | one line for each assignment that a search has measured |
//! | `finals.jsonl` | one line for each long retrain |
//! | `retrained/` | weights after the long retrains, until the answer is known |
//! | `report.json` | the [`Report`](crate::Report) |
//! | `best.safetensors`, `bits.json` | the answer: its retrained weights, rounded as they are computed with, and its bitwidths by layer |
//! | `lock` | held by the process that works on the run |
//!
//! # How a run goes on
//!
//! Killed at any moment, a run that is started again ends with the same report, except for times. What was
//! measured is not measured again; everything else follows from the settings. The agent's search is played
//! again from its start with the answers on record, which takes seconds, and asks the same questions because the
//! seed is the same. Retrains go on from their last state.
//!
//! Files are either replaced as a whole, or appended to line by line. A line is appended when what it tells of
//! is on disk: weights before the line of their retrain, for instance. A process that is killed therefore
//! leaves at most one line without its end, which the next start cuts off. A loss of power may also lose lines of
//! the last second and files written since; then they are measured again.

mod answer;
mod clock;
mod error;
mod fork;
mod journal;
mod manifest;
mod recorded;
mod records;
mod retrains;
mod states;

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, TryLockError},
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

pub use answer::RunAnswer;
pub(crate) use clock::Clock;
use error::RESTORE;
pub use error::RunFolderError;
use journal::Journal;
use manifest::Manifest;
pub(crate) use recorded::Recorded;
pub(crate) use records::{EvaluationRecord, FinalRecord, FullPrecision, StageRecord};
use releq_core::{BitwidthAssignment, Checksum, Weights, atomic_file};
use releq_format::safetensors::{self, SafetensorsError};
use releq_train::StateSaver;
pub use retrains::{RecordedRetrain, RecordedRetrains};
use serde::{Deserialize, Serialize};
pub(crate) use states::{Beginning, KeptStates};

use crate::{Answer, ExperimentConfig, Report};

const CONFIG: &str = "config.json";
const LOCK: &str = "lock";
const WEIGHTS: &str = "weights.safetensors";
const STATES: &str = "states";
/// Kinds of trainings, which keep their states in folders of these names.
pub(crate) const FULL_PRECISION: &str = "full-precision";
pub(crate) const SHORT: &str = "short";
pub(crate) const LONG: &str = "long";
const STAGES: &str = "stages.jsonl";
const EVALUATIONS: &str = "evaluations.jsonl";
const FINALS: &str = "finals.jsonl";
const RETRAINED: &str = "retrained";
const REPORT: &str = "report.json";
const BEST: &str = "best.safetensors";
const BITS: &str = "bits.json";

/// Key in the metadata of weights.
const METADATA: &str = "releq";

/// Longest text of an assignment that becomes the name of a file.
const LONGEST_STEM: usize = 100;

/// A run on disk that this process works on; nobody else can until it is dropped.
///
/// [`Experiment::run_in`](crate::Experiment::run_in) begins a run in it, or goes on with the one that is there.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Locked as long as this value lives.
    _lock: File,
    /// Whether the folder was made for this value.
    is_new: bool,
    /// That of the run that is there, once there is one.
    manifest: OnceLock<Manifest>,
    every: Duration,
    /// The folder of a run that this one begins with what is valid of.
    from: Option<PathBuf>,
}

impl RunFolder {
    /// Takes hold of a folder with a run, or of a new or empty one for a run to begin in.
    ///
    /// # Errors
    /// [`RunFolderError`]: the folder belongs to another process, contains something else, or cannot be read
    /// or made.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, RunFolderError> {
        let path = path.into();
        let io = |what, source| RunFolderError::Io { what, path: path.clone(), source };
        let is_new = !path.exists();
        fs::create_dir_all(&path).map_err(|source| io("create", source))?;
        // Before anything is written in somebody else's folder.
        if !path.join(CONFIG).exists() {
            refuse_foreign_files(&path)?;
        }
        let lock = lock(&path)?;
        let manifest = Manifest::load(&path)?.map_or_else(OnceLock::new, OnceLock::from);
        Ok(Self { path, _lock: lock, is_new, manifest, every: StateSaver::EVERY, from: None })
    }

    /// Keeps the states of trainings at most this old; ten seconds unless said otherwise.
    #[must_use]
    pub const fn save_every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Lets the run begin with what another one has measured, as far as it is valid under the settings of this one:
    /// the weights in full precision, and the answers of the short retrains. A run that has begun goes on.
    ///
    /// The other run may be under way; nothing is changed there. What is taken over counts as no working time.
    #[must_use]
    pub fn fork(mut self, from: impl Into<PathBuf>) -> Self {
        self.from = Some(from.into());
        self
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Settings of the run; `None` where none has begun.
    #[must_use]
    pub fn config(&self) -> Option<&ExperimentConfig> {
        self.manifest.get().map(|manifest| &manifest.config)
    }

    /// Settings of the run in a folder that another process may be at work on.
    ///
    /// # Errors
    /// [`RunFolderError::NoRun`], or a `config.json` that cannot be read.
    pub fn config_of(path: impl AsRef<Path>) -> Result<ExperimentConfig, RunFolderError> {
        let path = path.as_ref();
        let manifest = Manifest::load(path)?;
        manifest
            .map(|manifest| manifest.config)
            .ok_or_else(|| RunFolderError::NoRun { path: path.to_owned() })
    }

    /// The report of the run in a folder that another process may be at work on: the last one that was written.
    /// `None` before there was one.
    ///
    /// # Errors
    /// A `report.json` that cannot be read.
    pub fn report_of(path: impl AsRef<Path>) -> Result<Option<Report>, RunFolderError> {
        let path = path.as_ref().join(REPORT);
        let Some(text) = read_if_there(&path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| RunFolderError::Damaged {
            path,
            reason: error.to_string(),
            remedy: "delete it and resume the run, which writes it again",
        })
    }

    /// What the run in a folder, which another process may be at work on, has measured by retrains.
    ///
    /// # Errors
    /// [`RunFolderError::NoRun`], or a file of the run that cannot be read.
    pub fn retrains_of(path: impl AsRef<Path>) -> Result<RecordedRetrains, RunFolderError> {
        let path = path.as_ref();
        let manifest = Manifest::load(path)?;
        let manifest = manifest.ok_or_else(|| RunFolderError::NoRun { path: path.to_owned() })?;
        let run = manifest.identity();
        let short: Vec<EvaluationRecord> = Journal::read(&path.join(EVALUATIONS), &run)?;
        let long: Vec<FinalRecord> = Journal::read(&path.join(FINALS), &run)?;
        let of_short = |record: EvaluationRecord| RecordedRetrain {
            answer: record.evaluation(),
            run_seconds: record.run_seconds,
            bits: record.bits,
        };
        let of_long = |record: FinalRecord| RecordedRetrain {
            answer: record.retrained(),
            run_seconds: record.run_seconds,
            bits: record.bits,
        };
        Ok(RecordedRetrains {
            short: short.into_iter().map(of_short).collect(),
            long: long.into_iter().map(of_long).collect(),
        })
    }

    /// Whether the run in a folder was begun with these settings, apart from those that do not decide its result.
    ///
    /// # Errors
    /// As [`config_of`](Self::config_of).
    pub fn has_settings(
        path: impl AsRef<Path>,
        config: &ExperimentConfig,
    ) -> Result<bool, RunFolderError> {
        let path = path.as_ref();
        let manifest = Manifest::load(path)?;
        let manifest = manifest.ok_or_else(|| RunFolderError::NoRun { path: path.to_owned() })?;
        Ok(manifest.check_settings(config, path).is_ok())
    }

    /// Whether the run has come to its end, with a report that was neither cancelled nor cut short by a failure,
    /// and with the weights of its answer.
    ///
    /// # Errors
    /// As [`report_of`](Self::report_of).
    pub fn is_finished(path: impl AsRef<Path>) -> Result<bool, RunFolderError> {
        Ok(finished_report(path.as_ref())?.is_some())
    }

    /// The report of the run, if it has come to its end and was begun with these settings.
    pub(crate) fn finished(
        &self,
        config: &ExperimentConfig,
    ) -> Result<Option<Report>, RunFolderError> {
        let Some(begun) = self.manifest.get() else { return Ok(None) };
        begun.check_settings(config, &self.path)?;
        let Some(report) = finished_report(&self.path)? else { return Ok(None) };
        // What stands in the file, and not only that there is one: weights that are damaged or another run's are made again.
        let is_right = |answer: &Answer| {
            let weights = read_own_weights(&self.path.join(BEST), &begun.identity());
            weights.and_then(|(_, bits)| bits) == Some(answer.bits.to_string())
        };
        let is_right = report.answer.as_ref().is_none_or(is_right);
        Ok(Some(report).filter(|_| is_right))
    }

    /// Begins a run, or takes up the one that is there.
    pub(crate) fn begin(
        &self,
        config: &ExperimentConfig,
        origin: BTreeMap<String, String>,
    ) -> Result<OpenRun<'_>, RunFolderError> {
        let now = Manifest::new(config.clone(), origin);
        let begun = self.manifest.get();
        if let (Some(from), None) = (&self.from, begun) {
            // Before anything is written: a fork that takes over nothing is a mistake.
            fork::valid(from, &now)?;
        }
        match begun {
            Some(begun) => begun.check_same(&now, &self.path)?,
            None => now.save(&self.path)?,
        }
        // Threads and the like are those of today, but the report tells of the run as it was begun.
        let manifest = self.manifest.get_or_init(|| now);
        let states = self.path.join(STATES);
        for path in [states.join(SHORT), states.join(LONG), self.path.join(RETRAINED)] {
            fs::create_dir_all(&path).map_err(|source| RunFolderError::Io {
                what: "create",
                path,
                source,
            })?;
        }
        let run = manifest.identity();
        if let Some(from) = &self.from {
            self.take_over(from, manifest)?;
        }
        let (stages, stage_records) = Journal::open(self.path.join(STAGES), &run)?;
        let (evaluations, evaluation_records) = Journal::open(self.path.join(EVALUATIONS), &run)?;
        let (finals, final_records) = Journal::open(self.path.join(FINALS), &run)?;
        Ok(OpenRun {
            folder: self,
            run,
            config: manifest.config.clone(),
            origin: manifest.origin.clone(),
            stages: Mutex::new(stages),
            evaluations: Mutex::new(evaluations),
            finals: Mutex::new(finals),
            stage_records,
            evaluation_records,
            final_records,
        })
    }
}

/// A run that is under way in its folder, with what earlier lives have left there.
#[derive(Debug)]
pub(crate) struct OpenRun<'a> {
    folder: &'a RunFolder,
    run: String,
    pub(crate) config: ExperimentConfig,
    pub(crate) origin: BTreeMap<String, String>,
    stages: Mutex<Journal>,
    evaluations: Mutex<Journal>,
    finals: Mutex<Journal>,
    pub(crate) stage_records: Vec<StageRecord>,
    pub(crate) evaluation_records: Vec<EvaluationRecord>,
    pub(crate) final_records: Vec<FinalRecord>,
}

impl OpenRun<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.path.join(name)
    }

    /// How trainings of one kind keep their states.
    pub(crate) fn states(&self, kind: &str) -> KeptStates {
        let folder = self.file(STATES).join(kind);
        KeptStates::new(folder, self.origin.clone(), self.folder.every)
    }

    /// The weights that the search starts from, if they are there and are what was written.
    pub(crate) fn weights(&self) -> Option<Weights> {
        self.read_weights(&self.file(WEIGHTS)).map(|(weights, _)| weights)
    }

    /// That the weights in full precision are not those that the run was begun with.
    pub(crate) fn other_weights(&self) -> RunFolderError {
        RunFolderError::Damaged {
            path: self.file(WEIGHTS),
            reason: "these are not the weights that the search was begun with".into(),
            remedy: RESTORE,
        }
    }

    pub(crate) fn save_weights(&self, weights: &Weights) -> Result<(), RunFolderError> {
        self.write_weights(&self.file(WEIGHTS), weights, None)
    }

    pub(crate) fn record_stage(&self, stage: &StageRecord) -> Result<(), RunFolderError> {
        let mut journal = locked(&self.stages);
        journal.append(stage)?;
        journal.sync().map_err(|source| RunFolderError::Io {
            what: "write",
            path: self.file(STAGES),
            source,
        })
    }

    pub(crate) fn record_evaluation(
        &self,
        record: &EvaluationRecord,
    ) -> Result<(), RunFolderError> {
        locked(&self.evaluations).append(record)?;
        self.states(SHORT).forget(Some(&record.bits));
        Ok(())
    }

    /// The weights first, so that whoever finds the line finds them too.
    pub(crate) fn record_final(
        &self,
        record: &FinalRecord,
        weights: Option<&Weights>,
    ) -> Result<(), RunFolderError> {
        if let Some(weights) = weights {
            self.write_weights(&self.retrained(&record.bits), weights, Some(&record.bits))?;
        }
        locked(&self.finals).append(record)?;
        self.states(LONG).forget(Some(&record.bits));
        Ok(())
    }

    fn retrained(&self, bits: &BitwidthAssignment) -> PathBuf {
        self.file(RETRAINED).join(format!("{}.safetensors", file_stem(bits)))
    }

    /// The retrained weights of this assignment, if they are there.
    pub(crate) fn retrained_weights(&self, bits: &BitwidthAssignment) -> Option<Weights> {
        [self.retrained(bits), self.file(BEST)].iter().find_map(|path| {
            let (weights, of) = self.read_weights(path)?;
            (of? == bits.to_string()).then_some(weights)
        })
    }

    /// Ends the run: the answer's weights and bitwidths, then the report, then what nobody needs any more.
    pub(crate) fn finish(
        &self,
        report: &Report,
        answer: Option<&BitwidthAssignment>,
    ) -> Result<(), RunFolderError> {
        if let Some(bits) = answer {
            let (from, to) = (self.retrained(bits), self.file(BEST));
            if from.exists() {
                fs::rename(&from, &to).map_err(|source| RunFolderError::Io {
                    what: "write",
                    path: to,
                    source,
                })?;
            }
            self.replace(BITS, by_layer(report, bits).as_bytes())?;
        }
        self.save_report(report)?;
        // What stays behind does no harm.
        let _ = fs::remove_dir_all(self.file(RETRAINED));
        let _ = fs::remove_dir_all(self.file(STATES));
        Ok(())
    }

    /// Writes the report of a run that may go on.
    pub(crate) fn save_report(&self, report: &Report) -> Result<(), RunFolderError> {
        self.replace(REPORT, (report.to_json() + "\n").as_bytes())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), RunFolderError> {
        let path = self.file(name);
        atomic_file::write(&path, bytes).map_err(|source| RunFolderError::Io {
            what: "write",
            path,
            source,
        })
    }

    fn write_weights(
        &self,
        path: &Path,
        weights: &Weights,
        bits: Option<&BitwidthAssignment>,
    ) -> Result<(), RunFolderError> {
        let io = |source| RunFolderError::Io { what: "write", path: path.to_owned(), source };
        let origin = WeightsOrigin { run: self.run.clone(), bits: bits.map(ToString::to_string) };
        origin.write(path, weights).map_err(io)
    }

    fn read_weights(&self, path: &Path) -> Option<(Weights, Option<String>)> {
        read_own_weights(path, &self.run)
    }
}

/// Weights of the run with this identity, with the bitwidths that they were retrained at; `None` if the file is missing,
/// damaged or another run's. Whatever it is, training gives the same weights again.
fn read_own_weights(path: &Path, run: &str) -> Option<(Weights, Option<String>)> {
    let (tensors, metadata) = safetensors::read_tensors(path)
        .inspect_err(|_| {
            if path.exists() {
                let file = path.display();
                log::warn!(
                    "{file} is cut short, or its checksum is of other content; it is made again"
                );
            }
        })
        .ok()?;
    // That the content is what was written, the checksum of the file has told.
    let origin: Option<WeightsOrigin> =
        metadata.get(METADATA).and_then(|text| serde_json::from_str(text).ok());
    let origin = origin.filter(|origin| origin.run == run);
    if origin.is_none() {
        log::warn!("{} is another run's; it is made again", path.display());
    }
    origin.map(|origin| (Weights(tensors), origin.bits))
}

impl Drop for RunFolder {
    /// A folder that was made for a run which could not begin is removed again.
    fn drop(&mut self) {
        if self.is_new && !self.path.join(CONFIG).exists() {
            // While the lock is held. Whatever else is in the folder keeps it.
            let _ = fs::remove_file(self.path.join(LOCK));
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// What weights in the folder of a run say of themselves.
#[derive(Debug, Serialize, Deserialize)]
struct WeightsOrigin {
    /// Identity of the run.
    run: String,
    /// Bitwidths that they were retrained at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bits: Option<String>,
}

impl WeightsOrigin {
    fn write(&self, path: &Path, weights: &Weights) -> std::io::Result<()> {
        let metadata = HashMap::from([(METADATA.to_owned(), serde_json::to_string(self)?)]);
        safetensors::write_tensors(path, &weights.0, metadata).map_err(|error| match error {
            // The caller names the file.
            SafetensorsError::Write { source, .. } => source,
            other => std::io::Error::other(other),
        })
    }
}

/// A name for the files of an assignment: its text, or the start of it with a checksum where it is long.
fn file_stem(bits: &BitwidthAssignment) -> String {
    let text = bits.to_string();
    if text.len() <= LONGEST_STEM {
        return text;
    }
    let checksum = Checksum::new().part(&text).finish();
    format!("{}-{}", &text[..LONGEST_STEM], &checksum[..8])
}

/// The report of the run in a folder, if the run has come to its end and the weights of its answer are there.
fn finished_report(folder: &Path) -> Result<Option<Report>, RunFolderError> {
    Ok(RunFolder::report_of(folder)?.filter(|report| {
        let whole = !report.cancelled && report.failed().is_none();
        let kept = |answer: &Answer| {
            let bits = fs::read_to_string(folder.join(BITS)).ok();
            folder.join(BEST).exists()
                && bits.is_some_and(|text| text == by_layer(report, &answer.bits))
        };
        whole && report.answer.as_ref().is_none_or(kept)
    }))
}

/// What `bits.json` has: the bitwidths of an assignment by layer.
fn by_layer(report: &Report, bits: &BitwidthAssignment) -> String {
    let by_layer: serde_json::Map<String, serde_json::Value> = report
        .layers
        .iter()
        .zip(bits.iter())
        .map(|(layer, bits)| (layer.name.clone(), serde_json::json!(bits)))
        .collect();
    serde_json::to_string_pretty(&by_layer).unwrap_or_default() + "\n"
}

/// The text of a file, or `None` if it does not exist.
fn read_if_there(path: &Path) -> Result<Option<String>, RunFolderError> {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| RunFolderError::Damaged {
            path: path.to_owned(),
            reason: "it is not UTF-8 text".into(),
            remedy: RESTORE,
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RunFolderError::Io { what: "read", path: path.to_owned(), source }),
    }
}

/// Refuses a folder in which something else lives. Hidden files and the lock are no sign of that.
fn refuse_foreign_files(path: &Path) -> Result<(), RunFolderError> {
    let io = |source| RunFolderError::Io { what: "read", path: path.to_owned(), source };
    for entry in fs::read_dir(path).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let name = name.to_string_lossy();
        if name != LOCK && !name.starts_with('.') {
            return Err(RunFolderError::Foreign {
                path: path.to_owned(),
                found: name.into_owned(),
            });
        }
    }
    Ok(())
}

/// Locks the folder, and leaves the number of this process for those who come too late. The lock ends with the
/// process, however that ends.
fn lock(folder: &Path) -> Result<File, RunFolderError> {
    let path = folder.join(LOCK);
    let io = |what, source| RunFolderError::Io { what, path: path.clone(), source };
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(&path).map_err(|source| io("open", source))?;
    let in_use = |holder: &str| {
        let holder = match holder.trim() {
            "" => "another process".to_owned(),
            number => format!("process {number}"),
        };
        Err(RunFolderError::InUse { path: folder.to_owned(), holder })
    };
    match file.try_lock() {
        // Whoever had it before may have removed it, and somebody else made another.
        Ok(()) if !leads_to(&path, &file).map_err(|source| io("open", source))? => {
            return in_use("");
        }
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // On some systems a locked file cannot be read.
            let _ = file.read_to_string(&mut holder);
            return in_use(&holder);
        }
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
            log::warn!("{} cannot be locked; let no second process work on it", path.display());
        }
        Err(TryLockError::Error(source)) => return Err(io("lock", source)),
    }
    let number = format!("{}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.write_all(number.as_bytes()))
        .map_err(|source| io("write", source))?;
    Ok(file)
}

/// Whether a path leads to an open file.
#[cfg(unix)]
fn leads_to(path: &Path, file: &File) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// An open file cannot be removed elsewhere.
#[cfg(not(unix))]
fn leads_to(_: &Path, _: &File) -> std::io::Result<bool> {
    Ok(true)
}

fn locked(journal: &Mutex<Journal>) -> MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use releq_core::Parameter;

    use super::*;

    fn begin(folder: &RunFolder) -> Result<OpenRun<'_>, RunFolderError> {
        folder.begin(&ExperimentConfig::lenet(1), BTreeMap::from([("data".into(), "d".into())]))
    }

    fn weights() -> Weights {
        let values = (0..500).map(|value| value as f32 * 0.37).collect();
        Weights(BTreeMap::from([("fc.weight".into(), Parameter { shape: vec![50, 10], values })]))
    }

    /// A run with weights and some records.
    fn recorded(root: &Path) -> Vec<EvaluationRecord> {
        let folder = RunFolder::open(root).unwrap();
        let run = begin(&folder).unwrap();
        run.save_weights(&weights()).unwrap();
        let fingerprint = weights().fingerprint();
        run.record_stage(&StageRecord::Weights { fingerprint, run_seconds: 1.5 }).unwrap();
        let answers = [
            crate::evaluate::Evaluation::new(0.1 + 0.2),
            crate::evaluate::Evaluation::failed("the loss became NaN"),
            crate::evaluate::Evaluation::GivenUp {
                after_step: 3,
                seen: crate::evaluate::Measurement::new(1e-9).with_standard_error(0.5),
            },
        ];
        let bits = ["2-3-4-5", "2-2-2-2", "8-float-3-2"];
        let records: Vec<_> = bits
            .into_iter()
            .zip(answers)
            .map(|(bits, answer)| {
                let record = EvaluationRecord::new(bits.parse().unwrap(), &answer, 2.25);
                assert_eq!(record.evaluation(), answer);
                run.record_evaluation(&record).unwrap();
                record
            })
            .collect();
        let hits = [(90, 100), (17, 20)].map(|(correct, total)| {
            releq_train::Hits::new((0..total).map(|image| image < correct).collect())
        });
        for retrained in [Ok(hits), Err("diverged".to_owned())] {
            let record = FinalRecord::new(records[0].bits.clone(), 0, &retrained, 3.0);
            assert_eq!(record.retrained(), retrained);
            run.record_final(&record, retrained.is_ok().then(weights).as_ref()).unwrap();
            assert!(run.retrained_weights(&record.bits).is_some());
        }
        records
    }

    #[test]
    fn a_folder_opens_or_is_refused_wherever_its_files_are_cut() {
        let root = tempfile::tempdir().unwrap();
        let records = recorded(root.path());
        for (name, step) in
            [(CONFIG, 64), (STAGES, 7), (EVALUATIONS, 7), (FINALS, 7), (WEIGHTS, 11), (LOCK, 1)]
        {
            let path = root.path().join(name);
            let whole = fs::read(&path).unwrap();
            for cut in (0..whole.len()).step_by(step) {
                fs::write(&path, &whole[..cut]).unwrap();
                let opened = RunFolder::open(root.path()).and_then(|folder| {
                    let run = begin(&folder)?;
                    assert!(records.starts_with(&run.evaluation_records), "{name} cut at {cut}");
                    let whole = run.weights().is_none_or(|read| read == weights());
                    assert!(whole, "{name} cut at {cut}");
                    Ok(())
                });
                if let Err(error) = opened {
                    let message = error.to_string();
                    assert!(name == CONFIG && message.contains(name), "{name} at {cut}: {message}");
                }
            }
            fs::write(&path, &whole).unwrap();
        }
    }

    #[test]
    fn weights_that_are_not_what_was_written_are_made_again() {
        let root = tempfile::tempdir().unwrap();
        recorded(root.path());
        let path = root.path().join(WEIGHTS);
        let whole = fs::read(&path).unwrap();
        let folder = RunFolder::open(root.path()).unwrap();
        let run = begin(&folder).unwrap();
        assert_eq!(run.weights(), Some(weights()));
        for at in (0..whole.len()).step_by(whole.len() / 200) {
            let mut changed = whole.clone();
            changed[at] ^= 4;
            fs::write(&path, &changed).unwrap();
            assert!(run.weights().is_none_or(|read| read == weights()), "byte {at}");
        }
        // Another run's weights are whole, but not this run's.
        let other = tempfile::tempdir().unwrap();
        let other_folder = RunFolder::open(other.path()).unwrap();
        let other_run = other_folder.begin(&ExperimentConfig::lenet(2), BTreeMap::new()).unwrap();
        other_run.save_weights(&weights()).unwrap();
        fs::copy(other.path().join(WEIGHTS), &path).unwrap();
        assert_eq!(run.weights(), None);
    }

    #[test]
    fn assignments_of_any_length_name_files() {
        let long = BitwidthAssignment::from_bits(vec![2; 300]).unwrap();
        let longer = BitwidthAssignment::from_bits(vec![2; 301]).unwrap();
        assert_eq!(file_stem(&"2-3".parse().unwrap()), "2-3");
        assert!(file_stem(&long).len() < 120);
        assert_ne!(file_stem(&long), file_stem(&longer));
    }
}
