//! Measures an assignment for real: quantize, retrain, classify.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use releq_core::{BitwidthAssignment, Network, Weights};
use releq_data::{ImageSet, Normalization};
use releq_quant::{QuantError, Quantizer};
use releq_train::{
    AccuracyReport, BurnTrainer, NativeTrainer, Schedule, TrainError, Trainer, Training, accuracy,
};
use serde::{Deserialize, Serialize};

use super::{EarlyStop, Evaluation, Evaluator};
use crate::ReleqError;

/// What computes the gradients of a retrain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Our channels-last CPU trainer, several times faster on small networks.
    #[default]
    Native,
    /// Burn's `flex` CPU backend.
    Flex,
    /// Burn's `ndarray` CPU backend; needs the Cargo feature of this name.
    Ndarray,
    /// A GPU, by Burn's `wgpu` backend; needs the Cargo feature of this name.
    Wgpu,
}

impl Backend {
    /// All of them, with the names that stand on command lines and in reports.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Native, "native"),
        (Self::Flex, "flex"),
        (Self::Ndarray, "ndarray"),
        (Self::Wgpu, "wgpu"),
    ];

    /// A trainer of `network`: on one thread of this machine, or on its GPU.
    ///
    /// # Errors
    /// [`TrainError::Unsupported`] if this backend lacks a layer of the network, [`TrainError::Device`] if
    /// this build or this machine lacks the backend.
    pub fn trainer(
        self,
        network: &Network,
        quantizer: Arc<dyn Quantizer>,
    ) -> Result<Box<dyn Trainer>, TrainError> {
        Ok(match self {
            Self::Native => Box::new(NativeTrainer::new(network, quantizer)?),
            Self::Flex => Box::new(BurnTrainer::flex(network, quantizer)?),
            Self::Ndarray => Box::new(BurnTrainer::ndarray(network, quantizer)?),
            Self::Wgpu => Box::new(BurnTrainer::wgpu(network, quantizer)?),
        })
    }
}

impl FromStr for Backend {
    type Err = ReleqError;
    fn from_str(text: &str) -> Result<Self, ReleqError> {
        let found = Self::ALL.into_iter().find(|(_, name)| *name == text);
        found.map(|(backend, _)| backend).ok_or_else(|| ReleqError::Setting {
            setting: "backend",
            reason: format!(
                "`{text}` is not one of {}",
                Self::ALL.map(|(_, name)| name).join(", ")
            ),
        })
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::ALL.into_iter().find(|(backend, _)| backend == self);
        f.write_str(found.map_or("", |(_, name)| name))
    }
}

/// Everything a [`Retrain`] starts from.
#[derive(Clone, Copy, Debug)]
pub struct RetrainSetup<'a> {
    /// The network.
    pub network: &'a Network,
    /// Its full-precision weights; every retrain starts from them.
    pub weights: &'a Weights,
    /// Images to train on.
    pub train: &'a ImageSet,
    /// Images to measure the accuracy on, disjoint from `train`.
    pub validation: &'a ImageSet,
    /// How pixels become numbers.
    pub normalization: &'a Normalization,
    /// How weights are quantized.
    pub quantizer: &'a Arc<dyn Quantizer>,
    /// What computes the gradients.
    pub backend: Backend,
    /// Seed of the run; each assignment derives its own from it.
    pub seed: u64,
    /// Stops a retrain between two steps once it is set; the evaluation then ends in
    /// [`ReleqError::Cancelled`].
    pub cancel: Option<&'a AtomicBool>,
}

/// Quantization-aware retraining from the full-precision weights, then accuracy on held-out images.
///
/// The seed of a retrain follows from the run's seed and the assignment alone, so an answer does not
/// depend on who computes it or when.
pub struct Retrain<'a> {
    setup: RetrainSetup<'a>,
    schedule: Schedule,
    full_precision: f64,
    early_stop: Option<(EarlyStop, ImageSet)>,
    /// Idle trainers: their buffers live as long as the evaluator.
    idle: Mutex<Vec<Box<dyn Trainer>>>,
}

impl fmt::Debug for Retrain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrain").field("schedule", &self.schedule).finish_non_exhaustive()
    }
}

/// Images per batch when only classifying.
const EVALUATION_BATCH: usize = 256;

impl<'a> Retrain<'a> {
    /// Measures the full-precision accuracy on the validation images, once.
    ///
    /// # Errors
    /// [`ReleqError`] if weights, images and network do not fit together.
    pub fn new(setup: RetrainSetup<'a>, schedule: Schedule) -> Result<Self, ReleqError> {
        let mut retrain =
            Self { setup, schedule, full_precision: 1.0, early_stop: None, idle: Mutex::default() };
        retrain.full_precision = retrain.full_precision_on(setup.validation)?.accuracy();
        if retrain.full_precision <= 0.0 {
            return Err(ReleqError::Setting {
                setting: "weights",
                reason: "the full-precision network classifies no validation image".into(),
            });
        }
        Ok(retrain)
    }

    /// Gives up assignments that have collapsed, when [evaluated](Evaluator::evaluate).
    ///
    /// # Errors
    /// [`ReleqError::Setting`] for a field out of its range.
    pub fn early_stop(mut self, early_stop: EarlyStop) -> Result<Self, ReleqError> {
        early_stop.check()?;
        let images = self.setup.validation.take(early_stop.images, self.setup.seed);
        self.early_stop = Some((early_stop, images));
        Ok(self)
    }

    /// Accuracy of the full-precision weights, without any retraining.
    ///
    /// # Errors
    /// [`ReleqError`] if the images do not fit the network.
    pub fn full_precision_on(&self, images: &ImageSet) -> Result<AccuracyReport, ReleqError> {
        self.with_trainer(|trainer, setup| {
            trainer.set_bits(None)?;
            Ok(accuracy(trainer, images, setup.normalization, EVALUATION_BATCH)?)
        })
    }

    /// Retrains at `bits` and classifies each of `sets`; where the weights diverged, says so instead.
    ///
    /// # Errors
    /// [`ReleqError`] if training fails for another reason.
    pub fn retrain(
        &self,
        bits: &BitwidthAssignment,
        sets: &[&ImageSet],
    ) -> Result<Result<Vec<AccuracyReport>, String>, ReleqError> {
        self.with_trainer(|trainer, setup| {
            unless_diverged(|| {
                self.train(trainer, bits, None)?;
                let classify = |&set: &&ImageSet| {
                    accuracy(trainer, set, setup.normalization, EVALUATION_BATCH)
                };
                Ok(sets.iter().map(classify).collect::<Result<_, _>>()?)
            })
        })
    }

    /// The steps of a retrain; where it was given up, after which step and why.
    fn train(
        &self,
        trainer: &mut dyn Trainer,
        bits: &BitwidthAssignment,
        early_stop: Option<&(EarlyStop, ImageSet)>,
    ) -> Result<Option<(usize, AccuracyReport)>, ReleqError> {
        let Self { setup, schedule, .. } = self;
        trainer.set_bits(Some(bits))?;
        let seed = assignment_seed(setup.seed, bits);
        let mut training = Training::new(setup.train, setup.normalization, schedule, seed)?;
        loop {
            if setup.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
                return Err(ReleqError::Cancelled);
            }
            let Some(progress) = training.step(trainer)? else { return Ok(None) };
            if let Some((stop, images)) = early_stop
                && progress.step < progress.steps
                && progress.step == stop.step(progress.steps)
            {
                let seen = accuracy(trainer, images, setup.normalization, EVALUATION_BATCH)?;
                if seen.accuracy() < stop.below * self.full_precision {
                    return Ok(Some((progress.step, seen)));
                }
            }
        }
    }

    fn with_trainer<R>(
        &self,
        f: impl FnOnce(&mut dyn Trainer, &RetrainSetup<'a>) -> Result<R, ReleqError>,
    ) -> Result<R, ReleqError> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut trainer = match taken {
            Some(trainer) => trainer,
            None => {
                let RetrainSetup { network, quantizer, backend, .. } = self.setup;
                backend.trainer(network, Arc::clone(quantizer))?
            }
        };
        trainer.load(self.setup.weights)?;
        let answer = f(trainer.as_mut(), &self.setup);
        idle().push(trainer);
        answer
    }
}

impl Evaluator for Retrain<'_> {
    fn full_precision(&self) -> f64 {
        self.full_precision
    }

    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        let answer = |report: AccuracyReport, stopped_after| Evaluation {
            standard_error: Some(report.standard_error()),
            stopped_after,
            ..Evaluation::new(report.accuracy())
        };
        let outcome = self.with_trainer(|trainer, setup| {
            unless_diverged(|| {
                if let Some((step, seen)) = self.train(trainer, bits, self.early_stop.as_ref())? {
                    return Ok(answer(seen, Some(step)));
                }
                let (images, norm) = (setup.validation, setup.normalization);
                Ok(answer(accuracy(trainer, images, norm, EVALUATION_BATCH)?, None))
            })
        })?;
        Ok(outcome.unwrap_or_else(|reason| {
            log::warn!("{bits}: {reason}; counted as failed");
            Evaluation::failed(reason)
        }))
    }
}

/// What `f` gives, or the reason if it met a loss or weights that are not finite: those tell of the assignment,
/// every other failure of the setup.
fn unless_diverged<T>(
    f: impl FnOnce() -> Result<T, ReleqError>,
) -> Result<Result<T, String>, ReleqError> {
    match f() {
        // After the last step no loss shows any more what the weights became.
        Err(ReleqError::Train(
            error @ (TrainError::Diverged { .. } | TrainError::Quant(QuantError::NotFinite { .. })),
        )) => Ok(Err(error.to_string())),
        other => other.map(Ok),
    }
}

/// A seed that depends on the run and the assignment alone (64-bit FNV-1a).
fn assignment_seed(seed: u64, bits: &BitwidthAssignment) -> u64 {
    seed.to_le_bytes()
        .into_iter()
        .chain(bits.to_bits())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
}
