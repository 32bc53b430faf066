//! f32 convolutions against plain loops in double precision, on every instruction set, each called directly.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;
use releq_kernels::{
    ConvGradients, FloatAxis, FloatConv, FloatConvShape, FloatDepthwise, FloatPrecision,
    FloatScratch, Isa, Rectifier, Upstream,
};

/// Tolerated rounding error of a sum, relative to the sum of the magnitudes of its terms: 64 times that of one addition.
/// A term that is missing or counted twice is a much larger error, as no sum here has more than 20,000 terms.
const TOLERANCE: f64 = 64.0 / (1 << 24) as f64;

/// Independent random numbers between -1 and 1. Sums of regular sequences would drift and always round the same way.
fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut rng =
        proptest::test_runner::TestRng::from_seed(RngAlgorithm::ChaCha, &[seed as u8; 32]);
    (0..len).map(|_| rng.next_u32() as f32 / (1u64 << 31) as f32 - 1.0).collect()
}

/// A sum and the sum of the magnitudes of its terms, which bounds the rounding error.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    value: f64,
    magnitude: f64,
}

impl std::ops::AddAssign<f64> for Sum {
    fn add_assign(&mut self, term: f64) {
        self.value += term;
        self.magnitude += term.abs();
    }
}

impl From<f32> for Sum {
    fn from(value: f32) -> Self {
        Self { value: value.into(), magnitude: value.abs().into() }
    }
}

/// The results of a forward and a backward pass.
#[derive(Debug)]
struct Results {
    out: Vec<Sum>,
    weights: Vec<Sum>,
    bias: Vec<Sum>,
    input: Vec<Sum>,
}

/// Where every product comes from: calls `f(output, input, weight)`.
fn products(shape: FloatConvShape, images: usize, mut f: impl FnMut(usize, usize, usize)) {
    let FloatConvShape { channels, groups, rows, columns, .. } = shape;
    let (inputs, outputs) = (channels / groups, shape.outputs / groups);
    // The pixel under a tap of a window, if it lies inside the image.
    let under = |axis: FloatAxis, window: usize, tap: usize| {
        let at = (window * axis.stride + tap * axis.dilation).checked_sub(axis.padding[0]);
        at.filter(|&at| at < axis.size)
    };
    for image in 0..images {
        for (row, column) in
            (0..rows.windows()).flat_map(|r| (0..columns.windows()).map(move |c| (r, c)))
        {
            for output in 0..shape.outputs {
                let pixel = (image * rows.windows() + row) * columns.windows() + column;
                let out = pixel * shape.outputs + output;
                for input in 0..inputs {
                    for (ky, kx) in
                        (0..rows.kernel).flat_map(|y| (0..columns.kernel).map(move |x| (y, x)))
                    {
                        if let (Some(y), Some(x)) =
                            (under(rows, row, ky), under(columns, column, kx))
                        {
                            let channel = output / outputs * inputs + input;
                            let from =
                                ((image * rows.size + y) * columns.size + x) * channels + channel;
                            let weight = ((output * inputs + input) * rows.kernel + ky)
                                * columns.kernel
                                + kx;
                            f(out, from, weight);
                        }
                    }
                }
            }
        }
    }
}

/// By the definition. `upstream` is added to the gradient of the input.
fn reference(
    shape: FloatConvShape,
    images: usize,
    [x, weights, bias, gradient, upstream]: [&[f32]; 5],
    rectifier: Rectifier,
) -> Results {
    let channels = shape.outputs;
    let ceiling = match rectifier {
        Rectifier::Clipped { ceiling } => f64::from(ceiling),
        _ => f64::INFINITY,
    };
    let rectifies = rectifier != Rectifier::None;
    let mut out: Vec<Sum> = (0..images * shape.outputs())
        .map(|index| bias.get(index % channels).copied().unwrap_or(0.0).into())
        .collect();
    products(shape, images, |to, from, weight| {
        out[to] += f64::from(x[from]) * f64::from(weights[weight]);
    });
    let mut results = Results {
        weights: vec![Sum::default(); weights.len()],
        bias: vec![Sum::default(); channels],
        input: upstream.iter().map(|&value| value.into()).collect(),
        out: Vec::new(),
    };
    let masked: Vec<f64> = gradient
        .iter()
        .zip(&out)
        .map(|(g, out)| {
            // In single precision, as kernels see it: what is just below the ceiling may round up to it.
            let value = out.value as f32;
            let inside = value > 0.0 && f64::from(value) < ceiling;
            if rectifies && !inside { 0.0 } else { f64::from(*g) }
        })
        .collect();
    products(shape, images, |to, from, weight| {
        results.weights[weight] += masked[to] * f64::from(x[from]);
        results.input[from] += masked[to] * f64::from(weights[weight]);
    });
    for (index, gradient) in masked.iter().enumerate() {
        results.bias[index % channels] += *gradient;
    }
    if rectifies {
        out.iter_mut().for_each(|out| out.value = out.value.clamp(0.0, ceiling));
    }
    results.out = out;
    results
}

fn close(got: &[f32], expected: &[Sum], context: &str) {
    close_to(got, expected, TOLERANCE, context);
}

fn close_to(got: &[f32], expected: &[Sum], tolerance: f64, context: &str) {
    assert_eq!(got.len(), expected.len(), "{context}");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let distance = (f64::from(*got) - expected.value).abs();
        let ok = distance <= tolerance * expected.magnitude;
        assert!(ok, "{context}: value {index} is {got}, expected {expected:?}");
    }
}

/// The kernels under one name.
enum Kernel {
    Direct(FloatConv),
    Depthwise(FloatDepthwise),
}

impl Kernel {
    fn load(&mut self, weights: &[f32], bias: Option<&[f32]>) {
        match self {
            Self::Direct(conv) => conv.load(weights, bias),
            Self::Depthwise(conv) => conv.load(weights, bias),
        }
    }

    fn forward(
        &self,
        x: &[f32],
        rectifier: Rectifier,
        out: &mut [f32],
        scratch: &mut FloatScratch,
    ) {
        match self {
            Self::Direct(conv) => conv.forward(x, rectifier, out, scratch),
            Self::Depthwise(conv) => conv.forward(x, rectifier, out),
        }
    }

    fn backward(
        &mut self,
        x: &[f32],
        output: (Rectifier, &[f32]),
        gradient: &[f32],
        into: ConvGradients<'_>,
        scratch: &mut FloatScratch,
    ) {
        match self {
            Self::Direct(conv) => conv.backward(x, output, gradient, into, scratch),
            Self::Depthwise(conv) => conv.backward(x, output, gradient, into),
        }
    }
}

/// From so many input channels on, a convolution that is asked for bf16 computes in it.
const FEWEST: usize = 8;

/// Checks everything a convolution gives, on every instruction set, with a scratch that others have used.
fn check(shape: FloatConvShape, images: usize, scratch: &mut FloatScratch) {
    let shape = shape.check().unwrap();
    check_in(FloatPrecision::Fp32, shape, images, scratch);
    check_in(FloatPrecision::Bf16, shape, images, scratch);
}

/// Operands of products in bf16 are in bf16 already, so that both precisions have the same error.
fn check_in(
    precision: FloatPrecision,
    shape: FloatConvShape,
    images: usize,
    scratch: &mut FloatScratch,
) {
    let operand = |len, seed| {
        let mut numbers = numbers(len, seed);
        if precision == FloatPrecision::Bf16 {
            let cut = |number: &mut f32| *number = f32::from_bits(number.to_bits() & 0xffff_0000);
            numbers.iter_mut().for_each(cut);
        }
        numbers
    };
    let x = operand(images * shape.inputs(), 1);
    let weights = operand(shape.weights(), 2);
    let all_bias = numbers(shape.outputs, 3);
    let gradient = operand(images * shape.outputs(), 4);
    // Of products in bf16 all instruction sets give the same bits.
    let mut given: Vec<Vec<u32>> = Vec::new();
    for isa in Isa::available().filter(|&isa| precision.check(isa).is_ok()) {
        let direct = FloatConv::with_precision(shape, isa, precision).unwrap();
        let mut kernels = vec![Kernel::Direct(direct)];
        if FloatDepthwise::fits(shape) && precision == FloatPrecision::Fp32 {
            kernels.push(Kernel::Depthwise(FloatDepthwise::new(shape, isa).unwrap()));
        }
        let mut gives = Vec::new();
        for (index, mut conv) in kernels.into_iter().enumerate() {
            for (rectifier, bias, accumulate) in [
                (Rectifier::None, false, false),
                (Rectifier::Relu, true, true),
                (Rectifier::Clipped { ceiling: 0.75 }, true, false),
            ] {
                let context = format!(
                    "{isa}, {precision:?}, kernel {index}, {shape:?}, {images} images, {rectifier:?}"
                );
                let bias = if bias { &all_bias[..] } else { &[] };
                let upstream = if accumulate { numbers(x.len(), 5) } else { vec![0.0; x.len()] };
                let operands = [&x[..], &weights, bias, &gradient, &upstream];
                let expected = reference(shape, images, operands, rectifier);

                conv.load(&weights, (!bias.is_empty()).then_some(bias));
                let mut out = vec![f32::NAN; images * shape.outputs()];
                conv.forward(&x, rectifier, &mut out, scratch);
                close(&out, &expected.out, &format!("{context}: out"));
                gives.push(out);

                // The sign of what is zero up to rounding may differ between the two.
                let mask: Vec<f32> = expected.out.iter().map(|out| out.value as f32).collect();
                for ask in [true, false] {
                    let mut got = vec![f32::NAN; weights.len()];
                    let mut got_bias = vec![f32::NAN; shape.outputs];
                    let mut input =
                        if accumulate { upstream.clone() } else { vec![f32::NAN; x.len()] };
                    let into = ConvGradients {
                        weights: &mut got,
                        bias: Some(&mut got_bias),
                        input: ask.then_some(Upstream { gradient: &mut input, accumulate }),
                    };
                    conv.backward(&x, (rectifier, &mask), &gradient, into, scratch);
                    close(&got, &expected.weights, &format!("{context}: weights"));
                    close(&got_bias, &expected.bias, &format!("{context}: bias"));
                    gives.extend([got, got_bias]);
                    if ask {
                        close(&input, &expected.input, &format!("{context}: input"));
                        gives.push(input);
                    }
                }
            }
        }
        if precision == FloatPrecision::Bf16 && shape.channels / shape.groups >= FEWEST {
            let gives = gives.into_iter().flatten().map(f32::to_bits).collect();
            assert!(given.is_empty() || given[0] == gives, "{isa}, {shape:?}, {images} images");
            given.push(gives);
        }
    }
}

fn shape(
    [channels, outputs, groups]: [usize; 3],
    [height, width]: [usize; 2],
    [kernel, stride, padding]: [usize; 3],
) -> FloatConvShape {
    let axis = |size| FloatAxis { size, kernel, stride, dilation: 1, padding: [padding; 2] };
    FloatConvShape { channels, outputs, groups, rows: axis(height), columns: axis(width) }
}

/// Small enough for Miri.
#[test]
fn small_shapes_equal_the_definition() {
    let mut scratch = FloatScratch::default();
    check(shape([2, 3, 1], [3, 2], [3, 1, 1]), 2, &mut scratch);
    check(shape([4, 4, 4], [3, 3], [3, 2, 1]), 1, &mut scratch);
    // Enough channels for bf16.
    check(shape([9, 3, 1], [3, 2], [3, 1, 1]), 2, &mut scratch);
    check(shape([9, 3, 1], [1, 1], [1, 1, 0]), 3, &mut scratch);
}

#[test]
#[cfg_attr(miri, ignore = "hours")]
fn layer_shapes_of_the_zoo_equal_the_definition() {
    let mut scratch = FloatScratch::default();
    for (channels, sides, window) in [
        // LeNet, SimpleNet.
        ([1, 20, 1], [28, 28], [5, 1, 0]),
        ([20, 50, 1], [12, 12], [5, 1, 0]),
        ([3, 6, 1], [32, 32], [5, 1, 0]),
        ([6, 16, 1], [14, 14], [5, 1, 0]),
        // ResNet-20 and its projections.
        ([3, 16, 1], [32, 32], [3, 1, 1]),
        ([16, 32, 1], [32, 32], [3, 2, 1]),
        ([16, 32, 1], [32, 32], [1, 2, 0]),
        ([64, 64, 1], [8, 8], [3, 1, 1]),
        // SVHN and VGG: small images, the last one smaller than its kernel.
        ([128, 130, 1], [4, 4], [3, 1, 0]),
        ([96, 64, 1], [2, 2], [3, 1, 1]),
        // AlexNet and MobileNet, with fewer channels and smaller images.
        ([3, 24, 1], [47, 47], [11, 4, 2]),
        ([12, 20, 1], [13, 13], [5, 1, 2]),
        ([32, 32, 32], [15, 15], [3, 1, 1]),
        ([40, 40, 40], [16, 16], [3, 2, 1]),
        ([40, 72, 1], [7, 7], [1, 1, 0]),
    ] {
        for images in [1, 5] {
            check(shape(channels, sides, window), images, &mut scratch);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "hours")]
fn images_of_one_pixel_equal_the_definition() {
    let mut scratch = FloatScratch::default();
    for (channels, window) in [
        ([130, 84, 1], [1, 1, 0]),
        ([84, 10, 1], [1, 2, 0]),
        ([9, 33, 1], [1, 1, 0]),
        ([40, 18, 2], [1, 1, 0]),
    ] {
        for images in [1, 2, 33] {
            check(shape(channels, [1, 1], window), images, &mut scratch);
        }
    }
    // In several parts.
    check(shape([2000, 10, 1], [1, 1], [1, 1, 0]), 130, &mut scratch);
}

#[test]
#[cfg_attr(miri, ignore = "hours")]
fn many_images_are_worked_on_in_parts() {
    check(shape([16, 16, 1], [17, 16], [3, 1, 1]), 40, &mut FloatScratch::default());
}

#[test]
fn equal_calls_give_equal_bits_whatever_the_scratch_was_used_for() {
    let shape = shape([7, 19, 1], [9, 10], [3, 2, 1]);
    let x = numbers(3 * shape.inputs(), 1);
    for isa in Isa::available() {
        let mut conv = FloatConv::new(shape, isa).unwrap();
        conv.load(&numbers(shape.weights(), 2), None);
        let mut run = |scratch: &mut FloatScratch| {
            let mut out = vec![0.0; 3 * shape.outputs()];
            conv.forward(&x, Rectifier::Relu, &mut out, scratch);
            let mut weights = vec![0.0; shape.weights()];
            let mut input = vec![0.0; x.len()];
            let upstream = Upstream { gradient: &mut input, accumulate: false };
            let into = ConvGradients { weights: &mut weights, bias: None, input: Some(upstream) };
            conv.backward(&x, (Rectifier::Relu, &out), &numbers(out.len(), 4), into, scratch);
            (out, weights, input)
        };
        let mut used = FloatScratch::default();
        let first = run(&mut used);
        assert_eq!(first, run(&mut used), "{isa}");
        assert_eq!(first, run(&mut FloatScratch::default()), "{isa}");
    }
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    for (bad, named) in [
        (shape([4, 6, 3], [8, 8], [3, 1, 1]), "groups"),
        (shape([4, 6, 0], [8, 8], [3, 1, 1]), "groups"),
        (shape([4, 6, 1], [2, 8], [3, 1, 0]), "height"),
        (shape([4, 6, 1], [8, 8], [3, 0, 0]), "stride"),
    ] {
        let error = FloatConv::new(bad, Isa::Portable).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    let error =
        FloatDepthwise::new(shape([4, 8, 4], [8, 8], [3, 1, 1]), Isa::Portable).unwrap_err();
    assert!(error.to_string().contains("depthwise"), "{error}");
}

/// Two operands that are rounded by at most 2^-9 of their size make a product that is off by little more than 2^-8 of its own.
#[test]
fn products_in_bf16_are_off_by_the_rounding_of_their_operands() {
    let rounding = 1.01 / f64::from(1 << 8) + TOLERANCE;
    let (shape, images, scratch) =
        (shape([9, 20, 1], [7, 6], [3, 2, 1]), 3, &mut FloatScratch::default());
    let (x, weights) = (numbers(images * shape.inputs(), 1), numbers(shape.weights(), 2));
    let gradient = numbers(images * shape.outputs(), 4);
    let upstream = vec![0.0; x.len()];
    let operands = [&x[..], &weights, &[], &gradient, &upstream];
    let expected = reference(shape, images, operands, Rectifier::None);
    let precision = FloatPrecision::Bf16;
    for isa in Isa::available().filter(|&isa| precision.check(isa).is_ok()) {
        let mut conv = FloatConv::with_precision(shape, isa, precision).unwrap();
        conv.load(&weights, None);
        let mut out = vec![f32::NAN; gradient.len()];
        conv.forward(&x, Rectifier::None, &mut out, scratch);
        close_to(&out, &expected.out, rounding, "out");
        let (mut got, mut input) = (vec![f32::NAN; weights.len()], vec![f32::NAN; x.len()]);
        let upstream = Upstream { gradient: &mut input, accumulate: false };
        let into = ConvGradients { weights: &mut got, bias: None, input: Some(upstream) };
        conv.backward(&x, (Rectifier::None, &[]), &gradient, into, scratch);
        close_to(&got, &expected.weights, rounding, "weights");
        close_to(&input, &expected.input, rounding, "input");
    }
}

#[test]
fn an_instruction_set_without_products_of_bf16_is_refused() {
    assert!(FloatPrecision::Bf16.check(Isa::Portable).is_ok());
    if Isa::Avx2.is_available() {
        let shape = shape([8, 8, 1], [3, 3], [3, 1, 0]);
        let error = FloatConv::with_precision(shape, Isa::Avx2, FloatPrecision::Bf16);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("avx2") && error.contains("AVX512-BF16"), "{error}");
    }
}

#[test]
fn what_is_not_a_number_comes_out() {
    for isa in Isa::available() {
        let mut conv = FloatConv::new(shape([1, 3, 1], [3, 3], [3, 1, 0]), isa).unwrap();
        conv.load(&[1.0; 27], None);
        let mut out = [0.0; 3];
        let scratch = &mut FloatScratch::default();
        for rectifier in [Rectifier::Relu, Rectifier::Clipped { ceiling: 6.0 }] {
            conv.forward(&[f32::NAN; 9], rectifier, &mut out, scratch);
            assert!(out.iter().all(|out| out.is_nan()), "{isa}: {out:?}");
        }
    }
}

/// Windows along an axis, which may be shorter than the kernel.
fn any_axis() -> impl Strategy<Value = FloatAxis> {
    let padding = [0usize..5, 0usize..5];
    (1usize..15, 1usize..6, 1usize..5, 1usize..4, padding).prop_map(
        |(size, kernel, stride, dilation, padding)| FloatAxis {
            size,
            kernel,
            stride,
            dilation,
            padding,
        },
    )
}

proptest! {
    #![proptest_config(common::cases(96))]

    #[test]
    fn any_shape_equals_the_definition(
        (groups, inputs, outputs) in (1usize..4, 1usize..20, prop_oneof![1usize..12, 12usize..70]),
        sides in (1usize..14, 1usize..40),
        (kernel, stride, padding) in (1usize..6, 1usize..5, 0usize..4),
        images in 1usize..4,
    ) {
        let channels = [groups * inputs, groups * outputs, groups];
        let shape = shape(channels, sides.into(), [kernel, stride, padding]);
        prop_assume!(shape.check().is_ok());
        check(shape, images, &mut FloatScratch::default());
    }

    #[test]
    fn windows_may_differ_by_axis_and_side_and_leave_pixels_out(
        (groups, inputs, outputs) in (1usize..3, 1usize..9, 1usize..20),
        rows in any_axis(),
        columns in any_axis(),
        images in 1usize..4,
    ) {
        let (channels, outputs) = (groups * inputs, groups * outputs);
        let shape = FloatConvShape { channels, outputs, groups, rows, columns };
        prop_assume!(shape.check().is_ok());
        check(shape, images, &mut FloatScratch::default());
    }

    #[test]
    fn depthwise_windows_may_differ_too(
        channels in 1usize..20,
        rows in any_axis(),
        columns in any_axis(),
    ) {
        let shape = FloatConvShape { channels, outputs: channels, groups: channels, rows, columns };
        prop_assume!(shape.check().is_ok());
        check(shape, 2, &mut FloatScratch::default());
    }

    #[test]
    fn any_depthwise_shape_equals_the_definition(
        channels in 1usize..40,
        sides in (1usize..12, 1usize..12),
        (kernel, stride, padding) in (1usize..6, 1usize..5, 0usize..4),
    ) {
        let shape = shape([channels; 3], sides.into(), [kernel, stride, padding]);
        prop_assume!(shape.check().is_ok());
        check(shape, 2, &mut FloatScratch::default());
    }
}
