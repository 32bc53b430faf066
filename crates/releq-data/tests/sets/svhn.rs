//! SVHN from `.mat` files that are written here.

use std::{fs, io::Write, path::Path};

use flate2::{Compression, write::ZlibEncoder};
use releq_data::{DataError, svhn};

const NAMES: [&str; 2] = ["train_32x32.mat", "test_32x32.mat"];

/// One variable of bytes, as MATLAB version 5 writes it.
fn variable(name: &str, dims: &[u32], values: &[u8]) -> Vec<u8> {
    let part = |kind: u32, bytes: &[u8]| {
        let mut part = [kind.to_le_bytes(), (bytes.len() as u32).to_le_bytes()].concat();
        part.extend(bytes);
        part.resize(part.len().next_multiple_of(8), 0);
        part
    };
    let dims: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    let body = [
        part(6, &[9, 0, 0, 0, 0, 0, 0, 0]),
        part(5, &dims),
        part(1, name.as_bytes()),
        part(2, values),
    ];
    part(14, &body.concat())
}

fn write(path: &Path, variables: &[Vec<u8>], compressed: bool) {
    let mut file = vec![b' '; 124];
    file.extend([0, 1, b'I', b'M']);
    for variable in variables {
        if compressed {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(variable).unwrap();
            let bytes = encoder.finish().unwrap();
            file.extend([15, bytes.len() as u32].iter().flat_map(|word| word.to_le_bytes()));
            file.extend(bytes);
        } else {
            file.extend(variable);
        }
    }
    fs::write(path, file).unwrap();
}

/// Images whose pixels tell their place, columns first.
fn images(count: usize) -> Vec<u8> {
    let mut values = Vec::new();
    for image in 0..count {
        for channel in 0..3 {
            for x in 0..32 {
                values.extend((0..32).map(|y| pixel(image, channel, y, x)));
            }
        }
    }
    values
}

fn pixel(image: usize, channel: usize, y: usize, x: usize) -> u8 {
    (image * 101 + channel * 40 + y * 7 + x) as u8
}

fn small(dir: &Path, labels: &[u8], compressed: bool) {
    fs::create_dir_all(dir).unwrap();
    let count = labels.len();
    let x = variable("X", &[32, 32, 3, count as u32], &images(count));
    let y = variable("y", &[count as u32, 1], labels);
    NAMES.iter().for_each(|name| write(&dir.join(name), &[x.clone(), y.clone()], compressed));
}

#[test]
fn images_are_turned_and_ten_means_zero() {
    for compressed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        small(&dir.path().join("svhn"), &[1, 10, 9], compressed);
        let data = svhn::load(dir.path()).unwrap();
        assert_eq!((data.train.shape(), data.train.classes()), ([3, 32, 32], 10));
        assert_eq!([0, 1, 2].map(|index| data.test.label(index)), [1, 0, 9]);
        for image in 0..3 {
            for (place, &found) in data.train.image(image).iter().enumerate() {
                let (channel, y, x) = (place / 1024, place / 32 % 32, place % 32);
                assert_eq!(found, pixel(image, channel, y, x), "{image} {channel} {y} {x}");
            }
        }
    }
}

#[test]
fn wrong_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAMES[0]);
    let check = |expected: &str| {
        let error = svhn::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(NAMES[0]) && error.contains(expected), "{error}");
    };
    check("missing train_32x32.mat, test_32x32.mat");
    small(dir.path(), &[1, 2], true);
    let (x, y) = (variable("X", &[32, 32, 3, 2], &images(2)), variable("y", &[2, 1], &[1, 2]));
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    check("the file ends after");
    write(&path, &[x.clone(), variable("y", &[3, 1], &[1, 2, 3])], true);
    check("2 images, expected 3");
    write(&path, &[x.clone(), variable("y", &[2, 1], &[1, 11])], true);
    check("label of image 1 is 11");
    write(&path, &[variable("X", &[32, 2, 3, 32], &images(2)), y.clone()], true);
    check("`X` has dimensions [32, 2, 3, 32]");
    write(&path, &[x], true);
    check("no variable `y`");
    fs::write(&path, "<html>not found</html>").unwrap();
    check("less than its header");
    fs::remove_file(dir.path().join(NAMES[1])).unwrap();
    let error = svhn::load(dir.path()).unwrap_err();
    assert!(matches!(error, DataError::NotFound { .. }), "{error}");
}
