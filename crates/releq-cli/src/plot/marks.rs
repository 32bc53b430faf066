//! What figures are drawn with: text, lines, and marks of different shapes.
//!
//! Colours are classes, which `figure.css` gives a value for light and for dark; shapes and dashes tell series
//! apart as well. Text from outside appears in text nodes only, which the library escapes.

use svg::node::element::{Group, Line, Path, Rectangle, Text, Title, path::Data};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Pixels of a figure's text.
pub(crate) const FONT: f64 = 12.0;

/// Mean width of a character of that size.
const CHARACTER: f64 = 7.0;

/// Rounds to a tenth of a pixel; what is no number becomes 0.
pub(crate) fn px(value: f64) -> f64 {
    if value.is_finite() { (10.0 * value).round() / 10.0 + 0.0 } else { 0.0 }
}

/// About how wide a text is drawn.
pub(crate) fn text_width(text: &str) -> f64 {
    CHARACTER * text.width() as f64
}

/// A text that is at most about `width` pixels wide: where it is longer, an ellipsis stands for its middle. More
/// of the end is kept than of the beginning, since names of layers differ at their end.
pub(crate) fn fitted(text: &str, width: f64) -> String {
    let columns = ((width / CHARACTER) as usize).max(3);
    if text.width() <= columns {
        return text.to_owned();
    }
    let head = columns / 3;
    let tail = columns - 1 - head;
    let cut = |characters: &mut dyn Iterator<Item = char>, mut room: usize| -> Vec<char> {
        let mut taken = Vec::new();
        for character in characters {
            let width = character.width().unwrap_or(0);
            if width > room {
                break;
            }
            room -= width;
            taken.push(character);
        }
        taken
    };
    let head = cut(&mut text.chars(), head);
    let mut tail = cut(&mut text.chars().rev(), tail);
    // An accent without its letter belongs to what is left out.
    while tail.last().is_some_and(|last| last.width() == Some(0)) {
        tail.pop();
    }
    head.into_iter().chain(['…']).chain(tail.into_iter().rev()).collect()
}

/// Where a text stands relative to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// It begins there.
    Start,
    /// It is centred there.
    Middle,
    /// It ends there.
    End,
}

/// A text with its baseline at `y`.
pub(crate) fn text(x: f64, y: f64, anchor: Anchor, class: &str, content: &str) -> Text {
    let text = Text::new(content).set("x", px(x)).set("y", px(y));
    let text = if class.is_empty() { text } else { text.set("class", class) };
    match anchor {
        Anchor::Start => text,
        Anchor::Middle => text.set("text-anchor", "middle"),
        Anchor::End => text.set("text-anchor", "end"),
    }
}

/// The text that a mark shows under the pointer, and reads aloud.
pub(crate) fn tip(content: &str) -> Title {
    Title::new(content)
}

/// A straight line.
pub(crate) fn line(from: (f64, f64), to: (f64, f64), class: &str) -> Line {
    Line::new()
        .set("x1", px(from.0))
        .set("y1", px(from.1))
        .set("x2", px(to.0))
        .set("y2", px(to.1))
        .set("class", class)
}

/// A rectangle.
pub(crate) fn bar(x: f64, y: f64, width: f64, height: f64, class: &str) -> Rectangle {
    Rectangle::new()
        .set("x", px(x))
        .set("y", px(y))
        .set("width", px(width.max(0.0)))
        .set("height", px(height.max(0.0)))
        .set("class", class)
}

/// A line through points.
pub(crate) fn polyline(points: &[(f64, f64)], class: &str) -> Path {
    path(points, false).set("class", class)
}

/// The area within points.
pub(crate) fn area(points: &[(f64, f64)], class: &str) -> Path {
    path(points, true).set("class", class)
}

fn path(points: &[(f64, f64)], close: bool) -> Path {
    let mut data = Data::new();
    for (index, &(x, y)) in points.iter().enumerate() {
        let point = (px(x) as f32, px(y) as f32);
        data = if index == 0 { data.move_to(point) } else { data.line_to(point) };
    }
    Path::new().set("d", if close && !points.is_empty() { data.close() } else { data })
}

/// Many small dots as one element: each is a line of no length with a round end.
pub(crate) fn dots(points: &[(f64, f64)], class: &str) -> Path {
    let mut data = Data::new();
    for &(x, y) in points {
        data = data.move_to((px(x) as f32, px(y) as f32)).horizontal_line_by(0.0_f32);
    }
    Path::new().set("d", data).set("class", class)
}

/// The shape of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Circle,
    Square,
    Triangle,
    Diamond,
    Down,
    Cross,
}

impl Shape {
    /// The shapes of the first series, the second, and so on.
    pub(crate) const fn of(series: usize) -> Self {
        match series % 5 {
            0 => Self::Circle,
            1 => Self::Square,
            2 => Self::Triangle,
            3 => Self::Diamond,
            _ => Self::Down,
        }
    }

    /// The mark of this shape, of about `size` pixels from the middle to the edge.
    pub(crate) fn mark(self, x: f64, y: f64, size: f64, class: &str) -> Path {
        let corners: &[(f64, f64)] = match self {
            Self::Circle => {
                let radius = px(size) as f32;
                let data = Data::new()
                    .move_to((px(x - size) as f32, px(y) as f32))
                    .elliptical_arc_by((radius, radius, 0, 1, 0, 2.0 * radius, 0))
                    .elliptical_arc_by((radius, radius, 0, 1, 0, -2.0 * radius, 0));
                return Path::new().set("d", data).set("class", class);
            }
            Self::Cross => {
                let size = 0.8 * size;
                let [left, right] = [px(x - size) as f32, px(x + size) as f32];
                let [top, bottom] = [px(y - size) as f32, px(y + size) as f32];
                let data = Data::new()
                    .move_to((left, top))
                    .line_to((right, bottom))
                    .move_to((left, bottom))
                    .line_to((right, top));
                return Path::new().set("d", data).set("class", class);
            }
            Self::Square => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            Self::Triangle => &[(0.0, -1.2), (1.15, 0.85), (-1.15, 0.85)],
            Self::Diamond => &[(0.0, -1.3), (1.2, 0.0), (0.0, 1.3), (-1.2, 0.0)],
            Self::Down => &[(0.0, 1.2), (1.15, -0.85), (-1.15, -0.85)],
        };
        let corners: Vec<_> =
            corners.iter().map(|(dx, dy)| (x + dx * size, y + dy * size)).collect();
        area(&corners, class)
    }
}

/// How an entry of a legend is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key {
    /// A mark.
    Mark(Shape),
    /// A line.
    Line,
    /// A patch of colour.
    Patch,
}

/// Entries in rows of at most `width` pixels, from `(x, y)` down; also gives the height.
pub(crate) fn legend(entries: &[(Key, &str, &str)], x: f64, y: f64, width: f64) -> (Group, f64) {
    const KEY: f64 = 22.0;
    const GAP: f64 = 16.0;
    const ROW: f64 = 18.0;
    let mut group = Group::new().set("class", "legend");
    let (mut at, mut row) = (0.0, 0.0);
    for &(key, class, name) in entries {
        let name = fitted(name, width - KEY);
        let needed = KEY + text_width(&name);
        if at > 0.0 && at + needed > width {
            (at, row) = (0.0, row + ROW);
        }
        let middle = y + row + ROW / 2.0;
        let left = x + at;
        group = match key {
            Key::Mark(shape) => group.add(shape.mark(left + 8.0, middle, 4.5, class)),
            Key::Line => group.add(line((left, middle), (left + 17.0, middle), class)),
            Key::Patch => group.add(bar(left, middle - 6.0, 16.0, 12.0, class)),
        };
        group = group.add(text(left + KEY, middle + 4.0, Anchor::Start, "", &name));
        at += needed + GAP;
    }
    let height = if entries.is_empty() { 0.0 } else { row + ROW };
    (group, height)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_lose_their_middle() {
        let check = |text: &str, columns: usize, expected: &str| {
            assert_eq!(fitted(text, columns as f64 * CHARACTER + 0.1), expected);
        };
        check("conv1", 5, "conv1");
        check("features.stage1.block2.conv1", 12, "feat…2.conv1");
        check("畳み込み層の名前", 8, "畳…名前");
        check("e\u{301}e\u{301}e\u{301}e\u{301}", 3, "e\u{301}…e\u{301}");
        check("", 4, "");
    }
}
