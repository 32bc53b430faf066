//! The conformance suite of the [`Quantizer`] seam.

use crate::{Bitwidth, QuantError, Quantizer};

/// Asserts what every [`Quantizer`] promises, over 1 to 8 bits and layers of many shapes; a quantizer of
/// your own proves itself by it. Needs the feature `testing`.
///
/// Checked are: at most `2^bits` levels, codes that fit in their bits, values that are finite and grow
/// with the weights, [`fake_quantize`](Quantizer::fake_quantize) equal to the dequantized codes, packing
/// there and back, the same answer twice, finite gradients that are linear in the incoming one, and errors
/// (no panics) for bad input. With the feature `burn` also that a tensor gives the same values, and by
/// automatic differentiation the same gradient, as slices do.
///
/// ```
/// # #[cfg(feature = "testing")]
/// releq_quant::check_quantizer(&releq_quant::Wrpn);
/// ```
///
/// # Panics
/// If a promise is broken, naming it.
pub fn check_quantizer(quantizer: &dyn Quantizer) {
    for (layer, weights) in layers() {
        for bits in (1..=8).filter_map(|bits| Bitwidth::new(bits).ok()) {
            let case = format!("{} at {bits} bits, {layer}", quantizer.name());
            check_values(quantizer, &weights, bits, &case);
            check_gradient(quantizer, &weights, bits, &case);
        }
    }
    check_errors(quantizer);
}

/// Layers that have broken quantizers, with their names.
fn layers() -> Vec<(&'static str, Vec<f32>)> {
    // Sums of three uniform numbers from a fixed generator.
    let mut state = 5u64;
    let mut uniform = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let mut bell = |len, scale| -> Vec<f32> {
        (0..len).map(|_| (uniform() + uniform() + uniform()) * scale).collect()
    };
    let mut outlier = bell(300, 0.05);
    outlier.push(-2.0);
    vec![
        ("a bell of small weights", bell(257, 0.1)),
        ("weights beyond 1", bell(257, 3.0)),
        ("an outlier", outlier),
        ("one weight", vec![0.3]),
        ("zeros", vec![0.0; 5]),
        ("equal weights", vec![-0.25; 7]),
        ("exact halves", vec![-1.0, -0.5, 0.0, 0.5, 1.0]),
        ("signed zeros and ties", vec![0.0, -0.0, 0.7, -0.7, 0.7]),
        ("tiny weights", vec![0.0, 1e-40, -1e-38, 3e-37]),
        ("huge weights", vec![0.0, f32::MAX, -1e38, f32::MIN]),
    ]
}

/// Fake quantization of weights that must be accepted.
fn fake_quantize(q: &dyn Quantizer, weights: &[f32], bits: Bitwidth, case: &str) -> Vec<f32> {
    let mut out = vec![f32::NAN; weights.len()];
    if let Err(error) = q.fake_quantize(weights, bits, &mut out) {
        panic!("{case}: {error}");
    }
    out
}

fn check_values(quantizer: &dyn Quantizer, weights: &[f32], bits: Bitwidth, case: &str) {
    let quantized = match quantizer.quantize(weights, bits) {
        Ok(quantized) => quantized,
        Err(error) => panic!("{case}: {error}"),
    };
    let values = fake_quantize(quantizer, weights, bits, case);
    assert_eq!(quantized.codes.len(), weights.len(), "{case}: one code for every weight");
    assert_eq!(quantized.bits, bits, "{case}: the bitwidth that was asked for");
    assert_eq!(
        quantized.dequantize(),
        values,
        "{case}: fake quantization is the dequantized codes"
    );
    assert!(values.iter().all(|value| value.is_finite()), "{case}: finite values");

    let mut levels = values.clone();
    levels.sort_by(f32::total_cmp);
    levels.dedup();
    assert!(levels.len() <= 1 << bits.get(), "{case}: {} levels", levels.len());

    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&i, &j| weights[i].total_cmp(&weights[j]));
    for pair in order.windows(2) {
        let (low, high) = (values[pair[0]], values[pair[1]]);
        assert!(low <= high, "{case}: {low} and {high} are not in the order of the weights");
    }

    match quantized.pack() {
        Ok(packed) => assert_eq!(packed.unpack(), quantized.codes, "{case}: packing round-trips"),
        Err(error) => panic!("{case}: codes do not fit: {error}"),
    }
    assert_eq!(quantizer.quantize(weights, bits), Ok(quantized), "{case}: the same answer twice");
}

fn check_gradient(quantizer: &dyn Quantizer, weights: &[f32], bits: Bitwidth, case: &str) {
    let backward = |factor: f32| {
        let grad_out: Vec<f32> =
            (0..weights.len()).map(|i| factor * ((i % 13) as f32 - 5.5) / 4.0).collect();
        let mut grad_in = vec![f32::NAN; weights.len()];
        if let Err(error) = quantizer.backward(weights, bits, &grad_out, &mut grad_in) {
            panic!("{case}: {error}");
        }
        (grad_out, grad_in)
    };
    let (grad_out, grad_in) = backward(1.0);
    assert!(grad_in.iter().all(|grad| grad.is_finite()), "{case}: finite gradients");
    // Doubling is exact in floating point.
    for (twice, once) in backward(2.0).1.iter().zip(&grad_in) {
        assert!(
            *twice == 2.0 * once,
            "{case}: the gradient is linear: {twice} is not twice {once}"
        );
    }
    #[cfg(feature = "burn")]
    check_tensor(quantizer, weights, bits, (&grad_out, &grad_in), case);
    #[cfg(not(feature = "burn"))]
    drop(grad_out);
}

/// `grads` are the gradient that comes in and the one that slices give for it.
#[cfg(feature = "burn")]
fn check_tensor(
    quantizer: &dyn Quantizer,
    weights: &[f32],
    bits: Bitwidth,
    grads: (&[f32], &[f32]),
    case: &str,
) {
    use burn::tensor::{Device, Tensor};

    let device = Device::flex().autodiff();
    let leaf = Tensor::<1>::from_floats(weights, &device).require_grad();
    let out = match quantizer.fake_quantize_tensor(leaf.clone(), bits) {
        Ok(out) => out,
        Err(error) => panic!("{case}: {error}"),
    };
    let values: Vec<f32> = out.to_data().iter::<f32>().collect();
    let expected = fake_quantize(quantizer, weights, bits, case);
    assert_eq!(values, expected, "{case}: tensors and slices give the same values");

    let gradients = (out * Tensor::<1>::from_floats(grads.0, &device)).sum().backward();
    let Some(leaf) = leaf.grad(&gradients) else {
        panic!("{case}: no gradient reaches the weights");
    };
    // The largest gradient sets the scale of a sum's rounding error, which grows with the layer.
    let largest = grads.1.iter().fold(1.0f32, |max, grad| max.max(grad.abs()));
    for (got, expected) in leaf.into_data().iter::<f32>().zip(grads.1) {
        assert!(
            (got - expected).abs() <= 1e-4 * largest,
            "{case}: automatic differentiation gives {got}, backward {expected}"
        );
    }
}

fn check_errors(quantizer: &dyn Quantizer) {
    let name = quantizer.name();
    let bits = Bitwidth::EIGHT;
    let Ok(wide) = Bitwidth::new(32) else { panic!("32 bits are a bitwidth") };
    assert_eq!(
        quantizer.quantize(&[0.5], wide),
        Err(QuantError::BitwidthNotSupported { quantizer: name, got: wide.get() }),
        "{name}: 32 bits"
    );
    assert_eq!(quantizer.quantize(&[], bits), Err(QuantError::Empty), "{name}: no weights");
    assert!(quantizer.fake_quantize(&[0.5], wide, &mut [0.0]).is_err(), "{name}: 32 bits");
    assert!(quantizer.fake_quantize(&[], bits, &mut []).is_err(), "{name}: no weights");
    assert!(quantizer.fake_quantize(&[0.5], bits, &mut []).is_err(), "{name}: length of out");
    assert!(quantizer.backward(&[0.5], wide, &[1.0], &mut [0.0]).is_err(), "{name}: 32 bits");
    assert!(quantizer.backward(&[], bits, &[], &mut []).is_err(), "{name}: no weights");
    assert!(
        quantizer.backward(&[0.5], bits, &[], &mut [0.0]).is_err(),
        "{name}: length of grad_out"
    );
    assert!(
        quantizer.backward(&[0.5], bits, &[1.0], &mut []).is_err(),
        "{name}: length of grad_in"
    );
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for result in [
            quantizer.quantize(&[0.5, bad], bits).map(drop),
            quantizer.fake_quantize(&[0.5, bad], bits, &mut [0.0; 2]),
            quantizer.backward(&[0.5, bad], bits, &[1.0; 2], &mut [0.0; 2]),
        ] {
            let refused = matches!(result, Err(QuantError::NotFinite { index: 1, .. }));
            assert!(refused, "{name}: a weight of {bad} gives {result:?}");
        }
    }
}
