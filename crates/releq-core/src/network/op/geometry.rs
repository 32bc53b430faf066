//! Sizes that may differ between the two axes of an image, or between its four sides.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A size along the height and one along the width of an image, such as the sides of a kernel.
///
/// Most are equal, so a number converts to a pair, and equal pairs are written as one number.
///
/// ```
/// use releq_core::Axes;
///
/// assert_eq!(Axes::from(3), Axes::new(3, 3));
/// assert_eq!(serde_json::to_string(&Axes::from(3))?, "3");
/// assert_eq!(serde_json::to_string(&Axes::new(1, 7))?, "[1,7]");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Written<[usize; 2]>", into = "Written<[usize; 2]>")]
pub struct Axes {
    /// Along the height: rows.
    pub height: usize,
    /// Along the width: columns.
    pub width: usize,
}

impl Axes {
    /// One size for either axis.
    #[must_use]
    pub const fn new(height: usize, width: usize) -> Self {
        Self { height, width }
    }

    /// The size, if it is the same along both axes.
    #[must_use]
    pub const fn equal(self) -> Option<usize> {
        if self.height == self.width { Some(self.height) } else { None }
    }

    /// Product of the two.
    #[must_use]
    pub const fn area(self) -> usize {
        self.height * self.width
    }
}

impl From<usize> for Axes {
    fn from(size: usize) -> Self {
        Self::new(size, size)
    }
}

impl From<[usize; 2]> for Axes {
    /// `[height, width]`.
    fn from([height, width]: [usize; 2]) -> Self {
        Self::new(height, width)
    }
}

impl From<Axes> for [usize; 2] {
    fn from(Axes { height, width }: Axes) -> Self {
        [height, width]
    }
}

/// As in JSON: `3` or `[1, 7]`.
impl fmt::Display for Axes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Written::from(*self).fmt(f)
    }
}

/// A number of pixels for every side of an image, such as its padding.
///
/// As with [`Axes`], equal ones are written as one number; others as `[top, left, bottom, right]`,
/// the order of ONNX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Written<[usize; 4]>", into = "Written<[usize; 4]>")]
pub struct Sides {
    /// Rows above.
    pub top: usize,
    /// Columns before.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns behind.
    pub right: usize,
}

impl Sides {
    /// The number, if it is the same on all sides.
    #[must_use]
    pub const fn equal(self) -> Option<usize> {
        let Self { top, left, bottom, right } = self;
        if top == left && top == bottom && top == right { Some(top) } else { None }
    }

    /// Whether there is none on any side.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        matches!(self.equal(), Some(0))
    }
}

impl From<usize> for Sides {
    fn from(size: usize) -> Self {
        [size; 4].into()
    }
}

impl From<[usize; 4]> for Sides {
    /// `[top, left, bottom, right]`.
    fn from([top, left, bottom, right]: [usize; 4]) -> Self {
        Self { top, left, bottom, right }
    }
}

impl From<Axes> for Sides {
    /// The height's size above and below, the width's on the left and on the right.
    fn from(Axes { height, width }: Axes) -> Self {
        [height, width, height, width].into()
    }
}

impl From<Sides> for [usize; 4] {
    fn from(Sides { top, left, bottom, right }: Sides) -> Self {
        [top, left, bottom, right]
    }
}

/// As in JSON: `1` or `[0, 0, 1, 1]`.
impl fmt::Display for Sides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Written::from(*self).fmt(f)
    }
}

/// How sizes are written: one number, or one for every axis or side.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number, or a list with one for every axis or side")]
enum Written<T> {
    Equal(usize),
    Each(T),
}

impl<T: fmt::Debug> fmt::Display for Written<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal(size) => size.fmt(f),
            Self::Each(sizes) => write!(f, "{sizes:?}"),
        }
    }
}

impl From<Axes> for Written<[usize; 2]> {
    fn from(axes: Axes) -> Self {
        axes.equal().map_or_else(|| Self::Each(axes.into()), Self::Equal)
    }
}

impl From<Sides> for Written<[usize; 4]> {
    fn from(sides: Sides) -> Self {
        sides.equal().map_or_else(|| Self::Each(sides.into()), Self::Equal)
    }
}

impl From<Written<[usize; 2]>> for Axes {
    fn from(written: Written<[usize; 2]>) -> Self {
        match written {
            Written::Equal(size) => size.into(),
            Written::Each(sizes) => sizes.into(),
        }
    }
}

impl From<Written<[usize; 4]>> for Sides {
    fn from(written: Written<[usize; 4]>) -> Self {
        match written {
            Written::Equal(size) => size.into(),
            Written::Each(sizes) => sizes.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sizes_are_one_number_in_json_and_in_text() {
        for (axes, json, text) in
            [(Axes::from(3), "3", "3"), (Axes::from([1, 7]), "[1,7]", "[1, 7]")]
        {
            assert_eq!(serde_json::to_string(&axes).unwrap(), json);
            assert_eq!(serde_json::from_str::<Axes>(json).unwrap(), axes);
            assert_eq!(axes.to_string(), text);
        }
        for (sides, json, text) in [
            (Sides::from(1), "1", "1"),
            (Sides::from(Axes::new(3, 0)), "[3,0,3,0]", "[3, 0, 3, 0]"),
            (Sides::from([0, 0, 1, 1]), "[0,0,1,1]", "[0, 0, 1, 1]"),
        ] {
            assert_eq!(serde_json::to_string(&sides).unwrap(), json);
            assert_eq!(serde_json::from_str::<Sides>(json).unwrap(), sides);
            assert_eq!(sides.to_string(), text);
        }
        assert_eq!(serde_json::from_str::<Axes>("[2,2]").unwrap(), 2.into());
        for wrong in ["[1]", "[1,2,3]", "-1", "\"3\""] {
            let message = serde_json::from_str::<Axes>(wrong).unwrap_err().to_string();
            assert!(message.contains("one for every axis or side"), "{message}");
        }
    }
}
