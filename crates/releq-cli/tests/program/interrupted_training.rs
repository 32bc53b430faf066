//! Trainings that are killed, stopped, or run out of disk: `releq train` as its users run it.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use releq::data::npz::{self, Array};

use crate::support::{releq, text, write_mnist};

/// A folder with `data` and room for what a training writes.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        write_mnist(&place.path("data"), 1);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A training of some seconds that keeps its state.
    fn command(&self, epochs: u32) -> Command {
        let mut command = releq();
        command.args(["train", "lenet", "--save-every", "0.05"]);
        command.args(["--batch-size", "32", "--epochs", &epochs.to_string()]);
        command.arg("--data").arg(self.path("data"));
        command.arg("--state").arg(self.path("state"));
        command.arg("--output").arg(self.path("weights"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn weights(&self) -> Vec<u8> {
        fs::read(self.path("weights")).unwrap()
    }

    /// Forgets the training, not the data.
    fn clear(&self) {
        for name in ["state", "weights"] {
            let _ = fs::remove_file(self.path(name));
        }
    }
}

fn succeeds(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

fn fails(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    text(&output)
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Steps that an earlier life took, as the program says.
fn resumed_after(said: &str) -> usize {
    let Some((_, rest)) = said.split_once("resuming after ") else { return 0 };
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_training_killed_again_and_again_ends_with_the_same_bytes() {
    let place = Place::new();
    succeeds(place.command(20));
    let straight = place.weights();
    place.clear();

    let (mut kills, mut steps) = (0, 0);
    let said = loop {
        let mut child = place.command(20).spawn().unwrap();
        // Moments that have nothing to do with those at which states are written.
        sleep(Duration::from_millis(400 + 37 * kills % 300));
        if child.try_wait().unwrap().is_none() && kills < 8 {
            child.kill().unwrap();
        }
        let output = child.wait_with_output().unwrap();
        let said = text(&output);
        // No life loses what an earlier one kept.
        assert!(resumed_after(&said) >= steps, "{said}");
        steps = resumed_after(&said);
        if output.status.success() {
            break said;
        }
        assert_eq!(output.status.signal(), Some(9), "{said}");
        kills += 1;
    };
    assert!(kills > 0, "the training was over before it could be killed");
    assert!(steps > 0, "no life went on where another had stopped: {said}");
    assert_eq!(place.weights(), straight);
    // Nothing is left of files that were being written.
    let mut left: Vec<_> = fs::read_dir(place.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["data", "state", "weights"]);
}

#[test]
fn a_signal_stops_a_training_which_then_goes_on() {
    let place = Place::new();
    succeeds(place.command(20));
    let straight = place.weights();
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        place.clear();
        let child = place.command(20).spawn().unwrap();
        // The first state shows that the steps have begun.
        while !place.path("state").exists() {
            sleep(Duration::from_millis(10));
        }
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(
            said.contains("stopped after") && said.contains("the same command resumes"),
            "{said}"
        );
        assert!(place.path("weights").exists());
        assert!(resumed_after(&succeeds(place.command(20))) > 0);
        assert_eq!(place.weights(), straight);
    }
}

/// A command without a state has the same exit codes.
#[test]
fn a_signal_ends_a_command_that_has_nothing_to_save() {
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut command = releq();
        command.args(["bench", "vgg16", "--bits", "8", "--repeats", "100000"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        sleep(Duration::from_millis(500));
        assert!(child.try_wait().unwrap().is_none(), "it is over already");
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    }
}

/// Scoring the test images may take longer than a short training.
#[test]
fn a_signal_ends_the_scoring_of_test_images() {
    let folder = tempfile::tempdir().unwrap();
    let (data, weights) = (folder.path().join("noise.npz"), folder.path().join("weights"));
    let noise = |index: usize| (index * 2_654_435_761 % 256) as f32;
    let images: usize = 1500;
    let values = (0..images * 3 * 32 * 32).map(noise).collect();
    let x = Array { shape: vec![images, 3, 32, 32], values };
    let labels = (0..images).map(|index| (index % 10) as f32).collect();
    let y = Array { shape: vec![images], values: labels };
    npz::write(&data, &[("x", &x), ("y", &y)]).unwrap();
    let mut command = releq();
    command.args(["train", "vgg16", "--epochs", "0", "--data"]).arg(&data);
    command.arg("--output").arg(&weights).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    while !weights.exists() {
        sleep(Duration::from_millis(10));
    }
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("stopped before all test images were scored; written to"), "{said}");
}

/// A thousand layers take an agent minutes a batch.
#[test]
fn a_signal_ends_a_replay_in_the_midst_of_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("wide.csv");
    let row = |bits: &str, accuracy| format!("{},{accuracy}\n", vec![bits; 1000].join("-"));
    let rows = ["bits,accuracy_percent\n", &row("8", 90), &row("4", 89)].concat();
    fs::write(&table, rows).unwrap();
    let mut command = releq();
    command.args(["replay", "--on-miss", "nearest", "--evaluations", "9", "--table"]);
    command.arg(&table).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    sleep(Duration::from_secs(1));
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
}

#[test]
fn a_state_of_another_training_is_refused_by_what_differs() {
    let place = Place::new();
    succeeds(place.command(1));
    let state = fs::read(place.path("state")).unwrap();
    // As many images, but others.
    write_mnist(&place.path("others"), 2);
    let mut other = place.command(1);
    let refused = fails({
        other.arg("--data").arg(place.path("others"));
        // The option may be given once only: this is the command without the first.
        without_first(&other, "--data")
    });
    assert!(refused.contains("data with fingerprint"), "{refused}");

    let mut other = place.command(1);
    other.args(["--backend", "flex"]);
    let refused = fails(other);
    assert!(refused.contains("the trainer native") && refused.contains("flex"), "{refused}");

    let mut other = place.command(1);
    fs::copy(place.path("weights"), place.path("trained")).unwrap();
    other.arg("--weights").arg(place.path("trained"));
    let refused = fails(other);
    assert!(refused.contains("starting weights with fingerprint"), "{refused}");

    let mut other = place.command(1);
    other.args(["--seed", "2"]);
    let refused = fails(other);
    assert!(refused.contains("begun with seed 1"), "{refused}");
    assert_eq!(fs::read(place.path("state")).unwrap(), state, "the state is untouched");
}

/// The command without the first occurrence of `option` and its value.
fn without_first(command: &Command, option: &str) -> Command {
    let mut arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let at = arguments.iter().position(|argument| argument == option).unwrap();
    arguments.drain(at..at + 2);
    let mut changed = releq();
    changed.args(arguments).stdin(Stdio::null());
    changed
}

#[test]
fn a_batch_larger_than_the_data_is_refused() {
    let place = Place::new();
    for size in ["1000", "18446744073709551615"] {
        let mut command = without_first(&place.command(1), "--batch-size");
        command.args(["--batch-size", size]);
        let refused = fails(command);
        assert!(refused.contains("batch_size") && refused.contains("640 images"), "{refused}");
    }
    assert!(!place.path("weights").exists());
}

#[test]
fn output_that_nobody_can_take_costs_nothing_else() {
    let place = Place::new();
    let run = |stdout: Stdio| -> (ExitStatus, String) {
        place.clear();
        let mut command = place.command(1);
        let output = command.stdout(stdout).spawn().unwrap().wait_with_output().unwrap();
        assert!(place.path("weights").exists() && place.path("state").exists());
        (output.status, text(&output))
    };
    // A reader that is gone, as `| head` is, is no failure.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (status, said) = run(writer.into());
    assert!(status.success(), "{said}");
    if let Ok(full) = fs::OpenOptions::new().write(true).open("/dev/full") {
        let (status, said) = run(full.into());
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("standard output"), "{said}");
    }
}

/// Runs a command line in a mount namespace of its own; `None` where that is not allowed.
#[cfg(target_os = "linux")]
fn with_mounts(script: &str, program: &Command) -> Option<Output> {
    let allowed = Command::new("unshare").args(["-m", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(program.get_program()).args(program.get_args());
    Some(command.output().unwrap())
}

#[test]
#[cfg(target_os = "linux")]
#[allow(clippy::print_stderr, reason = "what was skipped is told")]
fn a_state_that_does_not_fit_the_disk_costs_neither_training_nor_weights() {
    let place = Place::new();
    let disk = place.path("disk");
    fs::create_dir(&disk).unwrap();
    let mut command = without_first(&place.command(2), "--state");
    command.arg("--state").arg(disk.join("state"));
    let script = format!("mount -t tmpfs -o size=1m tmpfs '{}' && \"$0\" \"$@\"", disk.display());
    let Some(output) = with_mounts(&script, &command) else {
        eprintln!("skipped: mount namespaces need root");
        return;
    };
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("warning: the state is not saved"), "{said}");
    assert!(said.contains("test images correct") && said.contains("state"), "{said}");
    assert!(place.path("weights").exists(), "{said}");
}
