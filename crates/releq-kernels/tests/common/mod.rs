//! Shared by the tests of the kernels: operands, and a check of every kind of output.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::num::NonZeroUsize;

use proptest::test_runner::Config;
use releq_kernels::{BitPair, Epilogue, KernelError, Output, Threads};

/// That many random cases, but two under Miri, which is a thousand times slower.
pub(crate) fn cases(count: u32) -> Config {
    Config {
        // Miri has no files.
        failure_persistence: if cfg!(miri) { None } else { Config::default().failure_persistence },
        ..Config::with_cases(if cfg!(miri) { 2 } else { count })
    }
}

/// Pseudo-random codes from `low` to `high`, with many at the extremes.
fn codes(len: usize, low: i32, high: i32, seed: u64) -> Vec<i32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            match state % 8 {
                0 | 1 => low,
                2 | 3 => high,
                _ => low + (state >> 33) as i32 % (high - low + 1),
            }
        })
        .collect()
}

pub(crate) fn weights(len: usize, bits: BitPair, seed: u64) -> Vec<i8> {
    let range = bits.weight_codes();
    codes(len, *range.start(), *range.end(), seed).into_iter().map(|c| c as i8).collect()
}

pub(crate) fn acts(len: usize, bits: BitPair, seed: u64) -> Vec<u8> {
    let range = bits.act_codes();
    codes(len, *range.start(), *range.end(), seed).into_iter().map(|c| c as u8).collect()
}

/// An epilogue whose scales spread the sums of this depth over the range of 8-bit codes.
pub(crate) fn epilogue(outputs: usize, depth: usize, bits: u8) -> Epilogue {
    let unit = 255.0 / (255.0 * (1_u32 << (bits - 1)) as f32 * (depth.max(1) as f32).sqrt());
    let scales: Vec<f32> = (0..outputs).map(|i| unit * (1.0 + i as f32 / 7.0)).collect();
    let biases: Vec<f32> = (0..outputs).map(|i| i as f32 % 37.0 - 9.5).collect();
    Epilogue::new(&scales, &biases, true).unwrap()
}

/// So many threads, which share even small layers.
pub(crate) fn threads(count: usize) -> Threads {
    Threads::eager(NonZeroUsize::new(count).unwrap())
}

/// Runs a kernel for every kind of output and compares the results with those of the plain epilogue.
pub(crate) fn check_outputs(
    expected: &[i32],
    epilogue: &Epilogue,
    label: &str,
    mut run: impl FnMut(Output<'_>) -> Result<(), KernelError>,
) {
    let channel = |at: usize| at % epilogue.channels();
    let mut sums = vec![-1; expected.len()];
    run(Output::Sums(&mut sums)).unwrap();
    assert!(sums == expected, "{label}: {sums:?} {expected:?}");
    let mut values = vec![-1.0; expected.len()];
    run(Output::Values { epilogue, out: &mut values }).unwrap();
    for (at, value) in values.iter().enumerate() {
        assert_eq!(
            value.to_bits(),
            epilogue.value(channel(at), sums[at]).to_bits(),
            "{label} {at}"
        );
    }
    for bits in [8, 3] {
        let mut codes = vec![17; expected.len()];
        run(Output::Codes { epilogue, bits, out: &mut codes }).unwrap();
        for (at, &code) in codes.iter().enumerate() {
            assert_eq!(code, epilogue.code(channel(at), sums[at], bits), "{label} {at}");
        }
    }
}
