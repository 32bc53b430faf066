//! The conformance suite of the [`Dataset`] trait.

use std::{collections::BTreeMap, thread};

use crate::{Dataset, DatasetInfo, Label, Normalization, Subset, dataset::image_bytes};

/// Images that [`check_dataset`] reads, spread over the data set.
const SAMPLE: usize = 32;
/// Threads that read at the same time.
const THREADS: usize = 4;

/// Asserts what every [`Dataset`] promises, for tests of your own; needs the feature `testing`.
///
/// All labels and a sample of 32 images are read, the first and the last among them:
///
/// - There are a name, at least one image, no dimension of zero, and, where images are labelled, 1 to
///   65,536 classes and a label below that for each image.
/// - [`read_image`](Dataset::read_image) writes every byte, and the same bytes at every call, from any
///   thread.
/// - [`gather`](Dataset::gather) returns exactly the normalized bytes of `read_image` and the labels, in
///   any order and with repetitions, and replaces the previous contents of its buffers.
/// - A [`Subset`] contains the images of its indices, and splits into two without loss or repetition.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "testing")] {
/// use releq_data::{check_dataset, digits};
///
/// let config = digits::DigitsConfig { train: 50, test: 10, ..Default::default() };
/// check_dataset(&digits::generate(&config)?.train);
/// # }
/// # Ok::<(), releq_data::DataError>(())
/// ```
///
/// # Panics
/// If a promise is broken, naming it.
pub fn check_dataset(data: &dyn Dataset) {
    let DatasetInfo { name, shape, classes, len } = data.info();
    assert!(!name.is_empty(), "a data set needs a name");
    assert_eq!(data.info(), data.info(), "{name}: `info` changes from call to call");
    let same = (data.name(), data.shape(), data.len(), data.is_empty());
    assert_eq!(same, (name, shape, len, len == 0), "{name}: a method contradicts `info`");
    assert!(len > 0, "{name}: no images");
    let size = image_bytes(name, shape).unwrap_or_else(|error| panic!("{error}"));
    check_labels(data);

    let sample: Vec<usize> = (0..SAMPLE.min(len)).map(|i| i * len.div_ceil(SAMPLE)).collect();
    let mut sample: Vec<usize> = sample.into_iter().filter(|&index| index < len).collect();
    sample.extend((sample.last() != Some(&(len - 1))).then_some(len - 1));
    let images = check_images(data, &sample, size);

    // Backwards, and the first one twice.
    let order: Vec<usize> = sample.iter().rev().chain(&sample[..1]).copied().collect();
    check_gather(data, &order, &images, "");
    check_gather(data, &[], &images, "no indices");
    check_subset(data, &order, &images, classes);
}

fn check_labels(data: &dyn Dataset) {
    let DatasetInfo { name, classes, len, .. } = data.info();
    if let Some(classes) = classes {
        let allowed = 1..=usize::from(Label::MAX) + 1;
        assert!(allowed.contains(&classes), "{name}: {classes} classes");
    }
    for index in 0..len {
        let label = data.label(index);
        assert_eq!(label, data.label(index), "{name}: the label of image {index} changes");
        assert_eq!(
            label.is_some(),
            classes.is_some(),
            "{name}: the label of image {index} is {label:?}, but `classes` is {classes:?}"
        );
        assert!(
            label.map(usize::from) < classes || label.is_none(),
            "{name}: the label of image {index} is {label:?}, but `classes` is {classes:?}"
        );
    }
}

/// The bytes of the images, by index.
fn check_images(data: &dyn Dataset, sample: &[usize], size: usize) -> BTreeMap<usize, Vec<u8>> {
    let name = data.name();
    let read = |index, fill| {
        let mut pixels = vec![fill; size];
        let result = data.read_image(index, &mut pixels);
        result.unwrap_or_else(|error| panic!("{name}: image {index} cannot be read: {error}"));
        pixels
    };
    let images: BTreeMap<usize, Vec<u8>> =
        sample.iter().map(|&index| (index, read(index, 0))).collect();
    for (&index, pixels) in &images {
        let again = read(index, 255);
        assert_eq!(
            pixels, &again,
            "{name}: `read_image` does not write the same to every byte of image {index} at each call"
        );
    }
    thread::scope(|scope| {
        for first in 0..THREADS {
            let (read, images) = (&read, &images);
            // Each thread begins elsewhere, so that different images are read at the same time.
            scope.spawn(move || {
                let start = first * images.len() / THREADS;
                for (&index, pixels) in images.iter().cycle().skip(start).take(images.len()) {
                    assert_eq!(
                        pixels,
                        &read(index, 170),
                        "{name}: image {index} differs when several threads read"
                    );
                }
            });
        }
    });
    images
}

fn check_gather(
    data: &dyn Dataset,
    indices: &[usize],
    images: &BTreeMap<usize, Vec<u8>>,
    case: &str,
) {
    let DatasetInfo { name, shape, classes, .. } = data.info();
    let channels = shape[0];
    let normalization = Normalization {
        mean: (0..channels).map(|channel| 0.3 + 0.1 * (channel % 4) as f32).collect(),
        std: (0..channels).map(|channel| 0.2 + 0.07 * (channel % 5) as f32).collect(),
    };
    let mut expected = Vec::new();
    let normalize = normalization.start(name, shape, indices.len(), &mut expected);
    let mut normalize = normalize.unwrap_or_else(|error| panic!("{error}"));
    indices.iter().for_each(|index| normalize.push(&images[index]));
    let (mut found, mut labels) = (vec![f32::NAN; 3], vec![Label::MAX; 3]);
    let result = data.gather(indices, &normalization, &mut found, &mut labels);
    result.unwrap_or_else(|error| panic!("{name}{case}: `gather` fails: {error}"));
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert!(
        bits(&expected) == bits(&found),
        "{name}{case}: `gather` returns other images than `read_image`"
    );
    let expected: Vec<Label> = indices.iter().filter_map(|&index| data.label(index)).collect();
    let expected = if classes.is_some() { expected } else { Vec::new() };
    assert_eq!(labels, expected, "{name}{case}: `gather` returns other labels than `label`");
}

fn check_subset(
    data: &dyn Dataset,
    order: &[usize],
    images: &BTreeMap<usize, Vec<u8>>,
    classes: Option<usize>,
) {
    let name = data.name();
    let subset = |indices: Vec<usize>| {
        Subset::new(data, indices).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let view = subset(order.to_vec());
    assert_eq!((view.len(), view.info().classes), (order.len(), classes), "{name}: a subset");
    let positions: Vec<usize> = (0..order.len()).collect();
    let by_position = order.iter().map(|index| images[index].clone()).enumerate().collect();
    check_gather(&view, &positions, &by_position, ", a subset");
    if data.len() > 1 {
        let holdout = data.len().div_ceil(3);
        let (rest, held_out) =
            Subset::all(data).split(holdout, 1).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut both = [rest.indices(), held_out.indices()].concat();
        both.sort_unstable();
        assert!(both.into_iter().eq(0..data.len()), "{name}: a split loses or repeats images");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::{
            Arc,
            atomic::{AtomicU8, Ordering},
        },
    };

    use super::*;
    use crate::{Cache, DataError, ImageFolder, ImageFolderConfig, ImageSet, digits};

    /// A data set that may break one promise.
    struct Broken(&'static str, AtomicU8);

    impl Dataset for Broken {
        fn info(&self) -> DatasetInfo<'_> {
            let classes = (self.0 != "unlabelled").then_some(3);
            DatasetInfo { name: "broken", shape: [2, 3, 4], classes, len: 7 }
        }

        fn label(&self, index: usize) -> Option<Label> {
            match self.0 {
                "unlabelled" => None,
                "missing" if index == 5 => None,
                "label" => Some(index as Label),
                _ => Some((index % 3) as Label),
            }
        }

        fn read_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
            let last = pixels.len() - usize::from(self.0 == "partial");
            pixels[..last].fill(index as u8 * 30);
            match self.0 {
                "changing" => pixels[0] = self.1.fetch_add(1, Ordering::Relaxed),
                "failing" => return Err(DataError::other("broken", std::io::Error::other("no"))),
                _ => {}
            }
            Ok(())
        }

        fn gather(
            &self,
            indices: &[usize],
            normalization: &Normalization,
            images: &mut Vec<f32>,
            labels: &mut Vec<Label>,
        ) -> Result<(), DataError> {
            let set = Broken("", AtomicU8::new(0));
            set.gather_default(indices, normalization, images, labels)?;
            match self.0 {
                "gather" if !images.is_empty() => images[0] += 1.0,
                "labels" => labels.iter_mut().for_each(|label| *label ^= 1),
                "unlabelled" => labels.clear(),
                _ => {}
            }
            Ok(())
        }
    }

    impl Broken {
        /// The provided `gather`, which [`Broken`] overrides.
        fn gather_default(
            &self,
            indices: &[usize],
            normalization: &Normalization,
            images: &mut Vec<f32>,
            labels: &mut Vec<Label>,
        ) -> Result<(), DataError> {
            ImageSet::read(self)?.gather(indices, normalization, images, labels)
        }
    }

    fn failure(case: &'static str) -> Option<String> {
        let check = || check_dataset(&Broken(case, AtomicU8::new(0)));
        let payload = catch_unwind(AssertUnwindSafe(check)).err()?;
        Some(payload.downcast_ref::<String>().expect("a message").clone())
    }

    #[test]
    fn the_suite_accepts_good_sets_and_names_each_broken_promise() {
        assert_eq!(failure(""), None);
        assert_eq!(failure("unlabelled"), None);
        for (case, expected) in [
            ("missing", "the label of image 5 is None"),
            ("label", "the label of image 3 is Some(3)"),
            ("partial", "every byte of image 0"),
            ("changing", "every byte of image 0"),
            ("failing", "image 0 cannot be read"),
            ("gather", "other images than `read_image`"),
            ("labels", "other labels than `label`"),
        ] {
            let found = failure(case).unwrap_or_default();
            assert!(found.contains(expected), "{case}: {found}");
        }
    }

    #[test]
    fn the_data_sets_of_this_crate_pass() {
        let config = digits::DigitsConfig { train: 70, test: 33, ..Default::default() };
        let drawn = digits::generate(&config).unwrap();
        check_dataset(&drawn.train);
        check_dataset(&drawn.into_dyn().test);

        let dir = tempfile::tempdir().unwrap();
        for (class, count) in [("ant", 5), ("bee", 40)] {
            let folder = dir.path().join(class);
            std::fs::create_dir(&folder).unwrap();
            for number in 0..count {
                let pixel = |x, y| image::Rgb([x, y, number].map(|v: u32| (v * 23) as u8));
                let picture = image::RgbImage::from_fn(5, 4, |x, y| pixel(x + number, y));
                picture.save(folder.join(format!("{number}.png"))).unwrap();
            }
        }
        for threads in [1, 3] {
            let config = ImageFolderConfig { cache: Cache::Off, threads, ..Default::default() };
            let folder = ImageFolder::open(dir.path(), &config).unwrap();
            check_dataset(&folder);
            check_dataset(&folder.take(20, 0));
        }
    }

    #[test]
    fn pointers_and_views_of_every_kind_pass() {
        let labels = (0..50).map(|index| index % 5).collect();
        let pixels = (0..50 * 12).map(|index| (index * 7) as u8).collect();
        let set = ImageSet::new("set", [3, 2, 2], 5, pixels, labels).unwrap();
        check_dataset(&set);
        check_dataset(&&set);
        check_dataset(&(Box::new(set.clone()) as Box<dyn Dataset>));
        let shared: Arc<dyn Dataset> = Arc::new(set);
        check_dataset(&shared);
        let (rest, held_out) = Subset::all(shared).split(20, 3).unwrap();
        check_dataset(&rest);
        check_dataset(&Subset::all(&held_out).take(3, 1).unwrap());
    }
}
