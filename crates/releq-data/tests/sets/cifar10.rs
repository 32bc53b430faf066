//! CIFAR-10 in its published forms, from batches that are written here.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use flate2::{Compression, write::GzEncoder};
use releq_data::{DataError, Label, Splits, cifar10};

const NAMES: [&str; 6] =
    ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];
const COUNT: usize = 10_000;
const IMAGE: usize = 3072;

/// Pixels and labels that tell their place.
fn batch(number: usize) -> (Vec<u8>, Vec<u8>) {
    let labels = (0..COUNT).map(|i| ((i + number) % 10) as u8).collect();
    let image = |i: usize| (0..IMAGE).map(move |p| (number * 40 + i % 97 + p / 64) as u8);
    ((0..COUNT).flat_map(image).collect(), labels)
}

fn binary(number: usize) -> Vec<u8> {
    let (pixels, labels) = batch(number);
    let records = labels.iter().zip(pixels.chunks_exact(IMAGE));
    records.flat_map(|(label, image)| [&[*label], image].concat()).collect()
}

/// As Python 2 wrote the published batches.
fn python(number: usize) -> Vec<u8> {
    let (pixels, labels) = batch(number);
    let mut pickle =
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x04nameq\x03U\x06labelsq\x04]q\x05(".to_vec();
    labels.iter().for_each(|&label| pickle.extend([b'K', label]));
    pickle.extend(
        b"eU\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08",
    );
    pickle.extend(
        b"K\x00\x85U\x01b\x87Rq\x09(K\x01M\x10'M\x00\x0c\x86cnumpy\ndtype\nq\x0aU\x02u1K\x00K\x01",
    );
    pickle.extend(b"\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T");
    pickle.extend((pixels.len() as u32).to_le_bytes());
    pickle.extend(pixels);
    pickle.extend(b"tbu.");
    pickle
}

/// The six batches in both forms, in folders called as the archives unpack.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cifar10-made-up");
        for form in ["cifar-10-batches-bin", "cifar-10-batches-py"] {
            fs::create_dir_all(folder.join(form)).unwrap();
        }
        for (number, name) in NAMES.iter().enumerate() {
            let file = folder.join("cifar-10-batches-bin").join(format!("{name}.bin"));
            fs::write(file, binary(number)).unwrap();
            fs::write(folder.join("cifar-10-batches-py").join(name), python(number)).unwrap();
        }
        folder
    })
}

fn check(data: &Splits) {
    assert_eq!((data.train.len(), data.test.len()), (5 * COUNT, COUNT));
    assert_eq!((data.train.shape(), data.train.classes()), ([3, 32, 32], 10));
    for number in 0..6 {
        let (set, first) = if number < 5 { (&data.train, number * COUNT) } else { (&data.test, 0) };
        let (pixels, labels) = batch(number);
        for index in [0, 1, 777, COUNT - 1] {
            assert_eq!(set.label(first + index), Label::from(labels[index]));
            assert_eq!(set.image(first + index), &pixels[index * IMAGE..][..IMAGE]);
        }
    }
}

#[test]
fn both_forms_load_from_folders_and_from_archives() {
    for form in ["cifar-10-batches-bin", "cifar-10-batches-py"] {
        check(&cifar10::load(&folder().join(form)).unwrap());
        // The official archive, in it the folder, in it the batches and other files.
        let dir = tempfile::tempdir().unwrap();
        let name = if form.ends_with("bin") { "binary" } else { "python" };
        let path = dir.path().join(format!("cifar-10-{name}.tar.gz"));
        let encoder = GzEncoder::new(File::create(&path).unwrap(), Compression::fast());
        let mut archive = tar::Builder::new(encoder);
        archive.append_dir_all(form, folder().join(form)).unwrap();
        archive.into_inner().unwrap().finish().unwrap();
        for place in [dir.path(), &path] {
            let data = cifar10::load(place).unwrap();
            assert!(data.source.contains(".tar.gz"));
            check(&data);
        }
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let error = cifar10::load(dir.path()).unwrap_err();
        assert!(matches!(error, DataError::Archive { .. } | DataError::Format { .. }), "{error}");
        fs::write(&path, "no archive").unwrap();
        assert!(cifar10::load(&path).unwrap_err().to_string().contains(".tar.gz"));
    }
}

/// A folder with links to the good batches, and `name` replaced by `bytes`.
fn with(form: &str, name: &str, bytes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(folder().join(form)).unwrap() {
        let file = file.unwrap();
        if file.file_name() != name {
            fs::hard_link(file.path(), dir.path().join(file.file_name()))
                .or_else(|_| fs::copy(file.path(), dir.path().join(file.file_name())).map(drop))
                .unwrap();
        }
    }
    fs::write(dir.path().join(name), bytes).unwrap();
    dir
}

#[test]
fn damaged_binary_batches_are_named() {
    let name = "data_batch_2.bin";
    let check = |bytes: &[u8], expected: &str| {
        let dir = with("cifar-10-batches-bin", name, bytes);
        let error = cifar10::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(expected), "{error}");
    };
    let whole = binary(1);
    check(&whole[..5000], "byte 5000: the file ends within image 1");
    check(b"", "is empty; fetch it again");
    check(&whole[..1], "the file ends within image 0");
    let mut wrong = whole.clone();
    wrong[3073 * 3] = 10;
    check(&wrong, "label of image 3 is 10, expected 0 to 9");
    let dir = with("cifar-10-batches-bin", name, &whole);
    fs::remove_file(dir.path().join(name)).unwrap();
    let error = cifar10::load(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("no CIFAR-10 in") && error.contains("missing data_batch_2.bin"),
        "{error}"
    );
}

#[test]
fn damaged_and_hostile_pickles_are_named() {
    let name = "data_batch_2";
    let check = |bytes: &[u8], expected: &str| {
        let dir = with("cifar-10-batches-py", name, bytes);
        let error = cifar10::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(expected), "{error}");
    };
    let whole = python(1);
    check(&whole[..whole.len() / 2], "the file ends within an instruction");
    check(&binary(1), "not a pickle file");
    check(b"\x80\x02cos\nsystem\nU\x04true\x85R.", "asks to run `os.system`");
    check(b"\x80\x02}(U\x06labels]U\x01xK\x01u.", "not a dictionary with the key `data`");
    let place = whole.windows(4).position(|part| part == b"K\x01K\x02").unwrap();
    let mut wrong = whole.clone();
    wrong[place + 1] = 12;
    check(&wrong, "label of image 0 is 12, expected 0 to 9");
    let mut shorter = whole[..place].to_vec();
    shorter.extend(&whole[place + 2..]);
    check(&shorter, "10000 images but 9999 labels");
}

#[test]
fn batches_of_other_sizes_are_read_and_named_in_the_source() {
    let dir = tempfile::tempdir().unwrap();
    for (number, name) in NAMES.iter().enumerate() {
        let images = &binary(number)[..3073 * (number + 1)];
        fs::write(dir.path().join(format!("{name}.bin")), images).unwrap();
    }
    let data = cifar10::load(dir.path()).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (15, 6));
    let expected = ", not the published set: 15 images to train on, 6 to test on";
    assert!(data.source.ends_with(expected), "{}", data.source);
    let first = batch(5);
    assert_eq!(data.test.image(5), &first.0[5 * IMAGE..][..IMAGE]);

    let large = with("cifar-10-batches-bin", "test_batch.bin", &vec![0; 70 << 20]);
    let error = cifar10::load(large.path()).unwrap_err().to_string();
    assert!(error.contains("test_batch.bin") && error.contains("more than 67108864"), "{error}");
}
