//! Max and average pooling over channels-last images.

use std::ops::Range;

use super::vector::{Family, FloatCpu, Task, Vector, dispatch};
use crate::{
    Isa, KernelError, PoolShape,
    cpu::Cpu,
    vectorise::{Loops, vectorise},
};

impl PoolShape {
    /// Checks the shape, and that positions in a window are small integers, which f32 holds exactly.
    fn check_window(self) -> Result<Self, KernelError> {
        self.check()?;
        if self.kernel > 255 {
            let reason = "exceeds 255, the largest supported window";
            return Err(KernelError::Shape { what: "kernel", got: self.kernel, reason });
        }
        Ok(self)
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

    /// Whether every pixel is in exactly one window.
    const fn is_tiling(self) -> bool {
        self.kernel == self.stride
            && self.padding == 0
            && self.height.is_multiple_of(self.kernel)
            && self.width.is_multiple_of(self.kernel)
    }

    /// In one dimension: the rows (or columns) of window `out` that lie inside the image, and how many rows of
    /// the window lie before the image.
    #[inline(always)]
    fn inside(self, out: usize, side: usize) -> (Range<usize>, usize) {
        let start = out * self.stride;
        let from = start.saturating_sub(self.padding);
        let to = (start + self.kernel).saturating_sub(self.padding).min(side);
        (from..to, self.padding.saturating_sub(start))
    }

    /// Calls `f(window, [rows, columns] of it before the image, rows, columns)` for all windows of an image.
    #[inline(always)]
    fn windows(self, mut f: impl FnMut(usize, [usize; 2], Range<usize>, Range<usize>)) {
        for row in 0..self.out_height() {
            let (rows, above) = self.inside(row, self.height);
            for column in 0..self.out_width() {
                let (columns, left) = self.inside(column, self.width);
                f(row * self.out_width() + column, [above, left], rows.clone(), columns);
            }
        }
    }

    /// Calls `f(window, pixel)` for all pixels of all windows of an image.
    #[inline(always)]
    fn visit(self, mut f: impl FnMut(usize, usize)) {
        self.windows(|window, _, rows, columns| {
            for y in rows {
                for x in columns.clone() {
                    f(window, y * self.width + x);
                }
            }
        });
    }
}

/// Max pooling.
#[derive(Clone, Copy, Debug)]
pub struct MaxPool {
    shape: PoolShape,
    cpu: FloatCpu,
}

impl MaxPool {
    /// A pooling layer.
    ///
    /// # Errors
    /// [`KernelError`] for an invalid shape, or an instruction set that this processor lacks.
    pub fn new(shape: PoolShape, isa: Isa) -> Result<Self, KernelError> {
        Ok(Self { shape: shape.check_window()?, cpu: FloatCpu::new(isa)? })
    }

    /// The maximum of every window and, if `places` is given, its position in the window: the first of equal
    /// ones. NaN counts as larger than any number.
    ///
    /// # Shapes
    /// - `x`: `[images][height][width][channels]`; `out`, `places`: `[images][out_height][out_width][channels]`,
    ///   places as whole numbers, row by row
    ///
    /// # Panics
    /// If a slice has the wrong length.
    pub fn forward(&self, x: &[f32], out: &mut [f32], places: Option<&mut [f32]>) {
        dispatch(self.cpu, MaxForward { shape: self.shape, x, out, places });
    }

    /// Passes the gradient of every window on to the position of its maximum. With `accumulate`, adds to `into`
    /// instead of replacing it.
    ///
    /// # Panics
    /// If a slice has the wrong length.
    pub fn backward(&self, gradient: &[f32], places: &[f32], into: &mut [f32], accumulate: bool) {
        let shape = self.shape;
        dispatch(self.cpu, MaxBackward { shape, gradient, places, into, accumulate });
    }
}

struct MaxForward<'a> {
    shape: PoolShape,
    x: &'a [f32],
    out: &'a mut [f32],
    places: Option<&'a mut [f32]>,
}

#[allow(unsafe_code, reason = "vector instructions on slices whose lengths were checked")]
impl Task for MaxForward<'_> {
    #[inline(always)]
    fn run<F: Family>(mut self, _family: F) {
        let shape = self.shape;
        let channels = shape.channels;
        shape.batch(self.x, self.out);
        let results = self.out.len();
        assert!(
            self.places.as_ref().is_none_or(|p| p.len() == results),
            "a place for every result"
        );
        for (image, x) in self.x.chunks_exact(shape.inputs()).enumerate() {
            shape.windows(|window, [above, left], rows, columns| {
                let result = image * shape.outputs() + window * channels;
                let mut at = 0;
                while at < channels {
                    let len = channels - at;
                    // SAFETY: `_family` proves that the processor has the instructions. Windows lie inside their
                    // images, whose pixels all have `channels` values, `len` of which are left.
                    unsafe {
                        let value = |y: usize, column: usize| {
                            let from = (y * shape.width + column) * channels + at;
                            F::Full::load_up_to(x.as_ptr().add(from), len)
                        };
                        // The first value is the first candidate, even if it is NaN.
                        let mut best = value(rows.start, columns.start);
                        let mut place = F::Full::splat((above * shape.kernel + left) as f32);
                        for (ky, y) in rows.clone().enumerate() {
                            for (kx, column) in columns.clone().enumerate() {
                                let value = value(y, column);
                                let here = (ky + above) * shape.kernel + kx + left;
                                let here = F::Full::splat(here as f32);
                                place = place.replace_where_greater(here, value, best);
                                best = best.replace_where_greater(value, value, best);
                            }
                        }
                        best.store_up_to(self.out.as_mut_ptr().add(result + at), len);
                        if let Some(places) = &mut self.places {
                            place.store_up_to(places.as_mut_ptr().add(result + at), len);
                        }
                    }
                    at += F::Full::LANES;
                }
            });
        }
    }
}

struct MaxBackward<'a> {
    shape: PoolShape,
    gradient: &'a [f32],
    places: &'a [f32],
    into: &'a mut [f32],
    accumulate: bool,
}

#[allow(unsafe_code, reason = "vector instructions on slices whose lengths were checked")]
impl Task for MaxBackward<'_> {
    #[inline(always)]
    fn run<F: Family>(self, _family: F) {
        let shape = self.shape;
        let channels = shape.channels;
        shape.batch(self.into, self.gradient);
        assert_eq!(self.places.len(), self.gradient.len(), "a place for every result");
        // If every pixel is in exactly one window, gradients can be stored without clearing and adding.
        let adds = self.accumulate || !shape.is_tiling();
        for (image, into) in self.into.chunks_exact_mut(shape.inputs()).enumerate() {
            if adds && !self.accumulate {
                into.fill(0.0);
            }
            shape.windows(|window, [above, left], rows, columns| {
                let result = image * shape.outputs() + window * channels;
                let mut at = 0;
                while at < channels {
                    let len = channels - at;
                    // SAFETY: as in `MaxForward`; the lengths were compared above.
                    unsafe {
                        let load = |values: &[f32]| {
                            F::Full::load_up_to(values.as_ptr().add(result + at), len)
                        };
                        let (gradient, place) = (load(self.gradient), load(self.places));
                        for (ky, y) in rows.clone().enumerate() {
                            for (kx, column) in columns.clone().enumerate() {
                                let here = (ky + above) * shape.kernel + kx + left;
                                let here = F::Full::splat(here as f32);
                                let mut gradient = gradient.where_equal(place, here);
                                let to = (y * shape.width + column) * channels + at;
                                let to = into.as_mut_ptr().add(to);
                                if adds {
                                    gradient = gradient.add(F::Full::load_up_to(to, len));
                                }
                                gradient.store_up_to(to, len);
                            }
                        }
                    }
                    at += F::Full::LANES;
                }
            });
        }
    }
}

/// Average pooling.
#[derive(Clone, Copy, Debug)]
pub struct AvgPool {
    shape: PoolShape,
    cpu: Cpu,
}

impl AvgPool {
    /// A pooling layer.
    ///
    /// # Errors
    /// [`KernelError`] for an invalid shape, or an instruction set that this processor lacks.
    pub fn new(shape: PoolShape, isa: Isa) -> Result<Self, KernelError> {
        Ok(Self { shape: shape.check_window()?, cpu: Cpu::new(isa)? })
    }

    /// The mean of every window.
    ///
    /// # Shapes
    /// - `x`: `[images][height][width][channels]`, `out`: `[images][out_height][out_width][channels]`
    ///
    /// # Panics
    /// If a slice has the wrong length.
    pub fn forward(&self, x: &[f32], out: &mut [f32]) {
        self.shape.batch(x, out);
        vectorise(self.cpu, AvgForward { shape: self.shape, x, out });
    }

    /// Distributes the gradient of every window evenly over its pixels. With `accumulate`, adds to `into` instead of
    /// replacing it.
    ///
    /// # Panics
    /// If a slice has the wrong length.
    pub fn backward(&self, gradient: &[f32], into: &mut [f32], accumulate: bool) {
        self.shape.batch(into, gradient);
        vectorise(self.cpu, AvgBackward { shape: self.shape, gradient, into, accumulate });
    }
}

/// The reciprocal of the number of pixels of every window.
fn shares(shape: PoolShape) -> Vec<f32> {
    let mut counts = vec![0.0_f32; shape.out_height() * shape.out_width()];
    shape.visit(|window, _| counts[window] += 1.0);
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
            shape.visit(|window, pixel| {
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
            shape.visit(|window, pixel| {
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
                    shapes.extend(shape.check_window().ok());
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
                (vec![0.0; 3 * shape.outputs()], vec![0.0; 3 * shape.outputs()]);
            pool.forward(&x, &mut out, Some(&mut places));
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
                let (mut out, mut places) = ([0.0], [0.0]);
                pool.forward(&x, &mut out, Some(&mut places));
                assert!(out[0].is_nan() && places[0] == at as f32);
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
