//! Layers of a network: all kernels that support a layer give the same results, and the right one is chosen.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod common;

use common::{acts, check_outputs, epilogue, threads, weights};
use proptest::prelude::*;
use releq_kernels::{
    BitPair, Choice, ConvShape, GemmShape, Isa, Kernel, KernelError, Layer, LayerShape, Workspace,
    reference,
};

const CONV: ConvShape =
    ConvShape { channels: 64, height: 8, width: 8, outputs: 64, kernel: 3, stride: 1, padding: 1 };

fn linear(outputs: usize, depth: usize) -> LayerShape {
    LayerShape::Gemm(GemmShape { pixels: 1, outputs, depth })
}

/// Packs weights that are handed out some outputs at a time.
fn packed_by_rows(
    kernel: Option<Kernel>,
    weights: &[i8],
    shape: LayerShape,
    bits: BitPair,
    isa: Isa,
) -> Layer {
    let mut next = 0;
    let fill = |first: usize, out: &mut [i8]| {
        assert_eq!((first * shape.depth(), out.len() % shape.depth()), (next, 0));
        out.copy_from_slice(&weights[next..][..out.len()]);
        next += out.len();
        Ok::<(), KernelError>(())
    };
    let choice = kernel.map(Choice::requested);
    let layer = Layer::pack_rows(choice, shape, bits, isa, fill).unwrap();
    assert_eq!(next, weights.len());
    layer
}

fn check(shape: LayerShape, bits: BitPair, seed: u64) {
    let (weights, acts) = (weights(shape.weights(), bits, seed), acts(shape.acts(), bits, seed));
    let mut expected = vec![0; shape.pixels() * shape.outputs()];
    match shape {
        LayerShape::Gemm(shape) => reference::gemm(shape, bits, &weights, &acts, &mut expected),
        LayerShape::Conv(shape) => reference::conv2d(shape, bits, &weights, &acts, &mut expected),
        LayerShape::Depthwise(shape) => {
            reference::depthwise(shape, bits, &weights, &acts, &mut expected)
        }
        other => panic!("{other:?}"),
    }
    .unwrap();
    let epilogue = epilogue(shape.outputs(), 64, bits.weight());
    let mut workspace = Workspace::default();
    for isa in Isa::available() {
        let mut layers = vec![Layer::pack(&weights, shape, bits, isa).unwrap()];
        let low_bit = (bits.weight()..=8).map(|stored| Kernel::LowBit { stored });
        let kernels = [Kernel::BitSerial, Kernel::Int8].into_iter().chain(low_bit);
        for kernel in kernels.filter(|_| !matches!(shape, LayerShape::Depthwise(_))) {
            layers.push(Layer::pack_for(kernel, &weights, shape, bits, isa).unwrap());
            layers.push(packed_by_rows(Some(kernel), &weights, shape, bits, isa));
        }
        layers.push(packed_by_rows(None, &weights, shape, bits, isa));
        for layer in layers {
            let label = format!("{isa} {shape:?} {bits:?} {}", layer.choice());
            check_outputs(&expected, &epilogue, &label, |out| {
                layer.run(&acts, out, &mut workspace, &threads(1))
            });
        }
    }
}

/// Small enough for Miri.
#[test]
fn small_shapes_equal_the_reference() {
    check(linear(3, 9), BitPair::new(3, 8).unwrap(), 3);
    let shape = ConvShape { channels: 2, height: 3, width: 2, outputs: 3, ..CONV };
    check(LayerShape::Conv(shape), BitPair::new(3, 8).unwrap(), 3);
}

proptest! {
    #![proptest_config(common::cases(32))]

    #[test]
    fn every_kernel_equals_the_reference(
        kind in 0..3,
        channels in prop::sample::select(vec![1usize, 16, 31, 33, 64]),
        outputs in prop::sample::select(vec![1usize, 16, 33, 65]),
        (side, stride) in (3usize..8, 1usize..3),
        (weight, act) in (1u8..=8, 1u8..=8),
        seed in 0u64..1000,
    ) {
        let conv = ConvShape { channels, height: side, width: side + 1, outputs, stride, ..CONV };
        let shape = match kind {
            0 => LayerShape::Gemm(GemmShape { pixels: side * stride - 2, outputs, depth: channels }),
            1 => LayerShape::Conv(conv),
            _ => LayerShape::Depthwise(ConvShape { outputs: channels, ..conv }),
        };
        check(shape, BitPair::new(weight, act).unwrap(), seed);
    }
}

/// Padding with a code is the same as an image with a margin of that code, and no padding.
#[test]
fn images_are_padded_with_the_given_code() {
    let bits = BitPair::new(5, 8).unwrap();
    let padded = ConvShape { channels: 19, height: 5, width: 6, outputs: 19, padding: 2, ..CONV };
    let whole = ConvShape { height: 9, width: 10, padding: 0, ..padded };
    let image = acts(padded.channels * 30, bits, 1);
    let mut margin = vec![77; whole.channels * 90];
    for (row, pixels) in image.chunks(6 * 19).enumerate() {
        margin[((row + 2) * 10 + 2) * 19..][..pixels.len()].copy_from_slice(pixels);
    }
    for (shape, without) in [
        (LayerShape::Conv(padded), LayerShape::Conv(whole)),
        (LayerShape::Depthwise(padded), LayerShape::Depthwise(whole)),
    ] {
        let codes = weights(shape.weights(), bits, 2);
        let mut workspace = Workspace::default();
        for isa in Isa::available() {
            let kernels = match shape {
                LayerShape::Conv(_) => vec![Kernel::Int8, Kernel::LowBit { stored: 5 }],
                _ => vec![Kernel::Depthwise],
            };
            for kernel in kernels {
                let mut run = |shape: LayerShape, code: u8, acts: &[u8]| {
                    let layer = Layer::pack_for(kernel, &codes, shape, bits, isa).unwrap();
                    let mut sums = vec![0; shape.pixels() * shape.outputs()];
                    let layer = layer.with_padding_code(code).unwrap();
                    layer.run(acts, &mut sums, &mut workspace, &threads(1)).unwrap();
                    sums
                };
                assert_eq!(run(shape, 77, &image), run(without, 0, &margin), "{isa} {kernel}");
                // The margin of the image before is not kept.
                assert_eq!(run(shape, 0, &image), run(shape, 0, &image), "{isa} {kernel}");
            }
        }
    }
    let planes = BitPair::new(1, 1).unwrap();
    let conv = LayerShape::Conv(CONV);
    let codes = vec![-1; conv.weights()];
    let layer = Layer::pack_for(Kernel::BitSerial, &codes, conv, planes, Isa::best()).unwrap();
    assert!(layer.clone().with_padding_code(0).is_ok());
    assert!(matches!(layer.with_padding_code(1), Err(KernelError::Mismatch { .. })));
}

#[test]
fn layers_get_the_kernels_that_the_rules_say() {
    let kernel =
        |shape, w, a, isa| Choice::of(shape, BitPair::new(w, a).unwrap(), isa).unwrap().kernel;
    let conv = LayerShape::Conv(CONV);
    for isa in Isa::ALL {
        for w in 2..=8 {
            assert_eq!(kernel(conv, w, 8, isa), Kernel::Int8, "{isa} {w}");
        }
        assert_eq!(kernel(conv, 1, 2, isa), Kernel::BitSerial, "{isa}");
        assert_eq!(kernel(linear(4096, 9216), 8, 8, isa), Kernel::Int8, "{isa}");
        let depthwise = LayerShape::Depthwise(CONV);
        assert_eq!(kernel(depthwise, 1, 1, isa), Kernel::Depthwise, "{isa}");
    }
    let best = Isa::Avx512;
    assert_eq!(kernel(linear(4096, 9216), 5, 8, best), Kernel::LowBit { stored: 5 });
    assert_eq!(kernel(linear(500, 800), 5, 8, best), Kernel::Int8);
    assert_eq!(kernel(linear(500, 800), 3, 8, best), Kernel::LowBit { stored: 4 });
    assert_eq!(kernel(linear(4096, 9216), 3, 8, best), Kernel::LowBit { stored: 3 });
    assert_eq!(kernel(linear(500, 800), 2, 2, best), Kernel::BitSerial);
    assert_eq!(kernel(linear(4096, 9216), 2, 8, Isa::Avx2), Kernel::LowBit { stored: 2 });
    assert_eq!(kernel(linear(500, 800), 2, 8, Isa::Avx2), Kernel::Int8);
    let choice = Choice::of(linear(4096, 9216), BitPair::new(4, 8).unwrap(), best).unwrap();
    assert!(choice.to_string().starts_with("low-bit/4: one pixel"), "{choice}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let (isa, bits) = (Isa::best(), BitPair::new(4, 4).unwrap());
    let impossible = LayerShape::Conv(ConvShape { stride: 0, ..CONV });
    assert!(matches!(Choice::of(impossible, bits, isa), Err(KernelError::Shape { .. })));
    let endless = linear(usize::MAX, 2);
    assert!(matches!(Choice::of(endless, bits, isa), Err(KernelError::TooLarge { .. })));
    let shape = linear(2, 3);
    let pack = |kernel, codes: &[i8]| Layer::pack_for(kernel, codes, shape, bits, isa);
    let depthwise = pack(Kernel::Depthwise, &[0; 6]).unwrap_err().to_string();
    assert!(depthwise.contains("depthwise kernel"), "{depthwise}");
    let narrow = pack(Kernel::LowBit { stored: 3 }, &[7; 6]);
    assert!(matches!(narrow, Err(KernelError::Code { bits: 3, .. })));
    // A code of 5 bits, although the kernel could store it.
    assert!(matches!(pack(Kernel::Int8, &[8; 6]), Err(KernelError::Code { bits: 4, .. })));
    let layer = pack(Kernel::Int8, &[7; 6]).unwrap();
    let mut out = [0; 2];
    let large = layer.run(&[0, 16, 0], &mut out[..], &mut Workspace::default(), &threads(1));
    assert!(matches!(large, Err(KernelError::Code { what: "activations", index: 1, .. })));
}

#[test]
fn rows_that_do_not_fit_or_do_not_come_end_packing() {
    let (shape, bits) = (linear(40, 8), BitPair::new(3, 8).unwrap());
    let wide = |first: usize, out: &mut [i8]| {
        out.fill(3);
        // Output 33 has a code that fits in the bits of one kernel alone.
        if let Some(code) = 33_usize.checked_sub(first).and_then(|at| out.get_mut(8 * at)) {
            *code = 5;
        }
        Ok::<(), KernelError>(())
    };
    let missing = |_: usize, _: &mut [i8]| Err(KernelError::TooLarge { what: "weights" });
    for kernel in [Kernel::BitSerial, Kernel::Int8, Kernel::LowBit { stored: 4 }] {
        let choice = Some(Choice::requested(kernel));
        let error = Layer::pack_rows(choice, shape, bits, Isa::Portable, wide).unwrap_err();
        assert!(matches!(error, KernelError::Code { index: 264, got: 5, bits: 3, .. }), "{error}");
        let error = Layer::pack_rows(choice, shape, bits, Isa::Portable, missing).unwrap_err();
        assert!(matches!(error, KernelError::TooLarge { .. }), "{error}");
    }
}
