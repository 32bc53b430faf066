//! Pieces of the user's own that break in the middle of a run: nobody's panic leaves `Experiment::run`, the error names
//! the piece, and what was measured before is in the report.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use releq::{
    AgentKind, Budget, Cancel, Experiment, ExperimentConfig, ReleqError, Report,
    core::{
        Bitwidth, BitwidthAssignment, Cost, CostError, CostModel, LayerBits, LayerProfile, Network,
    },
    data::{
        DataError, Dataset, DatasetInfo, ImageSet, Label, Splits,
        digits::{self, DigitsConfig},
    },
    evaluate::{Evaluation, Evaluator},
    quant::{LayerWeights, QuantError, Quantizer, WrpnScaled},
    reward::Reward,
    train::{
        Backend, Batch, Length, Sgd, TrainError, Trainer, TrainerFactory, TrainerState, trainer_fn,
    },
    zoo::lenet,
};

fn drawn() -> Splits {
    digits::generate(&DigitsConfig { train: 300, test: 60, ..DigitsConfig::default() }).unwrap()
}

fn small() -> ExperimentConfig {
    let mut config = ExperimentConfig::lenet(1);
    config.validation = 60;
    config.search_validation = 40;
    config.sensitivity_images = 0;
    for schedule in [&mut config.pretrain, &mut config.short_retrain, &mut config.long_retrain] {
        schedule.batch_size = 20;
    }
    config.pretrain.length = Length::Steps(10);
    config.short_retrain.length = Length::Steps(1);
    config.long_retrain.length = Length::Steps(2);
    config.budget = Budget { evaluations: Some(6), ..Budget::default() };
    config.compare = false;
    config
}

fn experiment() -> Experiment {
    Experiment::new(lenet(), drawn(), small())
}

fn run(experiment: Experiment) -> Result<Report, ReleqError> {
    experiment.run(&Cancel::new(), &|_| {})
}

/// What ended a run, whether it gave a report or none.
fn ended_by(run: Result<Report, ReleqError>) -> String {
    match run {
        Ok(report) => report.failed().unwrap_or("nothing").to_owned(),
        Err(error) => with_causes(&error),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", with_causes(cause)),
        None => error.to_string(),
    }
}

/// Burns down by one at a time, then goes off.
#[derive(Clone, Debug)]
struct Fuse(Arc<AtomicUsize>);

impl Fuse {
    fn new(calls: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(calls)))
    }

    fn burn(&self) {
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        assert!(left.is_ok(), "boom");
    }
}

#[derive(Debug)]
struct BrokenQuantizer(Fuse);

impl Quantizer for BrokenQuantizer {
    fn name(&self) -> &str {
        "brittle"
    }
    fn supports(&self, bits: Bitwidth) -> bool {
        WrpnScaled::default().supports(bits)
    }
    fn fake_quantize(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        out: &mut [f32],
    ) -> Result<(), QuantError> {
        self.0.burn();
        WrpnScaled::default().fake_quantize(weights, bits, out)
    }
}

struct BrokenTrainer(Box<dyn Trainer>, Fuse);

impl Trainer for BrokenTrainer {
    fn network(&self) -> &Network {
        self.0.network()
    }
    fn set_bits(&mut self, bits: Option<&BitwidthAssignment>) -> Result<(), TrainError> {
        self.0.set_bits(bits)
    }
    fn train_step(&mut self, batch: &Batch<'_>, sgd: Sgd) -> Result<f32, TrainError> {
        self.1.burn();
        self.0.train_step(batch, sgd)
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

#[derive(Debug)]
struct BrokenData(ImageSet, Fuse);

impl Dataset for BrokenData {
    fn info(&self) -> DatasetInfo<'_> {
        self.0.info()
    }
    fn label(&self, index: usize) -> Option<Label> {
        Some(self.0.label(index))
    }
    fn read_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
        self.1.burn();
        self.0.read_image(index, pixels)
    }
}

struct BrokenCost(Fuse, f64);

impl CostModel for BrokenCost {
    fn name(&self) -> &str {
        "meter"
    }
    fn unit(&self) -> &str {
        "J"
    }
    fn layer_cost(&self, layer: &LayerProfile, _: LayerBits) -> Result<Cost, CostError> {
        self.0.burn();
        Ok(Cost(if layer.name == "conv1" { self.1 } else { 10.0 }))
    }
}

struct BrokenReward(Fuse);

impl Reward for BrokenReward {
    fn name(&self) -> &str {
        self.0.burn();
        "moody"
    }
    fn reward(&self, acc_state: f64, quant_state: f64) -> f64 {
        acc_state - quant_state
    }
}

struct BrokenEvaluator(Fuse);

impl Evaluator for BrokenEvaluator {
    fn full_precision(&self) -> f64 {
        0.9
    }
    fn evaluate(&self, _: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        self.0.burn();
        Ok(Evaluation::new(0.8))
    }
}

#[test]
fn a_quantizer_is_named_wherever_it_breaks() {
    // In the first short retrain, before anything is measured; in a later one; in the finals.
    for calls in [0, 20, 60] {
        let ended = ended_by(run(experiment().quantizer(BrokenQuantizer(Fuse::new(calls)))));
        assert_eq!(ended, "quantizer `brittle` panicked: boom", "after {calls} calls");
    }
}

#[test]
fn a_trainer_is_named_in_every_stage() {
    // In the pretraining, in the search, in the finals.
    for steps in [3, 12, 18] {
        let fuse = Fuse::new(steps);
        let trainers = trainer_fn(move |network: &Network, quantizer| {
            let ours = Backend::Native.trainer(network, quantizer)?;
            Ok(Box::new(BrokenTrainer(ours, fuse.clone())))
        });
        let ended = ended_by(run(experiment().trainer("old", trainers)));
        assert_eq!(ended, "trainer `old` panicked: boom", "after {steps} steps");
    }
    let maker = trainer_fn(|_: &Network, _| panic!("no parts"));
    assert_eq!(
        ended_by(run(experiment().trainer("old", maker))),
        "trainer `old` panicked: no parts"
    );
    let fails = trainer_fn(|_: &Network, _| Err(TrainError::Other("no parts".into())));
    assert_eq!(ended_by(run(experiment().trainer("old", fails))), "trainer `old` failed: no parts");
    let pretrain = experiment().trainer("old", trainer_fn(|_: &Network, _| panic!("no parts")));
    let error = pretrain.pretrain(&Cancel::new(), &|_| {}).unwrap_err();
    assert_eq!(error.to_string(), "trainer `old` panicked: no parts");
}

#[test]
fn a_data_set_is_named() {
    for images in [0, 350, 1500] {
        let Splits { train, test, source } = drawn();
        let (fuse, name) = (Fuse::new(images), train.name().to_owned());
        let sets = [train, test].map(|set| BrokenData(set, fuse.clone()));
        let [train, test] = sets;
        let ended = ended_by(run(experiment().data("mine", Splits { train, test, source })));
        assert_eq!(ended, format!("data set `{name}` panicked: boom"), "after {images} images");
    }
}

#[test]
fn a_cost_to_report_shows_before_hours_of_work_or_ends_up_in_the_report() {
    let priced = |calls, cost| experiment().report_cost(BrokenCost(Fuse::new(calls), cost));
    let begun = AtomicUsize::new(0);
    let report = priced(2, 10.0).run(&Cancel::new(), &|_| {
        begun.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(ended_by(report), "cost model `meter` panicked: boom");
    assert_eq!(begun.into_inner(), 0, "nothing may start");
    // Eight calls are the look at the network in the beginning.
    let report = run(priced(20, 10.0)).unwrap();
    let failed = report.failed().unwrap().to_owned();
    assert!(failed.contains("lacks a cost: cost model `meter` panicked: boom"), "{failed}");
    assert!(report.answer.is_some() && report.rows.len() > 4);
    assert!(report.rows[0].cost("meter").is_some());
}

#[test]
fn a_negative_price_does_not_hide_in_a_sum() {
    let endless = || Fuse::new(usize::MAX);
    let ended = ended_by(run(experiment().cost(BrokenCost(endless(), -1.0))));
    assert!(ended.contains("meter returned a cost of -1.0"), "{ended}");
}

#[test]
fn a_reward_whose_name_is_asked_for_too_often_is_asked_once() {
    let report = run(experiment().reward(BrokenReward(Fuse::new(1)))).unwrap();
    assert_eq!(report.failed(), None);
}

#[test]
fn whoever_listens_cannot_bring_a_run_down() {
    let quiet = run(experiment()).unwrap();
    for limit in [0, 12, 15] {
        let fuse = Fuse::new(limit);
        let report = experiment().run(&Cancel::new(), &|_| fuse.burn()).unwrap();
        assert_eq!(report.failed(), Some("`on_event` panicked: boom"), "after {limit} events");
        assert_eq!(report.rows, quiet.rows);
    }
}

#[test]
fn what_an_evaluator_has_measured_of_a_batch_is_kept() {
    let mut config = small();
    // Four episodes at a time; the second batch breaks after two.
    config.agent = AgentKind::Random.into();
    let experiment = Experiment::new(lenet(), drawn(), config);
    let experiment = experiment.evaluator("board", |_| Ok(Box::new(BrokenEvaluator(Fuse::new(3)))));
    let report = run(experiment).unwrap();
    assert_eq!(report.failed(), Some("evaluator `board` panicked: boom"));
    assert_eq!((report.search.evaluations, report.search.scored.len()), (3, 3));
    assert!(report.search.best.is_some());
    let failing = Experiment::new(lenet(), drawn(), small())
        .evaluator("board", |_| Err(ReleqError::Other("no route to host".into())));
    let ended = ended_by(run(failing));
    assert_eq!(ended, "the maker of the evaluator `board` failed: no route to host");
}

/// Knows 5 bits and nothing else.
#[derive(Debug)]
struct Five;

impl Quantizer for Five {
    fn name(&self) -> &str {
        "five"
    }
    fn supports(&self, bits: Bitwidth) -> bool {
        bits.get() == 5
    }
    fn fake_quantize(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        out: &mut [f32],
    ) -> Result<(), QuantError> {
        WrpnScaled::default().fake_quantize(weights, bits, out)
    }
}

#[test]
fn a_quantizer_of_one_bitwidth_comes_to_its_end() {
    let mut config = small();
    config.actions = vec![Bitwidth::new(5).unwrap()];
    let experiment = Experiment::new(lenet(), drawn(), config);
    let report = run(experiment.quantizer(Five)).unwrap();
    assert_eq!(report.failed(), None);
    let labels: Vec<&str> = report.rows.iter().map(|row| row.label.as_str()).collect();
    assert_eq!(labels, ["releq", "full precision"]);
}
