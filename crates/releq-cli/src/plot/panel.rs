//! A panel of series over one axis: points, lines and steps.

use std::collections::BTreeSet;

use svg::node::element::Group;

use super::{
    frame::{Frame, Rect},
    marks::{Shape, dots, polyline, px, tip},
    scale::{Scale, extent},
};

/// How the points of a series are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// A faint dot for each.
    Dots,
    /// A line, with a mark at each point that says what it is, as long as there is room.
    Line,
    /// A level that holds until the next point.
    Steps,
}

/// Points of one meaning.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// What they are.
    pub(crate) name: String,
    /// Number of the colour, shape and dash.
    pub(crate) colour: usize,
    /// How they are drawn.
    pub(crate) look: Look,
    /// Ascending in the first coordinate.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Several series with a title and a unit.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    /// What is drawn, with its unit.
    pub(crate) title: String,
    /// Title of the horizontal axis, which counts something; empty where another panel below has it.
    pub(crate) x_title: String,
    /// The series, the lowest first.
    pub(crate) series: Vec<Series>,
    /// Whether the vertical axis begins at 0.
    pub(crate) from_zero: bool,
    /// Whether values far apart are drawn by their logarithm.
    pub(crate) log: bool,
}

/// Pixels between two marks on a line.
const MARK_ROOM: f64 = 9.0;

/// So few dots are drawn larger.
const FEW: usize = 400;

impl Panel {
    /// The smallest and the largest first coordinate.
    pub(crate) fn x_extent(&self) -> Option<(f64, f64)> {
        extent(self.series.iter().flat_map(|series| series.points.iter().map(|&(x, _)| x)))
    }

    /// Draws the panel into `rect`, from `from` to `to`.
    pub(crate) fn draw(&self, rect: Rect, (from, to): (f64, f64)) -> Group {
        let values = || self.series.iter().flat_map(|s| s.points.iter().map(|&(_, y)| y));
        let y = if self.log {
            Scale::positive(&values().collect::<Vec<_>>(), rect.bottom, rect.top)
        } else if self.from_zero {
            Scale::from_zero(values(), rect.bottom, rect.top)
        } else {
            Scale::even(values(), rect.bottom, rect.top)
        };
        let frame = Frame { rect, x: Scale::exact(from, to, rect.left, rect.right).whole(), y };
        let mut group = Group::new().add(frame.axes(&self.x_title, &self.title));
        for series in &self.series {
            let finite = series.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
            let points: Vec<(f64, f64)> = finite.copied().collect();
            group = group.add(series.draw(&points, &frame));
        }
        group
    }
}

impl Series {
    fn draw(&self, points: &[(f64, f64)], frame: &Frame) -> Group {
        let group = Group::new();
        let placed: Vec<_> = points.iter().map(|&(x, y)| frame.place(x, y)).collect();
        let colour = self.colour;
        match self.look {
            Look::Dots => {
                let size = if placed.len() <= FEW { "dots large" } else { "dots" };
                group.add(dots(&distinct(&placed), &format!("{size} ink{colour}")))
            }
            Look::Steps => {
                let line = polyline(
                    &steps(&thinned(&placed), frame.rect.right),
                    &format!("line ink{colour}"),
                );
                group.add(line.add(tip(&self.name)))
            }
            Look::Line => {
                let line = polyline(&thinned(&placed), &format!("line ink{colour}"));
                let mut group = group.add(line.add(tip(&self.name)));
                let mut last = f64::NEG_INFINITY;
                for (&(x, y), &(value, level)) in placed.iter().zip(points) {
                    if x - last < MARK_ROOM {
                        continue;
                    }
                    last = x;
                    let told = format!("{}: {} at {value}", self.name, told(level));
                    let mark = Shape::of(colour).mark(x, y, 2.6, &format!("fill{colour}"));
                    group = group.add(mark.add(tip(&told)));
                }
                group
            }
        }
    }
}

/// A value for a tooltip.
pub(crate) fn told(value: f64) -> String {
    super::number::trimmed(format!("{value:.4}"))
}

/// One of all points that lie on the same pixel.
pub(crate) fn distinct(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut seen = BTreeSet::new();
    let pixel = |&(x, y): &(f64, f64)| (x.round() as i64, y.round() as i64);
    points.iter().filter(|point| seen.insert(pixel(point))).copied().collect()
}

/// For each column of pixels the first, the lowest, the highest and the last point: the line through them
/// looks like the line through all.
pub(crate) fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept = Vec::new();
    for column in points.chunk_by(|a, b| a.0.round() == b.0.round()) {
        if column.len() <= 4 {
            kept.extend_from_slice(column);
            continue;
        }
        let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        kept.extend(column.first());
        kept.extend(column.iter().min_by(by_height));
        kept.extend(column.iter().max_by(by_height));
        kept.extend(column.last());
    }
    kept
}

/// The corners of a stair through `points` that goes on to `end`.
pub(crate) fn steps(points: &[(f64, f64)], end: f64) -> Vec<(f64, f64)> {
    let mut corners: Vec<(f64, f64)> = Vec::new();
    for &(x, y) in points {
        if let Some(&(_, before)) = corners.last() {
            if px(before) == px(y) {
                continue;
            }
            corners.push((x, before));
        }
        corners.push((x, y));
    }
    if let Some(&(_, last)) = corners.last() {
        corners.push((end, last));
    }
    corners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_outline() {
        let points: Vec<_> =
            (0..1000).map(|i| (f64::from(i) / 100.0, f64::from(i * 7 % 100))).collect();
        let kept = thinned(&points);
        assert!(kept.len() <= 44, "{}", kept.len());
        assert_eq!((kept.first(), kept.last()), (points.first(), points.last()));
        for height in [0.0, 99.0] {
            assert!(kept.iter().any(|&(_, y)| y == height));
        }
        assert_eq!(thinned(&points[..4]), points[..4]);
        assert_eq!(distinct(&[(0.1, 0.2), (0.3, 0.4), (0.6, 0.4)]), [(0.1, 0.2), (0.6, 0.4)]);
    }

    #[test]
    fn stairs_hold_their_level() {
        assert_eq!(
            steps(&[(0.0, 5.0), (1.0, 5.0), (2.0, 3.0)], 9.0),
            [(0.0, 5.0), (2.0, 5.0), (2.0, 3.0), (9.0, 3.0)]
        );
        assert!(steps(&[], 9.0).is_empty());
    }
}
