//! Max and average pooling over channels-last images.

use std::ops::Range;

use super::{
    axis::FloatAxis,
    vector::{Family, FloatCpu, Task, Vector, dispatch},
};
use crate::{
    Isa, KernelError,
    cpu::Cpu,
    vectorise::{Loops, vectorise},
};

/// Pooling windows over images `[height][width][channels]`. Padding is never the maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatPoolShape {
    /// Channels.
    pub channels: usize,
    /// Rows of images and windows.
    pub rows: FloatAxis,
    /// Columns of images and windows.
    pub columns: FloatAxis,
}

impl FloatPoolShape {
    /// Checks the shape, that no window lies in the padding alone, and that positions in a window are small
    /// integers, which f32 holds exactly.
    fn check(self) -> Result<Self, KernelError> {
        if self.channels == 0 {
            let reason = "must be positive";
            return Err(KernelError::Shape { what: "channels", got: 0, reason });
        }
        for (axis, name) in [(self.rows, "height"), (self.columns, "width")] {
            axis.check(name)?;
            let shape = |what, got, reason| Err(KernelError::Shape { what, got, reason });
            if axis.dilation != 1 {
                return shape("dilation", axis.dilation, "must be 1 in a pooling window");
            }
            if axis.kernel > 255 {
                let reason = "exceeds 255, the largest supported window";
                return shape("kernel", axis.kernel, reason);
            }
            if let Some(&padding) = axis.padding.iter().find(|&&padding| padding >= axis.kernel) {
                let reason = "must be less than the kernel, or a window would be empty";
                return shape("padding", padding, reason);
            }
        }
        let sides = [self.rows, self.columns].map(FloatAxis::padded);
        let product = sides[0].checked_mul(sides[1]).and_then(|p| p.checked_mul(self.channels));
        match product.filter(|&product| product <= isize::MAX as usize / 8) {
            Some(_) => Ok(self),
            None => Err(KernelError::TooLarge { what: "activations" }),
        }
    }

    const fn inputs(self) -> usize {
        self.rows.size * self.columns.size * self.channels
    }

    const fn outputs(self) -> usize {
        self.rows.windows() * self.columns.windows() * self.channels
    }

    fn batch(self, x: &[f32], out: &[f32]) -> usize {
        let batch = x.len() / self.inputs();
        assert_eq!(x.len(), batch * self.inputs(), "whole images");
        assert_eq!(out.len(), batch * self.outputs(), "as many results as images");
        batch
    }

    /// Whether every pixel is in exactly one window.
    const fn is_tiling(self) -> bool {
        const fn tiles(axis: FloatAxis) -> bool {
            axis.kernel == axis.stride
                && axis.padded() == axis.size
                && axis.size.is_multiple_of(axis.kernel)
        }
        tiles(self.rows) && tiles(self.columns)
    }

    /// Calls `f(window, [rows, columns] of it before the image, rows, columns)` for all windows of an image.
    #[inline(always)]
    fn windows(self, mut f: impl FnMut(usize, [usize; 2], Range<usize>, Range<usize>)) {
        // The pixels of every window in one dimension, and how many of the window lie before the image.
        let pixels = |axis: FloatAxis| -> Vec<(Range<usize>, usize)> {
            let inside = axis.all_inside().into_iter();
            inside.map(|(taps, first)| (first..first + taps.len(), taps.start)).collect()
        };
        let columns = pixels(self.columns);
        for (row, (rows, above)) in pixels(self.rows).into_iter().enumerate() {
            for (column, (inside, left)) in columns.iter().enumerate() {
                f(row * columns.len() + column, [above, *left], rows.clone(), inside.clone());
            }
        }
    }

    /// Calls `f(window, pixel)` for all pixels of all windows of an image.
    #[inline(always)]
    fn visit(self, mut f: impl FnMut(usize, usize)) {
        self.windows(|window, _, rows, columns| {
            for y in rows {
                for x in columns.clone() {
                    f(window, y * self.columns.size + x);
                }
            }
        });
    }
}

/// Max pooling.
#[derive(Clone, Copy, Debug)]
pub struct MaxPool {
    shape: FloatPoolShape,
    cpu: FloatCpu,
}

impl MaxPool {
    /// A pooling layer.
    ///
    /// # Errors
    /// [`KernelError`] for an invalid shape, or an instruction set that this processor lacks.
    pub fn new(shape: FloatPoolShape, isa: Isa) -> Result<Self, KernelError> {
        Ok(Self { shape: shape.check()?, cpu: FloatCpu::new(isa)? })
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
    shape: FloatPoolShape,
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
                            let from = (y * shape.columns.size + column) * channels + at;
                            F::Full::load_up_to(x.as_ptr().add(from), len)
                        };
                        // The first value is the first candidate, even if it is NaN.
                        let mut best = value(rows.start, columns.start);
                        let mut place =
                            F::Full::splat((above * shape.columns.kernel + left) as f32);
                        for (ky, y) in rows.clone().enumerate() {
                            for (kx, column) in columns.clone().enumerate() {
                                let value = value(y, column);
                                let here = (ky + above) * shape.columns.kernel + kx + left;
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
    shape: FloatPoolShape,
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
                                let here = (ky + above) * shape.columns.kernel + kx + left;
                                let here = F::Full::splat(here as f32);
                                let mut gradient = gradient.where_equal(place, here);
                                let to = (y * shape.columns.size + column) * channels + at;
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
#[derive(Clone, Debug)]
pub struct AvgPool {
    shape: FloatPoolShape,
    cpu: Cpu,
    /// The reciprocal of what every window counts.
    shares: Vec<f32>,
}

impl AvgPool {
    /// A pooling layer. The mean of a window is over its pixels inside the image and inside `counted`: the rows and
    /// the columns of padding, before and behind the image, that count as zeros.
    ///
    /// # Errors
    /// [`KernelError`] for an invalid shape, or an instruction set that this processor lacks.
    pub fn new(
        shape: FloatPoolShape,
        counted: [[usize; 2]; 2],
        isa: Isa,
    ) -> Result<Self, KernelError> {
        let (shape, cpu) = (shape.check()?, Cpu::new(isa)?);
        let counts = |axis: FloatAxis, counted: [usize; 2]| {
            let [before, behind] = [0, 1].map(|side| counted[side].min(axis.padding[side]));
            let count = move |window: usize| {
                let start = window * axis.stride;
                let first = axis.padding[0] - before;
                let end = (start + axis.kernel).min(axis.padding[0] + axis.size + behind);
                (end - start.max(first)) as f32
            };
            (0..axis.windows()).map(count)
        };
        let down = counts(shape.rows, counted[0]);
        let shares = down.flat_map(|rows| {
            counts(shape.columns, counted[1]).map(move |columns| 1.0 / (rows * columns))
        });
        Ok(Self { shape, cpu, shares: shares.collect() })
    }

    /// The mean of every window.
    ///
    /// # Shapes
    /// - `x`: `[images][height][width][channels]`, `out`: `[images][out_height][out_width][channels]`
    ///
    /// # Panics
    /// If a slice has the wrong length.
    pub fn forward(&self, x: &[f32], out: &mut [f32]) {
        let Self { shape, shares, .. } = self;
        shape.batch(x, out);
        vectorise(self.cpu, AvgForward { shape: *shape, shares, x, out });
    }

    /// Distributes the gradient of every window evenly over what it counts. With `accumulate`, adds to `into`
    /// instead of replacing it.
    ///
    /// # Panics
    /// If a slice has the wrong length.
    pub fn backward(&self, gradient: &[f32], into: &mut [f32], accumulate: bool) {
        let Self { shape, shares, .. } = self;
        shape.batch(into, gradient);
        vectorise(self.cpu, AvgBackward { shape: *shape, shares, gradient, into, accumulate });
    }
}

struct AvgForward<'a> {
    shape: FloatPoolShape,
    shares: &'a [f32],
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Loops for AvgForward<'_> {
    #[inline(always)]
    fn run(self) {
        let shape = self.shape;
        let channels = shape.channels;
        let results = self.out.chunks_exact_mut(shape.outputs());
        for (x, out) in self.x.chunks_exact(shape.inputs()).zip(results) {
            out.fill(0.0);
            shape.visit(|window, pixel| {
                let out = &mut out[window * channels..][..channels];
                for (out, x) in out.iter_mut().zip(&x[pixel * channels..][..channels]) {
                    *out += x;
                }
            });
            for (out, share) in out.chunks_exact_mut(channels).zip(self.shares) {
                out.iter_mut().for_each(|out| *out *= share);
            }
        }
    }
}

struct AvgBackward<'a> {
    shape: FloatPoolShape,
    shares: &'a [f32],
    gradient: &'a [f32],
    into: &'a mut [f32],
    accumulate: bool,
}

impl Loops for AvgBackward<'_> {
    #[inline(always)]
    fn run(self) {
        let shape = self.shape;
        let channels = shape.channels;
        let results = self.gradient.chunks_exact(shape.outputs());
        for (into, gradient) in self.into.chunks_exact_mut(shape.inputs()).zip(results) {
            if !self.accumulate {
                into.fill(0.0);
            }
            shape.visit(|window, pixel| {
                let gradient = &gradient[window * channels..][..channels];
                let share = self.shares[window];
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

    fn shapes() -> Vec<FloatPoolShape> {
        let mut shapes = Vec::new();
        let axis = |size, kernel, stride, padding| FloatAxis {
            stride,
            padding,
            ..FloatAxis::new(size, kernel)
        };
        for (height, width) in [(2, 2), (4, 6), (5, 7), (9, 11)] {
            for (kernel, stride, padding) in
                [(2, 2, 0), (2, 1, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1), (1, 2, 0)]
            {
                for channels in [1, 3, 8, 17] {
                    let rows = axis(height, kernel, stride, [padding; 2]);
                    let columns = axis(width, kernel, stride, [padding; 2]);
                    let shape = FloatPoolShape { channels, rows, columns };
                    shapes.extend(shape.check().ok());
                    let columns = axis(width, 4, 3, [1, 3]);
                    shapes.extend(FloatPoolShape { columns, ..shape }.check().ok());
                }
            }
        }
        assert!(shapes.len() > 160);
        shapes
    }

    /// Indices of the values of a window in an image, by the definition.
    fn window(shape: FloatPoolShape, index: usize) -> Vec<usize> {
        let FloatPoolShape { channels, rows, columns } = shape;
        let (channel, pixel) = (index % channels, index / channels);
        let (row, column) = (pixel / columns.windows(), pixel % columns.windows());
        let mut window = Vec::new();
        for ky in 0..rows.kernel {
            for kx in 0..columns.kernel {
                let y = (row * rows.stride + ky).wrapping_sub(rows.padding[0]);
                let x = (column * columns.stride + kx).wrapping_sub(columns.padding[0]);
                if y < rows.size && x < columns.size {
                    window.push((y * columns.size + x) * channels + channel);
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
        let cases = Isa::available().flat_map(|isa| shapes().into_iter().map(move |s| (isa, s)));
        for (isa, shape, counts) in cases.flat_map(|(isa, s)| [(isa, s, false), (isa, s, true)]) {
            // All padding but the last row and column behind the image, as where the last window was rounded up.
            let padding = [shape.rows, shape.columns].map(|axis| axis.padding);
            let counted =
                padding.map(|[b, a]| if counts { [b, a.saturating_sub(1)] } else { [0; 2] });
            let pool = AvgPool::new(shape, counted, isa).expect("it is available");
            let x = numbers(2 * shape.inputs(), 1);
            let mut out = vec![0.0; 2 * shape.outputs()];
            pool.forward(&x, &mut out);
            let gradient = numbers(out.len(), 2);
            let mut expected = vec![0.0; x.len()];
            for (index, got) in out.iter().enumerate() {
                let image = index / shape.outputs() * shape.inputs();
                let window = window(shape, index % shape.outputs());
                let count = |axis: FloatAxis, [before, behind]: [usize; 2], window: usize| {
                    let counts = |tap: &usize| {
                        let at = (window * axis.stride + tap) as isize - axis.padding[0] as isize;
                        at >= -(before as isize) && at < (axis.size + behind) as isize
                    };
                    (0..axis.kernel).filter(counts).count()
                };
                let pixel = index % shape.outputs() / shape.channels;
                let across = shape.columns.windows();
                let rows = count(shape.rows, counted[0], pixel / across);
                let columns = count(shape.columns, counted[1], pixel % across);
                assert!(counts || rows * columns == window.len());
                let share = 1.0 / (rows * columns) as f32;
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
            let axis = FloatAxis { stride: 2, ..FloatAxis::new(kernel, kernel) };
            let shape = FloatPoolShape { channels: 1, rows: axis, columns: axis };
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
        let good = FloatAxis { stride: 2, ..FloatAxis::new(4, 2) };
        for (bad, named) in [
            (FloatAxis { stride: 0, ..good }, "stride"),
            (FloatAxis { padding: [0, 2], ..good }, "padding"),
            (FloatAxis { kernel: 5, ..good }, "width"),
            (FloatAxis { kernel: 256, size: 256, ..good }, "kernel"),
            (FloatAxis { dilation: 2, ..good }, "dilation"),
            (FloatAxis { kernel: 1, size: 1 << 62, ..good }, "activations"),
        ] {
            let bad = FloatPoolShape { channels: 1, rows: good, columns: bad };
            let error = MaxPool::new(bad, Isa::Portable).expect_err("it cannot be").to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
