//! A search on networks of the zoo: settings from presets, weights that are given, assignments beside.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::{collections::BTreeSet, sync::Mutex};

use releq::{
    Budget, Cancel, Choice, Event, Experiment, ExperimentConfig, Report, Stage,
    core::{Network, Weights},
    data::{ImageSet, Normalization, Splits, digits},
    train::Length,
    zoo::{self, NAMES},
};

#[test]
fn every_network_has_settings_of_its_preset() {
    for name in NAMES {
        let config = ExperimentConfig::preset(name, 7).unwrap();
        let (network, preset) = (zoo::by_name(name).unwrap(), zoo::preset(name).unwrap());
        let layers: Vec<_> = network.profiles().into_iter().map(|layer| layer.name).collect();
        let fixed: BTreeSet<_> = config.fixed_layers.iter().map(|(layer, _)| layer).collect();
        for (index, layer) in layers.iter().enumerate() {
            assert_eq!(fixed.contains(layer), !preset.searched.contains(&index), "{name} {layer}");
        }
        assert!(config.fixed_layers.iter().all(|(_, bits)| bits.get() == 8), "{name}");
        let published: Vec<_> = zoo::published_bits(name).into_iter().collect();
        assert_eq!(
            config.beside.iter().map(|(_, bits)| bits.clone()).collect::<Vec<_>>(),
            published
        );
        for schedule in [config.pretrain, config.short_retrain, config.long_retrain] {
            schedule.check().unwrap();
        }
        assert_eq!(config.seed, 7);
        if name != "lenet" {
            assert_eq!(config.quantizer, Choice::Ours(preset.quantizer), "{name}");
            assert_eq!(config.normalization, Some(preset.normalization), "{name}");
            assert_eq!(config.long_retrain.length, preset.long_retrain.length, "{name}");
        }
    }
    assert!(ExperimentConfig::preset("vgg99", 1).is_none());
}

/// Drawn digits in the middle of images of three channels and 32 x 32 pixels.
fn data() -> Splits {
    let config = digits::DigitsConfig { train: 600, test: 100, ..Default::default() };
    let drawn = digits::generate(&config).unwrap();
    let wide = |set: &ImageSet| {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for index in 0..set.len() {
            let mut plane = vec![0; 32 * 32];
            for (row, line) in set.image(index).chunks(28).enumerate() {
                plane[(row + 2) * 32 + 2..][..28].copy_from_slice(line);
            }
            (0..3).for_each(|_| pixels.extend_from_slice(&plane));
            labels.push(set.label(index));
        }
        ImageSet::new("wide digits", [3, 32, 32], 10, pixels, labels).unwrap()
    };
    Splits { train: wide(&drawn.train), test: wide(&drawn.test), source: drawn.source }
}

/// The preset of SimpleNet, every stage a few steps long.
fn config() -> ExperimentConfig {
    let mut config = ExperimentConfig::preset("simplenet", 3).unwrap();
    config.validation = 100;
    // A search may leave it uncertain what is within the tolerance, and full precision then gets another seed, too.
    config.seeds = 1;
    config.pretrain.length = Length::Steps(60);
    for schedule in [&mut config.short_retrain, &mut config.long_retrain] {
        schedule.length = Length::Steps(3);
        schedule.batch_size = 20;
    }
    config.budget = Budget { evaluations: Some(0), ..Budget::default() };
    config
}

fn network() -> Network {
    zoo::simplenet()
}

/// The report, and the stages that were run.
fn run(config: ExperimentConfig, weights: &Weights) -> (Report, Vec<Stage>) {
    let stages = Mutex::new(Vec::new());
    let news = |event: &Event| {
        let mut stages = stages.lock().unwrap();
        if stages.last() != Some(&event.stage()) {
            stages.push(event.stage());
        }
    };
    let experiment = Experiment::new(network(), data(), config).weights(weights.clone());
    let report = experiment.run(&Cancel::new(), &news).unwrap();
    (report, stages.into_inner().unwrap())
}

fn trained() -> Weights {
    let never = Cancel::new();
    Experiment::new(network(), data(), config()).pretrain(&never, &|_| {}).unwrap()
}

#[test]
fn without_evaluations_published_and_uniform_bits_are_compared() {
    let weights = trained();
    let (report, stages) = run(config(), &weights);
    assert_eq!(stages, [Stage::Final]);
    let labels: Vec<_> = report.rows.iter().map(|row| row.label.as_str()).collect();
    assert_eq!(
        labels,
        ["full precision", "published", "uniform 8", "uniform 4", "uniform 3", "uniform 2"]
    );
    assert_eq!(report.rows[1].bits.to_string(), "5-5-5-5-5");
    assert_eq!((report.search.evaluations, report.search.episodes), (0, 0));
    assert!(report.search.greedy.is_none() && !report.cancelled);
    // What is retrained beside the search may be the answer.
    let answer = report.answer.as_ref().unwrap();
    assert!(report.rows[1..].iter().any(|row| row.label == answer.label), "{answer:?}");

    // With a search, what it found comes first and what it is compared with stays the same.
    let mut searched = config();
    searched.budget.evaluations = Some(9);
    searched.compare = false;
    let (with_search, _) = run(searched, &weights);
    assert_eq!(with_search.rows[0].label, "releq");
    assert_eq!(with_search.rows[1..], report.rows[..]);
}

#[test]
fn given_weights_are_fine_tuned_when_told_to() {
    let weights = trained();
    let (as_given, _) = run(config(), &weights);
    let mut tuned = config();
    tuned.fine_tune = Some(tuned.pretrain);
    let never = Cancel::new();
    let longer = Experiment::new(network(), data(), tuned.clone())
        .weights(weights.clone())
        .pretrain(&never, &|_| {})
        .unwrap();
    assert_ne!(longer, weights);
    let (report, stages) = run(tuned, &weights);
    assert_eq!(stages, [Stage::Pretrain, Stage::Final]);
    // As from the weights that this training ends with, which is not as from those that were given.
    let (same, _) = run(config(), &longer);
    assert_eq!(report.rows, same.rows);
    assert_ne!(report.rows, as_given.rows);

    // It can be stopped like any training.
    let mut tuned = config();
    tuned.fine_tune = Some(tuned.pretrain);
    let stop = Cancel::new();
    let at_once = |event: &Event| {
        assert_eq!(event.stage(), Stage::Pretrain);
        stop.cancel();
    };
    let outcome = Experiment::new(network(), data(), tuned).weights(weights).run(&stop, &at_once);
    assert!(matches!(outcome, Err(releq::ReleqError::Cancelled)));
}

#[test]
fn the_normalization_is_the_callers_or_measured() {
    let weights = trained();
    let with = |normalization| {
        let mut config = config();
        config.normalization = normalization;
        run(config, &weights).0.full_precision_validation
    };
    let (rest, _) = data().train.split(100, 3).unwrap();
    assert_eq!(with(None), with(Some(Normalization::measured(&rest).unwrap())));
    let black = Normalization { mean: vec![0.0; 3], std: vec![1e6; 3] };
    // Every image looks the same, so one class of ten is right.
    assert_eq!(with(Some(black)), 0.1);
}

#[test]
fn an_assignment_that_does_not_fit_is_refused_before_any_training() {
    let refused = |bits: &str, expected: &str| {
        let mut config = config();
        config.beside = vec![("mine".to_owned(), bits.parse().unwrap())];
        let experiment = Experiment::new(network(), data(), config);
        let outcome = experiment.run(&Cancel::new(), &|_| panic!("nothing may start"));
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains(expected), "`{message}` lacks `{expected}`");
    };
    refused("8-8-8", "`mine` has 3 bitwidths, the network has 5 layers");
    refused("8-8-8-8-32", "32");
}
