//! Writes checkpoints as PyTorch does, and as it does not.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use flate2::{Compression, Crc, write::DeflateEncoder};
use releq_core::{Conv2d, Network, Parameter, Weights, parameter_shapes, with_causes};
use releq_format::{Checkpoint, CheckpointError, Found, NameMap, safetensors};
use tempfile::TempDir;

/// A convolution of 18 weights and a linear layer of 96.
pub(crate) fn network() -> Network {
    Network::builder("tiny", [1, 4, 4])
        .conv("conv1", Conv2d::new(2, 3))
        .flatten("flatten")
        .linear("fc", 3)
        .build()
        .unwrap()
}

/// Weights of that network, all different: sixteenths, so that halves hold them exactly.
pub(crate) fn weights() -> Weights {
    let mut next = 0.0;
    let mut value = || {
        next += 1.0 / 16.0;
        next
    };
    let parameter = |(name, shape): (String, Vec<usize>)| {
        let values = (0..shape.iter().product()).map(|_| value()).collect();
        (name, Parameter { shape, values })
    };
    Weights(parameter_shapes(&network()).map(parameter).collect())
}

// Fragments of pickles: each leaves one value on the stack.

pub(crate) fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

pub(crate) fn bytes(bytes: &[u8]) -> Vec<u8> {
    [b"B", &(bytes.len() as u32).to_le_bytes()[..], bytes].concat()
}

pub(crate) fn int(number: usize) -> Vec<u8> {
    [b"J", &(number as i32).to_le_bytes()[..]].concat()
}

pub(crate) fn float(number: f64) -> Vec<u8> {
    [b"G", &number.to_be_bytes()[..]].concat()
}

pub(crate) fn boolean(is: bool) -> Vec<u8> {
    vec![if is { 0x88 } else { 0x89 }]
}

pub(crate) fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

pub(crate) fn ints(numbers: &[usize]) -> Vec<u8> {
    tuple(&numbers.iter().map(|&number| int(number)).collect::<Vec<_>>())
}

pub(crate) fn dict<K: AsRef<str>>(pairs: &[(K, Vec<u8>)]) -> Vec<u8> {
    let pairs: Vec<u8> = pairs
        .iter()
        .flat_map(|(key, value)| [text(key.as_ref()), value.clone()].concat())
        .collect();
    [b"}(", &pairs[..], b"u"].concat()
}

pub(crate) fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

pub(crate) fn call(module: &str, name: &str, arguments: &[Vec<u8>]) -> Vec<u8> {
    [global(module, name), tuple(arguments), b"R".to_vec()].concat()
}

/// Strides of a tensor without gaps.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect()
}

/// A checkpoint that is being written.
#[derive(Default)]
pub(crate) struct Saved {
    pub(crate) storages: Vec<Vec<u8>>,
}

impl Saved {
    /// A storage, as a reference to it.
    pub(crate) fn storage(&mut self, class: &str, bytes: Vec<u8>) -> Vec<u8> {
        self.storages.push(bytes);
        self.reference(class, self.storages.len() - 1)
    }

    /// A reference to a storage.
    pub(crate) fn reference(&self, class: &str, key: usize) -> Vec<u8> {
        let description =
            [text("storage"), global("torch", class), text(&key.to_string()), text("cpu"), int(0)];
        [tuple(&description), b"Q".to_vec()].concat()
    }

    /// A view of a storage.
    pub(crate) fn view(
        storage: Vec<u8>,
        offset: usize,
        shape: &[usize],
        strides: &[usize],
    ) -> Vec<u8> {
        let arguments =
            [storage, int(offset), ints(shape), ints(strides), boolean(false), b"N".to_vec()];
        call("torch._utils", "_rebuild_tensor_v2", &arguments)
    }

    /// A tensor without gaps.
    pub(crate) fn tensor(&mut self, parameter: &Parameter) -> Vec<u8> {
        let bytes = parameter.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let storage = self.storage("FloatStorage", bytes);
        Self::view(storage, 0, &parameter.shape, &strides(&parameter.shape))
    }

    /// The weights of the network as a dictionary, each name after `prefix`.
    pub(crate) fn state(&mut self, prefix: &str) -> Vec<u8> {
        self.state_with(prefix, &[])
    }

    /// As `state`, with some tensors replaced or added.
    pub(crate) fn state_with(&mut self, prefix: &str, others: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut pairs = Vec::new();
        for (name, parameter) in weights().0 {
            if !others.iter().any(|(other, _)| *other == name) {
                pairs.push((format!("{prefix}{name}"), self.tensor(&parameter)));
            }
        }
        pairs.extend(others.iter().map(|(name, value)| (format!("{prefix}{name}"), value.clone())));
        dict(&pairs)
    }

    /// The entries of the archive that PyTorch would write.
    pub(crate) fn entries(&self, folder: &str, root: &[u8]) -> Vec<(String, Vec<u8>)> {
        let pickle = [b"\x80\x02", root, b"."].concat();
        let mut entries = vec![
            (format!("{folder}/data.pkl"), pickle),
            (format!("{folder}/byteorder"), b"little".to_vec()),
        ];
        for (key, storage) in self.storages.iter().enumerate() {
            entries.push((format!("{folder}/data/{key}"), storage.clone()));
        }
        entries.push((format!("{folder}/version"), b"3\n".to_vec()));
        entries
    }

    /// The archive with this root.
    pub(crate) fn file(&self, root: &[u8]) -> Vec<u8> {
        zip(&self.entries("archive", root), false)
    }
}

/// An archive of whole entries.
pub(crate) fn zip(entries: &[(String, Vec<u8>)], deflate: bool) -> Vec<u8> {
    let entry = |(name, bytes): &(String, Vec<u8>)| {
        let mut crc = Crc::new();
        crc.update(bytes);
        let packed = if deflate { deflated(&mut &bytes[..]) } else { bytes.clone() };
        Entry { name: name.clone(), packed, len: bytes.len() as u32, crc: crc.sum(), deflate }
    };
    archive(&entries.iter().map(entry).collect::<Vec<_>>())
}

/// What `bytes` are compressed to.
pub(crate) fn deflated(bytes: &mut impl Read) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    io::copy(bytes, &mut encoder).unwrap();
    encoder.finish().unwrap()
}

/// An entry of an archive, perhaps without a checksum.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) packed: Vec<u8>,
    pub(crate) len: u32,
    pub(crate) crc: u32,
    pub(crate) deflate: bool,
}

/// An archive with a ZIP64 end record, as PyTorch writes every one.
pub(crate) fn archive(entries: &[Entry]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for Entry { name, packed, len, crc, deflate } in entries {
        // Version, flags, method, time, date, checksum, sizes, lengths of the name and the extra field.
        let mut header = vec![0, 0, 0, 0, if *deflate { 8 } else { 0 }, 0, 0, 0, 0, 0];
        header.extend(crc.to_le_bytes());
        header.extend((packed.len() as u32).to_le_bytes());
        header.extend(len.to_le_bytes());
        header.extend((name.len() as u16).to_le_bytes());
        header.extend([0, 0]);
        directory.extend(b"PK\x01\x02\0\0");
        directory.extend(&header);
        directory.extend([0; 10]);
        directory.extend((file.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        file.extend(b"PK\x03\x04");
        file.extend(&header);
        file.extend(name.as_bytes());
        file.extend(packed);
    }
    let (start, count) = (file.len() as u64, entries.len() as u64);
    file.extend(&directory);
    let end = file.len() as u64;
    file.extend(b"PK\x06\x06");
    file.extend(44_u64.to_le_bytes());
    file.extend([0; 12]);
    file.extend([count, count, directory.len() as u64, start].map(u64::to_le_bytes).concat());
    file.extend(b"PK\x06\x07\0\0\0\0");
    file.extend(end.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([count as u16, count as u16].map(u16::to_le_bytes).concat());
    file.extend([directory.len() as u32, start as u32].map(u32::to_le_bytes).concat());
    file.extend([0, 0]);
    file
}

/// Files in a folder that is removed afterwards.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join("weights.pt");
        fs::write(&path, bytes).unwrap();
        path
    }

    /// What is found in a file with these bytes.
    pub(crate) fn read(&self, bytes: &[u8]) -> Result<(Found, Weights), CheckpointError> {
        read(&self.write(bytes), &NameMap::new())
    }

    /// The message of the error that these bytes end in.
    pub(crate) fn refused(&self, bytes: &[u8]) -> String {
        let message = with_causes(&self.read(bytes).unwrap_err());
        assert!(message.contains("weights.pt"), "`{message}` does not name the file");
        message
    }
}

pub(crate) fn read(path: &Path, names: &NameMap) -> Result<(Found, Weights), CheckpointError> {
    let checkpoint = Checkpoint::open(path)?;
    let found = checkpoint.check(&network(), names)?;
    Ok((found, checkpoint.state(&network(), names)?))
}

/// The weights under other names, and other tensors beside them.
pub(crate) fn renamed(
    rename: impl Fn(&str) -> String,
    others: &[(&str, &[usize])],
) -> BTreeMap<String, Parameter> {
    let own = weights().0.into_iter().map(|(name, parameter)| (rename(&name), parameter));
    let others = others.iter().map(|&(name, shape)| {
        let values = vec![0.5; shape.iter().product()];
        (name.to_owned(), Parameter { shape: shape.to_vec(), values })
    });
    own.chain(others).collect()
}

/// Writes tensors as a safetensors file and as a PyTorch file.
pub(crate) fn both(folder: &TempDir, tensors: &BTreeMap<String, Parameter>) -> [PathBuf; 2] {
    let [one, other] = ["weights.safetensors", "weights.pt"].map(|name| folder.path().join(name));
    safetensors::save(&one, &Weights(tensors.clone())).unwrap();
    let mut saved = Saved::default();
    let pairs: Vec<_> = tensors.iter().map(|(name, tensor)| (name, saved.tensor(tensor))).collect();
    fs::write(&other, saved.file(&dict(&pairs))).unwrap();
    [one, other]
}

/// What is found in either file with these tensors, whose weights must be the right ones.
pub(crate) fn found(tensors: &BTreeMap<String, Parameter>) -> Found {
    let folder = TempDir::new().unwrap();
    let [one, other] = both(&folder, tensors).map(|path| {
        let (found, state) = read(&path, &NameMap::new()).unwrap();
        assert_eq!(state, weights(), "{}", path.display());
        found
    });
    assert_eq!(one, other);
    one
}

pub(crate) fn refused(tensors: &BTreeMap<String, Parameter>, names: &NameMap) -> CheckpointError {
    let folder = TempDir::new().unwrap();
    let [one, other] = both(&folder, tensors).map(|path| read(&path, names).unwrap_err());
    assert_eq!(one.to_string().replace(".safetensors", ".pt"), other.to_string());
    one
}
