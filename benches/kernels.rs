//! Single kernels against what the processor could do at most, and against the 8-bit kernel.
//!
//! ```text
//! cargo bench --bench kernels
//! ```
//!
//! One thread; all contestants of a line run in turn, over and over, and the line gives medians. A register-only loop
//! of the kernel's innermost instructions runs among them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark talks and may fail loudly"
)]

use std::{hint::black_box, num::NonZeroUsize, time::Duration};

use releq::hw::{Machine, time_interleaved};
use releq_kernels::{
    BitPlanes, BitSerialWeights, ConvGradients, ConvShape, Epilogue, FloatAxis, FloatConv,
    FloatConvShape, FloatPrecision, FloatScratch, Int8Conv, Int8Weights, Isa, LowBitWeights,
    Output, Peak, Rectifier, Threads, Upstream, Workspace,
};

static ONE: Threads = Threads::one();
const REPEATS: usize = 11;
/// Rounds of a register-only loop in one call.
const ROUNDS: u32 = 10_000;

/// Outputs, pixels and depth of layers of the paper's networks.
const SHAPES: [(&str, usize, usize, usize); 12] = [
    ("LeNet conv2", 50, 64, 500),
    ("ResNet-20, 16 channels", 16, 1024, 144),
    ("ResNet-20, 32 channels", 32, 256, 288),
    ("ResNet-20, 64 channels", 64, 64, 576),
    ("SimpleNet, 32 channels", 32, 256, 800),
    ("AlexNet conv2", 192, 729, 1600),
    ("AlexNet conv3", 384, 169, 1728),
    ("VGG, 128 channels", 128, 256, 1152),
    ("VGG, 512 channels, 2x2", 512, 4, 4608),
    ("MobileNet, 128 channels", 128, 3136, 128),
    ("MobileNet, 512 channels", 512, 196, 512),
    ("square", 1024, 1024, 1024),
];

/// `cargo bench` passes `--bench`, `cargo test --benches` does not: there, as with Criterion, everything runs once.
fn is_measuring() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}

/// Samples for each contestant, and the milliseconds that one takes at least.
fn samples() -> (usize, u64) {
    if is_measuring() { (REPEATS, 2) } else { (1, 0) }
}

fn main() {
    println!("{}, one thread, medians of {}", Machine::this(), samples().0);
    println!("{:<12}{:>8.0} GOP/s on registers", "VPDPBUSD", peak_rate(Peak::Int8));
    if Isa::Avx512.is_available() {
        int8_products();
        int8_convolutions();
        bit_serial();
        matrix_vector();
        training();
    }
    if Isa::Avx2.is_available() {
        avx2();
    }
}

/// Medians in microseconds, the register-only loop first.
fn medians(peak: Peak, runs: Vec<Box<dyn FnMut() + '_>>) -> Vec<f64> {
    let mut runs = runs;
    runs.insert(0, Box::new(move || drop(black_box(peak.run(ROUNDS)))));
    let mut runs: Vec<&mut dyn FnMut()> = runs.iter_mut().map(|run| &mut **run as _).collect();
    let (repeats, milliseconds) = samples();
    let repeats = NonZeroUsize::new(repeats).unwrap();
    let times = time_interleaved(&mut runs, repeats, Duration::from_millis(milliseconds));
    times.into_iter().map(|timing| timing.median_us).collect()
}

/// GOP/s of a register-only loop that took so long, two operations to a product.
fn rate(peak: Peak, us: f64) -> f64 {
    2e-3 * peak.run(ROUNDS).map_or(f64::NAN, |products| products as f64) / us
}

fn peak_rate(peak: Peak) -> f64 {
    rate(peak, medians(peak, Vec::new())[0])
}

fn codes(len: usize, bits: u8, seed: usize) -> Vec<i8> {
    let byte = |i: usize| i.wrapping_mul(0x9e37_79b1 + 2 * seed).to_le_bytes()[3];
    (0..len).map(|i| byte(i).cast_signed() >> (8 - bits)).collect()
}

fn acts(len: usize, bits: u8) -> Vec<u8> {
    (0..len).map(|i| i.wrapping_mul(0x85eb_ca6b).to_le_bytes()[3] >> (8 - bits)).collect()
}

fn int8_products() {
    println!(
        "\nint8 products on AVX-512 VNNI, 32-bit sums\n{:<26}{:>8}{:>10}",
        "", "GOP/s", "of peak"
    );
    for (name, outputs, pixels, depth) in SHAPES {
        let acts = acts(pixels * depth, 8);
        let packed =
            Int8Weights::pack(&codes(outputs * depth, 8, 0), outputs, depth, 8, Isa::Avx512)
                .unwrap();
        let mut out = vec![0; pixels * outputs];
        let run = || packed.gemm(black_box(&acts), pixels, &mut out, &ONE).unwrap();
        let times = medians(Peak::Int8, vec![Box::new(run)]);
        let gops = 2e-3 * (outputs * pixels * depth) as f64 / times[1];
        println!("{name:<26}{gops:>8.0}{:>9.0}%", 100.0 * gops / rate(Peak::Int8, times[0]));
    }
}

fn int8_convolutions() {
    println!(
        "\nint8 convolutions in place, 3x3\n{:<26}{:>8}{:>10}{:>14}{:>10}",
        "", "GOP/s", "of peak", "GOP/s, codes", "of peak"
    );
    for (side, channels) in [(32, 16), (16, 32), (8, 64), (16, 128), (8, 256)] {
        let shape = ConvShape {
            channels,
            height: side,
            width: side,
            outputs: channels,
            kernel: 3,
            stride: 1,
            padding: 1,
        };
        let packed =
            Int8Conv::pack(&codes(channels * shape.depth(), 8, 0), shape, 8, Isa::Avx512).unwrap();
        let acts = acts(side * side * channels, 8);
        let epilogue = Epilogue::new(&vec![1e-3; channels], &vec![0.5; channels], true).unwrap();
        let (mut sums, mut out) = (vec![0; acts.len()], vec![0; acts.len()]);
        let (mut a, mut b) = (Workspace::default(), Workspace::default());
        let times = medians(
            Peak::Int8,
            vec![
                Box::new(|| packed.run(black_box(&acts), &mut sums, &mut a, &ONE).unwrap()),
                Box::new(|| {
                    let out = Output::Codes { epilogue: &epilogue, bits: 8, out: &mut out };
                    packed.run(black_box(&acts), out, &mut b, &ONE).unwrap();
                }),
            ],
        );
        let peak = rate(Peak::Int8, times[0]);
        let [a, b] = [1, 2]
            .map(|at: usize| 2e-3 * (side * side * channels * shape.depth()) as f64 / times[at]);
        let name = format!("{channels} channels, {side}x{side}");
        println!("{name:<26}{a:>8.0}{:>9.0}%{b:>14.0}{:>9.0}%", 100.0 * a / peak, 100.0 * b / peak);
    }
}

fn bit_serial() {
    let pairs = [(1, 1), (1, 2), (2, 2), (3, 3), (4, 4), (2, 8), (4, 8), (8, 8)];
    print!("\nbit-serial products on AVX-512, planes packed before, of peak\n{:<26}", "");
    pairs.iter().for_each(|(w, a)| print!("{:>7}", format!("{w}x{a}")));
    println!();
    for (name, outputs, pixels, depth) in SHAPES.into_iter().filter(|shape| shape.3 >= 288) {
        print!("{name:<26}");
        for (w, a) in pairs {
            let peak = if a == 1 { Peak::BitSerialOneBit } else { Peak::BitSerial };
            let codes = codes(outputs * depth, w, 0);
            let packed = BitSerialWeights::pack(&codes, outputs, depth, w, Isa::Avx512).unwrap();
            let planes =
                BitPlanes::pack(&acts(pixels * depth, a), pixels, depth, a, Isa::Avx512).unwrap();
            let mut out = vec![0; pixels * outputs];
            let run = || packed.gemm(black_box(&planes), &mut out, &ONE).unwrap();
            let times = medians(peak, vec![Box::new(run)]);
            let products = (outputs * pixels * depth) as f64 * f64::from(w) * f64::from(a);
            let share = 2e-3 * products / times[1] / rate(peak, times[0]);
            print!("{:>6.0}%", 100.0 * share);
        }
        println!();
    }
}

fn matrix_vector() {
    let bits = [7, 6, 5, 4, 3, 2, 1];
    print!(
        "\nmatrix-vector products, weights as stored over own int8 (AVX-512)\n{:<26}{:>10}",
        "", "int8 GB/s"
    );
    bits.iter().for_each(|w| print!("{:>7}", format!("w{w}")));
    println!();
    // Out of cache: so many copies in turn that none stays.
    for (outputs, depth, bytes) in
        [(4096, 9216, 256 << 20), (4096, 4096, 256 << 20), (1024, 1024, 0), (500, 800, 0)]
    {
        let acts = acts(depth, 8);
        let most = if is_measuring() { 24 } else { 1 };
        let copies = |w: usize| (bytes / (outputs * depth * w / 8)).clamp(1, most);
        let int8: Vec<_> = (0..copies(8))
            .map(|seed| {
                let codes = codes(outputs * depth, 8, seed);
                Int8Weights::pack(&codes, outputs, depth, 8, Isa::Avx512).unwrap()
            })
            .collect();
        let low_bit = bits.map(|w| {
            (0..copies(w.into()))
                .map(|seed| {
                    let codes = codes(outputs * depth, w, seed);
                    LowBitWeights::pack(&codes, outputs, depth, w, Isa::Avx512).unwrap()
                })
                .collect::<Vec<_>>()
        });
        let (acts, mut turn, mut out) = (&acts, 0, vec![0; outputs]);
        let mut runs: Vec<Box<dyn FnMut() + '_>> = vec![Box::new(|| {
            turn += 1;
            int8[turn % int8.len()].gemm(black_box(acts), 1, &mut out, &ONE).unwrap();
        })];
        for copies in &low_bit {
            let (mut turn, mut out) = (0, vec![0; outputs]);
            runs.push(Box::new(move || {
                turn += 1;
                copies[turn % copies.len()].gemm(black_box(acts), 1, &mut out, &ONE).unwrap();
            }));
        }
        let times = medians(Peak::Int8, runs);
        let place = if bytes > 0 { ", out of cache" } else { "" };
        let name = format!("{outputs}x{depth}{place}");
        print!("{name:<26}{:>10.0}", 1e-3 * (outputs * depth) as f64 / times[1]);
        times[2..].iter().for_each(|time| print!("{:>6.2}x", times[1] / time));
        println!();
    }
}

/// Layers of networks: their name, channels and outputs, side, kernel, and images at a time.
const LAYERS: [(&str, [usize; 2], usize, usize, usize); 10] = [
    ("LeNet conv1", [1, 20], 28, 5, 128),
    ("LeNet conv2", [20, 50], 12, 5, 128),
    ("LeNet fc1", [800, 500], 1, 1, 128),
    ("ResNet-20, 16 channels", [16, 16], 32, 3, 64),
    ("ResNet-20, 32 channels", [32, 32], 16, 3, 64),
    ("ResNet-20, 64 channels", [64, 64], 8, 3, 64),
    ("VGG, 128 channels", [128, 128], 16, 3, 16),
    ("VGG, 512 channels", [512, 512], 4, 3, 16),
    ("MobileNet, 128 channels", [128, 128], 56, 1, 4),
    ("AlexNet fc2", [4096, 4096], 1, 1, 128),
];

/// The kernels of a training step: forward, the packing of its weights included, and both gradients, packed before.
fn training() {
    let both = [(FloatPrecision::Fp32, Peak::Fp32), (FloatPrecision::Bf16, Peak::Bf16)];
    for (precision, peak) in both {
        if precision.check(Isa::Avx512).is_err() {
            continue;
        }
        println!(
            "\ntraining in {precision:?}, {:.0} GFLOP/s on registers\n{:<26}{:>9}{:>9}{:>11}{:>9}",
            peak_rate(peak),
            "",
            "forward",
            "of peak",
            "gradients",
            "of peak"
        );
        for (name, [channels, outputs], side, kernel, images) in LAYERS {
            let padding = if side > 1 && kernel == 3 { [1; 2] } else { [0; 2] };
            let axis = FloatAxis { padding, ..FloatAxis::new(side, kernel) };
            let shape = FloatConvShape { channels, outputs, groups: 1, rows: axis, columns: axis };
            let values = |len: usize| -> Vec<f32> {
                (0..len).map(|i| (i * 7919 % 2003) as f32 / 1000.0 - 1.0).collect()
            };
            let weights = values(shape.weights());
            let x = values(images * shape.inputs());
            let gradient = values(images * shape.outputs());
            let mut out = gradient.clone();
            let (mut of_weights, mut of_input) = (weights.clone(), x.clone());
            let make = || FloatConv::with_precision(shape, Isa::Avx512, precision).unwrap();
            let (mut ahead, mut back) = (make(), make());
            back.load(&weights, None);
            let (mut a, mut b) = (FloatScratch::default(), FloatScratch::default());
            let times = medians(
                peak,
                vec![
                    Box::new(|| {
                        ahead.load(black_box(&weights), None);
                        ahead.forward(&x, Rectifier::None, &mut out, &mut a);
                    }),
                    Box::new(|| {
                        let input = Upstream { gradient: &mut of_input, accumulate: false };
                        let (weights, input) = (&mut of_weights[..], Some(input));
                        let into = ConvGradients { weights, bias: None, input };
                        back.backward(&x, (Rectifier::None, &[]), &gradient, into, &mut b);
                    }),
                ],
            );
            // Every output is a sum over the inputs of its window.
            let products = (gradient.len() * channels * shape.area()) as f64;
            let peak = rate(peak, times[0]);
            let [forward, gradients] =
                [(1, 2e-3), (2, 4e-3)].map(|(at, each): (usize, f64)| each * products / times[at]);
            println!(
                "{name:<26}{forward:>9.0}{:>8.0}%{gradients:>11.0}{:>8.0}%",
                100.0 * forward / peak,
                100.0 * gradients / peak
            );
        }
    }
}

fn avx2() {
    let bits = [6, 5, 4, 3, 2, 1];
    print!(
        "\nAVX2: narrow weights over 7 bits, whose chain (VPMADDUBSW, VPMADDWD, VPADDD) saturates at 8\n{:<26}{:>10}{:>7}",
        "", "w7 GOP/s", "w8"
    );
    bits.iter().for_each(|w| print!("{:>7}", format!("w{w}")));
    println!();
    for (name, outputs, pixels, depth) in SHAPES.into_iter().filter(|shape| shape.1 >= 32) {
        let acts = acts(pixels * depth, 8);
        let packed: Vec<_> = [7, 8]
            .into_iter()
            .chain(bits)
            .map(|w| {
                let codes = codes(outputs * depth, w, 0);
                Int8Weights::pack(&codes, outputs, depth, w, Isa::Avx2).unwrap()
            })
            .collect();
        let acts = &acts;
        let runs = packed.iter().map(|packed| {
            let mut out = vec![0; pixels * outputs];
            let run = move || packed.gemm(black_box(acts), pixels, &mut out, &ONE).unwrap();
            Box::new(run) as Box<dyn FnMut() + '_>
        });
        let times = medians(Peak::SaturatingAvx2, runs.collect());
        print!("{name:<26}{:>10.0}", 2e-3 * (outputs * pixels * depth) as f64 / times[1]);
        times[2..].iter().for_each(|time| print!("{:>6.2}x", times[1] / time));
        println!();
    }
}
