//! The conformance suite of the [`Quantizer`] trait.

use crate::{Bitwidth, LayerWeights, QuantError, Quantized, Quantizer};

/// Asserts what every [`Quantizer`] promises, at all bitwidths that it supports and for layers of many
/// shapes and magnitudes. For the tests of your own quantizer; needs the feature `testing`.
///
/// - Values: finite, at most `2^bits` different ones in each channel, in each channel in the order of the
///   weights, the same at every call.
/// - Codes, if the quantizer has any: dequantized they equal
///   [`fake_quantize`](Quantizer::fake_quantize), and they survive packing.
/// - Gradients: finite, and linear in the incoming gradient.
/// - Errors, not panics, for an unsupported bitwidth, no weights, a weight that is not finite (with its
///   index), and slices of the wrong length.
///
/// ```
/// # #[cfg(feature = "testing")]
/// releq_quant::check_quantizer(&releq_quant::Wrpn);
/// ```
///
/// # Panics
/// If a promise is broken, naming it.
pub fn check_quantizer(quantizer: &dyn Quantizer) {
    let name = quantizer.name();
    assert!(!name.is_empty(), "a quantizer needs a name");
    let all = (1..=32).filter_map(|bits| Bitwidth::new(bits).ok());
    let (supported, unsupported): (Vec<_>, Vec<_>) = all.partition(|&b| quantizer.supports(b));
    assert!(!supported.is_empty(), "{name}: supports no bitwidth");
    for (layer, values, channels) in layers() {
        let weights = match LayerWeights::new(&values, channels) {
            Ok(weights) => weights,
            Err(error) => panic!("{layer}: {error}"),
        };
        for &bits in &supported {
            let case = format!("{name} at {bits} bits, {layer}");
            let rounded = check_values(quantizer, weights, bits, &case);
            check_codes(quantizer, weights, bits, &rounded, &case);
            check_clips(quantizer, weights, bits, &rounded, &case);
            check_gradient(quantizer, weights, bits, &case);
        }
    }
    for &bits in &supported {
        check_errors(quantizer, bits);
    }
    for &bits in &unsupported {
        let all = Results::of(quantizer, (&[0.5]).into(), bits);
        all.assert(
            &format!("{name}: {bits} bits"),
            |error| matches!(error, QuantError::BitwidthNotSupported { got, .. } if *got == bits),
        );
    }
}

/// Clips give what is given without, and what weights are rounded to within those of others is rounded to itself.
fn check_clips(
    quantizer: &dyn Quantizer,
    weights: LayerWeights<'_>,
    bits: Bitwidth,
    rounded: &[f32],
    case: &str,
) {
    let all = |what: &str, result: Result<(), QuantError>| {
        assert!(result.is_ok(), "{case}: {what}: {result:?}");
    };
    let mut out = vec![f32::NAN; weights.len()];
    let clips = match quantizer.clips(weights, bits) {
        Ok(Some(clips)) => clips,
        Ok(None) => {
            all(
                "fake_quantize_within",
                quantizer.fake_quantize_within(weights, bits, &[], &mut out),
            );
            assert_eq!(out, rounded, "{case}: clips make a difference, but there are none");
            return;
        }
        Err(error) => panic!("{case}: clips: {error}"),
    };
    all("fake_quantize_within", quantizer.fake_quantize_within(weights, bits, &clips, &mut out));
    assert_eq!(out, rounded, "{case}: within its own clips, the layer is rounded otherwise");
    // As after training: the weights have moved, and the clips have not.
    let moved: Vec<f32> = weights
        .values()
        .iter()
        .zip(0u8..)
        .map(|(w, i)| w * (0.4 + f32::from(i % 5) / 8.0))
        .collect();
    let of = |values| LayerWeights::new(values, weights.channels());
    let (Ok(moved), mut held) = (of(&moved), vec![f32::NAN; weights.len()]) else { return };
    all("fake_quantize_within", quantizer.fake_quantize_within(moved, bits, &clips, &mut held));
    let Ok(settled) = of(&held) else { return };
    all("fake_quantize", quantizer.fake_quantize(settled, bits, &mut out));
    assert_eq!(out, held, "{case}: rounded weights are rounded to others");
    let error =
        quantizer.fake_quantize_within(weights, bits, &[clips, vec![1.0]].concat(), &mut out);
    assert!(
        matches!(error, Err(QuantError::Length { .. })),
        "{case}: a clip too many is no length error but {error:?}"
    );
}

/// Layers that have broken quantizers: what they are, the weights, and the number of channels.
fn layers() -> Vec<(&'static str, Vec<f32>, usize)> {
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
    let unlike = [bell(40, 0.01), bell(40, 5.0), vec![0.0; 40], bell(40, 1e-39)].concat();
    vec![
        ("a bell of small weights", bell(257, 0.1), 1),
        ("weights beyond 1", bell(257, 3.0), 1),
        ("an outlier", outlier, 1),
        ("one weight", vec![0.3], 1),
        ("zeros", vec![0.0; 5], 1),
        ("equal weights", vec![-0.25; 7], 1),
        ("exact halves", vec![-1.0, -0.5, 0.0, 0.5, 1.0], 1),
        ("signed zeros and ties", vec![0.0, -0.0, 0.7, -0.7, 0.7], 1),
        ("tiny weights", vec![0.0, 1e-40, -1e-38, 3e-37], 1),
        ("huge weights", vec![0.0, f32::MAX, -1e38, f32::MIN], 1),
        ("channels of unlike magnitude", unlike, 4),
        ("channels of one weight", vec![0.4, -0.1, 0.0, 3.0, -1e-20], 5),
    ]
}

/// Returns the quantized weights.
fn check_values(
    quantizer: &dyn Quantizer,
    weights: LayerWeights<'_>,
    bits: Bitwidth,
    case: &str,
) -> Vec<f32> {
    let fake_quantize = |before: f32| {
        let mut out = vec![before; weights.len()];
        if let Err(error) = quantizer.fake_quantize(weights, bits, &mut out) {
            panic!("{case}: {error}");
        }
        out
    };
    let values = fake_quantize(f32::NAN);
    assert!(values.iter().all(|value| value.is_finite()), "{case}: values must be finite");
    assert_eq!(values, fake_quantize(7.0), "{case}: every call must give the same values");

    let row_len = weights.len() / weights.channels();
    for (weights, values) in weights.rows().zip(values.chunks_exact(row_len)) {
        let mut pairs: Vec<_> = weights.iter().zip(values).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(b.0));
        for pair in pairs.windows(2) {
            let (low, high) = (pair[0].1, pair[1].1);
            assert!(low <= high, "{case}: {low} and {high} are not in the order of the weights");
        }
        let mut levels = values.to_vec();
        levels.sort_by(f32::total_cmp);
        levels.dedup();
        let allowed = 1u64 << bits.get();
        assert!(levels.len() as u64 <= allowed, "{case}: {} levels", levels.len());
    }
    values
}

fn check_codes(
    quantizer: &dyn Quantizer,
    weights: LayerWeights<'_>,
    bits: Bitwidth,
    values: &[f32],
    case: &str,
) {
    let quantize = || match quantizer.quantize(weights, bits) {
        Ok(quantized) => Some(quantized),
        Err(QuantError::NoCodes { .. }) => None,
        Err(error) => panic!("{case}: {error}"),
    };
    let quantized = quantize();
    assert_eq!(quantized, quantize(), "{case}: every call must give the same codes");
    let Some(quantized) = quantized else { return };
    assert_eq!(quantized.bits(), bits, "{case}: bits of the codes");
    let scales = quantized.scales().len();
    assert!(scales == 1 || scales == weights.channels(), "{case}: {scales} scales");
    assert_eq!(
        quantized.dequantize(),
        values,
        "{case}: dequantized codes must equal the fake-quantized weights"
    );
    match quantized.pack() {
        Ok(packed) => {
            assert_eq!(packed.unpack(), quantized.codes(), "{case}: packing must round-trip");
        }
        Err(error) => panic!("{case}: {error}"),
    }
}

fn check_gradient(
    quantizer: &dyn Quantizer,
    weights: LayerWeights<'_>,
    bits: Bitwidth,
    case: &str,
) {
    let backward = |grad_out: &[f32]| {
        let mut grad_in = vec![f32::NAN; weights.len()];
        if let Err(error) = quantizer.backward(weights, bits, grad_out, &mut grad_in) {
            panic!("{case}: {error}");
        }
        grad_in
    };
    let grad_out: Vec<f32> = (0..weights.len()).map(|i| ((i % 13) as f32 - 5.5) / 4.0).collect();
    let grad_in = backward(&grad_out);
    assert!(grad_in.iter().all(|grad| grad.is_finite()), "{case}: gradients must be finite");
    // These factors are exact in floating point.
    for factor in [2.0, -1.0, 0.0] {
        let scaled: Vec<f32> = grad_out.iter().map(|grad| factor * grad).collect();
        for (got, grad) in backward(&scaled).iter().zip(&grad_in) {
            assert!(
                *got == factor * grad,
                "{case}: gradients must be linear: {got} is not {factor} times {grad}"
            );
        }
    }
    let part = |parity: usize| -> Vec<f32> {
        let keep = |(i, &grad): (usize, &f32)| if i % 2 == parity { grad } else { 0.0 };
        backward(&grad_out.iter().enumerate().map(keep).collect::<Vec<_>>())
    };
    let (even, odd) = (part(0), part(1));
    let largest = grad_in.iter().fold(1.0f32, |max, grad| max.max(grad.abs()));
    for ((even, odd), grad) in even.iter().zip(&odd).zip(&grad_in) {
        assert!(
            (even + odd - grad).abs() <= 1e-4 * largest,
            "{case}: gradients must be linear: {even} + {odd} is not {grad}"
        );
    }
}

/// What all methods that can fail return for the same weights; `None` for success.
struct Results([(&'static str, Option<QuantError>); 3]);

impl Results {
    fn of(quantizer: &dyn Quantizer, weights: LayerWeights<'_>, bits: Bitwidth) -> Self {
        let grad_out = vec![1.0; weights.len()];
        let mut out = vec![0.0; weights.len()];
        let quantized: Result<Quantized, _> = quantizer.quantize(weights, bits);
        // A scheme without codes need not look at the weights to say so.
        let quantized = match quantized {
            Err(QuantError::NoCodes { .. }) => quantizer.fake_quantize(weights, bits, &mut out),
            other => other.map(drop),
        };
        Self([
            ("quantize", quantized.err()),
            ("fake_quantize", quantizer.fake_quantize(weights, bits, &mut out).err()),
            ("backward", quantizer.backward(weights, bits, &grad_out, &mut out).err()),
        ])
    }

    /// Asserts that every method failed, with an error as `expected`.
    fn assert(&self, case: &str, expected: impl Fn(&QuantError) -> bool) {
        for (method, error) in &self.0 {
            match error {
                Some(error) => assert!(expected(error), "{case}: {method} returns `{error}`"),
                None => panic!("{case}: {method} must fail"),
            }
        }
    }
}

fn check_errors(quantizer: &dyn Quantizer, bits: Bitwidth) {
    let case = format!("{} at {bits} bits", quantizer.name());
    let empty = LayerWeights::from(&[]);
    Results::of(quantizer, empty, bits)
        .assert(&format!("{case}: no weights"), |error| matches!(error, QuantError::Empty));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        // In the second of two channels.
        let values = [0.5, -0.5, 0.25, bad];
        let Ok(weights) = LayerWeights::new(&values, 2) else { return };
        Results::of(quantizer, weights, bits).assert(&format!("{case}: a weight of {bad}"), |e| {
            matches!(e, QuantError::NotFinite { index: 3, value } if value.to_bits() == bad.to_bits())
        });
    }
    let one = LayerWeights::from(&[0.5]);
    for len in [0, 2] {
        let mut wrong = vec![1.0; len];
        let refused = quantizer.fake_quantize(one, bits, &mut wrong);
        assert!(refused.is_err(), "{case}: `out` of {len} values for one weight");
        let refused = quantizer.backward(one, bits, &wrong, &mut [0.0]);
        assert!(refused.is_err(), "{case}: `grad_out` of {len} values for one weight");
        let refused = quantizer.backward(one, bits, &[1.0], &mut wrong);
        assert!(refused.is_err(), "{case}: `grad_in` of {len} values for one weight");
    }
}
