//! Every bit-serial kernel that this machine has, against the plain references.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod common;

use common::{acts, check_outputs, epilogue, threads, weights};
use proptest::prelude::*;
use releq_kernels::{
    BitPair, BitPlanes, BitSerialConv, BitSerialWeights, ConvShape, GemmShape, Isa, KernelError,
    Workspace, reference,
};

fn check_gemm(shape: GemmShape, bits: BitPair, seed: u64) {
    let GemmShape { pixels, outputs, depth } = shape;
    let weights = weights(outputs * depth, bits, seed);
    let acts = acts(pixels * depth, bits, seed + 1);
    let mut expected = vec![0; pixels * outputs];
    reference::gemm(shape, bits, &weights, &acts, &mut expected).unwrap();
    let epilogue = epilogue(outputs, depth, bits.weight());
    for isa in Isa::available() {
        let packed = BitSerialWeights::pack(&weights, outputs, depth, bits.weight(), isa).unwrap();
        let planes = BitPlanes::pack(&acts, pixels, depth, bits.act(), isa).unwrap();
        for count in [1, 3] {
            let label = format!("{isa} {shape:?} {bits:?}, {count} threads");
            check_outputs(&expected, &epilogue, &label, |out| {
                packed.gemm(&planes, out, &threads(count))
            });
        }
    }
}

fn check_conv(shape: ConvShape, bits: BitPair, seed: u64, workspace: &mut Workspace) {
    let weights = weights(shape.outputs * shape.depth(), bits, seed);
    let acts = acts(shape.height * shape.width * shape.channels, bits, seed + 1);
    let mut expected = vec![0; shape.out_height() * shape.out_width() * shape.outputs];
    reference::conv2d(shape, bits, &weights, &acts, &mut expected).unwrap();
    let epilogue = epilogue(shape.outputs, shape.depth(), bits.weight());
    for isa in Isa::available() {
        let conv = BitSerialConv::pack(&weights, shape, bits.weight(), isa).unwrap();
        for count in [1, 2] {
            let label = format!("{isa} {shape:?} {bits:?}, {count} threads");
            check_outputs(&expected, &epilogue, &label, |out| {
                conv.run(&acts, bits.act(), out, workspace, &threads(count))
            });
        }
    }
}

/// Square images and kernels of 3, padded by 1.
const CONV: ConvShape =
    ConvShape { channels: 1, height: 5, width: 5, outputs: 20, kernel: 3, stride: 1, padding: 1 };

/// Small enough for Miri.
#[test]
fn small_shapes_equal_the_reference() {
    let bits = BitPair::new(2, 3).unwrap();
    check_gemm(GemmShape { pixels: 3, outputs: 5, depth: 70 }, bits, 3);
    let shape = ConvShape { channels: 2, height: 3, width: 2, outputs: 3, ..CONV };
    check_conv(shape, bits, 5, &mut Workspace::default());
}

#[test]
fn every_pair_of_bits() {
    // Narrow and wide calls share the memory.
    let mut workspace = Workspace::default();
    for weight in 1..=8 {
        for act in 1..=8 {
            let bits = BitPair::new(weight, act).unwrap();
            check_gemm(GemmShape { pixels: 13, outputs: 67, depth: 131 }, bits, 3);
            // 3 and 16 channels are gathered, 33 too, 60 and 64 are read in place.
            for channels in [3, 16, 33, 60, 64] {
                check_conv(ConvShape { channels, ..CONV }, bits, 5, &mut workspace);
            }
        }
    }
}

#[test]
fn more_pixels_and_words_than_a_block_holds() {
    let bits = BitPair::new(3, 2).unwrap();
    check_gemm(GemmShape { pixels: 139, outputs: 37, depth: 2_003 }, bits, 1);
    let shape = ConvShape { channels: 96, height: 11, width: 13, kernel: 5, ..CONV };
    check_conv(shape, bits, 2, &mut Workspace::default());
}

#[test]
fn a_stride_past_the_image_leaves_one_output() {
    let shape = ConvShape { channels: 3, stride: usize::MAX, ..CONV };
    let one = ConvShape { stride: 5, padding: 0, ..shape };
    let bits = BitPair::new(4, 4).unwrap();
    let (weights, acts) = (weights(20 * 27, bits, 1), acts(75, bits, 2));
    let mut expected = [0; 20];
    reference::conv2d(one, bits, &weights, &acts, &mut expected).unwrap();
    for isa in Isa::available() {
        let shape = ConvShape { padding: 0, ..shape };
        let conv = BitSerialConv::pack(&weights, shape, 4, isa).unwrap();
        let mut out = [0; 20];
        let mut workspace = Workspace::default();
        conv.run(&acts, 4, &mut out[..], &mut workspace, &threads(1)).unwrap();
        assert_eq!(out, expected, "{isa}");
    }
}

#[test]
fn planes_are_packed_again_into_the_same_memory() {
    for isa in Isa::available() {
        let mut planes = BitPlanes::pack(&[255; 200], 2, 100, 8, isa).unwrap();
        let fresh = BitPlanes::pack(&[1, 2, 3, 0, 1, 2], 2, 3, 2, isa).unwrap();
        planes.pack_into(&[1, 2, 3, 0, 1, 2], 2, 3, 2, isa).unwrap();
        assert_eq!(planes.words(), fresh.words());
        assert_eq!((planes.pixels(), planes.depth(), planes.bits()), (2, 3, 2));
        // [pixel][plane]: bits of the codes 1, 2, 3, then of 0, 1, 2.
        assert_eq!(planes.words(), [0b101, 0b110, 0b010, 0b100]);
        planes.pack_into(&[4; 6], 2, 3, 2, isa).unwrap_err();
        assert_eq!(planes.words(), fresh.words(), "an error changes nothing");
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
        1usize..40,
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
        channels in prop_oneof![Just(1usize), Just(3), Just(16), Just(20), Just(33), Just(48), Just(64)],
        (height, width) in (5usize..12, 5usize..12),
        outputs in prop_oneof![Just(1usize), Just(16), Just(31), Just(50), Just(65)],
        kernel in prop_oneof![Just(1usize), Just(3), Just(5)],
        (stride, padding) in (1usize..=3, 0usize..=2),
        bits in bits(),
        seed in 0u64..1000,
    ) {
        let shape = ConvShape { channels, height, width, outputs, kernel, stride, padding };
        check_conv(shape, bits, seed, &mut Workspace::default());
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
    assert_eq!(error.to_string(), "`weights[4]` is 2, but 2-bit codes range from -2 to 1");
    let error = BitPlanes::pack(&[0, 4], 1, 2, 2, isa).unwrap_err();
    assert_eq!(error.to_string(), "`activations[1]` is 4, but 2-bit codes range from 0 to 3");

    let packed = pack(&[1; 6], 4).unwrap();
    let planes = BitPlanes::pack(&[1; 4], 1, 4, 8, isa).unwrap();
    assert!(matches!(
        packed.gemm(&planes, &mut [0; 2][..], &threads(1)),
        Err(KernelError::Length { .. })
    ));
    let planes = BitPlanes::pack(&[1; 3], 1, 3, 8, isa).unwrap();
    assert!(matches!(
        packed.gemm(&planes, &mut [0; 3][..], &threads(1)),
        Err(KernelError::Length { .. })
    ));

    // 65,794 products of 8 and 8 bits can reach 2^31.
    let deep = BitPair::new(8, 8).unwrap().safe_depth() + 1;
    let packed = BitSerialWeights::pack(&vec![1; deep], 1, deep, 8, isa).unwrap();
    let planes = BitPlanes::pack(&vec![1; deep], 1, deep, 8, isa).unwrap();
    let error = packed.gemm(&planes, &mut [0][..], &threads(1)).unwrap_err().to_string();
    assert!(error.contains("65793"), "{error}");

    assert!(matches!(
        packed.gemm(&BitPlanes::default(), &mut [0; 2][..], &threads(1)),
        Err(KernelError::Bits { what: "activations", got: 0 })
    ));
    assert!(matches!(
        BitPlanes::pack(&[0; 6], 2, 3, 9, isa),
        Err(KernelError::Bits { what: "activations", got: 9 })
    ));
    assert!(matches!(
        BitPlanes::pack(&[0; 5], 2, 3, 8, isa),
        Err(KernelError::Length { what: "activations", expected: 6, got: 5 })
    ));
    for (isa, missing) in Isa::ALL.map(|isa| (isa, !isa.is_available())) {
        let refused = BitSerialWeights::pack(&[0; 6], 2, 3, 4, isa).is_err();
        assert_eq!(refused, missing, "{isa}");
        let refused = BitPlanes::pack(&[0; 6], 2, 3, 4, isa).is_err();
        assert_eq!(refused, missing, "{isa}");
    }
}

#[test]
fn convolutions_that_do_not_fit_are_refused() {
    let isa = Isa::best();
    let pack = |shape, codes: &[i8]| BitSerialConv::pack(codes, shape, 4, isa);
    let small = ConvShape { height: 2, kernel: 5, ..CONV };
    assert!(matches!(pack(small, &[]), Err(KernelError::Shape { what: "height", .. })));
    let endless = ConvShape { outputs: usize::MAX, ..CONV };
    assert!(matches!(pack(endless, &[]), Err(KernelError::TooLarge { what: "weights" })));
    assert!(matches!(pack(CONV, &[0; 179]), Err(KernelError::Length { what: "weights", .. })));
    assert!(matches!(pack(CONV, &[8; 180]), Err(KernelError::Code { index: 0, got: 8, .. })));

    let mut workspace = Workspace::default();
    let conv = pack(CONV, &[1; 180]).unwrap();
    let mut run =
        |acts: &[u8], bits, out: &mut [i32]| conv.run(acts, bits, out, &mut workspace, &threads(1));
    assert!(matches!(run(&[0; 25], 0, &mut [0; 500]), Err(KernelError::Bits { got: 0, .. })));
    assert!(matches!(run(&[0; 25], 9, &mut [0; 500]), Err(KernelError::Bits { got: 9, .. })));
    assert!(matches!(run(&[4; 25], 2, &mut [0; 500]), Err(KernelError::Code { got: 4, .. })));
    assert!(matches!(run(&[0; 24], 2, &mut [0; 500]), Err(KernelError::Length { .. })));
    assert!(matches!(run(&[0; 25], 2, &mut [0; 499]), Err(KernelError::Length { .. })));

    let deep = ConvShape { channels: 65_794, height: 1, width: 1, outputs: 1, kernel: 1, ..CONV };
    let deep = ConvShape { padding: 0, ..deep };
    let conv = BitSerialConv::pack(&vec![1; 65_794], deep, 8, isa).unwrap();
    let error =
        conv.run(&vec![1; 65_794], 8, &mut [0][..], &mut workspace, &threads(1)).unwrap_err();
    assert!(matches!(error, KernelError::Overflow { bound: 65_793, .. }), "{error}");

    // More padding than memory holds: an error, not an abort.
    let (side, stride) = (1 << 28, 1 << 28);
    let padded = ConvShape { padding: side, stride, channels: 1, outputs: 1, ..CONV };
    let conv = BitSerialConv::pack(&[1; 9], padded, 4, isa).unwrap();
    let error = conv.run(&[1; 25], 8, &mut [0; 9][..], &mut workspace, &threads(1)).unwrap_err();
    assert!(matches!(error, KernelError::TooLarge { .. }), "{error}");
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
                packed.gemm(&planes, &mut out[..], &threads(1)).unwrap();
                let expected = depth as i64 * i64::from(weight) * i64::from(top);
                assert_eq!(i64::from(out[0]), expected, "{isa} {shape:?}");
            }
        }
    }
}
