//! The two inner loops of a convolution: [`Windows`] sums over the taps of a window (forward pass, and gradient
//! of the input), [`Correlate`] sums over the pixels of an image (gradient of the weights).
//!
//! Both keep a tile of sums in registers, so that each loaded vector is used for many of them, and broadcast single
//! activations from where they are: a vector holds channels, so nothing needs to be rearranged.
#![allow(unsafe_code, reason = "pointers into buffers whose sizes were checked")]

use std::ops::Range;

use super::{
    bf16::{PairFamily, PairTask, Paired},
    blocks::Block,
    rectifier::Rectifier,
    vector::{Family, Task, Vector},
};

/// What the loops multiply: values as they are, or pairs of them that are rounded to bf16. Sums are f32.
pub(super) trait Operand {
    /// A value in memory.
    type Value: Copy;
    /// Values of one term, each of which is a product of its own.
    const VALUES: usize;
    /// One term for every lane.
    type Term<V: Paired>: Copy;

    /// One term for all lanes.
    ///
    /// # Safety
    /// `from` is valid for [`VALUES`](Self::VALUES); the processor has the instructions of `V`.
    unsafe fn splat<V: Paired>(from: *const Self::Value) -> Self::Term<V>;
    /// One term for each lane.
    ///
    /// # Safety
    /// `from` is valid for [`VALUES`](Self::VALUES) of every lane; the processor has the instructions of `V`.
    unsafe fn load<V: Paired>(from: *const Self::Value) -> Self::Term<V>;
    /// `sum` and the products of the two terms.
    ///
    /// # Safety
    /// The processor has the instructions of `V`.
    unsafe fn add<V: Paired>(sum: V, a: Self::Term<V>, b: Self::Term<V>) -> V;
}

/// Single values of f32.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fp32;

impl Operand for Fp32 {
    type Value = f32;
    const VALUES: usize = 1;
    type Term<V: Paired> = V;

    #[inline(always)]
    unsafe fn splat<V: Paired>(from: *const f32) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::splat(*from) }
    }
    #[inline(always)]
    unsafe fn load<V: Paired>(from: *const f32) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load(from) }
    }
    #[inline(always)]
    unsafe fn add<V: Paired>(sum: V, a: V, b: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { sum.add_product(a, b) }
    }
}

/// Pairs of bf16. A buffer of activations has single values, of which the ones at any two adjacent places are a pair.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bf16;

impl Operand for Bf16 {
    type Value = u16;
    const VALUES: usize = 2;
    type Term<V: Paired> = V::Pairs;

    #[inline(always)]
    unsafe fn splat<V: Paired>(from: *const u16) -> V::Pairs {
        // SAFETY: the caller's promise.
        unsafe { V::splat_pair(from) }
    }
    #[inline(always)]
    unsafe fn load<V: Paired>(from: *const u16) -> V::Pairs {
        // SAFETY: the caller's promise.
        unsafe { V::load_pairs(from) }
    }
    #[inline(always)]
    unsafe fn add<V: Paired>(sum: V, a: V::Pairs, b: V::Pairs) -> V {
        // SAFETY: the caller's promise.
        unsafe { sum.add_pair_products(a, b) }
    }
}

/// How the loops step through a buffer of images: the start and the strides, in values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    /// Index of the first value.
    pub(super) start: usize,
    /// Between images.
    pub(super) image: usize,
    /// Between rows of the result.
    pub(super) row: usize,
    /// Between columns of the result.
    pub(super) column: usize,
}

/// The values under one window: `rows` rows of `runs` runs of `len` contiguous values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taps {
    pub(super) rows: usize,
    /// Distance between rows.
    pub(super) row: usize,
    pub(super) runs: usize,
    /// Distance between runs.
    pub(super) run: usize,
    pub(super) len: usize,
}

impl Taps {
    pub(super) const fn count(self) -> usize {
        self.rows * self.runs * self.len
    }

    /// Terms of `values` adjacent taps; the last one of a run may reach beyond it.
    pub(super) const fn terms(self, values: usize) -> usize {
        self.rows * self.runs * self.len.div_ceil(values)
    }

    /// Distance of the last value from the first, where a run is so long.
    const fn reach(self, len: usize) -> usize {
        (self.rows - 1) * self.row + (self.runs - 1) * self.run + len - 1
    }
}

/// Which rows under a window belong to the image. The others are padding and are skipped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clip {
    /// Row of the image under the first tap of the first row of the result; negative in the padding.
    pub(super) first: isize,
    /// Rows of the image between rows of the result.
    pub(super) step: usize,
    /// Rows of the image between rows of taps.
    pub(super) spread: usize,
    /// Rows of the image.
    pub(super) height: usize,
}

impl Clip {
    /// Rows of taps that lie inside the image, for one row of the result.
    #[inline(always)]
    fn taps(self, row: usize, taps: usize) -> Range<usize> {
        let top = self.first + (row * self.step) as isize;
        let before = |rows: isize| (rows.max(0) as usize).div_ceil(self.spread).min(taps);
        let from = before(-top);
        from..before(self.height as isize - top).max(from)
    }

    /// Rows of the result for which one row of taps lies inside the image.
    #[inline(always)]
    fn rows(self, tap: usize, rows: usize) -> Range<usize> {
        let top = self.first + (tap * self.spread) as isize;
        let before = |height: isize| (height.max(0) as usize).div_ceil(self.step).min(rows);
        let from = before(-top);
        from..before(self.height as isize - top).max(from)
    }
}

/// Numbers of images, rows and columns of a result.
pub(super) type Extent = [usize; 3];

/// Index of the last value that a walk reaches, if it reaches any.
fn last(walk: Walk, [images, rows, columns]: Extent) -> Option<usize> {
    let before = |count: usize| count.checked_sub(1);
    Some(
        walk.start
            + before(images)? * walk.image
            + before(rows)? * walk.row
            + before(columns)? * walk.column,
    )
}

/// The initial value of a sum.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start<'a> {
    /// A bias, one value for every lane of the block.
    Bias(&'a [f32]),
    /// Zero.
    Zero,
    /// The value that is in the result already.
    There,
}

/// `y[pixel][channel] = start + sum over taps of x[pixel + tap] * weights[tap][channel]`, for one block of
/// channels. Terms of several values are of adjacent taps.
pub(super) struct Windows<'a, O: Operand> {
    pub(super) extent: Extent,
    pub(super) x: &'a [O::Value],
    pub(super) from: Walk,
    pub(super) taps: Taps,
    pub(super) clip: Clip,
    pub(super) weights: &'a [O::Value],
    pub(super) y: &'a mut [f32],
    /// Starts at the block's first channel.
    pub(super) to: Walk,
    pub(super) block: Block,
    pub(super) start: Start<'a>,
    pub(super) rectifier: Rectifier,
}

impl Task for Windows<'_, Fp32> {
    #[inline(always)]
    fn run<F: Family>(self, _family: F) {
        // SAFETY: `_family` proves that the processor has the instructions.
        unsafe { self.run_with::<F>() }
    }
}

impl PairTask for Windows<'_, Bf16> {
    #[inline(always)]
    fn run<F: PairFamily>(self, _family: F) {
        // SAFETY: `_family` proves that the processor has the instructions, products of bf16 included.
        unsafe { self.run_with::<F>() }
    }
}

impl<O: Operand> Windows<'_, O> {
    /// # Safety
    /// The processor has the instructions of `F`, and those with which its vectors multiply `O`.
    #[inline(always)]
    unsafe fn run_with<F: Family>(self) {
        let (Some(x), Some(y)) = (last(self.from, self.extent), last(self.to, self.extent)) else {
            return;
        };
        let len = self.taps.len.next_multiple_of(O::VALUES);
        assert!(self.taps.count() > 0 && x + self.taps.reach(len) < self.x.len(), "taps inside x");
        assert!(y + self.block.channels <= self.y.len(), "channels inside y");
        let weights = self.taps.terms(O::VALUES) * O::VALUES * self.block.width();
        assert_eq!(self.weights.len(), weights, "weights");
        if let Start::Bias(bias) = self.start {
            assert_eq!(bias.len(), self.block.width(), "bias");
        }
        // SAFETY: the caller's promise. The asserts hold the largest index
        // that is read and written, and offsets only grow.
        unsafe {
            match (self.block.vectors, self.block.lanes == F::Full::LANES) {
                (2, true) => self.sweep::<F::Full, 2>(F::SUMS[1]),
                (1, true) => self.sweep::<F::Full, 1>(F::SUMS[0]),
                (1, false) if self.block.lanes == F::Half::LANES => {
                    self.sweep::<F::Half, 1>(F::SUMS[0]);
                }
                _ => unreachable!("a block of another instruction set"),
            }
        }
    }
}

/// Calls `$call!` with `$count` as a literal, to make it a constant. Counts above 12 are only possible for
/// tiles that are one vector wide.
macro_rules! with_count {
    ($count:expr, $call:ident $(, $few:literal)*; $($many:literal),*) => {
        match $count {
            $($few => $call!($few),)*
            $($many if N == 1 => $call!($many),)*
            _ => unreachable!("a tile of more sums than there are registers"),
        }
    };
}

impl<O: Operand> Windows<'_, O> {
    /// # Safety
    /// The processor has the instructions of `V`; the asserts of [`run_with`](Self::run_with) hold.
    #[inline(always)]
    unsafe fn sweep<V: Paired, const N: usize>(mut self, most: usize) {
        let [images, rows, columns] = self.extent;
        let tiles = columns.div_ceil(most);
        for image in 0..images {
            for row in 0..rows {
                let x = self.from.start + image * self.from.image + row * self.from.row;
                let y = self.to.start + image * self.to.image + row * self.to.row;
                let inside = self.clip.taps(row, self.taps.rows);
                let mut column = 0;
                for tile in 0..tiles {
                    // Tiles of nearly equal size: 10 columns are split 5 and 5, not 8 and 2.
                    let end = columns * (tile + 1) / tiles;
                    let (x, y) = (x + column * self.from.column, y + column * self.to.column);
                    macro_rules! tile {
                        ($pixels:literal) => {
                            // SAFETY: the asserts hold for every column of every row.
                            unsafe { self.tile::<V, $pixels, N>(x, y, inside.clone()) }
                        };
                    }
                    with_count!(end - column, tile, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12; 13, 14);
                    column = end;
                }
            }
        }
    }

    /// `P` adjacent pixels, summed over the rows of taps that lie inside the image.
    ///
    /// # Safety
    /// As [`sweep`](Self::sweep).
    #[inline(always)]
    unsafe fn tile<V: Paired, const P: usize, const N: usize>(
        &mut self,
        x: usize,
        y: usize,
        inside: Range<usize>,
    ) {
        let (taps, step) = (self.taps, self.from.column);
        // Number of channels in the last vector; the ones before it are full.
        let rest = self.block.channels - (N - 1) * V::LANES;
        // SAFETY: by the asserts of `run_with`.
        unsafe {
            let mut sums = [[V::splat(0.0); N]; P];
            match self.start {
                Start::Zero => {}
                Start::Bias(bias) => {
                    for sums in &mut sums {
                        for (v, sum) in sums.iter_mut().enumerate() {
                            *sum = V::load(bias.as_ptr().add(v * V::LANES));
                        }
                    }
                }
                Start::There => {
                    for (p, sums) in sums.iter_mut().enumerate() {
                        let y = self.y.as_ptr().add(y + p * self.to.column);
                        for (v, sum) in sums.iter_mut().enumerate() {
                            let len = if v + 1 == N { rest } else { V::LANES };
                            *sum = V::load_up_to(y.add(v * V::LANES), len);
                        }
                    }
                }
            }
            // Skips the weights of the rows above the image.
            let terms = taps.len.div_ceil(O::VALUES);
            let before = inside.start * taps.runs * terms * N * V::LANES * O::VALUES;
            let mut w = self.weights.as_ptr().add(before);
            for row in inside {
                for run in 0..taps.runs {
                    let x = self.x.as_ptr().add(x + row * taps.row + run * taps.run);
                    for term in 0..terms {
                        let mut weights = [O::load::<V>(w); N];
                        for (v, weight) in weights.iter_mut().enumerate() {
                            *weight = O::load::<V>(w.add(v * V::LANES * O::VALUES));
                        }
                        w = w.add(N * V::LANES * O::VALUES);
                        // One broadcast and `N` multiply-adds for each pixel; the weights are loaded once for all.
                        for (p, sums) in sums.iter_mut().enumerate() {
                            let value = O::splat::<V>(x.add(p * step + term * O::VALUES));
                            for (sum, weight) in sums.iter_mut().zip(weights) {
                                *sum = O::add(*sum, value, weight);
                            }
                        }
                    }
                }
            }
            for (p, sums) in sums.into_iter().enumerate() {
                let y = self.y.as_mut_ptr().add(y + p * self.to.column);
                for (v, sum) in sums.into_iter().enumerate() {
                    let sum = self.rectifier.apply(sum);
                    let len = if v + 1 == N { rest } else { V::LANES };
                    sum.store_up_to(y.add(v * V::LANES), len);
                }
            }
        }
    }
}

/// `sums[tap][channel] += sum over pixels of x[pixel + tap] * gradient[pixel][channel]`, for one block of
/// channels. Terms of several values are of adjacent pixels, so that there are fewer columns; both buffers have them side by
/// side.
pub(super) struct Correlate<'a, O: Operand> {
    pub(super) extent: Extent,
    pub(super) x: &'a [O::Value],
    pub(super) from: Walk,
    pub(super) taps: Taps,
    pub(super) clip: Clip,
    /// Padded, so that every pixel has all lanes of the block.
    pub(super) gradient: &'a [O::Value],
    /// Starts at the block's first channel.
    pub(super) by: Walk,
    pub(super) sums: &'a mut [f32],
    pub(super) block: Block,
}

impl Task for Correlate<'_, Fp32> {
    #[inline(always)]
    fn run<F: Family>(self, _family: F) {
        // SAFETY: `_family` proves that the processor has the instructions.
        unsafe { self.run_with::<F>() }
    }
}

impl PairTask for Correlate<'_, Bf16> {
    #[inline(always)]
    fn run<F: PairFamily>(self, _family: F) {
        // SAFETY: `_family` proves that the processor has the instructions, products of bf16 included.
        unsafe { self.run_with::<F>() }
    }
}

impl<O: Operand> Correlate<'_, O> {
    /// # Safety
    /// The processor has the instructions of `F`, and those with which its vectors multiply `O`.
    #[inline(always)]
    unsafe fn run_with<F: Family>(self) {
        let (Some(x), Some(by)) = (last(self.from, self.extent), last(self.by, self.extent)) else {
            return;
        };
        let len = self.taps.len * O::VALUES;
        assert!(self.taps.count() > 0 && x + self.taps.reach(len) < self.x.len(), "taps inside x");
        let lanes = self.block.width() * O::VALUES;
        assert!(by + lanes <= self.gradient.len(), "channels inside the gradient");
        assert_eq!(self.sums.len(), self.taps.count() * self.block.width(), "sums");
        // SAFETY: the caller's promise. The asserts hold the largest index
        // that is read and written, and offsets only grow.
        unsafe {
            match (self.block.vectors, self.block.lanes == F::Full::LANES) {
                (2, true) => self.sweep::<F::Full, 2>(F::SUMS[1]),
                (1, true) => self.sweep::<F::Full, 1>(F::SUMS[0]),
                (1, false) if self.block.lanes == F::Half::LANES => {
                    self.sweep::<F::Half, 1>(F::SUMS[0]);
                }
                _ => unreachable!("a block of another instruction set"),
            }
        }
    }
}

impl<O: Operand> Correlate<'_, O> {
    /// # Safety
    /// The processor has the instructions of `V`; the asserts of [`run_with`](Self::run_with) hold.
    #[inline(always)]
    unsafe fn sweep<V: Paired, const N: usize>(mut self, most: usize) {
        let taps = self.taps;
        let tiles = taps.len.div_ceil(most);
        let mut sums = 0;
        for row in 0..taps.rows {
            let inside = self.clip.rows(row, self.extent[1]);
            for run in 0..taps.runs {
                let x = self.from.start + row * taps.row + run * taps.run;
                let mut tap = 0;
                for tile in 0..tiles {
                    let end = taps.len * (tile + 1) / tiles;
                    macro_rules! tile {
                        ($taps:literal) => {
                            // SAFETY: the asserts hold for every tap.
                            unsafe {
                                self.tile::<V, $taps, N>(x + tap * O::VALUES, sums, inside.clone())
                            }
                        };
                    }
                    with_count!(end - tap, tile, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12; 13, 14);
                    sums += (end - tap) * N * V::LANES;
                    tap = end;
                }
            }
        }
    }

    /// `T` adjacent taps, summed over the pixels of the result whose taps lie inside the image.
    ///
    /// # Safety
    /// As [`sweep`](Self::sweep).
    #[inline(always)]
    unsafe fn tile<V: Paired, const T: usize, const N: usize>(
        &mut self,
        x: usize,
        at: usize,
        inside: Range<usize>,
    ) {
        let [images, _, columns] = self.extent;
        // SAFETY: by the asserts of `run_with`.
        unsafe {
            let there = self.sums.as_mut_ptr().add(at);
            let mut sums = [[V::splat(0.0); N]; T];
            for (t, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(there.add((t * N + v) * V::LANES));
                }
            }
            for image in 0..images {
                for row in inside.clone() {
                    let mut x =
                        self.x.as_ptr().add(x + image * self.from.image + row * self.from.row);
                    let by = self.by.start + image * self.by.image + row * self.by.row;
                    let mut by = self.gradient.as_ptr().add(by);
                    for _ in 0..columns {
                        let mut gradient = [O::load::<V>(by); N];
                        for (v, gradient) in gradient.iter_mut().enumerate() {
                            *gradient = O::load::<V>(by.add(v * V::LANES * O::VALUES));
                        }
                        for (t, sums) in sums.iter_mut().enumerate() {
                            let value = O::splat::<V>(x.add(t * O::VALUES));
                            for (sum, gradient) in sums.iter_mut().zip(gradient) {
                                *sum = O::add(*sum, value, gradient);
                            }
                        }
                        // Wrapping, since the pointers may end up past the buffers; they are not read there.
                        x = x.wrapping_add(self.from.column);
                        by = by.wrapping_add(self.by.column);
                    }
                }
            }
            for (t, sums) in sums.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    sum.store(there.add((t * N + v) * V::LANES));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipped_rows_are_those_of_the_definition() {
        for (first, (step, spread), height) in (-6..4).flat_map(|first| {
            [(1, 1), (2, 1), (3, 1), (1, 2), (2, 3)]
                .into_iter()
                .flat_map(move |steps| (1..7).map(move |height| (first, steps, height)))
        }) {
            let clip = Clip { first, step, spread, height };
            for (rows, taps) in (1..6).flat_map(|rows| (1..6).map(move |taps| (rows, taps))) {
                let inside = |row: usize, tap: usize| {
                    let at = first + (row * step + tap * spread) as isize;
                    at >= 0 && at < height as isize
                };
                for row in 0..rows {
                    let got = clip.taps(row, taps);
                    assert!(
                        (0..taps).all(|tap| got.contains(&tap) == inside(row, tap)),
                        "{clip:?}"
                    );
                }
                for tap in 0..taps {
                    let got = clip.rows(tap, rows);
                    assert!(
                        (0..rows).all(|row| got.contains(&row) == inside(row, tap)),
                        "{clip:?}"
                    );
                }
            }
        }
    }
}
