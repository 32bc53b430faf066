//! Depthwise convolution: each channel is convolved with its own kernel.

use super::{
    operands::{ConvGradients, FloatConvShape, Upstream},
    rectifier::Rectifier,
    vector::{Family, FloatCpu, Task, Vector, dispatch},
};
use crate::{Isa, KernelError};

/// A depthwise convolution layer, with as many groups as input channels and as outputs.
#[derive(Clone, Debug)]
pub struct FloatDepthwise {
    shape: FloatConvShape,
    cpu: FloatCpu,
    /// `[taps][channels]`.
    weights: Vec<f32>,
    bias: Vec<f32>,
    /// Gradients of the weights, in the same layout.
    sums: Vec<f32>,
}

impl FloatDepthwise {
    /// Whether a shape is that of a depthwise convolution with one output per channel.
    #[must_use]
    pub const fn fits(shape: FloatConvShape) -> bool {
        shape.groups == shape.channels && shape.groups == shape.outputs
    }

    /// A convolution whose weights are still to be loaded.
    ///
    /// # Errors
    /// [`KernelError`] for an invalid shape, one that does not [fit](Self::fits), or an instruction set that this
    /// processor lacks.
    pub fn new(shape: FloatConvShape, isa: Isa) -> Result<Self, KernelError> {
        let shape = shape.check()?;
        if !Self::fits(shape) {
            let reason =
                "must equal the number of channels and of outputs in a depthwise convolution";
            return Err(KernelError::Shape { what: "groups", got: shape.groups, reason });
        }
        let cpu = FloatCpu::new(isa)?;
        let zeros = vec![0.0; shape.weights()];
        let bias = vec![0.0; shape.groups];
        Ok(Self { shape, cpu, weights: zeros.clone(), bias, sums: zeros })
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
        assert_eq!(weights.len(), self.weights.len(), "weights");
        let (channels, area) = (self.shape.groups, weights.len() / self.shape.groups);
        for (channel, filter) in weights.chunks_exact(area).enumerate() {
            for (tap, weight) in filter.iter().enumerate() {
                self.weights[tap * channels + channel] = *weight;
            }
        }
        match bias {
            Some(bias) => self.bias.copy_from_slice(bias),
            None => self.bias.fill(0.0),
        }
    }

    /// As [`FloatConv::forward`](super::FloatConv::forward).
    ///
    /// # Panics
    /// If a buffer has the wrong length.
    pub fn forward(&self, x: &[f32], rectifier: Rectifier, out: &mut [f32]) {
        self.shape.batch(x, out);
        let Self { shape, weights, bias, .. } = self;
        dispatch(self.cpu, Forward { shape: *shape, weights, bias, x, rectifier, out });
    }

    /// As [`FloatConv::backward`](super::FloatConv::backward).
    ///
    /// # Panics
    /// If a buffer has the wrong length.
    pub fn backward(
        &mut self,
        x: &[f32],
        (rectifier, output): (Rectifier, &[f32]),
        gradient: &[f32],
        into: ConvGradients<'_>,
    ) {
        self.shape.batch(x, gradient);
        let rectified = rectifier != Rectifier::None;
        assert!(!rectified || output.len() == gradient.len(), "an output for all");
        let channels = self.shape.groups;
        let ConvGradients { weights, mut bias, mut input } = into;
        assert_eq!(weights.len(), self.weights.len(), "a gradient for every weight");
        if let Some(bias) = &mut bias {
            assert_eq!(bias.len(), channels, "a gradient for every bias");
            bias.fill(0.0);
        }
        if let Some(Upstream { gradient, accumulate }) = &mut input {
            assert_eq!(gradient.len(), x.len(), "a gradient for every input");
            if !*accumulate {
                gradient.fill(0.0);
            }
        }
        // With channels in the lanes, the kernel needs taps outermost: `[taps][channels]`. The network has them
        // innermost.
        self.sums.fill(0.0);
        dispatch(
            self.cpu,
            Backward {
                shape: self.shape,
                weights: &self.weights,
                x,
                output: rectified.then_some((rectifier, output)),
                gradient,
                sums: &mut self.sums,
                bias,
                input: input.map(|input| input.gradient),
            },
        );
        let area = weights.len() / channels;
        for (channel, filter) in weights.chunks_exact_mut(area).enumerate() {
            for (tap, weight) in filter.iter_mut().enumerate() {
                *weight = self.sums[tap * channels + channel];
            }
        }
    }
}

/// The part of one kernel row that lies inside the image.
#[derive(Clone, Copy)]
struct Run {
    /// Pixel of the input under its first tap.
    pixel: usize,
    /// Its first tap.
    tap: usize,
    /// Number of taps.
    count: usize,
}

/// Calls `f(pixel of the result, runs)` for every pixel of the result.
#[inline(always)]
fn runs(shape: FloatConvShape, mut f: impl FnMut(usize, &[Run])) {
    let (rows, columns) = (shape.rows.all_inside(), shape.columns.all_inside());
    let mut found = Vec::with_capacity(shape.rows.kernel);
    for (row, (down, y)) in rows.iter().enumerate() {
        for (column, (across, x)) in columns.iter().enumerate() {
            found.clear();
            for (below, ky) in down.clone().enumerate() {
                found.push(Run {
                    pixel: (y + below * shape.rows.dilation) * shape.columns.size + x,
                    tap: ky * shape.columns.kernel + across.start,
                    count: across.len(),
                });
            }
            f(row * columns.len() + column, &found);
        }
    }
}

struct Forward<'a> {
    shape: FloatConvShape,
    weights: &'a [f32],
    bias: &'a [f32],
    x: &'a [f32],
    rectifier: Rectifier,
    out: &'a mut [f32],
}

#[allow(unsafe_code, reason = "vector instructions on slices whose lengths were checked")]
impl Task for Forward<'_> {
    #[inline(always)]
    fn run<F: Family>(self, _family: F) {
        let channels = self.shape.groups;
        let apart = self.shape.columns.dilation;
        assert_eq!(self.weights.len(), self.shape.weights(), "weights");
        assert_eq!(self.bias.len(), channels, "a bias for every channel");
        let images = self.x.chunks_exact(self.shape.inputs());
        for (x, out) in images.zip(self.out.chunks_exact_mut(self.shape.outputs())) {
            runs(self.shape, |pixel, runs| {
                let out = &mut out[pixel * channels..][..channels];
                let mut at = 0;
                while at < channels {
                    let len = channels - at;
                    // SAFETY: `_family` proves that the processor has the instructions. Every pixel and every tap
                    // has `channels` values, `len` of which are left, and all of them lie inside their slices.
                    unsafe {
                        let mut sum = F::Full::load_up_to(self.bias.as_ptr().add(at), len);
                        for &Run { pixel, tap, count } in runs {
                            for i in 0..count {
                                let x = x.as_ptr().add((pixel + i * apart) * channels + at);
                                let weight = self.weights.as_ptr().add((tap + i) * channels + at);
                                let x = F::Full::load_up_to(x, len);
                                sum = sum.add_product(x, F::Full::load_up_to(weight, len));
                            }
                        }
                        let sum = self.rectifier.apply(sum);
                        sum.store_up_to(out.as_mut_ptr().add(at), len);
                    }
                    at += F::Full::LANES;
                }
            });
        }
    }
}

struct Backward<'a> {
    shape: FloatConvShape,
    weights: &'a [f32],
    x: &'a [f32],
    output: Option<(Rectifier, &'a [f32])>,
    gradient: &'a [f32],
    sums: &'a mut [f32],
    bias: Option<&'a mut [f32]>,
    input: Option<&'a mut [f32]>,
}

#[allow(unsafe_code, reason = "vector instructions on slices whose lengths were checked")]
impl Task for Backward<'_> {
    #[inline(always)]
    fn run<F: Family>(mut self, _family: F) {
        let channels = self.shape.groups;
        let apart = self.shape.columns.dilation;
        let (inputs, outputs) = (self.shape.inputs(), self.shape.outputs());
        assert_eq!(self.weights.len(), self.shape.weights(), "weights");
        assert_eq!(self.sums.len(), self.shape.weights(), "a sum for every weight");
        assert!(self.bias.as_ref().is_none_or(|bias| bias.len() == channels), "biases");
        for image in 0..self.x.len() / inputs {
            let x = &self.x[image * inputs..][..inputs];
            let mut into =
                self.input.as_deref_mut().map(|input| &mut input[image * inputs..][..inputs]);
            runs(self.shape, |pixel, runs| {
                let here = image * outputs + pixel * channels;
                let gradient = &self.gradient[here..][..channels];
                let output =
                    self.output.map(|(rectifier, output)| (rectifier, &output[here..][..channels]));
                let mut at = 0;
                while at < channels {
                    let len = channels - at;
                    // SAFETY: as in `Forward`; the sums have the length of the weights.
                    unsafe {
                        let mut gradient = F::Full::load_up_to(gradient.as_ptr().add(at), len);
                        if let Some((rectifier, output)) = output {
                            let output = F::Full::load_up_to(output.as_ptr().add(at), len);
                            gradient = rectifier.backward(gradient, output);
                        }
                        if let Some(bias) = &mut self.bias {
                            let bias = bias.as_mut_ptr().add(at);
                            F::Full::load_up_to(bias, len).add(gradient).store_up_to(bias, len);
                        }
                        for &Run { pixel, tap, count } in runs {
                            for i in 0..count {
                                let from = (pixel + i * apart) * channels + at;
                                let tap = (tap + i) * channels + at;
                                let x = F::Full::load_up_to(x.as_ptr().add(from), len);
                                let sum = self.sums.as_mut_ptr().add(tap);
                                F::Full::load_up_to(sum, len)
                                    .add_product(x, gradient)
                                    .store_up_to(sum, len);
                                if let Some(into) = &mut into {
                                    let weight =
                                        F::Full::load_up_to(self.weights.as_ptr().add(tap), len);
                                    let into = into.as_mut_ptr().add(from);
                                    F::Full::load_up_to(into, len)
                                        .add_product(weight, gradient)
                                        .store_up_to(into, len);
                                }
                            }
                        }
                    }
                    at += F::Full::LANES;
                }
            });
        }
    }
}
