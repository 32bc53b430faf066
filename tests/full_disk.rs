//! Disks that fill up, and folders that become read-only or go away, while a training or a search runs: what was
//! computed is not lost, the files of before stay whole, and the error says which file could not be written.
//!
//! The small disks are file systems in memory, which only the superuser may mount on Linux. Elsewhere these tests say
//! that they were skipped.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]
#![cfg(target_os = "linux")]

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use releq::{
    Budget, Cancel, Event, Experiment, ExperimentConfig, ReleqError, Report, RunFolder, Stage,
    data::{
        Normalization,
        digits::{self, DigitsConfig},
    },
    format::safetensors,
    quant::QuantizerKind,
    train::{
        Length, NativeTrainer, Schedule, Sgd, StateSaver, Trainer, Training, TrainingState,
        initial_weights,
    },
    zoo::lenet,
};
use releq_test_support::timeless;
use tempfile::TempDir;

/// A file system in memory of a few megabytes, gone when it is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    #[allow(clippy::print_stderr, reason = "a skipped test should be seen")]
    fn mount(megabytes: u32) -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let options = format!("size={megabytes}m");
        if disk.run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs"]) {
            return Some(disk);
        }
        eprintln!("skipped: no file system can be mounted here");
        None
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let output = Command::new(program).args(arguments).arg(self.0.path()).output();
        output.is_ok_and(|output| output.status.success())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Leaves less than a page.
    fn fill(&self) {
        let mut size = 1 << 22;
        let mut filler = Vec::new();
        while size >= 1 << 12 {
            filler.resize(filler.len() + size, 1);
            if fs::write(self.path("filler"), &filler).is_err() {
                filler.truncate(filler.len() - size);
                fs::write(self.path("filler"), &filler).unwrap();
                size /= 2;
            }
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.run("umount", &["-l"]);
    }
}

/// The message and everything that caused it.
fn chain(error: &dyn Error) -> String {
    let source = error.source().map_or_else(String::new, |source| format!(": {}", chain(source)));
    format!("{error}{source}")
}

/// Checks that the error names the file and what happened, and no temporary file.
fn named(error: &dyn Error, path: &Path, expected: &str) {
    let message = chain(error);
    assert!(message.contains(&path.display().to_string()), "{message}");
    assert!(message.contains(expected), "`{message}` lacks `{expected}`");
    let temporary = format!("/.{}.", path.file_name().unwrap().display());
    assert!(!message.contains(&temporary), "`{message}` names a temporary file");
}

const FULL: &str = "o space left on device";

/// A search of a few steps.
fn experiment() -> Experiment {
    let data = DigitsConfig { train: 300, test: 40, ..DigitsConfig::default() };
    let data = digits::generate(&data).unwrap();
    let mut config = ExperimentConfig::lenet(1);
    (config.validation, config.search_validation) = (40, 20);
    for schedule in [&mut config.pretrain, &mut config.short_retrain, &mut config.long_retrain] {
        (schedule.length, schedule.batch_size) = (Length::Steps(2), 20);
    }
    config.budget = Budget { evaluations: Some(3), ..Budget::default() };
    config.compare = false;
    Experiment::new(lenet(), data, config)
}

/// Runs a search in the folder `run` of the disk, with `act` at every event.
fn run(
    disk: &SmallDisk,
    act: &(dyn Fn(&Event) + Sync),
    cancel: &Cancel,
) -> Result<Report, ReleqError> {
    let folder = RunFolder::open(disk.path("run")).unwrap().save_every(Duration::ZERO);
    experiment().run_in(&folder, cancel, act)
}

#[test]
fn a_search_whose_disk_fills_up_anywhere_says_so_and_goes_on_when_there_is_room() {
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = RunFolder::open(elsewhere.path()).unwrap();
    let expected = timeless(&experiment().run_in(&folder, &Cancel::new(), &|_| {}).unwrap());
    for stage in [Stage::Pretrain, Stage::Search, Stage::Final] {
        let Some(disk) = SmallDisk::mount(64) else { return };
        let filled = AtomicBool::new(false);
        let fill = |event: &Event| {
            if event.stage() == stage && !filled.swap(true, Ordering::Relaxed) {
                disk.fill();
            }
        };
        let message = match run(&disk, &fill, &Cancel::new()) {
            Err(error) => chain(&error),
            Ok(report) => {
                // What was measured is in the report, which cannot be written either.
                assert!(!report.search.scored.is_empty());
                report.error.unwrap_or_default()
            }
        };
        assert!(message.contains(FULL) && message.contains("/run/"), "{stage}: {message}");
        fs::remove_file(disk.path("filler")).unwrap();
        let report = run(&disk, &|_| {}, &Cancel::new()).unwrap();
        assert_eq!(timeless(&report), expected, "filled in the stage {stage}");
    }
}

#[test]
fn a_report_on_a_full_disk_leaves_the_earlier_one_and_can_be_written_later() {
    let Some(disk) = SmallDisk::mount(8) else { return };
    let (json, csv) = (disk.path("report.json"), disk.path("rows.csv"));
    fs::write(&json, "{\"an earlier\": \"report\"}").unwrap();
    disk.fill();
    let report = experiment().run(&Cancel::new(), &|_| {}).unwrap();
    for (path, written) in [(&json, report.write_json(&json)), (&csv, report.write_csv(&csv))] {
        named(&written.unwrap_err(), path, FULL);
    }
    assert_eq!(fs::read_to_string(&json).unwrap(), "{\"an earlier\": \"report\"}");
    assert_eq!(disk.names(), ["filler", "report.json"], "no temporary file is left");
    fs::remove_file(disk.path("filler")).unwrap();
    report.write_json(&json).unwrap();
    let text = fs::read_to_string(&json).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}

#[test]
fn a_cancelled_training_on_a_full_disk_says_that_its_state_is_lost() {
    let Some(disk) = SmallDisk::mount(8) else { return };
    let cancel = Cancel::new();
    let stop = |event: &Event| {
        if matches!(event, Event::TrainingStep { .. }) && !cancel.cancel() {
            disk.fill();
        }
    };
    let error = run(&disk, &stop, &cancel).unwrap_err();
    assert!(matches!(error, ReleqError::TrainingState(_)), "{error}");
    named(&error, &disk.path("run/states/full-precision.safetensors"), FULL);
}

/// A training of LeNet that has taken a step, its trainer, and `work` on both.
fn training(work: impl FnOnce(&mut Training<'_>, &mut NativeTrainer)) {
    let config = DigitsConfig { train: 60, test: 10, ..DigitsConfig::default() };
    let data = digits::generate(&config).unwrap().train;
    let normalization = Normalization::measured(&data).unwrap();
    let sgd = Sgd { learning_rate: 0.01, momentum: 0.9, weight_decay: 0.0 };
    let schedule = Schedule::new(Length::Steps(4), 20, sgd);
    let mut trainer = NativeTrainer::new(&lenet(), QuantizerKind::Wrpn.build()).unwrap();
    trainer.load(&initial_weights(&lenet(), 1)).unwrap();
    let mut training = Training::new(&data, &normalization, &schedule, 1).unwrap();
    training.step(&mut trainer).unwrap();
    work(&mut training, &mut trainer);
}

#[test]
fn a_training_goes_on_when_its_state_no_longer_fits_the_disk() {
    // LeNet's weights and their velocities take 3.5 MB, so there is room for one state and not for two.
    let Some(disk) = SmallDisk::mount(6) else { return };
    let (state, weights) = (disk.path("state"), disk.path("weights.safetensors"));
    training(|training, trainer| {
        let mut saver = StateSaver::new(&state, Duration::ZERO);
        saver.if_due(training, trainer).unwrap();
        let first = TrainingState::load(&state).unwrap();
        while training.step(trainer).unwrap().is_some() {
            named(&saver.now(training, trainer).unwrap_err(), &state, FULL);
        }
        assert!(!training.report().stopped);
        // The state of before is whole, and the weights, which need less, are written beside it.
        assert_eq!(TrainingState::load(&state).unwrap(), first);
        safetensors::save(&weights, &trainer.weights()).unwrap();
        assert_eq!(safetensors::load(&weights).unwrap(), trainer.weights());
        assert_eq!(disk.names(), ["state", "weights.safetensors"]);
        fs::remove_file(&weights).unwrap();
        disk.fill();
        named(&safetensors::save(&weights, &trainer.weights()).unwrap_err(), &weights, FULL);
        assert_eq!(disk.names(), ["filler", "state"]);
    });
}

#[test]
fn a_training_goes_on_when_the_folder_of_its_state_becomes_read_only_or_goes_away() {
    let Some(disk) = SmallDisk::mount(16) else { return };
    let folder = disk.path("folder");
    fs::create_dir(&folder).unwrap();
    let state = folder.join("state");
    training(|training, trainer| {
        let mut saver = StateSaver::new(&state, Duration::ZERO);
        saver.if_due(training, trainer).unwrap();
        let first = TrainingState::load(&state).unwrap();
        assert!(disk.run("mount", &["-o", "remount,ro"]));
        training.step(trainer).unwrap().unwrap();
        named(&saver.now(training, trainer).unwrap_err(), &state, "ead-only");
        assert_eq!(TrainingState::load(&state).unwrap(), first);
        assert!(disk.run("mount", &["-o", "remount,rw"]));
        training.step(trainer).unwrap().unwrap();
        saver.now(training, trainer).unwrap();
        assert_eq!(TrainingState::load(&state).unwrap().run.report.steps, 3);

        fs::remove_dir_all(&folder).unwrap();
        training.step(trainer).unwrap().unwrap();
        named(&saver.now(training, trainer).unwrap_err(), &state, "create it first");
        fs::create_dir(&folder).unwrap();
        saver.now(training, trainer).unwrap();
        assert!(!TrainingState::load(&state).unwrap().run.report.stopped);
    });
}

#[test]
fn a_run_whose_folder_goes_away_says_what_it_cannot_write() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("run");
    let remove = |event: &Event| {
        if matches!(event, Event::TrainingStep { .. }) {
            let _ = fs::remove_dir_all(&path);
        }
    };
    let folder = RunFolder::open(&path).unwrap();
    let error = experiment().run_in(&folder, &Cancel::new(), &remove).unwrap_err();
    let message = chain(&error);
    assert!(
        message.contains("weights.safetensors") && message.contains("create it first"),
        "{message}"
    );
}
