//! Figures as SVG, and their numbers as CSV.
//!
//! A figure is drawn twice from the same data, for a wide page and for a telephone, so that text keeps its
//! size. Colours, for light and for dark, stand in one style sheet; a file of its own carries it along.

mod bits;
mod compare;
mod costs;
pub(crate) mod course;
pub(crate) mod efficiency;
mod facts;
mod finals;
mod frame;
mod frontier;
pub(crate) mod gains;
mod heat_map;
mod labels;
mod learning;
mod marks;
mod measured;
pub(crate) mod number;
mod panel;
mod probabilities;
mod progress;
mod scale;
mod sensitivity;
pub(crate) mod space;
pub(crate) mod table;

use releq::Report;
use svg::{
    Document,
    node::element::{Description, Group, Style},
};

pub(crate) use compare::compare;
pub(crate) use costs::{amount_of, models};
pub use facts::TrainingStep;
pub(crate) use facts::{
    AGENTS_OWN, Facts, RowKind, first_step, forbidden, last_step, standard_error, uniform,
};
pub(crate) use probabilities::{Policies, policies};

use marks::{Anchor, px, text};

/// Colours and fonts of figures.
pub(crate) const STYLE: &str = include_str!("../../templates/figure.css");

/// Height of the title that a figure in a file of its own has.
const TITLE: f64 = 30.0;

/// For which page a figure is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Wide,
    Narrow,
}

impl Width {
    /// Width of the drawing in pixels.
    pub(crate) const fn px(self) -> f64 {
        match self {
            Self::Wide => 860.0,
            Self::Narrow => 360.0,
        }
    }

    /// One of two values.
    pub(crate) const fn pick(self, wide: f64, narrow: f64) -> f64 {
        match self {
            Self::Wide => wide,
            Self::Narrow => narrow,
        }
    }
}

/// A drawing without its surroundings.
#[derive(Debug)]
pub(crate) struct Drawing {
    width: f64,
    height: f64,
    body: Group,
}

impl Drawing {
    pub(crate) const fn new(width: Width, height: f64, body: Group) -> Self {
        Self { width: width.px(), height, body }
    }
}

/// A figure with its numbers.
#[derive(Debug)]
#[non_exhaustive]
pub struct Figure {
    /// Name of its files, without an ending.
    pub name: &'static str,
    /// Title, in a few words.
    pub title: String,
    /// What it shows, in sentences: caption, and text for screen readers.
    pub description: String,
    /// All numbers of the figure, with a header.
    pub csv: String,
    wide: Drawing,
    narrow: Drawing,
}

impl Figure {
    fn new(
        name: &'static str,
        title: impl Into<String>,
        description: impl Into<String>,
        table: table::Table,
        draw: impl Fn(Width) -> Drawing,
    ) -> Self {
        Self {
            name,
            title: title.into(),
            description: description.into(),
            csv: table.text(),
            wide: draw(Width::Wide),
            narrow: draw(Width::Narrow),
        }
    }

    /// The figure as a file of its own, with its title and style.
    #[must_use]
    pub fn svg(&self) -> String {
        let Drawing { width, height, body } = &self.wide;
        let title = text(0.0, -TITLE + 17.0, Anchor::Start, "title", &self.title);
        let document = Document::new()
            .set("xmlns", "http://www.w3.org/2000/svg")
            .set("viewBox", (-12.0, px(-TITLE - 8.0), px(width + 24.0), px(height + TITLE + 16.0)))
            .set("width", px(width + 24.0))
            .set("height", px(height + TITLE + 16.0))
            .set("class", "figure alone")
            .set("role", "img")
            .set("aria-labelledby", "title description")
            .add(
                Description::new()
                    .set("id", "description")
                    .add(svg::node::Text::new(&self.description)),
            )
            .add(Style::new(STYLE))
            .add(marks::bar(-12.0, -TITLE - 8.0, width + 24.0, height + TITLE + 16.0, "paper"))
            .add(title.set("id", "title"))
            .add(body.clone());
        format!("{document}\n")
    }

    /// The figure within a page that has its style and its title: `label` is the element that it is named by,
    /// and `id` one for its description, unlike all others of the page.
    pub(crate) fn inline(&self, width: Width, label: &str, id: &str) -> String {
        let Drawing { width, height, body } = match width {
            Width::Wide => &self.wide,
            Width::Narrow => &self.narrow,
        };
        Document::new()
            .set("viewBox", (0, 0, px(*width), px(*height)))
            .set("class", "figure")
            .set("role", "img")
            .set("aria-labelledby", label)
            .set("aria-describedby", id)
            .add(Description::new().set("id", id).add(svg::node::Text::new(&self.description)))
            .add(body.clone())
            .to_string()
    }
}

/// All figures that the data of a run is enough for; `training` are the steps of its training in full
/// precision, which a report does not have.
pub(crate) fn figures(report: &Report, training: &[TrainingStep]) -> Vec<Figure> {
    let facts = Facts::new(report, training);
    [
        bits::figure,
        finals::figure,
        measured::figure,
        progress::figure,
        probabilities::figure,
        sensitivity::figure,
        costs::figure,
        learning::learning,
        learning::training,
    ]
    .into_iter()
    .filter_map(|figure: fn(&Facts<'_>) -> Option<Figure>| figure(&facts))
    .collect()
}
