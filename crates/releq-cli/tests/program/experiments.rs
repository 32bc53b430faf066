//! The paper's experiments, at sizes of seconds.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    searches::SETTINGS,
    support::{command, releq, text},
};

/// Searches of the drawn table, short and with two seeds.
const SHORT: &str = "--table TABLE --episodes 120 --seeds 2";

/// Runs an experiment, which prints the object that it writes.
fn experiment(line: &str, dir: &Path, into: &str) -> Value {
    let line = format!("experiment {line} --into DIR/{into} --json");
    let output = command(&line, dir).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "releq {line}\n{said}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let written = fs::read_to_string(dir.join(into).join("experiment.json")).unwrap();
    assert_eq!(printed, serde_json::from_str::<Value>(&written).unwrap());
    printed
}

/// Every file below `folder`, by its path there.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn add(folder: &Path, within: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(folder.join(within)).unwrap() {
            let path = within.join(entry.unwrap().file_name());
            if folder.join(&path).is_dir() {
                add(folder, &path, files);
            } else {
                files.insert(path.clone(), fs::read(folder.join(path)).unwrap());
            }
        }
    }
    let mut all = BTreeMap::new();
    add(folder, Path::new(""), &mut all);
    all
}

/// Every figure is SVG that can be read, with its numbers beside it.
fn figures(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder.join("plots"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let drawn = fs::read_to_string(&path).unwrap();
            let document = roxmltree::Document::parse(&drawn).unwrap();
            assert!(document.descendants().any(|node| node.has_tag_name("desc")));
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let numbers = folder.join("tables").join(format!("{name}.csv"));
            assert!(fs::read_to_string(numbers).unwrap().lines().count() > 1, "{name}");
            name
        })
        .collect();
    names.sort();
    names
}

#[test]
fn variants_are_compared_over_seeds_and_the_same_command_gives_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    for (line, variants) in [
        ("rewards", &["shaped", "division", "subtraction", "linear-grid"][..]),
        ("clip --clip-range 0.1,0.3 --agent ppo", &["clip 0.1", "clip 0.3"]),
        ("lstm lenet --cost stripes --agent ppo", &["lstm", "dense"]),
    ] {
        let name = line.split(' ').next().unwrap();
        let found = experiment(&format!("{line} {SHORT}"), dir, name);
        assert_eq!(found["experiment"], *name);
        let summary = found["results"]["summary"].as_array().unwrap();
        let names: Vec<&str> =
            summary.iter().map(|summary| summary["variant"].as_str().unwrap()).collect();
        assert_eq!(names, variants);
        let searches = found["results"]["searches"].as_array().unwrap();
        assert_eq!(searches.len(), 2 * variants.len());
        for summary in summary {
            // The mean is that of the two seeds.
            let of = |search: &&Value| search["variant"] == summary["variant"];
            let rewards = searches.iter().filter(of).map(|s| s["mean_reward"].as_f64().unwrap());
            let rewards: Vec<f64> = rewards.collect();
            let spread = &summary["measures"]["mean_reward"];
            let mean = (rewards[0] + rewards[1]) / 2.0;
            assert!((spread["mean"].as_f64().unwrap() - mean).abs() < 1e-12);
            let deviation = (rewards[0] - rewards[1]).abs() / 2.0_f64.sqrt();
            assert!((spread["standard_deviation"].as_f64().unwrap() - deviation).abs() < 1e-12);
        }
        assert_eq!(figures(&dir.join(name)), ["course"]);
        let agents: Vec<&Value> =
            found["settings"]["variants"].as_array().unwrap().iter().collect();
        assert_eq!(agents.len(), variants.len());
    }
    let again = "clip --clip-range 0.1,0.3 --agent ppo --threads 1";
    experiment(&format!("{again} {SHORT}"), dir, "again");
    assert_eq!(files(&dir.join("clip")), files(&dir.join("again")));
}

#[test]
fn the_policy_and_the_space_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let found = experiment(&format!("probabilities lenet --agent ppo {SHORT}"), dir, "p");
    assert_eq!(figures(&dir.join("p")), ["action-probabilities"]);
    assert_eq!(found["results"]["layers"].as_array().unwrap().len(), 4);
    let seeds = fs::read_to_string(dir.join("p/tables/seeds.csv")).unwrap();
    assert!(seeds.starts_with("seed,episodes,layer,2 bits,3 bits,4 bits\n"), "{seeds}");
    for line in seeds.lines().skip(1) {
        let shares: f64 = line.split(',').skip(3).map(|share| share.parse::<f64>().unwrap()).sum();
        assert!((shares - 1.0).abs() < 1e-3, "{line}");
    }

    let found = experiment(&format!("pareto lenet {SHORT}"), dir, "space");
    assert_eq!(figures(&dir.join("space")), ["space"]);
    assert_eq!(found["results"]["assignments"], 81);
    let named = found["results"]["named"].as_array().unwrap();
    let best = named.iter().find(|row| row["name"] == "highest reward").unwrap();
    assert_eq!((&best["rank"], &best["dominated_by"]), (&1.into(), &0.into()));
    assert!(named.iter().any(|row| row["name"] == "published"));
    // What is drawn is a table itself.
    let line = "replay --table DIR/space/tables/space.csv --episodes 40 --json";
    let output = command(line, dir).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn hardware_is_compared_for_published_given_and_found_assignments() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let found = experiment(&format!("stripes lenet --assignment mine=4 {SHORT}"), dir, "stripes");
    let rows = found["results"]["assignments"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["published", "mine", "found"]);
    assert_eq!(rows[1]["ideal_speedup"], 2.0);
    let seeds: usize = rows.iter().map(|row| row["seeds"].as_array().unwrap().len()).sum();
    assert_eq!(seeds, 2);
    assert_eq!(found["results"]["found_speedup"]["seeds"], 2);
    assert_eq!(figures(&dir.join("stripes")), ["gains"]);

    let found = experiment("admm lenet --repeats 1 --assignment same=5,3,2,3", dir, "admm");
    let rows = found["results"]["assignments"].as_array().unwrap();
    let same = rows.iter().find(|row| row["name"] == "same").unwrap();
    assert_eq!((&same["stripes_speedup"], &same["size"]), (&1.0.into(), &1.0.into()));
    assert!(rows[0]["stripes_speedup"].as_f64().unwrap() > 1.0);
    let from = found["settings"]["admm_bits_from"].as_str().unwrap();
    assert!(from.contains("not verified"), "{from}");

    let found = experiment("cpu lenet --repeats 1", dir, "cpu");
    let row = &found["results"]["assignments"][0];
    assert!(row["bit_serial"]["median"].as_f64().unwrap() > 0.0);
    assert_eq!(figures(&dir.join("cpu")), ["gains"]);
}

#[test]
fn a_live_experiment_keeps_its_runs_and_goes_on_from_them() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fs::write(dir.join("search.toml"), SETTINGS).unwrap();
    let line =
        "probabilities lenet --config DIR/search.toml --seeds 2 --agent ppo-quick --evaluations 8";
    let first = experiment(line, dir, "live");
    for seed in 1..=2 {
        assert!(dir.join(format!("live/runs/search-seed-{seed}/report.json")).exists());
    }
    assert_eq!(first["settings"]["config"]["budget"]["evaluations"], 8);
    assert_eq!(experiment(line, dir, "live"), first);
}

#[test]
fn a_folder_that_nobody_named_is_numbered() {
    let folder = tempfile::tempdir().unwrap();
    for number in 1..=2 {
        let mut command = releq();
        command.current_dir(folder.path()).args(["experiment", "stripes", "lenet"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let said = text(&output);
        assert!(said.contains(&format!("results: experiments/stripes-{number}")), "{said}");
        assert!(said.contains("lenet, published"), "{said}");
    }
}

#[test]
fn workers_are_simulated_over_what_a_run_has_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fs::write(dir.join("run.toml"), SETTINGS).unwrap();
    let output = crate::searches::search(&dir.join("run.toml"), &dir.join("run")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let simulated = |options: &str, into: &str| {
        let line = format!("scaling DIR/run --counts 8,2 --batches 2,6 {options}");
        experiment(&line, dir, into)["results"].clone()
    };
    let none = simulated("--deaths 0 --beside 0", "none");
    let rows = none["rows"].as_array().unwrap();
    let of = |row: &Value, name: &str| row[name].as_f64().unwrap();
    let settings: Vec<_> = rows.iter().map(|row| (of(row, "batch"), of(row, "workers"))).collect();
    assert_eq!(settings, [(2.0, 2.0), (2.0, 8.0), (6.0, 2.0), (6.0, 8.0)]);
    for pair in rows.chunks(2) {
        assert!(
            of(&pair[1], "speedup") >= of(&pair[0], "speedup") && of(&pair[0], "speedup") > 1.0
        );
        assert_eq!(pair[0]["jobs"][0], pair[1]["jobs"][0], "searches do not see the workers");
        for row in pair {
            let efficiency = of(row, "efficiency");
            assert!(efficiency > 0.0 && efficiency <= 1.0 && of(row, "deaths") == 0.0, "{row}");
        }
    }
    // Deaths cost time, and the same ones come again.
    let some = simulated("--deaths 0.2 --beside 0", "some");
    let seconds = |row: &Value| {
        let both = row["seconds"].as_array().unwrap();
        both.iter().map(|seconds| seconds.as_f64().unwrap()).sum::<f64>()
    };
    assert!(of(&some["rows"][0], "deaths") > 0.0, "{some}");
    assert!(seconds(&some["rows"][0]) > seconds(&rows[0]), "{some}");
    assert_eq!(some, simulated("--deaths 0.2 --beside 0", "again"));
    assert_eq!(figures(&dir.join("none")), ["efficiency"]);
}
