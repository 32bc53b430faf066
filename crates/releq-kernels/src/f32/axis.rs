//! Windows along one axis of an image.

use std::ops::Range;

use crate::KernelError;

/// Windows along one axis of an image: its rows or its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatAxis {
    /// Pixels of the image.
    pub size: usize,
    /// Pixels under a window.
    pub kernel: usize,
    /// From one window to the next.
    pub stride: usize,
    /// From one pixel under a window to the next; 1 leaves out none.
    pub dilation: usize,
    /// Padding before and behind the image.
    pub padding: [usize; 2],
}

impl FloatAxis {
    /// Windows of adjacent pixels, with stride 1 and without padding.
    #[must_use]
    pub const fn new(size: usize, kernel: usize) -> Self {
        Self { size, kernel, stride: 1, dilation: 1, padding: [0; 2] }
    }

    /// Checks that there is a window; `name` is the axis in the error.
    ///
    /// # Errors
    /// [`KernelError`], naming the first invalid size.
    pub(super) fn check(self, name: &'static str) -> Result<(), KernelError> {
        let sizes = [
            (name, self.size),
            ("kernel", self.kernel),
            ("stride", self.stride),
            ("dilation", self.dilation),
        ];
        for (what, got) in sizes {
            if got == 0 {
                return Err(KernelError::Shape { what, got, reason: "must be positive" });
            }
        }
        let [before, after] = self.padding;
        let padded = self.size.checked_add(before).and_then(|size| size.checked_add(after));
        let padded = padded.ok_or(KernelError::TooLarge { what: name })?;
        let reach = (self.kernel - 1).checked_mul(self.dilation);
        if reach.is_none_or(|reach| reach >= padded) {
            let reason = "is smaller than the kernel, padding and dilation included";
            return Err(KernelError::Shape { what: name, got: self.size, reason });
        }
        Ok(())
    }

    /// Pixels of the image and its padding.
    pub(super) const fn padded(self) -> usize {
        self.size + self.padding[0] + self.padding[1]
    }

    /// Number of windows. Only meaningful if the kernel fits, as in every checked shape.
    #[must_use]
    pub const fn windows(self) -> usize {
        (self.padded() - (self.kernel - 1) * self.dilation - 1) / self.stride + 1
    }

    /// The taps of a window that lie inside the image, and the pixel under the first of them.
    pub(super) fn inside(self, window: usize) -> (Range<usize>, usize) {
        let (start, [before, _]) = (window * self.stride, self.padding);
        let first = before.saturating_sub(start).div_ceil(self.dilation);
        let end = (self.size + before).saturating_sub(start).div_ceil(self.dilation);
        let end = end.min(self.kernel).max(first);
        (first..end, (start + first * self.dilation).saturating_sub(before))
    }

    /// [`inside`](Self::inside) of every window.
    pub(super) fn all_inside(self) -> Vec<(Range<usize>, usize)> {
        (0..self.windows()).map(|window| self.inside(window)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_inside_are_those_of_the_definition() {
        for (size, kernel, stride, dilation) in (1..6).flat_map(|size| {
            (1..5).flat_map(move |kernel| {
                (1..4).flat_map(move |stride| (1..4).map(move |d| (size, kernel, stride, d)))
            })
        }) {
            for padding in [[0, 0], [1, 0], [0, 2], [3, 1], [5, 5]] {
                let axis = FloatAxis { size, kernel, stride, dilation, padding };
                if axis.check("width").is_err() {
                    continue;
                }
                for window in 0..axis.windows() {
                    let at =
                        |tap: usize| (window * stride + tap * dilation).checked_sub(padding[0]);
                    let (taps, first) = axis.inside(window);
                    for tap in 0..kernel {
                        let inside = at(tap).is_some_and(|at| at < size);
                        assert_eq!(taps.contains(&tap), inside, "{axis:?}, window {window}");
                    }
                    assert!(taps.is_empty() || at(taps.start) == Some(first), "{axis:?}");
                }
                let beyond = axis.windows() * stride + (kernel - 1) * dilation;
                assert!(beyond >= axis.padded(), "{axis:?}: no further window fits");
            }
        }
    }
}
