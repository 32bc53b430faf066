//! Which data set a command works on.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use releq::{
    DataConfig,
    core::{Network, UnknownName},
    data::{self, DataKind, Download, digits::DigitsConfig},
    zoo,
};

use super::{ImageArgs, UsageError};

/// Name of the digits that are drawn.
pub const DIGITS: &str = "digits";

/// Where the images come from.
#[derive(clap::Args, Clone, Debug)]
pub struct DataArgs {
    /// Images: a folder with `train/CLASS/*.jpg` and `test/CLASS/*.jpg`, with images alone, which have no labels, or with
    /// the files of MNIST, CIFAR-10 or SVHN; a table `.csv` with columns `path`, `label` and `split`; arrays `x` and `y` in
    /// `.npz`; or a name of `releq list data`, which is looked for in RELEQ_DATA_DIR and in the user's cache folder
    /// [default: the network's data set, looked for there]
    #[arg(long, value_name = "DIR|NAME")]
    data: Option<PathBuf>,
    /// Download the data set into the user's cache folder unless it is there
    #[arg(long)]
    download: bool,
    /// How image folders are read.
    #[command(flatten)]
    pub images: ImageArgs,
}

impl DataArgs {
    /// Whether the options name a data set.
    #[must_use]
    pub const fn is_named(&self) -> bool {
        self.data.is_some() || self.download
    }

    /// The folder that is read, if the option names one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.data.as_deref().filter(|path| *path != Path::new(DIGITS) && path.exists())
    }

    /// The data set that the options name or that belongs to `network`; `None` if nothing is named and nothing found.
    ///
    /// # Errors
    /// If what is named is not there, or cannot be downloaded.
    pub fn find(&self, network: &Network) -> Result<Option<DataConfig>> {
        let folder = |path: PathBuf, kind: Option<DataKind>| -> Result<Option<DataConfig>> {
            // What cannot be told is told when it is read.
            let found = kind.or_else(|| data::detect(&path).ok());
            if let Some(kind) = found.filter(|kind| !kind.is_image_files()) {
                self.images.are_for_files(&format!("{} is {kind}", path.display()))?;
            }
            let images = self.images.config(network)?;
            Ok(Some(DataConfig::Folder { path, kind, images }))
        };
        let preset = zoo::preset(network.name());
        let usual = preset.and_then(|preset| {
            DataKind::ALL.into_iter().find(|kind| kind.to_string() == preset.data)
        });
        let (kind, asked) = match self.data.as_deref() {
            Some(name) if name == Path::new(DIGITS) => {
                self.images.are_for_files("the digits are drawn")?;
                return Ok(Some(DataConfig::Digits(DigitsConfig::default())));
            }
            // `photos/` is `photos`: a run goes on with the data that it was begun with.
            Some(path) if path.exists() => return folder(path.components().collect(), None),
            Some(name) => (Some(named(name)?), true),
            None => (usual, self.download),
        };
        let Some(kind) = kind else {
            ensure!(!self.download, "--download: no data set of `{}` is known", network.name());
            return Ok(None);
        };
        if let Some(path) = data::find(kind, None)? {
            return folder(path, Some(kind));
        }
        if self.download {
            return folder(download(kind)?, Some(kind));
        }
        ensure!(
            !asked,
            "--data {}: {kind} is neither in the folder that RELEQ_DATA_DIR names nor in the user's cache \
             folder; --download fetches it, or name its folder",
            kind.slug()
        );
        // A folder of another kind, such as images of one's own.
        match std::env::var_os("RELEQ_DATA_DIR").map(PathBuf::from) {
            Some(path) if data::detect(&path).is_ok() => folder(path, None),
            _ => Ok(None),
        }
    }

    /// As [`find`](Self::find), for commands that cannot do without.
    ///
    /// # Errors
    /// As there; [`UsageError`] if there is none.
    pub fn required(&self, network: &Network) -> Result<DataConfig> {
        self.find(network)?.ok_or_else(|| {
            UsageError(format!(
                "no data for `{}`: name a folder with --data, or --data digits for drawn ones, or set \
                 RELEQ_DATA_DIR; `releq list data` lists what can be read",
                network.name()
            ))
            .into()
        })
    }
}

/// The data set of this name.
fn named(name: &Path) -> Result<DataKind> {
    let kinds = || DataKind::ALL.into_iter().filter(|kind| kind.is_published());
    let text = name.to_string_lossy();
    kinds().find(|kind| kind.slug() == text).ok_or_else(|| {
        let names = kinds().map(DataKind::slug).chain([DIGITS]);
        let hint = match UnknownName::new("data set", text.as_ref(), names).nearest() {
            Some(nearest) => format!("did you mean the data set `{nearest}`? "),
            None => String::new(),
        };
        anyhow::anyhow!(
            "--data {text}: there is no such file or folder; {hint}`releq list data` lists what can be read"
        )
    })
}

/// Fetches a data set into the user's cache folder.
fn download(kind: DataKind) -> Result<PathBuf> {
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(
        "download {bar:30} {bytes}/{total_bytes}, {eta} left, {msg}",
    )?);
    let folder = data::download(&Download::to_cache(kind)?, &mut |news| {
        bar.set_length(news.total.unwrap_or(0));
        bar.set_position(news.received);
        bar.set_message(news.file.to_owned());
    })?;
    bar.finish_and_clear();
    Ok(folder)
}
