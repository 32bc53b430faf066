//! Direct convolution, without im2col: windows are read in place.
//!
//! All three products of a layer are the same two loops (`tile.rs`). The forward pass is [`Windows`] over the
//! padded image. The gradient of the weights is [`Correlate`] of image and output gradient. The gradient of the
//! input is [`Windows`] again, over the padded output gradient with flipped weights, once for every residue of
//! the stride (see [`Phase`]).

use super::{
    blocks::{Block, blocks, padded},
    operands::{ConvGradients, FloatConvShape, FloatScratch, Upstream},
    tile::{Clip, Correlate, Start, Taps, Walk, Windows},
    vector::{Family, FloatCpu, Task, Vector, dispatch},
};
use crate::{ConvShape, Isa, KernelError};

/// Values of temporary memory to use at a time: at 4 bytes each, they stay in the L2 cache.
const SCRATCH: usize = 1 << 16;
/// Smallest number of output pixels to process at a time, so that reading all weights pays off.
const PIXELS: usize = 128;

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
    /// `[groups][blocks][taps][lanes]`.
    forward: Vec<f32>,
    phases: [Vec<Phase>; 2],
    /// `[groups][row phases][column phases][blocks][taps][lanes]`; empty before the first backward pass.
    backward: Vec<f32>,
    bias: Vec<f32>,
    weights: Vec<f32>,
}

/// In one dimension: the inputs with one residue modulo the stride, and the windows that reach them.
///
/// Input `stride * i + residue` lies under tap `first + stride * t` of window `i + offset - t`. So with the
/// taps in reverse order the windows are consecutive, and the gradient of these inputs is a convolution with
/// stride 1.
#[derive(Clone, Copy, Debug)]
struct Phase {
    residue: usize,
    count: usize,
    first: usize,
    taps: usize,
    /// The window whose last tap reaches input 0; negative if it is before the image.
    window: isize,
}

impl Phase {
    fn all(side: usize, shape: ConvShape) -> Vec<Self> {
        let ConvShape { kernel, stride, padding, .. } = shape;
        let phase = |residue: usize| {
            let first = (residue + padding) % stride;
            let taps = kernel.saturating_sub(first).div_ceil(stride);
            let offset = ((residue + padding) / stride) as isize;
            let count = (side - residue).div_ceil(stride);
            Self { residue, count, first, taps, window: offset + 1 - taps as isize }
        };
        (0..stride.min(side)).map(phase).collect()
    }
}

impl FloatConv {
    /// A convolution whose weights are still to be loaded.
    ///
    /// # Errors
    /// [`KernelError`] for an invalid shape, or an instruction set that this processor lacks.
    pub fn new(shape: FloatConvShape, isa: Isa) -> Result<Self, KernelError> {
        let shape = shape.check()?;
        let cpu = FloatCpu::new(isa)?;
        let image = shape.image;
        Ok(Self {
            shape,
            cpu,
            out_blocks: blocks(cpu.isa(), image.outputs / shape.groups),
            in_blocks: blocks(cpu.isa(), image.channels / shape.groups),
            forward: Vec::new(),
            phases: [Phase::all(image.height, image), Phase::all(image.width, image)],
            backward: Vec::new(),
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
        let FloatConvShape { image, groups } = self.shape;
        let (inputs, outputs) = (image.channels / groups, image.outputs / groups);
        self.weights.copy_from_slice(weights);
        self.backward.clear();
        let area = image.kernel * image.kernel;
        self.forward.clear();
        for group in 0..groups {
            for block in &self.out_blocks {
                let first = group * outputs + block.first;
                for tap in 0..area {
                    for input in 0..inputs {
                        let lane =
                            |lane: usize| weights[((first + lane) * inputs + input) * area + tap];
                        self.forward.extend((0..block.channels).map(lane));
                        let empty = block.width() - block.channels;
                        self.forward.extend(std::iter::repeat_n(0.0, empty));
                    }
                }
            }
        }
        self.bias.clear();
        if let Some(bias) = bias {
            assert_eq!(bias.len(), image.outputs, "one bias for every output");
            for bias in bias.chunks_exact(outputs) {
                self.bias.extend(bias);
                self.bias.extend(std::iter::repeat_n(0.0, padded(&self.out_blocks) - outputs));
            }
        }
    }

    /// Packs the weights for the gradient of the input: taps in reverse order, one set for every pair of
    /// phases, with the inputs in the lanes.
    fn pack_backward(&mut self) {
        let FloatConvShape { image, groups } = self.shape;
        let (inputs, outputs) = (image.channels / groups, image.outputs / groups);
        let ConvShape { kernel, stride, .. } = image;
        let area = kernel * kernel;
        let at = |phase: &Phase, tap: usize| phase.first + stride * (phase.taps - 1 - tap);
        let packed = &mut self.backward;
        for group in 0..groups {
            for rows in &self.phases[0] {
                for columns in &self.phases[1] {
                    for block in &self.in_blocks {
                        for tap in 0..rows.taps * columns.taps {
                            let (ky, kx) =
                                (at(rows, tap / columns.taps), at(columns, tap % columns.taps));
                            for output in 0..outputs {
                                let filter = (group * outputs + output) * inputs + block.first;
                                let from = filter * area + ky * kernel + kx;
                                let lane = |lane: usize| self.weights[from + lane * area];
                                packed.extend((0..block.channels).map(lane));
                                let empty = block.width() - block.channels;
                                packed.extend(std::iter::repeat_n(0.0, empty));
                            }
                        }
                    }
                }
            }
        }
    }

    /// `out = conv(x) + bias`, followed by ReLU if `relu` is set.
    ///
    /// # Shapes
    /// - `x`: `[images][height][width][channels]`, `out`: `[images][out_height][out_width][outputs]`
    ///
    /// # Panics
    /// If a buffer has the wrong length.
    pub fn forward(&self, x: &[f32], relu: bool, out: &mut [f32], scratch: &mut FloatScratch) {
        let batch = self.shape.batch(x, out);
        let FloatConvShape { image, groups } = self.shape;
        let (inputs, outputs) = (image.channels / groups, image.outputs / groups);
        let (rows, columns) = (image.out_height(), image.out_width());
        let lanes = padded(&self.out_blocks);
        let depth = inputs * image.kernel * image.kernel;
        let first = -(image.padding as isize);
        let clip = Clip { first, step: image.stride, height: image.height };
        // The padded images of a chunk are made once and stay in the cache for all blocks of outputs.
        for group in 0..groups {
            for (first, images) in self.chunks(batch, self.framed()) {
                let x = &x[first * self.shape.inputs()..][..images * self.shape.inputs()];
                let out = &mut out[first * self.shape.outputs()..][..images * self.shape.outputs()];
                let (x, from, taps) = self.windows(x, group, &mut scratch.x);
                for block in &self.out_blocks {
                    let at = group * lanes + block.first;
                    dispatch(
                        self.cpu,
                        Windows {
                            extent: [images, rows, columns],
                            x,
                            from,
                            taps,
                            clip,
                            weights: &self.forward[at * depth..][..depth * block.width()],
                            y: out,
                            to: Walk {
                                start: group * outputs + block.first,
                                image: self.shape.outputs(),
                                row: columns * image.outputs,
                                column: image.outputs,
                            },
                            block: *block,
                            start: if self.bias.is_empty() {
                                Start::Zero
                            } else {
                                Start::Bias(&self.bias[at..][..block.width()])
                            },
                            relu,
                        },
                    );
                }
            }
        }
    }

    /// The backward pass: computes the gradients in `into` from `gradient`, that of the output.
    ///
    /// After a forward pass with ReLU, `output` must be its result; the gradient then counts only where that is
    /// positive.
    ///
    /// # Shapes
    /// - `x`, `output`, `gradient`: as in [`forward`](Self::forward)
    ///
    /// # Panics
    /// If a buffer has the wrong length.
    pub fn backward(
        &mut self,
        x: &[f32],
        output: Option<&[f32]>,
        gradient: &[f32],
        into: ConvGradients<'_>,
        scratch: &mut FloatScratch,
    ) {
        let batch = self.shape.batch(x, gradient);
        assert!(output.is_none_or(|output| output.len() == gradient.len()), "an output for all");
        let ConvGradients { weights, mut bias, mut input } = into;
        assert_eq!(weights.len(), self.shape.weights(), "a gradient for every weight");
        if let Some(bias) = &mut bias {
            assert_eq!(bias.len(), self.shape.image.outputs, "a gradient for every bias");
            bias.fill(0.0);
        }
        if let Some(input) = &input {
            assert_eq!(input.gradient.len(), x.len(), "a gradient for every input");
            // Packed when first needed, since the first layer of a network has no gradient of its input.
            if self.backward.is_empty() {
                self.pack_backward();
            }
        }
        let (margin, framed) = self.frame(input.is_some());
        let FloatConvShape { image, groups } = self.shape;
        let (inputs, outputs) = (image.channels / groups, image.outputs / groups);
        let (rows, columns) = (image.out_height(), image.out_width());
        let lanes = padded(&self.out_blocks);
        let depth = inputs * image.kernel * image.kernel;
        let first = -(image.padding as isize);
        let clip = Clip { first, step: image.stride, height: image.height };
        let by = Walk {
            start: (margin * framed[1] + margin) * lanes,
            image: framed[0] * framed[1] * lanes,
            row: framed[1] * lanes,
            column: lanes,
        };
        // Gradients of the weights add up over all chunks in the packed layout, and are copied to the network's
        // at the end.
        scratch.sums.clear();
        scratch.sums.resize(groups * depth * lanes, 0.0);
        for group in 0..groups {
            for (first, images) in self.chunks(batch, self.framed() + by.image) {
                let size = self.shape.outputs();
                let part = first * size..(first + images) * size;
                // A copy of the output gradient with ReLU applied, padded in space for the gradient of the
                // input, and padded to whole blocks of channels for the gradient of the weights. The bias
                // gradient is summed on the way.
                scratch.gradient.resize(images * by.image, 0.0);
                dispatch(
                    self.cpu,
                    Frame {
                        from: &gradient[part.clone()],
                        output: output.map(|output| &output[part]),
                        channels: [image.outputs, group * outputs, outputs],
                        sides: [rows, columns],
                        margin,
                        framed,
                        lanes,
                        to: &mut scratch.gradient,
                        sums: bias
                            .as_deref_mut()
                            .map(|bias| &mut bias[group * outputs..][..outputs]),
                    },
                );
                let part = first * self.shape.inputs()..(first + images) * self.shape.inputs();
                let (x, from, taps) = self.windows(&x[part.clone()], group, &mut scratch.x);
                for block in &self.out_blocks {
                    let at = (group * lanes + block.first) * depth;
                    dispatch(
                        self.cpu,
                        Correlate {
                            extent: [images, rows, columns],
                            x,
                            from,
                            taps,
                            clip,
                            gradient: &scratch.gradient,
                            by: Walk { start: by.start + block.first, ..by },
                            sums: &mut scratch.sums[at..][..depth * block.width()],
                            block: *block,
                        },
                    );
                }
                if let Some(Upstream { gradient, accumulate }) = &mut input {
                    let to = &mut gradient[part];
                    self.input_gradient(group, images, (&scratch.gradient, by), to, *accumulate);
                }
            }
        }
        self.unpack(&scratch.sums, weights);
    }

    /// The gradient of the inputs of one group: a convolution with stride 1 for every pair of phases.
    fn input_gradient(
        &self,
        group: usize,
        images: usize,
        (gradient, by): (&[f32], Walk),
        to: &mut [f32],
        accumulate: bool,
    ) {
        let FloatConvShape { image, groups } = self.shape;
        let (inputs, outputs) = (image.channels / groups, image.outputs / groups);
        let mut packed = &self.backward[group * (self.backward.len() / groups)..];
        for rows in &self.phases[0] {
            for columns in &self.phases[1] {
                let taps = rows.taps * columns.taps;
                // The first window of the phase may lie in the padding, before the start of the gradient itself.
                let start = by.start as isize
                    + rows.window * by.row as isize
                    + columns.window * by.column as isize;
                for block in &self.in_blocks {
                    let (weights, others) = packed.split_at(taps * outputs * block.width());
                    packed = others;
                    let at = (rows.residue * image.width + columns.residue) * image.channels;
                    let walk = Walk {
                        start: at + group * inputs + block.first,
                        image: self.shape.inputs(),
                        row: image.stride * image.width * image.channels,
                        column: image.stride * image.channels,
                    };
                    let extent = [images, rows.count, columns.count];
                    if taps == 0 {
                        // No window reaches these inputs, since the stride exceeds the kernel.
                        if !accumulate {
                            clear(extent, to, walk, block.channels);
                        }
                        continue;
                    }
                    dispatch(
                        self.cpu,
                        Windows {
                            extent,
                            x: gradient,
                            from: Walk { start: start as usize, ..by },
                            taps: Taps {
                                rows: rows.taps,
                                row: by.row,
                                runs: columns.taps,
                                run: by.column,
                                len: outputs,
                            },
                            clip: Clip { first: rows.window, step: 1, height: image.out_height() },
                            weights,
                            y: to,
                            to: walk,
                            block: *block,
                            start: if accumulate { Start::There } else { Start::Zero },
                            relu: false,
                        },
                    );
                }
            }
        }
    }

    /// Copies the gradients of packed weights to the layout of the network.
    fn unpack(&self, sums: &[f32], weights: &mut [f32]) {
        let FloatConvShape { image, groups } = self.shape;
        let (inputs, outputs) = (image.channels / groups, image.outputs / groups);
        let area = image.kernel * image.kernel;
        let mut sums = sums.iter();
        for group in 0..groups {
            for block in &self.out_blocks {
                let first = group * outputs + block.first;
                for tap in 0..area {
                    for input in 0..inputs {
                        let lanes = sums.by_ref().take(block.width());
                        for (lane, sum) in lanes.enumerate() {
                            if lane < block.channels {
                                weights[((first + lane) * inputs + input) * area + tap] = *sum;
                            }
                        }
                    }
                }
            }
        }
    }

    /// Splits a batch into runs of images, `(first, number)`, such that a run needs little enough temporary
    /// memory when an image needs `values`.
    fn chunks(&self, batch: usize, values: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let pixels = self.shape.image.out_height() * self.shape.image.out_width();
        let step = (SCRATCH / values.max(1)).max(PIXELS / pixels).clamp(1, batch.max(1));
        (0..batch).step_by(step).map(move |first| (first, step.min(batch - first)))
    }

    /// Number of values of one image and one group, padding included.
    fn framed(&self) -> usize {
        let FloatConvShape { image, groups } = self.shape;
        let margin = 2 * image.padding;
        (image.height + margin) * (image.width + margin) * (image.channels / groups)
    }

    /// The windows of one group: in place if possible, otherwise in a copy with padding and only the channels
    /// of the group.
    fn windows<'a>(
        &self,
        x: &'a [f32],
        group: usize,
        scratch: &'a mut Vec<f32>,
    ) -> (&'a [f32], Walk, Taps) {
        let FloatConvShape { image, groups } = self.shape;
        let ConvShape { kernel, stride, padding, .. } = image;
        let channels = image.channels / groups;
        let framed = [image.height + 2 * padding, image.width + 2 * padding];
        let x = if padding == 0 && groups == 1 {
            x
        } else {
            let images = x.len() / self.shape.inputs();
            scratch.resize(images * framed[0] * framed[1] * channels, 0.0);
            dispatch(
                self.cpu,
                Frame {
                    from: x,
                    output: None,
                    channels: [image.channels, group * channels, channels],
                    sides: [image.height, image.width],
                    margin: padding,
                    framed,
                    lanes: channels,
                    to: scratch,
                    sums: None,
                },
            );
            &*scratch
        };
        let row = framed[1] * channels;
        let from =
            Walk { start: 0, image: framed[0] * row, row: stride * row, column: stride * channels };
        // Columns of a window are adjacent, so that a kernel row is one run.
        (x, from, Taps { rows: kernel, row, runs: 1, run: 0, len: kernel * channels })
    }

    /// The padding of the output gradient that the gradient of the input needs, and the padded sides.
    fn frame(&self, input: bool) -> (usize, [usize; 2]) {
        let sides = [self.shape.image.out_height(), self.shape.image.out_width()];
        if !input {
            return (0, sides);
        }
        let reach = |(phases, side): (&Vec<Phase>, usize)| {
            let reach = |phase: &Phase| {
                let end = phase.window + phase.count as isize - 1 + phase.taps as isize;
                if phase.taps == 0 { 0 } else { (-phase.window).max(end - side as isize).max(0) }
            };
            phases.iter().map(reach).max().unwrap_or(0) as usize
        };
        let margin = self.phases.iter().zip(sides).map(reach).max().unwrap_or(0);
        (margin, sides.map(|side| side + 2 * margin))
    }
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

/// Copies some channels of images to a buffer, with zero padding around each image and after the channels of
/// each pixel.
struct Frame<'a> {
    from: &'a [f32],
    /// If given, zero is written where this is not positive: the backward pass of ReLU.
    output: Option<&'a [f32]>,
    /// Channels of a pixel, the first that is copied, and the number that are copied.
    channels: [usize; 3],
    sides: [usize; 2],
    margin: usize,
    framed: [usize; 2],
    /// Number of values of a pixel in `to`.
    lanes: usize,
    to: &'a mut [f32],
    /// If given, the sum over all pixels is added to it, channel by channel: the gradient of the bias.
    sums: Option<&'a mut [f32]>,
}

impl Task for Frame<'_> {
    #[inline(always)]
    #[allow(unsafe_code, reason = "vector instructions on slices whose lengths are known")]
    fn run<F: Family>(self, _family: F) {
        let [all, first, copied] = self.channels;
        assert!(copied <= self.lanes, "room for all channels of a pixel");
        let [height, width] = self.sides;
        let side = self.margin * self.lanes;
        let plain =
            self.output.is_none() && self.sums.is_none() && copied == all && all == self.lanes;
        let mut sums = self.sums;
        let images = self.to.chunks_exact_mut(self.framed[0] * self.framed[1] * self.lanes);
        for (image, to) in images.enumerate() {
            for (row, to) in to.chunks_exact_mut(self.framed[1] * self.lanes).enumerate() {
                let Some(row) = row.checked_sub(self.margin).filter(|&row| row < height) else {
                    to.fill(0.0);
                    continue;
                };
                let at = (image * height + row) * width * all;
                let part = at..at + width * all;
                let from = &self.from[part.clone()];
                let (left, to) = to.split_at_mut(side);
                let (to, right) = to.split_at_mut(width * self.lanes);
                left.fill(0.0);
                right.fill(0.0);
                if plain {
                    to.copy_from_slice(from);
                    continue;
                }
                let output = self.output.map(|output| &output[part]);
                let pixels =
                    to.chunks_exact_mut(self.lanes).zip(from.chunks_exact(all)).enumerate();
                for (pixel, (to, from)) in pixels {
                    let from = &from[first..first + copied];
                    let output = output.map(|output| &output[pixel * all + first..][..copied]);
                    let mut at = 0;
                    while at < copied {
                        let len = copied - at;
                        // SAFETY: `_family` proves that the processor has the instructions. At most `len`
                        // values are read from and written to slices of `copied` values, or of `lanes`, which
                        // is no fewer.
                        unsafe {
                            let mut values = F::Full::load_up_to(from.as_ptr().add(at), len);
                            if let Some(output) = output {
                                let output = F::Full::load_up_to(output.as_ptr().add(at), len);
                                values = values.where_positive(output);
                            }
                            values.store_up_to(to.as_mut_ptr().add(at), len);
                            if let Some(sums) = &mut sums {
                                let sums = sums[..copied].as_mut_ptr().add(at);
                                F::Full::load_up_to(sums, len).add(values).store_up_to(sums, len);
                            }
                        }
                        at += F::Full::LANES;
                    }
                    to[copied..].fill(0.0);
                }
            }
        }
    }
}
