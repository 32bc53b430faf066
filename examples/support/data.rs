//! The images that a network takes.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use image::GrayImage;
use releq::{
    core::Network,
    zoo::data::{self, Color, DataSet, ImageFolder, ImageFolderConfig, ImageSet, ImageSize},
};
use serde::Serialize;

/// Which images of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Those to test on.
    Test,
    /// Those to train on.
    Train,
}

impl Split {
    /// Name of their folder.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Train => "train",
        }
    }
}

/// Images for `network` and where they come from: of an image folder only the half asked for, which alone has to be
/// there.
///
/// # Errors
/// If they cannot be read, or their size or number of classes is another than the network's.
pub fn load(dir: &Path, split: Split, network: &Network) -> Result<(ImageSet, String)> {
    let half = dir.join(split.folder());
    let (set, source) = if half.is_dir() {
        let source = half.display().to_string();
        (ImageFolder::open(half, &config(network)?)?.load()?.images, source)
    } else {
        let data = data::open(dir, None, &config(network)?)?;
        (if split == Split::Test { data.test } else { data.train }, data.source)
    };
    check(&set, &source, network)?;
    Ok((set, source))
}

/// Whatever data set is in `dir`, all images.
///
/// # Errors
/// As [`load`].
pub fn load_all(dir: &Path, network: &Network) -> Result<DataSet> {
    let data = data::open(dir, None, &config(network)?)?;
    check(&data.train, &data.source, network)?;
    Ok(data)
}

/// Image folders in the colours of the network and, where they are larger than it takes and it is square, scaled
/// to its size as ImageNet networks are tested: 256 pixels for 224. Small images stay as they are.
fn config(network: &Network) -> Result<ImageFolderConfig> {
    let [channels, height, width] = network.input();
    let color = if channels == 1 { Color::Gray } else { Color::Rgb };
    let mut config = ImageFolderConfig { color, ..ImageFolderConfig::default() };
    if height == width && height > 64 {
        let crop = u32::try_from(height)?;
        config.size = ImageSize::ResizeCrop { resize: crop * 8 / 7, crop };
    }
    Ok(config)
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

fn check(set: &ImageSet, source: &str, network: &Network) -> Result<()> {
    if set.shape() != network.input() {
        bail!(
            "{source} has images of {:?} (channels, height, width), but network `{}` takes {:?}",
            set.shape(),
            network.name(),
            network.input()
        );
    }
    if set.classes() != network.outputs() {
        bail!(
            "{source} has {} classes, but network `{}` has {} outputs; is it the data it was trained on?",
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

    use releq::zoo::data::digits::{self, DigitsConfig};

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
        let read = load_all(folder.path(), &network(28, 10)).unwrap();
        assert_eq!((read.train.len(), read.test.len()), (50, 20));
        let (test, _) = load(folder.path(), Split::Test, &network(28, 10)).unwrap();
        assert_eq!(test.len(), 20);
        for (network, expected) in
            [(network(30, 10), "takes [1, 30, 30]"), (network(28, 9), "9 outputs")]
        {
            let message = load_all(folder.path(), &network).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
