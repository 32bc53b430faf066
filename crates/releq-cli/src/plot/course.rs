//! How several variants of a search learn: means over seeds in the course of the episodes, with their spread.

use svg::node::element::Group;

use super::{
    Drawing, Figure, Width,
    frame::{BELOW, BELOW_TITLED, Frame, Rect},
    marks::{Key, area, legend, polyline, tip},
    scale::{Scale, extent},
    table::{Table, number},
};

/// A quantity in the course of the episodes, of every variant.
#[derive(Clone, Debug)]
pub(crate) struct Quantity {
    /// What it is.
    pub(crate) title: String,
    /// The variants, in the order of their colours.
    pub(crate) curves: Vec<Curve>,
}

/// A quantity of one variant.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    /// Name of the variant.
    pub(crate) name: String,
    /// Ascending in episodes.
    pub(crate) points: Vec<Point>,
}

/// What the seeds have in common after so many episodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// Episodes played.
    pub(crate) episodes: usize,
    /// Seeds that played as many.
    pub(crate) seeds: usize,
    /// Their mean.
    pub(crate) mean: f64,
    /// Their standard deviation, of more than one.
    pub(crate) deviation: Option<f64>,
}

impl Point {
    fn band(&self) -> [f64; 2] {
        let deviation = self.deviation.unwrap_or(0.0);
        [self.mean - deviation, self.mean + deviation]
    }
}

/// So many colours there are.
const COLOURS: usize = 6;

/// The figure; `None` without a point.
pub(crate) fn course(title: &str, quantities: &[Quantity]) -> Option<Figure> {
    let points = || quantities.iter().flat_map(|quantity| &quantity.curves).flat_map(|c| &c.points);
    let last = points().map(|point| point.episodes).max()?;
    let seeds = points().map(|point| point.seeds).max()?;
    let mut table =
        Table::new(["quantity", "variant", "episodes", "seeds", "mean", "standard_deviation"]);
    for Quantity { title, curves } in quantities {
        for Curve { name, points } in curves {
            for point in points {
                table.row([
                    title.clone(),
                    name.clone(),
                    point.episodes.to_string(),
                    point.seeds.to_string(),
                    number(point.mean),
                    number(point.deviation),
                ]);
            }
        }
    }
    let titles: Vec<&str> = quantities.iter().map(|quantity| quantity.title.as_str()).collect();
    let description = format!(
        "{} in the course of the episodes: means over blocks of episodes and {seeds} seeds; the bands are one \
         standard deviation of the seeds to either side.",
        titles.join(", ")
    );
    Some(Figure::new("course", title, description, table, |width| draw(quantities, last, width)))
}

fn draw(quantities: &[Quantity], last: usize, width: Width) -> Drawing {
    let names = quantities.first().map_or(&[][..], |quantity| &quantity.curves);
    let classes: Vec<String> =
        (0..names.len()).map(|index| format!("line ink{}", index % COLOURS)).collect();
    let entries: Vec<(Key, &str, &str)> = names
        .iter()
        .zip(&classes)
        .map(|(curve, class)| (Key::Line, class.as_str(), curve.name.as_str()))
        .collect();
    let (legend, mut top) = legend(&entries, 0.0, 0.0, width.px());
    let mut group = Group::new().add(legend);
    let height = width.pick(170.0, 140.0);
    for (index, quantity) in quantities.iter().enumerate() {
        let is_last = index + 1 == quantities.len();
        top += 28.0;
        let rect = Rect { left: 46.0, top, right: width.px() - 12.0, bottom: top + height };
        group = group.add(panel(quantity, last, rect, if is_last { "episodes" } else { "" }));
        top += height + if is_last { BELOW_TITLED } else { BELOW };
    }
    Drawing::new(width, top + 2.0, group)
}

fn panel(quantity: &Quantity, last: usize, rect: Rect, x_title: &str) -> Group {
    let values = quantity.curves.iter().flat_map(|curve| &curve.points).flat_map(Point::band);
    let (least, most) = extent(values).unwrap_or((0.0, 1.0));
    let frame = Frame {
        rect,
        x: Scale::exact(0.0, last as f64, rect.left, rect.right).whole(),
        y: Scale::even([least, most], rect.bottom, rect.top),
    };
    let mut group = Group::new().add(frame.axes(x_title, &quantity.title));
    for (index, Curve { name, points }) in quantity.curves.iter().enumerate() {
        let colour = index % COLOURS;
        let at = |point: &Point, value| frame.place(point.episodes as f64, value);
        if points.iter().any(|point| point.deviation.is_some()) {
            let upper = points.iter().map(|point| at(point, point.band()[1]));
            let lower = points.iter().rev().map(|point| at(point, point.band()[0]));
            let outline: Vec<_> = upper.chain(lower).collect();
            group = group.add(area(&outline, &format!("fill{colour} faint")));
        }
        let means: Vec<_> = points.iter().map(|point| at(point, point.mean)).collect();
        let line = polyline(&means, &format!("line ink{colour}"));
        group = group.add(line.add(tip(name)));
    }
    group
}
