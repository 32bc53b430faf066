//! The containers of PyTorch's checkpoints: zip archives and streams of pickles.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod support;

use releq_core::{Network, Parameter, parameter_shapes};
use support::*;

/// An archive of the weights, whose folder has this name.
fn archive(folder: &str, deflate: bool) -> Vec<u8> {
    let mut saved = Saved::default();
    let root = saved.state("");
    zip(&saved.entries(folder, &root), deflate)
}

#[test]
fn the_name_of_the_folder_does_not_matter() {
    let folder = Folder::new();
    // With 21 bytes, the first header of the directory is as long as the records at its end.
    for length in 1..80 {
        let (_, state) = folder.read(&archive(&"n".repeat(length), false)).unwrap();
        assert_eq!(state, weights(), "{length} bytes");
    }
}

#[test]
fn archives_that_were_zipped_again_are_read() {
    let folder = Folder::new();
    assert_eq!(folder.read(&archive("archive", true)).unwrap().1, weights());
    // The folder around the checkpoint was zipped.
    assert_eq!(folder.read(&archive("out/archive", true)).unwrap().1, weights());
    // A comment follows the end record.
    let mut commented = archive("archive", false);
    let length = commented.len();
    commented[length - 2] = 5;
    commented.extend(b"hello");
    assert_eq!(folder.read(&commented).unwrap().1, weights());
}

#[test]
fn weights_that_are_all_the_same_may_be_compressed_to_nearly_nothing() {
    let network = Network::builder("wide", [1024, 1, 1])
        .flatten("flatten")
        .linear("fc", 1024)
        .build()
        .unwrap();
    let mut saved = Saved::default();
    let tensors = parameter_shapes(&network).map(|(name, shape)| {
        (name, Parameter { values: vec![0.0; shape.iter().product()], shape })
    });
    let pairs: Vec<_> = tensors.map(|(name, tensor)| (name, saved.tensor(&tensor))).collect();
    let file = zip(&saved.entries("archive", &dict(&pairs)), true);
    assert!(file.len() < 8192, "{} bytes", file.len());
    let state = releq_format::load(Folder::new().write(&file), &network).unwrap();
    assert_eq!(state.0["fc.weight"].values, vec![0.0; 1 << 20]);
}

#[test]
fn large_numbers_stand_in_the_zip64_fields() {
    let folder = Folder::new();
    let entries = {
        let mut saved = Saved::default();
        let root = saved.state("");
        saved.entries("archive", &root)
    };
    let mut file = zip(&entries, false);
    // The end record refers to the ZIP64 record, and the first header to its extra field.
    let end = file.len() - 22;
    let start = u32::from_le_bytes(*file[end + 16..].first_chunk().unwrap()) as usize;
    file[end + 8..end + 20].fill(0xFF);
    assert_eq!(folder.read(&file).unwrap().1, weights());

    let name = entries[0].0.len();
    let size = entries[0].1.len() as u64;
    file[start + 20..start + 28].fill(0xFF);
    file[start + 30] = 20;
    let field = [&[1, 0, 16, 0], &size.to_le_bytes()[..], &size.to_le_bytes()[..]].concat();
    file.splice(start + 46 + name..start + 46 + name, field);
    // The directory is 20 bytes longer, and so is the place of the record behind it.
    let record = file.len() - 22 - 20 - 56;
    for (at, add) in [(record + 40, 20), (record + 56 + 8, 20)] {
        let value = u64::from_le_bytes(*file[at..].first_chunk().unwrap()) + add;
        file[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    assert_eq!(folder.read(&file).unwrap().1, weights());
}

#[test]
fn either_byte_order_is_read() {
    let folder = Folder::new();
    let mut saved = Saved::default();
    let root = saved.state("");
    for storage in &mut saved.storages {
        storage.as_chunks_mut::<4>().0.iter_mut().for_each(|bytes| bytes.reverse());
    }
    let mut entries = saved.entries("archive", &root);
    entries[1].1 = b"big".to_vec();
    assert_eq!(folder.read(&zip(&entries, false)).unwrap().1, weights());
}

/// The place of the `nth` header in the directory.
fn header(file: &[u8], nth: usize) -> usize {
    let headers = file.windows(4).enumerate().filter(|(_, bytes)| bytes == b"PK\x01\x02");
    headers.map(|(at, _)| at).nth(nth).unwrap()
}

#[test]
fn values_are_compared_with_their_checksum_unless_there_is_none() {
    let folder = Folder::new();
    for deflate in [false, true] {
        let file = archive("archive", deflate);
        // The first storage is the third entry.
        let checksum = header(&file, 2) + 16;
        let mut wrong = file.clone();
        wrong[checksum] ^= 1;
        assert!(folder.refused(&wrong).contains("checksum"));
        let mut none = file;
        none[checksum..checksum + 4].fill(0);
        assert_eq!(folder.read(&none).unwrap().1, weights());
    }
    let mut file = archive("archive", false);
    let checksum = header(&file, 0) + 16;
    file[checksum] ^= 1;
    let message = folder.refused(&file);
    assert!(message.contains("is damaged") && message.contains("data.pkl"), "{message}");
}

#[test]
fn what_is_whole_but_not_read_is_named() {
    let folder = Folder::new();
    let check = |file: &[u8], expected: &str| {
        let message = folder.refused(file);
        assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        assert!(!message.contains("damaged"), "{message}");
    };
    let file = archive("archive", false);
    let pickle = header(&file, 0);
    let mut other = file.clone();
    other[pickle + 10] = 12;
    check(&other, "`archive/data.pkl` is compressed by method 12");
    let mut encrypted = file;
    encrypted[pickle + 8] = 1;
    check(&encrypted, "`archive/data.pkl` is encrypted");

    let mut saved = Saved::default();
    let root = saved.state("");
    let mut entries = saved.entries("archive", &root);
    entries.push(("archive/constants.pkl".into(), b"\x80\x02).".to_vec()));
    check(&zip(&entries, false), "TorchScript");
    let two = [saved.entries("one", &root), saved.entries("two", &root)].concat();
    check(&zip(&two, false), "two checkpoints, `one/data.pkl` and `two/data.pkl`");
    check(&zip(&[("conv1.weight.npy".into(), Vec::new())], false), "an archive of NumPy arrays");
    check(&zip(&[("notes.txt".into(), Vec::new())], false), "neither a PyTorch checkpoint nor");
}

#[test]
fn damaged_directories_are_errors() {
    let folder = Folder::new();
    let file = archive("archive", false);
    for length in (0..file.len()).step_by(7) {
        folder.refused(&file[..length]);
    }
    // Every byte of the directory and the records behind it.
    for at in header(&file, 0)..file.len() {
        for value in [0, 0xFF] {
            let mut damaged = file.clone();
            damaged[at] = value;
            let _ = folder.read(&damaged);
        }
    }
    let mut saved = Saved::default();
    let root = saved.state("");
    let entries = saved.entries("archive", &root);
    let twice = [entries.clone(), vec![entries[0].clone()]].concat();
    assert!(folder.refused(&zip(&twice, false)).contains("repeats the name"));
    let without = [&entries[..2], &entries[3..]].concat();
    assert!(folder.refused(&zip(&without, false)).contains("no entry `archive/data/0`"));
}

/// The weights as PyTorch wrote them before version 1.6.
fn stream(saved: &Saved, root: &[u8]) -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec();
    let system = dict(&[("little_endian", boolean(true))]);
    file.extend([b"\x80\x02", &system[..], b".\x80\x02", root, b".\x80\x02"].concat());
    let keys: Vec<Vec<u8>> = (0..saved.storages.len()).map(|key| text(&key.to_string())).collect();
    file.extend([&tuple(&keys)[..], b"."].concat());
    for storage in &saved.storages {
        file.extend((storage.len() as u64 / 4).to_le_bytes());
        file.extend(storage);
    }
    file
}

#[test]
fn streams_of_pickles_are_read_with_views_of_their_storages() {
    let folder = Folder::new();
    let mut saved = Saved::default();
    let root = saved.state("");
    assert_eq!(folder.read(&stream(&saved, &root)).unwrap().1, weights());

    // PyTorch before 0.4 wrote views of storages: here, the last 3 of 5 elements.
    let mut saved = Saved::default();
    let storage: Vec<u8> = (1..=5_u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
    saved.storage("FloatStorage", storage);
    let view = tuple(&[text("view"), int(2), int(3)]);
    let description =
        [text("storage"), global("torch", "FloatStorage"), text("0"), text("cpu"), int(5), view];
    let reference = [tuple(&description), b"Q".to_vec()].concat();
    let bias =
        call("torch._utils", "_rebuild_tensor", &[reference, int(0), ints(&[3]), ints(&[1])]);
    let root = saved.state_with("", &[("fc.bias", bias)]);
    let (_, state) = folder.read(&stream(&saved, &root)).unwrap();
    assert_eq!(state.0["fc.bias"].values, [3.0, 4.0, 5.0]);

    // A number of elements that the file does not have.
    let mut file = stream(&saved, &root);
    let count = file.len() - saved.storages.last().unwrap().len() - 8;
    file[count..count + 8].fill(0xFF);
    assert!(folder.refused(&file).contains("ends within the values"));
}

#[test]
fn a_byte_order_is_little_or_big() {
    let folder = Folder::new();
    let mut saved = Saved::default();
    let root = saved.state("");
    let with_order = |order: &[u8]| {
        let mut entries = saved.entries("archive", &root);
        let entry = entries.iter_mut().find(|(name, _)| name.ends_with("/byteorder")).unwrap();
        entry.1 = order.to_vec();
        zip(&entries, false)
    };
    assert_eq!(folder.read(&with_order(b"little")).unwrap().1, weights());
    let message = folder.refused(&with_order(b"middle"));
    assert!(message.contains("byte order is \"middle\""), "{message}");
    // PyTorch refuses this as well.
    assert!(folder.refused(&with_order(b"")).contains("byte order is \"\""));
}

#[test]
fn files_that_stand_for_others_are_named() {
    let folder = Folder::new();
    for (bytes, expected) in [
        (&b""[..], "is empty; fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", "is a web page"),
    ] {
        assert!(folder.refused(bytes).contains(expected));
        let path = folder.write(bytes);
        let message = releq_format::safetensors::load(path).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains("weights.pt"), "{message}");
    }
}

#[test]
fn metadata_of_safetensors_is_text() {
    let folder = Folder::new();
    let with_metadata = |metadata: &str| {
        let header = format!(
            r#"{{"__metadata__":{metadata},"a":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#
        );
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat()
    };
    for (metadata, expected) in [
        (r#"{"format":"pt","epoch":12}"#, "its metadata has 12 under `epoch`"),
        (r#"{"args":{"lr":0.1}}"#, r#"its metadata has {"lr":0.1} under `args`"#),
        ("[1]", "`__metadata__` is not a map"),
    ] {
        let bytes = with_metadata(metadata);
        let message = folder.refused(&bytes);
        assert!(message.contains(expected) && !message.contains("damaged"), "{message}");
        let error = releq_format::safetensors::load(folder.write(&bytes)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let fine = folder.write(&with_metadata(r#"{"epoch":"12"}"#));
    assert_eq!(releq_format::safetensors::load(fine).unwrap().0.len(), 1);
}
