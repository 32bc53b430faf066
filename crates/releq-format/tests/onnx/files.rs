//! Models on disk, and the files beside them.

use std::fs;

use releq_format::onnx;

use crate::written::{Written, external};

#[test]
fn weights_in_another_file_are_read_from_the_folder_alone() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    fs::create_dir(&models).unwrap();
    let values: Vec<u8> = [0.5_f32; 20].iter().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(models.join("tiny.data"), &values).unwrap();
    fs::write(folder.path().join("secret"), &values).unwrap();
    let path = models.join("tiny.onnx");
    let open = |location: &str, offset: &str| {
        let mut model = Written::tiny();
        let entries = [("location", location), ("offset", offset), ("length", "72")];
        model.tensors[0] = external("conv.weight", &[2, 1, 3, 3], &entries);
        fs::write(&path, model.file()).unwrap();
        onnx::open(&path).map_err(|error| error.to_string())
    };
    let model = open("tiny.data", "8").unwrap();
    assert_eq!(model.weights.0["conv.weight"].values, [0.5; 18]);
    assert_eq!(model.network.name(), "tiny");
    let refused = |location: &str, offset: &str, expected: &str| {
        let message = open(location, offset).unwrap_err();
        assert!(
            message.contains("tiny.onnx: node `Conv no. 0`: tensor `conv.weight`"),
            "{message}"
        );
        assert!(message.contains(expected), "`{message}` lacks `{expected}`");
    };
    refused("tiny.data", "9", "beyond its 80 bytes");
    refused("tiny.data", "18446744073709551615", "beyond its 80 bytes");
    refused("absent", "0", "`absent`");
    refused("../secret", "0", "only files in the folder");
    refused(&folder.path().join("secret").display().to_string(), "0", "only files in the folder");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.path().join("secret"), models.join("link")).unwrap();
        refused("link", "0", "only files in the folder");
        refused("/dev/zero", "0", "only files in the folder");
    }
}

#[test]
fn what_is_no_model_is_refused_with_the_name_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let message = |content: &[u8]| {
        fs::write(&path, content).unwrap();
        let message = onnx::open(&path).unwrap_err().to_string();
        assert!(message.contains("model.onnx"), "{message}");
        message
    };
    assert!(message(b"").contains("empty"));
    assert!(message(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n").contains("LFS"));
    assert!(message(b"<!DOCTYPE html><html></html>").contains("web page"));
    assert!(message(b"a text of some kind, no model at all\n").contains("no ONNX model"));
    fs::remove_file(&path).unwrap();
    assert!(onnx::open(&path).unwrap_err().to_string().contains("cannot read"));
    assert!(onnx::open(folder.path()).unwrap_err().to_string().contains("cannot read"));
}
