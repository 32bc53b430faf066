//! A run can be written down: its configuration goes to JSON and back, and a report's own configuration gives
//! the report again.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use releq::{
    Budget, Cancel, Choice, DataConfig, Experiment, ExperimentConfig, Report,
    data::{Normalization, digits::DigitsConfig},
    evaluate::EarlyStop,
    quant::{Wrpn, WrpnScaled},
    reward::reward_fn,
    train::Length,
    zoo::{NAMES, lenet},
};
use releq_test_support::timeless;
use serde_json::{Value, json};

fn small(seed: u64) -> ExperimentConfig {
    let mut config = ExperimentConfig::lenet(seed);
    config.validation = 100;
    config.search_validation = 60;
    for schedule in [&mut config.pretrain, &mut config.short_retrain, &mut config.long_retrain] {
        schedule.batch_size = 20;
    }
    config.pretrain.length = Length::Steps(30);
    config.short_retrain.length = Length::Steps(2);
    config.long_retrain.length = Length::Steps(4);
    config.budget = Budget { evaluations: Some(9), ..Budget::default() };
    let digits = DigitsConfig { train: 700, test: 100, ..DigitsConfig::default() };
    config.with_data(DataConfig::Digits(digits))
}

fn run(experiment: Experiment) -> Report {
    experiment.run(&Cancel::new(), &|_| {}).unwrap()
}

#[test]
fn every_preset_goes_to_json_and_back() {
    let mut all: Vec<_> =
        NAMES.into_iter().map(|name| ExperimentConfig::preset(name, 3).unwrap()).collect();
    let mut full = small(u64::MAX);
    full.early_stop = Some(EarlyStop::default());
    full.normalization = Some(Normalization { mean: vec![0.1307], std: vec![0.3081] });
    full.fine_tune = Some(full.pretrain);
    full.limits = vec![Choice::Ours("size<=60kB".parse().unwrap())];
    full.reward = Some(Choice::Ours("shaped:threshold=0.8".parse().unwrap()));
    full.cost = Choice::Ours("stripes-energy".parse().unwrap());
    full.actions.push(releq::core::Bitwidth::FLOAT);
    full.quantizer = Choice::Own("codebook".into());
    full.tolerance = 0.1 + 0.2;
    all.push(full);
    for config in all {
        let text = config.to_json().unwrap();
        assert_eq!(ExperimentConfig::from_json(&text).unwrap(), config, "{text}");
    }
}

#[test]
fn a_reports_configuration_gives_the_report_again() {
    let config = small(4);
    let data = DigitsConfig { train: 700, test: 100, ..DigitsConfig::default() };
    let data = releq::data::digits::generate(&data).unwrap();
    let first = run(Experiment::new(lenet(), data, config));
    let text = serde_json::to_string(&first.config).unwrap();
    let config = ExperimentConfig::from_json(&text).unwrap();
    let again = run(Experiment::from_config(config).unwrap());
    assert_eq!(timeless(&again), timeless(&first));
    // And from the file of the report.
    let read: Report = serde_json::from_str(&first.to_json()).unwrap();
    let again = run(Experiment::from_config(read.config).unwrap());
    assert_eq!(timeless(&again), timeless(&first));
}

#[test]
fn pieces_of_ones_own_are_handed_in_again_or_the_run_is_refused() {
    let with_own = |config: ExperimentConfig| {
        Experiment::from_config(config)
            .unwrap()
            .quantizer(Wrpn)
            .reward(reward_fn("mine", |acc, quant| acc - quant))
    };
    let mut config = small(2);
    config.network = Some((&lenet()).into());
    let first = run(with_own(config));
    assert_eq!(first.config.quantizer, Choice::Own("wrpn".into()));

    let again = first.config.clone();
    assert_eq!(timeless(&run(with_own(again.clone()))), timeless(&first));
    let without = Experiment::from_config(again.clone()).unwrap();
    let error = without.run(&Cancel::new(), &|_| panic!("nothing may start")).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("`quantizer`") && error.contains("`wrpn`"), "{error}");
    let other = Experiment::from_config(again).unwrap().quantizer(Wrpn);
    let error = other.run(&Cancel::new(), &|_| {}).unwrap_err().to_string();
    assert!(error.contains("`reward`") && error.contains("`mine`"), "{error}");
}

#[test]
fn what_cannot_be_is_refused_with_the_field_named() {
    let good = serde_json::to_value(small(1)).unwrap();
    let refused = |change: &dyn Fn(&mut Value), expected: &[&str]| {
        let mut value = good.clone();
        change(&mut value);
        let error = ExperimentConfig::from_json(&value.to_string()).unwrap_err().to_string();
        for expected in expected {
            assert!(error.contains(expected), "`{error}` lacks `{expected}`");
        }
    };
    refused(&|v| v["sed"] = json!(1), &["unknown field `sed`", "`seed`"]);
    refused(&|v| v["budget"]["evaluation"] = json!(1), &["`evaluation`", "`evaluations`"]);
    refused(&|v| v["quantizer"] = json!("wrqn"), &["wrqn", "wrpn"]);
    refused(&|v| v["trainer"] = json!("nativ"), &["nativ", "native"]);
    refused(&|v| v["cost"] = json!("stirpes"), &["stirpes", "stripes"]);
    refused(&|v| v["network"] = json!("lenett"), &["lenett", "lenet"]);
    refused(&|v| v["limits"] = json!(["size<=-3kB"]), &["size"]);
    refused(&|v| v["actions"] = json!([0, 8]), &["0"]);
    refused(&|v| v["actions"] = json!([]), &["`actions`"]);
    refused(&|v| v["tolerance"] = json!(-0.1), &["`tolerance`", "-0.1"]);
    refused(&|v| v["tolerance"] = json!(30), &["`tolerance`", "30"]);
    refused(&|v| v["threads"] = json!(0), &["0"]);
    refused(&|v| v["validation"] = json!(0), &["`validation`"]);
    refused(&|v| v["budget"] = json!({}), &["`budget`"]);
    refused(&|v| v["normalization"] = json!({"mean": [0.5], "std": [0.0]}), &["`normalization`"]);
    refused(&|v| v["pretrain"]["batch_size"] = json!(0), &["`pretrain`", "batch_size"]);
    refused(&|v| v["agent"] = json!({"ppo": {"gama": 1.0}}), &["gama", "gamma"]);
    refused(&|v| v["agent"] = json!("randon"), &["`agent`", "did you mean `random`?"]);
    refused(&|v| v["agent"] = json!({"pppo": {}}), &["`agent", "did you mean `ppo`?"]);
    refused(&|v| v["evaluator"] = json!("retain"), &["did you mean `retrain`?"]);
    refused(&|v| v["budget"]["evaluations"] = json!("many"), &["`budget.evaluations`", "many"]);
    refused(&|v| v["beside"] = json!([["a", 3]]), &["`beside[0][1]`"]);
    refused(&|v| v["actions"] = json!([2, 8, 2]), &["`actions`", "2 is there twice"]);
    refused(&|v| v["finalists"] = json!(0), &["`finalists`"]);
    refused(&|v| v["beside"] = json!([["releq", [2, 2, 2, 2]]]), &["`beside`", "`releq`"]);
    refused(&|v| v["uniform"] = json!([3, 3]), &["`uniform`", "3 is there twice"]);
    refused(&|v| v["uniform"] = json!(["float"]), &["`uniform`", "full precision"]);
    refused(&|v| v["beside"] = json!([["uniform 3", [2, 2, 2, 2]]]), &["`beside`", "`uniform 3`"]);
    refused(&|v| v["agent"] = json!({"ppo": {"gamma": -1}}), &["gamma"]);
    refused(&|v| v["agent"] = json!({"ppo-planned": []}), &["`agent"]);
    refused(&|v| v["correction"] = json!([]), &["`correction`"]);
    refused(
        &|v| v["pretrain"]["sgd"]["momentum"] = json!(2),
        &["`pretrain`", "momentum", "below 1"],
    );
    refused(&|v| v["pretrain"]["augmentation"]["mirrored"] = json!(true), &["mirrored", "mirror"]);
    refused(&|v| v["pretrain"]["sgd"]["rate"] = json!(1), &["rate", "learning_rate"]);
    refused(&|v| v["early_stop"] = json!({"bellow": 0.5}), &["bellow", "below"]);
    refused(&|v| v["data"] = json!({"digits": {"trian": 5}}), &["trian", "train"]);
    refused(
        &|v| v["data"] = json!({"folder": {"path": "x", "images": {"colour": 1}}}),
        &["colour"],
    );
    refused(&|v| drop(v.as_object_mut().unwrap().remove("seed")), &["`seed`"]);

    let mut per_channel = small(1);
    per_channel.actions.push(releq::core::Bitwidth::new(16).unwrap());
    per_channel.network = Some((&lenet()).into());
    let experiment = Experiment::from_config(per_channel).unwrap();
    let experiment = experiment.quantizer(WrpnScaled::default());
    let error = experiment.run(&Cancel::new(), &|_| panic!("nothing may start")).unwrap_err();
    assert!(error.to_string().contains("16"), "{error}");
}
