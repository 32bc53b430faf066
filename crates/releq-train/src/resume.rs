//! A training that has been broken off, in memory and on disk.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use releq_core::{BitwidthAssignment, Parameter, Weights};
use releq_data::Normalization;
use releq_format::safetensors::{CHECKSUM, SafetensorsError, read_tensors, write_tensors};
use serde::{Deserialize, Serialize};

use crate::{OptimizerState, Schedule, TrainError, TrainReport};

/// Everything that a [`Training`](crate::Training) goes on from, as if it had never stopped.
///
/// # Examples
///
/// ```
/// use releq_quant::QuantizerKind;
/// use releq_core::Network;
/// use releq_data::{Normalization, digits::{self, DigitsConfig}};
/// use releq_train::{Length, NativeTrainer, Schedule, Sgd, Trainer, Training, TrainingState};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let network = Network::builder("tiny", [1, 28, 28]).flatten("flatten").linear("fc", 10).build()?;
/// let images = digits::generate(&DigitsConfig { train: 60, test: 10, ..DigitsConfig::default() })?.train;
/// let normalization = Normalization::measured(&images)?;
/// let sgd = Sgd { learning_rate: 0.01, momentum: 0.9, weight_decay: 0.0 };
/// let schedule = Schedule::new(Length::Steps(4), 20, sgd);
/// let trainer = || NativeTrainer::new(&network, QuantizerKind::Wrpn.build());
///
/// let mut first = trainer()?;
/// let mut training = Training::new(&images, &normalization, &schedule, 1)?;
/// training.step(&mut first)?;
/// let file = tempfile::NamedTempFile::new()?;
/// training.state(&first).save(file.path())?;
///
/// // Another day:
/// let mut second = trainer()?;
/// let state = TrainingState::load(file.path())?;
/// let mut resumed = Training::resume(&images, &normalization, &state, &mut second)?;
/// assert_eq!(resumed.step(&mut second)?, training.step(&mut first)?);
/// assert_eq!(second.weights(), first.weights());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingState {
    /// The float master weights and the statistics.
    pub weights: Weights,
    /// What the optimizer remembers.
    pub optimizer: OptimizerState,
    /// The clips that the weights of layers are quantized within ([`TrainerState::clips`](crate::TrainerState)).
    pub clips: BTreeMap<String, Vec<f32>>,
    /// What was trained, how, and how far.
    pub run: TrainingRun,
}

/// The part of a [`TrainingState`] that is no tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingRun {
    /// Name of the network.
    pub network: String,
    /// The schedule.
    pub schedule: Schedule,
    /// What the order of the images and their augmentation follow from.
    pub seed: u64,
    /// Number of images to train on.
    pub images: usize,
    /// How their pixels became numbers.
    pub normalization: Normalization,
    /// Bitwidths of the quantized layers.
    pub bits: Option<BitwidthAssignment>,
    /// [Name](releq_quant::Quantizer::name) of the quantizer.
    pub quantizer: String,
    /// What was done.
    pub report: TrainReport,
    /// What else the training follows from, as whoever runs it has [noted](crate::Training::origin).
    #[serde(default)]
    pub origin: BTreeMap<String, String>,
}

impl TrainingRun {
    /// Compares network, seed and schedule with those of the training at hand. The network is first: another one has
    /// another schedule.
    ///
    /// # Errors
    /// [`TrainError::Resume`] with the first that differs; of the schedule, with its field.
    pub fn check_settings(
        &self,
        network: &str,
        schedule: &Schedule,
        seed: u64,
    ) -> Result<(), TrainError> {
        TrainError::unless_same("network", &self.network, network)?;
        TrainError::unless_same("seed", &self.seed.to_string(), &seed.to_string())?;
        TrainError::unless_alike("the schedule's", &self.schedule, schedule)
    }

    /// Compares the origin with that of the training at hand.
    ///
    /// # Errors
    /// [`TrainError::Resume`] with the first entry that is missing on one side or differs.
    pub fn check_origin(&self, now: &BTreeMap<String, String>) -> Result<(), TrainError> {
        let text = |value: Option<&String>| value.map_or_else(|| "none".to_owned(), String::clone);
        for what in self.origin.keys().chain(now.keys()) {
            let (expected, got) = (self.origin.get(what), now.get(what));
            if expected != got {
                return Err(TrainError::Resume {
                    what: what.clone(),
                    expected: text(expected),
                    got: text(got),
                });
            }
        }
        Ok(())
    }
}

/// A training state that cannot be read from a file or written to one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingStateError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(SafetensorsError),
    /// The file does not contain a resumable training state, or is damaged.
    #[error("{}: {reason}; {REMEDY}", path.display())]
    NotATraining {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
}

/// What to do about a state that cannot be resumed.
const REMEDY: &str = "take an earlier copy of the state, or remove it to begin the training anew";

/// Key of the run in the metadata of the file.
const RUN: &str = "releq_training";
/// Changes whenever the meaning of a file does. The first format had no version and no checksum.
const VERSION: u32 = 3;
const WEIGHTS: &str = "weights.";
const VELOCITY: &str = "velocity.";
const CLIPS: &str = "clips.";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    version: u32,
    run: TrainingRun,
    optimizer_steps: u64,
}

/// What files of every version say, and this one as well.
#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    version: Option<u32>,
}

impl TrainingState {
    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`TrainingStateError`], naming the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, TrainingStateError> {
        let path = path.as_ref();
        let refused =
            |reason: String| TrainingStateError::NotATraining { path: path.to_owned(), reason };
        let (tensors, metadata) = read_tensors(path).map_err(|error| match error {
            SafetensorsError::Format { source, .. } => refused(format!("it is damaged: {source}")),
            SafetensorsError::Damaged { .. } => {
                refused("it is damaged: its checksum is of other content".into())
            }
            SafetensorsError::Metadata { what, .. } => refused(what),
            SafetensorsError::StandIn { what, .. } => refused(format!("it {what}")),
            error => TrainingStateError::File(error),
        })?;
        let text = metadata.get(RUN).ok_or_else(|| {
            refused(
                "it does not contain a resumable training state, as if it were weights alone"
                    .into(),
            )
        })?;
        let Version { version } =
            serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
        if version != Some(VERSION) {
            let version = version.unwrap_or(1);
            return Err(refused(format!(
                "another version of releq wrote this state, in format {version}; this one reads format {VERSION}"
            )));
        }
        // Its tensors and all of this text are intact if it is right; see `read_tensors`.
        if !metadata.contains_key(CHECKSUM) {
            return Err(refused("its checksum is missing".into()));
        }
        let Metadata { version: _, run, optimizer_steps } =
            serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
        let mut weights = Weights::default();
        let mut velocity = Weights::default();
        let mut clips = BTreeMap::new();
        for (name, parameter) in tensors {
            if let Some(layer) = name.strip_prefix(CLIPS) {
                clips.insert(layer.to_owned(), parameter.values);
                continue;
            }
            let (of, name) = if let Some(name) = name.strip_prefix(WEIGHTS) {
                (&mut weights, name)
            } else if let Some(name) = name.strip_prefix(VELOCITY) {
                (&mut velocity, name)
            } else {
                return Err(refused(format!("tensor `{name}` is no weight, velocity or clip")));
            };
            of.0.insert(name.to_owned(), parameter);
        }
        let optimizer = OptimizerState { velocity, steps: optimizer_steps };
        Ok(Self { weights, optimizer, clips, run })
    }

    /// Writes a safetensors file; a file of that name is replaced at once or not at all.
    ///
    /// Weights are named `weights.LAYER.weight`, velocities `velocity.LAYER.weight`, clips `clips.LAYER`; the rest is JSON in the
    /// metadata, where there is also a checksum of everything.
    ///
    /// # Errors
    /// [`TrainingStateError`], naming the file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), TrainingStateError> {
        let path = path.as_ref();
        let (run, optimizer_steps) = (self.run.clone(), self.optimizer.steps);
        let metadata = Metadata { version: VERSION, run, optimizer_steps };
        let text = serde_json::to_string(&metadata).map_err(|error| {
            TrainingStateError::NotATraining { path: path.to_owned(), reason: error.to_string() }
        })?;
        let mut tensors = BTreeMap::new();
        for (prefix, state) in [(WEIGHTS, &self.weights), (VELOCITY, &self.optimizer.velocity)] {
            tensors.extend(state.0.iter().map(|(name, p)| (format!("{prefix}{name}"), p)));
        }
        let clips = self.clips.iter().map(|(layer, clips)| {
            let parameter = Parameter { shape: vec![clips.len()], values: clips.clone() };
            (format!("{CLIPS}{layer}"), parameter)
        });
        let clips: BTreeMap<String, Parameter> = clips.collect();
        tensors.extend(clips.iter().map(|(name, parameter)| (name.clone(), parameter)));
        write_tensors(path, &tensors, HashMap::from([(RUN.to_owned(), text)]))
            .map_err(TrainingStateError::File)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use releq_data::{
        Augmentation, ImageSet,
        digits::{self, DigitsConfig},
    };
    use releq_format::safetensors;
    use releq_quant::QuantizerKind;

    use super::*;
    use crate::{
        BurnTrainer, Decay, Length, NativeTrainer, Sgd, Trainer, Training, initial_weights, oracle,
        oracle::lenet,
    };

    fn images(shape: [usize; 3], len: usize) -> ImageSet {
        let values = len * shape.iter().product::<usize>();
        let pixels = (0..values).map(|index| (index * 7919 % 251) as u8).collect();
        let labels = (0..len).map(|index| (index % 3) as u16).collect();
        ImageSet::new("noise", shape, 3, pixels, labels).unwrap()
    }

    fn schedule() -> Schedule {
        let sgd = Sgd { learning_rate: 0.02, momentum: 0.9, weight_decay: 1e-3 };
        Schedule {
            decay: Decay::Cosine,
            warmup_steps: 3,
            augmentation: Augmentation { max_shift: 1, mirror: true },
            ..Schedule::new(Length::Steps(11), 6, sgd)
        }
    }

    #[test]
    fn a_training_broken_off_anywhere_ends_with_the_same_bits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.safetensors");
        for network in oracle::networks() {
            let data = images(network.input(), 14);
            let normalization = Normalization::measured(&data).unwrap();
            // One that holds clips.
            let quantizer = || QuantizerKind::WrpnScaledPerChannel.build();
            let make: [&dyn Fn() -> Box<dyn Trainer>; 2] =
                [&|| Box::new(NativeTrainer::new(&network, quantizer()).unwrap()), &|| {
                    Box::new(BurnTrainer::flex(&network, quantizer()).unwrap())
                }];
            for make in make {
                for bits in [None, Some(4)] {
                    let layers = network.quantizable_layers();
                    let bits = bits.map(|bits| BitwidthAssignment::from_bits(vec![bits; layers]));
                    let mut straight = make();
                    straight.set_bits(bits.transpose().unwrap().as_ref()).unwrap();
                    let schedule = schedule();
                    let mut training = Training::new(&data, &normalization, &schedule, 3).unwrap();
                    let mut saved = Vec::new();
                    loop {
                        if [0, 1, 7, 11].contains(&training.report().steps) {
                            saved.push(training.state(straight.as_ref()));
                        }
                        if training.step(straight.as_mut()).unwrap().is_none() {
                            break;
                        }
                    }
                    let end = training.state(straight.as_ref());
                    assert_eq!(end.run.bits, straight.snapshot().bits);
                    for state in saved {
                        state.save(&path).unwrap();
                        let read = TrainingState::load(&path).unwrap();
                        assert_eq!(read, state);
                        let mut resumed = make();
                        let mut training =
                            Training::resume(&data, &normalization, &read, resumed.as_mut())
                                .unwrap();
                        while training.step(resumed.as_mut()).unwrap().is_some() {}
                        assert_eq!(
                            training.state(resumed.as_ref()),
                            end,
                            "`{}` from step {}",
                            network.name(),
                            state.run.report.steps
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_a_training_cannot_go_on_with_is_named() {
        let data =
            digits::generate(&DigitsConfig { train: 60, test: 10, ..DigitsConfig::default() });
        let data = data.unwrap().train;
        let normalization = Normalization::measured(&data).unwrap();
        let trainer = || NativeTrainer::new(&lenet(), QuantizerKind::Wrpn.build()).unwrap();
        let state = Training::new(&data, &normalization, &schedule(), 3).unwrap().state(&trainer());
        let refused =
            |data: &ImageSet, norm: &Normalization, state: &TrainingState, expected: &str| {
                let mut trainer = trainer();
                let before = trainer.snapshot();
                let error = Training::resume(data, norm, state, &mut trainer).unwrap_err();
                let message = error.to_string();
                assert!(message.contains(expected), "`{message}` lacks `{expected}`");
                assert_eq!(trainer.snapshot(), before);
            };
        refused(&data.take(50, 0), &normalization, &state, "number of images: 60");
        let other = Normalization { mean: vec![0.5], std: vec![0.5] };
        refused(&data, &other, &state, "the normalization's `mean` [");
        let mut changed = state.clone();
        changed.run.quantizer = "dorefa".into();
        refused(
            &data,
            &normalization,
            &changed,
            "the quantizer dorefa; it cannot be resumed with wrpn",
        );
        let mut changed = state.clone();
        changed.run.report.steps = 12;
        refused(&data, &normalization, &changed, "at most 11");
        let mut changed = state.clone();
        drop(changed.weights.0.remove("fc1.weight"));
        refused(&data, &normalization, &changed, "`fc1.weight` is missing");

        let origin = |weights: &str| {
            BTreeMap::from([
                ("weights".to_owned(), weights.to_owned()),
                ("data".into(), "d".into()),
            ])
        };
        let noted = Training::new(&data, &normalization, &schedule(), 3).unwrap();
        let noted = noted.origin(origin("1")).state(&trainer());
        let resumed = Training::resume(&data, &normalization, &noted, &mut trainer()).unwrap();
        assert_eq!(resumed.state(&trainer()).run.origin, origin("1"));
        noted.run.check_origin(&origin("1")).unwrap();
        noted.run.check_settings("lenet", &schedule(), 3).unwrap();
        let differs = |network: &str, schedule: Schedule, seed: u64, expected: [&str; 2]| {
            let error = noted.run.check_settings(network, &schedule, seed).unwrap_err();
            let message = error.to_string();
            assert!(expected.iter().all(|part| message.contains(part)), "{message}");
        };
        differs("lenet", schedule(), 4, ["begun with seed 3", "with 4"]);
        // Another network has another schedule, which is not what is wrong.
        let other = Schedule { warmup_steps: 4, ..schedule() };
        differs("resnet20", other, 4, ["begun with network lenet", "with resnet20"]);
        differs("lenet", other, 3, ["begun with the schedule's `warmup_steps` 3", "with 4"]);
        let message = noted.run.check_origin(&origin("2")).unwrap_err().to_string();
        assert!(message.contains("weights 1") && message.contains("with 2"), "{message}");
        let message = state.run.check_origin(&origin("1")).unwrap_err().to_string();
        assert!(message.contains("data none"), "{message}");

        let mut changed = state;
        changed.optimizer.velocity.0.get_mut("fc2.bias").unwrap().values.pop();
        refused(&data, &normalization, &changed, "`fc2.bias`: expected shape [10], got [9]");
    }

    #[test]
    fn files_that_hold_no_training_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.safetensors");
        let refused = |expected: &str| {
            let message = TrainingState::load(&path).unwrap_err().to_string();
            assert!(message.contains("run.safetensors"), "{message}");
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        };
        refused("cannot read");
        safetensors::save(&path, &initial_weights(&lenet(), 0)).unwrap();
        refused("it does not contain a resumable training state");
        let metadata = |text: &str| HashMap::from([(RUN.to_owned(), text.to_owned())]);
        let nothing = BTreeMap::<String, releq_core::Parameter>::new();
        write_tensors(&path, &nothing, metadata("{\"version\": 3}")).unwrap();
        refused("missing field `run`");
        for (old, format) in [("{\"run\": {}}", 1), ("{\"version\": 2}", 2)] {
            write_tensors(&path, &nothing, metadata(old)).unwrap();
            refused(&format!("in format {format}; this one reads format 3; take an earlier copy"));
        }

        let data = images([1, 28, 28], 12);
        let normalization = Normalization::measured(&data).unwrap();
        let trainer = NativeTrainer::new(&lenet(), QuantizerKind::Wrpn.build()).unwrap();
        Training::new(&data, &normalization, &schedule(), 3)
            .unwrap()
            .state(&trainer)
            .save(&path)
            .unwrap();
        let (mut tensors, metadata) = read_tensors(&path).unwrap();
        let stray = tensors.remove("velocity.fc1.bias").unwrap();
        tensors.insert("fc1.bias".into(), stray);
        write_tensors(&path, &tensors, metadata).unwrap();
        refused("tensor `fc1.bias` is no weight, velocity or clip");
    }

    #[test]
    fn a_state_with_any_bit_flipped_or_any_end_missing_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.safetensors");
        // Of one image and one small layer, so that the places tried are in all parts of the file.
        let network = releq_core::Network::builder("tiny", [1, 2, 2]).flatten("f").linear("fc", 2);
        let network = network.build().unwrap();
        let data = images([1, 2, 2], 12);
        let normalization = Normalization::measured(&data).unwrap();
        let trainer = NativeTrainer::new(&network, QuantizerKind::Wrpn.build()).unwrap();
        let training = Training::new(&data, &normalization, &schedule(), 3).unwrap();
        let origin = BTreeMap::from([("weights".to_owned(), "0123".to_owned())]);
        training.origin(origin).state(&trainer).save(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        for case in 0..200 {
            let place = case * (whole.len() - 1) / 199;
            let mut flipped = whole.clone();
            flipped[place] ^= 1 << (case % 8);
            for (damage, bytes) in [("flipped", &flipped[..]), ("cut", &whole[..place])] {
                fs::write(&path, bytes).unwrap();
                let error = TrainingState::load(&path)
                    .err()
                    .unwrap_or_else(|| panic!("byte {place} of {}, {damage}", whole.len()));
                let message = error.to_string();
                assert!(
                    message.contains("run.safetensors") && message.contains("remove it to begin"),
                    "{message}"
                );
            }
        }
    }
}
