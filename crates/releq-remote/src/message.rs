//! What travels, as JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use releq::{
    hw::Machine,
    jobs::{Job, JobAnswer, RunSpec},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Changes whenever the meaning of a message does.
pub const PROTOCOL: u32 = 3;

/// A job in the queue. Its name is the hash of these bytes, so equal jobs have one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct JobMessage {
    pub(crate) protocol: u32,
    /// Version of releq, since another one may answer otherwise.
    pub(crate) version: String,
    /// Kind of machine whose answer is wanted, where not every one will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) machine: Option<String>,
    /// Name of the network, for people.
    pub(crate) network: String,
    /// Hash of the [`RunSpec`].
    pub(crate) run: String,
    /// Hash of the file with the weights in full precision.
    pub(crate) weights: String,
    /// Hash of the images in one piece, where the search has sent them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) images: Option<String>,
    pub(crate) job: Job,
}

/// What all jobs of a run need: the network's name, and hashes of what is on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) network: String,
    /// Of the description of the run.
    pub(crate) run: String,
    /// Of the weights in full precision.
    pub(crate) weights: String,
    /// Of the images, where they are sent.
    pub(crate) images: Option<String>,
}

/// Why a message is no job for this worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoJob {
    /// It is not a job at all.
    Malformed(String),
    /// It is one for others.
    Other(String),
}

impl JobMessage {
    /// A job of this version, for machines of this kind or of any.
    pub(crate) fn new(needs: &Needs, job: Job, machine: Option<String>) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let Needs { network, run, weights, images } = needs.clone();
        Self { protocol: PROTOCOL, version, machine, network, run, weights, images, job }
    }

    /// Reads a job that stands under the name `id`.
    pub(crate) fn read(bytes: &[u8], id: &str) -> Result<Self, NoJob> {
        let malformed = |reason: String| NoJob::Malformed(reason);
        // Of another protocol, nothing but this may be as it is here.
        #[derive(Deserialize)]
        struct Spoken {
            protocol: u32,
        }
        let Spoken { protocol } =
            serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        if protocol != PROTOCOL {
            return Err(NoJob::Other(format!(
                "the job speaks protocol {protocol}, this worker speaks {PROTOCOL}; both need the same version of releq"
            )));
        }
        if hash(bytes) != id {
            return Err(malformed("its name is not its hash".to_owned()));
        }
        let message: Self =
            serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        let ours = env!("CARGO_PKG_VERSION");
        if message.version != ours {
            let theirs = &message.version;
            return Err(NoJob::Other(format!("the job is of releq {theirs}, this is {ours}")));
        }
        let kind = machine_kind(&Machine::this());
        match &message.machine {
            Some(wanted) if *wanted != kind => Err(NoJob::Other(format!(
                "the job is for machines of the kind {wanted}, this is {kind}; a search with --any-machine takes both"
            ))),
            _ => Ok(message),
        }
    }
}

/// An answer in the results, under the hash of its job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ResultMessage {
    pub(crate) protocol: u32,
    /// Hash of the job.
    pub(crate) job: String,
    /// Name of the worker.
    pub(crate) worker: String,
    /// Kind of its machine.
    pub(crate) machine: String,
    /// How long it took.
    pub(crate) seconds: f64,
    pub(crate) outcome: Outcome,
}

/// What became of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Answer {
        answer: JobAnswer,
        /// Hash of the file with the retrained weights, where they are wanted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weights: Option<String>,
    },
    /// What would have ended the search if it had happened there.
    Failed { reason: String },
}

/// What a worker says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Its name.
    pub name: String,
    /// Kind of its machine.
    pub machine: String,
    /// Version of releq.
    pub version: String,
    /// Jobs that it carries out at a time.
    pub threads: usize,
    /// When it began, in seconds since 1970.
    pub since: u64,
    /// Jobs done.
    pub done: usize,
    /// Seconds that they took, all together.
    pub busy_seconds: f64,
    /// What it does now.
    pub doing: Vec<Doing>,
    /// Why it refused the last job that it could not do, if it has done none since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A job that a worker is at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Doing {
    /// The network.
    pub network: String,
    /// Which retrain of which assignment.
    pub job: Job,
    /// When it began, in seconds since 1970.
    pub since: u64,
    /// How far it is.
    pub step: Step,
}

/// The steps of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Step {
    /// Network, weights and images of its run are fetched and read, where they are not there yet.
    Loading,
    /// The network is retrained.
    Retraining,
    /// The answer is on its way to the server.
    Storing,
}

/// What has to be equal for two machines to give equal answers: the architecture and the instruction set of the kernels.
#[must_use]
pub fn machine_kind(machine: &Machine) -> String {
    format!("{} {}", machine.architecture, machine.isa)
}

/// The description of a run, as it is stored.
pub(crate) fn spec_bytes(spec: &RunSpec) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(spec)
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use releq::jobs::Task;

    use super::*;

    fn message(machine: Option<&str>) -> JobMessage {
        let task = Task::Short { full_precision: 0.987 };
        let job = Job { bits: "2-3-float-8".parse().unwrap(), task };
        let needs = Needs {
            network: "lenet".to_owned(),
            run: hash(b"run"),
            weights: hash(b"weights"),
            images: machine.map(|_| hash(b"images")),
        };
        JobMessage::new(&needs, job, machine.map(str::to_owned))
    }

    #[test]
    fn a_job_is_read_back_and_anything_else_is_refused_by_name() {
        let kind = machine_kind(&Machine::this());
        for message in [message(None), message(Some(&kind))] {
            let bytes = serde_json::to_vec(&message).unwrap();
            assert_eq!(JobMessage::read(&bytes, &hash(&bytes)), Ok(message));
        }
        let other = |change: fn(&mut JobMessage), expected: &str| {
            let mut changed = message(None);
            change(&mut changed);
            let bytes = serde_json::to_vec(&changed).unwrap();
            let refused = JobMessage::read(&bytes, &hash(&bytes)).unwrap_err();
            assert!(matches!(&refused, NoJob::Other(why) if why.contains(expected)), "{refused:?}");
        };
        other(|job| job.protocol = 7, "protocol 7");
        other(|job| job.version = "9.9.9".to_owned(), "releq 9.9.9");
        other(|job| job.machine = Some("abacus".to_owned()), "abacus");
        let good = serde_json::to_vec(&message(None)).unwrap();
        for (bytes, id) in [
            (&b"hello"[..], hash(b"hello")),
            (&good, hash(b"other")),
            (b"{\"protocol\":3}", hash(b"{\"protocol\":3}")),
        ] {
            assert!(matches!(JobMessage::read(bytes, &id), Err(NoJob::Malformed(_))));
        }
    }

    #[test]
    fn hashes_are_those_of_the_standard() {
        // FIPS 180-4, of the three letters.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash(b"abc"), expected);
    }
}
