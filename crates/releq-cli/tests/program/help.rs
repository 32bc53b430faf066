//! What `--help` says.

use crate::support::{releq, text};

fn help(arguments: &[&str]) -> String {
    let output = releq().args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The commands below `command`, as its help lists them.
fn commands(command: &[&str]) -> Vec<String> {
    let help = help(&[command, &["--help"]].concat());
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn every_help_fits_80_columns_and_ends_with_examples() {
    let (commands, experiments) = (commands(&[]), commands(&["experiment"]));
    for expected in ["train", "evaluate", "cost", "replay", "quantize", "bench", "list"] {
        assert!(commands.iter().any(|name| name == expected), "{commands:?}");
    }
    let commands = commands.iter().map(|name| vec![name.as_str()]);
    let experiments = experiments.iter().map(|name| vec!["experiment", name.as_str()]);
    for command in commands.chain(experiments).chain([vec![]]) {
        if command.last() == Some(&"help") {
            continue;
        }
        for flag in ["--help", "-h"] {
            let arguments = [command.as_slice(), &[flag]].concat();
            let help = help(&arguments);
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{arguments:?}: {line}");
                assert!(!line.contains('\x1b'), "{arguments:?} has colours: {line}");
            }
            assert!(help.contains("Usage: releq"), "{help}");
            assert!(help.contains("Examples:\n  releq "), "{arguments:?}:\n{help}");
        }
    }
}

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let mut command = releq();
    command.args(["help", "search"]).stdout(full).stderr(std::process::Stdio::piped());
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("cannot write to standard output"), "{}", text(&output));
}

#[test]
fn the_version_is_that_of_the_package() {
    assert_eq!(help(&["--version"]), format!("releq {}\n", env!("CARGO_PKG_VERSION")));
}
