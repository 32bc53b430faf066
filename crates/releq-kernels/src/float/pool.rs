//! Pooling over channels-last images.

use std::ops::Range;

use super::family::usable;
use crate::{
    Isa, KernelError,
    vectorise::{Loops, vectorise},
};

/// Windows over channels-last images. Padding is never the maximum, and not in a mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShape {
    /// Channels of a pixel.
    pub channels: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Side of a window.
    pub kernel: usize,
    /// Distance between windows.
    pub stride: usize,
    /// Padding on every side, at most half a window.
    pub padding: usize,
}

impl PoolShape {
    fn check(self) -> Result<Self, KernelError> {
        let positive = [
            ("channels", self.channels),
            ("height", self.height),
            ("width", self.width),
            ("kernel", self.kernel),
            ("stride", self.stride),
        ];
        for (what, got) in positive {
            if got == 0 {
                return Err(KernelError::Shape { what, got, reason: "must be positive" });
            }
        }
        if self.kernel > 255 {
            let reason = "is more than 255, the largest window";
            return Err(KernelError::Shape { what: "kernel", got: self.kernel, reason });
        }
        // Else a window could hold nothing but padding.
        if self.padding * 2 > self.kernel {
            let reason = "is more than half the kernel";
            return Err(KernelError::Shape { what: "padding", got: self.padding, reason });
        }
        for (what, got) in [("height", self.height), ("width", self.width)] {
            if got + 2 * self.padding < self.kernel {
                let reason = "is smaller than the kernel, padding included";
                return Err(KernelError::Shape { what, got, reason });
            }
        }
        Ok(self)
    }

    /// Rows of the result.
    #[must_use]
    pub const fn out_height(self) -> usize {
        (self.height + 2 * self.padding - self.kernel) / self.stride + 1
    }

    /// Columns of the result.
    #[must_use]
    pub const fn out_width(self) -> usize {
        (self.width + 2 * self.padding - self.kernel) / self.stride + 1
    }

    const fn inputs(self) -> usize {
        self.height * self.width * self.channels
    }

    const fn outputs(self) -> usize {
        self.out_height() * self.out_width() * self.channels
    }

    fn batch(self, x: &[f32], out: &[f32]) -> usize {
        let batch = x.len() / self.inputs();
        assert_eq!(x.len(), batch * self.inputs(), "whole images");
        assert_eq!(out.len(), batch * self.outputs(), "as many results as images");
        batch
    }

    /// Whether windows are 2x2 and neither overlap nor leave anything out.
    const fn is_halving(self) -> bool {
        self.kernel == 2
            && self.stride == 2
            && self.padding == 0
            && self.height.is_multiple_of(2)
            && self.width.is_multiple_of(2)
    }

    /// Rows or columns of a window that lie inside the image, and how many of the window lie before them.
    #[inline(always)]
    fn inside(self, out: usize, side: usize) -> (Range<usize>, usize) {
        let start = out * self.stride;
        let from = start.saturating_sub(self.padding);
        let to = (start + self.kernel).saturating_sub(self.padding).min(side);
        (from..to, self.padding.saturating_sub(start))
    }

    /// Calls `f(window, pixel, place of the pixel in the window)` for all pixels of all windows of one image,
    /// in order.
    #[inline(always)]
    fn visit(self, mut f: impl FnMut(usize, usize, usize)) {
        for row in 0..self.out_height() {
            let (rows, above) = self.inside(row, self.height);
            for column in 0..self.out_width() {
                let (columns, left) = self.inside(column, self.width);
                for (ky, y) in rows.clone().enumerate() {
                    for (kx, x) in columns.clone().enumerate() {
                        let place = (ky + above) * self.kernel + kx + left;
                        f(row * self.out_width() + column, y * self.width + x, place);
                    }
                }
            }
        }
    }
}

/// Largest values of windows.
#[derive(Clone, Copy, Debug)]
pub struct MaxPool {
    shape: PoolShape,
    isa: Isa,
}

impl MaxPool {
    /// # Errors
    /// [`KernelError`] for a shape that cannot be, or instructions that this processor lacks.
    pub fn new(shape: PoolShape, isa: Isa) -> Result<Self, KernelError> {
        Ok(Self { shape: shape.check()?, isa: usable(isa.check()?) })
    }

    /// The maximum of every window, and the place in the window where it is: the first of equals. What is not a
    /// number is the maximum.
    ///
    /// # Shapes
    /// - `x`: `[images][height][width][channels]`; `out`, `places`: `[images][out_height][out_width][channels]`
    ///
    /// # Panics
    /// If lengths do not fit.
    pub fn forward(&self, x: &[f32], out: &mut [f32], places: &mut [u16]) {
        self.shape.batch(x, out);
        assert_eq!(places.len(), out.len(), "a place for every result");
        vectorise(self.isa, MaxForward { shape: self.shape, x, out, places });
    }

    /// Gives the gradient of every window to its place.
    ///
    /// # Panics
    /// If lengths do not fit.
    pub fn backward(&self, gradient: &[f32], places: &[u16], into: &mut [f32], accumulate: bool) {
        self.shape.batch(into, gradient);
        assert_eq!(places.len(), gradient.len(), "a place for every result");
        let shape = self.shape;
        vectorise(self.isa, MaxBackward { shape, gradient, places, into, accumulate });
    }
}

struct MaxForward<'a> {
    shape: PoolShape,
    x: &'a [f32],
    out: &'a mut [f32],
    places: &'a mut [u16],
}

impl Loops for MaxForward<'_> {
    #[inline(always)]
    fn run(self) {
        let shape = self.shape;
        let channels = shape.channels;
        let results = self.out.chunks_exact_mut(shape.outputs());
        let results = results.zip(self.places.chunks_exact_mut(shape.outputs()));
        for (x, (out, places)) in self.x.chunks_exact(shape.inputs()).zip(results) {
            if shape.is_halving() {
                let width = shape.width * channels;
                let rows = out.chunks_exact_mut(width / 2).zip(places.chunks_exact_mut(width / 2));
                for (x, (out, places)) in x.chunks_exact(2 * width).zip(rows) {
                    let (upper, lower) = x.split_at(width);
                    let pixels =
                        upper.chunks_exact(2 * channels).zip(lower.chunks_exact(2 * channels));
                    let results =
                        out.chunks_exact_mut(channels).zip(places.chunks_exact_mut(channels));
                    for ((upper, lower), (out, places)) in pixels.zip(results) {
                        let (a, b) = upper.split_at(channels);
                        let (c, d) = lower.split_at(channels);
                        let values = a.iter().zip(b).zip(c.iter().zip(d));
                        for (((a, b), (c, d)), (out, place)) in
                            values.zip(out.iter_mut().zip(places))
                        {
                            let (mut best, mut at) = (*a, 0);
                            for (value, place) in [(*b, 1), (*c, 2), (*d, 3)] {
                                let better = exceeds(value, best);
                                best = if better { value } else { best };
                                at = if better { place } else { at };
                            }
                            *out = best;
                            *place = at;
                        }
                    }
                }
                continue;
            }
            out.fill(f32::NEG_INFINITY);
            places.fill(u16::MAX);
            shape.visit(|window, pixel, place| {
                let out = &mut out[window * channels..][..channels];
                let places = &mut places[window * channels..][..channels];
                let x = &x[pixel * channels..][..channels];
                for ((best, at), value) in out.iter_mut().zip(places).zip(x) {
                    // The first value is taken, whatever it is.
                    let better = *at == u16::MAX || exceeds(*value, *best);
                    *best = if better { *value } else { *best };
                    *at = if better { place as u16 } else { *at };
                }
            });
        }
    }
}

#[inline(always)]
fn exceeds(value: f32, best: f32) -> bool {
    value > best || value.is_nan()
}

struct MaxBackward<'a> {
    shape: PoolShape,
    gradient: &'a [f32],
    places: &'a [u16],
    into: &'a mut [f32],
    accumulate: bool,
}

impl Loops for MaxBackward<'_> {
    #[inline(always)]
    fn run(self) {
        let shape = self.shape;
        let channels = shape.channels;
        let results = self.gradient.chunks_exact(shape.outputs());
        let results = results.zip(self.places.chunks_exact(shape.outputs()));
        for (into, (gradient, places)) in self.into.chunks_exact_mut(shape.inputs()).zip(results) {
            if shape.is_halving() && !self.accumulate {
                let width = shape.width * channels;
                let rows = gradient.chunks_exact(width / 2).zip(places.chunks_exact(width / 2));
                for (into, (gradient, places)) in into.chunks_exact_mut(2 * width).zip(rows) {
                    for (row, into) in into.chunks_exact_mut(width).enumerate() {
                        let results =
                            gradient.chunks_exact(channels).zip(places.chunks_exact(channels));
                        for (into, (gradient, places)) in
                            into.chunks_exact_mut(2 * channels).zip(results)
                        {
                            let (left, right) = into.split_at_mut(channels);
                            let places = gradient.iter().zip(places);
                            for ((left, right), (gradient, place)) in
                                left.iter_mut().zip(right).zip(places)
                            {
                                *left = if *place == 2 * row as u16 { *gradient } else { 0.0 };
                                *right = if *place == 2 * row as u16 + 1 { *gradient } else { 0.0 };
                            }
                        }
                    }
                }
                continue;
            }
            if !self.accumulate {
                into.fill(0.0);
            }
            shape.visit(|window, pixel, place| {
                let gradient = &gradient[window * channels..][..channels];
                let places = &places[window * channels..][..channels];
                let into = &mut into[pixel * channels..][..channels];
                for ((into, gradient), at) in into.iter_mut().zip(gradient).zip(places) {
                    *into += if *at == place as u16 { *gradient } else { 0.0 };
                }
            });
        }
    }
}

/// Means of windows.
#[derive(Clone, Copy, Debug)]
pub struct AvgPool {
    shape: PoolShape,
    isa: Isa,
}

impl AvgPool {
    /// # Errors
    /// [`KernelError`] for a shape that cannot be, or instructions that this processor lacks.
    pub fn new(shape: PoolShape, isa: Isa) -> Result<Self, KernelError> {
        Ok(Self { shape: shape.check()?, isa: usable(isa.check()?) })
    }

    /// The mean of every window.
    ///
    /// # Shapes
    /// - `x`: `[images][height][width][channels]`, `out`: `[images][out_height][out_width][channels]`
    ///
    /// # Panics
    /// If lengths do not fit.
    pub fn forward(&self, x: &[f32], out: &mut [f32]) {
        self.shape.batch(x, out);
        vectorise(self.isa, AvgForward { shape: self.shape, x, out });
    }

    /// Gives every pixel its share of the gradients of its windows.
    ///
    /// # Panics
    /// If lengths do not fit.
    pub fn backward(&self, gradient: &[f32], into: &mut [f32], accumulate: bool) {
        self.shape.batch(into, gradient);
        vectorise(self.isa, AvgBackward { shape: self.shape, gradient, into, accumulate });
    }
}

/// One over the pixels of every window.
fn shares(shape: PoolShape) -> Vec<f32> {
    let mut counts = vec![0.0_f32; shape.out_height() * shape.out_width()];
    shape.visit(|window, _, _| counts[window] += 1.0);
    counts.into_iter().map(|count| 1.0 / count).collect()
}

struct AvgForward<'a> {
    shape: PoolShape,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Loops for AvgForward<'_> {
    #[inline(always)]
    fn run(self) {
        let shape = self.shape;
        let channels = shape.channels;
        let shares = shares(shape);
        let results = self.out.chunks_exact_mut(shape.outputs());
        for (x, out) in self.x.chunks_exact(shape.inputs()).zip(results) {
            out.fill(0.0);
            shape.visit(|window, pixel, _| {
                let out = &mut out[window * channels..][..channels];
                for (out, x) in out.iter_mut().zip(&x[pixel * channels..][..channels]) {
                    *out += x;
                }
            });
            for (out, share) in out.chunks_exact_mut(channels).zip(&shares) {
                out.iter_mut().for_each(|out| *out *= share);
            }
        }
    }
}

struct AvgBackward<'a> {
    shape: PoolShape,
    gradient: &'a [f32],
    into: &'a mut [f32],
    accumulate: bool,
}

impl Loops for AvgBackward<'_> {
    #[inline(always)]
    fn run(self) {
        let shape = self.shape;
        let channels = shape.channels;
        let shares = shares(shape);
        let results = self.gradient.chunks_exact(shape.outputs());
        for (into, gradient) in self.into.chunks_exact_mut(shape.inputs()).zip(results) {
            if !self.accumulate {
                into.fill(0.0);
            }
            shape.visit(|window, pixel, _| {
                let gradient = &gradient[window * channels..][..channels];
                let share = shares[window];
                for (into, gradient) in
                    into[pixel * channels..][..channels].iter_mut().zip(gradient)
                {
                    *into += gradient * share;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        // Few distinct values, so that maxima tie.
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 17) as f32 / 8.0 - 1.0).collect()
    }

    fn shapes() -> Vec<PoolShape> {
        let mut shapes = Vec::new();
        for (height, width) in [(2, 2), (4, 6), (5, 7), (9, 11)] {
            for (kernel, stride, padding) in
                [(2, 2, 0), (2, 1, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1), (1, 2, 0)]
            {
                for channels in [1, 3, 8, 17] {
                    let shape = PoolShape { channels, height, width, kernel, stride, padding };
                    shapes.extend(shape.check().ok());
                }
            }
        }
        assert!(shapes.len() > 80);
        shapes
    }

    /// Indices of the values of a window in an image, by the definition.
    fn window(shape: PoolShape, index: usize) -> Vec<usize> {
        let channel = index % shape.channels;
        let pixel = index / shape.channels;
        let (row, column) = (pixel / shape.out_width(), pixel % shape.out_width());
        let mut window = Vec::new();
        for ky in 0..shape.kernel {
            for kx in 0..shape.kernel {
                let y = (row * shape.stride + ky).wrapping_sub(shape.padding);
                let x = (column * shape.stride + kx).wrapping_sub(shape.padding);
                if y < shape.height && x < shape.width {
                    window.push((y * shape.width + x) * shape.channels + channel);
                }
            }
        }
        window
    }

    #[test]
    fn maxima_and_their_gradients_equal_the_definition() {
        for (isa, shape) in
            Isa::available().flat_map(|isa| shapes().into_iter().map(move |s| (isa, s)))
        {
            let pool = MaxPool::new(shape, isa).expect("it is available");
            let x = numbers(3 * shape.inputs(), 1);
            let (mut out, mut places) =
                (vec![0.0; 3 * shape.outputs()], vec![0; 3 * shape.outputs()]);
            pool.forward(&x, &mut out, &mut places);
            let gradient = numbers(out.len(), 2);
            let mut expected = vec![0.0; x.len()];
            for (index, got) in out.iter().enumerate() {
                let image = index / shape.outputs() * shape.inputs();
                let window = window(shape, index % shape.outputs());
                let mut best = image + window[0];
                for at in window {
                    if x[image + at] > x[best] {
                        best = image + at;
                    }
                }
                assert_eq!(*got, x[best], "{isa}, {shape:?}");
                expected[best] += gradient[index];
            }
            for accumulate in [false, true] {
                let mut into = vec![0.5; x.len()];
                pool.backward(&gradient, &places, &mut into, accumulate);
                let start = if accumulate { 0.5 } else { 0.0 };
                for (got, expected) in into.iter().zip(&expected) {
                    assert!((got - expected - start).abs() < 1e-5, "{isa}, {shape:?}");
                }
            }
        }
    }

    #[test]
    fn means_and_their_gradients_equal_the_definition() {
        for (isa, shape) in
            Isa::available().flat_map(|isa| shapes().into_iter().map(move |s| (isa, s)))
        {
            let pool = AvgPool::new(shape, isa).expect("it is available");
            let x = numbers(2 * shape.inputs(), 1);
            let mut out = vec![0.0; 2 * shape.outputs()];
            pool.forward(&x, &mut out);
            let gradient = numbers(out.len(), 2);
            let mut expected = vec![0.0; x.len()];
            for (index, got) in out.iter().enumerate() {
                let image = index / shape.outputs() * shape.inputs();
                let window = window(shape, index % shape.outputs());
                let share = 1.0 / window.len() as f32;
                let mean: f32 = window.iter().map(|at| x[image + at] * share).sum();
                assert!((got - mean).abs() < 1e-5, "{isa}, {shape:?}");
                window.iter().for_each(|at| expected[image + at] += gradient[index] * share);
            }
            for accumulate in [false, true] {
                let mut into = vec![0.5; x.len()];
                pool.backward(&gradient, &mut into, accumulate);
                let start = if accumulate { 0.5 } else { 0.0 };
                for (got, expected) in into.iter().zip(&expected) {
                    assert!((got - expected - start).abs() < 1e-5, "{isa}, {shape:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_is_the_maximum() {
        for kernel in [2, 3] {
            let shape = PoolShape {
                channels: 1,
                height: kernel,
                width: kernel,
                kernel,
                stride: 2,
                padding: 0,
            };
            let pool = MaxPool::new(shape, Isa::Portable).expect("a valid shape");
            for at in 0..kernel * kernel {
                let mut x = vec![1.0; kernel * kernel];
                x[at] = f32::NAN;
                let (mut out, mut places) = ([0.0], [0]);
                pool.forward(&x, &mut out, &mut places);
                assert!(out[0].is_nan() && usize::from(places[0]) == at);
            }
        }
    }

    #[test]
    fn shapes_that_cannot_be_are_refused() {
        let good = PoolShape { channels: 1, height: 4, width: 4, kernel: 2, stride: 2, padding: 0 };
        for (bad, named) in [
            (PoolShape { stride: 0, ..good }, "stride"),
            (PoolShape { padding: 2, ..good }, "padding"),
            (PoolShape { kernel: 5, ..good }, "height"),
            (PoolShape { kernel: 256, ..good }, "kernel"),
        ] {
            let error = MaxPool::new(bad, Isa::Portable).expect_err("it cannot be").to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
