//! Whole networks of the paper, one image each time: bit-serial kernels at 8-bit weights and at the paper's, int8
//! kernels, and the kernel that suits each layer.
//!
//! ```text
//! cargo bench --bench networks
//! ```
//!
//! For ratios, `releq bench` runs the same contestants interleaved.
#![allow(clippy::unwrap_used, reason = "a benchmark may fail loudly")]

use std::{num::NonZeroUsize, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use releq::{
    core::LayerKind,
    hw::{CpuKernels, CpuNetwork, uniform, weights_only},
    zoo,
};
use releq_kernels::Isa;

fn benches(criterion: &mut Criterion) {
    for name in zoo::NAMES {
        let Some(bits) = zoo::published_bits(name) else { continue };
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).measurement_time(Duration::from_secs(2));
        let layers = zoo::by_name(name).unwrap().profiles();
        let (eight, low) = (uniform(8, layers.len()).unwrap(), weights_only(&bits));
        for (label, kernels, bits) in [
            ("bit-serial 8x8", CpuKernels::BitSerial, &eight),
            ("bit-serial wx8", CpuKernels::BitSerial, &low),
            ("int8", CpuKernels::Int8, &eight),
            ("best", CpuKernels::Best, &low),
        ] {
            // Bit-serial kernels have no depthwise convolution.
            let (layers, bits): (Vec<_>, Vec<_>) = layers
                .iter()
                .cloned()
                .zip(bits.iter().copied())
                .filter(|(layer, _)| {
                    kernels != CpuKernels::BitSerial || layer.kind != LayerKind::DepthwiseConv2d
                })
                .unzip();
            // Packed when its turn comes: not all networks fit into memory together.
            group.bench_function(label, |bencher| {
                let (isa, one) = (Isa::best(), NonZeroUsize::MIN);
                let mut network = CpuNetwork::new(&layers, &bits, kernels, isa, one).unwrap();
                bencher.iter(|| network.run());
            });
        }
        group.finish();
    }
}

criterion_group!(networks_benches, benches);
criterion_main!(networks_benches);
