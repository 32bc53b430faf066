//! The images that a network takes.

use std::path::Path;

use anyhow::{Result, bail};
use clap::ValueEnum;
use releq::{
    core::Network,
    zoo::data::{DataSet, ImageSet, mnist},
};
use serde::Serialize;

use crate::image_folder;

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

/// Images for `network` and where they come from: MNIST for what takes 1 x 28 x 28 pixels, an image folder
/// for everything else.
///
/// # Errors
/// If they cannot be read, or their size or number of classes is another than the network's.
pub fn load(dir: &Path, split: Split, network: &Network) -> Result<(ImageSet, String)> {
    let (set, source) = if network.input() == [1, 28, 28] {
        let data = mnist::load(dir)?;
        (if split == Split::Test { data.test } else { data.train }, data.source)
    } else {
        let folder = dir.join(split.folder());
        (image_folder::load(&folder, Some(network.input()))?, folder.display().to_string())
    };
    check_classes(&set, &source, network)?;
    Ok((set, source))
}

/// As [`load`], all images.
///
/// # Errors
/// As [`load`].
pub fn load_all(dir: &Path, network: &Network) -> Result<DataSet> {
    let data = if network.input() == [1, 28, 28] {
        mnist::load(dir)?
    } else {
        image_folder::load_all(dir, Some(network.input()))?
    };
    check_classes(&data.train, &data.source, network)?;
    Ok(data)
}

fn check_classes(set: &ImageSet, source: &str, network: &Network) -> Result<()> {
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
