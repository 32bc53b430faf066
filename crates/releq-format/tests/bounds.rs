//! Small files that ask for much: of memory, of the stack, of time.
//!
//! One test, for the memory of a process is measured.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod support;

use std::{fs, io::Read, time::Instant};

use releq_core::with_causes;
use support::*;

/// Most that the process may grow by, whatever it is given.
const MOST_MEGABYTES: u64 = 150;
/// Longest that a file may take, on a slow machine with others on it.
const MOST_SECONDS: u64 = 20;

/// The largest size of the process so far; nothing where the system does not tell.
fn peak_megabytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kilobytes.unwrap_or(0_u64) / 1024
}

/// A pickle of these parts, as the only one of an archive.
fn pickle(parts: &[&[u8]]) -> Vec<u8> {
    Saved::default().file(&parts.concat())
}

/// An archive of the weights in which other bytes are compressed.
fn with_deflated(saved: &Saved, root: &[u8], names: &[&str], byte: u8, len: u32) -> Vec<u8> {
    let mut entries: Vec<Entry> = Vec::new();
    for (name, packed) in saved.entries("archive", root) {
        if !names.contains(&name.as_str()) {
            let len = packed.len() as u32;
            entries.push(Entry { name, packed, len, crc: 0, deflate: false });
        }
    }
    let packed = deflated(&mut std::io::repeat(byte).take(len.into()));
    for name in names {
        let (name, packed) = ((*name).to_owned(), packed.clone());
        entries.push(Entry { name, packed, len, crc: 0, deflate: true });
    }
    archive(&entries)
}

#[test]
fn small_files_take_little_memory_stack_and_time() {
    let folder = Folder::new();
    let before = peak_megabytes();
    let measured = |name: &str, file: &[u8]| {
        assert!(file.len() < 8 << 20, "{name} has {} bytes", file.len());
        let started = Instant::now();
        let read = folder.read(file);
        let (seconds, grown) = (started.elapsed().as_secs(), peak_megabytes() - before);
        assert!(seconds <= MOST_SECONDS, "{name}: {seconds} s");
        assert!(grown <= MOST_MEGABYTES, "{name}: {grown} MB");
        read.map_err(|error| with_causes(&error))
    };
    let refused = |name: &str, file: &[u8], expected: &str| {
        let message = measured(name, file).unwrap_err();
        assert!(message.contains(expected), "{name}: `{message}` lacks `{expected}`");
    };
    let too_many = "more than 2097152 values";

    // Pickles of many values, of one that is remembered or pushed often, and of many marks.
    refused("values", &pickle(&[&vec![b'N'; 3 << 20]]), too_many);
    refused("memo", &pickle(&[b"]", &vec![0x94; 3 << 20]]), too_many);
    refused("stack", &pickle(&[b"]q\0", &b"h\0".repeat(3 << 20)]), too_many);
    refused("marks", &pickle(&[&vec![b'('; 3 << 20]]), too_many);
    // One that inflates to a thousand times its size, alone and beside the right one.
    let mut saved = Saved::default();
    let root = saved.state("");
    let bomb = with_deflated(&saved, &root, &["archive/data.pkl"], b'N', 64 << 20);
    refused("inflated pickle", &bomb, "inflate to 67108864");
    let names: Vec<String> = (0..20).map(|index| format!("{index}.pkl")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let many = with_deflated(&saved, &root, &names, b'N', 64 << 20);
    assert_eq!(measured("many pickles", &many).unwrap().1, weights());
    let bomb = with_deflated(&saved, &root, &["archive/byteorder"], b'N', 64 << 20);
    refused("inflated byte order", &bomb, "inflate to 67108864");

    // A dictionary that is copied with every call, and an object whose state is set again and again.
    let pairs: Vec<u8> = (0..1000).flat_map(|_| [b"N", &b"N"[..], &[0x86]].concat()).collect();
    let copies = b"h\x01h\0R0".repeat(20_000);
    let copied = [&b"("[..], &pairs, b"l\x85q\0ccollections\nOrderedDict\nq\x01", &copies].concat();
    refused("copied dictionaries", &pickle(&[&copied]), too_many);
    let pairs = b"NN".repeat(1000);
    let states = [b"h\0b".repeat(20_000), b"0".to_vec()].concat();
    let states =
        [&b"}("[..], &pairs, b"uq\x000cargparse\nNamespace\n)\x81", &states, b"N"].concat();
    refused("copied states", &pickle(&[&states]), too_many);

    // Dictionaries of two keys for the same dictionary, thirty deep: a billion names.
    let bias = saved.tensor(&weights().0["fc.bias"]);
    let doubled = (0..30).fold(bias, |below, _| {
        [&b"}(X\x01\0\0\0a"[..], &below, b"q\x01X\x01\0\0\0bh\x01u"].concat()
    });
    refused("names", &saved.file(&doubled), "refer to each other in too many ways");
    // A dictionary within itself holds what it holds.
    let state = saved.state("");
    let cycle = [&b"}q\x07(X\x04\0\0\0selfh\x07X\x05\0\0\0model"[..], &state, b"u"].concat();
    assert_eq!(measured("cycle", &saved.file(&cycle)).unwrap().1, weights());
    // Lists in lists, a million deep.
    let nested = [b"]".repeat(1 << 20), b"a".repeat((1 << 20) - 1)].concat();
    refused("nested lists", &pickle(&[&nested]), "holds no tensors");
    // Names of many parts.
    let dots = ".".repeat(1 << 20);
    let dotted = dict(&[(dots.as_str(), saved.tensor(&weights().0["fc.bias"]))]);
    refused("dots", &saved.file(&dotted), "missing: conv1.bias");

    // Tensors of the same many dimensions, thousands of times.
    let size = ints(&[1; 64]);
    let storage = saved.reference("FloatStorage", 0);
    let tensor = [
        &global("torch._utils", "_rebuild_tensor")[..],
        b"q\0(",
        &storage,
        &int(0),
        &size,
        b"q\x010h\x01h\x01tq\x02R",
    ]
    .concat();
    let tensors = [&b"]("[..], &tensor, &b"h\0h\x02R".repeat(100_000), b"e"].concat();
    refused("dimensions", &saved.file(&tensors), "refer to each other in too many ways");
    // A parameter of the right shape may repeat one value; a tensor beside it may be of any size.
    let one = saved.storage("FloatStorage", 1.0_f32.to_le_bytes().to_vec());
    let bias = Saved::view(one.clone(), 0, &[3], &[0]);
    let huge = Saved::view(one.clone(), 0, &[1 << 30, 1 << 30], &[0, 0]);
    let root = saved.state_with("", &[("fc.bias", bias), ("huge", huge.clone())]);
    let (found, state) = measured("expanded", &saved.file(&root)).unwrap();
    assert_eq!(
        (&found.ignored[..], &state.0["fc.bias"].values[..]),
        (&["huge".to_owned()][..], &[1.0; 3][..])
    );
    // As a parameter, a mask, a norm or a scale, it does not fit.
    for [name, other] in
        [["fc.bias", "x"], ["fc.bias_mask", "fc.bias_orig"], ["fc.bias_g", "fc.bias_v"]]
    {
        let mut pairs = vec![(name, huge.clone())];
        pairs.push((other, Saved::view(one.clone(), 0, &[3], &[0])));
        for name in ["conv1.weight", "conv1.bias", "fc.weight"] {
            pairs.push((name, saved.tensor(&weights().0[name])));
        }
        let expected = "of another shape: fc.bias ([1073741824, 1073741824]";
        refused(name, &saved.file(&dict(&pairs)), expected);
    }

    // Storages that inflate to much more than the file or the network has.
    let mut saved = Saved::default();
    let storage = saved.storage("FloatStorage", Vec::new());
    let bias = Saved::view(storage, 33_000_000, &[3], &[1]);
    let root = saved.state_with("", &[("fc.bias", bias)]);
    let bomb = with_deflated(&saved, &root, &["archive/data/0"], 0, 128 << 20);
    refused("inflated storage", &bomb, "inflate to 132000012");
    let spread = Saved::view(saved.reference("FloatStorage", 0), 0, &[3], &[2_500_000]);
    let root = saved.state_with("", &[("fc.bias", spread)]);
    let mut noise = 1_u32;
    let mut bytes = Vec::new();
    for _ in 0..(1 << 18) {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.extend(noise.to_be_bytes());
    }
    let mut entries: Vec<Entry> = saved
        .entries("archive", &root)
        .into_iter()
        .filter(|(name, _)| name != "archive/data/0")
        .map(|(name, packed)| {
            let len = packed.len() as u32;
            Entry { name, packed, len, crc: 0, deflate: false }
        })
        .collect();
    let packed = deflated(&mut bytes.chain(std::io::repeat(0).take(30 << 20)));
    let (len, name) = ((31 << 20) as u32, "archive/data/0".to_owned());
    entries.push(Entry { name, packed, len, crc: 0, deflate: true });
    refused("spread storage", &archive(&entries), "far apart in a compressed storage");

    // Headers of safetensors files that promise more than there is.
    for header in [
        r#"{"a":{"dtype":"F32","shape":[1073741824,1073741824],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[268435456],"data_offsets":[0,1073741824]}}"#,
    ] {
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
        refused("safetensors", &file, "is damaged or cut short");
    }
    let promised = [&(1_u64 << 29).to_le_bytes()[..], b"{\"a\":{}}"].concat();
    refused("length of a header", &promised, "is damaged or cut short");
    let deep = [&(1_u64 << 20).to_le_bytes()[..], b"{\"a\":", &vec![b'['; (1 << 20) - 5]].concat();
    refused("depth of a header", &deep, "is damaged or cut short");
}
