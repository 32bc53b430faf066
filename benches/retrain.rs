//! Training steps and classification of LeNet: the native trainer over the Burn `flex` trainer, one thread.
#![allow(missing_docs, reason = "criterion writes the functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark may fail loudly")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use releq::{
    evaluate::Backend,
    quant::QuantizerKind,
    zoo::{
        data::{Normalization, digits},
        networks::lenet,
        train::Sgd,
    },
};

const BATCH: usize = 64;

fn lenet_retrain(c: &mut Criterion) {
    let config = digits::DigitsConfig { train: BATCH, test: 1, ..Default::default() };
    let data = digits::generate(&config).unwrap();
    let normalization = Normalization::measured(&data.train);
    let indices: Vec<usize> = (0..BATCH).collect();
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    data.train.gather(&indices, &normalization, &mut images, &mut labels);
    let sgd = Sgd { learning_rate: 1e-3, momentum: 0.9, weight_decay: 0.0 };

    for (quantizer, bits) in
        [(None, None), (Some(QuantizerKind::WrpnScaled), Some("2-2-2-2".parse().unwrap()))]
    {
        let at = quantizer.map_or("full precision", |_| "2 bits, wrpn-scaled");
        let mut group = c.benchmark_group(format!("lenet/{at}"));
        group.throughput(Throughput::Elements(BATCH as u64)).sample_size(20);
        for backend in [Backend::Flex, Backend::Native] {
            let mut trainer = backend.trainer(&lenet(), quantizer.unwrap_or_default()).unwrap();
            trainer.set_bits(bits.as_ref()).unwrap();
            group.bench_function(format!("train/{backend}"), |b| {
                b.iter(|| trainer.train_step(&images, &labels, sgd).unwrap());
            });
            group.bench_function(format!("classify/{backend}"), |b| {
                b.iter(|| trainer.logits(&images).unwrap());
            });
        }
        group.finish();
    }
}

criterion_group!(benches, lenet_retrain);
criterion_main!(benches);
