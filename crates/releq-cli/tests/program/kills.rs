//! Searches that are killed or stopped at random moments, as `releq search` and `releq resume` are used.
//!
//! `RELEQ_KILLS=200 cargo test --workspace --test program kills` tries more moments than the ten of the ordinary run.

use std::{
    env, fs,
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use releq::format::safetensors;

use crate::{
    searches::{SETTINGS, report, search},
    support::text,
};

pub(crate) fn kills() -> usize {
    env::var("RELEQ_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// How much of a run is on record. Its report, which is written again with other times, follows from that.
fn progress(run: &Path) -> u64 {
    let files = ["stages.jsonl", "evaluations.jsonl", "finals.jsonl"];
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
