//! Every bit-serial kernel that this machine has, against the plain references.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use proptest::prelude::*;
use releq_kernels::{
    BitPair, BitPlanes, BitSerialConv, BitSerialScratch, BitSerialWeights, ConvShape, GemmShape,
    Isa, KernelError, reference,
};

/// Codes of every value that the bits allow, the extremes often.
fn codes(len: usize, low: i32, high: i32, seed: u64) -> Vec<i32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            match state % 8 {
                0 => low,
                1 => high,
                _ => low + (state >> 33) as i32 % (high - low + 1),
            }
        })
        .collect()
}

fn weights(len: usize, bits: BitPair, seed: u64) -> Vec<i8> {
    let range = bits.weight_codes();
    codes(len, *range.start(), *range.end(), seed).into_iter().map(|c| c as i8).collect()
}

fn acts(len: usize, bits: BitPair, seed: u64) -> Vec<u8> {
    let range = bits.act_codes();
    codes(len, *range.start(), *range.end(), seed).into_iter().map(|c| c as u8).collect()
}

fn check_gemm(shape: GemmShape, bits: BitPair, seed: u64) {
    let GemmShape { pixels, outputs, depth } = shape;
    let weights = weights(outputs * depth, bits, seed);
    let acts = acts(pixels * depth, bits, seed + 1);
    let mut expected = vec![0; pixels * outputs];
    reference::gemm(shape, bits, &weights, &acts, &mut expected).unwrap();
    for isa in Isa::available() {
        let packed = BitSerialWeights::pack(&weights, outputs, depth, bits.weight(), isa).unwrap();
        let planes = BitPlanes::pack(&acts, pixels, depth, bits.act(), isa).unwrap();
        let mut out = vec![-1; pixels * outputs];
        packed.gemm(&planes, &mut out).unwrap();
        assert_eq!(out, expected, "{isa} {shape:?} {bits:?}");
    }
}

fn check_conv(shape: ConvShape, bits: BitPair, seed: u64) {
    let weights = weights(shape.outputs * shape.depth(), bits, seed);
    let acts = acts(shape.height * shape.width * shape.channels, bits, seed + 1);
    let mut expected = vec![0; shape.out_height() * shape.out_width() * shape.outputs];
    reference::conv2d(shape, bits, &weights, &acts, &mut expected).unwrap();
    let mut scratch = BitSerialScratch::default();
    for isa in Isa::available() {
        let conv = BitSerialConv::pack(&weights, shape, bits.weight(), isa).unwrap();
        for _ in 0..2 {
            let mut out = vec![-1; expected.len()];
            conv.run(&acts, bits.act(), &mut out, &mut scratch).unwrap();
            assert_eq!(out, expected, "{isa} {shape:?} {bits:?}");
        }
    }
}

#[test]
fn every_pair_of_bits() {
    for weight in 1..=8 {
        for act in 1..=8 {
            let bits = BitPair::new(weight, act).unwrap();
            check_gemm(GemmShape { pixels: 9, outputs: 67, depth: 131 }, bits, 3);
            let shape = ConvShape {
                channels: 33,
                height: 5,
                width: 6,
                outputs: 20,
                kernel: 3,
                stride: 1,
                padding: 1,
            };
            check_conv(shape, bits, 5);
        }
    }
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(0usize),
        Just(1),
        Just(16),
        Just(63),
        Just(64),
        Just(65),
        Just(127),
        1usize..40
    ]
}

fn bits() -> impl Strategy<Value = BitPair> {
    (1u8..=8, 1u8..=8).prop_map(|(weight, act)| BitPair::new(weight, act).unwrap())
}

proptest! {
    #[test]
    fn products_equal_the_reference(
        (pixels, outputs, depth) in (size(), size(), size()),
        bits in bits(),
        seed in 0u64..1000,
    ) {
        check_gemm(GemmShape { pixels, outputs, depth }, bits, seed);
    }

    #[test]
    fn convolutions_equal_the_reference(
        channels in prop_oneof![Just(1usize), Just(3), Just(16), Just(20), Just(33), Just(64)],
        (height, width) in (5usize..12, 5usize..12),
        outputs in prop_oneof![Just(1usize), Just(16), Just(31), Just(50), Just(65)],
        kernel in prop_oneof![Just(1usize), Just(3), Just(5)],
        (stride, padding) in (1usize..=3, 0usize..=2),
        bits in bits(),
        seed in 0u64..1000,
    ) {
        check_conv(ConvShape { channels, height, width, outputs, kernel, stride, padding }, bits, seed);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let isa = Isa::best();
    let pack = |codes: &[i8], bits| BitSerialWeights::pack(codes, 2, 3, bits, isa);
    assert!(matches!(pack(&[0; 5], 4), Err(KernelError::Length { expected: 6, got: 5, .. })));
    assert!(matches!(pack(&[0; 6], 0), Err(KernelError::Bits { got: 0, .. })));
    assert!(matches!(pack(&[0; 6], 9), Err(KernelError::Bits { got: 9, .. })));
    let error = pack(&[0, 0, 0, 0, 2, 0], 2).unwrap_err();
    assert_eq!(error.to_string(), "`weights[4]` is 2, outside -2 to 1 of 2 bits");
    let error = BitPlanes::pack(&[0, 4], 1, 2, 2, isa).unwrap_err();
    assert_eq!(error.to_string(), "`activations[1]` is 4, outside 0 to 3 of 2 bits");

    let packed = pack(&[1; 6], 4).unwrap();
    let planes = BitPlanes::pack(&[1; 4], 1, 4, 8, isa).unwrap();
    assert!(matches!(packed.gemm(&planes, &mut [0; 2]), Err(KernelError::Length { .. })));
    let planes = BitPlanes::pack(&[1; 3], 1, 3, 8, isa).unwrap();
    assert!(matches!(packed.gemm(&planes, &mut [0; 3]), Err(KernelError::Length { .. })));

    // 65,794 products of 8 and 8 bits can reach 2^31.
    let deep = BitPair::new(8, 8).unwrap().safe_depth() + 1;
    let packed = BitSerialWeights::pack(&vec![1; deep], 1, deep, 8, isa).unwrap();
    let planes = BitPlanes::pack(&vec![1; deep], 1, deep, 8, isa).unwrap();
    let error = packed.gemm(&planes, &mut [0]).unwrap_err().to_string();
    assert!(error.contains("65793"), "{error}");

    let shape = ConvShape {
        channels: 3,
        height: 4,
        width: 4,
        outputs: 2,
        kernel: 5,
        stride: 1,
        padding: 0,
    };
    assert!(matches!(
        BitSerialConv::pack(&[0; 150], shape, 4, isa),
        Err(KernelError::Shape { what: "height", .. })
    ));
    let endless = ConvShape { outputs: usize::MAX, padding: 1, ..shape };
    assert!(matches!(
        BitSerialConv::pack(&[], endless, 4, isa),
        Err(KernelError::TooLarge { what: "weights" })
    ));
    for (isa, missing) in Isa::ALL.map(|isa| (isa, !isa.is_available())) {
        let refused = BitSerialWeights::pack(&[0; 6], 2, 3, 4, isa).is_err();
        assert_eq!(refused, missing, "{isa}");
    }
}

#[test]
fn the_largest_sums_are_exact() {
    for act in [1, 8] {
        let bits = BitPair::new(8, act).unwrap();
        let depth = bits.safe_depth().min(70_000);
        let shape = GemmShape { pixels: 1, outputs: 1, depth };
        for isa in Isa::available() {
            for weight in [-128, 127] {
                let top = *bits.act_codes().end() as u8;
                let packed =
                    BitSerialWeights::pack(&vec![weight; depth], 1, depth, 8, isa).unwrap();
                let planes = BitPlanes::pack(&vec![top; depth], 1, depth, act, isa).unwrap();
                let mut out = [0];
                packed.gemm(&planes, &mut out).unwrap();
                let expected = depth as i64 * i64::from(weight) * i64::from(top);
                assert_eq!(i64::from(out[0]), expected, "{isa} {shape:?}");
            }
        }
    }
}
