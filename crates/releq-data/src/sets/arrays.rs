//! Images in arrays of NumPy.

use std::path::Path;

use crate::{
    DataError, ImageSet, Label, Splits,
    files::npz,
    image_folder::{FIFTH, test_fifth},
    sets::exists,
};

/// Reads the arrays of an `.npz` file: images `x` and labels `y`, of which every fifth is a test image, chosen at random
/// but always the same; or, as Keras has them, `x_train`, `y_train`, `x_test` and `y_test`. Without the labels, images have
/// none. Their pixels take `max_bytes` of memory at most.
///
/// # Shapes
/// - images: `[images, channels, height, width]`, `[images, height, width, channels]` or `[images, height, width]`, with 1 or
///   3 channels, of bytes or of numbers from 0 to 1, which are rounded to bytes
/// - labels: `[images]` or `[images, 1]`, whole numbers
///
/// # Errors
/// [`DataError`], naming the file and the array, for what is missing or has another form.
pub fn load(path: &Path, max_bytes: u64) -> Result<Splits, DataError> {
    exists(path)?;
    let names = npz::names(path)?;
    let has = |name: &str| names.iter().any(|known| known == name);
    let set = |part: &str| -> Result<ImageSet, DataError> {
        let (x, y) = (format!("x{part}"), format!("y{part}"));
        let labels = has(&y).then_some(y);
        images(path, &x, labels.as_deref(), max_bytes)
    };
    let in_parts = has("x_train") || has("x_test");
    let (train, test) = if in_parts {
        let (train, test) = (set("_train")?, set("_test")?);
        with_equal_classes(train, test)?
    } else {
        test_fifth(set("")?)?
    };
    let unlabelled = if train.classes() == 0 { " without labels" } else { "" };
    let split = if in_parts { "" } else { FIFTH };
    let source = format!("images{unlabelled} from {}{split}", path.display());
    Ok(Splits { train, test, source })
}

/// Both with as many classes as the larger.
fn with_equal_classes(train: ImageSet, test: ImageSet) -> Result<(ImageSet, ImageSet), DataError> {
    let classes = train.classes().max(test.classes());
    Ok((train.with_classes(classes)?, test.with_classes(classes)?))
}

fn images(path: &Path, x: &str, y: Option<&str>, max_bytes: u64) -> Result<ImageSet, DataError> {
    let wrong = |name: &str, reason: String| DataError::Array {
        path: path.to_owned(),
        name: name.to_owned(),
        reason,
    };
    let shape = npz::shape(path, x)?;
    let (images, shape, last) = match *shape.as_slice() {
        [images, height, width] => (images, [1, height, width], false),
        [images, channels @ (1 | 3), height, width] => (images, [channels, height, width], false),
        [images, height, width, channels @ (1 | 3)] => (images, [channels, height, width], true),
        _ => {
            let reason = format!(
                "its shape is {shape:?}, expected images of 1 or 3 channels, [images, channels, height, width]"
            );
            return Err(wrong(x, reason));
        }
    };
    let [channels, height, width] = shape;
    let sizes = [images, channels, height, width];
    let needed = sizes.iter().fold(1u64, |bytes, &size| bytes.saturating_mul(size as u64));
    // Before anything is read: a small archive may hold much.
    if needed > max_bytes {
        let folder = path.to_owned();
        return Err(DataError::TooLarge { folder, images, shape, bytes: needed, limit: max_bytes });
    }
    let npz::Array { values, .. } = npz::read(path, x)?;
    let mut pixels = bytes(&values).map_err(|reason| wrong(x, reason))?;
    if last && channels > 1 {
        let area = height * width;
        let mut planes = vec![0; pixels.len()];
        for (from, to) in
            pixels.chunks_exact(channels * area).zip(planes.chunks_exact_mut(channels * area))
        {
            for (place, value) in from.iter().enumerate() {
                to[place % channels * area + place / channels] = *value;
            }
        }
        pixels = planes;
    }
    let name = path.display().to_string();
    let Some(y) = y else { return ImageSet::unlabelled(name, shape, pixels) };
    let npz::Array { shape: of_labels, values } = npz::read(path, y)?;
    if !matches!(of_labels.as_slice(), [_] | [_, 1]) || values.len() != images {
        let reason =
            format!("its shape is {of_labels:?}, expected a label for each of {images} images");
        return Err(wrong(y, reason));
    }
    let label = |&value: &f32| {
        let whole = value.fract() == 0.0 && (0.0..=f32::from(Label::MAX)).contains(&value);
        whole.then_some(value as Label)
    };
    let labels: Option<Vec<Label>> = values.iter().map(label).collect();
    let labels = labels.ok_or_else(|| {
        wrong(y, format!("labels are whole numbers from 0 to {}, others came", Label::MAX))
    })?;
    let classes = labels.iter().max().map_or(1, |&largest| usize::from(largest) + 1);
    ImageSet::new(name, shape, classes, pixels, labels)
}

/// Bytes of pixels, which are bytes already or numbers from 0 to 1.
fn bytes(values: &[f32]) -> Result<Vec<u8>, String> {
    let (least, most) = values
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(least, most), &v| (least.min(v), most.max(v)));
    let whole = values.iter().all(|value| value.fract() == 0.0);
    if values.iter().any(|value| value.is_nan()) {
        return Err("a pixel is not a number".into());
    }
    if least >= 0.0 && most > 1.0 && most <= 255.0 && whole {
        return Ok(values.iter().map(|&value| value as u8).collect());
    }
    if values.is_empty() || (least >= 0.0 && most <= 1.0) {
        return Ok(values.iter().map(|&value| (255.0 * value).round() as u8).collect());
    }
    Err(format!(
        "its values go from {least} to {most}; expected bytes, or numbers from 0 to 1, before any normalization"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use npz::Array;

    fn written(arrays: &[(&str, Vec<usize>, Vec<f32>)]) -> Result<Splits, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images.npz");
        let array = |(_, shape, values): &(&str, Vec<usize>, Vec<f32>)| Array {
            shape: shape.clone(),
            values: values.clone(),
        };
        let all: Vec<Array> = arrays.iter().map(array).collect();
        let named: Vec<_> = arrays.iter().map(|(name, ..)| *name).zip(&all).collect();
        npz::write(&path, &named).unwrap();
        load(&path, 1 << 30)
    }

    #[test]
    fn layouts_and_scales_of_one_image_are_the_same_image() {
        let first: Vec<f32> = (0..12).map(|value| (20 * value) as f32).collect();
        let planes = first.repeat(2);
        let pixels: Vec<f32> =
            [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11].map(|place| first[place]).repeat(2);
        let shares: Vec<f32> = planes.iter().map(|value| value / 255.0).collect();
        for (shape, values) in
            [(vec![2, 3, 2, 2], planes), (vec![2, 2, 2, 3], pixels), (vec![2, 3, 2, 2], shares)]
        {
            let data = written(&[("x", shape, values), ("y", vec![2, 1], vec![1.0, 1.0])]).unwrap();
            assert_eq!((data.train.len(), data.test.len()), (1, 1));
            assert_eq!((data.train.shape(), data.train.classes()), ([3, 2, 2], 2));
            let bytes: Vec<u8> = first.iter().map(|&value| value as u8).collect();
            assert_eq!(data.test.image(0), bytes);
        }
    }

    #[test]
    fn keras_names_and_missing_labels_are_understood() {
        let gray = |images: usize| (vec![images, 2, 2], vec![7.0; 4 * images]);
        let [(a, b), (c, d)] = [gray(3), gray(2)];
        let data = written(&[
            ("x_train", a.clone(), b.clone()),
            ("y_train", vec![3], vec![0.0, 1.0, 4.0]),
            ("x_test", c.clone(), d.clone()),
            ("y_test", vec![2], vec![1.0, 0.0]),
        ])
        .unwrap();
        assert_eq!((data.train.len(), data.test.len(), data.test.classes()), (3, 2, 5));
        let data = written(&[("x_train", a, b), ("x_test", c, d)]).unwrap();
        assert_eq!((data.train.classes(), data.test.len()), (0, 2));
        assert!(data.source.starts_with("images without labels from "), "{}", data.source);
        assert!(!data.source.contains("fifth"), "{}", data.source);
        let data = written(&[("x", vec![5, 1, 1], vec![7.0; 5])]).unwrap();
        assert!(data.source.ends_with(".npz, every fifth for the test"), "{}", data.source);
    }

    #[test]
    fn memory_is_asked_for_by_the_header_before_anything_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images.npz");
        let x = Array { shape: vec![10, 8, 8], values: vec![1.0; 640] };
        npz::write(&path, &[("x", &x)]).unwrap();
        assert!(load(&path, 640).is_ok());
        let error = load(&path, 639).unwrap_err();
        let expected = "10 images of shape [1, 8, 8] need 640 bytes, more than the 639 allowed";
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn what_is_wrong_is_told_with_the_array() {
        let x = || ("x", vec![2, 1, 2, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        for (arrays, expected) in [
            (vec![("z", vec![1], vec![0.0])], "array `x`: there is none; the file has `z`"),
            (vec![("x", vec![4], vec![0.0; 4])], "array `x`: its shape is [4]"),
            (vec![("x", vec![1, 1, 1, 2], vec![-1.0, 1.0])], "go from -1 to 1"),
            (vec![("x", vec![1, 1, 1, 1], vec![f32::NAN])], "is not a number"),
            (vec![x(), ("y", vec![3], vec![0.0; 3])], "array `y`: its shape is [3]"),
            (vec![x(), ("y", vec![2], vec![0.0, 0.5])], "array `y`: labels are whole numbers"),
        ] {
            let message = written(&arrays).unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        }
    }
}
