//! Whole networks of the paper, batch 1, on the bit-serial kernels: its published weight bits with 8-bit
//! activations over 8-bit weights, the comparison of the paper.
//!
//! ```text
//! cargo bench --bench networks
//! ```
//!
//! Each layer runs at both bitwidths in turn, several times; the table gives sums of medians. Depthwise
//! layers are left out, splitting the activations into planes is not.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark talks and may fail loudly"
)]

use std::{hint::black_box, num::NonZeroUsize, time::Instant};

use releq::{
    core::{LayerKind, LayerProfile},
    zoo::networks,
};
use releq_kernels::{BitPlanes, BitSerialConv, BitSerialWeights, ConvShape, Isa, Workspace};

const REPEATS: usize = 7;
const ACT_BITS: u8 = 8;

/// A layer at one bitwidth, ready to run.
struct Layer {
    run: Box<dyn FnMut()>,
}

impl Layer {
    fn new(profile: &LayerProfile, bits: u8, isa: Isa) -> Self {
        let weights: Vec<i8> = (0..profile.weights())
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as i8 >> (8 - bits))
            .collect();
        let inputs = profile.in_channels * profile.in_height * profile.in_width;
        let acts: Vec<u8> = (0..inputs).map(|i| (i * 37 + i / 11) as u8).collect();
        let mut out = vec![0; profile.out_channels * profile.out_height * profile.out_width];
        let run: Box<dyn FnMut()> = if profile.kind == LayerKind::Linear {
            let (outputs, depth) = (profile.out_channels, profile.in_channels);
            let packed = BitSerialWeights::pack(&weights, outputs, depth, bits, isa).unwrap();
            Box::new(move || {
                let planes = BitPlanes::pack(&acts, 1, depth, ACT_BITS, isa).unwrap();
                packed.gemm(&planes, &mut out, NonZeroUsize::MIN).unwrap();
                black_box(&out);
            })
        } else {
            let shape = ConvShape {
                channels: profile.in_channels,
                height: profile.in_height,
                width: profile.in_width,
                outputs: profile.out_channels,
                kernel: profile.kernel,
                stride: profile.stride,
                padding: profile.padding,
            };
            let packed = BitSerialConv::pack(&weights, shape, bits, isa).unwrap();
            let mut workspace = Workspace::default();
            Box::new(move || {
                packed.run(&acts, ACT_BITS, &mut out, &mut workspace, NonZeroUsize::MIN).unwrap();
                black_box(&out);
            })
        };
        Self { run }
    }

    fn seconds(&mut self) -> f64 {
        // Short layers run often enough for the clock.
        let mut calls = 1;
        loop {
            let start = Instant::now();
            for _ in 0..calls {
                (self.run)();
            }
            let seconds = start.elapsed().as_secs_f64();
            if seconds > 0.002 {
                return seconds / f64::from(calls);
            }
            calls *= 4;
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // `cargo test --benches` passes `--test`: nothing to check here that the kernels' tests do not.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let isa = Isa::best();
    println!(
        "bit-serial on {isa}, one thread, batch 1, {ACT_BITS}-bit activations, medians of {REPEATS}"
    );
    println!(
        "{:<14} {:>7} {:>12} {:>12} {:>8} {:>8} {:>10} {:>10}",
        "network", "MMAC", "8 bits, ms", "w bits, ms", "gain", "8/w", "of 8/w", "GOP/s at 8"
    );
    for name in networks::NAMES {
        let Some(bits) = networks::published_bits(name) else { continue };
        if filter.as_ref().is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        let layers: Vec<_> = networks::by_name(name)
            .unwrap()
            .profiles()
            .into_iter()
            .zip(bits.to_bits())
            .filter(|(layer, _)| layer.groups == 1)
            .collect();
        let mut pairs: Vec<_> = layers
            .iter()
            .map(|(layer, bits)| [Layer::new(layer, 8, isa), Layer::new(layer, *bits, isa)])
            .collect();
        let mut times = vec![[vec![], vec![]]; pairs.len()];
        for _ in 0..REPEATS {
            for (pair, times) in pairs.iter_mut().zip(&mut times) {
                for (layer, times) in pair.iter_mut().zip(times) {
                    times.push(layer.seconds());
                }
            }
        }
        let mut total = [0.0; 2];
        for times in times {
            for (total, times) in total.iter_mut().zip(times) {
                *total += median(times);
            }
        }
        let macs: f64 = layers.iter().map(|(layer, _)| layer.macs() as f64).sum();
        let work: f64 = layers.iter().map(|(l, bits)| l.macs() as f64 * f64::from(*bits)).sum();
        let (gain, bound) = (total[0] / total[1], 8.0 * macs / work);
        println!(
            "{name:<14} {:>7.1} {:>12.3} {:>12.3} {gain:>7.2}x {bound:>7.2}x {:>10.2} {:>10.1}",
            macs / 1e6,
            1e3 * total[0],
            1e3 * total[1],
            gain / bound,
            2e-9 * macs / total[0],
        );
    }
}
