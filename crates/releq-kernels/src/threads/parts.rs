//! Parts of a slice, from both ends.

use std::ops::Range;

/// Parts of nearly the same size, each with the number of its first unit; a unit is some results that stay together.
pub(super) struct Parts<'a, T> {
    /// What was not taken yet.
    out: &'a mut [T],
    unit: usize,
    units: usize,
    parts: usize,
    left: Range<usize>,
}

impl<'a, T> Parts<'a, T> {
    /// So many parts, at most as many as there are units.
    pub(super) fn of(out: &'a mut [T], unit: usize, parts: usize) -> Self {
        let units = out.len().div_ceil(unit);
        Self { out, unit, units, parts, left: 0..parts }
    }

    /// The first unit of a part.
    const fn first(&self, part: usize) -> usize {
        self.units * part / self.parts
    }

    /// Results of a part; the last one may lack some of its last unit.
    const fn results(&self, part: usize) -> usize {
        (self.first(part + 1) - self.first(part)) * self.unit
    }
}

impl<'a, T> Iterator for Parts<'a, T> {
    type Item = (usize, &'a mut [T]);

    fn next(&mut self) -> Option<Self::Item> {
        let part = self.left.next()?;
        let len = self.results(part).min(self.out.len());
        Some((self.first(part), self.out.split_off_mut(..len)?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.left.size_hint()
    }
}

impl<T> DoubleEndedIterator for Parts<'_, T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let part = self.left.next_back()?;
        // All parts before it are whole, so it starts as far from what is left as they are long.
        let start = (self.first(part) - self.first(self.left.start)) * self.unit;
        Some((self.first(part), self.out.split_off_mut(start..)?))
    }
}

impl<T> ExactSizeIterator for Parts<'_, T> {}
