//! Finding out which data set a folder holds.

use std::{fs, path::Path};

use releq_data::{self as data, DataError, DataKind, Download, ImageFolderConfig};

/// The four files with the labels given, for all images alike.
fn idx(folder: &Path, labels: &[u8]) {
    fs::create_dir_all(folder).unwrap();
    let mut images = 0x0803u32.to_be_bytes().to_vec();
    [labels.len() as u32, 28, 28].iter().for_each(|dim| images.extend(dim.to_be_bytes()));
    images.resize(images.len() + labels.len() * 28 * 28, 7);
    let mut label_file = 0x0801u32.to_be_bytes().to_vec();
    label_file.extend((labels.len() as u32).to_be_bytes());
    label_file.extend(labels);
    for part in ["train", "t10k"] {
        fs::write(folder.join(format!("{part}-images-idx3-ubyte")), &images).unwrap();
        fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), &label_file).unwrap();
    }
}

const MNIST: [u8; 10] = [7, 2, 1, 0, 4, 1, 4, 9, 5, 9];
const FASHION: [u8; 10] = [9, 2, 1, 1, 6, 1, 4, 6, 5, 7];

fn opened(dir: &Path, kind: Option<DataKind>) -> Result<data::Splits, DataError> {
    data::open(dir, kind, &ImageFolderConfig { cache: data::Cache::Off, ..Default::default() })
}

fn touch(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "x").unwrap();
}

#[test]
fn a_folder_is_known_by_its_files() {
    let check = |make: &dyn Fn(&Path), expected: DataKind| {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        assert_eq!(data::detect(dir.path()).unwrap(), expected);
        assert!(data::find(expected, Some(dir.path())).unwrap().is_some());
    };
    check(&|dir| idx(dir, &MNIST), DataKind::Mnist);
    check(&|dir| idx(&dir.join("MNIST/raw"), &MNIST), DataKind::Mnist);
    check(&|dir| idx(dir, &FASHION), DataKind::FashionMnist);
    check(&|dir| idx(&dir.join("FashionMNIST/raw"), &FASHION), DataKind::FashionMnist);
    // Somebody's own data in the same format.
    check(&|dir| idx(dir, &[1, 2, 3]), DataKind::Mnist);
    let batches = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"];
    for form in ["cifar-10-batches-bin/", "cifar10/", ""] {
        let make = |dir: &Path| {
            for name in batches.iter().chain(&["test_batch"]) {
                touch(&dir.join(format!("{form}{name}.bin")));
            }
        };
        check(&make, DataKind::Cifar10);
    }
    check(&|dir| touch(&dir.join("cifar-10-python.tar.gz")), DataKind::Cifar10);
    let svhn = |dir: &Path| {
        ["train", "test"].iter().for_each(|part| touch(&dir.join(format!("{part}_32x32.mat"))));
    };
    check(&svhn, DataKind::Svhn);
    let images = |dir: &Path| {
        ["train/a/1.png", "val/a/2.png"].iter().for_each(|path| touch(&dir.join(path)));
    };
    check(&images, DataKind::ImageFolder);
}

#[test]
fn what_cannot_be_told_apart_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let error = opened(dir.path(), None).unwrap_err().to_string();
    for kind in DataKind::ALL {
        assert!(error.contains(&kind.to_string()), "{error}");
    }
    assert!(error.contains("`train_32x32.mat`") && error.contains("`train/CLASS/`"), "{error}");
    let nowhere = dir.path().join("nowhere");
    for kind in DataKind::ALL.map(Some).into_iter().chain([None]) {
        let message = opened(&nowhere, kind).unwrap_err().to_string();
        assert_eq!(
            message,
            format!("{} does not exist; check the path to the data", nowhere.display())
        );
    }
    for kind in DataKind::ALL {
        assert!(matches!(data::find(kind, Some(&nowhere)), Err(DataError::NoFolder { .. })));
    }

    let file = dir.path().join("image.jpg");
    touch(&file);
    let error = opened(&file, None).unwrap_err().to_string();
    assert!(error.contains("no data set in") && error.contains("image.jpg"), "{error}");

    idx(&dir.path().join("mnist"), &MNIST);
    idx(&dir.path().join("fashion-mnist"), &FASHION);
    let error = opened(dir.path(), None).unwrap_err().to_string();
    assert!(error.contains("several data sets: MNIST, Fashion-MNIST"), "{error}");
    for kind in [DataKind::Mnist, DataKind::FashionMnist] {
        let data = opened(dir.path(), Some(kind)).unwrap();
        assert_eq!(data.train.len(), 10);
        assert!(data.source.starts_with(&format!("{kind} from")), "{}", data.source);
    }
    let error = opened(&dir.path().join("mnist"), Some(DataKind::FashionMnist)).unwrap_err();
    assert!(error.to_string().contains("labels of MNIST, not of Fashion-MNIST"), "{error}");
    let error = opened(dir.path(), Some(DataKind::Svhn)).unwrap_err().to_string();
    assert!(error.contains("no SVHN in") && error.contains("test_32x32.mat"), "{error}");
}

#[test]
fn names_read_and_write() {
    for kind in DataKind::ALL {
        assert_eq!(kind.slug().parse::<DataKind>().unwrap(), kind);
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.slug());
    }
    let error = "imagenet".parse::<DataKind>().unwrap_err().to_string();
    assert!(error.contains("`imagenet`") && error.contains("image-folder"), "{error}");
}

#[test]
fn real_mnist_is_found_by_itself() {
    let Some(dir) = std::env::var_os("RELEQ_DATA_DIR") else {
        eprintln!("skipped: RELEQ_DATA_DIR is not set");
        return;
    };
    let folder = Path::new(&dir).join("mnist");
    if folder.is_dir() {
        assert_eq!(data::detect(&folder).unwrap(), DataKind::Mnist);
        assert_eq!(opened(&folder, None).unwrap().test.len(), 10_000);
        let error = opened(&folder, Some(DataKind::FashionMnist)).unwrap_err();
        assert!(matches!(error, DataError::OtherData { .. }), "{error}");
    }
}

#[test]
fn every_download_knows_its_files_by_checksum() {
    // Nothing listens on port 9, so that only files that are there count.
    for (kind, files) in [
        (DataKind::Cifar10, &["cifar-10-binary.tar.gz"][..]),
        (DataKind::Svhn, &["train_32x32.mat", "test_32x32.mat"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = Download {
            base_urls: vec!["http://127.0.0.1:9".to_owned()],
            attempts: 1,
            ..Download::new(kind, dir.path())
        };
        let fetch = || data::download(&nowhere, &mut |_| {});
        assert!(matches!(fetch(), Err(DataError::Transfer { .. })));
        files.iter().for_each(|name| touch(&dir.path().join(name)));
        assert_eq!(fetch().unwrap(), dir.path());
    }
}

#[test]
fn part_of_a_data_set_is_told_from_none() {
    let check = |file: &str, expected: &str| {
        let dir = tempfile::tempdir().unwrap();
        touch(&dir.path().join(file));
        for kind in [data::detect(dir.path()).err(), opened(dir.path(), None).err()] {
            let message = kind.unwrap().to_string();
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        }
    };
    check("test/cat/0.png", "no image folder in");
    check("test/cat/0.png", "missing train/; expected a folder with `train/CLASS/`");
    check("train/cat/0.png", "missing test/ or val/ or valid/ or validation/");
    check("train_32x32.mat", "missing test_32x32.mat");
    check("data_batch_1.bin", "missing data_batch_2.bin, data_batch_3.bin");
    check("t10k-labels-idx1-ubyte", "missing train-images-idx3-ubyte, train-labels-idx1-ubyte");
    check("notes.txt", "no data set in");
}

#[test]
fn files_that_stand_for_others_are_named_by_every_reader() {
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let batches = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"];
    let mnist = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"];
    let sets: [(&[&str], &[&str]); 5] = [
        (&mnist, &["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]),
        (&["train_32x32.mat"], &["test_32x32.mat"]),
        (&batches, &["test_batch"]),
        (&["cifar-10-python.tar.gz"], &[]),
        (&["train/cat/0.png"], &["test/cat/0.png"]),
    ];
    for (contents, expected) in [
        (lfs, "is a pointer of Git LFS, not the file"),
        ("", "is empty; fetch it again"),
        ("<!DOCTYPE html><title>404</title>", "is a web page"),
    ] {
        for (first, second) in sets {
            let dir = tempfile::tempdir().unwrap();
            for name in first.iter().chain(second) {
                let path = dir.path().join(name);
                touch(&path);
                fs::write(path, contents).unwrap();
            }
            let message = opened(dir.path(), None).unwrap_err().to_string();
            assert!(message.contains(expected), "{}: {message}", first[0]);
            assert!(message.contains(first[0]), "`{message}` lacks `{}`", first[0]);
        }
    }
}

#[test]
fn files_are_known_by_endings_in_any_case() {
    let dir = tempfile::tempdir().unwrap();
    for (ending, kind) in
        [("csv", DataKind::ImageList), ("npz", DataKind::Arrays), ("tar.gz", DataKind::Cifar10)]
    {
        for name in [format!("x.{ending}"), format!("X.{}", ending.to_uppercase())] {
            let path = dir.path().join(name);
            touch(&path);
            assert_eq!(data::detect(&path).unwrap(), kind, "{}", path.display());
        }
    }
}
