//! How long it takes to draw the report of a long search: 2,000 evaluations of a network of 30 layers.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may fail loudly")]

#[path = "../crates/releq-cli/tests/sample/mod.rs"]
mod sample;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use releq_cli::page::{Named, figures, html, write};

fn report_page(criterion: &mut Criterion) {
    let run = Named::new("long", sample::report(&sample::chain(30), 2000, 1));
    let mut group = criterion.benchmark_group("report_page");
    group.sample_size(10);
    group.bench_function("figures", |bencher| bencher.iter(|| figures(black_box(&run)).len()));
    let runs = [run];
    group.bench_function("page", |bencher| bencher.iter(|| html(black_box(&runs)).unwrap().len()));
    let folder = tempfile::tempdir().unwrap();
    group.bench_function("page, figures and tables as files", |bencher| {
        bencher.iter(|| write(folder.path(), black_box(&runs)).unwrap());
    });
    group.finish();
}

criterion_group!(benches, report_page);
criterion_main!(benches);
