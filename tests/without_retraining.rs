//! Searches that correct in place of retraining, with labels and without.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use std::{
    num::NonZeroUsize,
    ops::ControlFlow,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use releq::{
    Budget, Cancel, Event, Experiment, ExperimentConfig, ReleqError, Report, RunFolder,
    core::{BitwidthAssignment, Network, Weights},
    data::{
        Dataset, ImageSet, Normalization, Splits, WithLabels,
        digits::{self, DigitsConfig},
    },
    evaluate::{Evaluation, Evaluator, Retrain, RetrainSetup},
    quant::QuantizerKind,
    train::{
        Backend, Batch, Correction, Length, Schedule, Sgd, TrainError, Trainer, TrainerFactory,
        TrainerState, classes_while, trainer_fn,
    },
    zoo::lenet,
};
use releq_test_support::timeless;

fn digits() -> Splits {
    let config = DigitsConfig { train: 1500, test: 200, ..DigitsConfig::default() };
    digits::generate(&config).unwrap()
}

/// The same images without labels.
fn unlabelled(images: &ImageSet) -> ImageSet {
    let pixels = (0..images.len()).flat_map(|index| images.image(index).to_vec()).collect();
    ImageSet::unlabelled("photos", images.shape(), pixels).unwrap()
}

/// LeNet with a few epochs behind it.
static TRAINED: LazyLock<Weights> = LazyLock::new(|| {
    let sgd = Sgd { learning_rate: 0.03, momentum: 0.9, weight_decay: 1e-4 };
    let mut config = config();
    config.correction = None;
    config.pretrain = Schedule::new(Length::Steps(300), 32, sgd);
    Experiment::new(lenet(), digits(), config).pretrain(&Cancel::new(), &|_| {}).unwrap()
});

fn config() -> ExperimentConfig {
    let mut config = ExperimentConfig::lenet(3);
    config.threads = NonZeroUsize::new(2).unwrap();
    config.correction = Some(Correction { images: 70 });
    config.quantizer = QuantizerKind::WrpnScaledPerChannel.into();
    config.normalization = Some(Normalization { mean: vec![0.13], std: vec![0.31] });
    config.tolerance = 0.02;
    config.validation = 200;
    config.search_validation = 150;
    config.sensitivity_images = 100;
    config.budget = Budget { evaluations: Some(8), ..Budget::default() };
    config
}

fn experiment(data: Splits) -> Experiment {
    Experiment::new(lenet(), data, config()).weights(TRAINED.clone())
}

fn without_labels() -> Splits {
    let Splits { train, test, source } = digits();
    Splits { train: unlabelled(&train), test: unlabelled(&test), source }
}

fn run(data: Splits) -> Report {
    experiment(data).run(&Cancel::new(), &|_| {}).unwrap()
}

#[test]
fn labels_are_measured_by_where_there_are_some() {
    let report = run(digits());
    assert!(!report.unlabelled && report.full_precision_test > 0.7);
    let answer = report.answer.as_ref().unwrap();
    assert!(answer.within_tolerance, "{answer:?}");
    assert!(answer.bits.mean() < 8.0);
    // Full precision needs no correction, and nothing gets a second seed.
    let float = report.rows.iter().find(|row| row.label == "full precision").unwrap();
    assert_eq!(float.test_accuracy, report.full_precision_test);
    assert!(report.rows.iter().all(|row| row.seeds == 1));
    assert!(!report.reference.unwrap().retrained);
    let again = ExperimentConfig::from_json(&report.config.to_json().unwrap()).unwrap();
    assert_eq!(again, report.config);
}

#[test]
fn without_labels_everything_is_an_agreement_with_full_precision() {
    let report = run(without_labels());
    assert!(report.unlabelled);
    assert_eq!((report.full_precision_test, report.full_precision_validation), (1.0, 1.0));
    let answer = report.answer.as_ref().unwrap();
    assert!(answer.within_tolerance && answer.bits.mean() < 8.0, "{answer:?}");
    let of = |label: &str| report.rows.iter().find(|row| row.label == label).unwrap();
    assert!(of("uniform 8").test_accuracy > 0.97);
    assert!(of("uniform 2").test_accuracy < of("uniform 8").test_accuracy);
    let text = serde_json::to_string(&report).unwrap();
    assert!(text.contains("\"unlabelled\":true"));
}

/// What is measured at the end has been measured before, so no noise may lead past the cheapest that was good enough.
#[test]
fn every_search_answers_with_the_cheapest_that_it_measured_within_the_tolerance() {
    let mut config = config();
    config.search_validation = config.validation;
    config.compare = true;
    let tolerance = config.tolerance;
    let experiment = Experiment::new(lenet(), digits(), config).weights(TRAINED.clone());
    let report = experiment.run(&Cancel::new(), &|_| {}).unwrap();
    let full_precision = report.full_precision_validation;
    let floor = full_precision - tolerance;
    let mut found = vec![("releq".to_owned(), &report.search)];
    found.extend(
        report.comparisons.iter().map(|search| (format!("{} search", search.agent), search)),
    );
    assert!(found.len() > 1);
    for (label, search) in found {
        let scored = search.scored.iter().chain(&search.greedy);
        let good =
            scored.filter(|scored| scored.accuracy.min(scored.acc_state * full_precision) >= floor);
        let cheapest = good.map(|scored| scored.quant_state).min_by(f64::total_cmp).unwrap();
        let row = report.rows.iter().find(|row| row.label == label).unwrap();
        assert!(row.quant_state.unwrap() <= cheapest, "{label}: {row:?}");
        assert!(row.validation_accuracy >= floor, "{label}: {row:?}");
        let repeated = search.scored.iter().find(|scored| scored.bits == row.bits);
        assert!(repeated.is_none_or(|scored| scored.accuracy == row.validation_accuracy));
    }
}

#[test]
fn a_run_without_labels_goes_on_from_where_it_was_stopped_to_the_same_report() {
    let folder = tempfile::tempdir().unwrap();
    let straight = RunFolder::open(folder.path().join("straight")).unwrap();
    let straight = experiment(without_labels()).run_in(&straight, &Cancel::new(), &|_| {});
    let expected = straight.unwrap();
    // Stopped in the search, then in the corrections at the end.
    for stop_at in [3, 12] {
        let (cancel, seen) = (Cancel::new(), AtomicUsize::new(0));
        let on_event = |event: &Event| {
            let counts = matches!(event, Event::Episodes { .. } | Event::Retrained { .. });
            if counts && seen.fetch_add(1, Ordering::Relaxed) + 1 == stop_at {
                cancel.cancel();
            }
        };
        let run = RunFolder::open(folder.path().join("run")).unwrap();
        let stopped = experiment(without_labels()).run_in(&run, &cancel, &on_event).unwrap();
        assert!(stopped.cancelled, "stopped at {stop_at}");
    }
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let report = experiment(without_labels()).run_in(&run, &Cancel::new(), &|_| {}).unwrap();
    assert_eq!(timeless(&report), timeless(&expected));
}

/// A setup on digits for an evaluator.
fn with_evaluator<T>(validation: &dyn Dataset, use_it: impl FnOnce(RetrainSetup<'_>) -> T) -> T {
    let (network, train) = (lenet(), unlabelled(&digits().train));
    let (normalization, quantizer) =
        (config().normalization.unwrap(), QuantizerKind::WrpnScaled.build());
    use_it(RetrainSetup {
        network: &network,
        weights: &TRAINED,
        train: &train,
        validation,
        normalization: &normalization,
        quantizer: &quantizer,
        trainers: &Backend::Native,
        threads: NonZeroUsize::MIN,
        seed: 1,
        cancel: &Cancel::new(),
    })
}

#[test]
fn an_evaluator_corrects_and_says_so() {
    let test = digits().test;
    with_evaluator(&test, |setup| {
        let nothing = Sgd { learning_rate: 0.0, momentum: 0.0, weight_decay: 0.0 };
        let nothing = Schedule::new(Length::Steps(0), 8, nothing);
        // A retrain of no steps is the quantized network as it is; it asks for labels even so.
        let labelled = digits().train;
        let plain = Retrain::new(RetrainSetup { train: &labelled, ..setup }, nothing).unwrap();
        let correcting = Retrain::correcting(setup, Correction::default()).unwrap();
        assert_eq!((plain.name(), correcting.name()), ("retrain", "correction"));
        for bits in ["2-2-2-2", "3-3-3-3", "2-8-2-8"] {
            let bits: BitwidthAssignment = bits.parse().unwrap();
            let corrected = correcting.evaluate(&bits).unwrap();
            assert_eq!(correcting.evaluate(&bits).unwrap(), corrected);
            let divergence = |evaluation: &Evaluation| match evaluation {
                Evaluation::Measured(measured) => {
                    measured.compared.as_ref().unwrap().divergence.value
                }
                other => panic!("{other:?}"),
            };
            let (corrected, plain) =
                (divergence(&corrected), divergence(&plain.evaluate(&bits).unwrap()));
            // What is better on the images of the correction is not much worse on others.
            assert!(corrected < 1.2 * plain, "{bits}: {corrected} corrected, {plain} as quantized");
        }
    });
}

#[test]
fn an_evaluator_takes_the_classes_of_full_precision_for_labels() {
    let test = unlabelled(&digits().test);
    let missing = with_evaluator(&test, |setup| {
        Retrain::correcting(setup, Correction::default()).map(|_| ()).unwrap_err().to_string()
    });
    assert!(missing.contains("images have no labels"), "{missing}");
    let labels = with_evaluator(&test, |setup| {
        let RetrainSetup { network, weights, normalization, .. } = setup;
        let mut trainer = Backend::Native.trainer(network, setup.quantizer.clone()).unwrap();
        trainer.load(weights).unwrap();
        let go_on = || ControlFlow::Continue(());
        classes_while(trainer.as_mut(), &test, normalization, 64, &go_on).unwrap().unwrap()
    });
    let seen = WithLabels::new(test, 10, labels).unwrap();
    with_evaluator(&seen, |setup| {
        let correcting = Retrain::correcting(setup, Correction::default()).unwrap();
        assert_eq!(correcting.full_precision(), 1.0);
        let eight = correcting.evaluate(&"8-8-8-8".parse().unwrap()).unwrap();
        assert!(eight.accuracy().unwrap() > 0.97);
    });
}

/// A trainer that knows nothing of moments.
struct Plain(Box<dyn Trainer>);

impl Trainer for Plain {
    fn network(&self) -> &Network {
        self.0.network()
    }
    fn set_bits(&mut self, bits: Option<&BitwidthAssignment>) -> Result<(), TrainError> {
        self.0.set_bits(bits)
    }
    fn train_step(&mut self, batch: &Batch<'_>, optimizer: Sgd) -> Result<f32, TrainError> {
        self.0.train_step(batch, optimizer)
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

#[test]
fn what_cannot_be_corrected_or_measured_is_said() {
    let refused = |experiment: Experiment| -> ReleqError {
        experiment.run(&Cancel::new(), &|_| {}).unwrap_err()
    };
    let plain = trainer_fn(|network, quantizer| {
        Ok(Box::new(Plain(Backend::Native.trainer(network, quantizer)?)))
    });
    let message = refused(experiment(digits()).trainer("plain", plain)).to_string();
    assert!(message.contains("does not tell the means of its layers"), "{message}");

    let message = refused(Experiment::new(lenet(), without_labels(), config())).to_string();
    assert!(message.contains("`weights`") && message.contains("no labels"), "{message}");

    let mut training = config();
    training.correction = None;
    let training = Experiment::new(lenet(), without_labels(), training).weights(TRAINED.clone());
    let message = refused(training).to_string();
    assert!(message.contains("images have no labels"), "{message}");

    let mut none = config();
    none.correction = Some(Correction { images: 0 });
    let message = refused(Experiment::new(lenet(), digits(), none)).to_string();
    assert!(message.contains("`correction`"), "{message}");
}
