//! Training by a schedule, one step at a time.

use std::{collections::BTreeMap, fmt, ops::ControlFlow};

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use releq_core::Network;
use releq_data::{DataError, Dataset, Label, Normalization};
use releq_quant::QuantError;
use serde::{Deserialize, Serialize};

use crate::{Batch, Schedule, Sgd, TrainError, Trainer, TrainerState, TrainingRun, TrainingState};

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
    origin: BTreeMap<String, String>,
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
    /// A schedule or a normalization that does not fit, [`TrainError::BatchTooLarge`], or images without
    /// labels.
    pub fn new(
        data: &'a dyn Dataset,
        normalization: &'a Normalization,
        schedule: &Schedule,
        seed: u64,
    ) -> Result<Self, TrainError> {
        schedule.check()?;
        check_normalization(data, normalization)?;
        check_labels(data)?;
        schedule.check_images(data)?;
        let steps = schedule.steps(data.len());
        Ok(Self {
            data,
            normalization,
            schedule: *schedule,
            seed,
            steps,
            order: Order::new(data.len(), seed),
            report: TrainReport { steps: 0, mean_loss: None, last_loss: None, stopped: steps > 0 },
            origin: BTreeMap::new(),
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
        let TrainingState { weights, optimizer, clips, run } = state;
        let mut training = Self::new(data, normalization, &run.schedule, run.seed)?;
        let (begun, now) = (run.images.to_string(), data.len().to_string());
        TrainError::unless_same("this number of images:", &begun, &now)?;
        TrainError::unless_alike("the normalization's", &run.normalization, normalization)?;
        if run.report.steps > training.steps {
            return Err(TrainError::Resume {
                what: "a number of steps of at most".into(),
                expected: training.steps.to_string(),
                got: run.report.steps.to_string(),
            });
        }
        trainer.restore(&TrainerState {
            weights: weights.clone(),
            optimizer: optimizer.clone(),
            bits: run.bits.clone(),
            quantizer: run.quantizer.clone(),
            clips: clips.clone(),
        })?;
        training.report = run.report;
        training.origin.clone_from(&run.origin);
        let seen = run.report.steps * run.schedule.batch_size;
        training.order.by_ref().take(seen).for_each(drop);
        Ok(training)
    }

    /// Notes what else the training follows from, such as the content of its data and the weights that it
    /// starts from; the [state](Self::state) then has it, and [`TrainingRun::check_origin`] compares it.
    #[must_use]
    pub fn origin(mut self, origin: BTreeMap<String, String>) -> Self {
        self.origin = origin;
        self
    }

    /// What [`resume`](Self::resume) needs, with the weights and the optimizer of `trainer`.
    #[must_use]
    pub fn state(&self, trainer: &dyn Trainer) -> TrainingState {
        let TrainerState { weights, optimizer, bits, quantizer, clips } = trainer.snapshot();
        let run = TrainingRun {
            network: trainer.network().name().to_owned(),
            schedule: self.schedule,
            seed: self.seed,
            images: self.data.len(),
            normalization: self.normalization.clone(),
            bits,
            quantizer,
            report: self.report,
            origin: self.origin.clone(),
        };
        TrainingState { weights, optimizer, clips, run }
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
        let loss = match trainer.train_step(&Batch::labelled(&self.images, &self.labels), sgd) {
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

pub(crate) fn check_images(data: &dyn Dataset, network: &Network) -> Result<(), TrainError> {
    let (expected, got) = (network.input(), data.shape());
    if expected == got {
        return Ok(());
    }
    let (data, network) = (data.name().to_owned(), network.name().to_owned());
    Err(TrainError::Images { data, network, expected, got })
}

pub(crate) fn check_labels(data: &dyn Dataset) -> Result<(), TrainError> {
    match data.info().classes {
        Some(_) => Ok(()),
        None => Err(DataError::Unlabelled { name: data.name().to_owned() }.into()),
    }
}

pub(crate) fn check_normalization(
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

    use burn::tensor::Device;
    use rand::RngExt;
    use releq_core::{Bitwidth, BitwidthAssignment, Network, Weights};
    use releq_quant::QuantizerKind;

    use releq_data::Augmentation;

    use super::*;
    use crate::{AccuracyReport, Decay, Length, accuracy};
    use crate::{BurnTrainer, NativeTrainer, OptimizerState, oracle};
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
            trainer.weights()
        };
        assert_eq!(state(1), state(1));
        assert_eq!(
            state(1),
            std::thread::spawn(move || {
                let mut trainer = trainer();
                run(&mut trainer, &schedule, 1).unwrap();
                trainer.weights()
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
    struct Burst(Network);

    impl Trainer for Burst {
        fn network(&self) -> &Network {
            &self.0
        }
        fn set_bits(&mut self, _: Option<&BitwidthAssignment>) -> Result<(), TrainError> {
            Ok(())
        }
        fn train_step(&mut self, _: &Batch<'_>, _: Sgd) -> Result<f32, TrainError> {
            Err(QuantError::NotFinite { index: 0, value: f32::INFINITY }.into())
        }
        fn logits(&mut self, _: &[f32]) -> Result<Vec<f32>, TrainError> {
            Ok(Vec::new())
        }
        fn snapshot(&self) -> TrainerState {
            let optimizer = OptimizerState::start(&self.0);
            let weights = Weights::default();
            let (quantizer, clips) = ("none".into(), BTreeMap::new());
            TrainerState { weights, optimizer, bits: None, quantizer, clips }
        }
        fn restore(&mut self, _: &TrainerState) -> Result<(), TrainError> {
            Ok(())
        }
    }

    #[test]
    fn statistics_alone_are_estimated_anew_wherever_they_were() {
        let mut networks = oracle::networks().into_iter();
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
            trainer.weights()
        };
        let start = oracle::state(&network, 3);
        let mut elsewhere = start.clone();
        for (name, parameter) in &mut elsewhere.0 {
            if name.contains(".running_") {
                parameter.values.iter_mut().for_each(|value| *value = 3.0 + 2.0 * *value);
            }
        }
        let (one, other) = (settle(&start), settle(&elsewhere));
        oracle::close(&one, &other, 1e-4, "0.9^150 of what was there is left");
        for (name, parameter) in &one.0 {
            assert_eq!(*parameter != start.0[name], name.contains(".running_"), "{name}");
        }
    }

    #[test]
    fn weights_that_cannot_be_quantized_any_more_count_as_divergence() {
        let error =
            run(&mut Burst(tiny()), &Schedule::new(Length::Steps(2), 16, SGD), 0).unwrap_err();
        assert!(matches!(error, TrainError::Diverged { step: 0, .. }), "{error}");
    }

    #[test]
    fn a_schedule_or_normalization_that_cannot_be_names_its_field() {
        let check = |schedule: Schedule, field: &str| {
            let message = run(&mut trainer(), &schedule, 0).unwrap_err().to_string();
            assert!(message.contains(field), "`{message}` lacks `{field}`");
        };
        let good = Schedule::new(Length::Steps(1), 16, SGD);
        check(Schedule { batch_size: 0, ..good }, "`batch_size` must be positive, got 0");
        for epochs in [f64::NAN, -1.0, 1.1e6, f64::INFINITY] {
            check(Schedule { length: Length::Epochs(epochs), ..good }, "`length.epochs`");
        }
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
}
