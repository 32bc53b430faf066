//! Runs in folders: stopped at any moment, damaged, changed, or used by two.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail loudly")]

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use releq::{
    Budget, Cancel, Event, Experiment, ExperimentConfig, ReleqError, Report, RunFolder, Stage,
    data::{
        Splits,
        digits::{self, DigitsConfig},
    },
    evaluate::EarlyStop,
    format::safetensors,
    train::{Calibration, Length, RangeRule, RoundedActivations},
    zoo::lenet,
};
use releq_test_support::timeless;
use serde_json::Value;
use tempfile::TempDir;

fn data(seed: u64) -> Splits {
    let config = DigitsConfig { train: 500, test: 80, seed, ..DigitsConfig::default() };
    digits::generate(&config).unwrap()
}

/// All stages, each a few steps long.
fn config(change: impl FnOnce(&mut ExperimentConfig)) -> ExperimentConfig {
    let mut config = ExperimentConfig::lenet(3);
    config.threads = NonZeroUsize::new(2).unwrap();
    config.validation = 80;
    config.search_validation = 60;
    // The weights of an answer are those of its first seed, and only one seed's accuracy is that of the row.
    config.seeds = 1;
    for (schedule, steps) in
        [(&mut config.pretrain, 40), (&mut config.short_retrain, 4), (&mut config.long_retrain, 6)]
    {
        schedule.length = Length::Steps(steps);
        schedule.batch_size = 20;
    }
    config.early_stop = Some(EarlyStop { below: 0.2, images: 60, ..EarlyStop::default() });
    config.budget = Budget { evaluations: Some(10), ..Budget::default() };
    change(&mut config);
    config
}

fn experiment() -> Experiment {
    Experiment::new(lenet(), data(1), config(|_| {}))
}

fn run(
    folder: &Path,
    on_event: &(dyn Fn(&Event) + Sync),
    cancel: &Cancel,
) -> Result<Report, ReleqError> {
    // States at every step, so that every one is tried.
    let folder = RunFolder::open(folder)?.save_every(Duration::ZERO);
    experiment().run_in(&folder, cancel, on_event)
}

fn finish(folder: &Path) -> Report {
    run(folder, &|_| {}, &Cancel::new()).unwrap()
}

/// Reports that are the same but for wall times; where they are not, the first line that differs is enough.
fn assert_same(report: &Report, expected: &Report, what: &str) {
    let (report, expected) = (timeless(report), timeless(expected));
    let lines = report.lines().zip(expected.lines()).enumerate();
    for (number, (got, expected)) in lines {
        assert_eq!(got, expected, "{what}, line {number} of the report");
    }
    assert_eq!(report.len(), expected.len(), "{what}");
}

/// All files of a folder, relative to it.
fn files(folder: &Path) -> Vec<PathBuf> {
    fn walk(folder: &Path, root: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found.sort();
    found
}

/// A copy of a folder as it is at this moment, as a killed process would leave it.
fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(&file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        // A state may be replaced or removed in between by another thread.
        if let Err(error) = fs::copy(from.join(&file), target) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}", file.display());
        }
    }
}

/// A run in a folder, and copies of it from every stage.
struct Recorded {
    root: TempDir,
    copies: Vec<PathBuf>,
    report: Report,
}

impl Recorded {
    fn whole(&self) -> PathBuf {
        self.root.path().join("whole")
    }
}

fn recorded(every: usize) -> Recorded {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("whole");
    let copies = Mutex::new(Vec::new());
    let seen = Mutex::new(0_usize);
    let on_event = |event: &Event| {
        let mut seen = seen.lock().unwrap();
        *seen += 1;
        // These two stages have many events, the others few.
        let many = [Stage::Pretrain, Stage::Sensitivities].contains(&event.stage());
        if (*seen).is_multiple_of(every) || !many {
            let to = root.path().join(format!("copy-{}", *seen));
            copy(&whole, &to);
            copies.lock().unwrap().push(to);
        }
    };
    let report = run(&whole, &on_event, &Cancel::new()).unwrap();
    Recorded { copies: copies.into_inner().unwrap(), report, root }
}

/// Without a folder nobody keeps the weights that rounded activations are tried with.
fn as_without_a_folder(report: &Report) -> Report {
    let mut report = report.clone();
    report.rounded = None;
    report
}

#[test]
fn a_run_in_a_folder_gives_the_report_of_one_without_and_keeps_the_answer() {
    let recorded = recorded(usize::MAX);
    let without = experiment().run(&Cancel::new(), &|_| {}).unwrap();
    assert!(without.rounded.is_none() && recorded.report.rounded.is_some());
    assert_same(&as_without_a_folder(&recorded.report), &without, "without a folder");

    let whole = recorded.whole();
    let names: Vec<String> = files(&whole).iter().map(|file| file.display().to_string()).collect();
    assert_eq!(
        names,
        [
            "best.safetensors",
            "bits.json",
            "config.json",
            "evaluations.jsonl",
            "finals.jsonl",
            "lock",
            "report.json",
            "stages.jsonl",
            "weights.safetensors"
        ]
    );
    assert!(RunFolder::is_finished(&whole).unwrap());
    let kept = RunFolder::report_of(&whole).unwrap().unwrap();
    assert_eq!(kept, recorded.report);

    // The weights are those of the answer: retrained, they classify as many images as the report says.
    let answer = recorded.report.answer.as_ref().unwrap();
    let bits: Value =
        serde_json::from_str(&fs::read_to_string(whole.join("bits.json")).unwrap()).unwrap();
    let by_layer: Vec<u8> =
        lenet().profiles().iter().map(|layer| bits[&layer.name].as_u64().unwrap() as u8).collect();
    assert_eq!(by_layer, answer.bits.to_bits());
    let weights = releq::format::load(whole.join("best.safetensors"), &lenet()).unwrap();
    let config = config(|_| {});
    let releq::Choice::Ours(quantizer) = config.quantizer else { unreachable!() };
    let mut trainer = releq::train::NativeTrainer::new(&lenet(), quantizer.build()).unwrap();
    let splits = data(1);
    let train = releq::data::Subset::all(&splits.train as &dyn releq::data::Dataset);
    let (train, _) = train.split(config.validation, config.seed).unwrap();
    let normalization = releq::data::Normalization::measured(&train).unwrap();
    assert_eq!(recorded.report.normalization.as_ref(), Some(&normalization));
    use releq::train::Trainer;
    trainer.load(&weights).unwrap();
    trainer.set_bits(Some(&answer.bits)).unwrap();
    let accuracy = releq::train::accuracy(&mut trainer, &splits.test, &normalization, 256).unwrap();
    let row = recorded.report.chosen_row().unwrap();
    assert_eq!((accuracy.accuracy(), row.seeds), (row.test_accuracy, 1));

    // With their activations rounded as well, as many as the report says of that.
    let rounded = recorded.report.rounded.unwrap();
    assert_eq!((rounded.weights_only, rounded.calibration_images), (row.test_accuracy, 300));
    let images = train.take(300, config.seed).unwrap();
    let grids = Calibration::of(&mut trainer, &images, &normalization)
        .and_then(|calibration| calibration.grids(&trainer, RangeRule::MinMax, None))
        .unwrap();
    let mut trainer = RoundedActivations::new(trainer, &grids);
    let accuracy = releq::train::accuracy(&mut trainer, &splits.test, &normalization, 100).unwrap();
    assert_eq!(rounded.with_activations, accuracy.accuracy());
}

/// Stopped before it has done anything new, a run tells of all that is on record.
#[test]
fn a_run_that_is_stopped_at_once_reports_what_was_known() {
    let root = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    let on_event = |event: &Event| {
        if event.stage() == Stage::Final && event.progress().0 == 2 {
            cancel.cancel();
        }
    };
    let first = run(root.path(), &on_event, &cancel).unwrap();
    assert!(first.cancelled && !first.rows.is_empty());
    let second = run(root.path(), &|_| {}, &cancel).unwrap();
    assert_same(&second, &first, "cancelled from the start");
}

/// Weights of the answer that are damaged, or another run's at the same bitwidths, are made again and not taken away.
#[test]
fn weights_that_are_not_the_answers_are_made_again() {
    let recorded = recorded(usize::MAX);
    let whole = recorded.whole();
    let best = whole.join("best.safetensors");
    let right = fs::read(&best).unwrap();
    let tensors = safetensors::read_tensors(&best).unwrap().0;
    let bits = &recorded.report.answer.as_ref().unwrap().bits;
    let origin = format!(r#"{{"run":"another","bits":"{bits}"}}"#);
    let metadata = HashMap::from([("releq".to_owned(), origin)]);
    safetensors::write_tensors(&best, &tensors, metadata).unwrap();
    let others = fs::read(&best).unwrap();
    for (wrong, reason) in
        [(&others[..], "another run's"), (&right[..right.len() / 2], "cut short")]
    {
        fs::write(&best, wrong).unwrap();
        let message = RunFolder::answer_of(&whole).unwrap_err().to_string();
        assert!(message.contains("best.safetensors") && message.contains(reason), "{message}");
        assert_same(&finish(&whole), &recorded.report, reason);
        assert!(fs::read(&best).unwrap() == right, "{reason}");
        assert_eq!(RunFolder::answer_of(&whole).unwrap().model.bits(), *bits);
    }
}

#[test]
fn a_run_that_was_killed_at_any_event_ends_with_the_same_report() {
    let recorded = recorded(9);
    assert!(recorded.copies.len() > 15, "{} copies show little", recorded.copies.len());
    for copy in recorded.copies.iter().step_by(2) {
        assert_same(&finish(copy), &recorded.report, &copy.display().to_string());
        assert!(RunFolder::is_finished(copy).unwrap());
    }
    // Nothing that was on record was measured again.
    let last = recorded.copies.iter().step_by(2).next_back().unwrap();
    let measured = Mutex::new(BTreeSet::new());
    let on_event = |event: &Event| {
        measured.lock().unwrap().insert(event.stage().to_string());
    };
    run(last, &on_event, &Cancel::new()).unwrap();
    assert!(measured.into_inner().unwrap().is_empty(), "a finished run does nothing");
}

#[test]
fn a_run_that_is_stopped_again_and_again_gets_to_its_end() {
    let straight = experiment().run(&Cancel::new(), &|_| {}).unwrap();
    let root = tempfile::tempdir().unwrap();
    let mut lives = 0;
    let report = loop {
        lives += 1;
        assert!(lives < 200, "no progress");
        let cancel = Cancel::new();
        let events = Mutex::new(0);
        let on_event = |event: &Event| {
            // Seven events into what is new: what is on record is played again first.
            let mut events = events.lock().unwrap();
            *events += 1;
            if *events > 7 && event.stage() == Stage::Pretrain || *events > 11 {
                cancel.cancel();
            }
        };
        match run(root.path(), &on_event, &cancel) {
            Ok(report) if !report.cancelled => break report,
            Ok(_) | Err(ReleqError::Cancelled) => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert!(lives > 5, "{lives} lives show little");
    assert_same(&as_without_a_folder(&report), &straight, "after many lives");
}

/// Resumes a copy that was changed: it gives the same report, or an error that names the file and a remedy.
fn resumed_or_refused(
    recorded: &Recorded,
    from: &Path,
    what: &str,
    change: impl FnOnce(&Path),
) -> bool {
    let root = tempfile::tempdir().unwrap();
    copy(from, root.path());
    change(root.path());
    match run(root.path(), &|_| {}, &Cancel::new()) {
        Ok(report) => {
            assert_same(&report, &recorded.report, what);
            true
        }
        Err(error) => {
            let message = error.to_string();
            let names = files(from)
                .iter()
                .any(|file| message.contains(&*file.file_name().unwrap().to_string_lossy()));
            assert!(names, "{what}: `{message}` names no file");
            assert!(
                ["delete", "restore", "new run", "new folder"]
                    .iter()
                    .any(|remedy| message.contains(remedy)),
                "{what}: `{message}` names no remedy"
            );
            false
        }
    }
}

#[test]
fn a_folder_with_a_missing_a_cut_or_a_changed_file_is_resumed_or_refused() {
    let recorded = recorded(9);
    // In the middle of the search, in the long retrains, and at the end.
    let copies = &recorded.copies;
    let moments =
        [copies[copies.len() / 2].clone(), copies[copies.len() - 2].clone(), recorded.whole()];
    let mut resumed = 0;
    for moment in &moments {
        for file in files(moment) {
            let name = format!("{} of {}", file.display(), moment.display());
            let gone = |root: &Path| fs::remove_file(root.join(&file)).unwrap();
            resumed +=
                usize::from(resumed_or_refused(&recorded, moment, &format!("no {name}"), gone));
            let bytes = fs::read(moment.join(&file)).unwrap();
            let len = bytes.len() * 5 / 8;
            let cut = |root: &Path| fs::write(root.join(&file), &bytes[..len]).unwrap();
            let what = format!("{name} cut to {len} bytes");
            resumed += usize::from(resumed_or_refused(&recorded, moment, &what, cut));
        }
    }
    assert!(resumed > 15, "only {resumed} were resumed");
}

#[test]
fn other_settings_data_weights_and_other_runs_are_refused_by_name() {
    let recorded = recorded(usize::MAX);
    let root = tempfile::tempdir().unwrap();
    copy(recorded.copies.first().unwrap(), root.path());
    let refused = |experiment: Experiment, expected: &str| {
        let folder = RunFolder::open(root.path()).unwrap();
        let error = experiment.run_in(&folder, &Cancel::new(), &|_| {}).unwrap_err().to_string();
        assert!(error.contains(expected), "`{error}` lacks `{expected}`");
        assert!(error.contains("begin a new run in another folder"), "{error}");
    };
    let other = config(|c| c.tolerance = 0.02);
    refused(Experiment::new(lenet(), data(1), other), "the setting `tolerance` 0.003");
    refused(Experiment::new(lenet(), data(2), config(|_| {})), "data with fingerprint");
    let other = config(|c| c.long_retrain.sgd.momentum = 0.5);
    refused(Experiment::new(lenet(), data(1), other), "`long_retrain.sgd.momentum`");
    let weights = releq::train::initial_weights(&lenet(), 8);
    refused(experiment().weights(weights), "weights");
    // Threads may differ.
    let folder = RunFolder::open(root.path()).unwrap();
    let one = config(|c| c.threads = NonZeroUsize::MIN);
    let report =
        Experiment::new(lenet(), data(1), one).run_in(&folder, &Cancel::new(), &|_| {}).unwrap();
    assert_same(&report, &recorded.report, "with one thread");
}

#[test]
fn a_folder_that_stays_open_knows_the_run_that_was_begun_in_it() {
    let root = tempfile::tempdir().unwrap();
    let folder = RunFolder::open(root.path()).unwrap();
    let run = |experiment: Experiment| experiment.run_in(&folder, &Cancel::new(), &|_| {});
    let report = run(experiment()).unwrap();
    let other = config(|c| c.tolerance = 0.02);
    let error = run(Experiment::new(lenet(), data(1), other)).unwrap_err().to_string();
    assert!(error.contains("the setting `tolerance` 0.003"), "{error}");
    assert_same(&run(experiment()).unwrap(), &report, "asked again");
}

#[test]
fn one_process_at_a_time_and_no_foreign_folders() {
    let root = tempfile::tempdir().unwrap();
    let held = RunFolder::open(root.path()).unwrap();
    let error = RunFolder::open(root.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
    drop(held);
    drop(RunFolder::open(root.path()).unwrap());

    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("thesis.tex"), "").unwrap();
    let error = RunFolder::open(foreign.path()).unwrap_err().to_string();
    assert!(error.contains("`thesis.tex`") && error.contains("new folder"), "{error}");
    assert_eq!(files(foreign.path()).len(), 1, "nothing was written there");
    let error = RunFolder::config_of(foreign.path()).unwrap_err().to_string();
    assert!(error.contains("no config.json"), "{error}");
}
