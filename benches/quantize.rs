//! Fake quantization of one large layer of 400,000 weights, as every training step does it.
//!
//! Each scheme runs at 2, 4 and 8 bits; `copy` is the baseline that only moves the weights.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use releq_quant::{Bitwidth, LayerWeights, QuantizerKind};

const WEIGHTS: usize = 400_000;
/// As in LeNet's first linear layer.
const CHANNELS: usize = 500;

/// A bell of standard deviation 0.05, about as in a trained convolution; the same in every run.
fn weights() -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    // The sum of twelve uniform numbers has a variance of 1.
    (0..WEIGHTS).map(|_| (0..12).map(|_| uniform()).sum::<f32>() * 0.05).collect()
}

fn fake_quantize(criterion: &mut Criterion) {
    let weights = weights();
    let layer = LayerWeights::new(&weights, CHANNELS).expect("the channels divide the weights");
    let mut out = vec![0.0; weights.len()];
    let mut group = criterion.benchmark_group("fake_quantize_400k");
    group.throughput(Throughput::Elements(WEIGHTS as u64));
    group.bench_function("copy", |bencher| {
        bencher.iter(|| black_box(&mut out).copy_from_slice(black_box(&weights)));
    });
    for kind in QuantizerKind::ALL {
        let quantizer = kind.build();
        for bits in [2, 4, 8] {
            let bits = Bitwidth::new(bits).expect("2, 4 and 8 are bitwidths");
            group.bench_function(BenchmarkId::new(kind.to_string(), bits), |bencher| {
                bencher.iter(|| {
                    quantizer
                        .fake_quantize(black_box(layer), bits, black_box(&mut out))
                        .expect("finite weights of 2 to 8 bits quantize");
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, fake_quantize);
criterion_main!(benches);
