//! Images in arrays of NumPy.

use std::path::Path;

use crate::{
    DataError, ImageSet, Label, Splits,
    dataset::image_bytes,
    files::npz::{self, Numbers},
    image_folder::{FIFTH, test_fifth},
    sets::exists,
};

/// Reads the arrays of an `.npz` file: images `x` and labels `y`, of which every fifth is a test image, chosen at random
/// but always the same; or, as Keras has them, `x_train`, `y_train`, `x_test` and `y_test`. Without the labels, images have
/// none. The pixels of one array take `max_bytes` of memory at most, twice as many counted where they come with the first
/// dimension fastest and have to be brought in order.
///
/// # Shapes
/// - images: `[images, channels, height, width]`, `[images, height, width, channels]` or `[images, height, width]`, with 1 or
///   3 channels. Whole numbers are bytes, from 0 to 255; floats are bytes, too, unless all of the file are from 0 to 1: then
///   these are rounded to bytes, as are black and white in an array of `bool`.
/// - labels: `[images]` or `[images, 1]`, whole numbers
///
/// # Errors
/// [`DataError`], naming the file and the array, for what is missing or has another form.
pub fn load(path: &Path, max_bytes: u64) -> Result<Splits, DataError> {
    exists(path)?;
    let names = npz::names(path)?;
    let has = |name: &str| names.iter().any(|known| known == name);
    let part = |part: &str| {
        let (x, y) = (format!("x{part}"), format!("y{part}"));
        let labels = has(&y).then_some(y);
        Part::find(path, x, labels, max_bytes)
    };
    let in_parts = has("x_train") || has("x_test");
    let (train, test) = if in_parts {
        let (train, test) = (part("_train")?, part("_test")?);
        let scale = float_scale(&[&train, &test])?;
        with_equal_classes(train.load(scale)?, test.load(scale)?)?
    } else {
        let all = part("")?;
        test_fifth(all.load(float_scale(&[&all])?)?)?
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

/// An array of images and its labels, of which no value has been read yet.
struct Part<'a> {
    path: &'a Path,
    x: String,
    y: Option<String>,
    /// As the file has it.
    layout: npz::Header,
    images: usize,
    /// Channels, height, width.
    shape: [usize; 3],
    channels_last: bool,
}

impl Part<'_> {
    /// Checks by the headers what can be checked by them: a small archive may hold much.
    fn find(
        path: &Path,
        x: String,
        y: Option<String>,
        max_bytes: u64,
    ) -> Result<Part<'_>, DataError> {
        let layout = npz::header(path, &x)?;
        let (images, shape, channels_last) = match *layout.shape.as_slice() {
            [images, height, width] => (images, [1, height, width], false),
            [images, channels @ (1 | 3), height, width] => {
                (images, [channels, height, width], false)
            }
            [images, height, width, channels @ (1 | 3)] => {
                (images, [channels, height, width], channels > 1)
            }
            _ => {
                let reason = format!(
                    "its shape is {:?}, expected images of 1 or 3 channels, [images, channels, height, width]",
                    layout.shape
                );
                return Err(wrong(path, &x, reason));
            }
        };
        let name = path.display().to_string();
        let image = image_bytes(&name, shape)? as u64;
        if images == 0 {
            return Err(DataError::Empty { name: format!("{name}, array `{x}`") });
        }
        let copies = if layout.columns_first { 2 } else { 1 };
        let bytes = image.saturating_mul(images as u64).saturating_mul(copies);
        if bytes > max_bytes {
            let folder = path.to_owned();
            return Err(DataError::TooLarge { folder, images, shape, bytes, limit: max_bytes });
        }
        if let Some(y) = &y {
            let found = npz::header(path, y)?.shape;
            if !matches!(*found.as_slice(), [labels] | [labels, 1] if labels == images) {
                let reason =
                    format!("its shape is {found:?}, expected a label for each of {images} images");
                return Err(wrong(path, y, reason));
            }
        }
        Ok(Part { path, x, y, layout, images, shape, channels_last })
    }

    /// Reads the images, in which a float of 1 stands for `scale`.
    fn load(&self, scale: f32) -> Result<ImageSet, DataError> {
        let name = self.path.display().to_string();
        let pixels = self.pixels(&name, scale)?;
        let Some(y) = &self.y else { return ImageSet::unlabelled(name, self.shape, pixels) };
        let mut labels: Vec<Label> = Vec::new();
        npz::values(self.path, y, &mut |values| {
            for value in values {
                if value.fract() != 0.0 || !(0.0..=f32::from(Label::MAX)).contains(value) {
                    let most = Label::MAX;
                    return Err(format!("labels are whole numbers from 0 to {most}, others came"));
                }
                labels.push(*value as Label);
            }
            Ok(())
        })?;
        let classes = labels.iter().max().map_or(1, |&largest| usize::from(largest) + 1);
        ImageSet::new(name, self.shape, classes, pixels, labels)
    }

    fn pixels(&self, name: &str, scale: f32) -> Result<Vec<u8>, DataError> {
        let size: usize = self.shape.iter().product();
        let mut pixels = Vec::new();
        // At once, since a vector that grows is copied; what is not there takes no memory.
        let reserved = pixels.try_reserve_exact(self.images * size);
        reserved.map_err(|error| DataError::other(name, error))?;
        let numbers = self.layout.numbers();
        npz::values(self.path, &self.x, &mut |values| {
            match numbers {
                Numbers::Bool => {
                    pixels.extend(values.iter().map(|&value| if value == 0.0 { 0 } else { 255 }));
                }
                // Never scaled: an image may have no brighter bytes than 1.
                Numbers::Whole => {
                    if let Some(value) = values.iter().find(|value| !(0.0..=255.0).contains(*value))
                    {
                        return Err(format!(
                            "one of its values is {value}; expected bytes, from 0 to 255"
                        ));
                    }
                    pixels.extend(values.iter().map(|&value| value as u8));
                }
                Numbers::Float => {
                    pixels.extend(values.iter().map(|&value| (scale * value).round() as u8));
                }
            }
            Ok(())
        })?;
        if self.layout.columns_first {
            pixels = npz::row_major(&self.layout.shape, &pixels);
        }
        if self.channels_last {
            let (channels, area) = (self.shape[0], size / self.shape[0]);
            let mut image = vec![0; size];
            for planes in pixels.chunks_exact_mut(size) {
                image.copy_from_slice(planes);
                for (place, value) in image.iter().enumerate() {
                    planes[place % channels * area + place / channels] = *value;
                }
            }
        }
        Ok(pixels)
    }

    /// What the values of an array of floats are; `None` for other numbers.
    fn range(&self) -> Result<Option<Range>, DataError> {
        if self.layout.numbers() != Numbers::Float {
            return Ok(None);
        }
        let mut range = Range { least: f32::INFINITY, most: f32::NEG_INFINITY, is_whole: true };
        npz::values(self.path, &self.x, &mut |values| {
            for &value in values {
                if value.is_nan() {
                    return Err("a pixel is not a number".to_owned());
                }
                range.least = range.least.min(value);
                range.most = range.most.max(value);
                range.is_whole &= value.fract() == 0.0;
            }
            Ok(())
        })?;
        Ok(Some(range))
    }
}

/// What the values of an array are.
struct Range {
    least: f32,
    most: f32,
    is_whole: bool,
}

/// What a float of 1 stands for: 255 where all are from 0 to 1, else 1. It is the same in all arrays of a file, for dark
/// images of bytes would look like bright ones by themselves.
fn float_scale(parts: &[&Part<'_>]) -> Result<f32, DataError> {
    let mut ranges = Vec::new();
    for part in parts {
        ranges.extend(part.range()?.map(|range| (*part, range)));
    }
    let most = ranges.iter().map(|(_, range)| range.most).fold(0.0, f32::max);
    for (part, Range { least, most: own, is_whole }) in &ranges {
        let reason = if *least < 0.0 || *own > 255.0 || *own > 1.0 && !is_whole {
            format!(
                "its values go from {least} to {own}; expected bytes, or numbers from 0 to 1, before any normalization"
            )
        } else if most > 1.0 && !is_whole {
            format!("its values go from {least} to {own}, but those of the other images to {most}")
        } else {
            continue;
        };
        return Err(wrong(part.path, &part.x, reason));
    }
    Ok(if most > 1.0 { 1.0 } else { 255.0 })
}

fn wrong(path: &Path, name: &str, reason: String) -> DataError {
    DataError::Array { path: path.to_owned(), name: name.to_owned(), reason }
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

    /// Arrays of these names, types, shapes and bytes.
    fn stored(arrays: &[(&str, &str, &str, &[u8])], max_bytes: u64) -> Result<Splits, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images.npz");
        let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        for (name, descr, shape, values) in arrays {
            let (descr, first) = match descr.strip_prefix("columns first ") {
                Some(descr) => (descr, "True"),
                None => (*descr, "False"),
            };
            let line =
                format!("{{'descr': '{descr}', 'fortran_order': {first}, 'shape': {shape}}}\n");
            let length = u16::try_from(line.len()).unwrap().to_le_bytes();
            let options = zip::write::SimpleFileOptions::default();
            archive.start_file(format!("{name}.npy"), options).unwrap();
            let parts = [b"\x93NUMPY\x01\0", &length[..], line.as_bytes(), values];
            std::io::Write::write_all(&mut archive, &parts.concat()).unwrap();
        }
        archive.finish().unwrap();
        load(&path, max_bytes)
    }

    #[test]
    fn only_floats_and_truth_are_scaled() {
        let floats =
            |values: [f32; 4]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let (shares, bytes) = (floats([0.0, 1.0, 0.2, 1.0]), floats([0.0, 1.0, 51.0, 255.0]));
        let dark = floats([0.0, 1.0, 1.0, 0.0]);
        let shape = "(1, 2, 2)";
        for (train, test, expected) in [
            // By themselves, they would be black and white.
            (("|u1", &[9, 0, 255, 1][..]), ("|u1", &[0, 1, 1, 0][..]), [0, 1, 1, 0]),
            (("<f4", &bytes), ("<f4", &dark), [0, 1, 1, 0]),
            (("<f4", &shares), ("<f4", &dark), [0, 255, 255, 0]),
            (("|u1", &[9, 0, 255, 1]), ("<f4", &dark), [0, 255, 255, 0]),
            (("<f4", &bytes), ("|b1", &[0, 1, 1, 0]), [0, 255, 255, 0]),
            (("|u1", &[1; 4]), ("<i2", &[0, 0, 1, 0, 255, 0, 7, 0]), [0, 1, 255, 7]),
            (("|u1", &[1; 4]), ("columns first |u1", &[0, 1, 2, 3]), [0, 2, 1, 3]),
        ] {
            let arrays = [("x_train", train.0, shape, train.1), ("x_test", test.0, shape, test.1)];
            let data = stored(&arrays, 8).unwrap();
            assert_eq!(data.test.image(0), expected, "{test:?} beside {train:?}");
        }
        for (train, test, expected) in [
            (&bytes, ("<f4", &shares[..]), "array `x_test`: its values go from 0 to 1, but"),
            (
                &shares,
                ("|i1", &[0, 0, 255, 0]),
                "array `x_test`: one of its values is -1; expected bytes",
            ),
        ] {
            let arrays = [("x_train", "<f4", shape, &train[..]), ("x_test", test.0, shape, test.1)];
            let message = stored(&arrays, 8).unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        }
    }

    #[test]
    fn headers_are_checked_before_values_are_read() {
        // Had a value been looked for, it would be missing.
        let x = |shape| ("x", "|u1", shape, &[][..]);
        let y = |shape| ("y", "|u1", shape, &[][..]);
        let columns_first = ("x", "columns first |u1", "(1, 2, 2)", &[][..]);
        for (arrays, expected) in [
            (vec![x("(2, 2, 2)"), y("(536870912,)")], "array `y`: its shape is [536870912]"),
            (vec![x("(2, 2, 2)"), y("(1, 2)")], "array `y`: its shape is [1, 2]"),
            (vec![x("(18446744073709551615, 3, 32, 32)")], "more than the 9 allowed"),
            (vec![x("(3, 2, 2)")], "need 12 bytes, more than the 9 allowed"),
            (vec![("x", "columns first |u1", "(2, 2, 2)", &[][..])], "need 16 bytes"),
            (vec![columns_first, y("(2,)")], "array `y`: its shape is [2]"),
            (vec![x("(0, 2, 2)")], "array `x`"),
            (vec![x("(2, 3, 0, 2)")], "[3, 0, 2]"),
            (vec![x("(2, 2, 2)")], "array `x`: it ends before the 8 values"),
        ] {
            let message = stored(&arrays, 9).unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        }
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
