//! Images to compute: arrays of NumPy, or image files.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail, ensure};
use releq::{
    core::Network,
    data::{
        Dataset, ImageSet, LoadedImages, Normalization,
        image_folder::{self, ImageFolder},
        npz::{self, Array},
    },
};

use crate::args::{ImageArgs, NormalizationArgs, UsageError};

/// Images that a network takes.
pub(super) enum Images {
    /// Numbers as the network takes them.
    Array(Array),
    /// Pixels, and what became of each file.
    Files { set: ImageSet, names: Vec<String>, skipped: usize, normalization: Normalization },
}

impl Images {
    /// Reads what `--input` names: one file of NumPy, or image files and folders of them. `of_file` is the normalization that the
    /// network's file tells.
    pub(super) fn read(
        input: &[PathBuf],
        network: &Network,
        images: &ImageArgs,
        normalization: &NormalizationArgs,
        of_file: Option<Normalization>,
    ) -> Result<Self> {
        match input {
            [] => Err(UsageError("--input: name the images".to_owned()).into()),
            [one] if is_array(one) => {
                let option = images.of_files().or(normalization.is_given().then_some("--mean"));
                if let Some(option) = option {
                    let reason = format!(
                        "{option} is for image files; the numbers of {} are taken as they are",
                        one.display()
                    );
                    return Err(UsageError(reason).into());
                }
                array(one, network).map(Self::Array)
            }
            files => {
                if let Some(path) = files.iter().find(|path| is_array(path)) {
                    let reason = format!(
                        "--input: {} is no image by its name; a file of NumPy has to be named alone",
                        path.display()
                    );
                    return Err(UsageError(reason).into());
                }
                let normalization = normalization.required(network, images, of_file)?;
                pixels(files, network, images, normalization)
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Array(array) => array.shape[0],
            Self::Files { set, .. } => set.len(),
        }
    }

    /// Name of an image: its file, or its number in the array.
    pub(super) fn name(&self, index: usize) -> String {
        match self {
            Self::Array(_) => index.to_string(),
            Self::Files { names, .. } => names[index].clone(),
        }
    }

    /// What there is to say of all of them.
    pub(super) fn remark(&self) -> String {
        match self {
            Self::Files { skipped, .. } if *skipped > 0 => {
                format!(", without {skipped} that do not decode")
            }
            _ => String::new(),
        }
    }

    /// Some images, as the network takes them.
    pub(super) fn batch(&self, range: Range<usize>) -> Result<Vec<f32>> {
        match self {
            Self::Array(array) => {
                let sample = array.values.len() / array.shape[0];
                Ok(array.values[range.start * sample..range.end * sample].to_vec())
            }
            Self::Files { set, normalization, .. } => {
                let (mut values, mut labels) = (Vec::new(), Vec::new());
                let indices: Vec<usize> = range.collect();
                set.gather(&indices, normalization, &mut values, &mut labels)?;
                Ok(values)
            }
        }
    }
}

/// Whether a file is no image by its name, and so is to be one of NumPy.
fn is_array(path: &Path) -> bool {
    !path.is_dir() && !image_folder::is_image(path)
}

/// An array, which must be of the network's size.
fn array(path: &Path, network: &Network) -> Result<Array> {
    let array = npz::read(path, "x")?;
    let [channels, height, width] = network.input();
    let fits = match *array.shape.as_slice() {
        [_, c, h, w] => [c, h, w] == network.input(),
        [_, features] => [features, 1, 1] == network.input(),
        _ => false,
    };
    let remedy = match *array.shape.as_slice() {
        [c, h, w] if [c, h, w] == network.input() => "; x[None] is one image",
        [_, h, w, c] if [c, h, w] == network.input() => {
            "; x.transpose(0, 3, 1, 2) has the channels first, which all networks take here"
        }
        _ => "",
    };
    ensure!(
        fits && array.shape[0] > 0,
        "{}: array `x` has shape {:?}, but `{}` takes [images, {channels}, {height}, {width}]{remedy}",
        path.display(),
        array.shape,
        network.name()
    );
    let sample: usize = network.input().iter().product();
    if let Some(place) = array.values.iter().position(|value| !value.is_finite()) {
        bail!(
            "{}: array `x`: value {} of image {} is {}; images have finite numbers in single precision",
            path.display(),
            place % sample,
            place / sample,
            array.values[place]
        );
    }
    Ok(array)
}

/// Image files, and those in folders, decoded.
fn pixels(
    input: &[PathBuf],
    network: &Network,
    images: &ImageArgs,
    normalization: Normalization,
) -> Result<Images> {
    let config = images.config(network)?;
    let mut files = Vec::new();
    for path in input {
        ensure!(path.exists(), "--input {}: there is no such file or folder", path.display());
        if path.is_dir() {
            let folder = ImageFolder::open(path, &config)?;
            files.extend((0..folder.len()).map(|index| folder.image_path(index)));
        } else {
            files.push(path.clone());
        }
    }
    let folder = ImageFolder::of_files(files.iter().cloned(), &config)?;
    let LoadedImages { images: set, skipped } = folder.load()?;
    ensure!(
        set.shape() == network.input(),
        "--input: the images are {:?} (channels, height, width), but network `{}` takes {:?}; --resize scales them",
        set.shape(),
        network.name(),
        network.input()
    );
    let is_read = |path: &&PathBuf| skipped.iter().all(|bad| bad.path != **path);
    let names = files.iter().filter(is_read).map(|path| path.display().to_string()).collect();
    Ok(Images::Files { set, names, skipped: skipped.len(), normalization })
}
