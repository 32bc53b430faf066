//! Packed networks on the runtime: with the kernels that suit their bitwidths, with a byte for every weight, and in single
//! precision.

use std::{
    cell::RefCell,
    num::NonZeroUsize,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use comfy_table::CellAlignment;
use releq::{
    format::packed,
    hw::{Timing, time_interleaved},
};
use releq_kernels::Isa;
use releq_runtime::{LayerPlan, Mode, Model, Options};
use serde::Serialize;

use crate::terminal::tables;

/// How long one measurement of a whole network is, at least one inference.
const SAMPLE: Duration = Duration::from_millis(20);
/// Below this ratio of times, fewer bits are taken to have bought nothing.
const GAIN: f64 = 1.05;

/// Times of one network.
#[derive(Debug, Serialize)]
pub(super) struct Packed {
    network: String,
    isa: String,
    threads: NonZeroUsize,
    packed: Timing,
    int8: Timing,
    float: Timing,
    loading: Loading,
    layers: Vec<Layer>,
}

/// What it takes until a file can run, medians in microseconds.
#[derive(Debug, Serialize)]
struct Loading {
    /// Reading the file, which the system has in memory, with its checksum and its weights.
    read_us: f64,
    /// Packing the weights for the kernels, on as many threads as run.
    prepare_us: f64,
}

/// Times of one layer, medians in microseconds.
#[derive(Debug, Serialize)]
struct Layer {
    layer: String,
    operation: &'static str,
    bits: Option<String>,
    kernel: String,
    packed_us: f64,
    int8_us: f64,
    /// Missing where the layer is part of another one in single precision.
    float_us: Option<f64>,
}

/// Times a file in all three ways, in turn.
pub(super) fn time(
    path: &Path,
    isa: Isa,
    threads: NonZeroUsize,
    repeats: NonZeroUsize,
) -> Result<Packed> {
    let packed = packed::open(path)?;
    let compile = |mode| Model::compile(&packed, &Options { isa, threads, mode });
    let loading = loading(path, repeats, || Ok(compile(Mode::Best)?))?;
    let mut models = [compile(Mode::Best)?, compile(Mode::Int8)?, compile(Mode::Float)?];
    let [sample, outputs] = [models[0].input().iter().product(), models[0].outputs()];
    // Any image takes as long as any other.
    let image: Vec<f32> = (0..sample).map(|at| (at % 255) as f32 / 127.0 - 1.0).collect();
    let mut layers = Vec::new();
    for model in &mut models {
        layers.push(each_layer(model, &image, repeats)?);
    }
    // The networks have run by now, so nothing fails any more.
    let failed = RefCell::new(None);
    let mut runs = models.each_mut().map(|model| {
        let (image, failed, mut logits) = (&image, &failed, vec![0.0; outputs]);
        move || {
            if let Err(error) = model.run(image, &mut logits) {
                failed.replace(Some(error));
            }
        }
    });
    let mut whole: Vec<&mut dyn FnMut()> =
        runs.iter_mut().map(|run| run as &mut dyn FnMut()).collect();
    let mut timings = time_interleaved(&mut whole, repeats, SAMPLE).into_iter();
    if let Some(error) = failed.take() {
        return Err(error.into());
    }
    let mut next = || timings.next().context("a variant has no timing");
    let [best, int8, float] = &layers[..] else { anyhow::bail!("a variant has no layers") };
    let layers = models[0].layers().zip(best.iter().zip(int8)).map(|(plan, (best, int8))| {
        let LayerPlan { layer, kind: operation, bits, kernel, .. } = plan;
        Layer {
            operation,
            bits: bits.map(|bits| bits.to_string()),
            kernel,
            packed_us: best.1,
            int8_us: int8.1,
            float_us: float.iter().find(|(name, _)| *name == layer).map(|(_, us)| *us),
            layer,
        }
    });
    Ok(Packed {
        network: models[0].name().to_owned(),
        isa: isa.to_string(),
        threads,
        loading,
        layers: layers.collect(),
        packed: next()?,
        int8: next()?,
        float: next()?,
    })
}

/// Times reading a file and preparing what it has, in turn.
fn loading(
    path: &Path,
    repeats: NonZeroUsize,
    prepare: impl Fn() -> Result<Model>,
) -> Result<Loading> {
    let (mut read, mut prepared) = (Vec::new(), Vec::new());
    for _ in 0..repeats.get() {
        let start = Instant::now();
        let packed = packed::open(path)?;
        read.push(start.elapsed().as_secs_f64() * 1e6);
        drop(packed);
        let start = Instant::now();
        let model = prepare()?;
        prepared.push(start.elapsed().as_secs_f64() * 1e6);
        drop(model);
    }
    Ok(Loading { read_us: median(read), prepare_us: median(prepared) })
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Median times of the layers in microseconds, by name.
fn each_layer(
    model: &mut Model,
    image: &[f32],
    repeats: NonZeroUsize,
) -> Result<Vec<(String, f64)>> {
    let mut logits = vec![0.0; model.outputs()];
    let mut times: Vec<(String, Vec<f64>)> =
        model.layers().map(|plan| (plan.layer, Vec::new())).collect();
    // A layer is over in microseconds, so more of them are needed than of whole networks.
    for _ in 0..10 * repeats.get() {
        let (mut at, mut last) = (0, Instant::now());
        model.run_observed(image, &mut logits, &mut |_, _| {
            let now = Instant::now();
            times[at].1.push((now - last).as_secs_f64() * 1e6);
            (at, last) = (at + 1, now);
        })?;
    }
    Ok(times.into_iter().map(|(name, times)| (name, median(times))).collect())
}

impl Packed {
    /// Layer by layer, and as a whole.
    pub(super) fn table(&self, machine: &str, commit: &str) -> String {
        let mut table = tables::plain();
        table.set_header([
            "layer",
            "operation",
            "bits",
            "kernel",
            "us",
            "int8\nus",
            "float\nus",
            "int8\n/ us",
        ]);
        let us = |us: f64| format!("{us:.1}");
        let mut useless = 0;
        for layer in &self.layers {
            let gain = layer.int8_us / layer.packed_us;
            let is_narrow =
                layer.bits.as_deref().is_some_and(|bits| bits != "8" && bits != "float");
            useless += usize::from(is_narrow && gain < GAIN);
            table.add_row([
                layer.layer.clone(),
                layer.operation.to_owned(),
                layer.bits.clone().unwrap_or_default(),
                layer.kernel.clone(),
                us(layer.packed_us),
                us(layer.int8_us),
                layer.float_us.map_or_else(String::new, us),
                format!("{gain:.2}x{}", if is_narrow && gain < GAIN { "*" } else { "" }),
            ]);
        }
        let mut whole = tables::plain();
        whole.set_header([
            self.network.as_str(),
            "ms",
            "least",
            "spread\n%",
            "time of int8\n/ this",
        ]);
        for (name, timing) in [
            ("at its bitwidths", &self.packed),
            ("int8: 8 bits a weight", &self.int8),
            ("single precision", &self.float),
        ] {
            whole.add_row([
                name.to_owned(),
                format!("{:.3}", timing.median_us / 1e3),
                format!("{:.3}", timing.min_us / 1e3),
                format!("{:.0}", 100.0 * timing.spread()),
                format!("{:.2}x", self.int8.median_us / timing.median_us),
            ]);
        }
        for (table, words) in [(&mut table, 4), (&mut whole, 1)] {
            for column in table.column_iter_mut().skip(words) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let Self { isa, threads, packed, loading: Loading { read_us, prepare_us }, .. } = self;
        let [all, read, prepare] = [read_us + prepare_us, *read_us, *prepare_us].map(|us| us / 1e3);
        format!(
            "{}\n\n{}\n\nloading: {all:.1} ms, {read:.1} to read the file and {prepare:.1} to pack weights for the kernels\n{machine}\n{isa}, {threads} thread(s), batch 1, medians of {}, commit {commit}\n\
             the whole has the rounding of the image to codes, which is no layer\n\
             *: fewer than 8 bits bought nothing in {useless} of {} layers: int8 takes less than {GAIN} times as long",
            tables::text(&table),
            tables::text(&whole),
            packed.repeats,
            self.layers.iter().filter(|layer| layer.bits.is_some()).count(),
        )
    }
}
