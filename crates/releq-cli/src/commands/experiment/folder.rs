//! The folder that an experiment leaves behind.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use releq::{RunFolder, core::atomic_file, hw::Machine};
use serde_json::{Value, json};

use crate::{
    args::UsageError,
    plot::{Figure, table::Table},
    terminal::output::note,
};

/// Where an experiment puts its results.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub(super) struct FolderArgs {
    /// Folder for the results; what an earlier experiment left there is written over [default: the next of
    /// experiments/NAME-1, experiments/NAME-2, ...]
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Print experiment.json instead of tables
    #[arg(long)]
    pub(super) json: bool,
}

/// The folder of an experiment's results.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    name: &'static str,
    path: PathBuf,
}

impl FolderArgs {
    /// The folder for the experiment of this name, which exists then.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn open(&self, name: &'static str) -> Result<Folder> {
        let path = match &self.into {
            Some(path) => path.clone(),
            None => {
                let place =
                    |number: usize| Path::new("experiments").join(format!("{name}-{number}"));
                (1..).map(place).find(|place| !place.exists()).context("no number is left")?
            }
        };
        if RunFolder::config_of(&path).is_ok() {
            let reason = format!(
                "--into {} is the folder of a run, whose files this would write over; name another",
                path.display()
            );
            return Err(UsageError(reason).into());
        }
        fs::create_dir_all(&path).with_context(|| format!("--into {}", path.display()))?;
        Ok(Folder { name, path })
    }
}

impl Folder {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder unless something is in it: an experiment that does not come to its end leaves nothing.
    pub(super) fn abandon(&self) {
        // Whatever is in it is not ours to remove.
        let _ = fs::remove_dir(&self.path);
    }

    /// Writes figures as `plots/NAME.svg` with `tables/NAME.csv`, further tables, and `experiment.json`, of which the
    /// text is returned. `settings` and `results` are objects.
    ///
    /// # Errors
    /// If a file cannot be written, naming it.
    pub(super) fn write(
        &self,
        figures: &[Figure],
        tables: Vec<(&str, Table)>,
        settings: &Value,
        results: &Value,
    ) -> Result<String> {
        let [plots, numbers] = ["plots", "tables"].map(|name| self.path.join(name));
        for folder in [&plots, &numbers] {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        for figure in figures {
            write(&plots.join(format!("{}.svg", figure.name)), &figure.svg())?;
            write(&numbers.join(format!("{}.csv", figure.name)), &figure.csv)?;
        }
        for (name, table) in tables {
            write(&numbers.join(format!("{name}.csv")), &table.text())?;
        }
        let whole = json!({
            "experiment": self.name,
            "version": env!("CARGO_PKG_VERSION"),
            "machine": Machine::this(),
            "settings": settings,
            "results": results,
        });
        let text = serde_json::to_string_pretty(&whole)?;
        write(&self.path.join("experiment.json"), &format!("{text}\n"))?;
        note(format_args!("results: {}", self.path.display()));
        Ok(text)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    atomic_file::write(path, text.as_bytes()).with_context(|| path.display().to_string())
}
