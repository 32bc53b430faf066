//! No command writes over what it reads, whatever the names.

use std::{fs, path::Path};

use crate::support::{Inputs, refused};

/// That both options are named.
fn same_file(line: &str, dir: &Path, [one, other]: [&str; 2]) {
    refused(line, dir, 2, &format!("{one} and {other} name the same file"));
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
        same_file(&format!("{train} {line}"), dir, options);
    }
    let cost = "cost --layers DIR/l.csv --bits 4";
    same_file(&format!("{cost} --csv DIR/l.csv"), dir, ["--layers", "--csv"]);
    same_file(&format!("{cost} --cpu-table DIR/l.csv"), dir, ["--layers", "--cpu-table"]);
    let priced = format!("{cost} --cost cpu-latency:DIR/s --csv DIR/s");
    same_file(&priced, dir, ["--csv", "--cost"]);
    let both = "cost lenet --bits 4 --csv DIR/c --cpu-table DIR/c";
    same_file(both, dir, ["--csv", "--cpu-table"]);
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
    same_file(&format!("{train} {both}"), dir, ["--weights", "--output"]);
    let both = "--output DIR/new --state DIR/dangling";
    same_file(&format!("{train} {both}"), dir, ["--output", "--state"]);
}
