//! A plot's rectangle with its two axes.

use svg::node::element::Group;

use super::{
    marks::{Anchor, line, text, text_width},
    scale::{Scale, Tick},
};

/// The rectangle that points lie in, in pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rect {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) right: f64,
    pub(crate) bottom: f64,
}

/// A rectangle and what its sides mean.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) rect: Rect,
    pub(crate) x: Scale,
    pub(crate) y: Scale,
}

/// Pixels below a frame that its horizontal axis takes, without and with a title.
pub(crate) const BELOW: f64 = 20.0;
pub(crate) const BELOW_TITLED: f64 = 38.0;

/// Pixels between two labels of the vertical axis, and of the horizontal one.
const ROWS: f64 = 28.0;
const COLUMNS: f64 = 58.0;

/// Pixels to the right of a frame that belong to the drawing.
const OVERHANG: f64 = 8.0;

/// An accuracy with the ends of its whisker, for an axis that is to reach them; none beyond 100 %.
pub(crate) fn whisker_values(accuracy: f64, error: f64) -> [f64; 3] {
    [accuracy - error, accuracy, accuracy + error].map(|end| end.clamp(0.0, accuracy.max(1.0)))
}

impl Frame {
    /// The pixel of a pair of values.
    pub(crate) fn place(&self, x: f64, y: f64) -> (f64, f64) {
        (self.x.place(x), self.y.place(y))
    }

    /// The ends of a whisker from `error` below `y` to as much above, as far as the frame reaches.
    pub(crate) fn whisker(&self, y: f64, error: f64) -> [f64; 2] {
        [y - error, y + error].map(|end| self.y.place(end).clamp(self.rect.top, self.rect.bottom))
    }

    /// Grid, labels and titles, to be drawn below the points. The vertical axis has its title above it.
    pub(crate) fn axes(&self, x_title: &str, y_title: &str) -> Group {
        let Rect { left, top, right, bottom } = self.rect;
        let mut group = Group::new().set("class", "axes");
        for Tick { value, label } in self.y.ticks(ROWS) {
            let y = self.y.place(value);
            group = group.add(line((left, y), (right, y), "grid"));
            group = group.add(text(left - 6.0, y + 4.0, Anchor::End, "quiet", &label));
        }
        let mut taken = f64::NEG_INFINITY;
        for Tick { value, label } in self.x.ticks(COLUMNS) {
            let x = self.x.place(value);
            let half = text_width(&label) / 2.0;
            // A label at the end may not hang over the edge of the drawing.
            let middle = x.min(right + OVERHANG - half);
            if middle - half < taken {
                continue;
            }
            taken = middle + half + 6.0;
            group = group.add(line((x, bottom), (x, bottom + 4.0), "rule"));
            group = group.add(text(middle, bottom + 17.0, Anchor::Middle, "quiet", &label));
        }
        group = group.add(line((left, bottom), (right, bottom), "rule"));
        if !x_title.is_empty() {
            let middle = f64::midpoint(left, right);
            group = group.add(text(middle, bottom + 34.0, Anchor::Middle, "quiet", x_title));
        }
        if !y_title.is_empty() {
            group = group.add(text(
                0.0_f64.max(left - 40.0),
                top - 9.0,
                Anchor::Start,
                "quiet",
                y_title,
            ));
        }
        group
    }
}
