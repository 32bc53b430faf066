//! Searches in the folders of runs: what their options change, and what is left behind.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use releq::data::{
    digits::{self, DigitsConfig},
    npz::{self, Array},
};
use serde_json::{Value, json};

use crate::support::{Inputs, command, refused, releq, said, text};

/// A search of a few seconds with all stages.
pub(crate) const SETTINGS: &str = r#"
early_stop = { after = 0.25, below = 0.2, images = 40 }
validation = 60
search_validation = 40
finalists = 2
[data.digits]
train = 400
test = 60
[budget]
evaluations = 12
[pretrain]
batch_size = 20
length = { steps = 150 }
[short_retrain]
batch_size = 20
length = { steps = 12 }
[long_retrain]
batch_size = 20
length = { steps = 40 }
"#;

/// A search with these settings in the folder of a run.
pub(crate) fn search(settings: &Path, run: &Path) -> Command {
    let mut command = releq();
    command.args(["search", "lenet", "--threads", "2"]);
    command.arg("--config").arg(settings).arg("--run").arg(run);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `report.json` without wall times.
pub(crate) fn report(run: &Path) -> String {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(object) => {
                object.remove("times");
                object.values_mut().for_each(strip);
            }
            Value::Array(array) => array.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let text = fs::read_to_string(run.join("report.json")).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    strip(&mut value);
    serde_json::to_string_pretty(&value).unwrap()
}

#[test]
fn a_second_process_is_refused_and_resume_reports_a_finished_run() {
    let root = tempfile::tempdir().unwrap();
    let (settings, run) = (root.path().join("run.toml"), root.path().join("run"));
    fs::write(&settings, SETTINGS).unwrap();
    let mut first = search(&settings, &run).spawn().unwrap();
    while !run.join("config.json").exists() {
        assert!(first.try_wait().unwrap().is_none(), "the search ended without a run");
        sleep(Duration::from_millis(5));
    }
    let mut resume = releq();
    let second = resume.arg("resume").arg(&run).output().unwrap();
    // On a slow machine the first may be over by now.
    if first.try_wait().unwrap().is_none() {
        assert_eq!(second.status.code(), Some(1), "{}", text(&second));
        let expected = format!("is in use by process {}", first.id());
        assert!(text(&second).contains(&expected), "{}", text(&second));
    }
    assert!(first.wait().unwrap().success());

    let mut resume = releq();
    let output = resume.args(["resume", "--json"]).arg(&run).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let kept = fs::read_to_string(run.join("report.json")).unwrap();
    assert_eq!(shown, serde_json::from_str::<Value>(&kept).unwrap());

    // Another setting than the run's is named.
    let mut other = search(&settings, &run);
    let output = other.args(["--max-loss", "2"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(said.contains("the setting `tolerance` 0.003, and cannot go on with 0.02"), "{said}");

    // The report is drawn again without data, alone and beside another.
    for file in ["report.html", "plots", "tables"] {
        let path = run.join(file);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
    let output = releq().arg("report").arg(&run).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(run.join("report.html").exists());
    let into = root.path().join("compared");
    let mut report = releq();
    let output = report.arg("report").args([&run, &run]).arg("--into").arg(&into).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(into.join("report.html").exists());
}

/// A folder with the file of settings.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.path("run.toml"), SETTINGS).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The report of a search with these options besides.
    fn search(&self, name: &str, options: &str) -> Value {
        let mut command = search(&self.path("run.toml"), &self.path(name));
        let output = command.args(options.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "{options}: {}", text(&output));
        serde_json::from_str(&report(&self.path(name))).unwrap()
    }
}

fn size(row: &Value) -> f64 {
    let costs = row["costs"].as_array().unwrap();
    costs.iter().find(|cost| cost["model"] == "size").unwrap()["cost"].as_f64().unwrap()
}

#[test]
fn limits_layers_costs_and_losses_change_the_answer_as_they_say() {
    let place = Place::new();
    let limited = place.search("limited", "--limit size=200kB --cost stripes-energy --max-loss 90");
    assert_eq!(limited["config"]["cost"], "stripes-energy");
    let rows = limited["rows"].as_array().unwrap();
    for row in rows {
        assert_eq!(size(row) > 200_000.0, row["over_limit"].is_f64(), "{row}");
    }
    assert!(rows.iter().any(|row| row["over_limit"].is_f64()), "uniform 8 takes 433 kB");
    let label = &limited["answer"]["label"];
    let answer = rows.iter().find(|row| row["label"] == *label).unwrap();
    assert!(size(answer) <= 200_000.0);
    // With a loss of 90 points nothing is too bad, so that the cheapest of all rows within the limit is the answer.
    let cheapest = rows.iter().filter(|row| !row["over_limit"].is_f64());
    let cheapest = cheapest.filter_map(|row| row["quant_state"].as_f64()).fold(1.0, f64::min);
    assert_eq!(answer["quant_state"].as_f64().unwrap(), cheapest);

    let kept = place.search("kept", "--keep conv1=float --keep fc2=8");
    let bits: Vec<&Value> =
        kept["layers"].as_array().unwrap().iter().map(|layer| &layer["bits"]).collect();
    assert_eq!((bits[0], bits[3]), (&Value::from("float"), &Value::from(8)));

    let page = fs::read_to_string(place.path("limited").join("report.html")).unwrap();
    assert!(
        page.contains("size&lt;=200kB") || page.contains("size&#60;=200kB"),
        "the page names the limit"
    );
}

#[test]
fn printed_settings_give_the_same_report() {
    let place = Place::new();
    let first = place.search("first", "--seed 5 --limit size=300kB --no-comparison");
    let mut print = search(&place.path("run.toml"), &place.path("none"));
    print.args(["--seed", "5", "--limit", "size=300kB", "--no-comparison", "--print-config"]);
    let output = print.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(!place.path("none").exists(), "nothing is begun");
    fs::write(place.path("printed.toml"), &output.stdout).unwrap();
    let mut again = search(&place.path("printed.toml"), &place.path("second"));
    let output = again.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let second: Value = serde_json::from_str(&report(&place.path("second"))).unwrap();
    assert_eq!(second, first);
}

#[test]
fn what_gets_a_long_retrain_can_be_chosen() {
    let place = Place::new();
    let few = "--finalists 1 --uniform 3 5 --no-comparison";
    let report = place.search("few", few);
    let labels: Vec<&str> =
        report["rows"].as_array().unwrap().iter().filter_map(|row| row["label"].as_str()).collect();
    assert_eq!(labels, ["releq", "full precision", "published", "uniform 3", "uniform 5"]);

    let fixed = place.path("fixed.toml");
    fs::write(&fixed, format!("fixed_layers = [['conv1', 8]]\n{SETTINGS}")).unwrap();
    let mut print = search(&fixed, &place.path("none"));
    let output = print.args(["--all-layers", "--keep=fc2=4", "--print-config"]).output().unwrap();
    let printed: toml::Value =
        toml::from_str(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
    assert_eq!(printed["fixed_layers"].to_string(), r#"[["fc2", 4]]"#);
}

/// Lines of the answers that a run has measured.
fn answers(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("evaluations.jsonl")).unwrap();
    text.lines().map(|line| line.split(",\"run_seconds").next().unwrap().to_owned()).collect()
}

#[test]
fn a_fork_measures_only_what_is_new_and_finds_what_a_run_of_its_own_would() {
    let place = Place::new();
    // More than is held out where nobody says how many, which the fork keeps.
    place.search("first", "--no-comparison --held-out 100");
    let first = answers(&place.path("first"));
    let fork = |name: &str, options: &[&str]| {
        let mut command = releq();
        command.args(["search", "--threads", "2"]).arg("--fork").arg(place.path("first"));
        command.arg("--run").arg(place.path(name)).args(options).stdin(Stdio::null());
        command.output().unwrap()
    };
    let options = ["--reward", "division", "--evaluations", "16"];
    let output = fork("second", &options);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(answers(&place.path("second"))[..first.len()], first, "none is measured again");
    let alone =
        place.search("alone", "--no-comparison --held-out 100 --reward division --evaluations 16");
    let second: Value = serde_json::from_str(&report(&place.path("second"))).unwrap();
    assert_eq!(second, alone);

    let output = fork("second", &options);
    assert!(text(&output).contains("second has begun and goes on"), "{}", text(&output));

    // What is valid under no setting is refused, and the setting named.
    let output = fork("first", &[]);
    assert!(text(&output).contains("is the run that --fork takes over"), "{}", text(&output));
    let output = fork("third", &["--seed", "9"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("`seed` 1, and cannot go on with 9"), "{}", text(&output));
    assert!(!place.path("third").exists(), "a run that did not begin leaves no folder");
    let output = releq().args(["search", "lenet", "--fork"]).arg(place.path("none")).output();
    assert!(text(&output.unwrap()).contains("is not a run folder"));
}

/// Weights that only options find in their file are found again from the settings alone.
#[test]
fn a_run_goes_on_whose_weights_are_under_a_key() {
    let place = Place::new();
    let mut first = search(&place.path("run.toml"), &place.path("run"));
    first.arg("--weights").arg(Inputs::get().weights()).args(["--key", "", "--no-comparison"]);
    let output = first.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let whole = report(&place.path("run"));
    assert!(whole.contains("\"key\": \"\""), "{whole}");
    fs::remove_file(place.path("run").join("report.json")).unwrap();
    let output = releq().arg("resume").arg(place.path("run")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(report(&place.path("run")), whole);
}

/// Drawn digits, without labels unless they are asked for, as arrays of NumPy.
fn arrays(path: &Path, labelled: bool) {
    let config = DigitsConfig { train: 300, test: 1, seed: 1, ..DigitsConfig::default() };
    let drawn = digits::generate(&config).unwrap().train;
    let pixels = (0..drawn.len()).flat_map(|index| drawn.image(index));
    let x = Array { shape: vec![300, 1, 28, 28], values: pixels.map(|&v| f32::from(v)).collect() };
    let labels = (0..drawn.len()).map(|index| f32::from(drawn.label(index)));
    let y = Array { shape: vec![300], values: labels.collect() };
    let all = [("x", &x), ("y", &y)];
    npz::write(path, if labelled { &all } else { &all[..1] }).unwrap();
}

#[test]
fn without_labels_a_search_corrects_and_says_that_accuracy_is_unknown() {
    let place = Place::new();
    let data = place.path("digits.npz");
    let search = |run: &str, options: &[&str]| {
        let mut search = releq();
        search.args(["search", "lenet", "--evaluations", "4", "--no-comparison", "--run"]);
        search.arg(place.path(run)).arg("--data").arg(&data);
        search.arg("--weights").arg(Inputs::get().weights()).args(options);
        search.output().unwrap()
    };
    arrays(&data, false);
    let refused = search("trained", &[]);
    assert!(!refused.status.success());
    assert!(text(&refused).contains("--no-retraining searches without"), "{}", text(&refused));
    let output = search("run", &["--no-retraining", "--correction-images", "50"]);
    let told = text(&output);
    assert!(output.status.success(), "{told}");
    for part in [
        "accuracy unknown: the images have no labels",
        "50 images to correct on, 190 held out",
        "after the correction",
        "agreement with full precision",
    ] {
        // Lines are as wide as the terminal.
        let words = told.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(part), "`{told}` lacks `{part}`");
    }
    let found: Value = serde_json::from_str(&report(&place.path("run"))).unwrap();
    assert_eq!(found["unlabelled"], true);
    assert_eq!(found["config"]["quantizer"], "wrpn-scaled-per-channel");
    assert_eq!(found["config"]["correction"]["images"], 50);
    // 430,500 weights of 8 bits, and a scale and a bias for each of 580 channels.
    let rows = found["rows"].as_array().unwrap();
    let uniform = rows.iter().find(|row| row["label"] == "uniform 8").unwrap();
    let size = uniform["costs"].as_array().unwrap().iter().find(|cost| cost["model"] == "size");
    assert_eq!(size.unwrap()["cost"], 430_500.0 + 4.0 * (580.0 + 580.0));
    let page = fs::read_to_string(place.path("run").join("report.html")).unwrap();
    assert!(page.contains("Accuracy unknown") && page.contains("After the correction"));

    arrays(&data, true);
    let output = search("labelled", &["--no-retraining"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("full precision: "), "{}", text(&output));
    let found: Value = serde_json::from_str(&report(&place.path("labelled"))).unwrap();
    assert!(found["unlabelled"].is_null(), "{found}");
}

#[test]
fn a_frontier_is_of_every_assignment_or_of_a_sample() {
    let place = Place::new();
    let pareto = |name: &str, options: &[&str]| -> Value {
        let mut command = releq();
        command.args(["pareto", "lenet"]).args(options);
        command.arg("--config").arg(place.path("run.toml")).arg("--run").arg(place.path(name));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_str(&report(&place.path(name))).unwrap()
    };
    for (name, options, count) in
        [("all", &["--bits", "2,8"][..], 16), ("sample", &["--sample", "5"], 5)]
    {
        let found = pareto(name, options);
        assert_eq!(found["search"]["scored"].as_array().unwrap().len(), count, "{name}");
        assert!(found["comparisons"].as_array().unwrap().is_empty());
    }
    let output = releq().args(["pareto", "vgg11", "--data", "digits"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("more than 100000 assignments; give --sample N"));
}

#[test]
fn a_run_that_nobody_named_is_numbered_and_goes_on_with_the_same_settings() {
    let place = Place::new();
    let run = |options: &[&str]| {
        let mut command: Command = releq();
        command.current_dir(place.0.path()).args(["search", "lenet", "--config", "run.toml"]);
        let output = command.args(options).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), text(&output))
    };
    // A refused command takes no number for good.
    let (code, said) = run(&["--limit", "size=1kB"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("is met by no assignment"), "{said}");
    assert_eq!(run(&["--no-comparison"]).0, Some(0));
    let first: &Path = &place.path("runs/lenet-digits-1");
    assert!(first.join("best.safetensors").exists());
    // Unfinished, it goes on; finished, the next one begins.
    fs::remove_file(first.join("report.json")).unwrap();
    let (code, said) = run(&["--no-comparison", "--threads", "1"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("going on with the run in runs/lenet-digits-1"), "{said}");
    assert!(first.join("report.json").exists() && !place.path("runs/lenet-digits-2").exists());
    assert_eq!(run(&["--no-comparison"]).0, Some(0));
    assert_eq!(report(&place.path("runs/lenet-digits-2")), report(first));
    assert_eq!(run(&["--no-run"]).0, Some(0));
    assert!(!place.path("runs/lenet-digits-3").exists());
}

#[test]
fn the_folder_of_a_run_is_for_that_run_and_several_are_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    let settings = SETTINGS.replace("finalists = 2", "finalists = 1\ncompare = false");
    let settings = settings.replace("evaluations = 12", "evaluations = 2");
    // The long retrains fail, and have no accuracies that a reader could take for some.
    let failing = settings
        .replace("[long_retrain]", "[long_retrain.sgd]\nlearning_rate = 1e30\n[long_retrain]");
    fs::write(dir.join("run.toml"), settings).unwrap();
    fs::write(dir.join("failing.toml"), failing).unwrap();
    said("search lenet --config DIR/run.toml --run DIR/run", dir);
    said("search lenet --config DIR/failing.toml --run DIR/other/run", dir);

    let experiment =
        "experiment probabilities lenet --table TABLE --seeds 1 --episodes 20 --into DIR/run";
    refused(experiment, dir, 2, "is the folder of a run");
    for option in ["--csv DIR/x.csv", "--output DIR/x.json", "--tensorboard"] {
        let name = option.split(' ').next().unwrap();
        let line = format!("report DIR/run DIR/other/run --into DIR/both {option}");
        refused(&line, dir, 2, &format!("{name} is for one run"));
    }
    let output =
        command("report DIR/run DIR/other/run --into DIR/both --json", dir).output().unwrap();
    let reports: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reports.len(), 2, "{}", text(&output));
    let page = fs::read_to_string(dir.join("both/report.html")).unwrap();
    for run in ["run", "other/run"] {
        assert!(page.contains(&format!("{}/{run}", dir.display())), "{run}");
    }

    let told = said("report DIR/other/run --csv DIR/rows.csv", dir);
    assert!(told.contains("The long retrain of full precision failed"), "{told}");
    let rows = fs::read_to_string(dir.join("rows.csv")).unwrap();
    assert!(rows.contains("\nuniform 4,4-4-4-4,4,,,,,"), "{rows}");

    // A file in the place of a folder.
    fs::remove_dir_all(dir.join("run/tables")).unwrap();
    fs::write(dir.join("run/tables"), "").unwrap();
    refused("report DIR/run", dir, 1, "--into DIR");
}

#[test]
fn a_setting_that_does_not_fit_is_named() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    for (settings, expected) in [
        ("seed = \"x\"", "`seed`: invalid type: string"),
        ("tolerance = nan", "`tolerance` is NaN: expected a finite number"),
        ("[long_retrain.sgd]\nlearning_rate = \"a\"", "`long_retrain.sgd.learning_rate`"),
        (
            "[long_retrain.length]\nsteps = 1\nepochs = 2",
            "`long_retrain.length` has `epochs` and `steps` at once",
        ),
    ] {
        fs::write(dir.join("run.toml"), settings).unwrap();
        refused("search lenet --config DIR/run.toml --no-run", dir, 1, expected);
    }
}

/// As the user 54321, who may have three threads, where the search asks for eight; `None` where that is not allowed.
#[cfg(target_os = "linux")]
fn with_three_threads(command: &Command) -> Option<Output> {
    let other_user = || {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid=54321", "--regid=54321", "--clear-groups"]);
        setpriv
    };
    let mut few = other_user();
    few.args(["prlimit", "--nproc=3"]).arg(command.get_program());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => few.env(name, value),
            None => few.env_remove(name),
        };
    }
    // What is not to be reached by this user, as under a private home, cannot be tried.
    let reached = other_user().arg(command.get_program()).arg("--version").output();
    if !reached.is_ok_and(|output| output.status.success()) {
        return None;
    }
    Some(few.args(command.get_args()).output().unwrap())
}

#[test]
#[cfg(target_os = "linux")]
#[allow(clippy::print_stderr, reason = "what was skipped is told")]
fn fewer_threads_than_asked_for_give_the_same_report() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (settings, run) = (root.path().join("run.toml"), root.path().join("run"));
    fs::write(&settings, SETTINGS).unwrap();
    let with = |run: &Path| {
        let mut search = releq();
        search.args(["search", "lenet", "--threads", "8", "--config"]).arg(&settings);
        search.arg("--run").arg(run);
        search
    };
    let Some(output) = with_three_threads(&with(&run)) else {
        eprintln!(
            "skipped: running as another user needs root, and a program that this user can reach"
        );
        return;
    };
    assert!(output.status.success(), "{}", text(&output));
    let alone = root.path().join("alone");
    assert!(with(&alone).output().unwrap().status.success());
    assert_eq!(report(&run), report(&alone));
}

#[test]
fn output_channels_in_groups_have_bitwidths_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    // Weights of the whole network.
    let line = "search lenet --weights WEIGHTS --data DATA --channel-groups 2 --keep conv1=8 --evaluations 3 \
                --short-epochs 0.2 --long-epochs 0.2 --no-comparison --uniform 4 --finalists 1 --run DIR/run";
    said(line, dir);
    let bits = fs::read_to_string(dir.join("run/bits.json")).unwrap();
    let bits: BTreeMap<String, u8> = serde_json::from_str(&bits).unwrap();
    let expected = ["conv1", "conv2", "fc1", "fc2"]
        .into_iter()
        .flat_map(|layer| [1, 2].map(|group| format!("{layer}.group{group}")));
    assert!(bits.keys().cloned().eq(expected), "{bits:?}");
    assert_eq!([bits["conv1.group1"], bits["conv1.group2"]], [8, 8]);
    let report = fs::read_to_string(dir.join("run/report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let mut rows = report["rows"].as_array().unwrap().iter();
    let published = rows.find(|row| row["label"] == "published").unwrap();
    assert_eq!(published["bits"], json!([2, 2, 2, 2, 3, 3, 2, 2]));
    // Resumed and exported, it is a network like any other.
    let resumed = said("resume DIR/run", dir);
    assert!(resumed.contains("conv2.group1"), "{resumed}");
    said("export DIR/run --form packed --activation-bits 8 --output DIR/p.safetensors", dir);
    let explained = said("run DIR/p.safetensors --explain", dir);
    assert!(explained.contains("fc2.group2"), "{explained}");
    refused(
        "search --config DIR/run/config.json --channel-groups 3 --run DIR/other",
        dir,
        1,
        "--channel-groups: the layers of this network are in groups already",
    );
    refused("search --fork DIR/run --channel-groups 3", dir, 2, "cannot be used with");
    // Weights of the divided network are taken as those of the whole one are.
    let divided = "search lenet --weights DIR/run/weights.safetensors --data DATA --channel-groups 2 --print-config";
    let printed = said(divided, dir);
    assert!(printed.contains("conv2.group2"), "{printed}");
}
