//! Every 8-bit and low-bit kernel that this machine has, against the plain references.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod common;

use common::{acts, check_outputs, epilogue, threads, weights};
use proptest::prelude::*;
use releq_kernels::{
    BitPair, ConvShape, Epilogue, GemmShape, Int8Conv, Int8Weights, Isa, KernelError, LowBitConv,
    LowBitWeights, Output, Workspace, reference,
};

/// Pairs with activations of 8 bits.
fn pair(bits: u8) -> BitPair {
    BitPair::new(bits, 8).unwrap()
}

fn check_gemm(shape: GemmShape, bits: u8, seed: u64) {
    let GemmShape { pixels, outputs, depth } = shape;
    let weights = weights(outputs * depth, pair(bits), seed);
    let acts = acts(pixels * depth, pair(bits), seed + 1);
    let mut expected = vec![0; pixels * outputs];
    reference::gemm(shape, pair(bits), &weights, &acts, &mut expected).unwrap();
    let epilogue = epilogue(outputs, depth, bits);
    for isa in Isa::available() {
        let packed = Int8Weights::pack(&weights, outputs, depth, bits, isa).unwrap();
        let low_bit = LowBitWeights::from(&packed);
        for count in [1, 2, 3] {
            let label = format!("{isa} {shape:?} {bits} bits, {count} threads");
            check_outputs(&expected, &epilogue, &label, |out| {
                packed.gemm(&acts, pixels, out, &threads(count))
            });
            check_outputs(&expected, &epilogue, &format!("{label}, packed"), |out| {
                low_bit.gemm(&acts, pixels, out, &threads(count))
            });
        }
    }
}

fn check_conv(shape: ConvShape, bits: u8, seed: u64) {
    let weights = weights(shape.outputs * shape.depth(), pair(bits), seed);
    let acts = acts(shape.height * shape.width * shape.channels, pair(bits), seed + 1);
    let mut expected = vec![0; shape.out_height() * shape.out_width() * shape.outputs];
    reference::conv2d(shape, pair(bits), &weights, &acts, &mut expected).unwrap();
    let epilogue = epilogue(shape.outputs, shape.depth(), bits);
    // Shared, so that what one shape leaves behind would disturb the next.
    let mut workspace = Workspace::default();
    let larger = ConvShape { height: shape.height + 3, width: shape.width + 2, ..shape };
    let noise = vec![255; larger.height * larger.width * larger.channels];
    let mut ignored = vec![0; larger.out_height() * larger.out_width() * larger.outputs];
    for isa in Isa::available() {
        let other = Int8Conv::pack(&weights, larger, bits, isa).unwrap();
        other.run(&noise, &mut ignored, &mut workspace, &threads(1)).unwrap();
        let conv = Int8Conv::pack(&weights, shape, bits, isa).unwrap();
        let low_bit = LowBitConv::pack(&weights, shape, bits, isa).unwrap();
        for count in [1, 2] {
            let label = format!("{isa} {shape:?} {bits} bits, {count} threads");
            check_outputs(&expected, &epilogue, &label, |out| {
                conv.run(&acts, out, &mut workspace, &threads(count))
            });
            check_outputs(&expected, &epilogue, &format!("{label}, packed"), |out| {
                low_bit.run(&acts, out, &mut workspace, &threads(count))
            });
        }
    }
}

/// Small enough for Miri.
#[test]
fn small_shapes_equal_the_reference() {
    for bits in [3, 8] {
        check_gemm(GemmShape { pixels: 3, outputs: 5, depth: 9 }, bits, 3);
        let (channels, outputs, kernel, stride, padding) = (2, 3, 3, 1, 1);
        check_conv(
            ConvShape { channels, height: 3, width: 2, outputs, kernel, stride, padding },
            bits,
            5,
        );
    }
}

#[test]
fn every_bitwidth() {
    for bits in 1..=8 {
        check_gemm(GemmShape { pixels: 21, outputs: 67, depth: 131 }, bits, 3);
        check_gemm(GemmShape { pixels: 1, outputs: 130, depth: 1200 }, bits, 4);
        for stride in [1, 2] {
            let (channels, outputs) = (33, 20);
            let (height, width, kernel, padding) = (5, 6, 3, 1);
            let shape = ConvShape { channels, height, width, outputs, kernel, stride, padding };
            check_conv(shape, bits, 5);
        }
    }
}

#[test]
fn every_remainder_of_pixels_and_outputs() {
    for pixels in (1..30).chain(94..100) {
        check_gemm(GemmShape { pixels, outputs: 17, depth: 9 }, 4, 3);
    }
    for outputs in 1..=132 {
        check_gemm(GemmShape { pixels: 5, outputs, depth: 6 }, 8, 4);
    }
    for depth in (0..12).chain(1020..1030).chain([2047, 2048, 2052]) {
        check_gemm(GemmShape { pixels: 3, outputs: 5, depth }, 8, 5);
    }
}

#[test]
fn only_extremes() {
    // The largest sums of either sign, where anything narrower than 32 bits would overflow.
    for bits in 1..=8 {
        let range = BitPair::new(bits, 8).unwrap().weight_codes();
        for code in [*range.start(), *range.end()] {
            let (weights, acts) = (vec![code as i8; 16 * 640], vec![255; 4 * 640]);
            for isa in Isa::available() {
                let packed = Int8Weights::pack(&weights, 16, 640, bits, isa).unwrap();
                let mut out = vec![0; 4 * 16];
                packed.gemm(&acts, 4, &mut out, &threads(1)).unwrap();
                assert_eq!(out, vec![code * 255 * 640; 4 * 16], "{isa} {bits}");
                let packed = LowBitWeights::from(&packed);
                for pixels in [1, 4] {
                    let out = &mut out[..pixels * 16];
                    packed.gemm(&acts[..pixels * 640], pixels, &mut *out, &threads(1)).unwrap();
                    assert_eq!(out, vec![code * 255 * 640; pixels * 16], "{isa} {bits} {pixels}");
                }
            }
        }
    }
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(0usize),
        Just(1),
        Just(63),
        Just(64),
        Just(65),
        Just(31),
        Just(127),
        2usize..40
    ]
}

proptest! {
    #![proptest_config(common::cases(48))]

    #[test]
    fn gemm_equals_the_reference(
        (pixels, outputs, depth) in (size(), size(), size()),
        bits in 1u8..=8,
        seed in 0u64..1000,
    ) {
        check_gemm(GemmShape { pixels, outputs, depth }, bits, seed);
    }

    #[test]
    fn conv_equals_the_reference(
        channels in prop::sample::select(vec![1usize, 3, 16, 20, 33, 64]),
        outputs in prop::sample::select(vec![1usize, 10, 16, 33, 64, 70]),
        (height, width) in (5usize..12, 5usize..12),
        kernel in prop::sample::select(vec![1usize, 3, 5]),
        (stride, padding) in (1usize..=2, 0usize..=2),
        bits in 1u8..=8,
        seed in 0u64..1000,
    ) {
        let shape = ConvShape { channels, height, width, outputs, kernel, stride, padding };
        check_conv(shape, bits, seed);
    }
}

#[test]
fn a_weight_takes_its_bits() {
    for (bits, isa) in (1..=8).flat_map(|bits| Isa::available().map(move |isa| (bits, isa))) {
        let codes = weights(128 * 320, pair(bits), 9);
        let packed = LowBitWeights::pack(&codes, 128, 320, bits, isa).unwrap();
        assert_eq!(packed.bytes() * 8, 128 * 320 * usize::from(bits), "{isa} {bits}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let isa = Isa::best();
    let pack = |codes: &[i8], bits| Int8Weights::pack(codes, 2, 3, bits, isa);
    assert!(matches!(pack(&[0; 5], 8), Err(KernelError::Length { what: "weights", .. })));
    assert!(matches!(pack(&[0; 6], 9), Err(KernelError::Bits { got: 9, .. })));
    assert!(matches!(pack(&[0, 0, 2, 0, 0, 0], 2), Err(KernelError::Code { index: 2, .. })));
    let deep = vec![0; 70_000];
    let deep = Int8Weights::pack(&deep, 1, 70_000, 8, isa);
    assert!(matches!(deep, Err(KernelError::Overflow { depth: 70_000, .. })));
    let packed = pack(&[1; 6], 8).unwrap();
    let mut out = [0; 2];
    let short = packed.gemm(&[0; 2], 1, &mut out[..], &threads(1));
    assert!(matches!(short, Err(KernelError::Length { what: "activations", .. })));
    let many = packed.gemm(&[0; 9], 3, &mut out[..], &threads(1));
    assert!(matches!(many, Err(KernelError::Length { what: "out", expected: 6, got: 2 })));
    let epilogue = Epilogue::new(&[1.0; 3], &[0.0; 3], false).unwrap();
    let mut codes = [0; 2];
    let output = Output::Codes { epilogue: &epilogue, bits: 8, out: &mut codes };
    let other = packed.gemm(&[0; 3], 1, output, &threads(1));
    assert!(matches!(other, Err(KernelError::Length { what: "channels of the epilogue", .. })));
    let epilogue = Epilogue::new(&[1.0; 2], &[0.0; 2], false).unwrap();
    let output = Output::Codes { epilogue: &epilogue, bits: 0, out: &mut codes };
    let bits = packed.gemm(&[0; 3], 1, output, &threads(1));
    assert!(matches!(bits, Err(KernelError::Bits { got: 0, .. })));

    let shape = ConvShape {
        channels: 2,
        height: 4,
        width: 4,
        outputs: 1,
        kernel: 3,
        stride: 1,
        padding: 1,
    };
    let none = Int8Conv::pack(&[0; 18], ConvShape { stride: 0, ..shape }, 8, isa);
    assert!(matches!(none, Err(KernelError::Shape { what: "stride", .. })));
    let conv = Int8Conv::pack(&[0; 18], shape, 8, isa).unwrap();
    let mut out = vec![0; 16];
    let short = conv.run(&[0; 31], &mut out, &mut Workspace::default(), &threads(1));
    assert!(matches!(short, Err(KernelError::Length { what: "activations", .. })));
}
