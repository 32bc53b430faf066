//! Images in the size that a network takes.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use image::GrayImage;
use releq::{
    DataConfig,
    core::Network,
    data::{
        BadImages, Color, DataKind, ImageFolder, ImageFolderConfig, ImageSet, ImageSize,
        LoadedImages, Normalization, Splits, image_folder,
    },
};
use serde::Serialize;

use super::{UsageError, options};

/// Part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Test images.
    Test,
    /// Training images.
    Train,
}

/// How the images of a framework's networks become numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Preprocess {
    /// Mean 0.485, 0.456, 0.406 and deviation 0.229, 0.224, 0.225 of pixels from 0 to 1.
    Torchvision,
    /// Pixels from -1 to 1.
    Tf,
    /// Pixels from 0 to 255 less 103.939, 116.779, 123.68, in the order blue, green, red.
    Caffe,
}

impl Preprocess {
    /// The normalization of so many channels.
    fn normalization(self, channels: usize) -> Option<Normalization> {
        let (mean, std) = match self {
            Self::Tf => (vec![0.5; channels], vec![0.5; channels]),
            _ if channels != 3 => return None,
            Self::Torchvision => (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]),
            Self::Caffe => {
                ([103.939, 116.779, 123.68].map(|mean| mean / 255.0).into(), vec![1.0 / 255.0; 3])
            }
        };
        Some(Normalization { mean, std })
    }
}

/// How image folders are read; other data sets need no options.
#[derive(clap::Args, Clone, Debug)]
pub struct ImageArgs {
    /// Prepare images as the networks of a framework take them; --mean and --std win over its normalization
    #[arg(long, value_enum, value_name = "FRAMEWORK")]
    preprocess: Option<Preprocess>,
    /// Scale the images of an image folder to the network's input size [default: only for inputs above 64
    /// pixels, which also crop the center, as ImageNet networks are evaluated]
    #[arg(long)]
    resize: bool,
    /// Scale the shorter side of the images of an image folder to this many pixels, and crop the center in the network's
    /// input size
    #[arg(
        long,
        value_name = "PIXELS",
        conflicts_with = "resize",
        value_parser = options::count,
        allow_negative_numbers = true
    )]
    resize_shorter: Option<NonZeroUsize>,
    /// File that says which number each class has, for folders that are not all classes of the network: a table with a
    /// column `index`, JSON, or one name on each line, with its number or without [default: in the order of the names]
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// Skip images of an image folder that cannot be decoded [default: stop and name them]
    #[arg(long)]
    skip_bad_images: bool,
    /// Memory limit for the images of one folder, in GiB
    #[arg(
        long,
        value_name = "GIB",
        default_value_t = 3.0,
        value_parser = options::positive,
        allow_hyphen_values = true
    )]
    image_memory: f64,
}

impl ImageArgs {
    /// The option that says how image files are read, if one is given; [`class_list`](Self::class_list) aside.
    pub(crate) fn of_files(&self) -> Option<&'static str> {
        let given = [
            ("--resize", self.resize),
            ("--resize-shorter", self.resize_shorter.is_some()),
            ("--skip-bad-images", self.skip_bad_images),
            ("--preprocess", self.preprocess.is_some()),
        ];
        given.iter().find(|(_, given)| *given).map(|&(option, _)| option)
    }

    /// The file that says which number each class has.
    pub(crate) fn class_list(&self) -> Option<&Path> {
        self.classes.as_deref()
    }

    /// Checks that no option is given that says how image files are read, for data that are none: `data` says what they are.
    ///
    /// # Errors
    /// [`UsageError`] with the option that would have no effect.
    pub(super) fn are_for_files(&self, data: &str) -> Result<()> {
        let of_files = self.of_files().filter(|option| match self.preprocess {
            // Its normalization is for any images, its order of the colours is not.
            Some(Preprocess::Torchvision | Preprocess::Tf) => *option != "--preprocess",
            _ => true,
        });
        match self.classes.as_ref().map(|_| "--classes").or(of_files) {
            Some(option) => {
                Err(UsageError(format!("{option} is for image files, but {data}; leave it out"))
                    .into())
            }
            None => Ok(()),
        }
    }

    /// How an image folder is read for `network`.
    ///
    /// # Errors
    /// If images are to be scaled for a network that does not take squares.
    pub fn config(&self, network: &Network) -> Result<ImageFolderConfig> {
        let [channels, height, width] = network.input();
        let color = match self.preprocess {
            _ if channels == 1 => Color::Gray,
            Some(Preprocess::Caffe) => Color::Bgr,
            _ => Color::Rgb,
        };
        let bad_images = if self.skip_bad_images { BadImages::Skip } else { BadImages::Refuse };
        let max_bytes = (self.image_memory * f64::from(1 << 30)) as u64;
        let default = ImageFolderConfig::default();
        let class_list = self.classes.as_ref().map(std::path::absolute).transpose()?;
        let mut config = ImageFolderConfig { color, class_list, bad_images, max_bytes, ..default };
        let side = u32::try_from(height)?;
        if self.resize || self.resize_shorter.is_some() {
            ensure!(
                height == width,
                "--resize scales to squares, but network `{}` takes images of {height} x {width}; leave \
                 it out and scale the files",
                network.name()
            );
        }
        if let Some(shorter) = self.resize_shorter {
            let resize = u32::try_from(shorter.get())?;
            ensure!(
                resize >= side,
                "--resize-shorter {resize}: network `{}` takes images of {side} x {side}",
                network.name()
            );
            config.size = ImageSize::ResizeCrop { resize, crop: side };
        } else if self.resize {
            config.size = ImageSize::square(side);
        } else if height == width && height > 64 {
            config.size = ImageSize::ResizeCrop { resize: side * 8 / 7, crop: side };
        }
        Ok(config)
    }
}

impl ImageArgs {
    /// The normalization of the framework that is named, if one is.
    ///
    /// # Errors
    /// [`UsageError`] if it has none for the channels of `network`.
    pub(super) fn normalization(&self, network: &Network) -> Result<Option<Normalization>> {
        let Some(preprocess) = self.preprocess else { return Ok(None) };
        let [channels, ..] = network.input();
        let normalization = preprocess.normalization(channels).ok_or_else(|| {
            let name = network.name();
            UsageError(format!(
                "--preprocess is for images of 3 channels, but network `{name}` takes {channels}; name --mean and --std"
            ))
        })?;
        Ok(Some(normalization))
    }
}

/// Images for `network` and where they come from, `limit` of them at most, every class in its share. Of an image
/// folder or a list's test images only what is asked for is read, and only that half has to be there.
///
/// # Errors
/// If they cannot be read, or their size or number of classes is another than the network's.
pub fn load(
    source: &DataConfig,
    split: Split,
    limit: Option<NonZeroUsize>,
    network: &Network,
) -> Result<(ImageSet, String)> {
    let (set, name) = match half(source, split) {
        Some((half, images)) => {
            // Classes have the numbers that they have in the training images.
            if let DataConfig::Folder { path, images, .. } = source {
                image_folder::check_classes(path, images)?;
            }
            let mut name = half.display().to_string();
            let folder = ImageFolder::open(half, images)?;
            if !folder.left_out().is_empty() {
                name += &format!(", without {}", folder.left_out());
            }
            if let Some(joined) = folder.joined_classes() {
                name += &format!(", where {joined}");
            }
            let folder = match limit {
                Some(limit) => folder.take(limit.get(), 0),
                None => folder,
            };
            let LoadedImages { images, skipped, .. } = folder.load()?;
            if !skipped.is_empty() {
                name += &format!(", without {} that do not decode", skipped.len());
            }
            (images, name)
        }
        None => {
            let (set, name) = match test_list(source, split)? {
                Some(test) => test,
                None => {
                    let data = source.load()?;
                    let set = if split == Split::Test { data.test } else { data.train };
                    (set, data.source)
                }
            };
            let set = match limit {
                Some(limit) => set.take(limit.get(), 0),
                None => set,
            };
            (set, name)
        }
    };
    check(&set, &name, network, source)?;
    Ok((set, name))
}

/// One half of an image folder, and how its images are read.
fn half(source: &DataConfig, split: Split) -> Option<(PathBuf, &ImageFolderConfig)> {
    let DataConfig::Folder { path, kind: None | Some(DataKind::ImageFolder), images } = source
    else {
        return None;
    };
    let half = match split {
        Split::Train => Some(path.join("train")).filter(|folder| folder.is_dir()),
        Split::Test => image_folder::test_folder(path),
    };
    Some((half?, images))
}

/// The test images of a list of images, where they are asked for and it says which they are.
fn test_list(source: &DataConfig, split: Split) -> Result<Option<(ImageSet, String)>> {
    let DataConfig::Folder { path, images, .. } = source else { return Ok(None) };
    if split == Split::Test && kind(source)? == Some(DataKind::ImageList) {
        Ok(image_folder::load_test_list(path, images)?)
    } else {
        Ok(None)
    }
}

/// What the files of a data set are; `None` where it has none.
fn kind(source: &DataConfig) -> Result<Option<DataKind>> {
    Ok(match source {
        DataConfig::Folder { path, kind: None, .. } => Some(releq::data::detect(path)?),
        DataConfig::Folder { kind, .. } => *kind,
        _ => None,
    })
}

/// All images of a data set for `network`.
///
/// # Errors
/// As [`load`].
pub fn load_all(source: &DataConfig, network: &Network) -> Result<Splits> {
    let data = source.load()?;
    check(&data.train, &data.source, network, source)?;
    Ok(data)
}

/// Writes images of one channel as `folder/CLASS/INDEX.png`.
///
/// # Errors
/// If a file cannot be written, or the images have several channels.
pub fn write_folder(folder: &Path, images: &ImageSet) -> Result<()> {
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

fn check(set: &ImageSet, source: &str, network: &Network, config: &DataConfig) -> Result<()> {
    if set.shape() != network.input() {
        let ([has, ..], [takes, height, width]) = (set.shape(), network.input());
        let folder = matches!(
            config,
            DataConfig::Folder { images, .. } if images.size == ImageFolderConfig::default().size
        );
        let remedy = if folder && has == takes && height == width {
            "; if it is an image folder, --resize scales its images"
        } else {
            ""
        };
        bail!(
            "{source} has images of {:?} (channels, height, width), but network `{}` takes {:?}{remedy}",
            set.shape(),
            network.name(),
            network.input()
        );
    }
    // Images without labels have no classes, and numbers for labels need not go up to the last class.
    let numbered = match config {
        // A list of some classes says which of the network's they are.
        DataConfig::Folder { images, .. } if images.class_list.is_some() => true,
        // One half of a folder is read without the other, which would be looked for.
        DataConfig::Folder { path, .. } if path.is_file() => match kind(config)? {
            Some(DataKind::ImageList) => image_folder::labels_are_numbers(path)?,
            kind => kind == Some(DataKind::Arrays),
        },
        _ => false,
    };
    let fits = match set.classes() {
        0 => true,
        classes if numbered => classes <= network.outputs(),
        classes => classes == network.outputs(),
    };
    if !fits {
        bail!(
            "{source} has {} classes, but network `{}` has {} outputs; is it the data it was trained on? If the folders are \
             not all classes, --classes names a file that says which number each has",
            set.classes(),
            network.name(),
            network.outputs()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use releq::data::digits::{self, DigitsConfig};

    use super::*;

    #[test]
    fn what_is_written_is_read_by_a_network_of_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let config = DigitsConfig { train: 50, test: 20, ..DigitsConfig::default() };
        let drawn = digits::generate(&config).unwrap();
        write_folder(&folder.path().join("train"), &drawn.train).unwrap();
        write_folder(&folder.path().join("test"), &drawn.test).unwrap();
        let network = |side, classes| {
            let input = Network::builder("small", [1, side, side]).conv2d("conv", 2, 3);
            input.flatten("flat").linear("fc", classes).build().unwrap()
        };
        let args = ImageArgs {
            preprocess: None,
            resize: false,
            resize_shorter: None,
            classes: None,
            skip_bad_images: false,
            image_memory: 1.0,
        };
        let source = |folder: &Path, args: &ImageArgs, network: &Network| DataConfig::Folder {
            path: folder.to_owned(),
            kind: None,
            images: args.config(network).unwrap(),
        };
        let all = |folder: &Path, args: &ImageArgs, network: &Network| {
            load_all(&source(folder, args, network), network)
        };
        let read = all(folder.path(), &args, &network(28, 10)).unwrap();
        assert_eq!((read.train.len(), read.test.len()), (50, 20));
        let test = |folder: &Path, limit, args: &ImageArgs, side| {
            let network = network(side, 10);
            let source = source(folder, args, &network);
            load(&source, Split::Test, limit, &network).map(|(images, _)| images)
        };
        assert_eq!(test(folder.path(), None, &args, 28).unwrap().len(), 20);
        assert_eq!(test(folder.path(), NonZeroUsize::new(10), &args, 28).unwrap().len(), 10);
        // One half alone will do, and it may be called otherwise.
        let other = tempfile::tempdir().unwrap();
        fs::rename(folder.path().join("test"), other.path().join("valid")).unwrap();
        assert_eq!(test(other.path(), None, &args, 28).unwrap().len(), 20);

        let resize = ImageArgs { resize: true, ..args.clone() };
        assert_eq!(test(other.path(), None, &resize, 30).unwrap().shape(), [1, 30, 30]);
        let small = ImageArgs { image_memory: 1e-6, ..args.clone() };
        assert!(
            test(other.path(), None, &small, 28).unwrap_err().to_string().contains("1073 allowed")
        );
        assert!(test(other.path(), NonZeroUsize::new(1), &small, 28).is_ok());
        fs::write(other.path().join("valid/3/broken.png"), "no image").unwrap();
        let message = test(other.path(), None, &args, 28).unwrap_err().to_string();
        assert!(message.contains("broken.png"), "{message}");
        let skip = ImageArgs { skip_bad_images: true, ..args.clone() };
        assert_eq!(test(other.path(), None, &skip, 28).unwrap().len(), 20);
        fs::rename(other.path().join("valid"), folder.path().join("test")).unwrap();
        for (network, expected) in [
            (network(30, 10), "takes [1, 30, 30]; if it is an image folder, --resize"),
            (network(28, 9), "9 outputs"),
        ] {
            let message = all(folder.path(), &skip, &network).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
    #[test]
    fn a_table_is_one_however_its_name_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let config = DigitsConfig { train: 50, test: 10, ..DigitsConfig::default() };
        write_folder(folder.path(), &digits::generate(&config).unwrap().train).unwrap();
        let network = Network::builder("small", [1, 28, 28]).conv2d("conv", 2, 3);
        let network = network.flatten("flat").linear("fc", 10).build().unwrap();
        let images = ImageFolderConfig {
            cache: releq::data::Cache::Off,
            color: Color::Gray,
            ..ImageFolderConfig::default()
        };
        // Without class 3, in whose place the name of the next would be.
        let table = |name: &str, label: &dyn Fn(usize) -> String| {
            let path = folder.path().join(name);
            let mut text = "path,label,split\n".to_owned();
            for class in (0..10).filter(|class| *class != 3) {
                let files = fs::read_dir(folder.path().join(class.to_string())).unwrap();
                let file = files.map(|file| file.unwrap().path()).min().unwrap();
                text += &format!("{},{},test\n", file.display(), label(class));
            }
            fs::write(&path, text).unwrap();
            let source = DataConfig::Folder { path, kind: None, images: images.clone() };
            let (images, _) = load(&source, Split::Test, None, &network)?;
            let labels = (0..images.len()).map(|index| images.label(index));
            anyhow::Ok(labels.collect::<Vec<_>>())
        };
        for name in ["table.csv", "TABLE.CSV"] {
            let message = table(name, &|class| format!("digit {class}")).unwrap_err().to_string();
            assert!(message.contains("has 9 classes"), "{message}");
            for decimals in ["", ".0"] {
                let labels = table(name, &|class| format!("{class}{decimals}")).unwrap();
                assert_eq!(labels, [0, 1, 2, 4, 5, 6, 7, 8, 9], "{name}");
            }
        }
    }
}
