//! Machines that differ: in kind, and in what they take the time for.

use std::{fs, process::Command};

use futures_util::StreamExt;
use serde_json::Value;

use super::{
    Alone, finished, heard, remote,
    server::{Killed, Server, installed},
    succeeded, worker,
};
use crate::{
    searches::report,
    support::{releq, text},
};

/// A kind of machine that nobody has.
const ABACUS: &str = "abacus beads";

/// Answers of another kind of machine are told in the report, also of a run that goes on without workers.
#[test]
fn kinds_of_machines_that_answered_are_in_the_report() {
    let alone = Alone::get();
    for program in installed("kinds_of_machines_that_answered_are_in_the_report") {
        let server = Server::start(&program);
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let any = ["--any-machine"];
        // Of one kind, the report is that of the search alone.
        succeeded(&remote(&server, &at("one"), &any).output().unwrap());
        alone.assert_same(&at("one"), "one kind");

        // The same answers, one of them by a machine of another kind.
        let (runtime, jetstream) = server.client();
        runtime.block_on(async {
            let results = jetstream.get_key_value("RELEQ_RESULTS").await.unwrap();
            let keys: Vec<_> = results.keys().await.unwrap().collect().await;
            let key = keys.into_iter().next().unwrap().unwrap();
            let value = results.get(&key).await.unwrap().unwrap();
            let mut answer: Value = serde_json::from_slice(&value).unwrap();
            answer["machine"] = ABACUS.into();
            results.put(&key, serde_json::to_vec(&answer).unwrap().into()).await.unwrap();
        });
        let run = at("two");
        let output = remote(&server, &run, &any).output().unwrap();
        succeeded(&output);
        let told = format!("another kind had a part in it: {ABACUS}");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&text(&output)).contains(&told), "{}", text(&output));
        let page = fs::read_to_string(run.join("report.html")).unwrap();
        assert!(page.contains(&told), "{page}");
        let mut of_two: Value = serde_json::from_str(&report(&run)).unwrap();
        let kinds = of_two.as_object_mut().unwrap().remove("other_machines").unwrap();
        assert_eq!(kinds, serde_json::json!([ABACUS]));
        let of_one: Value = serde_json::from_str(&report(&at("one"))).unwrap();
        assert_eq!(of_two, of_one);

        // Whoever writes the report again, or begins with these answers, does not forget.
        let before = report(&run);
        fs::remove_file(run.join("report.json")).unwrap();
        succeeded(&releq().arg("resume").arg(&run).output().unwrap());
        assert_eq!(report(&run), before);
        let mut fork = super::search(&at("fork"));
        succeeded(&fork.arg("--fork").arg(&run).output().unwrap());
        assert!(report(&at("fork")).contains(ABACUS));
    }
}

/// The server alone measures leases, so a worker may believe in another time.
#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn a_worker_whose_clock_is_wrong_does_its_work() {
    let name = "a_worker_whose_clock_is_wrong_does_its_work";
    let there = Command::new("faketime").arg("--version").output();
    if !there.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {name}: faketime not installed");
        return;
    }
    let alone = Alone::get();
    for program in installed(name) {
        for offset in ["+1h", "-1h"] {
            let server = Server::start(&program);
            let root = tempfile::tempdir().unwrap();
            let run = root.path().join("run");
            let mut life = Killed(remote(&server, &run, &["--workers-only"]).spawn().unwrap());
            // Timers of the program stay those of the machine, as they are where a clock is wrong.
            let mut command = Command::new("faketime");
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").args(["-f", offset]);
            command.arg(env!("CARGO_BIN_EXE_releq")).args(["worker", &server.url()]);
            command.args(["--threads", "1", "--worker-name", "wrong", "--cache-dir"]);
            command.arg(root.path().join("cache")).env("HOME", "/nonexistent");
            let said = fs::File::create(root.path().join("wrong")).unwrap();
            let wrong = Killed(command.stderr(said).spawn().unwrap());
            heard(root.path(), "wrong", "done in");
            let listed = text(&releq().args(["workers", &server.url()]).output().unwrap());
            assert!(listed.contains("wrong"), "{listed}");
            // Beside one whose clock is right.
            let right = worker(&server, root.path(), "right", &[]);
            finished(&mut life);
            alone.assert_same(&run, offset);
            drop((wrong, right));
        }
    }
}
