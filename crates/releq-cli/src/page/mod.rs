//! The report as one page that opens anywhere: `report.html`, with its figures and their numbers beside it.
//!
//! A page needs no network and no other file. Everything in it follows from the [`Report`] alone, so that old
//! runs can be drawn again, and equal reports give equal bytes.

mod answer;
mod compared;
mod grid;
mod view;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use askama::Template;
use releq::{ReleqError, Report, core::atomic_file};

use crate::plot::{self, Figure};

pub use crate::plot::TrainingStep;

/// The command that a page names where a run does not say how it is repeated.
const REPEAT: &str = "releq search --config config.json";

/// A run with its name.
#[derive(Clone, Debug)]
pub struct Named {
    /// What the run is called on the page.
    pub name: String,
    /// What it found.
    pub report: Report,
    /// The steps of its training in full precision, if they were kept.
    pub training: Vec<TrainingStep>,
    /// The command that repeats it.
    pub command: String,
}

impl Named {
    /// A run without the steps of its training.
    #[must_use]
    pub fn new(name: impl Into<String>, report: Report) -> Self {
        Self { name: name.into(), report, training: Vec::new(), command: REPEAT.to_owned() }
    }
}

/// Why a page was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// There is nothing to draw.
    #[error("no run to draw; name at least one")]
    Empty,
    /// The template failed.
    #[error("the page could not be put together: {0}")]
    Template(#[from] askama::Error),
    /// A file or folder could not be written.
    #[error("cannot write {path}", path = path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A table could not be written.
    #[error(transparent)]
    Table(#[from] ReleqError),
}

/// All figures of a run, as far as its data is enough for them.
#[must_use]
pub fn figures(run: &Named) -> Vec<Figure> {
    plot::figures(&run.report, &run.training)
}

/// What a run came to, in sentences: the answer first, then what must be known of it, and what it was compared
/// with, losses included.
#[must_use]
pub fn sentences(report: &Report) -> Vec<String> {
    let answer::Verdict { headline, warnings, compared, .. } =
        answer::verdict(&plot::Facts::new(report, &[]));
    [headline].into_iter().chain(warnings).chain(compared).collect()
}

/// The page of one run, or of several beside each other.
///
/// # Errors
/// [`PageError::Empty`] without a run.
pub fn html(runs: &[Named]) -> Result<String, PageError> {
    let drawn: Vec<Vec<Figure>> = runs.iter().map(figures).collect();
    render(runs, &drawn, plot_of_all(runs).as_ref(), false)
}

/// Writes `report.html`, `plots/*.svg` and `tables/*.csv` into a folder that exists, each whole or not at all.
/// With several runs, the plots and tables of each are in a folder of its own.
///
/// # Errors
/// [`PageError::Empty`] without a run, and [`PageError::Write`], naming the file.
pub fn write(dir: impl AsRef<Path>, runs: &[Named]) -> Result<(), PageError> {
    let dir = dir.as_ref();
    let drawn: Vec<Vec<Figure>> = runs.iter().map(figures).collect();
    let all = plot_of_all(runs);
    let page = render(runs, &drawn, all.as_ref(), true)?;
    for ((run, figures), place) in runs.iter().zip(&drawn).zip(places(runs)) {
        let [plots, tables] = ["plots", "tables"].map(|folder| dir.join(folder).join(&place));
        for folder in [&plots, &tables] {
            fs::create_dir_all(folder)
                .map_err(|source| PageError::Write { path: folder.clone(), source })?;
        }
        figures.iter().try_for_each(|figure| write_figure(&plots, &tables, figure))?;
        if !run.report.rows.is_empty() {
            run.report.write_csv(tables.join("finals.csv"))?;
        }
    }
    if let Some(figure) = &all {
        write_figure(&dir.join("plots"), &dir.join("tables"), figure)?;
    }
    write_file(&dir.join("report.html"), &page)
}

fn write_figure(plots: &Path, tables: &Path, figure: &Figure) -> Result<(), PageError> {
    write_file(&plots.join(format!("{}.svg", figure.name)), &figure.svg())?;
    write_file(&tables.join(format!("{}.csv", figure.name)), &figure.csv)
}

fn write_file(path: &Path, text: &str) -> Result<(), PageError> {
    atomic_file::write(path, text.as_bytes())
        .map_err(|source| PageError::Write { path: path.to_owned(), source })
}

/// The figure with all runs in it, where there are several.
fn plot_of_all(runs: &[Named]) -> Option<Figure> {
    let named: Vec<(&str, &Report)> =
        runs.iter().map(|run| (run.name.as_str(), &run.report)).collect();
    if named.len() > 1 { plot::compare(&named) } else { None }
}

fn render(
    runs: &[Named],
    drawn: &[Vec<Figure>],
    all: Option<&Figure>,
    linked: bool,
) -> Result<String, PageError> {
    if runs.is_empty() {
        return Err(PageError::Empty);
    }
    let places = linked.then(|| places(runs));
    let each = runs.iter().zip(drawn).enumerate();
    let views: Vec<view::Run> = each
        .map(|(index, (run, figures))| {
            let place = places.as_ref().map(|places| places[index].as_str());
            view::Run::new(run, figures, index, place)
        })
        .collect();
    let all = all.map(|figure| view::Drawn::new(figure, "all", linked.then_some("")));
    Ok(view::Page::new(runs, views, all).render()?)
}

/// The folder of each run below `plots` and `tables`: none for a single run, else one like its name.
fn places(runs: &[Named]) -> Vec<String> {
    if runs.len() == 1 {
        return vec![String::new()];
    }
    let mut taken = BTreeSet::new();
    runs.iter()
        .map(|run| {
            let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
            let name: String = run.name.chars().map(plain).take(60).collect();
            let name = if name.is_empty() { "run".to_owned() } else { name };
            let mut place = name.clone();
            let mut number = 2;
            // Without regard to case, as on some systems two such folders would be one.
            while !taken.insert(place.to_ascii_lowercase()) {
                place = format!("{name}-{number}");
                number += 1;
            }
            place
        })
        .collect()
}
