//! The program, and small inputs for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use releq::data::{
    ImageSet,
    digits::{self, DigitsConfig},
};

/// The program, without what this process's environment would change.
pub(crate) fn releq() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_releq"));
    command.env_remove("RELEQ_DATA_DIR").env_remove("RUST_LOG").env_remove("NO_COLOR");
    // No data set of whoever runs the tests is found.
    command.env("XDG_CACHE_HOME", "/nonexistent").env("HOME", "/nonexistent");
    command.stdin(Stdio::null());
    command
}

/// What the program says, wherever.
pub(crate) fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).join("\n")
}

/// Writes drawn digits as the files of MNIST.
pub(crate) fn write_mnist(folder: &Path, seed: u64) {
    let config = DigitsConfig { train: 640, test: 64, seed, ..DigitsConfig::default() };
    let drawn = digits::generate(&config).unwrap();
    let write = |half: &str, set: &ImageSet| {
        let header = |magic: u32, sides: &[u32]| -> Vec<u8> {
            let count = u32::try_from(set.len()).unwrap();
            let numbers = [magic, count].into_iter().chain(sides.iter().copied());
            numbers.flat_map(u32::to_be_bytes).collect()
        };
        let (mut images, mut labels) = (header(0x803, &[28, 28]), header(0x801, &[]));
        for index in 0..set.len() {
            images.extend(set.image(index));
            labels.push(u8::try_from(set.label(index)).unwrap());
        }
        fs::write(folder.join(format!("{half}-images-idx3-ubyte")), images).unwrap();
        fs::write(folder.join(format!("{half}-labels-idx1-ubyte")), labels).unwrap();
    };
    fs::create_dir_all(folder).unwrap();
    write("train", &drawn.train);
    write("t10k", &drawn.test);
}

/// Data, weights and a table that many tests read and none changes.
pub(crate) struct Inputs {
    folder: tempfile::TempDir,
}

impl Inputs {
    /// The inputs, made once.
    pub(crate) fn get() -> &'static Self {
        static INPUTS: OnceLock<Inputs> = OnceLock::new();
        INPUTS.get_or_init(|| {
            let inputs = Self { folder: tempfile::tempdir().unwrap() };
            write_mnist(&inputs.data(), 1);
            let mut rows = "bits,accuracy_percent\n".to_owned();
            for index in 0..81 {
                let bits = [27, 9, 3, 1].map(|place| 2 + index / place % 3);
                let lost: f64 = bits.iter().map(|&bits| 4.0 / f64::from(bits * bits)).sum();
                let bits = bits.map(|bits| bits.to_string()).join("-");
                rows += &format!("{bits},{}\n", 99.0 - lost);
            }
            fs::write(inputs.table(), rows).unwrap();
            let mut train = releq();
            train.args(["train", "lenet", "--epochs", "1", "--batch-size", "64"]);
            train.arg("--data").arg(inputs.data()).arg("--output").arg(inputs.weights());
            let output = train.output().unwrap();
            assert!(output.status.success(), "{}", text(&output));
            inputs
        })
    }

    /// A folder with the files of MNIST.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Weights of LeNet.
    pub(crate) fn weights(&self) -> PathBuf {
        self.folder.path().join("lenet.safetensors")
    }

    /// Accuracies of all assignments of 2 to 4 bits to four layers.
    pub(crate) fn table(&self) -> PathBuf {
        self.folder.path().join("table.csv")
    }
}

/// The command line `line`, in which `DATA`, `WEIGHTS`, `TABLE` and `DIR` stand for the inputs and for `dir`, and `MODELS`
/// for [`MODELS`].
pub(crate) fn command(line: &str, dir: &Path) -> Command {
    let inputs = Inputs::get();
    let mut command = releq();
    for word in line.split_whitespace() {
        let mut word = word.to_owned();
        for (name, path) in [
            ("DATA", inputs.data()),
            ("WEIGHTS", inputs.weights()),
            ("TABLE", inputs.table()),
            ("MODELS", PathBuf::from(MODELS)),
            ("DIR", dir.to_owned()),
        ] {
            word = word.replace(name, path.to_str().unwrap());
        }
        command.arg(word);
    }
    command
}

/// Small models with what they compute, a LeNet for digits among them.
pub(crate) const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/onnx");

/// What a command that succeeds says.
pub(crate) fn said(line: &str, dir: &Path) -> String {
    let output = command(line, dir).output().unwrap();
    assert!(output.status.success(), "releq {line}\n{}", text(&output));
    text(&output)
}

/// That a command ends with `code` and says so much.
pub(crate) fn refused(line: &str, dir: &Path, code: i32, expected: &str) {
    let output = command(line, dir).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(code), "releq {line}\n{said}");
    assert!(said.contains(expected), "`{said}` lacks `{expected}`");
}
