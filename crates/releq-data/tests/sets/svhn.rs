//! SVHN from `.mat` files that are written here.

use std::{fs, io::Write, path::Path};

use flate2::{Compression, write::ZlibEncoder};
use releq_data::{DataError, svhn};

const NAMES: [&str; 2] = ["train_32x32.mat", "test_32x32.mat"];

/// One variable of bytes, as MATLAB version 5 writes it.
fn variable(name: &str, dims: &[u32], values: &[u8]) -> Vec<u8> {
    variable_of(name, dims, 9, 2, values)
}

/// One variable of an array class, and its values of a type of the file.
fn variable_of(name: &str, dims: &[u32], class: u8, kind: u32, values: &[u8]) -> Vec<u8> {
    let part = |kind: u32, bytes: &[u8]| {
        let mut part = [kind.to_le_bytes(), (bytes.len() as u32).to_le_bytes()].concat();
        part.extend(bytes);
        part.resize(part.len().next_multiple_of(8), 0);
        part
    };
    let dims: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    let body = [
        part(6, &[class, 0, 0, 0, 0, 0, 0, 0]),
        part(5, &dims),
        part(1, name.as_bytes()),
        part(kind, values),
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
    check("2 images but 3 labels");
    write(&path, &[x.clone(), variable("y", &[2, 1], &[1, 11])], true);
    check("label of image 1 is 11");
    write(&path, &[variable("X", &[32, 2, 3, 32], &images(2)), y.clone()], true);
    check("`X`: dimensions [32, 2, 3, 32]");
    write(&path, &[x], true);
    check("no variable `y`");
    fs::write(&path, "<html>not found</html>").unwrap();
    check("is a web page");
    fs::remove_file(dir.path().join(NAMES[1])).unwrap();
    let error = svhn::load(dir.path()).unwrap_err();
    assert!(matches!(error, DataError::NotFound { .. }), "{error}");
}

#[test]
fn labels_are_read_from_every_type_and_direction() {
    let dir = tempfile::tempdir().unwrap();
    let labels = [1_u8, 10, 9];
    type Encode = fn(u8) -> Vec<u8>;
    // Class and type in the file: double, single, and whole numbers with and without sign.
    let types: [(u8, u32, Encode); 10] = [
        (6, 9, |v| f64::from(v).to_le_bytes().to_vec()),
        (7, 7, |v| f32::from(v).to_le_bytes().to_vec()),
        (8, 1, |v| i8::try_from(v).unwrap().to_le_bytes().to_vec()),
        (9, 2, |v| vec![v]),
        (10, 3, |v| i16::from(v).to_le_bytes().to_vec()),
        (11, 4, |v| u16::from(v).to_le_bytes().to_vec()),
        (12, 5, |v| i32::from(v).to_le_bytes().to_vec()),
        (13, 6, |v| u32::from(v).to_le_bytes().to_vec()),
        (14, 12, |v| i64::from(v).to_le_bytes().to_vec()),
        (15, 13, |v| u64::from(v).to_le_bytes().to_vec()),
    ];
    let x = variable("X", &[32, 32, 3, 3], &images(3));
    for (class, kind, encode) in types {
        for dims in [[3, 1], [1, 3]] {
            let values: Vec<u8> = labels.into_iter().flat_map(encode).collect();
            let y = variable_of("y", &dims, class, kind, &values);
            NAMES
                .iter()
                .for_each(|name| write(&dir.path().join(name), &[x.clone(), y.clone()], true));
            let data = svhn::load(dir.path()).unwrap();
            let found = [0, 1, 2].map(|index| data.train.label(index));
            assert_eq!(found, [1, 0, 9], "class {class}");
        }
    }
    let check = |class, kind, dims: &[u32], values: &[u8], expected: &str| {
        let y = variable_of("y", dims, class, kind, values);
        write(&dir.path().join(NAMES[0]), &[x.clone(), y], false);
        let error = svhn::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "`{error}` lacks `{expected}`");
    };
    let negative = [1_i64, -1, 2].map(i64::to_le_bytes).concat();
    check(14, 12, &[3, 1], &negative, "`y`: value -1.0 is not a whole number from 0 to 255");
    let nan = [1.0, f32::NAN, 2.0].map(f32::to_le_bytes).concat();
    check(7, 7, &[3, 1], &nan, "`y`: value NaN is not a whole number");
    let half = [1.0, 0.5, 2.0].map(f64::to_le_bytes).concat();
    check(6, 9, &[3, 1], &half, "`y`: value 0.5 is not a whole number");
    check(9, 2, &[2, 2], &[1, 2, 3, 4], "`y`: dimensions [2, 2], expected a row or a column");
}

#[test]
fn arrays_that_no_such_data_set_has_are_refused_before_they_are_read() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path(), &[1, 2], true);
    let mut x = variable("X", &[32, 32, 3, 2], &[0; 3072 * 2]);
    // The fourth dimension, behind the tags of variable, flags and dimensions.
    x[44..48].copy_from_slice(&600_000_u32.to_le_bytes());
    write(&dir.path().join(NAMES[0]), &[x.clone()], true);
    let error = svhn::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("`X`: 600000 images in"), "{error}");
    x[44..48].copy_from_slice(&u32::MAX.to_le_bytes());
    write(&dir.path().join(NAMES[0]), &[x], false);
    let error = svhn::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("`X`: 4294967295 images in"), "{error}");
}
