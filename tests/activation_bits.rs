//! Searches over the bitwidths of activations beside those of weights.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use std::num::NonZeroUsize;

use releq::{
    Budget, Cancel, Event, Experiment, ExperimentConfig, ReleqError, Report, RunFolder, Stage,
    core::{Bitwidth, LayerKind, Network, Op},
    data::{
        Dataset, Splits, Subset,
        digits::{self, DigitsConfig},
    },
    hw::CostKind,
    quant::QuantizerKind,
    train::{
        self, Calibration, Length, NativeTrainer, RangeRule, RoundedActivations, Trainer,
        initial_weights,
    },
    zoo::lenet,
};
use releq_test_support::timeless;

fn data() -> Splits {
    digits::generate(&DigitsConfig { train: 600, test: 100, ..DigitsConfig::default() }).unwrap()
}

fn network() -> Network {
    lenet().with_fake_quantize().unwrap()
}

fn bits(all: &[u8]) -> Vec<Bitwidth> {
    all.iter().map(|&bits| Bitwidth::new(bits).unwrap()).collect()
}

/// All stages, each a few steps long.
fn config() -> ExperimentConfig {
    let mut config = ExperimentConfig::lenet(5);
    (config.validation, config.search_validation) = (100, 60);
    for (schedule, steps) in
        [(&mut config.pretrain, 60), (&mut config.short_retrain, 3), (&mut config.long_retrain, 8)]
    {
        schedule.length = Length::Steps(steps);
        schedule.batch_size = 20;
    }
    config.sensitivity_images = 40;
    config.seeds = 1;
    config.budget = Budget { evaluations: Some(12), ..Budget::default() };
    config.cost = CostKind::Bitops.into();
    config.activation_actions = bits(&[4, 8]);
    config.beside = vec![("published".to_owned(), "2-2-3-2".parse().unwrap())];
    config
}

fn experiment(config: ExperimentConfig) -> Experiment {
    Experiment::new(network(), data(), config)
}

#[test]
fn activations_are_actions_like_weights() {
    let run = |threads: usize| {
        let mut config = config();
        config.threads = NonZeroUsize::new(threads).unwrap();
        experiment(config).run(&Cancel::new(), &|_| {}).unwrap()
    };
    let report = run(1);
    let is_rounded: Vec<bool> =
        network().profiles().iter().map(|layer| layer.kind == LayerKind::Activations).collect();
    assert_eq!(is_rounded.iter().filter(|rounded| **rounded).count(), 4);
    let searches = report.comparisons.iter().chain([&report.search]);
    let scored: Vec<_> = searches.flat_map(|search| &search.scored).collect();
    let mut seen = [false; 2];
    for scored in &scored {
        for (&bits, rounded) in scored.bits.iter().zip(&is_rounded) {
            if *rounded {
                assert!([4, 8].contains(&bits.get()), "{}", scored.bits);
                seen[usize::from(bits == Bitwidth::EIGHT)] = true;
            } else {
                assert!((2..=8).contains(&bits.get()), "{}", scored.bits);
            }
        }
    }
    assert_eq!(seen, [true; 2], "both bitwidths are tried");
    let sensitivities = report.sensitivities.as_ref().unwrap();
    for (layer, rounded) in sensitivities.layers.iter().zip(&is_rounded) {
        assert_eq!(layer.bits.len(), if *rounded { 2 } else { 7 }, "{}", layer.name);
    }

    let row = |label: &str| report.rows.iter().find(|row| row.label == label).unwrap();
    assert!(row("full precision").bits.iter().all(|bits| bits.is_float()));
    assert_eq!(row("uniform 8").quant_state, Some(1.0));
    // Weights at 3 bits, what they read at 4: 12 of 64 products of bits.
    let three = row("uniform 3");
    assert_eq!((three.mean_bits, three.quant_state), (3.0, Some(12.0 / 64.0)));
    assert!(three.bits.iter().zip(&is_rounded).all(|(bits, r)| bits.get() == 3 + u8::from(*r)));
    assert_eq!(row("published").bits.to_string(), "8-2-8-2-8-3-8-2");
    // No layer but those with weights has a size, and biases stay as they are.
    assert!((three.cost("size").unwrap().saving() - 8.0 / 3.0).abs() < 0.05);

    assert_eq!(timeless(&report), timeless(&run(3)).replace("\"threads\": 3", "\"threads\": 1"));
}

/// A run in a folder, stopped once in every stage, and what is taken away from it.
#[test]
fn a_run_goes_on_and_its_answer_has_the_grids_that_were_found() {
    let whole = tempfile::tempdir().unwrap();
    let in_folder = |path: &std::path::Path, cancel: &Cancel, on: &(dyn Fn(&Event) + Sync)| {
        let folder = RunFolder::open(path).unwrap();
        experiment(config()).run_in(&folder, cancel, on)
    };
    let report: Report = in_folder(whole.path(), &Cancel::new(), &|_| {}).unwrap();

    let stopped = tempfile::tempdir().unwrap();
    for stage in [Stage::Pretrain, Stage::Sensitivities, Stage::Search, Stage::Final] {
        let cancel = Cancel::new();
        let on = |event: &Event| {
            if event.stage() == stage {
                cancel.cancel();
            }
        };
        match in_folder(stopped.path(), &cancel, &on) {
            Ok(_) | Err(ReleqError::Cancelled) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let resumed = in_folder(stopped.path(), &Cancel::new(), &|_| {}).unwrap();
    assert_eq!(timeless(&resumed), timeless(&report));

    let found = RunFolder::answer_of(whole.path()).unwrap();
    let answer = report.answer.as_ref().unwrap();
    let plain = found.model.network();
    assert!(plain.nodes().iter().all(|node| node.op != Op::FakeQuantize));
    assert_eq!(found.model.layers().count(), 4);
    let weight_bits: Vec<Bitwidth> = found.model.layers().map(|(_, bits)| bits).collect();
    assert_eq!(weight_bits[..], network().weight_bits(&answer.bits).unwrap()[..]);
    let sources: Vec<&str> = found.activations.keys().map(String::as_str).collect();
    assert_eq!(sources, ["input", "relu1", "relu2", "relu3"]);

    // What integer kernels compute with these grids is as accurate as the report says.
    let (splits, config) = (data(), config());
    let train = Subset::all(&splits.train as &dyn Dataset);
    let (train, _) = train.split(config.validation, config.seed).unwrap();
    let images = train.take(Calibration::IMAGES.get(), config.seed).unwrap();
    let normalization = report.normalization.clone().unwrap();
    let mut trainer = NativeTrainer::new(plain, QuantizerKind::WrpnScaled.build()).unwrap();
    trainer.load(&found.model.dequantized()).unwrap();
    let calibration = Calibration::of(&mut trainer, &images, &normalization).unwrap();
    let grids =
        calibration.grids_beside(&trainer, RangeRule::MinMax, None, &found.activations).unwrap();
    assert_eq!(grids.layers["relu1"], found.activations["relu1"]);
    let mut trainer = RoundedActivations::new(trainer, &grids);
    let accuracy = train::accuracy(&mut trainer, &splits.test, &normalization, 100).unwrap();
    let rounded = report.rounded.unwrap();
    assert_eq!(accuracy.accuracy(), rounded.with_activations);
    // All that LeNet rounds was searched, but for what leaves its convolutions, which is in none of its weights' inputs.
    let row = report.chosen_row().unwrap();
    assert!((rounded.with_activations - row.test_accuracy).abs() < 0.03, "{rounded:?}");
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let refused = |network: Network, change: &dyn Fn(&mut ExperimentConfig)| {
        let mut config = config();
        change(&mut config);
        let experiment = Experiment::new(network, data(), config);
        experiment.run(&Cancel::new(), &|_| {}).unwrap_err().to_string()
    };
    let plain = refused(lenet(), &|_| {});
    assert!(plain.contains("the network does not round its activations"), "{plain}");
    let nine = refused(network(), &|config| config.activation_actions = bits(&[4, 9]));
    assert!(nine.contains("activations have 1 to 8 bits, not 9"), "{nine}");
    let twice = refused(network(), &|config| config.activation_actions = bits(&[4, 4]));
    assert!(twice.contains("4 is there twice"), "{twice}");
}

#[test]
fn weights_that_say_nothing_of_ranges_are_taken() {
    let mut config = config();
    config.budget = Budget { evaluations: Some(0), ..Budget::default() };
    config.uniform = bits(&[8]);
    let weights = initial_weights(&lenet(), 1);
    let report = experiment(config).weights(weights).run(&Cancel::new(), &|_| {}).unwrap();
    assert!(report.rows.iter().all(|row| row.failure.is_none()), "{:?}", report.rows);
}
