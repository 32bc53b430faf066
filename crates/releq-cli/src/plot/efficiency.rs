//! What becomes of the time of many workers.

use svg::node::element::Group;

use super::{
    Drawing, Figure,
    frame::{BELOW_TITLED, Frame, Rect},
    marks::{Key, Shape, legend, polyline, tip},
    number::{count, percent},
    scale::Scale,
    table::Table,
};

/// Efficiencies with one setting of the search.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    /// Name of the setting.
    pub(crate) name: String,
    /// Workers, ascending, and the share of their time, in 0 to 1, that goes into retrains which one worker would do too.
    pub(crate) points: Vec<(usize, f64)>,
}

/// So many colours there are.
const COLOURS: usize = 6;

/// The figure with the table of its numbers; `None` without a point.
pub(crate) fn efficiency(title: &str, curves: &[Curve], table: Table) -> Option<Figure> {
    let most = curves.iter().flat_map(|curve| &curve.points).map(|&(workers, _)| workers).max()?;
    let description = "Efficiency against the number of workers: the share of all workers' time that goes into retrains \
                       which one worker would do too. The rest they wait for the slowest of a batch and for the search, \
                       or work on what turns out not to be needed.";
    Some(Figure::new("efficiency", title, description, table, |width| {
        let classes: Vec<String> =
            (0..curves.len()).map(|index| format!("line ink{}", index % COLOURS)).collect();
        let entries: Vec<(Key, &str, &str)> = curves
            .iter()
            .zip(&classes)
            .map(|(curve, class)| (Key::Line, class.as_str(), curve.name.as_str()))
            .collect();
        let (legend, height) = legend(&entries, 0.0, 0.0, width.px());
        let top = height + 26.0;
        let bottom = top + width.pick(260.0, 220.0);
        let rect = Rect { left: 46.0, top, right: width.px() - 12.0, bottom };
        let frame = Frame {
            rect,
            x: Scale::positive(&[1.0, most as f64], rect.left, rect.right).whole(),
            y: Scale::exact(0.0, 1.0, rect.bottom, rect.top),
        };
        let mut group = Group::new().add(legend).add(frame.axes("workers", "efficiency"));
        for (index, Curve { name, points }) in curves.iter().enumerate() {
            let colour = index % COLOURS;
            let place = |&(workers, share): &(usize, f64)| frame.place(workers as f64, share);
            let placed: Vec<_> = points.iter().map(place).collect();
            group = group.add(polyline(&placed, &format!("line ink{colour}")).add(tip(name)));
            for (&(x, y), &(workers, share)) in placed.iter().zip(points) {
                let told = format!("{name}: {} with {}", percent(share), count(workers, "worker"));
                let mark = Shape::of(colour).mark(x, y, 2.6, &format!("fill{colour}"));
                group = group.add(mark.add(tip(&told)));
            }
        }
        Drawing::new(width, bottom + BELOW_TITLED, group)
    }))
}
