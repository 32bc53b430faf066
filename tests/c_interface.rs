//! A program in C and one in Python classify a digit with a packed LeNet, by the static and by the shared library.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may fail loudly, and says what it skips"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use releq::{data::Dataset, format::packed, zoo};
use releq_test_support::deployed::packed_lenet;

/// Where Cargo puts the libraries that this test depends on.
fn libraries() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

fn runs(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").output().is_ok_and(|told| told.status.success());
    if !found {
        eprintln!("skipped: there is no {program}");
    }
    found
}

/// What a command says, which must succeed.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{command:?}\n{}{}", text[0], text[1]);
    text[0].clone()
}

#[test]
fn programs_in_c_and_python_classify_a_digit() {
    // The symbols are in a library that this test never calls, so it must be named to be linked.
    let _ = releq_c::releq_last_error;
    let folder = tempfile::tempdir().unwrap();
    let (packed, test) = packed_lenet();
    let model = folder.path().join("lenet.safetensors");
    packed::save(&model, &packed).unwrap();
    let normalization = zoo::preset("lenet").unwrap().normalization;
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    test.gather(&[0, 1, 2, 3, 4], &normalization, &mut pixels, &mut labels).unwrap();
    let mut runtime =
        releq_runtime::Model::compile(&packed, &releq_runtime::Options::default()).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/releq-c");
    let (libraries, shared) = (libraries(), libraries().join("libreleq_c.so"));
    let mut programs = Vec::new();
    if cfg!(target_os = "linux") && runs("cc") {
        for (name, linked) in [
            (
                "static",
                vec![
                    libraries.join("libreleq_c.a").display().to_string(),
                    "-lpthread".into(),
                    "-ldl".into(),
                    "-lm".into(),
                ],
            ),
            (
                "shared",
                vec![shared.display().to_string(), format!("-Wl,-rpath,{}", libraries.display())],
            ),
        ] {
            let program = folder.path().join(name);
            let mut cc = Command::new("cc");
            cc.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-I"]).arg(source.join("include"));
            cc.arg(source.join("examples/classify.c")).args(&linked).arg("-o").arg(&program);
            said(&mut cc);
            programs.push((
                vec![program.display().to_string()],
                vec!["784".to_owned(), "10".to_owned()],
            ));
        }
    }
    if cfg!(target_os = "linux") && runs("python3") {
        let script = source.join("examples/classify.py").display().to_string();
        programs.push((
            vec!["python3".to_owned(), script, shared.display().to_string()],
            vec!["10".to_owned()],
        ));
    }
    let mut right = 0;
    for (image, &label) in pixels.chunks(784).zip(&labels) {
        let mut logits = [0.0; 10];
        runtime.run(image, &mut logits).unwrap();
        let class = (0..10).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        right += usize::from(class == usize::from(label));
        let file = folder.path().join("digit.f32");
        fs::write(&file, image.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
            .unwrap();
        for (program, rest) in &programs {
            let mut command = Command::new(&program[0]);
            command.args(&program[1..]).arg(&model).arg(&file).args(rest);
            assert_eq!(said(&mut command), format!("class {class}\n"), "{program:?}");
        }
    }
    assert!(right >= 4, "{right} of 5 digits");
    // What fails is said, and ends the program.
    for (program, rest) in &programs {
        let mut command = Command::new(&program[0]);
        command
            .args(&program[1..])
            .arg("nothing.safetensors")
            .arg(folder.path().join("digit.f32"))
            .args(rest);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("nothing.safetensors"));
    }
}
