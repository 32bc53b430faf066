//! Gradient of the inputs of a convolution as one matrix product, whose values are then added up where they belong:
//! the steps of im2col, backwards.
//!
//! The direct gradient (`conv.rs`) asks of every input which windows lie over it. Near the edge of an image it multiplies by
//! padding, and its vectors hold input channels, of which few may be left for the last one. The product instead asks of every
//! window which inputs lie under it, in vectors of all taps and channels, and pays for that with one more pass over its values.

use super::{
    blocks::Block,
    matmul::{Matrix, matmul},
    operands::FloatConvShape,
    vector::{Family, FloatCpu, Task, Vector, dispatch},
};

/// What adding up costs for each vector of the product, in multiply-adds of a vector: measured on LeNet's second
/// convolution, 0.6 ms beside 2.6 ms for the product itself.
const ADDING: usize = 12;

/// Values of the product at a time: at 4 bytes each, they stay in the L2 cache.
const PRODUCT: usize = 1 << 16;

/// Whether this takes fewer steps than the direct gradient, whose blocks of input channels are given.
pub(super) fn is_faster(shape: FloatConvShape, blocks: &[Block]) -> bool {
    // The taps of a row lie side by side, and so do the channels of a pixel.
    if shape.groups > 1 || shape.columns.dilation > 1 {
        return false;
    }
    let inside: usize = shape.rows.all_inside().iter().map(|(taps, _)| taps.len()).sum();
    let across = shape.columns.size * shape.columns.kernel.div_ceil(shape.columns.stride);
    let vectors: usize = blocks.iter().map(|block| block.vectors).sum();
    let direct = inside * across * vectors * shape.outputs;
    let lanes = blocks.iter().map(|block| block.lanes).max().unwrap_or(1);
    let windows = shape.rows.windows() * shape.columns.windows();
    let added = windows * (shape.area() * shape.channels).div_ceil(lanes);
    added * (shape.outputs + ADDING) < direct
}

/// The weights as the product takes them, `[outputs][kernel rows][kernel columns][channels]`.
pub(super) fn pack(shape: FloatConvShape, weights: &[f32], packed: &mut Vec<f32>) {
    let (channels, area) = (shape.channels, shape.area());
    for filter in weights.chunks_exact(channels * area) {
        for tap in 0..area {
            packed.extend((0..channels).map(|channel| filter[channel * area + tap]));
        }
    }
}

/// The gradient of the inputs, from that of the outputs with `lanes` values a pixel, the last of which are not looked at.
///
/// # Shapes
/// - `gradient`: `[images][out_height][out_width][lanes]`, `to`: `[images][height][width][channels]`
pub(super) fn input_gradient(
    (shape, cpu): (FloatConvShape, FloatCpu),
    (gradient, lanes): (&[f32], usize),
    packed: &[f32],
    to: &mut [f32],
    accumulate: bool,
    product: &mut Vec<f32>,
) {
    let windows = shape.rows.windows() * shape.columns.windows();
    let width = shape.area() * shape.channels;
    let images = (PRODUCT / (windows * width)).max(1);
    if !accumulate {
        to.fill(0.0);
    }
    let weights = Matrix::new(packed, shape.outputs, width);
    let gradients = gradient.chunks(images * windows * lanes);
    for (gradient, to) in gradients.zip(to.chunks_mut(images * shape.inputs())) {
        let pixels = gradient.len() / lanes;
        product.resize(pixels * width, 0.0);
        let gradient = Matrix::new(gradient, pixels, lanes).first_columns(shape.outputs);
        matmul(gradient, weights, product, false);
        dispatch(cpu, Sum { shape, product, to });
    }
}

/// Adds the product of every window to the inputs under it.
struct Sum<'a> {
    shape: FloatConvShape,
    /// `[images][out_height][out_width][kernel rows][kernel columns][channels]`.
    product: &'a [f32],
    /// `[images][height][width][channels]`.
    to: &'a mut [f32],
}

impl Task for Sum<'_> {
    #[inline(always)]
    fn run<F: Family>(self, family: F) {
        let FloatConvShape { channels, rows, columns, .. } = self.shape;
        let run = columns.kernel * channels;
        let [down, across] = [rows.all_inside(), columns.all_inside()];
        let mut windows = self.product.chunks_exact(rows.kernel * run);
        for to in self.to.chunks_exact_mut(self.shape.inputs()) {
            for (taps_down, top) in &down {
                for ((taps, left), window) in across.iter().zip(windows.by_ref()) {
                    if taps.is_empty() {
                        continue;
                    }
                    let len = taps.len() * channels;
                    for (row, tap) in taps_down.clone().enumerate() {
                        let from = &window[tap * run + taps.start * channels..][..len];
                        let pixel = (top + row * rows.dilation) * columns.size + left;
                        add(family, from, &mut to[pixel * channels..][..len]);
                    }
                }
            }
        }
    }
}

/// `to += from`.
#[inline(always)]
#[allow(unsafe_code, reason = "vector instructions on slices whose lengths are known")]
fn add<F: Family>(_family: F, from: &[f32], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "as many sums as values");
    for at in (0..from.len()).step_by(F::Full::LANES) {
        let len = from.len() - at;
        // SAFETY: `_family` proves that the processor has the instructions; at most `len` values are read and written,
        // behind `at`, of slices that are as long as each other.
        unsafe {
            let (from, to) = (from.as_ptr().add(at), to.as_mut_ptr().add(at));
            F::Full::load_up_to(to, len).add(F::Full::load_up_to(from, len)).store_up_to(to, len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConvGradients, FloatAxis, FloatConv, FloatScratch, Isa, Rectifier, Upstream};

    fn chosen(channels: usize, outputs: usize, side: usize, kernel: usize, padding: usize) -> bool {
        let axis = FloatAxis { padding: [padding; 2], ..FloatAxis::new(side, kernel) };
        let shape = FloatConvShape { channels, outputs, groups: 1, rows: axis, columns: axis };
        Isa::available().into_iter().all(|isa| FloatConv::new(shape, isa).unwrap().adds_up)
    }

    #[test]
    fn it_is_chosen_where_padding_and_empty_lanes_make_the_direct_way_slow() {
        assert!(chosen(20, 50, 12, 5, 0), "LeNet's second convolution");
        assert!(!chosen(16, 16, 32, 3, 1), "ResNet-20's first stage");
        assert!(!chosen(64, 64, 8, 3, 1), "ResNet-20's last stage");
        assert!(!chosen(512, 512, 2, 3, 1), "VGG-11's last convolutions");
    }

    #[test]
    fn both_ways_give_the_same_gradient() {
        let rows = FloatAxis { stride: 2, dilation: 2, padding: [3, 1], ..FloatAxis::new(9, 3) };
        let columns = FloatAxis { padding: [1, 2], ..FloatAxis::new(7, 4) };
        let shape = FloatConvShape { channels: 5, outputs: 11, groups: 1, rows, columns };
        let values = |count: usize, step: usize| -> Vec<f32> {
            (0..count).map(|i| (i * step % 41) as f32 / 20.0 - 1.0).collect()
        };
        let (images, weights) = (3, values(shape.weights(), 7));
        let x = values(images * shape.inputs(), 11);
        let gradient = values(images * shape.outputs(), 13);
        for isa in Isa::available() {
            let mut conv = FloatConv::new(shape, isa).unwrap();
            conv.load(&weights, None);
            let before = values(x.len(), 17);
            let [direct, added] = [false, true].map(|adds_up| {
                conv.adds_up = adds_up;
                conv.load(&weights, None);
                let gradients = [false, true].map(|accumulate| {
                    let mut input = before.clone();
                    let into = ConvGradients {
                        weights: &mut vec![0.0; weights.len()],
                        bias: None,
                        input: Some(Upstream { gradient: &mut input, accumulate }),
                    };
                    let none = (Rectifier::None, &[][..]);
                    conv.backward(&x, none, &gradient, into, &mut FloatScratch::default());
                    input
                });
                gradients.concat()
            });
            for (direct, added) in direct.iter().zip(&added) {
                // At most 11 outputs under 12 taps, each product at most 1.
                assert!(
                    (direct - added).abs() < 132.0 * 12.0 * f32::EPSILON,
                    "{isa}: {direct}, {added}"
                );
            }
        }
    }
}
