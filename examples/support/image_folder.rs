//! Reads `DIR/{train,test}/CLASS/*.jpg` whole, until `releq_zoo::data` does.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use image::GrayImage;
use releq::zoo::data::{DataSet, ImageSet};

use crate::data::Split;

/// `DIR/train` and `DIR/test`, which must have the same classes and image size.
///
/// # Errors
/// As [`load`], and if the two differ.
pub fn load_all(dir: &Path, shape: Option<[usize; 3]>) -> Result<DataSet> {
    let train = load(&dir.join(Split::Train.folder()), shape)?;
    let test = load(&dir.join(Split::Test.folder()), Some(train.shape()))?;
    let folder = |split: Split| dir.join(split.folder());
    let [of_train, of_test] = [Split::Train, Split::Test].map(|split| class_names(&folder(split)));
    let (of_train, of_test) = (of_train?, of_test?);
    ensure!(
        of_train == of_test,
        "{}: `train` has the classes {}, but `test` has {}",
        dir.display(),
        of_train.join(", "),
        of_test.join(", ")
    );
    Ok(DataSet { train, test, source: format!("image folder {}", dir.display()) })
}

/// All images of a folder, classes and files in the order of their names, decoded on all cores.
///
/// `shape` is that of every image; that of the first unless given.
///
/// # Errors
/// If the folder cannot be read or has no class, an image does not decode, or has another size.
pub fn load(folder: &Path, shape: Option<[usize; 3]>) -> Result<ImageSet> {
    let classes: Vec<PathBuf> = class_folders(folder)?;
    let mut files = Vec::new();
    for (label, class) in classes.iter().enumerate() {
        let label = u8::try_from(label).context("more than 256 classes")?;
        files.extend(entries(class)?.into_iter().map(|path| (path, label)));
    }
    let first = files.first().with_context(|| format!("{} has no image", folder.display()))?;
    let shape = match shape {
        Some(shape) => shape,
        None => {
            let (width, height) = image::image_dimensions(&first.0)
                .with_context(|| format!("cannot decode {}", first.0.display()))?;
            [3, height as usize, width as usize]
        }
    };
    ensure!(
        shape[0] == 3,
        "an image folder gives colour, but the network takes {} channels",
        shape[0]
    );

    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let share = files.len().div_ceil(threads).max(1);
    let parts = std::thread::scope(|scope| {
        let running: Vec<_> = files
            .chunks(share)
            .map(|files| {
                scope.spawn(move || -> Result<Vec<u8>> {
                    let mut pixels =
                        Vec::with_capacity(files.len() * shape.iter().product::<usize>());
                    files.iter().try_for_each(|(path, _)| decode(path, shape, &mut pixels))?;
                    Ok(pixels)
                })
            })
            .collect();
        let answers = running.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a thread ended before its work did")))
        });
        answers.collect::<Result<Vec<_>>>()
    })?;
    let labels = files.iter().map(|&(_, label)| label).collect();
    let name = folder.display().to_string();
    Ok(ImageSet::new(name, shape, classes.len(), parts.concat(), labels)?)
}

/// Writes images of one channel as `folder/CLASS/INDEX.png`.
///
/// # Errors
/// If a file cannot be written, or the images have several channels.
pub fn write(folder: &Path, images: &ImageSet) -> Result<()> {
    let [channels, height, width] = images.shape();
    ensure!(channels == 1, "only images of one channel are written");
    for index in 0..images.len() {
        let class = folder.join(images.label(index).to_string());
        fs::create_dir_all(&class).with_context(|| format!("cannot make {}", class.display()))?;
        let path = class.join(format!("{index:05}.png"));
        let pixels = images.image(index).to_vec();
        GrayImage::from_raw(u32::try_from(width)?, u32::try_from(height)?, pixels)
            .context("an image has another number of pixels than its size says")?
            .save(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Appends an image, channel after channel.
fn decode(path: &Path, [channels, height, width]: [usize; 3], pixels: &mut Vec<u8>) -> Result<()> {
    let image =
        image::open(path).with_context(|| format!("cannot decode {}", path.display()))?.into_rgb8();
    let (got_width, got_height) = image.dimensions();
    ensure!(
        (got_width as usize, got_height as usize) == (width, height),
        "{} has {got_width} x {got_height} pixels, not {width} x {height} as the network or the first image",
        path.display()
    );
    for channel in 0..channels {
        pixels.extend(image.as_raw().iter().skip(channel).step_by(channels));
    }
    Ok(())
}

fn class_folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let classes: Vec<PathBuf> = entries(folder)?.into_iter().filter(|path| path.is_dir()).collect();
    ensure!(
        !classes.is_empty(),
        "{} has no folder for each class; unpack the images so that it does",
        folder.display()
    );
    Ok(classes)
}

fn class_names(folder: &Path) -> Result<Vec<String>> {
    let name = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(class_folders(folder)?.into_iter().filter_map(name).collect())
}

/// What is in a folder, by name; without hidden files.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    };
    let mut paths = read().with_context(|| {
        let folder = folder.display();
        format!("cannot read {folder}; --data-dir must hold `test` and `train` with a folder for each class")
    })?;
    let hidden = |path: &Path| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
    };
    paths.retain(|path| !hidden(path));
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use image::RgbImage;
    use releq::zoo::data::digits::{self, DigitsConfig};

    use super::*;

    #[test]
    fn what_is_written_is_read_in_its_order_and_colour() {
        let folder = tempfile::tempdir().unwrap();
        let config = DigitsConfig { train: 50, test: 20, ..DigitsConfig::default() };
        let drawn = digits::generate(&config).unwrap();
        write(&folder.path().join("train"), &drawn.train).unwrap();
        write(&folder.path().join("test"), &drawn.test).unwrap();
        let read = load_all(folder.path(), None).unwrap();
        assert_eq!((read.train.len(), read.test.len()), (50, 20));
        assert_eq!((read.train.shape(), read.train.classes()), ([3, 28, 28], 10));
        // Sorted by class: image 7 is the third of class 1, and image 21 was.
        assert_eq!(read.train.label(7), 1);
        for plane in read.train.image(7).chunks(28 * 28) {
            assert_eq!(plane, drawn.train.image(21));
        }
        // Channels are planes.
        let path = folder.path().join("train/0/00000.png");
        RgbImage::from_fn(28, 28, |x, _| image::Rgb([x as u8, 100, 200])).save(&path).unwrap();
        let read = load(&folder.path().join("train"), Some([3, 28, 28])).unwrap();
        let planes: Vec<_> =
            read.image(0).chunks(28 * 28).map(|plane| plane[..2].to_vec()).collect();
        assert_eq!(planes, [[0, 1], [100, 100], [200, 200]]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |shape, expected: &str| {
            let message = format!("{:#}", load_all(folder.path(), shape).unwrap_err());
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        };
        refused(None, "train; --data-dir must hold");
        fs::create_dir_all(folder.path().join("train")).unwrap();
        refused(None, "no folder for each class");
        fs::create_dir_all(folder.path().join("train/cat")).unwrap();
        refused(None, "has no image");
        let save = |name: &str, side| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            RgbImage::new(side, side).save(path).unwrap();
        };
        save("train/cat/a.png", 8);
        save("test/dog/a.png", 8);
        refused(None, "`train` has the classes cat, but `test` has dog");
        refused(Some([1, 8, 8]), "1 channels");
        refused(Some([3, 9, 9]), "a.png has 8 x 8 pixels, not 9 x 9");
        save("train/cat/b.png", 4);
        refused(None, "b.png has 4 x 4 pixels");
        fs::write(folder.path().join("train/cat/b.png"), b"no image").unwrap();
        refused(None, "b.png");
    }
}
