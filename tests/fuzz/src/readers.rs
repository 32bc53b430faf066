//! Every reader of outside input, as a function of the bytes of one file.
//!
//! Each says whether the bytes are a valid file. The targets of libFuzzer and the test `hostile_files` look for panics,
//! time and memory. Readers go through the public functions, which take paths, so the bytes are written to a file first,
//! in memory where the system has such a folder.

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use releq_core::{Network, sealed, tables::TextTable, text};
use releq_data::{
    BadImages, Cache, Dataset, ImageFolder, ImageFolderConfig, ImageSize, cifar10, idx,
    image_folder, npz, svhn,
};
use releq_format::{
    Checkpoint, Codes, NameMap, onnx,
    packed::{self, Packed},
    safetensors,
};
use releq_hw::{LatencyTable, read_layers};
use releq_pickle::{Instruction, Instructions};
use releq_runtime::{Model, Options};
use serde_json::Value;
use tempfile::TempDir;

use crate::{reseal, seeds};

/// A reader and valid inputs to begin with.
pub struct Reader {
    /// Its name, which is that of its target.
    pub name: &'static str,
    /// Reads one file; whether it is valid.
    pub read: fn(&[u8]) -> bool,
    /// Valid files.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them, except those that need Burn.
pub const READERS: [Reader; 23] = [
    Reader { name: "idx", read: idx, seeds: seeds::idx },
    Reader { name: "gzip", read: idx, seeds: seeds::gzip },
    Reader { name: "tar", read: tar, seeds: seeds::tar },
    Reader { name: "cifar_pickle", read: cifar_pickle, seeds: seeds::cifar_pickle },
    Reader { name: "matlab", read: matlab, seeds: seeds::matlab },
    Reader { name: "image", read: image, seeds: seeds::image },
    Reader { name: "image_cache", read: image_cache, seeds: image_cache_seeds },
    Reader { name: "bundle", read: bundle, seeds: seeds::bundle },
    Reader { name: "class_list", read: class_list, seeds: seeds::class_list },
    Reader { name: "class_numbers", read: class_numbers, seeds: seeds::class_numbers },
    Reader { name: "image_list", read: image_list, seeds: seeds::image_list },
    Reader { name: "pickle", read: pickle, seeds: seeds::pickle },
    Reader { name: "pytorch_zip", read: checkpoint, seeds: seeds::pytorch_zip },
    Reader { name: "pytorch_pickle", read: pytorch_pickle, seeds: seeds::pytorch_pickle },
    Reader { name: "pytorch_legacy", read: checkpoint, seeds: seeds::pytorch_legacy },
    Reader { name: "safetensors", read: safetensors, seeds: seeds::safetensors },
    Reader { name: "table", read: table, seeds: seeds::table },
    Reader { name: "layers", read: layers, seeds: seeds::layers },
    Reader { name: "latencies", read: latencies, seeds: seeds::latencies },
    Reader { name: "text", read: text, seeds: seeds::text },
    Reader { name: "onnx", read: onnx, seeds: seeds::onnx },
    Reader { name: "npz", read: npz, seeds: seeds::npz },
    Reader { name: "packed", read: packed, seeds: seeds::packed },
];

/// Images and labels of MNIST, plain or compressed.
pub fn idx(bytes: &[u8]) -> bool {
    let path = file(&folder("idx", |_| {}), "file", bytes);
    let images = idx::read_images(&path).is_ok();
    idx::read_labels(&path).is_ok() || images
}

/// CIFAR-10's archive; compressed here where it is not, so that changes get past gzip's checksum.
pub fn tar(bytes: &[u8]) -> bool {
    let folder = folder("tar", |_| {});
    let packed;
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        bytes
    } else {
        packed = seeds::write_all(GzEncoder::new(Vec::new(), Compression::none()), bytes)
            .finish()
            .unwrap_or_default();
        &packed
    };
    cifar10::load(&file(&folder, "cifar-10-binary.tar.gz", bytes)).is_ok()
}

/// A Python batch of CIFAR-10.
pub fn cifar_pickle(bytes: &[u8]) -> bool {
    let folder = folder("cifar_pickle", |folder| {
        for name in &seeds::BATCHES[1..] {
            file(folder, name, &seeds::cifar_pickle()[0]);
        }
    });
    file(&folder, seeds::BATCHES[0], bytes);
    cifar10::load(&folder).is_ok()
}

/// A MATLAB file of SVHN.
pub fn matlab(bytes: &[u8]) -> bool {
    let folder = folder("matlab", |folder| {
        file(folder, "test_32x32.mat", &seeds::matlab()[0]);
    });
    file(&folder, "train_32x32.mat", bytes);
    svhn::load(&folder).is_ok()
}

fn images(size: ImageSize, cache: Cache) -> ImageFolderConfig {
    ImageFolderConfig { size, cache, bad_images: BadImages::Skip, threads: 1, ..Default::default() }
}

/// An image in any format; the contents decide which.
pub fn image(bytes: &[u8]) -> bool {
    let folder = folder("image", |folder| {
        fs::create_dir(folder.join("class")).unwrap_or_default();
    });
    file(&folder.join("class"), "image.png", bytes);
    let load = |size| {
        ImageFolder::open(&folder, &images(size, Cache::Off)).and_then(|set| set.load()).is_ok()
    };
    let scaled = load(ImageSize::ResizeCrop { resize: 12, crop: 8 });
    load(ImageSize::AsStored) && scaled
}

/// A folder of two images, which do not change, and the folder of its cache.
fn cached_folder() -> [PathBuf; 2] {
    let folder = folder("image_cache", |folder| {
        for (class, number) in [("cat", 0), ("dog", 1)] {
            let class = folder.join("images").join(class);
            fs::create_dir_all(&class).unwrap_or_default();
            file(&class, "image.png", &seeds::png(number));
        }
        let config = images(ImageSize::AsStored, Cache::In(folder.join("cache")));
        let _ = ImageFolder::open(folder.join("images"), &config).and_then(|set| set.load());
    });
    ["images", "cache"].map(|name| folder.join(name))
}

/// The cache file of that folder.
fn cache_file() -> Option<PathBuf> {
    let [_, cache] = cached_folder();
    Some(fs::read_dir(cache).ok()?.next()?.ok()?.path())
}

fn image_cache_seeds() -> Vec<Vec<u8>> {
    let path = cache_file();
    path.and_then(|path| fs::read(path).ok()).into_iter().collect()
}

/// A cache of decoded images.
pub fn image_cache(bytes: &[u8]) -> bool {
    thread_local! {
        static VALID: Vec<u8> = image_cache_seeds().into_iter().next().unwrap_or_default();
    }
    let bytes = VALID.with(|valid| of_this_folder(bytes, valid));
    let [folder, cache] = cached_folder();
    if let Some(path) = cache_file() {
        fs::write(path, bytes).unwrap_or_default();
    }
    let config = images(ImageSize::AsStored, Cache::In(cache));
    // Without a valid cache, the images are decoded again.
    ImageFolder::open(folder, &config).and_then(|set| set.load()).is_ok()
}

/// A cache that was made in another process, with the fingerprint of this one's folder in its header: inodes and times, which are in
/// it, differ, and beyond a fingerprint that does not fit nothing is read.
fn of_this_folder(bytes: &[u8], valid: &[u8]) -> Vec<u8> {
    const START: usize = 16;
    let header = |bytes: &[u8]| -> Option<(usize, serde_json::Value)> {
        let (start, rest) = bytes.get(START..)?.split_at_checked(8)?;
        let length = usize::try_from(u64::from_le_bytes(start.try_into().ok()?)).ok()?;
        Some((length, serde_json::from_slice(rest.get(..length)?).ok()?))
    };
    let (Some((length, mut changed)), Some((_, valid))) = (header(bytes), header(valid)) else {
        return bytes.to_vec();
    };
    if let Some(fingerprint) = changed.get_mut("fingerprint") {
        *fingerprint = valid["fingerprint"].clone();
    }
    let changed = changed.to_string();
    let length_of_changed = changed.len() as u64;
    let parts = [
        &bytes[..START],
        &length_of_changed.to_le_bytes(),
        changed.as_bytes(),
        &bytes[START + 8 + length..],
    ];
    parts.concat()
}

/// The file that says which number each class has: JSON where it begins as JSON does, or else a table or lines.
pub fn class_numbers(bytes: &[u8]) -> bool {
    let is_json = bytes.first().is_some_and(|first| b"{[".contains(first));
    let name = if is_json { "classes.json" } else { "classes.txt" };
    image_folder::listed_classes(&file(&folder("class_numbers", |_| {}), name, bytes)).is_ok()
}

/// A table that lists images, with two of them to name.
pub fn image_list(bytes: &[u8]) -> bool {
    let folder = folder("image_list", |folder| {
        for number in [0, 1] {
            file(folder, &format!("{number}.png"), &seeds::png(number));
        }
    });
    let config = images(ImageSize::AsStored, Cache::Off);
    image_folder::load_list(&file(&folder, "list.csv", bytes), &config).is_ok()
}

/// Image sets that travel between machines.
pub fn bundle(bytes: &[u8]) -> bool {
    releq_data::bundle::from_bytes(bytes).is_ok()
}

/// The list of classes of Tiny ImageNet's validation images.
pub fn class_list(bytes: &[u8]) -> bool {
    let folder = folder("class_list", |folder| {
        let images = folder.join("images");
        fs::create_dir(&images).unwrap_or_default();
        for name in ["val_0.png", "val_1.png"] {
            file(&images, name, &seeds::png(0));
        }
    });
    file(&folder, "val_annotations.txt", bytes);
    let config = images(ImageSize::AsStored, Cache::Off);
    ImageFolder::open(folder, &config)
        .is_ok_and(|set| (0..set.info().len).all(|index| set.label(index).is_some()))
}

/// The instructions of a pickle.
pub fn pickle(bytes: &[u8]) -> bool {
    let mut instructions = Instructions::new(Cursor::new(bytes)).keep(64);
    while let Ok(next) = instructions.read() {
        if next.instruction == Instruction::Stop {
            return true;
        }
    }
    false
}

/// The network of the seeds.
pub(crate) fn tiny() -> Option<Network> {
    let conv = releq_core::Conv2d::new(2, 3).without_bias();
    let network = Network::builder("tiny", [1, 4, 4]).conv("0", conv).batch_norm("1");
    network.flatten("2").linear("3", 3).build().ok()
}

fn weights(path: &Path) -> bool {
    let (Ok(checkpoint), Some(network)) = (Checkpoint::open(path), tiny()) else { return false };
    let names = NameMap::of("tiny");
    let found = checkpoint.tensors().count() > 0 && checkpoint.check(&network, &names).is_ok();
    checkpoint.state(&network, &names).is_ok() && found
}

/// Weights in a file of any format.
pub fn checkpoint(bytes: &[u8]) -> bool {
    weights(&file(&folder("checkpoint", |_| {}), "weights", bytes))
}

/// The pickle within PyTorch's archive, which is made here, so that changes get past its checksums.
pub fn pytorch_pickle(bytes: &[u8]) -> bool {
    checkpoint(&seeds::archive(bytes))
}

/// Weights in a safetensors file, as those of a network and as they are.
pub fn safetensors(bytes: &[u8]) -> bool {
    let path = file(&folder("safetensors", |_| {}), "weights.safetensors", bytes);
    let found = weights(&path);
    safetensors::load(path).is_ok() || found
}

/// A table of measured accuracies.
pub fn table(bytes: &[u8]) -> bool {
    let path = file(&folder("table", |_| {}), "table.csv", bytes);
    let Ok(table) = TextTable::read(path, &["bits", "accuracy"]) else { return false };
    table.rows().all(|row| {
        row.text("bits").is_ok() & row.decimal("accuracy").is_ok() & row.whole("layer").is_ok()
    })
}

/// A table of layers.
pub fn layers(bytes: &[u8]) -> bool {
    let path = file(&folder("layers", |_| {}), "layers.csv", bytes);
    let only = read_layers(&path, None).is_ok();
    read_layers(&path, Some("lenet")).is_ok() || only
}

/// A table of measured latencies, as it is and with the right checksum.
pub fn latencies(bytes: &[u8]) -> bool {
    let folder = folder("latencies", |_| {});
    let load = |bytes: &[u8]| LatencyTable::load(&file(&folder, "latencies.json", bytes)).is_ok();
    let valid = load(bytes);
    load(&resealed(bytes)) | valid
}

/// JSON with the right checksum, so that changes get past it.
pub(crate) fn resealed(bytes: &[u8]) -> Vec<u8> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(mut object)) => {
            sealed::seal(&mut object);
            Value::Object(object).to_string().into_bytes()
        }
        _ => Vec::new(),
    }
}

/// Text, and numbers in text.
pub fn text(bytes: &[u8]) -> bool {
    let path = file(&folder("text", |_| {}), "text", bytes);
    let text = text::read(&path).unwrap_or_default();
    let words = text.split_whitespace().map(|word| (text::decimal(word), text::whole(word)));
    let numbers = words.filter(|number| *number != (None, None)).count();
    text::read_numbers(&path).is_ok() || numbers > 0
}

/// An ONNX model, with its weights in it or in a file beside it.
pub fn onnx(bytes: &[u8]) -> bool {
    let folder = folder("onnx", |folder| {
        file(folder, seeds::ONNX_DATA_NAME, seeds::ONNX_DATA);
    });
    onnx::open(file(&folder, "model.onnx", bytes))
        .is_ok_and(|model| model.weights.check(&model.network).is_ok())
}

/// A packed network, as it is and with the right checksum, and as a checkpoint. What is one is made ready to run, and run.
pub fn packed(bytes: &[u8]) -> bool {
    let path = file(&folder("packed", |_| {}), "packed.safetensors", bytes);
    let valid = packed::load(&path).is_ok_and(|packed| runs(&packed))
        | packed::open(&path).is_ok_and(|packed| runs(&packed));
    let found = weights(&path);
    reseal::safetensors(bytes, |text| text)
        .and_then(|bytes| packed::parse(&bytes).ok())
        .is_some_and(|packed| runs(&packed))
        | valid
        | found
}

/// Whether a network runs on the runtime; of one that is too large to be tried so often, whether it can be read.
fn runs<C: Codes>(packed: &Packed<C>) -> bool {
    let network = packed.model.network();
    let values: usize = network.input().iter().product();
    let largest = (0..network.nodes().len()).map(|index| network.shape(index).len()).max();
    if values.max(largest.unwrap_or(0)) > 1 << 16 {
        return true;
    }
    let Ok(mut model) = Model::compile(packed, &Options::default()) else { return false };
    model.run(&vec![0.5; values], &mut vec![0.0; model.outputs()]).is_ok()
}

/// Arrays of NumPy, in an archive or alone.
pub fn npz(bytes: &[u8]) -> bool {
    npz::read(file(&folder("npz", |_| {}), "arrays.npz", bytes), "x").is_ok()
}

/// The folder of a reader. `fill` puts in it, once, what the reader needs beside its input.
pub(crate) fn folder(name: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    thread_local! {
        // Removed when the thread ends. Fuzzers end without it.
        static ROOT: Option<TempDir> = {
            let memory = Path::new("/dev/shm");
            let builder = || tempfile::Builder::new();
            let at = |place: &Path| builder().prefix("releq-fuzz-").tempdir_in(place);
            at(memory).or_else(|_| at(&std::env::temp_dir())).ok()
        };
    }
    let root = ROOT.with(|root| root.as_ref().map(|root| root.path().to_owned()));
    let folder = root.unwrap_or_else(|| panic!("no temporary folder can be created")).join(name);
    if fs::create_dir(&folder).is_ok() {
        fill(&folder);
    }
    folder
}

/// A file of these bytes.
pub(crate) fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}
