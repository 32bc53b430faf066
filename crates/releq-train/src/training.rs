//! The loops over a [`Trainer`]: training by a schedule, and measuring accuracy.

use std::{fmt, ops::ControlFlow};

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use releq_core::Network;
use releq_data::{Augmentation, DataError, Dataset, Label, Normalization};
use releq_quant::QuantError;
use serde::{Deserialize, Serialize};

use crate::{Sgd, TrainError, Trainer, TrainingRun, TrainingState};

/// How long to train.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// Passes over the data; fractions are allowed, and the last step is rounded up.
    Epochs(f64),
    /// Batches.
    Steps(usize),
}

/// What happens to the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Nothing.
    Constant,
    /// It falls in a straight line to zero at the end.
    Linear,
    /// It falls to zero along half a cosine (Loshchilov and Hutter, 2017, without restarts).
    Cosine,
    /// It is multiplied by `factor` after every `every` steps.
    Step {
        /// Steps between two changes.
        every: usize,
        /// What it is multiplied by.
        factor: f32,
    },
}

/// How to train.
///
/// Batches run across the borders of epochs, so that all have the same size. Every epoch visits
/// every image once, in an order of its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// How long.
    pub length: Length,
    /// Images in one step.
    pub batch_size: usize,
    /// The optimizer; its learning rate is the largest of the schedule.
    pub sgd: Sgd,
    /// What happens to the learning rate.
    pub decay: Decay,
    /// Steps in which the learning rate rises in a straight line to its largest value.
    #[serde(default)]
    pub warmup_steps: usize,
    /// How images are changed at random.
    #[serde(default)]
    pub augmentation: Augmentation,
}

impl Schedule {
    /// A constant learning rate, no warm-up, no augmentation.
    #[must_use]
    pub const fn new(length: Length, batch_size: usize, sgd: Sgd) -> Self {
        let augmentation = Augmentation { max_shift: 0, mirror: false };
        Self { length, batch_size, sgd, decay: Decay::Constant, warmup_steps: 0, augmentation }
    }

    /// Steps that leave the weights alone: batch norm estimates its statistics anew, as it may need to where
    /// weights are quantized without a retrain.
    ///
    /// A running statistic keeps the share `(1 - momentum)^steps` of its old value: with the usual momentum of
    /// 0.1, after 50 steps half a percent.
    #[must_use]
    pub const fn statistics_only(steps: usize, batch_size: usize) -> Self {
        let sgd = Sgd { learning_rate: 0.0, momentum: 0.0, weight_decay: 0.0 };
        Self::new(Length::Steps(steps), batch_size, sgd)
    }

    /// Number of steps on a set of `images` images.
    #[must_use]
    pub fn steps(&self, images: usize) -> usize {
        match self.length {
            Length::Steps(steps) => steps,
            Length::Epochs(epochs) => {
                (epochs * images as f64 / self.batch_size.max(1) as f64).ceil() as usize
            }
        }
    }

    /// Learning rate of step `step` of `steps`, counted from zero.
    #[must_use]
    pub fn learning_rate(&self, step: usize, steps: usize) -> f32 {
        let largest = self.sgd.learning_rate;
        if step < self.warmup_steps {
            return largest * (step + 1) as f32 / self.warmup_steps as f32;
        }
        let after = step - self.warmup_steps;
        let progress = after as f64 / steps.saturating_sub(self.warmup_steps).max(1) as f64;
        match self.decay {
            Decay::Constant => largest,
            Decay::Linear => largest * (1.0 - progress) as f32,
            Decay::Cosine => {
                largest * (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())) as f32
            }
            Decay::Step { every, factor } => {
                let changes = i32::try_from(after / every.max(1)).unwrap_or(i32::MAX);
                largest * factor.powi(changes)
            }
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`TrainError::Schedule`], naming the first field that is out of its range.
    pub fn check(&self) -> Result<(), TrainError> {
        let check = |ok: bool, field, allowed, got: f64| {
            if ok { Ok(()) } else { Err(TrainError::Schedule { field, allowed, got }) }
        };
        if let Length::Epochs(epochs) = self.length {
            let ok = epochs >= 0.0 && epochs.is_finite();
            check(ok, "length.epochs", "finite and not negative", epochs)?;
        }
        check(self.batch_size > 0, "batch_size", "positive", 0.0)?;
        for (field, value) in [
            ("sgd.learning_rate", self.sgd.learning_rate),
            ("sgd.momentum", self.sgd.momentum),
            ("sgd.weight_decay", self.sgd.weight_decay),
        ] {
            check(
                value >= 0.0 && value.is_finite(),
                field,
                "finite and not negative",
                value.into(),
            )?;
        }
        if let Decay::Step { every, factor } = self.decay {
            check(every > 0, "decay.step.every", "positive", 0.0)?;
            let ok = factor >= 0.0 && factor.is_finite();
            check(ok, "decay.step.factor", "finite and not negative", factor.into())?;
        }
        Ok(())
    }
}

/// Where training stands after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainProgress {
    /// Steps taken, this one included.
    pub step: usize,
    /// Steps planned.
    pub steps: usize,
    /// Passes over the data so far.
    pub epoch: f64,
    /// Mean cross-entropy of this step's batch, before the step.
    pub loss: f32,
    /// Learning rate of this step.
    pub learning_rate: f32,
}

/// What training did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainReport {
    /// Steps taken.
    pub steps: usize,
    /// Mean of the losses of all steps; `None` without a step.
    pub mean_loss: Option<f64>,
    /// Loss of the last step; `None` without a step.
    pub last_loss: Option<f32>,
    /// Whether it ended before the schedule did.
    pub stopped: bool,
}

/// Training by a schedule, one step at a time.
///
/// Equal arguments and trainers in equal states give equal bits.
pub struct Training<'a> {
    data: &'a dyn Dataset,
    normalization: &'a Normalization,
    schedule: Schedule,
    seed: u64,
    steps: usize,
    order: Order,
    report: TrainReport,
    indices: Vec<usize>,
    images: Vec<f32>,
    labels: Vec<Label>,
}

impl fmt::Debug for Training<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Training")
            .field("data", &self.data.name())
            .field("schedule", &self.schedule)
            .field("seed", &self.seed)
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

impl<'a> Training<'a> {
    /// Before the first step.
    ///
    /// # Errors
    /// A schedule or a normalization that does not fit, or images without labels.
    pub fn new(
        data: &'a dyn Dataset,
        normalization: &'a Normalization,
        schedule: &Schedule,
        seed: u64,
    ) -> Result<Self, TrainError> {
        schedule.check()?;
        check_normalization(data, normalization)?;
        check_labels(data)?;
        let steps = schedule.steps(data.len());
        Ok(Self {
            data,
            normalization,
            schedule: *schedule,
            seed,
            steps,
            order: Order::new(data.len(), seed),
            report: TrainReport { steps: 0, mean_loss: None, last_loss: None, stopped: steps > 0 },
            indices: Vec::new(),
            images: Vec::new(),
            labels: Vec::new(),
        })
    }

    /// Goes on with what [`state`](Self::state) kept; `trainer` takes over its weights, bitwidths and optimizer.
    ///
    /// # Errors
    /// [`TrainError::Resume`] for another number of images, normalization or quantizer, or a state that does
    /// not fit the network.
    pub fn resume(
        data: &'a dyn Dataset,
        normalization: &'a Normalization,
        state: &TrainingState,
        trainer: &mut dyn Trainer,
    ) -> Result<Self, TrainError> {
        let TrainingState { weights, optimizer, run } = state;
        let mut training = Self::new(data, normalization, &run.schedule, run.seed)?;
        let given = training.run(trainer);
        let normalizations = (format!("{:?}", run.normalization), format!("{normalization:?}"));
        for (what, (expected, got)) in [
            ("this number of images:", (run.images.to_string(), given.images.to_string())),
            ("the normalization", normalizations),
            ("the quantizer", (run.quantizer.clone(), given.quantizer)),
        ] {
            if expected != got {
                return Err(TrainError::Resume { what, expected, got });
            }
        }
        if run.report.steps > training.steps {
            return Err(TrainError::Resume {
                what: "a number of steps of at most",
                expected: training.steps.to_string(),
                got: run.report.steps.to_string(),
            });
        }
        trainer.load(weights)?;
        trainer.set_bits(run.bits.as_ref())?;
        trainer.set_optimizer(optimizer)?;
        training.report = run.report;
        let seen = run.report.steps * run.schedule.batch_size;
        training.order.by_ref().take(seen).for_each(drop);
        Ok(training)
    }

    /// What [`resume`](Self::resume) needs, with the weights and the optimizer of `trainer`.
    #[must_use]
    pub fn state(&self, trainer: &dyn Trainer) -> TrainingState {
        let (weights, optimizer) = (trainer.state(), trainer.optimizer());
        TrainingState { weights, optimizer, run: self.run(trainer) }
    }

    fn run(&self, trainer: &dyn Trainer) -> TrainingRun {
        TrainingRun {
            schedule: self.schedule,
            seed: self.seed,
            images: self.data.len(),
            normalization: self.normalization.clone(),
            bits: trainer.bits(),
            quantizer: trainer.quantizer().name().to_owned(),
            report: self.report,
        }
    }

    /// Takes the next step with `trainer`, the same every time; `None` after the last one.
    ///
    /// # Errors
    /// Images that do not fit, or [`TrainError::Diverged`] at the first loss that is not finite; the
    /// trainer's weights are of no use then.
    pub fn step(&mut self, trainer: &mut dyn Trainer) -> Result<Option<TrainProgress>, TrainError> {
        let Self { data, normalization, schedule, seed, .. } = *self;
        let step = self.report.steps;
        if step == self.steps {
            return Ok(None);
        }
        check_images(data, trainer.network())?;
        self.indices.clear();
        self.indices.extend(self.order.by_ref().take(schedule.batch_size));
        data.gather(&self.indices, normalization, &mut self.images, &mut self.labels)?;
        let first = step as u64 * schedule.batch_size as u64;
        let shape = data.shape();
        schedule.augmentation.apply(&mut self.images, shape, normalization, seed, first);
        let learning_rate = schedule.learning_rate(step, self.steps);
        let sgd = Sgd { learning_rate, ..schedule.sgd };
        let loss = match trainer.train_step(&self.images, &self.labels, sgd) {
            // The last update made a weight infinite: the same end, seen before there is a loss.
            Err(TrainError::Quant(QuantError::NotFinite { .. })) => f32::NAN,
            result => result?,
        };
        if !loss.is_finite() {
            return Err(TrainError::Diverged { loss, step });
        }
        let taken = step + 1;
        let before = self.report.mean_loss.unwrap_or(0.0);
        let mean = before + (f64::from(loss) - before) / taken as f64;
        self.report = TrainReport {
            steps: taken,
            mean_loss: Some(mean),
            last_loss: Some(loss),
            stopped: taken < self.steps,
        };
        let epoch = (taken as f64 * schedule.batch_size as f64) / data.len() as f64;
        Ok(Some(TrainProgress { step: taken, steps: self.steps, epoch, loss, learning_rate }))
    }

    /// What was done so far; stopped unless it was all.
    #[must_use]
    pub const fn report(&self) -> TrainReport {
        self.report
    }
}

/// All of a [`Training`], calling `on_step` after every step; it may break off.
///
/// # Errors
/// As [`Training::new`] and [`Training::step`].
pub fn train(
    trainer: &mut dyn Trainer,
    data: &dyn Dataset,
    normalization: &Normalization,
    schedule: &Schedule,
    seed: u64,
    on_step: &mut dyn FnMut(TrainProgress) -> ControlFlow<()>,
) -> Result<TrainReport, TrainError> {
    let mut training = Training::new(data, normalization, schedule, seed)?;
    while let Some(progress) = training.step(trainer)? {
        if on_step(progress).is_break() {
            break;
        }
    }
    Ok(training.report())
}

/// How many images a network names rightly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccuracyReport {
    /// Images named rightly.
    pub correct: usize,
    /// Images shown.
    pub total: usize,
}

impl AccuracyReport {
    /// Share of images named rightly, from 0 to 1.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.total.max(1) as f64
    }

    /// Standard error of [`accuracy`](Self::accuracy): `sqrt(p (1 - p) / n)`.
    #[must_use]
    pub fn standard_error(&self) -> f64 {
        let p = self.accuracy();
        (p * (1.0 - p) / self.total.max(1) as f64).sqrt()
    }
}

/// Shows all images of `data` to the network, `batch_size` at a time.
///
/// The class of the largest output counts; an output that is not a number is never right.
///
/// # Errors
/// A normalization or images that do not fit, images without labels, a batch size of zero, or weights that
/// cannot be quantized.
pub fn accuracy(
    trainer: &mut dyn Trainer,
    data: &dyn Dataset,
    normalization: &Normalization,
    batch_size: usize,
) -> Result<AccuracyReport, TrainError> {
    check_normalization(data, normalization)?;
    check_images(data, trainer.network())?;
    check_labels(data)?;
    if batch_size == 0 {
        return Err(TrainError::Schedule { field: "batch_size", allowed: "positive", got: 0.0 });
    }
    let outputs = trainer.network().outputs();
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    let indices: Vec<usize> = (0..data.len()).collect();
    let mut correct = 0;
    for batch in indices.chunks(batch_size) {
        data.gather(batch, normalization, &mut images, &mut labels)?;
        let logits = trainer.logits(&images)?;
        let pairs = logits.chunks_exact(outputs).zip(&labels);
        correct += pairs.filter(|&(logits, &label)| largest(logits) == Some(label.into())).count();
    }
    Ok(AccuracyReport { correct, total: data.len() })
}

/// Index of the largest value, the first of equal ones; `None` if one is not a number.
fn largest(logits: &[f32]) -> Option<usize> {
    let mut best = 0;
    for (index, value) in logits.iter().enumerate() {
        if value.is_nan() {
            return None;
        }
        if *value > logits[best] {
            best = index;
        }
    }
    Some(best)
}

fn check_images(data: &dyn Dataset, network: &Network) -> Result<(), TrainError> {
    let (expected, got) = (network.input(), data.shape());
    if expected == got {
        return Ok(());
    }
    let (data, network) = (data.name().to_owned(), network.name().to_owned());
    Err(TrainError::Images { data, network, expected, got })
}

fn check_labels(data: &dyn Dataset) -> Result<(), TrainError> {
    match data.info().classes {
        Some(_) => Ok(()),
        None => Err(DataError::Unlabelled { name: data.name().to_owned() }.into()),
    }
}

fn check_normalization(
    data: &dyn Dataset,
    normalization: &Normalization,
) -> Result<(), TrainError> {
    let [channels, ..] = data.shape();
    let (means, deviations) = (normalization.mean.len(), normalization.std.len());
    if means == channels && deviations == channels {
        Ok(())
    } else {
        Err(TrainError::Normalization { channels, means, deviations })
    }
}

/// Image indices without end: one shuffled pass over all after the other.
struct Order {
    indices: Vec<usize>,
    next: usize,
    rng: ChaCha8Rng,
}

impl Order {
    fn new(len: usize, seed: u64) -> Self {
        let (indices, rng) = ((0..len).collect(), ChaCha8Rng::seed_from_u64(seed));
        Self { indices, next: 0, rng }
    }
}

impl Iterator for Order {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.next == 0 {
            self.indices.shuffle(&mut self.rng);
        }
        let index = self.indices.get(self.next).copied();
        self.next = (self.next + 1) % self.indices.len().max(1);
        index
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use burn::tensor::Device;
    use rand::RngExt;
    use releq_core::{Bitwidth, BitwidthAssignment, Network, Weights};
    use releq_quant::{Quantizer, QuantizerKind};

    use super::*;
    use crate::{BurnTrainer, NativeTrainer, OptimizerState, check};
    use releq_data::ImageSet;

    const SGD: Sgd = Sgd { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.0 };

    /// Class 0 is bright on the left, class 1 on the right; the rest is noise.
    fn sides(len: usize) -> ImageSet {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let labels: Vec<Label> = (0..len).map(|index| (index % 2) as Label).collect();
        let mut pixels = Vec::new();
        for &label in &labels {
            for position in 0..64 {
                let bright = (position % 8 >= 4) == (label == 1);
                pixels.push(rng.random_range(0..100) + if bright { 60 } else { 0 });
            }
        }
        ImageSet::new("sides", [1, 8, 8], 2, pixels, labels).unwrap()
    }

    fn normalization() -> Normalization {
        Normalization { mean: vec![0.31], std: vec![0.16] }
    }

    fn tiny() -> Network {
        Network::builder("tiny", [1, 8, 8])
            .conv2d("conv", 4, 3)
            .relu("relu")
            .max_pool("pool", 2, 2)
            .flatten("flatten")
            .linear("fc", 2)
            .build()
            .unwrap()
    }

    fn trainer() -> BurnTrainer {
        BurnTrainer::new(&tiny(), QuantizerKind::Wrpn.build(), Device::flex()).unwrap()
    }

    fn run(
        trainer: &mut dyn Trainer,
        schedule: &Schedule,
        seed: u64,
    ) -> Result<TrainReport, TrainError> {
        let mut go_on = |_| ControlFlow::Continue(());
        train(trainer, &sides(64), &normalization(), schedule, seed, &mut go_on)
    }

    #[test]
    fn a_tiny_network_learns_two_classes_with_and_without_bits() {
        let data = sides(64);
        let normalization = normalization();
        for bits in [None, Some(BitwidthAssignment::uniform(Bitwidth::new(4).unwrap(), 2).unwrap())]
        {
            let mut trainer = trainer();
            trainer.set_bits(bits.as_ref()).unwrap();
            let report =
                run(&mut trainer, &Schedule::new(Length::Epochs(15.0), 16, SGD), 1).unwrap();
            assert_eq!((report.steps, report.stopped), (60, false));
            assert!(report.last_loss.unwrap() < 0.1, "{bits:?}: {report:?}");
            // 64 images in batches of 24: the last one is smaller.
            let report = accuracy(&mut trainer, &data, &normalization, 24).unwrap();
            assert_eq!(report, AccuracyReport { correct: 64, total: 64 }, "{bits:?}");
        }
    }

    #[test]
    fn a_seed_decides_everything() {
        let augmentation = Augmentation { max_shift: 2, mirror: true };
        let schedule = Schedule { augmentation, ..Schedule::new(Length::Steps(9), 20, SGD) };
        let state = |seed: u64| -> Weights {
            let mut trainer = trainer();
            run(&mut trainer, &schedule, seed).unwrap();
            trainer.state()
        };
        assert_eq!(state(1), state(1));
        assert_eq!(
            state(1),
            std::thread::spawn(move || {
                let mut trainer = trainer();
                run(&mut trainer, &schedule, 1).unwrap();
                trainer.state()
            })
            .join()
            .unwrap()
        );
        assert_ne!(state(1), state(2));
    }

    #[test]
    fn every_epoch_visits_every_image_once_in_another_order() {
        let mut order = Order::new(10, 3);
        let mut epoch = || order.by_ref().take(10).collect::<Vec<_>>();
        let (first, second) = (epoch(), epoch());
        assert_ne!(first, second);
        for mut epoch in [first, second] {
            epoch.sort_unstable();
            assert!(epoch.into_iter().eq(0..10));
        }
    }

    #[test]
    fn on_step_sees_the_progress_and_may_stop() {
        let (data, mut seen) = (sides(64), Vec::new());
        let normalization = normalization();
        let schedule = Schedule::new(Length::Epochs(2.0), 16, SGD);
        let mut stop = |progress: TrainProgress| {
            seen.push((progress.step, progress.steps, progress.epoch));
            if progress.step == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let report = train(&mut trainer(), &data, &normalization, &schedule, 0, &mut stop).unwrap();
        assert_eq!((report.steps, report.stopped), (3, true));
        assert_eq!(seen, [(1, 8, 0.25), (2, 8, 0.5), (3, 8, 0.75)]);
        let none = run(&mut trainer(), &Schedule::new(Length::Steps(0), 16, SGD), 0).unwrap();
        let expected = TrainReport { steps: 0, mean_loss: None, last_loss: None, stopped: false };
        assert_eq!(none, expected);
    }

    #[test]
    fn a_diverging_run_is_an_error() {
        for bits in [None, Some(Bitwidth::EIGHT)] {
            // The largest rate of all: WRPN clips weights, which keeps smaller ones finite.
            let sgd = Sgd { learning_rate: f32::MAX, ..SGD };
            let bits = bits.map(|bits| BitwidthAssignment::uniform(bits, 2).unwrap());
            let mut trainer = trainer();
            trainer.set_bits(bits.as_ref()).unwrap();
            let schedule = Schedule::new(Length::Steps(40), 16, sgd);
            let error = run(&mut trainer, &schedule, 0).unwrap_err();
            assert!(matches!(error, TrainError::Diverged { .. }), "{bits:?}: {error}");
        }
    }

    /// A trainer whose weights became infinite in the step before.
    #[derive(Debug)]
    struct Burst(Network, Arc<dyn Quantizer>);

    impl Trainer for Burst {
        fn network(&self) -> &Network {
            &self.0
        }
        fn quantizer(&self) -> &dyn Quantizer {
            &*self.1
        }
        fn optimizer(&self) -> OptimizerState {
            OptimizerState::default()
        }
        fn set_optimizer(&mut self, _: &OptimizerState) -> Result<(), TrainError> {
            Ok(())
        }
        fn bits(&self) -> Option<BitwidthAssignment> {
            None
        }
        fn load(&mut self, _: &Weights) -> Result<(), TrainError> {
            Ok(())
        }
        fn state(&self) -> Weights {
            Weights::default()
        }
        fn set_bits(&mut self, _: Option<&BitwidthAssignment>) -> Result<(), TrainError> {
            Ok(())
        }
        fn train_step(&mut self, _: &[f32], _: &[Label], _: Sgd) -> Result<f32, TrainError> {
            Err(QuantError::NotFinite { index: 0, value: f32::INFINITY }.into())
        }
        fn logits(&mut self, _: &[f32]) -> Result<Vec<f32>, TrainError> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn statistics_alone_are_estimated_anew_wherever_they_were() {
        let mut networks = check::networks().into_iter();
        let network = networks.find(|network| network.name() == "residual").unwrap();
        let input = network.input();
        let pixels = (0..48 * input.iter().product::<usize>()).map(|i| (i * 97 % 256) as u8);
        let labels = (0..48).map(|index| (index % 3) as Label).collect();
        let data = ImageSet::new("noise", input, 3, pixels.collect(), labels).unwrap();
        let normalization = Normalization::measured(&data).unwrap();
        let bits =
            BitwidthAssignment::uniform(Bitwidth::new(3).unwrap(), network.quantizable_layers());
        let bits = bits.unwrap();
        let settle = |start: &Weights| {
            let mut trainer = NativeTrainer::new(&network, QuantizerKind::Wrpn.build()).unwrap();
            trainer.load(start).unwrap();
            trainer.set_bits(Some(&bits)).unwrap();
            let schedule = Schedule::statistics_only(150, 16);
            let mut go_on = |_| ControlFlow::Continue(());
            train(&mut trainer, &data, &normalization, &schedule, 1, &mut go_on).unwrap();
            trainer.state()
        };
        let start = check::state(&network, 3);
        let mut elsewhere = start.clone();
        for (name, parameter) in &mut elsewhere.0 {
            if name.contains(".running_") {
                parameter.values.iter_mut().for_each(|value| *value = 3.0 + 2.0 * *value);
            }
        }
        let (one, other) = (settle(&start), settle(&elsewhere));
        check::close(&one, &other, 1e-4, "0.9^150 of what was there is left");
        for (name, parameter) in &one.0 {
            assert_eq!(*parameter != start.0[name], name.contains(".running_"), "{name}");
        }
    }

    #[test]
    fn weights_that_cannot_be_quantized_any_more_count_as_divergence() {
        let error = run(
            &mut Burst(tiny(), QuantizerKind::Wrpn.build()),
            &Schedule::new(Length::Steps(2), 16, SGD),
            0,
        )
        .unwrap_err();
        assert!(matches!(error, TrainError::Diverged { step: 0, .. }), "{error}");
    }

    #[test]
    fn learning_rates_follow_the_schedule() {
        let check = |decay, warmup_steps, expected: &[f32]| {
            let sgd = Sgd { learning_rate: 1.0, ..SGD };
            let schedule =
                Schedule { decay, warmup_steps, ..Schedule::new(Length::Steps(4), 1, sgd) };
            let got: Vec<f32> = (0..4).map(|step| schedule.learning_rate(step, 4)).collect();
            let close = got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-6);
            assert!(close, "{decay:?}: {got:?}, expected {expected:?}");
        };
        check(Decay::Constant, 0, &[1.0; 4]);
        check(Decay::Constant, 2, &[0.5, 1.0, 1.0, 1.0]);
        check(Decay::Linear, 0, &[1.0, 0.75, 0.5, 0.25]);
        check(Decay::Cosine, 2, &[0.5, 1.0, 1.0, 0.5]);
        check(Decay::Step { every: 2, factor: 0.1 }, 0, &[1.0, 1.0, 0.1, 0.1]);
    }

    #[test]
    fn a_schedule_or_normalization_that_cannot_be_names_its_field() {
        let check = |schedule: Schedule, field: &str| {
            let message = run(&mut trainer(), &schedule, 0).unwrap_err().to_string();
            assert!(message.contains(field), "`{message}` lacks `{field}`");
        };
        let good = Schedule::new(Length::Steps(1), 16, SGD);
        check(Schedule { batch_size: 0, ..good }, "`batch_size` must be positive, got 0");
        check(Schedule { length: Length::Epochs(f64::NAN), ..good }, "`length.epochs`");
        let sgd = Sgd { learning_rate: -1.0, ..SGD };
        check(Schedule { sgd, ..good }, "`sgd.learning_rate` must be finite and not negative");
        let decay = Decay::Step { every: 0, factor: 0.1 };
        check(Schedule { decay, ..good }, "`decay.step.every`");
        let normalization = Normalization { mean: vec![0.0; 3], std: vec![1.0; 3] };
        let error = accuracy(&mut trainer(), &sides(4), &normalization, 2).unwrap_err();
        assert!(matches!(error, TrainError::Normalization { channels: 1, .. }), "{error}");
    }

    #[test]
    fn images_of_another_size_are_refused_even_where_their_pixels_would_make_whole_images() {
        // One image has the pixels of four, four have those of one.
        for shape in [[1, 16, 16], [1, 4, 4], [4, 4, 4]] {
            let (images, classes) = (8, 2);
            let pixels = vec![0; images * shape.iter().product::<usize>()];
            let labels = (0..images).map(|index| (index % classes) as Label).collect();
            let data = ImageSet::new("other", shape, classes, pixels, labels).unwrap();
            let channels = shape[0];
            let normalization =
                Normalization { mean: vec![0.3; channels], std: vec![0.2; channels] };
            let mut trainer = trainer();
            let measured = accuracy(&mut trainer, &data, &normalization, 2).map(|_| ());
            let schedule = Schedule::new(Length::Steps(1), 8, SGD);
            let mut go_on = |_| ControlFlow::Continue(());
            let trained = train(&mut trainer, &data, &normalization, &schedule, 0, &mut go_on);
            for error in [measured.unwrap_err(), trained.unwrap_err()] {
                let expected = format!(
                    "data set `other` has images of {shape:?} (channels, height, width), but network `tiny` takes [1, 8, 8]"
                );
                assert_eq!(error.to_string(), expected);
            }
        }
    }

    #[test]
    fn accuracy_counts_and_its_error_is_binomial() {
        let report = AccuracyReport { correct: 80, total: 100 };
        assert_eq!(report.accuracy(), 0.8);
        assert!((report.standard_error() - 0.04).abs() < 1e-12);
        assert_eq!(largest(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(largest(&[f32::NAN, 1.0]), None);
        assert_eq!(largest(&[1.0, f32::NAN]), None);
    }
}
