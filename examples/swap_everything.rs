//! Replaces every piece of the path by one written in this file: first one at a time, then all at once.
//!
//! ```text
//! cargo run --example swap_everything
//! ```
//!
//! A reward, an agent, a quantizer, a cost model, an evaluator, a trainer, a data set that is read from disk
//! as it is needed, and a network: each is the smallest implementation of its trait that does something
//! useful. It takes under two minutes on two cores; `--small` takes seconds and finds nothing worth having.

use std::{
    fs::File,
    io::{ErrorKind, Read, Seek, SeekFrom, Write, stdout},
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
};

use releq::{
    Cancel, Experiment, ExperimentConfig, Report,
    agent::{Agent, AgentError, Mode, UpdateStats},
    core::{
        Bitwidth, BitwidthAssignment, Cost, CostError, CostModel, LayerBits, LayerProfile, Network,
    },
    data::{DataError, Dataset, DatasetInfo, ImageSet, Label, Splits, digits},
    evaluate::{Evaluation, Evaluator},
    hw::{CostKind, Stripes},
    quant::{LayerWeights, QuantError, Quantizer},
    reward::Reward,
    train::{
        Backend, Batch, Length, Sgd, TrainError, Trainer, TrainerFactory, TrainerState, trainer_fn,
    },
    zoo::lenet,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Nothing counts but the cost, as long as 97 % of the accuracy is kept.
struct Thrift;

impl Reward for Thrift {
    fn name(&self) -> &str {
        "thrift"
    }
    fn reward(&self, acc_state: f64, quant_state: f64) -> f64 {
        if acc_state < 0.97 { acc_state - 1.0 } else { 1.0 - quant_state }
    }
}

/// Bits that are fetched and bits that are multiplied.
struct Bits;

impl CostModel for Bits {
    fn name(&self) -> &str {
        "bits-moved"
    }
    fn unit(&self) -> &str {
        "bits"
    }
    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        let bits = [bits.weight, bits.activation].map(|bits| u64::from(bits.get()));
        Ok(Cost((bits[0] * (120 * layer.weights() + bits[1] * layer.macs())) as f64))
    }
}

/// Zero and powers of two below the largest weight.
#[derive(Debug)]
struct Shifts;

impl Quantizer for Shifts {
    fn name(&self) -> &str {
        "shifts"
    }
    fn supports(&self, bits: Bitwidth) -> bool {
        (2..=8).contains(&bits.get())
    }
    fn fake_quantize(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        out: &mut [f32],
    ) -> Result<(), QuantError> {
        weights.check(self, bits).and_then(|()| weights.check_length("out", out.len()))?;
        let largest = weights.values().iter().fold(f32::MIN_POSITIVE, |max, w| max.max(w.abs()));
        let top = largest.log2().floor();
        let powers = (1 << (bits.get() - 2)) as f32;
        for (out, w) in out.iter_mut().zip(weights.values()) {
            let power = w.abs().log2().round();
            *out = if power <= top - powers { 0.0 } else { power.min(top).exp2().copysign(*w) };
        }
        Ok(())
    }
}

/// Tries one bit less in one layer of its best assignment after the other.
struct Climber {
    best: Vec<usize>,
    best_return: f64,
    next: Vec<usize>,
    turn: usize,
}

impl Agent for Climber {
    fn begin(&mut self, max_episodes: usize, mode: Mode) -> Option<usize> {
        let layer = self.turn / self.best.len() % self.best.len();
        self.next.clone_from(&self.best);
        self.next[layer] = self.next[layer].saturating_sub(1);
        (max_episodes > 0 && mode == Mode::Explore).then_some(1)
    }
    fn act(&mut self, _: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        self.turn += 1;
        Ok(vec![self.next[(self.turn - 1) % self.best.len()]])
    }
    fn finish(&mut self, rewards: &[Vec<f64>]) -> Result<UpdateStats, AgentError> {
        let mean_return = rewards.iter().flatten().sum();
        if mean_return > self.best_return {
            (self.best_return, self.best) = (mean_return, self.next.clone());
        }
        Ok(UpdateStats { mean_return, ..UpdateStats::default() })
    }
}

/// Guesses the accuracy from the mean bitwidth instead of retraining; the long retrains at the end tell.
struct Guess {
    full_precision: f64,
}

impl Evaluator for Guess {
    fn full_precision(&self) -> f64 {
        self.full_precision
    }
    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, releq::ReleqError> {
        let lost: f64 = bits.to_bits().iter().map(|&b| (-1.5 * f64::from(b)).exp()).sum();
        Ok(Evaluation::new((self.full_precision * (1.0 - lost)).max(0.0)))
    }
}

/// A trainer around another one that lets no step be too large, whatever the schedule says.
struct Careful(Box<dyn Trainer>);

impl Trainer for Careful {
    fn network(&self) -> &Network {
        self.0.network()
    }
    fn set_bits(&mut self, bits: Option<&BitwidthAssignment>) -> Result<(), TrainError> {
        self.0.set_bits(bits)
    }
    fn train_step(&mut self, batch: &Batch<'_>, optimizer: Sgd) -> Result<f32, TrainError> {
        let learning_rate = optimizer.learning_rate.min(0.02);
        self.0.train_step(batch, Sgd { learning_rate, ..optimizer })
    }
    fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, TrainError> {
        self.0.logits(images)
    }
    fn snapshot(&self) -> TrainerState {
        self.0.snapshot()
    }
    fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError> {
        self.0.restore(state)
    }
}

/// Images in a file of their own, read one at a time.
struct OnDisk {
    path: PathBuf,
    labels: Vec<Label>,
}

impl Dataset for OnDisk {
    fn info(&self) -> DatasetInfo<'_> {
        DatasetInfo { name: "disk", shape: [1, 28, 28], classes: Some(10), len: self.labels.len() }
    }
    fn label(&self, index: usize) -> Option<Label> {
        self.labels.get(index).copied()
    }
    fn read_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
        let mut read = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start((index * pixels.len()) as u64))?;
            file.read_exact(pixels)
        };
        read().map_err(|error| DataError::other("disk", error))
    }
}

/// Writes the images of a set one after the other.
fn to_disk(set: &ImageSet, path: PathBuf) -> std::io::Result<OnDisk> {
    let mut file = File::create(&path)?;
    (0..set.len()).try_for_each(|index| file.write_all(set.image(index)))?;
    Ok(OnDisk { path, labels: (0..set.len()).map(|index| set.label(index)).collect() })
}

/// A network of three layers.
fn small() -> Result<Network, releq::core::NetworkError> {
    Network::builder("small", [1, 28, 28])
        .conv2d("conv", 8, 5)
        .relu("relu")
        .max_pool("pool", 4, 4)
        .flatten("flatten")
        .linear("hidden", 32)
        .relu("relu2")
        .linear("classes", 10)
        .build()
}

/// How long the stages are.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    images: usize,
    steps: usize,
    evaluations: usize,
}

impl Size {
    /// Enough for bitwidths worth having.
    pub const FULL: Self = Self { images: 4000, steps: 160, evaluations: 12 };
    /// Seconds.
    pub const SMALL: Self = Self { images: 600, steps: 30, evaluations: 6 };

    fn config(self) -> ExperimentConfig {
        let mut config = ExperimentConfig::lenet(1);
        config.threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        config.validation = self.images / 5;
        config.search_validation = self.images / 5;
        config.pretrain.length = Length::Steps(self.steps);
        config.short_retrain.length = Length::Steps(self.steps / 10);
        config.long_retrain.length = Length::Steps(self.steps / 2);
        config.budget.evaluations = Some(self.evaluations);
        config.compare = false;
        config.finalists = 2;
        config.seeds = 1;
        config
    }
}

/// Replaces one piece of an experiment.
type Swap = fn(Experiment) -> Result<Experiment, Error>;

const SWAPS: [(&str, Swap); 6] = [
    ("reward", |experiment| Ok(experiment.reward(Thrift))),
    ("cost model", |experiment| Ok(experiment.cost(Bits))),
    ("quantizer", |experiment| Ok(experiment.quantizer(Shifts))),
    ("agent", |experiment| {
        Ok(experiment.agent("climber", |shape| {
            let best = vec![shape.actions.count() - 1; shape.episode_len];
            let best_return = f64::NEG_INFINITY;
            Ok(Box::new(Climber { best, best_return, next: Vec::new(), turn: 0 }))
        }))
    }),
    ("trainer", |experiment| {
        let trainers = trainer_fn(|network, quantizer| {
            Ok(Box::new(Careful(Backend::Native.trainer(network, quantizer)?)))
        });
        Ok(experiment.trainer("careful", trainers))
    }),
    ("evaluator", |experiment| {
        Ok(experiment.evaluator("guess", |_| Ok(Box::new(Guess { full_precision: 0.97 }))))
    }),
];

/// Runs the path as it is, with each piece replaced, and with all of them replaced; gives the reports by what
/// was replaced.
///
/// # Errors
/// If a run fails or the folder for the images cannot be written.
pub fn swap_everything(size: Size) -> Result<Vec<(String, Report)>, Error> {
    let config = digits::DigitsConfig { train: size.images, test: 500, ..Default::default() };
    let drawn = digits::generate(&config)?;
    let folder = tempfile::tempdir()?;
    let on_disk = Arc::new(to_disk(&drawn.train, folder.path().join("train"))?);
    let test = Arc::new(to_disk(&drawn.test, folder.path().join("test"))?);
    let from_disk = || Splits {
        train: Arc::clone(&on_disk),
        test: Arc::clone(&test),
        source: "digits, read from disk as they are needed".to_owned(),
    };
    let plain = || Experiment::new(lenet(), drawn.clone(), size.config());

    let mut experiments = vec![("nothing".to_owned(), plain())];
    for (what, swap) in SWAPS {
        experiments.push((what.to_owned(), swap(plain())?));
    }
    let mut energy = size.config();
    energy.cost = CostKind::StripesEnergy(Stripes::default()).into();
    let energy = Experiment::new(lenet(), drawn.clone(), energy);
    experiments.push(("cost: energy on Stripes".to_owned(), energy));
    experiments.push(("data set".to_owned(), plain().data("from-disk", from_disk())));
    let network = Experiment::new(small()?, drawn.clone(), size.config());
    experiments.push(("network".to_owned(), network));
    let all = Experiment::new(small()?, from_disk(), size.config());
    let all = SWAPS.into_iter().try_fold(all, |experiment, (_, swap)| swap(experiment))?;
    experiments.push(("everything".to_owned(), all));

    let mut reports = Vec::new();
    for (what, experiment) in experiments {
        reports.push((what, experiment.run(&Cancel::new(), &|_| {})?));
    }
    Ok(reports)
}

#[allow(dead_code, reason = "a test includes this file and calls the function above")]
fn main() -> Result<(), Error> {
    let small = std::env::args().any(|argument| argument == "--small");
    let size = if small { Size::SMALL } else { Size::FULL };
    let mut lines = vec![format!("{:<24} {:<10} {:>5} {:>9}", "replaced", "bits", "mean", "test")];
    for (what, report) in swap_everything(size)? {
        let Some(row) = report.chosen_row() else { continue };
        let accuracy = 100.0 * row.test_accuracy;
        let (bits, mean) = (row.bits.to_string(), row.mean_bits);
        lines.push(format!("{what:<24} {bits:<10} {mean:>5.2} {accuracy:>7.2} %"));
    }
    match writeln!(stdout(), "{}", lines.join("\n")) {
        // The reader, such as `head`, has closed the pipe.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
