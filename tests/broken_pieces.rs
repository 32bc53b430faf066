//! Pieces of the user's own that break in the middle of a run: nobody's panic leaves `Experiment::run`, the error names
//! the piece, and what was measured before is in the report.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use releq::{
    AgentKind, Budget, Cancel, Experiment, ExperimentConfig, ReleqError, Report, RunFolder,
    core::{
        Bitwidth, BitwidthAssignment, Cost, CostError, CostModel, LayerBits, LayerProfile, Network,
        Weights, with_causes,
    },
    data::{
        DataError, Dataset, DatasetInfo, ImageSet, Label, Splits,
        digits::{self, DigitsConfig},
    },
    evaluate::{Evaluation, Evaluator, Measurement},
    hw::{Bound, CostLimit},
    quant::{LayerWeights, QuantError, Quantizer, WrpnScaled},
    reward::{Reward, reward_fn},
    train::{
        Backend, Batch, Compared, Length, Sgd, TrainError, Trainer, TrainerFactory, TrainerState,
        trainer_fn,
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

/// Ours, but for a fuse that its steps burn down, and what becomes of its weights when they are asked for.
struct BrokenTrainer {
    ours: Box<dyn Trainer>,
    fuse: Fuse,
    forget: fn(&mut Weights),
}

impl Trainer for BrokenTrainer {
    fn network(&self) -> &Network {
        self.ours.network()
    }
    fn set_bits(&mut self, bits: Option<&BitwidthAssignment>) -> Result<(), TrainError> {
        self.ours.set_bits(bits)
    }
    fn train_step(&mut self, batch: &Batch<'_>, sgd: Sgd) -> Result<f32, TrainError> {
        self.fuse.burn();
        self.ours.train_step(batch, sgd)
    }
    fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, TrainError> {
        self.ours.logits(images)
    }
    fn snapshot(&self) -> TrainerState {
        self.ours.snapshot()
    }
    fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError> {
        self.ours.restore(state)
    }
    fn weights(&self) -> Weights {
        let mut weights = self.ours.weights();
        (self.forget)(&mut weights);
        weights
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
            Ok(Box::new(BrokenTrainer { ours, fuse: fuse.clone(), forget: |_| {} }))
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
    // 48 calls are the look at full precision and the uniform rows in the beginning.
    let report = run(priced(60, 10.0)).unwrap();
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

/// As [`BrokenEvaluator`], but well again after it went off once.
struct Flaky(AtomicUsize, usize);

impl Evaluator for Flaky {
    fn full_precision(&self) -> f64 {
        0.9
    }
    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        assert!(self.0.fetch_add(1, Ordering::Relaxed) != self.1, "boom");
        Ok(Evaluation::new(0.9 - 0.2 / bits.mean()))
    }
}

#[test]
fn a_comparison_that_fails_costs_nothing_but_itself_and_is_made_up_for() {
    let flaky = |goes_off: usize| {
        let mut config = small();
        config.compare = true;
        config.agent = AgentKind::Random.into();
        Experiment::new(lenet(), drawn(), config)
            .evaluator("board", move |_| Ok(Box::new(Flaky(AtomicUsize::new(0), goes_off))))
    };
    let whole = run(flaky(usize::MAX)).unwrap();
    let names = |report: &Report| {
        report.comparisons.iter().map(|search| search.agent.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&whole), ["local", "evolution", "random"]);
    // Call 6 is the first of the first comparison.
    for goes_off in [6, 8, 11] {
        let folder = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(folder.path().join("run")).unwrap();
        let first = flaky(goes_off).run_in(&folder, &Cancel::new(), &|_| {}).unwrap();
        assert_eq!(first.failed(), Some("evaluator `board` panicked: boom"), "call {goes_off}");
        assert_eq!(first.search.scored, whole.search.scored);
        assert!(first.answer.is_some());
        let again = flaky(usize::MAX).run_in(&folder, &Cancel::new(), &|_| {}).unwrap();
        assert_eq!((again.failed(), names(&again)), (None, names(&whole)), "call {goes_off}");
        assert_eq!(again.rows, whole.rows);
    }
}

#[test]
fn a_cost_model_that_breaks_late_leaves_what_was_measured() {
    // Four layers at seven bitwidths are looked at twice before the search.
    for calls in [70, 80, 120] {
        let report = run(experiment().cost(BrokenCost(Fuse::new(calls), 10.0))).unwrap();
        let failed = report.failed().unwrap();
        assert!(failed.contains("cost model `meter` panicked: boom"), "{calls}: {failed}");
        assert!(!report.search.scored.is_empty() && !report.rows.is_empty(), "after {calls} calls");
    }
}

/// Answers as it is told.
struct Says(fn(&BitwidthAssignment) -> Result<Evaluation, ReleqError>);

impl Evaluator for Says {
    fn full_precision(&self) -> f64 {
        0.9
    }
    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        (self.0)(bits)
    }
}

#[test]
fn measurements_that_cannot_be_count_as_failed_and_reports_can_be_read() {
    let says = |how: fn(&BitwidthAssignment) -> Result<Evaluation, ReleqError>| {
        let report =
            run(experiment().evaluator("board", move |_| Ok(Box::new(Says(how))))).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&report.to_json()).unwrap(), report);
        report
    };
    let compared = says(|_| {
        let zero = r#"{"divergence": {"value": 0.0, "standard_error": 0.0}}"#;
        let mut compared: Compared = serde_json::from_str(zero).unwrap();
        compared.divergence.value = f64::NAN;
        Ok(Measurement::new(0.8).with_compared(compared).into())
    });
    assert_eq!(compared.search.failures, compared.search.evaluations);
    let short = says(|_| Ok(Measurement::new(0.8).of("2-2".parse().unwrap()).into()));
    let failure = short.search.scored[0].failure.as_deref();
    assert_eq!(failure, Some("the evaluator answered for 2 layers of 4"));
    // Bits that nobody may choose are no candidates.
    let wide = says(|_| Ok(Measurement::new(0.8).of("16-16-16-16".parse().unwrap()).into()));
    assert_eq!((wide.failed(), wide.search.failures), (None, 0));
    // Nobody stopped the run, but it has not come to its end either.
    let stopped = says(|bits| match bits.mean() < 8.0 {
        true => Err(ReleqError::Cancelled),
        false => Ok(Evaluation::new(0.8)),
    });
    assert!(stopped.cancelled);
}

#[test]
fn scores_of_a_batch_are_kept_although_one_of_them_fails() {
    let mut config = small();
    config.agent = AgentKind::Random.into();
    let first = AtomicUsize::new(0);
    let moody =
        reward_fn(
            "moody",
            move |_, _| {
                if first.fetch_add(1, Ordering::Relaxed) == 2 { f64::NAN } else { 0.5 }
            },
        );
    let experiment = Experiment::new(lenet(), drawn(), config).reward(moody);
    let experiment =
        experiment.evaluator("board", |_| Ok(Box::new(Says(|_| Ok(Evaluation::new(0.8))))));
    let report = run(experiment).unwrap();
    let failed = report.failed().unwrap().to_owned();
    assert!(failed.starts_with("reward `moody`: NaN is not"), "{failed}");
    // Six were asked for at a time.
    assert!(report.search.scored.len() > 2, "those after the third, too");
}

#[test]
fn a_trainer_whose_weights_are_none_does_not_spoil_a_folder() {
    type Forget = fn(&mut Weights);
    let ways: [(Forget, &str); 2] = [
        (|weights| drop(weights.0.remove("conv1.weight")), "parameter `conv1.weight` is missing"),
        (
            |weights| weights.0.get_mut("fc1.bias").unwrap().values[0] = f32::NAN,
            "parameter `fc1.bias` is not finite",
        ),
    ];
    for (forget, expected) in ways {
        let path = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(path.path().join("run")).unwrap();
        let old = trainer_fn(move |network: &Network, quantizer| {
            let ours = Backend::Native.trainer(network, quantizer)?;
            Ok(Box::new(BrokenTrainer { ours, fuse: Fuse::new(usize::MAX), forget }))
        });
        let ended =
            ended_by(experiment().trainer("old", old).run_in(&folder, &Cancel::new(), &|_| {}));
        let expected =
            format!("trainer `old` failed: after the full-precision training, {expected}");
        assert_eq!(ended, expected);
        let mended = experiment().trainer("old", Backend::Native);
        let report = mended.run_in(&folder, &Cancel::new(), &|_| {}).unwrap();
        assert_eq!(report.failed(), None);
    }
}

#[test]
fn names_that_stand_for_two_things_are_refused() {
    let cost = || BrokenCost(Fuse::new(usize::MAX), 10.0);
    let twice = experiment().report_cost(cost()).report_cost(cost());
    let ended = ended_by(run(twice));
    assert!(ended.contains("`report_costs`: two pieces are called `meter`"), "{ended}");
    let limit = || CostLimit::new(Arc::new(cost()), Bound::Absolute(1e9)).unwrap();
    let ended = ended_by(run(experiment().limit(limit()).limit(limit())));
    assert!(ended.contains("`limits`: two pieces are called"), "{ended}");
    // What the search makes cheap is no report's cost.
    let report =
        run(experiment().cost(cost()).report_cost(BrokenCost(Fuse::new(usize::MAX), 20.0)));
    assert_eq!(report.unwrap().rows[0].cost("meter").unwrap().cost, 50.0);
}

#[test]
fn labels_that_the_network_has_no_output_for_are_refused() {
    #[derive(Debug)]
    struct Labelled(ImageSet, Label);

    impl Dataset for Labelled {
        fn info(&self) -> DatasetInfo<'_> {
            self.0.info()
        }
        fn label(&self, _: usize) -> Option<Label> {
            Some(self.1)
        }
        fn read_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
            self.0.read_image(index, pixels)
        }
    }

    let Splits { train, test, source } = drawn();
    let (train, test) = (Arc::new(train) as Arc<dyn Dataset>, Arc::new(Labelled(test, 10)));
    let data = Splits { train, test: test as Arc<dyn Dataset>, source };
    let ended = ended_by(run(Experiment::new(lenet(), data, small())));
    assert!(ended.contains("label 10 is not below the 10 outputs"), "{ended}");
}
