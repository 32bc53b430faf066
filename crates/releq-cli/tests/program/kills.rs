//! Searches that are killed or stopped at random moments, as `releq search` and `releq resume` are used.
//!
//! `RELEQ_KILLS=200 cargo test --workspace --test program kills` tries more moments than the ten of the ordinary run.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use releq::format::safetensors;
use serde_json::Value;

use crate::support::{releq, text};

/// A search of a few seconds with all stages.
const SETTINGS: &str = r#"
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

fn kills() -> usize {
    env::var("RELEQ_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

fn search(settings: &Path, run: &Path) -> Command {
    let mut command = releq();
    command.args(["search", "lenet", "--threads", "2"]);
    command.arg("--config").arg(settings).arg("--run").arg(run);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `report.json` without wall times.
fn report(run: &Path) -> String {
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

/// How much of a run is on record.
fn progress(run: &Path) -> u64 {
    let files = ["stages.jsonl", "evaluations.jsonl", "finals.jsonl", "report.json"];
    files.iter().filter_map(|name| fs::metadata(run.join(name)).ok()).map(|file| file.len()).sum()
}

/// Ends searches with the signal `name` at random moments until there were enough, each run until its end.
fn interrupted(name: &str, code: Option<i32>, kills: usize, seed: u64) {
    let root = tempfile::tempdir().unwrap();
    let settings = root.path().join("run.toml");
    fs::write(&settings, SETTINGS).unwrap();
    let straight = root.path().join("straight");
    let begun = Instant::now();
    let output = search(&settings, &straight).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let whole = begun.elapsed();
    let expected = report(&straight);

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut killed, mut runs) = (0, 0);
    while killed < kills {
        runs += 1;
        let run = root.path().join(format!("run-{runs}"));
        for life in 0.. {
            assert!(life < 100, "a run that never ends");
            let before = progress(&run);
            let mut child = search(&settings, &run).spawn().unwrap();
            sleep(whole.mul_f64(rng.random_range(0.0..0.9)).max(Duration::from_millis(1)));
            let over = child.try_wait().unwrap().is_some();
            if !over {
                let id = child.id().to_string();
                assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
            }
            let asked = Instant::now();
            let output = child.wait_with_output().unwrap();
            assert!(progress(&run) >= before, "what was on record is lost");
            if output.status.success() {
                break;
            }
            // A signal may come just before the handler is there, or just when the run ends by itself.
            if let (Some(expected), false) = (code, over) {
                assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
                let got = output.status.code();
                assert_eq!(got, Some(expected), "{}", text(&output));
            }
            assert!(!over, "{}", text(&output));
            killed += 1;
        }
        assert_eq!(report(&run), expected, "run {runs}");
        let bits = |run: &Path| fs::read(run.join("bits.json")).unwrap();
        assert_eq!(bits(&run), bits(&straight), "run {runs}");
        for file in ["best.safetensors", "weights.safetensors"] {
            let read = |run: &Path| safetensors::read_tensors(run.join(file)).unwrap();
            assert_eq!(read(&run), read(&straight), "{file} of run {runs}");
        }
    }
}

#[test]
fn a_search_that_is_killed_at_random_moments_ends_with_the_same_report() {
    interrupted("-KILL", None, kills(), 1);
}

#[test]
fn a_search_that_is_terminated_at_random_moments_ends_with_the_same_report() {
    interrupted("-TERM", Some(143), kills().div_ceil(2), 2);
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
