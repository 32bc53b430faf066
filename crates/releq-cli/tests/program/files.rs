//! No command writes over what it reads, whatever the names.

use std::{fs, path::Path};

use crate::support::{Inputs, command, text};

fn refused(line: &str, dir: &Path, options: [&str; 2]) {
    let output = command(line, dir).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2), "releq {line}\n{said}");
    let expected = format!("{} and {} name the same file", options[0], options[1]);
    assert!(said.contains(&expected), "releq {line}\n{said}");
}

#[test]
fn a_file_that_is_read_and_written_is_refused_and_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let weights = fs::read(Inputs::get().weights()).unwrap();
    fs::write(dir.join("w"), &weights).unwrap();
    fs::write(dir.join("s"), "{}").unwrap();
    fs::write(dir.join("l.csv"), "network,layer\n").unwrap();
    fs::hard_link(dir.join("w"), dir.join("hard")).unwrap();
    let train = "train lenet --data DATA --epochs 1";
    for (line, options) in [
        ("--weights DIR/w --output DIR/w", ["--weights", "--output"]),
        ("--weights DIR/w --output DIR/hard", ["--weights", "--output"]),
        ("--weights DIR/w --output DIR/./w", ["--weights", "--output"]),
        ("--schedule DIR/s --output DIR/s", ["--schedule", "--output"]),
        ("--weights DIR/w --state DIR/w --output DIR/o", ["--weights", "--state"]),
        ("--state DIR/st --output DIR/st", ["--output", "--state"]),
    ] {
        refused(&format!("{train} {line}"), dir, options);
    }
    let cost = "cost --layers DIR/l.csv --bits 4";
    refused(&format!("{cost} --csv DIR/l.csv"), dir, ["--layers", "--csv"]);
    refused(&format!("{cost} --cpu-table DIR/l.csv"), dir, ["--layers", "--cpu-table"]);
    let both = "cost lenet --bits 4 --csv DIR/c --cpu-table DIR/c";
    refused(both, dir, ["--csv", "--cpu-table"]);
    assert_eq!(fs::read(dir.join("w")).unwrap(), weights);
    let names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 4, "nothing is left behind: {names:?}");
}

#[test]
#[cfg(unix)]
fn symbolic_links_are_followed() {
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fs::copy(Inputs::get().weights(), dir.join("w")).unwrap();
    symlink("w", dir.join("soft")).unwrap();
    symlink("new", dir.join("dangling")).unwrap();
    let train = "train lenet --data DATA --epochs 1";
    let both = "--weights DIR/w --output DIR/soft";
    refused(&format!("{train} {both}"), dir, ["--weights", "--output"]);
    let both = "--output DIR/new --state DIR/dangling";
    refused(&format!("{train} {both}"), dir, ["--output", "--state"]);
}
