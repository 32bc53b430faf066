//! Direct convolution, without im2col: windows are read in place.
//!
//! All three products of a layer are the same two loops (`tile.rs`). The forward pass is [`Windows`] over the
//! padded image. The gradient of the weights is [`Correlate`] of image and output gradient. The gradient of the
//! input is [`Windows`] again, over the padded output gradient with flipped weights, once for every residue of
//! the stride (see [`Phase`]); or, where that is cheaper, a matrix product (`add_up.rs`).

use super::{
    add_up,
    axis::FloatAxis,
    bf16::{FloatPrecision, PairCpu, dispatch_pairs},
    blocks::{Block, blocks, padded},
    frame::{Frame, Layout, PairFrame, RoundFrame, pair_taps},
    operands::{ConvGradients, FloatConvShape, FloatScratch, Upstream},
    rectifier::Rectifier,
    tile::{Bf16, Clip, Correlate, Extent, Fp32, Operand, Start, Taps, Walk, Windows},
    vector::{FloatCpu, dispatch},
};
use crate::{Isa, KernelError};

/// Values of temporary memory to use at a time: at 4 bytes each, they stay in the L2 cache.
const SCRATCH: usize = 1 << 16;
/// Smallest number of output pixels to process at a time, so that reading all weights pays off.
const PIXELS: usize = 128;
/// Weights of one output to pack or unpack at a time: those of a block of outputs are then half of the first-level cache.
const STRIP: usize = 128;
/// With fewer input channels a layer computes in f32 whatever was asked for: a tile would be too few sums for pairs to pay.
const FEW: usize = 8;

/// A convolution layer with forward and backward pass, for batches of any size.
///
/// [`load`](Self::load) packs the weights once; all passes until the next call use them.
#[derive(Clone, Debug)]
pub struct FloatConv {
    shape: FloatConvShape,
    cpu: FloatCpu,
    /// Blocks of the outputs of one group.
    out_blocks: Vec<Block>,
    /// Blocks of the inputs of one group.
    in_blocks: Vec<Block>,
    /// `[groups][blocks][taps][lanes]`; in bf16 only what pairs are made of, as `backward` is.
    forward: Vec<f32>,
    phases: [Vec<Phase>; 2],
    /// Whether the gradient of the inputs is a product that is added up, since the direct way is slower.
    pub(super) adds_up: bool,
    /// For the direct way: `[groups][row phases][column phases][blocks][taps][lanes]`; empty before the first backward pass.
    backward: Vec<f32>,
    /// What multiplies pairs of bf16, if products are to be in bf16.
    pairs: Option<PairCpu>,
    /// `forward` and `backward` in pairs of adjacent taps.
    forward_pairs: Vec<u16>,
    backward_pairs: Vec<u16>,
    bias: Vec<f32>,
    weights: Vec<f32>,
}

/// In one dimension: the inputs with one residue modulo the stride, and the windows that reach them.
///
/// With `g` the greatest common divisor of stride and dilation, input `stride * i + residue` lies under tap
/// `first + (stride / g) * t` of window `i + offset - (dilation / g) * t`, and under no other. So with the taps in
/// reverse order the windows are evenly spaced, and the gradient of these inputs is a convolution with stride 1.
#[derive(Clone, Copy, Debug)]
struct Phase {
    residue: usize,
    count: usize,
    first: usize,
    /// Number of taps that reach the inputs.
    taps: usize,
    /// From one of these taps to the next.
    step: usize,
    /// From one of their windows to the next.
    spread: usize,
    /// The window whose last tap reaches input 0; negative if it is before the image.
    window: isize,
}

impl Phase {
    fn all(axis: FloatAxis) -> Vec<Self> {
        let FloatAxis { size, kernel, stride, dilation, padding: [before, _] } = axis;
        let divisor = greatest_common_divisor(stride, dilation);
        let (step, spread) = (stride / divisor, dilation / divisor);
        let phase = |residue: usize| {
            let at = residue + before;
            let first = (0..kernel.min(step)).find(|tap| tap * dilation % stride == at % stride);
            let count = (size - residue).div_ceil(stride);
            let Some(first) = first else {
                return Self { residue, count, first: 0, taps: 0, step, spread, window: 0 };
            };
            let taps = (kernel - first).div_ceil(step);
            let offset = (at as isize - (first * dilation) as isize) / stride as isize;
            let window = offset - ((taps - 1) * spread) as isize;
            Self { residue, count, first, taps, step, spread, window }
        };
        (0..stride.min(size)).map(phase).collect()
    }

    /// The windows that reach the inputs, from the first to behind the last; those before and behind the image
    /// count as well.
    const fn windows(self) -> [isize; 2] {
        if self.taps == 0 {
            return [0, 0];
        }
        let last = self.count - 1 + (self.taps - 1) * self.spread;
        [self.window, self.window + last as isize + 1]
    }
}

const fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

impl FloatConv {
    /// A convolution whose weights are still to be loaded.
    ///
    /// # Errors
    /// [`KernelError`] for an invalid shape, or an instruction set that this processor lacks.
    pub fn new(shape: FloatConvShape, isa: Isa) -> Result<Self, KernelError> {
        Self::with_precision(shape, isa, FloatPrecision::Fp32)
    }

    /// The same with products in `precision`. With fewer than 8 input channels in a group they stay in f32. In bf16, what is
    /// close to the largest f32 becomes infinite, and an infinite or undefined value may reach the windows beside its own, with
    /// images of one pixel also those of the images beside its own.
    ///
    /// # Errors
    /// As [`new`](Self::new) and [`FloatPrecision::check`].
    pub fn with_precision(
        shape: FloatConvShape,
        isa: Isa,
        precision: FloatPrecision,
    ) -> Result<Self, KernelError> {
        let shape = shape.check()?;
        let cpu = FloatCpu::new(isa)?;
        let pairs = match precision {
            FloatPrecision::Fp32 => None,
            FloatPrecision::Bf16 => Some(PairCpu::new(isa)?),
        };
        let pairs = pairs.filter(|_| shape.channels / shape.groups >= FEW);
        let in_blocks = blocks(cpu.isa(), shape.channels / shape.groups);
        Ok(Self {
            shape,
            cpu,
            out_blocks: blocks(cpu.isa(), shape.outputs / shape.groups),
            adds_up: pairs.is_none() && add_up::is_faster(shape, &in_blocks),
            in_blocks,
            forward: Vec::new(),
            phases: [Phase::all(shape.rows), Phase::all(shape.columns)],
            backward: Vec::new(),
            pairs,
            forward_pairs: Vec::new(),
            backward_pairs: Vec::new(),
            bias: Vec::new(),
            weights: vec![0.0; shape.weights()],
        })
    }

    /// The shape.
    #[must_use]
    pub const fn shape(&self) -> FloatConvShape {
        self.shape
    }

    /// Loads weights, and a bias if there is one.
    ///
    /// # Panics
    /// If their numbers do not match the shape.
    pub fn load(&mut self, weights: &[f32], bias: Option<&[f32]>) {
        let FloatConvShape { channels, groups, .. } = self.shape;
        let (inputs, outputs) = (channels / groups, self.shape.outputs / groups);
        self.weights.copy_from_slice(weights);
        self.backward.clear();
        let area = self.shape.area();
        // Lanes behind the outputs stay 0.
        self.forward.resize(groups * area * inputs * padded(&self.out_blocks), 0.0);
        let forward = &mut self.forward;
        each_strip(self.shape, &self.out_blocks, |Strip { weight, packed, width, count }| {
            let weights = weights[weight..].iter().step_by(area);
            let packed = forward[packed..].iter_mut().step_by(width);
            packed.zip(weights).take(count).for_each(|(packed, weight)| *packed = *weight);
        });
        if let Some(cpu) = self.pairs {
            let taps = self.run().1;
            let blocks = (0..groups).flat_map(|_| self.out_blocks.iter());
            let runs = blocks.map(|block| (area * inputs / taps, taps, block.width()));
            pair_taps(cpu, &self.forward, runs, &mut self.forward_pairs);
        }
        self.bias.clear();
        if let Some(bias) = bias {
            assert_eq!(bias.len(), self.shape.outputs, "one bias for every output");
            for bias in bias.chunks_exact(outputs) {
                self.bias.extend(bias);
                self.bias.extend(std::iter::repeat_n(0.0, padded(&self.out_blocks) - outputs));
            }
        }
    }

    /// Packs the weights for the gradient of the input: for the direct way taps in reverse order, one set for every pair
    /// of phases, with the inputs in the lanes.
    fn pack_backward(&mut self) {
        if self.adds_up {
            return add_up::pack(self.shape, &self.weights, &mut self.backward);
        }
        let FloatConvShape { channels, groups, .. } = self.shape;
        let (inputs, outputs) = (channels / groups, self.shape.outputs / groups);
        let area = self.shape.area();
        let width = self.shape.columns.kernel;
        let at = |phase: &Phase, tap: usize| phase.first + phase.step * (phase.taps - 1 - tap);
        let reached = |axis: usize| self.phases[axis].iter().map(|phase| phase.taps).sum::<usize>();
        let taps = reached(0) * reached(1);
        let part = taps * outputs * padded(&self.in_blocks);
        self.backward.resize(groups * part, 0.0);
        // One output after the other, since reading a part of each would be slow.
        for (output, weights) in self.weights.chunks_exact(inputs * area).enumerate() {
            let (group, output) = (output / outputs, output % outputs);
            let mut packed = &mut self.backward[group * part..];
            for rows in &self.phases[0] {
                for columns in &self.phases[1] {
                    for block in &self.in_blocks {
                        let taps = rows.taps * columns.taps;
                        let (part, others) = packed.split_at_mut(taps * outputs * block.width());
                        packed = others;
                        for tap in 0..taps {
                            let (ky, kx) =
                                (at(rows, tap / columns.taps), at(columns, tap % columns.taps));
                            let from = &weights[block.first * area + ky * width + kx..];
                            let lanes = &mut part[(tap * outputs + output) * block.width()..];
                            let lanes = lanes[..block.channels].iter_mut();
                            lanes.zip(from.iter().step_by(area)).for_each(|(to, from)| *to = *from);
                        }
                    }
                }
            }
        }
        if let Some(cpu) = self.pairs {
            let phases = |axis: usize| self.phases[axis].iter();
            let taps = (0..groups)
                .flat_map(|_| phases(0))
                .flat_map(|rows| phases(1).map(|columns| rows.taps * columns.taps));
            let runs = taps.flat_map(|taps| {
                self.in_blocks.iter().map(move |block| (taps, outputs, block.width()))
            });
            pair_taps(cpu, &self.backward, runs, &mut self.backward_pairs);
        }
    }

    /// `out = rectifier(conv(x) + bias)`.
    ///
    /// # Shapes
    /// - `x`: `[images][height][width][channels]`, `out`: `[images][out_height][out_width][outputs]`
    ///
    /// # Panics
    /// If a buffer has the wrong length.
    pub fn forward(
        &self,
        x: &[f32],
        rectifier: Rectifier,
        out: &mut [f32],
        scratch: &mut FloatScratch,
    ) {
        let batch = self.shape.batch(x, out);
        let groups = self.shape.groups;
        let outputs = self.shape.outputs / groups;
        let [rows, columns] = [self.shape.rows.windows(), self.shape.columns.windows()];
        let clip = self.clip();
        // The padded images of a chunk are made once and stay in the cache for all blocks of outputs.
        for group in 0..groups {
            let layout = self.layout(group);
            for (first, images) in self.chunks(batch, layout.image()) {
                let x = &x[first * self.shape.inputs()..][..images * self.shape.inputs()];
                let out = &mut out[first * self.shape.outputs()..][..images * self.shape.outputs()];
                let (from, taps) = self.windows();
                let walk = Walk {
                    start: group * outputs,
                    image: self.shape.outputs(),
                    row: columns * self.shape.outputs,
                    column: self.shape.outputs,
                };
                let (extent, [from, walk]) =
                    self.side_by_side([images, rows, columns], [from, walk]);
                let sums = Sums { extent, from, taps, clip, walk, rectifier };
                match self.pairs {
                    None => {
                        let x = self.framed_images(x, group, &mut scratch.x);
                        self.multiply::<Fp32>(group, &sums, x, &self.forward, out, &|windows| {
                            dispatch(self.cpu, windows);
                        });
                    }
                    Some(cpu) => {
                        let x = rounded_images(cpu, x, images, layout, &mut scratch.rounded);
                        let weights = &self.forward_pairs;
                        self.multiply::<Bf16>(group, &sums, x, weights, out, &|windows| {
                            dispatch_pairs(cpu, windows);
                        });
                    }
                }
            }
        }
    }

    /// The forward pass of one group and some images, one block of outputs after the other.
    fn multiply<O: Operand>(
        &self,
        group: usize,
        sums: &Sums,
        x: &[O::Value],
        weights: &[O::Value],
        out: &mut [f32],
        run: &dyn Fn(Windows<'_, O>),
    ) {
        let &Sums { extent, from, taps, clip, walk, rectifier } = sums;
        let lanes = padded(&self.out_blocks);
        let depth = taps.terms(O::VALUES) * O::VALUES;
        for block in &self.out_blocks {
            let at = group * lanes + block.first;
            run(Windows {
                extent,
                x,
                from,
                taps,
                clip,
                weights: &weights[at * depth..][..depth * block.width()],
                y: out,
                to: Walk { start: walk.start + block.first, ..walk },
                block: *block,
                start: if self.bias.is_empty() {
                    Start::Zero
                } else {
                    Start::Bias(&self.bias[at..][..block.width()])
                },
                rectifier,
            });
        }
    }

    /// The backward pass: computes the gradients in `into` from `gradient`, that of the output.
    ///
    /// `output` is what the forward pass with this rectifier gave; without one it may be empty.
    ///
    /// # Shapes
    /// - `x`, `output`, `gradient`: as in [`forward`](Self::forward)
    ///
    /// # Panics
    /// If a buffer has the wrong length.
    pub fn backward(
        &mut self,
        x: &[f32],
        (rectifier, output): (Rectifier, &[f32]),
        gradient: &[f32],
        into: ConvGradients<'_>,
        scratch: &mut FloatScratch,
    ) {
        let batch = self.shape.batch(x, gradient);
        let rectified = rectifier != Rectifier::None;
        assert!(!rectified || output.len() == gradient.len(), "an output for all");
        let ConvGradients { weights, mut bias, mut input } = into;
        assert_eq!(weights.len(), self.shape.weights(), "a gradient for every weight");
        if let Some(bias) = &mut bias {
            assert_eq!(bias.len(), self.shape.outputs, "a gradient for every bias");
            bias.fill(0.0);
        }
        if let Some(input) = &input {
            assert_eq!(input.gradient.len(), x.len(), "a gradient for every input");
            // Packed when first needed, since the first layer of a network has no gradient of its input.
            if self.backward.is_empty() {
                self.pack_backward();
            }
        }
        let (margin, framed) = self.frame(input.is_some() && !self.adds_up);
        let FloatConvShape { channels, groups, .. } = self.shape;
        let (inputs, outputs) = (channels / groups, self.shape.outputs / groups);
        let [rows, columns] = [self.shape.rows.windows(), self.shape.columns.windows()];
        let lanes = padded(&self.out_blocks);
        let depth = inputs * self.shape.area();
        let by = Walk {
            start: (margin[0] * framed[1] + margin[1]) * lanes,
            image: framed[0] * framed[1] * lanes,
            row: framed[1] * lanes,
            column: lanes,
        };
        // Gradients of the weights add up over all chunks in the packed layout, and are copied to the network's
        // at the end.
        scratch.sums.clear();
        scratch.sums.resize(groups * depth * lanes, 0.0);
        for group in 0..groups {
            for (first, images) in self.chunks(batch, self.layout(group).image() + by.image) {
                let size = self.shape.outputs();
                let part = first * size..(first + images) * size;
                // In bf16, zeros around the gradient come with the rounding.
                let unframed = Layout {
                    channels: [self.shape.outputs, group * outputs, outputs],
                    ..Layout::plain(lanes, [rows, columns])
                };
                let layout = match self.pairs {
                    None => Layout { margin, framed, ..unframed },
                    Some(_) => unframed,
                };
                let of_outputs = if layout.is_identity() && !rectified && bias.is_none() {
                    &gradient[part]
                } else {
                    // A copy of the output gradient with ReLU applied, padded in space for the gradient of the
                    // input, and padded to whole blocks of channels for the gradient of the weights. The bias
                    // gradient is summed on the way.
                    scratch.gradient.resize(images * layout.image(), 0.0);
                    let sums = bias.as_deref_mut();
                    let frame = Frame {
                        from: &gradient[part.clone()],
                        output: rectified.then(|| (rectifier, &output[part])),
                        layout,
                        to: &mut scratch.gradient,
                        sums: sums.map(|bias| &mut bias[group * outputs..][..outputs]),
                    };
                    dispatch(self.cpu, frame);
                    &scratch.gradient
                };
                let part = first * self.shape.inputs()..(first + images) * self.shape.inputs();
                let x = &x[part.clone()];
                let sums = &mut scratch.sums[group * lanes * depth..][..lanes * depth];
                let extent = [images, rows, columns];
                match self.pairs {
                    None => {
                        let x = self.framed_images(x, group, &mut scratch.x);
                        let (from, taps) = self.windows();
                        let (extent, [from, by]) = self.side_by_side(extent, [from, by]);
                        let operands = ((x, from, taps), (of_outputs, by));
                        self.correlate::<Fp32>(extent, operands, sums, &|correlate| {
                            dispatch(self.cpu, correlate);
                        });
                    }
                    Some(cpu) => {
                        let pairs = (&mut scratch.x_pairs, &mut scratch.gradient_pairs);
                        self.correlate_pairs((cpu, group), extent, (x, of_outputs), sums, pairs);
                    }
                }
                if let Some(Upstream { gradient, accumulate }) = &mut input {
                    let (to, accumulate) = (&mut gradient[part], *accumulate);
                    if self.adds_up {
                        let (how, from) = ((self.shape, self.cpu), (of_outputs, lanes));
                        let (packed, product) = (&self.backward, &mut scratch.product);
                        add_up::input_gradient(how, from, packed, to, accumulate, product);
                    } else if let Some(cpu) = self.pairs {
                        let layout =
                            Layout { margin, framed, ..Layout::plain(lanes, [rows, columns]) };
                        let from =
                            rounded_images(cpu, of_outputs, images, layout, &mut scratch.rounded);
                        let from = (from, by, &self.backward_pairs[..]);
                        self.input_gradient::<Bf16>(
                            (group, images),
                            from,
                            to,
                            accumulate,
                            &|windows| {
                                dispatch_pairs(cpu, windows);
                            },
                        );
                    } else {
                        let from = (of_outputs, by, &self.backward[..]);
                        self.input_gradient::<Fp32>(
                            (group, images),
                            from,
                            to,
                            accumulate,
                            &|windows| {
                                dispatch(self.cpu, windows);
                            },
                        );
                    }
                }
            }
        }
        let area = self.shape.area();
        each_strip(self.shape, &self.out_blocks, |Strip { weight, packed, width, count }| {
            let weights = weights[weight..].iter_mut().step_by(area);
            let sums = scratch.sums[packed..].iter().step_by(width);
            weights.zip(sums).take(count).for_each(|(weight, sum)| *weight = *sum);
        });
    }

    /// The gradient of the weights of one group, one block of outputs after the other: adds to `sums`.
    fn correlate<O: Operand>(
        &self,
        extent: Extent,
        ((x, from, taps), (gradient, by)): Operands<'_, O>,
        sums: &mut [f32],
        run: &dyn Fn(Correlate<'_, O>),
    ) {
        let clip = self.clip();
        for block in &self.out_blocks {
            run(Correlate {
                extent,
                x,
                from,
                taps,
                clip,
                gradient,
                by: Walk { start: by.start + block.first * O::VALUES, ..by },
                sums: &mut sums[block.first * taps.count()..][..taps.count() * block.width()],
                block: *block,
            });
        }
    }

    /// As [`correlate`](Self::correlate) in bf16, of images and the gradient of their outputs as they are. Terms are of two pixels
    /// side by side: both operands are paired up first.
    fn correlate_pairs(
        &self,
        (cpu, group): (PairCpu, usize),
        extent: Extent,
        (x, gradient): (&[f32], &[f32]),
        sums: &mut [f32],
        (x_pairs, gradient_pairs): (&mut Vec<u16>, &mut Vec<u16>),
    ) {
        let lanes = padded(&self.out_blocks);
        let (from, taps) = self.windows();
        let (extent, [from]) = self.side_by_side(extent, [from]);
        let [images, rows, columns] = extent;

        let layout = self.layout(group);
        // Of images of one pixel, all are a row.
        let layout = match self.is_one_pixel() {
            true => Layout { sides: [1, columns], framed: [1, columns], ..layout },
            false => layout,
        };
        x_pairs.resize(images * layout.framed[0] * PairFrame::row(layout, 1), 0);
        let distance = from.column / layout.lanes;
        dispatch_pairs(cpu, PairFrame { from: x, layout, step: 1, distance, to: x_pairs });

        let layout = Layout::plain(lanes, [rows, columns]);
        let row = PairFrame::row(layout, 2);
        gradient_pairs.resize(images * rows * row, 0);
        let to = &mut gradient_pairs[..];
        dispatch_pairs(cpu, PairFrame { from: gradient, layout, step: 2, distance: 1, to });

        let from = Walk {
            start: 2 * from.start,
            image: 2 * from.image,
            row: 2 * from.row,
            column: 4 * from.column,
        };
        let taps = Taps { row: 2 * taps.row, run: 2 * taps.run, ..taps };
        let by = Walk { start: 0, image: rows * row, row, column: lanes * 2 };
        let operands = ((&x_pairs[..], from, taps), (&gradient_pairs[..], by));
        let pairs = columns.div_ceil(2);
        self.correlate::<Bf16>([images, rows, pairs], operands, sums, &|correlate| {
            dispatch_pairs(cpu, correlate);
        });
    }

    /// The gradient of the inputs of one group, from that of the outputs and packed weights: a convolution with stride 1 for
    /// every pair of phases.
    fn input_gradient<O: Operand>(
        &self,
        (group, images): (usize, usize),
        (gradient, by, packed): (&[O::Value], Walk, &[O::Value]),
        to: &mut [f32],
        accumulate: bool,
        run: &dyn Fn(Windows<'_, O>),
    ) {
        let FloatConvShape { channels, groups, .. } = self.shape;
        let (inputs, outputs) = (channels / groups, self.shape.outputs / groups);
        let width = self.shape.columns.size;
        let mut packed = &packed[group * (packed.len() / groups)..];
        let depth = outputs.next_multiple_of(O::VALUES);
        for rows in &self.phases[0] {
            for columns in &self.phases[1] {
                let taps = rows.taps * columns.taps;
                // The first window of the phase may lie in the padding, before the start of the gradient itself.
                let start = by.start as isize
                    + rows.window * by.row as isize
                    + columns.window * by.column as isize;
                for block in &self.in_blocks {
                    let (weights, others) = packed.split_at(taps * depth * block.width());
                    packed = others;
                    let at = (rows.residue * width + columns.residue) * channels;
                    let walk = Walk {
                        start: at + group * inputs + block.first,
                        image: self.shape.inputs(),
                        row: self.shape.rows.stride * width * channels,
                        column: self.shape.columns.stride * channels,
                    };
                    let from = Walk { start: start as usize, ..by };
                    let (extent, [from, walk]) =
                        self.side_by_side([images, rows.count, columns.count], [from, walk]);
                    if taps == 0 {
                        // No window reaches these inputs, since the stride exceeds the kernel.
                        if !accumulate {
                            clear(extent, to, walk, block.channels);
                        }
                        continue;
                    }
                    run(Windows {
                        extent,
                        x: gradient,
                        from,
                        taps: Taps {
                            rows: rows.taps,
                            row: rows.spread * by.row,
                            runs: columns.taps,
                            run: columns.spread * by.column,
                            len: outputs,
                        },
                        clip: Clip {
                            first: rows.window,
                            step: 1,
                            spread: rows.spread,
                            height: self.shape.rows.windows(),
                        },
                        weights,
                        y: to,
                        to: walk,
                        block: *block,
                        start: if accumulate { Start::There } else { Start::Zero },
                        rectifier: Rectifier::None,
                    });
                }
            }
        }
    }

    /// Splits a batch into runs of images, `(first, number)`, such that a run needs little enough temporary
    /// memory when an image needs `values`.
    fn chunks(&self, batch: usize, values: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let pixels = self.shape.rows.windows() * self.shape.columns.windows();
        let step = (SCRATCH / values.max(1)).max(PIXELS / pixels).clamp(1, batch.max(1));
        (0..batch).step_by(step).map(move |first| (first, step.min(batch - first)))
    }

    /// Whether images are single pixels, so that the layer is fully connected.
    const fn is_one_pixel(&self) -> bool {
        self.shape.rows.padded() == 1 && self.shape.columns.padded() == 1
    }

    /// Images of one pixel count as the columns of a single row, since tiles go along rows.
    fn side_by_side<const N: usize>(
        &self,
        extent: Extent,
        walks: [Walk; N],
    ) -> (Extent, [Walk; N]) {
        if !self.is_one_pixel() {
            return (extent, walks);
        }
        ([1, 1, extent[0]], walks.map(|walk| Walk { column: walk.image, ..walk }))
    }

    /// The rows of the image that windows reach.
    const fn clip(&self) -> Clip {
        let FloatAxis { size, stride, dilation, padding, .. } = self.shape.rows;
        Clip { first: -(padding[0] as isize), step: stride, spread: dilation, height: size }
    }

    /// The padded images of one group.
    fn layout(&self, group: usize) -> Layout {
        let FloatConvShape { channels: all, groups, rows, columns, .. } = self.shape;
        let channels = all / groups;
        Layout {
            channels: [all, group * channels, channels],
            sides: [rows.size, columns.size],
            margin: [rows.padding[0], columns.padding[0]],
            framed: [rows.padded(), columns.padded()],
            lanes: channels,
        }
    }

    /// These images: in place if possible, otherwise in a copy with padding and only the channels of the group.
    fn framed_images<'a>(
        &self,
        x: &'a [f32],
        group: usize,
        scratch: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let layout = self.layout(group);
        if layout.is_identity() {
            return x;
        }
        scratch.resize(x.len() / self.shape.inputs() * layout.image(), 0.0);
        dispatch(self.cpu, Frame { from: x, output: None, layout, to: scratch, sums: None });
        scratch
    }

    /// The windows of padded images.
    const fn windows(&self) -> (Walk, Taps) {
        let FloatConvShape { channels, groups, rows, columns, .. } = self.shape;
        let channels = channels / groups;
        let row = columns.padded() * channels;
        let from = Walk {
            start: 0,
            image: rows.padded() * row,
            row: rows.stride * row,
            column: columns.stride * channels,
        };
        let (runs, len) = self.run();
        let run = columns.dilation * channels;
        (from, Taps { rows: rows.kernel, row: rows.dilation * row, runs, run, len })
    }

    /// Runs of a row of a window, and the values of each: adjacent columns are one run, others are a run each.
    const fn run(&self) -> (usize, usize) {
        let FloatConvShape { channels, groups, columns, .. } = self.shape;
        match columns.dilation {
            1 => (1, columns.kernel * (channels / groups)),
            _ => (columns.kernel, channels / groups),
        }
    }

    /// The padding above and left of the output gradient that the gradient of the input needs, and the padded
    /// sides.
    fn frame(&self, input: bool) -> ([usize; 2], [usize; 2]) {
        let sides = [self.shape.rows.windows(), self.shape.columns.windows()];
        if !input {
            return ([0; 2], sides);
        }
        let most = |axis: usize, beyond: &dyn Fn([isize; 2]) -> isize| {
            let beyond = self.phases[axis].iter().map(|phase| beyond(phase.windows()));
            beyond.max().unwrap_or(0).max(0) as usize
        };
        let margin = [0, 1].map(|axis| most(axis, &|[first, _]| -first));
        let behind = [0, 1].map(|axis| most(axis, &|[_, end]| end - sides[axis] as isize));
        (margin, [0, 1].map(|axis| margin[axis] + sides[axis] + behind[axis]))
    }
}

/// Weights of one output and one tap, for some adjacent inputs: in the network's layout every area-th, packed every width-th.
struct Strip {
    /// Index of the first one in the network's layout.
    weight: usize,
    /// And packed.
    packed: usize,
    width: usize,
    count: usize,
}

/// Calls `copy` for all weights, strip by strip, with where they are in the network's layout and where packed by blocks of outputs,
/// `[groups][blocks][taps][lanes]`. Some inputs at a time, so that what is packed side by side stays in the cache from one
/// output to the next.
fn each_strip(shape: FloatConvShape, blocks: &[Block], mut copy: impl FnMut(Strip)) {
    let FloatConvShape { channels, groups, .. } = shape;
    let (inputs, outputs, area) = (channels / groups, shape.outputs / groups, shape.area());
    let (depth, lanes) = (area * inputs, padded(blocks));
    let some = (STRIP / area).max(1);
    for (group, block) in
        (0..groups).flat_map(|group| blocks.iter().map(move |block| (group, block)))
    {
        let width = block.width();
        for input in (0..inputs).step_by(some) {
            let count = some.min(inputs - input);
            for lane in 0..block.channels {
                let output = group * outputs + block.first + lane;
                for tap in 0..area {
                    let weight = (output * inputs + input) * area + tap;
                    let packed = (group * lanes + block.first) * depth
                        + (tap * inputs + input) * width
                        + lane;
                    copy(Strip { weight, packed, width, count });
                }
            }
        }
    }
}

/// Where the forward pass of one group finds its windows, and where the sums go.
struct Sums {
    extent: Extent,
    from: Walk,
    taps: Taps,
    clip: Clip,
    /// Starts at the first output of the group.
    walk: Walk,
    rectifier: Rectifier,
}

/// What the gradient of the weights is a product of: images with their windows, and the gradient of the outputs.
type Operands<'a, O> =
    ((&'a [<O as Operand>::Value], Walk, Taps), (&'a [<O as Operand>::Value], Walk));

/// Copies of images in bf16, and one value more: a pair may begin with the last one.
fn rounded_images<'a>(
    cpu: PairCpu,
    from: &[f32],
    images: usize,
    layout: Layout,
    to: &'a mut Vec<u16>,
) -> &'a [u16] {
    let values = images * layout.image();
    to.resize(values + 1, 0);
    to[values] = 0;
    dispatch_pairs(cpu, RoundFrame { from, layout, to: &mut to[..values] });
    to
}

/// Writes zeros to the channels of a block, for every pixel.
fn clear([images, rows, columns]: [usize; 3], to: &mut [f32], walk: Walk, channels: usize) {
    for image in 0..images {
        for row in 0..rows {
            for column in 0..columns {
                let at = walk.start + image * walk.image + row * walk.row + column * walk.column;
                to[at..at + channels].fill(0.0);
            }
        }
    }
}
