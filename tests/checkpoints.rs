//! Checkpoints that are hostile, damaged or something else: every one is refused, by a message that names the
//! file, and none is ever run.
//!
//! `golden/tiny_zip.pt` and `golden/tiny_legacy.pth` were saved by PyTorch (`golden/make_forward.py`).
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::{
    error::Error,
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use releq::{
    core::{Conv2d, Network, Parameter, Weights},
    format::{self, Checkpoint, CheckpointError, NameMap},
    train::initial_weights,
    zoo,
};
use safetensors::{Dtype, tensor::TensorView};
use tempfile::TempDir;

/// The network of the two files.
fn tiny() -> Network {
    Network::builder("tiny", [1, 4, 4])
        .conv("0", Conv2d::new(2, 3).without_bias())
        .batch_norm("1")
        .flatten("2")
        .linear("3", 3)
        .build()
        .unwrap()
}

fn golden(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(file)
}

/// The message and everything that caused it.
fn chain(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        message = format!("{message}: {error}");
        source = error.source();
    }
    message
}

fn refused(path: &Path, expected: &str) -> CheckpointError {
    let error = format::load(path, &tiny()).unwrap_err();
    let message = chain(&error);
    assert!(message.contains(path.to_str().unwrap()), "`{message}` does not name the file");
    assert!(message.contains(expected), "`{message}` lacks `{expected}`");
    error
}

/// The zip checkpoint with `instructions` at the start of its pickle.
fn into_zip(path: &Path, instructions: &[u8]) {
    let mut from = zip::ZipArchive::new(File::open(golden("tiny_zip.pt")).unwrap()).unwrap();
    let mut to = zip::ZipWriter::new(File::create(path).unwrap());
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for index in 0..from.len() {
        let mut entry = from.by_index(index).unwrap();
        let name = entry.name().unwrap().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if name.ends_with("data.pkl") {
            bytes.splice(2..2, instructions.iter().copied());
        }
        to.start_file(name, options).unwrap();
        to.write_all(&bytes).unwrap();
    }
    to.finish().unwrap();
}

/// The legacy checkpoint with `instructions` at the start of the pickle of its weights.
fn into_legacy(path: &Path, instructions: &[u8]) {
    let mut bytes = fs::read(golden("tiny_legacy.pth")).unwrap();
    // Magic number, version, system information, weights: the end of one and the start of the next.
    let borders: Vec<usize> =
        (0..bytes.len() - 3).filter(|&at| bytes[at..at + 3] == *b".\x80\x02").collect();
    let start = borders[2] + 3;
    bytes.splice(start..start, instructions.iter().copied());
    fs::write(path, bytes).unwrap();
}

/// A pickle that is nothing but `instructions`, the last of which leaves something on the stack.
fn into_plain(path: &Path, instructions: &[u8]) {
    let mut bytes = b"\x80\x04".to_vec();
    bytes.extend(instructions);
    bytes.extend(b"}.");
    fs::write(path, bytes).unwrap();
}

/// Writes a file that holds the instructions.
type Build = fn(&Path, &[u8]);

const CONTAINERS: [(&str, Build); 3] =
    [("zip.pt", into_zip), ("legacy.pth", into_legacy), ("plain.pkl", into_plain)];

/// What training scripts save beside weights: empty dictionaries, the milestones of a schedule, a score in
/// NumPy's precision, a device, the arguments of the script.
const HARMLESS: [&[u8]; 5] = [
    b"ccollections\nOrderedDict\n(tR0",
    b"ccollections\nCounter\n(}K\x03K\x01stR0",
    b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\0\0\0f8tRC\x08\0\0\0\0\0\0\xf8?tR0",
    b"\x8c\x05torch\x94\x8c\x06device\x94\x93(X\x03\0\0\0cputR0",
    b"cargparse\nNamespace\n)\x81}X\x02\0\0\0lrG?\xb9\x99\x99\x99\x99\x99\x9asb0",
];

#[test]
fn a_pickle_that_tries_to_run_code_is_refused_and_not_run() {
    let folder = TempDir::new().unwrap();
    let marker = folder.path().join("it_ran");
    let touch = format!("touch {}", marker.display());
    let length = u32::try_from(touch.len()).unwrap().to_le_bytes();
    let touch = [b"X", &length[..], touch.as_bytes()].concat();
    let attack = |before: &[u8], after: &[u8]| [before, &touch, after].concat();
    // Each calls a function with the command and drops the answer, so that the weights stay intact.
    let attacks: [(&str, Vec<u8>); 13] = [
        ("posix.system", attack(b"cposix\nsystem\n(", b"tR0")),
        ("os.popen", attack(b"cos\npopen\n(", b"tR0")),
        ("builtins.eval", attack(b"cbuiltins\neval\n(", b"tR0")),
        ("__builtin__.getattr", attack(b"c__builtin__\ngetattr\n(", b"tR0")),
        ("subprocess.Popen", attack(b"csubprocess\nPopen\n", b"\x85\x81\x30")),
        ("posix.system", attack(b"(", b"iposix\nsystem\n0")),
        ("posix.system", attack(b"(cposix\nsystem\n", b"o0")),
        ("posix.system", attack(b"\x8c\x05posix\x94\x8c\x06system\x94\x93(", b"tR0")),
        // The strings come from the memo, one under a number in text.
        (
            "posix.system",
            attack(b"X\x06\0\0\0systemq\xfe0X\x05\0\0\0posixp255\n0g255\nh\xfe\x93(", b"tR0"),
        ),
        // The name is not on top of the stack where it seems to be.
        ("posix.system", attack(b"\x8c\x05posix\x8c\x06system20\x93(", b"tR0")),
        ("a computed name", attack(b"K\x01\x8c\x06system\x93(", b"tR0")),
        // A pickle in the pickle, which PyTorch would load without looking.
        ("torch.storage._load_from_bytes", attack(b"ctorch.storage\n_load_from_bytes\n(", b"tR0")),
        ("a function of the extension registry", attack(b"\x82\x01(", b"tR0")),
    ];
    for (container, build) in CONTAINERS {
        let path = folder.path().join(container);
        // The place is right: what is harmless changes nothing.
        for harmless in HARMLESS {
            build(&path, harmless);
            if container != "plain.pkl" {
                format::load(&path, &tiny()).unwrap();
            }
        }
        for (name, instructions) in &attacks {
            build(&path, instructions);
            let error = refused(&path, &format!("`{name}`"));
            assert!(matches!(error, CheckpointError::Code { .. }), "{error:?}");
        }
    }
    // The whole file is the call.
    let path = folder.path().join("evil.pt");
    fs::write(&path, attack(b"cposix\nsystem\n(", b"tR.")).unwrap();
    assert!(matches!(refused(&path, "`posix.system`"), CheckpointError::Code { .. }));
    assert!(!marker.exists(), "a command was run");
}

#[test]
fn a_small_pickle_that_asks_for_much_memory_is_refused() {
    let folder = TempDir::new().unwrap();
    // Half a megabyte of text, remembered two million times: one byte each.
    let text = [&b"S'"[..], &vec![b'x'; 1 << 19], b"'\n"].concat();
    let bomb = [text, vec![0x94; (1 << 21) + 1], vec![b'0']].concat();
    for (container, build) in CONTAINERS {
        let path = folder.path().join(container);
        build(&path, &bomb);
        refused(&path, "more than 2097152 values");
    }
}

#[test]
fn a_file_that_is_cut_short_is_an_error_wherever_it_is_cut() {
    let folder = TempDir::new().unwrap();
    for file in ["tiny_zip.pt", "tiny_legacy.pth"] {
        let bytes = fs::read(golden(file)).unwrap();
        let path = folder.path().join(file);
        for length in (0..bytes.len()).step_by(13) {
            fs::write(&path, &bytes[..length]).unwrap();
            refused(&path, "");
        }
    }
    let path = folder.path().join("cut.safetensors");
    format::safetensors::save(&path, &initial_weights(&tiny(), 0)).unwrap();
    let bytes = fs::read(&path).unwrap();
    for length in (0..bytes.len()).step_by(13) {
        fs::write(&path, &bytes[..length]).unwrap();
        refused(&path, "");
    }
}

#[test]
fn no_damaged_byte_panics() {
    let folder = TempDir::new().unwrap();
    for file in ["tiny_zip.pt", "tiny_legacy.pth"] {
        let bytes = fs::read(golden(file)).unwrap();
        let path = folder.path().join(file);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xFF;
            fs::write(&path, damaged).unwrap();
            // Padding and values may change unseen; what is refused names the file.
            if let Err(error) = format::load(&path, &tiny()) {
                assert!(chain(&error).contains(file), "{error}");
            }
        }
    }
}

#[test]
fn foreign_files_are_told_apart() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("weights.pth");
    let check = |bytes: &[u8], expected: &str| {
        fs::write(&path, bytes).unwrap();
        refused(&path, expected);
    };
    check(b"", "is empty; fetch it again");
    check(b"<html>404</html>", "is a web page");
    check(b"GIF89a", "neither a PyTorch checkpoint nor a safetensors file");
    check(b"\x1f\x8b\x08\0\0\0\0\0", "is it compressed");
    check(b"\x80\x02}q\0.", "holds no tensors");
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    check(&tar, "PyTorch before 0.1.10");
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive.start_file("word/document.xml", zip::write::SimpleFileOptions::default()).unwrap();
    check(&archive.finish().unwrap().into_inner(), "neither a PyTorch checkpoint nor");

    assert!(matches!(refused(folder.path(), "cannot read"), CheckpointError::Read { .. }));
    refused(&folder.path().join("missing.pth"), "cannot read");

    let parts = folder.path().join("model.safetensors.index.json");
    fs::write(&parts, r#"{"weight_map": {"fc.weight": "model-00001-of-00002.safetensors"}}"#)
        .unwrap();
    refused(&parts, "which part of a checkpoint has which weights");
}

#[test]
fn a_checkpoint_of_another_network_lists_everything_that_differs() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("other.safetensors");
    let mut state = initial_weights(&tiny(), 0);
    let wide = Parameter { shape: vec![2, 2, 3, 3], values: vec![0.5; 36] };
    state.0.insert("0.weight".into(), wide);
    state.0.remove("3.bias");
    state.0.insert("4.bias".into(), Parameter { shape: vec![1], values: vec![0.0] });
    format::safetensors::save(&path, &state).unwrap();
    refused(
        &path,
        "does not fit network `tiny` (missing: 3.bias; unexpected: 4.bias; \
         of another shape: 0.weight ([2, 2, 3, 3] in the file, [2, 1, 3, 3] in the network))",
    );
    let error = Checkpoint::open(&path).unwrap().check(&tiny(), &NameMap::new()).unwrap_err();
    let CheckpointError::Mismatch { mismatch, .. } = error else { panic!("{error:?}") };
    assert_eq!(mismatch.missing, ["3.bias"]);

    format::safetensors::save(&path, &initial_weights(&zoo::lenet(), 0)).unwrap();
    refused(
        &path,
        "missing: 0.weight, 1.bias, 1.running_mean, 1.running_var, 1.weight, 3.bias and 1 more",
    );
    // Of two sets of weights in one file, the user names one.
    let sets = ["state_dict", "averaged"].map(|key| {
        let state = initial_weights(&tiny(), key.len() as u64);
        state.0.into_iter().map(move |(name, values)| (format!("{key}.{name}"), values))
    });
    format::safetensors::save(&path, &Weights(sets.into_iter().flatten().collect())).unwrap();
    let error =
        refused(&path, "in several places, with different values: `averaged`, `state_dict`");
    assert!(matches!(error, CheckpointError::Ambiguous { .. }), "{error:?}");
    for key in ["state_dict", "averaged"] {
        let state = Checkpoint::open(&path).unwrap().state(&tiny(), &NameMap::new().key(key));
        assert_eq!(state.unwrap(), initial_weights(&tiny(), key.len() as u64));
    }
}

#[test]
fn values_that_are_no_weights_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("weights.safetensors");
    let network = Network::builder("one", [2, 1, 1])
        .flatten("flatten")
        .layer("fc", releq::core::Op::Linear { out_features: 1, bias: false }, &[])
        .build()
        .unwrap();
    let read = |dtype: Dtype, bytes: &[u8]| {
        let tensor = TensorView::new(dtype, vec![1, 2], bytes).unwrap();
        fs::write(&path, safetensors::serialize([("fc.weight", tensor)], None).unwrap()).unwrap();
        format::load(&path, &network)
    };
    let values = |dtype, bytes: &[u8]| read(dtype, bytes).unwrap().0["fc.weight"].values.clone();
    // By hand: 1.5 and -2.
    assert_eq!(values(Dtype::F16, &[0, 0x3E, 0, 0xC0]), [1.5, -2.0]);
    assert_eq!(values(Dtype::BF16, &[0xC0, 0x3F, 0, 0xC0]), [1.5, -2.0]);
    let doubles: Vec<u8> = [1.5f64, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(values(Dtype::F64, &doubles), [1.5, -2.0]);

    let message = read(Dtype::I32, &[0; 8]).unwrap_err().to_string();
    assert!(message.contains("tensor `fc.weight` has type int32, expected float32"), "{message}");
    let message = read(Dtype::F16, &[0, 0x3E, 0, 0x7C]).unwrap_err().to_string();
    assert!(message.contains("tensor `fc.weight` holds inf at index 1"), "{message}");
}
