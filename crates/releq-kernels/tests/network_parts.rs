//! Layers around the products: depthwise convolution, pooling, and a small residual network of all of them.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod common;

use common::{acts, check_outputs, epilogue, threads, weights};
use proptest::prelude::*;
use releq_kernels::{
    Addend, BitPair, ConvShape, DepthwiseConv, Epilogue, Int8Conv, Int8Weights, Isa, KernelError,
    Output, PoolShape, ResultCodes, Threads, Workspace, add, max_pool, reference, sum_pool,
};

fn check_depthwise(shape: ConvShape, bits: u8, seed: u64) {
    let pair = BitPair::new(bits, 8).unwrap();
    let weights = weights(shape.channels * shape.kernel * shape.kernel, pair, seed);
    let acts = acts(shape.height * shape.width * shape.channels, pair, seed + 1);
    let mut expected = vec![0; shape.out_height() * shape.out_width() * shape.channels];
    reference::depthwise(shape, pair, &weights, &acts, &mut expected).unwrap();
    let epilogue = epilogue(shape.channels, shape.kernel * shape.kernel, bits);
    let mut workspace = Workspace::default();
    for isa in Isa::available() {
        let conv = DepthwiseConv::pack(&weights, shape, bits, isa).unwrap();
        for count in [1, 2] {
            let label = format!("{isa} {shape:?} {bits} bits, {count} threads");
            check_outputs(&expected, &epilogue, &label, |out| {
                conv.run(&acts, out, &mut workspace, &threads(count))
            });
        }
    }
}

/// All codes of a window, one channel of it.
fn window(shape: PoolShape, acts: &[u8], at: usize) -> Vec<u8> {
    let PoolShape { channels, height, width, kernel, stride, padding } = shape;
    let (pixel, channel) = (at / channels, at % channels);
    let (row, column) = (pixel / shape.out_width(), pixel % shape.out_width());
    let taps = (0..kernel * kernel).map(|k| (k / kernel, k % kernel));
    taps.map(|(ky, kx)| {
        ((row * stride + ky).wrapping_sub(padding), (column * stride + kx).wrapping_sub(padding))
    })
    .filter(|&(y, x)| y < height && x < width)
    .map(|(y, x)| acts[(y * width + x) * channels + channel])
    .collect()
}

fn check_pool(shape: PoolShape, seed: u64) {
    let pair = BitPair::new(8, 8).unwrap();
    let acts = acts(shape.height * shape.width * shape.channels, pair, seed);
    let len = shape.out_height() * shape.out_width() * shape.channels;
    let epilogue = epilogue(shape.channels, 1, 8);
    for isa in Isa::available() {
        for count in [1, 2] {
            let threads = threads(count);
            let mut out = vec![7; len];
            max_pool(shape, &acts, &mut out, isa, &threads).unwrap();
            for (at, &code) in out.iter().enumerate() {
                let largest = window(shape, &acts, at).into_iter().max();
                assert_eq!(Some(code), largest, "{isa} {shape:?} {at}, {count} threads");
            }
            if shape.padding == 0 {
                let sum = |at| window(shape, &acts, at).into_iter().map(i32::from).sum();
                let sums: Vec<i32> = (0..len).map(sum).collect();
                let label = format!("{isa} {shape:?}, {count} threads");
                check_outputs(&sums, &epilogue, &label, |out| {
                    sum_pool(shape, &acts, out, isa, &threads)
                });
            }
        }
    }
}

proptest! {
    #![proptest_config(common::cases(64))]

    #[test]
    fn depthwise_equals_the_reference(
        channels in prop::sample::select(vec![1usize, 3, 16, 31, 32, 33, 65]),
        (height, width) in (5usize..12, 5usize..12),
        kernel in prop::sample::select(vec![1usize, 3, 5]),
        (stride, padding) in (1usize..=3, 0usize..=2),
        bits in 1u8..=8,
        seed in 0u64..1000,
    ) {
        let outputs = channels;
        let shape = ConvShape { channels, height, width, outputs, kernel, stride, padding };
        check_depthwise(shape, bits, seed);
    }

    #[test]
    fn pooling_equals_its_definition(
        channels in prop::sample::select(vec![1usize, 3, 16, 33, 64, 65]),
        (height, width) in (3usize..12, 3usize..12),
        (kernel, padding) in prop::sample::select(vec![(1usize, 0usize), (2, 0), (3, 0), (3, 1), (2, 1)]),
        stride in 1usize..=3,
        seed in 0u64..1000,
    ) {
        check_pool(PoolShape { channels, height, width, kernel, stride, padding }, seed);
    }
}

/// Small enough for Miri.
#[test]
fn small_shapes_equal_the_reference() {
    let (channels, height, width, kernel, stride, padding) = (3, 3, 2, 3, 1, 1);
    check_depthwise(
        ConvShape { channels, height, width, outputs: channels, kernel, stride, padding },
        4,
        3,
    );
    check_pool(PoolShape { channels, height, width, kernel: 2, stride, padding: 0 }, 3);
    check_pool(PoolShape { channels, height, width, kernel: 2, stride, padding: 1 }, 3);
}

#[test]
fn one_window_over_the_whole_image_and_endless_strides() {
    let all = PoolShape { channels: 20, height: 7, width: 7, kernel: 7, stride: 1, padding: 0 };
    check_pool(all, 1);
    check_pool(PoolShape { kernel: 3, stride: usize::MAX, ..all }, 2);
    let (channels, outputs) = (20, 20);
    let shape =
        ConvShape { channels, height: 7, width: 7, outputs, kernel: 3, stride: 1, padding: 0 };
    let pair = BitPair::new(8, 8).unwrap();
    let (weights, acts) = (weights(20 * 180, pair, 3), acts(20 * 49, pair, 4));
    let depthwise = &weights[..20 * 9];
    for isa in Isa::available() {
        let mut results = [7, usize::MAX].map(|stride| {
            let shape = ConvShape { stride, ..shape };
            let (mut out, mut workspace) = ([0; 40], Workspace::default());
            let (a, b) = out.split_at_mut(20);
            let conv = Int8Conv::pack(&weights, shape, 8, isa).unwrap();
            conv.run(&acts, a, &mut workspace, &threads(1)).unwrap();
            let conv = DepthwiseConv::pack(depthwise, shape, 8, isa).unwrap();
            conv.run(&acts, b, &mut workspace, &threads(1)).unwrap();
            out
        });
        let [first, second] = &mut results;
        assert_eq!(first, second, "{isa}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let isa = Isa::best();
    let shape = ConvShape {
        channels: 2,
        height: 4,
        width: 4,
        outputs: 2,
        kernel: 3,
        stride: 1,
        padding: 1,
    };
    let pack = |codes: &[i8], shape, bits| DepthwiseConv::pack(codes, shape, bits, isa);
    let outputs = pack(&[0; 18], ConvShape { outputs: 3, ..shape }, 8);
    assert!(matches!(outputs, Err(KernelError::Shape { what: "outputs", got: 3, .. })));
    let short = pack(&[0; 17], shape, 8);
    assert!(matches!(short, Err(KernelError::Length { what: "weights", expected: 18, .. })));
    assert!(matches!(pack(&[4; 18], shape, 3), Err(KernelError::Code { index: 0, .. })));
    let conv = pack(&[0; 18], shape, 8).unwrap();
    let mut out = [0; 32];
    let short = conv.run(&[0; 31], &mut out[..], &mut Workspace::default(), &threads(1));
    assert!(matches!(short, Err(KernelError::Length { what: "activations", .. })));

    let pool = PoolShape { channels: 1, height: 4, width: 4, kernel: 2, stride: 2, padding: 0 };
    let mut out = [0; 4];
    let run = |shape, acts: &[u8], out: &mut [u8]| max_pool(shape, acts, out, isa, &threads(1));
    assert!(run(pool, &[0; 16], &mut out).is_ok());
    let padding = run(PoolShape { padding: 2, ..pool }, &[0; 16], &mut out);
    assert!(matches!(padding, Err(KernelError::Shape { what: "padding", got: 2, .. })));
    let large = run(PoolShape { kernel: 5, ..pool }, &[0; 16], &mut out);
    assert!(matches!(large, Err(KernelError::Shape { what: "height", .. })));
    let short = run(pool, &[0; 15], &mut out);
    assert!(matches!(short, Err(KernelError::Length { what: "activations", .. })));
    let mut sums = [0; 4];
    let shape = PoolShape { padding: 1, ..pool };
    let padded = sum_pool(shape, &[0; 16], &mut sums[..], isa, &threads(1));
    assert!(matches!(padded, Err(KernelError::Shape { what: "padding", .. })));
}

/// A residual block, pooling and a classifier, codes from layer to layer; every instruction set and number of threads gives the same.
#[test]
#[cfg_attr(miri, ignore = "an hour")]
fn a_small_residual_network() {
    let pair = BitPair::new(4, 8).unwrap();
    let image = acts(12 * 12 * 3, pair, 1);
    let first = ConvShape {
        channels: 3,
        height: 12,
        width: 12,
        outputs: 24,
        kernel: 3,
        stride: 1,
        padding: 1,
    };
    let block = ConvShape { channels: 24, ..first };
    let pool = PoolShape { channels: 24, height: 12, width: 12, kernel: 2, stride: 2, padding: 0 };
    let all = PoolShape { height: 6, width: 6, kernel: 6, stride: 1, ..pool };
    let codes = [27, 9, 216, 240]
        .map(|depth| weights(if depth == 240 { 240 } else { 24 * depth }, pair, 2));
    let signed = Epilogue::new(&[1e-3; 24], &[-0.25; 24], false).unwrap();
    let averages = Epilogue::new(&[1.0 / 36.0; 24], &[0.0; 24], false).unwrap();

    let run = |isa: Isa, threads: &Threads| {
        let mut workspace = Workspace::default();
        let conv = Int8Conv::pack(&codes[0], first, 4, isa).unwrap();
        let mut a = vec![0; 12 * 12 * 24];
        let to = epilogue(24, 27, 4);
        let out = Output::Codes { epilogue: &to, bits: 8, out: &mut a };
        conv.run(&image, out, &mut workspace, threads).unwrap();

        let mut b = a.clone();
        let to = epilogue(24, 9, 4);
        let depthwise = DepthwiseConv::pack(&codes[1], block, 4, isa).unwrap();
        let out = Output::Codes { epilogue: &to, bits: 8, out: &mut b };
        depthwise.run(&a, out, &mut workspace, threads).unwrap();
        let mut values = vec![0.0; b.len()];
        let conv = Int8Conv::pack(&codes[2], block, 4, isa).unwrap();
        let out = Output::Values { epilogue: &signed, out: &mut values };
        conv.run(&b, out, &mut workspace, threads).unwrap();
        let shortcut = Addend::Codes { scale: 0.01, zero_point: 0, codes: &a };
        let mut sum = vec![0; a.len()];
        let to = ResultCodes { factor: 20.0, zero_point: 0, bits: 8 };
        add(Addend::Values(&values), shortcut, to, &mut sum, isa, threads).unwrap();

        let mut half = vec![0; 6 * 6 * 24];
        max_pool(pool, &sum, &mut half, isa, threads).unwrap();
        let mut means = vec![0; 24];
        let out = Output::Codes { epilogue: &averages, bits: 8, out: &mut means };
        sum_pool(all, &half, out, isa, threads).unwrap();
        let mut classes = vec![0; 10];
        let weights = Int8Weights::pack(&codes[3], 10, 24, 4, isa).unwrap();
        weights.gemm(&means, 1, &mut classes, threads).unwrap();
        (values, sum, means, classes)
    };
    let expected = run(Isa::Portable, &threads(1));
    let distinct = |codes: &[u8]| codes.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert!(distinct(&expected.1) > 20, "the network does not saturate");
    for (isa, count) in Isa::available().flat_map(|isa| [1, 2, 3].map(|count| (isa, count))) {
        assert_eq!(run(isa, &threads(count)), expected, "{isa}, {count} threads");
    }
}
