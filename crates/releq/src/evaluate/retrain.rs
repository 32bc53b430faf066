//! Measures an assignment for real: quantize, retrain or correct, classify.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use releq_core::{BitwidthAssignment, Network, Weights, parallel};
use releq_data::{DataError, Dataset, Normalization, Subset};
use releq_quant::{QuantError, Quantizer};
use releq_train::{
    AccuracyReport, Correction, Corrector, Hits, Schedule, TrainError, TrainProgress, Trainer,
    TrainerFactory, TrainerState, hits_while,
};

use super::{EarlyStop, Evaluation, Evaluator, Measurement, TrainerPool};
use crate::{
    Cancel, ReleqError,
    guard::guard,
    run_folder::{Beginning, KeptStates},
};

/// Everything a [`Retrain`] starts from.
#[derive(Clone, Copy)]
pub struct RetrainSetup<'a> {
    /// The network.
    pub network: &'a Network,
    /// Its full-precision weights; every retrain starts from them.
    pub weights: &'a Weights,
    /// Images to train on.
    pub train: &'a dyn Dataset,
    /// Images to measure the accuracy on, disjoint from `train`.
    pub validation: &'a dyn Dataset,
    /// How pixels become numbers.
    pub normalization: &'a Normalization,
    /// How weights are quantized.
    pub quantizer: &'a Arc<dyn Quantizer>,
    /// What computes the gradients.
    pub trainers: &'a dyn TrainerFactory,
    /// Evaluations that run side by side; the answers do not depend on it.
    pub threads: NonZeroUsize,
    /// Seed of the run; each assignment derives its own from it.
    pub seed: u64,
    /// Stops a retrain between two steps; the evaluation then ends in [`ReleqError::Cancelled`].
    pub cancel: &'a Cancel,
}

impl fmt::Debug for RetrainSetup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetrainSetup")
            .field("network", &self.network.name())
            .field("quantizer", &self.quantizer.name())
            .field("threads", &self.threads)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl RetrainSetup<'_> {
    fn classify(
        &self,
        trainer: &mut dyn Trainer,
        images: &dyn Dataset,
    ) -> Result<Hits, ReleqError> {
        classify(trainer, images, self.normalization, self.cancel)
    }
}

/// Which of `images` are classified correctly, unless cancelled between two batches.
pub(crate) fn classify(
    trainer: &mut dyn Trainer,
    images: &dyn Dataset,
    normalization: &Normalization,
    cancel: &Cancel,
) -> Result<Hits, ReleqError> {
    hits_while(trainer, images, normalization, EVALUATION_BATCH, &|| cancel.go_on())?
        .ok_or(ReleqError::Cancelled)
}

/// What became of a retrain whose network was then shown some data sets.
#[derive(Clone, Debug, PartialEq)]
pub enum Retrained {
    /// Correctly classified images of every data set, in the order asked.
    Done(Vec<Hits>),
    /// The loss or the weights became infinite or NaN; the reason.
    Diverged(String),
}

/// What becomes of quantized weights before they are measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    /// They are trained.
    Train(Schedule),
    /// They are corrected.
    Correct(Correction),
}

/// Quantization-aware retraining from the full-precision weights, or a [correction](Self::correcting) that takes no
/// training, then accuracy on held-out images.
///
/// The seed of a retrain follows from the run's seed and the assignment alone, so an answer does not
/// depend on who computes it or when.
pub struct Retrain<'a> {
    pool: TrainerPool<'a>,
    way: Way,
    /// What corrects, once it is known what to correct to.
    corrector: Mutex<Option<Arc<Correcting<'a>>>>,
    full_precision: f64,
    early_stop: Option<(EarlyStop, Subset<&'a dyn Dataset>)>,
    states: Option<KeptStates>,
    /// Outputs in full precision for the validation images, once they are known.
    reference: Mutex<Option<Arc<Vec<f32>>>>,
    on_step: Option<OnStep<'a>>,
}

impl fmt::Debug for Retrain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrain").field("way", &self.way).finish_non_exhaustive()
    }
}

/// Corrects on images of the training set.
type Correcting<'a> = Corrector<Subset<&'a dyn Dataset>>;

/// Is told of the steps of retrains that are under way.
type OnStep<'a> = Box<dyn Fn(&BitwidthAssignment, TrainProgress) + Send + Sync + 'a>;

/// A retrain tells of a step only so often.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Images per batch when only classifying.
pub(crate) const EVALUATION_BATCH: usize = 256;

impl<'a> Retrain<'a> {
    /// Measures the full-precision accuracy on the validation images, once.
    ///
    /// # Errors
    /// [`ReleqError`] if weights, images and network do not fit together; [`ReleqError::Cancelled`].
    pub fn new(setup: RetrainSetup<'a>, schedule: Schedule) -> Result<Self, ReleqError> {
        Self::measured_first(setup, Way::Train(schedule))
    }

    /// Quantizes and [corrects](Corrector) in place of a retrain: no gradient is computed, and the training images need no
    /// labels. The validation images do; images without can be given those that the network in full
    /// precision sees ([`WithLabels`](releq_data::WithLabels), [`classes_while`](releq_train::classes_while)).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn correcting(setup: RetrainSetup<'a>, correction: Correction) -> Result<Self, ReleqError> {
        Self::measured_first(setup, Way::Correct(correction))
    }

    /// Measures the full-precision accuracy on the validation images.
    pub(crate) fn measured_first(setup: RetrainSetup<'a>, way: Way) -> Result<Self, ReleqError> {
        let retrain = Self::unmeasured(setup, way);
        let full_precision = retrain.full_precision_on(setup.validation)?.accuracy();
        retrain.relative_to(full_precision)
    }

    /// Takes the full-precision accuracy as it was measured before.
    pub(crate) fn relative_to(mut self, full_precision: f64) -> Result<Self, ReleqError> {
        if full_precision <= 0.0 {
            return Err(ReleqError::Setting {
                setting: "weights",
                reason: "the full-precision network classifies no validation image".into(),
            });
        }
        self.full_precision = full_precision;
        Ok(self)
    }

    /// For [`retrain`](Self::retrain) alone, which is relative to nothing.
    pub(crate) fn unmeasured(setup: RetrainSetup<'a>, way: Way) -> Self {
        Self {
            pool: TrainerPool::new(setup),
            way,
            corrector: Mutex::default(),
            full_precision: 1.0,
            early_stop: None,
            states: None,
            reference: Mutex::default(),
            on_step: None,
        }
    }

    /// Retrains to the outputs in full precision in place of the labels.
    ///
    /// After a fraction of an epoch this tells more of an assignment than learning from the labels does, see
    /// `docs/reproduction.md`.
    #[must_use]
    pub fn distilled(mut self) -> Self {
        self.pool.distilled();
        self
    }

    /// Outputs in full precision for the validation images.
    fn reference(&self) -> Result<Arc<Vec<f32>>, ReleqError> {
        // Whoever comes second waits for the first.
        let mut reference = self.reference.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*reference {
            return Ok(Arc::clone(known));
        }
        Ok(Arc::clone(reference.insert(Arc::new(self.pool.reference()?))))
    }

    /// What corrects on the images of this setup.
    fn corrector(&self, correction: Correction) -> Result<Arc<Correcting<'a>>, ReleqError> {
        let mut corrector = self.corrector.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*corrector {
            return Ok(Arc::clone(known));
        }
        let RetrainSetup { train, normalization, seed, cancel, .. } = *self.pool.setup();
        let images = Subset::all(train).take(correction.images, seed)?;
        let made = self.pool.with(|trainer| {
            let made = Corrector::new(trainer, images, normalization, &|| cancel.go_on())?;
            made.ok_or(ReleqError::Cancelled)
        })?;
        Ok(Arc::clone(corrector.insert(Arc::new(made))))
    }

    /// What the validation images tell of a retrained network.
    fn measured(
        &self,
        trainer: &mut dyn Trainer,
        reference: &[f32],
    ) -> Result<Measurement, ReleqError> {
        let compared = self.pool.compared(trainer, reference)?;
        let Some(labelled) = &compared.labelled else {
            let name = self.pool.setup().validation.name().to_owned();
            return Err(TrainError::from(DataError::Unlabelled { name }).into());
        };
        let accuracy = labelled.accuracy;
        Ok(Measurement::new(accuracy.accuracy())
            .with_standard_error(accuracy.standard_error())
            .with_compared(compared))
    }

    /// Keeps the state of every retrain while it goes on, and goes on from one that it finds. Whoever has an
    /// answer removes its state.
    pub(crate) fn keep_states(mut self, states: KeptStates) -> Self {
        self.states = Some(states);
        self
    }

    /// Tells of the steps of retrains, each a few times a second.
    pub(crate) fn on_step(
        mut self,
        on_step: impl Fn(&BitwidthAssignment, TrainProgress) + Send + Sync + 'a,
    ) -> Self {
        self.on_step = Some(Box::new(on_step));
        self
    }

    /// Gives up assignments that have collapsed, when [evaluated](Evaluator::evaluate).
    ///
    /// # Errors
    /// [`ReleqError::Setting`] for a field out of its range.
    pub fn early_stop(mut self, early_stop: EarlyStop) -> Result<Self, ReleqError> {
        early_stop.check()?;
        let validation = Subset::all(self.pool.setup().validation);
        let images = validation.take(early_stop.images, self.pool.setup().seed)?;
        self.early_stop = Some((early_stop, images));
        Ok(self)
    }

    /// Accuracy of the full-precision weights, without any retraining.
    ///
    /// # Errors
    /// [`ReleqError`] if the images do not fit the network.
    pub fn full_precision_on(&self, images: &dyn Dataset) -> Result<AccuracyReport, ReleqError> {
        self.pool.with(|trainer| {
            let setup = self.pool.setup();
            trainer.set_bits(None)?;
            Ok(setup.classify(trainer, images)?.report())
        })
    }

    /// Retrains at `bits` and classifies each of `sets`; where the weights diverged, says so instead.
    ///
    /// # Errors
    /// [`ReleqError`] if training fails for another reason.
    pub fn retrain(
        &self,
        bits: &BitwidthAssignment,
        sets: &[&dyn Dataset],
    ) -> Result<Retrained, ReleqError> {
        Ok(self.retrain_with_weights(bits, 0, sets, |_| ())?.0)
    }

    /// As [`retrain`](Self::retrain), with what `take` makes of the trainer in the end. `again` counts the retrains of this
    /// assignment before, each of which has a seed of its own.
    pub(crate) fn retrain_with_weights<T>(
        &self,
        bits: &BitwidthAssignment,
        again: usize,
        sets: &[&dyn Dataset],
        take: impl FnOnce(&dyn Trainer) -> T,
    ) -> Result<(Retrained, Option<T>), ReleqError> {
        let answer = self.pool.with(|trainer| {
            let setup = self.pool.setup();
            unless_diverged(|| {
                self.adapt(trainer, bits, again, None)?;
                let hits: Vec<_> = sets
                    .iter()
                    .map(|&set| setup.classify(trainer, set))
                    .collect::<Result<_, _>>()?;
                Ok((hits, take(trainer)))
            })
        })?;
        Ok(match answer {
            Ok((hits, taken)) => (Retrained::Done(hits), Some(taken)),
            Err(reason) => (Retrained::Diverged(reason), None),
        })
    }

    /// The weights of a trainer of this setup as it computes with them.
    pub(crate) fn settled(&self, state: TrainerState) -> Result<Weights, ReleqError> {
        let RetrainSetup { network, quantizer, .. } = *self.pool.setup();
        Ok(state.settled(network, &**quantizer)?)
    }

    /// Makes the best of the full-precision weights at `bits`; where a retrain was given up, after which step and why.
    fn adapt(
        &self,
        trainer: &mut dyn Trainer,
        bits: &BitwidthAssignment,
        again: usize,
        early_stop: Option<&(EarlyStop, Subset<&'a dyn Dataset>)>,
    ) -> Result<Option<(usize, AccuracyReport)>, ReleqError> {
        match &self.way {
            Way::Train(schedule) => self.train(trainer, schedule, bits, again, early_stop),
            Way::Correct(correction) => {
                let corrector = self.corrector(*correction)?;
                trainer.set_bits(Some(bits))?;
                let cancel = self.pool.setup().cancel;
                let done = corrector.correct(trainer, &|| cancel.go_on())?;
                if done { Ok(None) } else { Err(ReleqError::Cancelled) }
            }
        }
    }

    /// The steps of a retrain; where it was given up, after which step and why.
    fn train(
        &self,
        trainer: &mut dyn Trainer,
        schedule: &Schedule,
        bits: &BitwidthAssignment,
        again: usize,
        early_stop: Option<&(EarlyStop, Subset<&'a dyn Dataset>)>,
    ) -> Result<Option<(usize, AccuracyReport)>, ReleqError> {
        let states = &self.states;
        let setup = self.pool.setup();
        trainer.set_bits(Some(bits))?;
        let beginning = Beginning {
            network: setup.network,
            train: setup.train,
            normalization: setup.normalization,
            schedule,
            // Far from the seeds of other runs, which are small numbers.
            seed: assignment_seed(setup.seed ^ ((again as u64) << 40), bits),
            weights: setup.weights,
            bits: Some(bits),
        };
        let mut training = match states {
            Some(states) => states.training(&beginning, trainer)?,
            None => beginning.training()?,
        };
        let mut saver = states.as_ref().map(|states| states.saver(Some(bits)));
        let mut told = Instant::now();
        loop {
            if setup.cancel.is_cancelled() {
                if let Some(saver) = &mut saver {
                    saver.now(&training, trainer)?;
                }
                return Err(ReleqError::Cancelled);
            }
            let Some(progress) = training.step(trainer)? else { return Ok(None) };
            if let Some(on_step) = &self.on_step
                && told.elapsed() >= TELL_EVERY
            {
                told = Instant::now();
                on_step(bits, progress);
            }
            if let Some((stop, images)) = early_stop
                && progress.step < progress.steps
                && progress.step == stop.step(progress.steps)
            {
                let seen = setup.classify(trainer, images)?.report();
                if seen.accuracy() < stop.below * self.full_precision {
                    return Ok(Some((progress.step, seen)));
                }
            }
            // After the early stop: a state must not skip it.
            if let Some(saver) = &mut saver
                && let Err(error) = saver.if_due(&training, trainer)
            {
                log::warn!("the state of a retrain is not saved: {error}; it goes on");
            }
        }
    }
}

impl Evaluator for Retrain<'_> {
    fn full_precision(&self) -> f64 {
        self.full_precision
    }

    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        let reference = self.reference()?;
        let outcome = self.pool.with(|trainer| {
            unless_diverged(|| {
                if let Some((after_step, seen)) =
                    self.adapt(trainer, bits, 0, self.early_stop.as_ref())?
                {
                    let seen = Measurement::new(seen.accuracy())
                        .with_standard_error(seen.standard_error());
                    return Ok(Evaluation::GivenUp { after_step, seen });
                }
                Ok(self.measured(trainer, &reference)?.into())
            })
        })?;
        Ok(outcome.unwrap_or_else(|reason| {
            log::warn!("{bits}: {reason}; counted as failed");
            Evaluation::failed(reason)
        }))
    }

    fn evaluate_each(
        &self,
        batch: &[BitwidthAssignment],
        answered: &(dyn Fn(usize, &Evaluation) -> Result<(), ReleqError> + Sync),
    ) -> Result<Vec<Evaluation>, ReleqError> {
        let piece = || "trainer".to_owned();
        parallel::try_map(
            batch.iter().enumerate(),
            self.pool.setup().threads.get(),
            |(place, bits)| {
                let answer = guard(piece, || self.evaluate(bits))?;
                answered(place, &answer)?;
                Ok(answer)
            },
        )
    }

    fn name(&self) -> &str {
        match self.way {
            Way::Train(_) => "retrain",
            Way::Correct(_) => "correction",
        }
    }
}

/// What `f` gives, or the reason if it met a loss, outputs or weights that are not finite: those tell of the assignment,
/// every other failure of the setup.
pub(crate) fn unless_diverged<T>(
    f: impl FnOnce() -> Result<T, ReleqError>,
) -> Result<Result<T, String>, ReleqError> {
    match f() {
        // After the last step no loss shows any more what the weights became.
        Err(ReleqError::Train(
            error @ (TrainError::Diverged { .. }
            | TrainError::NotANumber { .. }
            | TrainError::Quant(QuantError::NotFinite { .. })),
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
