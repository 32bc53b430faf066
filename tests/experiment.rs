//! The whole path on a small set of drawn digits.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use std::num::NonZeroUsize;

use releq::{
    Budget, Cancel, Choice, Event, Experiment, ExperimentConfig, HeldOut, ReleqError, Report,
    Scored, Stage, StopReason,
    core::{Bitwidth, Network},
    data::{
        Splits,
        digits::{self, DigitsConfig},
    },
    evaluate::EarlyStop,
    hw::{CostKind, CostWeighted},
    quant::QuantizerKind,
    reward::reward_fn,
    train::{Length, initial_weights},
    zoo::lenet,
};
use releq_test_support::without_times;

fn data() -> Splits {
    digits::generate(&DigitsConfig { train: 700, test: 100, ..DigitsConfig::default() }).unwrap()
}

/// All stages, each a few steps long.
fn config(seed: u64) -> ExperimentConfig {
    let mut config = ExperimentConfig::lenet(seed);
    config.validation = 100;
    config.search_validation = 60;
    config.pretrain.length = Length::Steps(30);
    config.pretrain.batch_size = 20;
    config.short_retrain.length = Length::Steps(2);
    config.short_retrain.batch_size = 20;
    config.long_retrain.length = Length::Steps(4);
    config.long_retrain.batch_size = 20;
    config.budget = Budget { evaluations: Some(9), ..Budget::default() };
    config
}

/// [`config`] with a change.
fn changed(seed: u64, change: impl FnOnce(&mut ExperimentConfig)) -> ExperimentConfig {
    let mut config = config(seed);
    change(&mut config);
    config
}

fn run(config: ExperimentConfig) -> Report {
    Experiment::new(lenet(), data(), config).run(&Cancel::new(), &|_| {}).unwrap()
}

/// The report without what its answers do not depend on: wall times, threads, where weights came from.
fn timeless(report: &Report) -> String {
    let mut value = serde_json::to_value(report).unwrap();
    without_times(&mut value);
    let config = value["config"].as_object_mut().unwrap();
    config.remove("threads");
    config.remove("weights");
    serde_json::to_string_pretty(&value).unwrap()
}

#[test]
fn a_report_follows_from_its_seed_for_any_number_of_threads() {
    let threads = |threads| changed(5, |c| c.threads = NonZeroUsize::new(threads).unwrap());
    let one = run(threads(1));
    assert_eq!(timeless(&one), timeless(&run(threads(1))));
    assert_eq!(timeless(&one), timeless(&run(threads(2))));
    assert_eq!(timeless(&one), timeless(&run(threads(3))));
    assert_ne!(timeless(&one), timeless(&run(config(6))));

    let labels: Vec<_> = one.rows.iter().map(|row| row.label.as_str()).collect();
    assert_eq!(
        labels,
        [
            "releq",
            "knapsack search",
            "local search",
            "evolution search",
            "random search",
            "full precision",
            "uniform 8",
            "uniform 4",
            "uniform 3",
            "uniform 2"
        ]
    );
    assert_eq!(one.images, [600, 100, 100]);
    let evaluations = one.search.evaluations;
    assert!((4..=9).contains(&evaluations), "{evaluations}");
    assert!(one.comparisons.iter().all(|outcome| outcome.evaluations == evaluations));
    let uniform8 = &one.rows[6];
    assert_eq!((uniform8.mean_bits, uniform8.quant_state), (8.0, Some(1.0)));
    assert_eq!(uniform8.cost("stripes").unwrap().saving(), 1.0);
    assert_eq!(one.rows[9].quant_state, Some(0.25));
    assert!(one.rows[9].cost("stripes").unwrap().saving() > 3.0);

    // What is written is what was found.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    one.write_json(&path).unwrap();
    let read: Report = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(read, one);
    let path = folder.path().join("rows.csv");
    one.write_csv(&path).unwrap();
    let mut csv = csv::Reader::from_path(&path).unwrap();
    assert_eq!(csv.records().count(), one.rows.len());
}

#[test]
fn rows_may_have_more_bits_than_the_search_could_choose() {
    let mut config = config(7);
    config.actions = [2, 4].map(|bits| Bitwidth::new(bits).unwrap()).to_vec();
    config.fixed_layers = vec![("conv1".into(), Bitwidth::EIGHT)];
    config.compare = false;
    for cost in [CostKind::MeanBits, CostKind::CostWeighted(CostWeighted::default())] {
        config.cost = cost.into();
        let report = run(config.clone());
        let uniform8 = report.rows.iter().find(|row| row.label == "uniform 8").unwrap();
        assert_eq!(uniform8.quant_state, Some(2.0));
    }
}

#[test]
fn more_finalists_than_assignments_are_all_of_them() {
    let finals = |count| {
        run(changed(1, |c| {
            c.finalists = count;
            c.budget = Budget { evaluations: Some(5), episodes: Some(40), ..Budget::default() };
        }))
        .rows
    };
    assert_eq!(finals(usize::MAX), finals(20));
}

#[test]
fn diverging_retrains_count_as_failed_and_the_search_goes_on() {
    // The loss tells after a few steps; after the last one only the weights do.
    for (steps, weight_decay, expected) in [(4, 0.0, "loss"), (1, 1e30, "inf")] {
        let mut config = config(1);
        config.short_retrain.sgd.learning_rate = 1e30;
        config.short_retrain.sgd.weight_decay = weight_decay;
        config.short_retrain.length = Length::Steps(steps);
        let report = run(config);
        assert_eq!(report.search.failures, report.search.evaluations);
        // The uniform assignments; where none of them works, nothing promises to.
        assert_eq!(report.search.evaluations, 7);
        assert_eq!(report.search.stop, StopReason::Converged);
        assert!(report.search.scored.iter().all(|scored| scored.failure.is_some()));
        let reason = report.search.scored[0].failure.as_deref().unwrap();
        assert!(reason.contains(expected), "{reason}");
        // The long retrains of the uniform assignments still stand beside it.
        assert!(report.rows.iter().any(|row| row.label == "uniform 8" && row.failure.is_none()));
    }
}

#[test]
fn pretraining_that_diverges_ends_the_run_and_names_its_setting() {
    let wild = |c: &mut ExperimentConfig| c.pretrain.sgd.learning_rate = 1e6;
    let run = |experiment: Experiment| experiment.run(&Cancel::new(), &|_| {}).unwrap_err();
    let error = run(Experiment::new(lenet(), data(), changed(1, wild)));
    assert!(matches!(error, ReleqError::Pretraining { .. }), "{error:?}");
    assert!(error.to_string().contains("`pretrain.sgd.learning_rate`"), "{error}");
    let tuned = changed(1, |c| {
        wild(c);
        c.fine_tune = Some(c.pretrain);
    });
    let weights = initial_weights(&lenet(), 1);
    let error = run(Experiment::new(lenet(), data(), tuned).weights(weights));
    assert!(error.to_string().contains("`fine_tune.sgd.learning_rate`"), "{error}");
}

#[test]
fn a_collapsed_retrain_is_given_up_and_no_other_answer_changes() {
    let config = |early_stop| {
        let mut config = config(3);
        // Without a scale, 2 bits round nearly every weight to zero.
        config.quantizer = QuantizerKind::Wrpn.into();
        config.actions = [2, 8].map(|bits| Bitwidth::new(bits).unwrap()).to_vec();
        config.budget = Budget { evaluations: Some(16), episodes: Some(100), ..Budget::default() };
        config.compare = false;
        config.finalists = 1;
        config.short_retrain.length = Length::Steps(8);
        config.early_stop = early_stop;
        config
    };
    let (with, without) = (run(config(Some(EarlyStop::default()))), run(config(None)));
    assert_eq!(
        timeless(&with),
        timeless(&run({
            let mut config = config(Some(EarlyStop::default()));
            config.threads = NonZeroUsize::new(2).unwrap();
            config
        }))
    );
    assert!(without.search.scored.iter().all(|scored| scored.stopped_after.is_none()));
    let (mut given_up, mut same) = (0, 0);
    for scored in &with.search.scored {
        if let Some(step) = scored.stopped_after {
            assert_eq!(step, 2, "a quarter of the steps: {scored:?}");
            assert!(scored.acc_state < 0.5, "{scored:?}");
            given_up += 1;
        } else if let Some(other) = without.search.scored.iter().find(|o| o.bits == scored.bits) {
            assert_eq!(scored, other);
            same += 1;
        }
    }
    assert!(given_up > 0 && same > 0, "{given_up} given up, {same} compared");
}

#[test]
fn images_for_choices_can_come_from_the_test_images() {
    let report = run(changed(5, |c| (c.held_out, c.validation) = (HeldOut::Test, 40)));
    assert_eq!(report.images, [700, 40, 60]);
    let all = changed(5, |c| (c.held_out, c.validation) = (HeldOut::Test, 100));
    let message = refused(lenet(), all);
    assert!(message.contains("100"), "{message}");
}

#[test]
fn cancelled_before_the_search_there_is_no_report() {
    let stop = Cancel::new();
    stop.cancel();
    let outcome = Experiment::new(lenet(), data(), config(1)).run(&stop, &|_| {});
    assert!(matches!(outcome, Err(ReleqError::Cancelled)));
}

#[test]
fn cancelled_in_the_search_the_best_so_far_is_reported() {
    let stop = Cancel::new();
    let after_a_batch = |event: &Event| {
        if matches!(event, Event::Episodes { .. }) {
            stop.cancel();
        }
    };
    let report = Experiment::new(lenet(), data(), config(1)).run(&stop, &after_a_batch).unwrap();
    assert!(report.cancelled);
    assert!(report.rows.is_empty());
    let chosen = report.chosen.as_ref().expect("one batch was measured");
    assert!(report.search.scored.iter().any(|scored| &scored.bits == chosen));
    let bits: Vec<_> = report.layers.iter().map(|layer| layer.bits.unwrap()).collect();
    assert_eq!(bits, chosen.iter().copied().collect::<Vec<_>>());

    let folder = tempfile::tempdir().unwrap();
    report.write_json(folder.path().join("report.json")).unwrap();
}

#[test]
fn cancelled_in_the_long_retrains_those_already_done_are_reported() {
    let stop = Cancel::new();
    let after_three = |event: &Event| {
        if event.stage() == Stage::Final && event.progress().0 == 3 {
            stop.cancel();
        }
    };
    let config = || changed(1, |c| c.seeds = 1);
    let report = Experiment::new(lenet(), data(), config()).run(&stop, &after_three).unwrap();
    assert!(report.cancelled && report.chosen.is_some());
    assert!(report.search.evaluations > 0);
    let labels: Vec<_> = report.rows.iter().map(|row| row.label.as_str()).collect();
    assert_eq!(labels, ["full precision", "uniform 8", "uniform 4"]);
    // They are what an undisturbed run would have found.
    let whole = run(config());
    for row in &report.rows {
        assert_eq!(Some(row), whole.rows.iter().find(|other| other.label == row.label));
    }
}

#[test]
fn sensitivities_are_measured_once_and_propose_what_the_knapsack_measures() {
    let told = std::sync::Mutex::new(Vec::new());
    let note = |event: &Event| {
        if event.stage() == Stage::Sensitivities {
            told.lock().unwrap().push(event.progress());
        }
    };
    let config = changed(1, |c| c.sensitivity_images = 40);
    let report = Experiment::new(lenet(), data(), config).run(&Cancel::new(), &note).unwrap();
    let sensitivities = report.sensitivities.as_ref().unwrap();
    assert_eq!((sensitivities.images, sensitivities.layers.len()), (40, 4));
    let told = told.into_inner().unwrap();
    let measured: usize = sensitivities.layers.iter().map(|layer| layer.bits.len()).sum();
    assert_eq!((told.len(), told.last()), (measured, Some(&(measured, measured))));
    for layer in &sensitivities.layers {
        let (lowest, highest) = (layer.bits.first().unwrap(), layer.bits.last().unwrap());
        let of = |known: &releq::Sensitivity| known.compared.divergence.value;
        assert!(of(lowest) > of(highest), "{}: {:?}", layer.name, layer.bits);
        assert_eq!(layer.divergence(lowest.bits), Some(of(lowest)));
    }
    let knapsack = &report.comparisons[0];
    assert_eq!(knapsack.agent, "knapsack");
    assert!(report.rows.iter().any(|row| row.label == "knapsack search"));
    // No assignment that the knapsack measured is beaten by another of them in both cost and divergence.
    let known = |scored: &Scored| sensitivities.divergence(&scored.bits).unwrap();
    for a in &knapsack.scored {
        for b in knapsack.scored.iter().filter(|b| b.bits != a.bits) {
            let beaten = b.quant_state <= a.quant_state && known(b) <= known(a);
            assert!(!beaten, "{} by {}", a.bits, b.bits);
        }
    }

    let without = run(changed(1, |c| c.sensitivity_images = 0));
    assert!(without.sensitivities.is_none());
    assert!(without.comparisons.iter().all(|outcome| outcome.agent != "knapsack"));
    // Nothing tells what a divergence costs, so it is the accuracy that counts.
    let first = &without.search.scored[0];
    for scored in &without.search.scored {
        let (a, b) = (first.accuracy * scored.acc_state, scored.accuracy * first.acc_state);
        assert!((a - b).abs() < 1e-9, "{first:?} {scored:?}");
    }
}

#[test]
fn more_seeds_decide_where_one_leaves_it_uncertain() {
    let with = |seeds| run(changed(1, |c| (c.seeds, c.tolerance) = (seeds, 0.05)));
    let (report, first) = (with(3), with(1));
    let most = report.rows.iter().map(|row| row.seeds).max();
    assert!(most > Some(1), "{:?}", report.rows);
    assert!(first.rows.iter().all(|row| row.seeds == 1));
    // Near the border by its first seed alone.
    let floor = first.reference.unwrap().validation_accuracy - 0.05;
    for row in &report.rows {
        if row.label == "full precision" {
            assert_eq!(Some(row.seeds), most, "the border is as sure as what is compared with it");
        } else if row.label.starts_with("uniform") {
            let alone = first.rows.iter().find(|other| other.label == row.label).unwrap();
            let p = alone.validation_accuracy;
            // On the same images, a difference is at most as uncertain as on different ones.
            let variance = |p: f64| p * (1.0 - p) / (report.images[1] - 1) as f64;
            let error =
                (variance(p) + variance(first.reference.unwrap().validation_accuracy)).sqrt();
            let near = (p - floor).abs() <= error;
            assert!(near || row.seeds == 1, "{p} beside {floor}, within {error}? {row:?}");
        }
    }
}

#[test]
fn no_row_of_a_report_is_a_cheaper_answer_than_its_answer() {
    for (seed, tolerance) in [(1, 0.003), (2, 0.05), (3, 1.0)] {
        let report = run(changed(seed, |c| c.tolerance = tolerance));
        let answer = report.answer.as_ref().unwrap();
        let floor = report.reference.unwrap().validation_accuracy - tolerance;
        let allowed: Vec<_> =
            report.rows.iter().filter(|row| row.label != "full precision").collect();
        let good = allowed.iter().filter(|row| row.validation_accuracy >= floor);
        let cheapest = good.filter_map(|row| row.quant_state).min_by(f64::total_cmp);
        let chosen = report.chosen_row().unwrap();
        assert_eq!(report.chosen.as_ref(), Some(&chosen.bits));
        assert_eq!(answer.within_tolerance, cheapest.is_some());
        match cheapest {
            Some(cheapest) => assert_eq!(chosen.quant_state, Some(cheapest)),
            None => assert!(
                allowed.iter().all(|row| row.validation_accuracy <= chosen.validation_accuracy)
            ),
        }
        if tolerance == 1.0 {
            // Everything is good enough, and nothing is cheaper than 2 bits everywhere.
            assert_eq!(answer.bits.to_string(), "2-2-2-2");
        }
    }
}

#[test]
fn where_nothing_is_good_enough_the_nearest_is_named() {
    // A single step at a large rate ruins every quantized network, but full precision stands as it was.
    let report = run(changed(1, |c| {
        c.pretrain.length = Length::Steps(80);
        c.long_retrain.length = Length::Steps(1);
        c.long_retrain.sgd.learning_rate = 3.0;
        c.tolerance = 0.0;
    }));
    let reference = report.reference.unwrap();
    assert!(!reference.retrained);
    assert_eq!(reference.validation_accuracy, report.full_precision_validation);
    let answer = report.answer.as_ref().unwrap();
    assert!(!answer.within_tolerance, "{answer:?}");
    assert_ne!(answer.label, "full precision");
}

#[test]
fn full_precision_is_retrained_as_every_row() {
    // A network that has only begun to learn gains by the long retrain, in float as in any bitwidth.
    let report = run(changed(1, |c| {
        c.pretrain.length = Length::Steps(8);
        c.long_retrain.length = Length::Steps(40);
        c.seeds = 1;
    }));
    let reference = report.reference.unwrap();
    let float = report.rows.iter().find(|row| row.label == "full precision").unwrap();
    assert!(reference.retrained);
    assert!(reference.validation_accuracy > report.full_precision_validation + 0.1);
    assert_eq!(float.validation_accuracy, reference.validation_accuracy);
    assert_eq!((float.loss_points, float.loss_standard_error), (0.0, Some(0.0)));
    // The others differ from it in at least as many images as their accuracies say, and at most in all.
    for row in report.rows.iter().filter(|row| row.loss_points != 0.0) {
        let (loss, images) = (row.loss_points.abs() / 100.0, report.images[2] as f64);
        let least = ((loss - loss * loss) / (images - 1.0)).sqrt();
        let most = (1.0 / (images - 1.0)).sqrt();
        let error = row.loss_standard_error.unwrap() / 100.0;
        assert!((least..=most).contains(&(error + 1e-12)), "{row:?}");
    }
}

#[test]
fn rows_that_the_search_could_not_choose_are_no_answers() {
    let report = run(changed(2, |c| {
        c.actions = [4, 8].map(|bits| Bitwidth::new(bits).unwrap()).to_vec();
        c.fixed_layers = vec![("conv1".into(), Bitwidth::EIGHT)];
        c.tolerance = 1.0;
    }));
    // Uniform 2, 3 and 4 are cheaper, but their first layer is not the one that was asked for.
    assert_eq!(report.answer.unwrap().bits.to_string(), "8-4-4-4");
}

#[test]
fn diverged_long_retrains_are_no_answers() {
    let report = run(changed(1, |c| c.long_retrain.sgd.learning_rate = 1e30));
    assert!(report.rows.iter().all(|row| row.failure.is_some()));
    assert!(report.answer.is_none() && report.chosen_row().is_none());
    // The search's own best is still told.
    assert!(report.chosen.is_some());
}

#[test]
fn given_weights_replace_the_pretraining_and_change_nothing() {
    let stop = Cancel::new();
    let weights = Experiment::new(lenet(), data(), config(2)).pretrain(&stop, &|_| {}).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lenet.safetensors");
    releq::format::safetensors::save(&path, &weights).unwrap();
    let weights = releq::format::safetensors::load(&path).unwrap();
    let no_pretraining = |event: &Event| assert_ne!(event.stage(), Stage::Pretrain);
    let report = Experiment::new(lenet(), data(), config(2))
        .weights(weights)
        .run(&stop, &no_pretraining)
        .unwrap();
    assert_eq!(timeless(&report), timeless(&run(config(2))));
}

#[test]
fn the_best_of_the_tried_learning_rates_is_that_of_both_retrains() {
    let weights =
        Experiment::new(lenet(), data(), config(5)).pretrain(&Cancel::new(), &|_| {}).unwrap();
    // The first of the rates destroys any network.
    let high = changed(5, |c| c.short_retrain.sgd.learning_rate = 100.0);
    let long = high.long_retrain.sgd.learning_rate;
    let probe =
        || Experiment::new(lenet(), data(), high.clone()).weights(weights.clone()).probe_rates();
    let (experiment, probed) = probe().unwrap();
    let rates: Vec<f32> = probed.tried.iter().map(|&(rate, _)| rate).collect();
    assert_eq!((probed.bits.get(), rates), (3, vec![100.0, 10.0, 3.0]));
    let best = probed.tried.iter().map(|&(_, accuracy)| accuracy).fold(0.0, f64::max);
    let chosen = probed.tried.iter().find(|(_, accuracy)| *accuracy == best).unwrap().0;
    assert_eq!(probed.chosen, chosen);
    let config = experiment.config();
    assert_eq!(config.short_retrain.sgd.learning_rate, chosen);
    assert_eq!(config.long_retrain.sgd.learning_rate, long * (chosen / 100.0));
    assert!(
        probed
            .to_string()
            .starts_with(&format!("learning rate {chosen}: after 40 steps at 3 bits, "))
    );
    // The same seed tries the same, and nothing is tried on no weights.
    assert_eq!(probe().unwrap().1, probed);
    let without = Experiment::new(lenet(), data(), high.clone()).probe_rates().unwrap_err();
    assert!(matches!(without, ReleqError::Setting { setting: "weights", .. }));
}

#[test]
fn fixed_layers_keep_their_bitwidth_and_the_reward_is_the_callers() {
    let eight = Bitwidth::new(8).unwrap();
    let first = lenet().profiles()[0].name.clone();
    let mut config = config(3);
    config.fixed_layers = vec![(first, eight)];
    let report = Experiment::new(lenet(), data(), config)
        .reward(reward_fn("wide", |_, quant_state| quant_state))
        .run(&Cancel::new(), &|_| {})
        .unwrap();
    assert_eq!(report.config.reward, Some(Choice::Own("wide".into())));
    assert!(report.search.scored.iter().all(|scored| scored.bits[0] == eight));
    for scored in &report.search.scored {
        assert_eq!(scored.reward, scored.quant_state);
    }
}

fn refused(network: Network, config: ExperimentConfig) -> String {
    Experiment::new(network, data(), config)
        .run(&Cancel::new(), &|_| {})
        .expect_err("must be refused")
        .to_string()
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let no_actions = changed(1, |c| c.actions.clear());
    assert!(refused(lenet(), no_actions).contains("action"));

    let all_held_out = changed(1, |c| c.validation = 700);
    assert!(refused(lenet(), all_held_out).contains("700"));

    let wrong_layer = changed(1, |c| c.fixed_layers = vec![("conv9".into(), Bitwidth::EIGHT)]);
    assert!(refused(lenet(), wrong_layer).contains("conv9"));

    let mut no_batch = config(1);
    no_batch.pretrain.batch_size = 0;
    assert!(
        refused(lenet(), no_batch).contains("`pretrain`: schedule: `batch_size` must be positive")
    );

    let mut never_ending = config(1);
    never_ending.long_retrain.length = Length::Epochs(f64::INFINITY);
    assert!(refused(lenet(), never_ending).contains("`long_retrain`: schedule: `length.epochs`"));

    let no_seed = changed(1, |c| c.seeds = 0);
    assert!(refused(lenet(), no_seed).contains("`seeds`"));

    let no_limit = changed(1, |c| c.budget = Budget::default());
    assert!(refused(lenet(), no_limit).contains("budget"));
}

#[test]
fn makers_of_pieces_that_panic_are_named() {
    let refused = |experiment: Experiment, expected: &str| {
        let error = experiment.run(&Cancel::new(), &|_| {}).unwrap_err().to_string();
        assert!(error.contains(expected), "`{error}` lacks `{expected}`");
    };
    let plain = || Experiment::new(lenet(), data(), config(1));
    let agent = plain().agent("dreamer", |_| panic!("no idea"));
    refused(agent, "the maker of the agent `dreamer` panicked: no idea");
    let evaluator = plain().evaluator("board", |_| panic!("no power"));
    refused(evaluator, "the maker of the evaluator `board` panicked: no power");
}

#[test]
fn places_that_cannot_be_written_are_found_before_the_work_begins() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no/such/folder/report.json");
    for path in [missing.as_path(), folder.path()] {
        let error = Report::check_path(path).expect_err("must be refused").to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
    Report::check_path(folder.path().join("report.json")).unwrap();
}
