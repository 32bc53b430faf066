//! One suite for every scheme, and the vectors of each.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn bits(bits: u8) -> Bitwidth {
    Bitwidth::new(bits).unwrap()
}

fn all() -> Vec<Arc<dyn Quantizer>> {
    let max_abs = |granularity| WrpnScaled { clip: Clip::MaxAbs, granularity };
    let kinds = QuantizerKind::ALL.iter().map(|kind| kind.build());
    let granularities = [Granularity::PerLayer, Granularity::PerChannel];
    kinds.chain(granularities.map(|g| Arc::new(max_abs(g)) as Arc<dyn Quantizer>)).collect()
}

/// The bitwidths from 1 to 8 that it supports.
fn supported(quantizer: &dyn Quantizer) -> impl Iterator<Item = u8> {
    (1..=8).filter(|b| quantizer.supports(bits(*b)))
}

fn fake<'a>(quantizer: &dyn Quantizer, weights: impl Into<LayerWeights<'a>>, b: u8) -> Vec<f32> {
    let weights = weights.into();
    let mut out = vec![0.0; weights.len()];
    quantizer.fake_quantize(weights, bits(b), &mut out).unwrap();
    out
}

fn close(got: &[f32], expected: &[f32]) {
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() < 2e-6, "{got} is not {expected}");
    }
}

#[test]
fn wrpn_rounds_half_to_even_on_a_fixed_range() {
    let weights = [-1.3, -0.6, -0.5, -0.2, 0.0, 0.1, 0.49, 0.5, 0.51, 0.9];
    let (third, seventh) = (1.0 / 3.0, 1.0 / 7.0);
    close(&fake(&Wrpn, &weights, 2), &[-1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
    // 0.5 lies half way between 1/3 and 2/3: 1.5 rounds to the even 2.
    let expected = [-3.0, -2.0, -2.0, -1.0, 0.0, 0.0, 1.0, 2.0, 2.0, 3.0].map(|x| x * third);
    close(&fake(&Wrpn, &weights, 3), &expected);
    let expected = [-7.0, -4.0, -4.0, -1.0, 0.0, 1.0, 3.0, 4.0, 4.0, 6.0].map(|x| x * seventh);
    close(&fake(&Wrpn, &weights, 4), &expected);
}

#[test]
fn dorefa_has_no_zero_and_spans_one() {
    let weights = [-0.30, -0.12, -0.05, 0.0, 0.02, 0.08, 0.15, 0.40];
    let third = 1.0 / 3.0;
    close(&fake(&Dorefa, &weights, 2), &[-1.0, -third, -third, third, third, third, third, 1.0]);
    close(
        &fake(&Dorefa, &weights, 3),
        &[-0.714_286, -0.428_571, -0.142_857, 0.142_857, 0.142_857, 0.142_857, 0.428_571, 1.0],
    );
    let fifteenths = [-11.0, -5.0, -1.0, 1.0, 1.0, 3.0, 5.0, 15.0].map(|x| x / 15.0);
    close(&fake(&Dorefa, &weights, 4), &fifteenths);
}

#[test]
fn one_bit_is_the_sign_times_the_mean_magnitude() {
    for quantizer in all().iter().filter(|quantizer| quantizer.supports(Bitwidth::ONE)) {
        close(&fake(quantizer, &[-0.3, 0.1, 0.0, -0.2], 1), &[-0.15, 0.15, 0.15, -0.15]);
    }
}

#[test]
fn the_scaled_clip_beats_the_largest_magnitude_where_bits_are_few() {
    // A bell of small weights and one outlier, as trained layers have.
    let mut weights: Vec<f32> = (-50..=50).map(|i: i32| (i as f32 / 50.0).powi(3) * 0.1).collect();
    weights.push(0.2);
    let error = |clip| {
        let rounded = fake(&WrpnScaled { clip, ..WrpnScaled::default() }, &weights, 2);
        weights.iter().zip(&rounded).map(|(a, b)| (a - b).powi(2)).sum::<f32>()
    };
    assert!(error(Clip::MinMse) < 0.95 * error(Clip::MaxAbs));
}

#[test]
fn every_scheme_passes_the_conformance_suite() {
    for quantizer in all() {
        check_quantizer(&quantizer);
    }
}

/// Breaks the promise of its name.
#[derive(Debug)]
struct Broken(&'static str);

impl Quantizer for Broken {
    fn name(&self) -> &str {
        self.0
    }

    fn supports(&self, bits: Bitwidth) -> bool {
        bits.get() == 2
    }

    fn fake_quantize(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        out: &mut [f32],
    ) -> Result<(), QuantError> {
        Wrpn.fake_quantize(weights, bits, out)?;
        match self.0 {
            "levels" => out.copy_from_slice(weights.values()),
            "order" => out.iter_mut().for_each(|out| *out = -*out),
            "finite" => out[0] = f32::NAN,
            _ => {}
        }
        Ok(())
    }

    fn backward(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        grad_out: &[f32],
        grad_in: &mut [f32],
    ) -> Result<(), QuantError> {
        Wrpn.backward(weights, bits, grad_out, grad_in)?;
        if self.0 == "linear" {
            grad_in.iter_mut().for_each(|grad| *grad = grad.clamp(-1.0, 1.0));
        }
        Ok(())
    }

    fn quantize(&self, weights: LayerWeights<'_>, bits: Bitwidth) -> Result<Quantized, QuantError> {
        let codes = Wrpn.quantize(weights, bits)?;
        let scales = codes.scales().iter().map(|scale| scale * 2.0).collect();
        match self.0 {
            "codes" => Quantized::new(codes.codes().to_vec(), scales, codes.zero_point(), bits),
            _ => Ok(codes),
        }
    }
}

#[test]
fn the_conformance_suite_finds_broken_promises() {
    for (broken, message) in [
        ("levels", "levels"),
        ("order", "are not in the order of the weights"),
        ("finite", "values must be finite"),
        ("codes", "dequantized codes must equal"),
        ("linear", "gradients must be linear"),
        ("nothing else", "1 bits: quantize must fail"),
    ] {
        let panic = std::panic::catch_unwind(|| check_quantizer(&Broken(broken))).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains(message), "{broken}: {text}");
    }
}

#[test]
fn bad_input_is_refused() {
    for quantizer in all() {
        let first = if quantizer.supports(Bitwidth::ONE) { 1 } else { 2 };
        for b in [9, 16, 32] {
            let error = quantizer.fake_quantize((&[1.0]).into(), bits(b), &mut [0.0]).unwrap_err();
            let expected = format!("{} takes {first} to 8 bits, got {b}", quantizer.name());
            assert_eq!(error.to_string(), expected);
        }
        let error = quantizer.fake_quantize((&[1.0]).into(), bits(4), &mut [0.0; 2]).unwrap_err();
        assert_eq!(error.to_string(), "out holds 2 values, 1 are needed");
    }
    let error = PowersOfTwo.quantize((&[1.0]).into(), bits(4)).unwrap_err();
    assert!(matches!(&error, QuantError::NoCodes { quantizer } if quantizer == "powers-of-two"));
    for channels in [0, 2, 4] {
        let error = LayerWeights::new(&[1.0; 3], channels).unwrap_err();
        assert!(matches!(error, QuantError::Channels { values: 3, .. }), "{error}");
    }
}

#[test]
fn supported_bitwidths_are_listed_as_ranges() {
    let message = |supported: &[u8]| {
        let (quantizer, supported) = ("mine".into(), supported.to_vec());
        QuantError::BitwidthNotSupported { quantizer, got: bits(5), supported }.to_string()
    };
    assert_eq!(message(&[1, 2, 3, 8]), "mine takes 1 to 3 or 8 bits, got 5");
    assert_eq!(message(&[2]), "mine takes 2 bits, got 5");
    assert_eq!(message(&[]), "mine takes no bitwidth at all, got 5");
}

#[test]
fn names_round_trip() {
    for &kind in QuantizerKind::ALL {
        assert_eq!(kind.build().name(), kind.name());
        assert_eq!(kind.to_string().parse::<QuantizerKind>().unwrap(), kind);
        let json = serde_json::to_string(&kind).unwrap();
        assert_eq!(json, format!("\"{kind}\""));
        assert_eq!(serde_json::from_str::<QuantizerKind>(&json).unwrap(), kind);
    }
    let message = |name: &str| name.parse::<QuantizerKind>().unwrap_err().to_string();
    let all = "wrpn, dorefa, wrpn-scaled, wrpn-scaled-per-channel, powers-of-two";
    assert_eq!(message("tanh"), format!("unknown quantizer `tanh`: expected one of {all}"));
    let near = |name, kind| {
        let expected = format!("`{name}`: did you mean `{kind}`? expected one of {all}");
        assert!(message(name).ends_with(&expected), "{}", message(name));
    };
    near("wrnp-scaled", "wrpn-scaled");
    near("DoReFa", "dorefa");
    near("wrpn_scaled_per_channel", "wrpn-scaled-per-channel");
    let error = serde_json::from_str::<QuantizerKind>("\"tanh\"").unwrap_err();
    assert!(error.to_string().contains(all), "{error}");
}

#[test]
fn references_boxes_and_arcs_are_quantizers() {
    // All methods go through: the scheme overrides each of them.
    check_quantizer(&&Wrpn);
    check_quantizer(&(Box::new(Wrpn) as Box<dyn Quantizer>));
    let shared = QuantizerKind::Dorefa.build();
    check_quantizer(&shared);
    assert!(shared.quantize((&[0.5]).into(), bits(3)).is_ok());
}

#[test]
fn channels_are_quantized_each_on_its_own() {
    let values: Vec<f32> = (0..60).map(|i| ((i * 37 % 60) as f32 - 29.5) / 20.0).collect();
    let scaled: Vec<f32> =
        values.iter().enumerate().map(|(i, w)| w * [0.01, 1.0, 0.0, 30.0][i / 15]).collect();
    let weights = LayerWeights::new(&scaled, 4).unwrap();
    for clip in [Clip::MinMse, Clip::MaxAbs] {
        let per_layer = WrpnScaled { clip, granularity: Granularity::PerLayer };
        let per_channel = WrpnScaled { clip, granularity: Granularity::PerChannel };
        for b in 1..=8 {
            let alone = |quantizer: &WrpnScaled| -> Vec<f32> {
                weights.rows().flat_map(|row| fake(quantizer, row, b)).collect()
            };
            let expected = alone(&per_channel);
            let quantized = per_channel.quantize(weights, bits(b)).unwrap();
            assert_eq!(fake(&per_channel, weights, b), expected);
            assert_eq!(quantized.dequantize(), expected);
            assert_eq!(quantized.scales().len(), 4);
            assert!(expected[30..45].iter().all(|w| *w == 0.0), "a channel of zeros stays zero");
            // Only the search for the clip differs from that of a layer.
            assert!(clip == Clip::MinMse || expected == alone(&per_layer));
            assert_eq!(per_layer.quantize(weights, bits(b)).unwrap().scales().len(), 1);
        }
    }
}

#[test]
fn codes_are_checked() {
    let new = |codes: &[u8], scales: &[f32], zero_point| {
        Quantized::new(codes.to_vec(), scales.to_vec(), zero_point, bits(2))
    };
    let codes = new(&[0, 1, 2, 3], &[0.5, 2.0], 1.0).unwrap();
    assert_eq!(codes.dequantize(), [-0.5, 0.0, 2.0, 4.0]);
    let mut out = [0.0; 4];
    codes.dequantize_into(&mut out).unwrap();
    assert_eq!(out, [-0.5, 0.0, 2.0, 4.0]);
    assert!(codes.dequantize_into(&mut [0.0; 3]).is_err());
    let json = r#"{"codes":[0,1,2,3],"scales":[0.5,2.0],"zero_point":1.0,"bits":2}"#;
    assert_eq!(serde_json::to_string(&codes).unwrap(), json);
    assert_eq!(serde_json::from_str::<Quantized>(json).unwrap(), codes);
    assert!(serde_json::from_str::<Quantized>(&json.replace("2.0", "-2.0")).is_err());

    assert!(matches!(new(&[], &[1.0], 0.0), Err(QuantError::Empty)));
    for scales in [&[][..], &[1.0; 2]] {
        let refused = new(&[1, 2, 3], scales, 0.0);
        assert!(matches!(refused, Err(QuantError::Channels { values: 3, .. })), "{refused:?}");
    }
    for (scale, zero_point) in [(-1.0, 0.0), (f32::NAN, 0.0), (1.0, f32::INFINITY)] {
        let refused = new(&[1], &[scale], zero_point);
        assert!(matches!(refused, Err(QuantError::Scale { .. })), "{refused:?}");
    }
    let refused = new(&[0, 4], &[1.0], 0.0);
    assert!(matches!(refused, Err(QuantError::CodeTooWide { index: 1, code: 4, bits: 2 })));
}

#[test]
fn packed_codes_are_checked() {
    let error = PackedCodes::pack(&[3, 4], bits(2)).unwrap_err();
    assert_eq!(error.to_string(), "code 4 at 1 does not fit in 2 bits");
    assert!(PackedCodes::pack(&[0], bits(9)).is_err());
    assert!(PackedCodes::from_bytes(vec![0; 3], 5, bits(3)).is_err());
    assert!(PackedCodes::from_bytes(vec![], usize::MAX, bits(8)).is_err());
    assert!(PackedCodes::unpack_part(&[0; 3], bits(3), &mut [0; 5]).is_err());
    assert!(PackedCodes::unpack_part(&[0; 9], bits(9), &mut [0; 8]).is_err());
    let json = r#"{"bytes":[1,2],"len":9,"bits":3}"#;
    assert!(serde_json::from_str::<PackedCodes>(json).is_err());
    assert_eq!(PackedCodes::pack(&[], bits(3)).unwrap().unpack(), Vec::<u8>::new());
}

#[test]
fn padding_bits_of_packed_codes_must_be_zero() {
    assert!(PackedCodes::from_bytes(vec![0xff, 0x01], 3, bits(3)).is_ok());
    let error = PackedCodes::from_bytes(vec![0xff, 0x03], 3, bits(3)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the 7 unused high bits of the last byte are not zero: 0b00000011"
    );
}

#[test]
fn extreme_but_finite_weights_stay_finite_and_keep_zero() {
    // Subnormal, just above, and close to overflow; and a layer that has died.
    for largest in [1e-45, 1e-40, 1.2e-38, 3e-37, 1e38, f32::MAX, 0.0] {
        let weights = [0.0, largest, -largest, 0.4 * largest];
        for quantizer in all() {
            for b in supported(&quantizer) {
                let rounded = fake(&quantizer, &weights, b);
                assert!(rounded.iter().all(|w| w.is_finite()), "{quantizer:?} {b}: {rounded:?}");
                let has_zero = b > 1 && quantizer.name() != "dorefa";
                assert!(!has_zero || rounded[0] == 0.0, "{quantizer:?} {b}: {rounded:?}");
                let mut grad_in = [f32::NAN; 4];
                quantizer.backward((&weights).into(), bits(b), &[1.0; 4], &mut grad_in).unwrap();
                assert!(grad_in.iter().all(|g| g.is_finite()), "{quantizer:?} {b}: {grad_in:?}");
            }
        }
    }
}

#[test]
fn one_bit_at_the_end_of_the_range_is_clamped_alike_in_codes_and_values() {
    // By hand: the means are 0.75 and 0.25 of the largest number.
    for (weights, level) in [
        ([f32::MAX, -f32::MAX / 2.0], f32::MAX / 2.0),
        ([f32::MAX / 4.0, -f32::MAX / 4.0], f32::MAX / 4.0),
    ] {
        for quantizer in all().iter().filter(|quantizer| quantizer.supports(bits(1))) {
            if quantizer.name().ends_with("per-channel") {
                continue;
            }
            assert_eq!(fake(quantizer, &weights, 1), [level, -level], "{quantizer:?}");
            let codes = quantizer.quantize((&weights).into(), bits(1)).unwrap();
            assert_eq!(codes.dequantize(), [level, -level], "{quantizer:?}");
        }
    }
}

#[test]
fn the_scaled_clip_withstands_a_far_outlier() {
    // 10,000 weights of magnitude 0.01 and one of 1: as a ternary layer the clip belongs at 0.01.
    let mut weights = vec![0.01f32; 5_000];
    weights.extend(vec![-0.01; 5_000]);
    weights.push(0.8);
    let rounded = fake(&WrpnScaled::default(), &weights, 2);
    assert!((rounded[0] - 0.01).abs() < 0.002, "{}", rounded[0]);
}

#[test]
fn the_scaled_clip_is_close_to_the_best_of_a_fine_search() {
    // A bell: the sum of twelve uniform numbers.
    let mut state = 7u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let weights: Vec<f32> =
        (0..5_000).map(|_| (0..12).map(|_| uniform()).sum::<f32>() * 0.03).collect();
    let max = weights.iter().fold(0.0f32, |max, w| max.max(w.abs()));
    for b in 2..=8 {
        let error = |rounded: &[f32]| -> f64 {
            weights.iter().zip(rounded).map(|(a, b)| f64::from(a - b).powi(2)).sum()
        };
        let mut out = vec![0.0; weights.len()];
        let best = (1..=1000)
            .map(|i| {
                mid_tread::fake_quantize(&weights, bits(b), max * i as f32 / 1e3, &mut out);
                error(&out)
            })
            .fold(f64::INFINITY, f64::min);
        let found = error(&fake(&WrpnScaled::default(), &weights, b));
        assert!(found <= 1.02 * best, "{b} bits: {found} is worse than {best}");
    }
}

fn weights() -> impl Strategy<Value = Vec<f32>> {
    let scale = prop_oneof![Just(0.05f32), Just(1.0), Just(30.0), Just(1e-20)];
    (scale, prop::collection::vec(-1.0f32..1.0, 1..200))
        .prop_map(|(scale, weights)| weights.iter().map(|w| w * scale).collect())
}

proptest! {
    #[test]
    fn every_scheme_keeps_its_promises(weights in weights(), b in 1u8..=8) {
        for quantizer in all().iter().filter(|quantizer| quantizer.supports(bits(b))) {
            let rounded = fake(quantizer, &weights, b);
            prop_assert!(rounded.iter().all(|w| w.is_finite()));

            // Monotone: a larger weight never gets a smaller level.
            let mut order: Vec<usize> = (0..weights.len()).collect();
            order.sort_by(|&i, &j| weights[i].total_cmp(&weights[j]));
            prop_assert!(order.windows(2).all(|pair| rounded[pair[0]] <= rounded[pair[1]]));

            let Ok(quantized) = quantizer.quantize((&weights).into(), bits(b)) else {
                prop_assert_eq!(quantizer.name(), "powers-of-two");
                continue;
            };
            prop_assert_eq!(&quantized.dequantize(), &rounded);
            prop_assert!(quantized.codes().iter().all(|&code| u32::from(code) < 1 << b));

            let packed = quantized.pack().unwrap();
            prop_assert_eq!(packed.as_bytes().len(), (weights.len() * usize::from(b)).div_ceil(8));
            let bytes = packed.as_bytes().to_vec();
            let read = PackedCodes::from_bytes(bytes, weights.len(), bits(b)).unwrap();
            prop_assert_eq!(read.unpack(), quantized.codes());
            for first in (0..weights.len()).step_by(8) {
                let len = (weights.len() - first).min(11);
                let bytes = first / 8 * usize::from(b)..((first + len) * usize::from(b)).div_ceil(8);
                let mut part = vec![0xff; len];
                PackedCodes::unpack_part(&read.as_bytes()[bytes], bits(b), &mut part).unwrap();
                prop_assert_eq!(part, &quantized.codes()[first..][..len]);
            }
        }
    }

    #[test]
    fn wrpn_is_idempotent_and_within_half_a_scale(weights in weights(), b in 2u8..=8) {
        let rounded = fake(&Wrpn, &weights, b);
        prop_assert_eq!(&fake(&Wrpn, &rounded, b), &rounded);
        let half = 0.5 / mid_tread::levels(bits(b)) * (1.0 + 1e-5);
        for (w, r) in weights.iter().zip(&rounded) {
            prop_assert!((w.clamp(-1.0, 1.0) - r).abs() <= half, "{} {}", w, r);
        }
    }

    #[test]
    fn wrpn_passes_the_gradient_inside_its_range_only(weights in weights(), b in 1u8..=8) {
        let grad_out: Vec<f32> = (0..weights.len()).map(|i| i as f32 - 7.0).collect();
        let mut grad_in = vec![9.0; weights.len()];
        Wrpn.backward((&weights).into(), bits(b), &grad_out, &mut grad_in).unwrap();
        for ((g, out), w) in grad_in.iter().zip(&grad_out).zip(&weights) {
            prop_assert_eq!(*g, if w.abs() <= 1.0 { *out } else { 0.0 });
        }
    }
}

#[test]
fn dorefas_gradient_is_that_of_the_squashed_weights() {
    // Finite differences of sum_i g_i tanh(w_i) / max |tanh(w)|.
    let weights = [-0.30f32, -0.12, 0.02, 0.08, 0.40];
    let grad_out = [0.3f32, -1.0, 0.5, 2.0, -0.7];
    let value = |weights: &[f64]| {
        let max = weights.iter().fold(0.0f64, |m, w| m.max(w.tanh().abs()));
        weights.iter().zip(grad_out).map(|(w, g)| f64::from(g) * w.tanh() / max).sum::<f64>()
    };
    let mut grad_in = [0.0; 5];
    Dorefa.backward((&weights).into(), bits(3), &grad_out, &mut grad_in).unwrap();
    for i in 0..5 {
        let at = |shift: f64| {
            let mut w = weights.map(f64::from);
            w[i] += shift;
            value(&w)
        };
        let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((slope - f64::from(grad_in[i])).abs() < 1e-4, "{i}: {slope} {}", grad_in[i]);
    }
}
