//! `releq import`: what an ONNX model is as a network.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use releq::{
    core::{Network, atomic_file},
    format::{
        onnx::{self, Batch, Explanation, Frame, Layout, Model, OnnxError},
        packed::{self, Packed},
        safetensors,
    },
};
use serde_json::json;

use crate::{
    args::Files,
    terminal::{
        output::{note, print},
        tables,
    },
};

/// Show an ONNX model, or a packed network, as a network
///
/// Whatever takes a network takes the model as well, as in `releq search model.onnx`. This shows beforehand what is read,
/// and what is missing of a model that is not.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq import model.onnx
  releq import model.onnx --explain          every node, and what it became
  releq import model.onnx --output net.json  and net.safetensors; then
  releq search net.json --weights net.safetensors")]
pub(crate) struct Args {
    /// ONNX model, or a packed network, .safetensors
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Show every node and what it became, also those that are missing
    #[arg(long)]
    explain: bool,
    /// Write the layers to this JSON file, and the weights beside it, to a file of the same name that ends in .safetensors
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print a JSON object instead of tables
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let weights = self.output.as_ref().map(|path| path.with_extension("safetensors"));
        Files::new()
            .reads("MODEL", Some(&self.model))
            .writes("--output", self.output.as_ref())
            .writes("--output", weights.as_ref())
            .check()?;
        let model = match self.open()? {
            Ok(model) => model,
            Err(error) => {
                if let Some(explanation) = error.explanation().filter(|_| self.explain) {
                    print(nodes(explanation))?;
                }
                return Err(error.into());
            }
        };
        for remark in &model.remarks {
            note(remark);
        }
        if self.json {
            print(serde_json::to_string_pretty(&object(&model))?)?;
        } else {
            if self.explain {
                print(format!("{}\n", nodes(&model.explanation)))?;
            }
            print(summary(&model))?;
        }
        if let (Some(path), Some(weights)) = (&self.output, &weights) {
            write(path, weights, &model)?;
            note(format_args!("written to {} and {}", path.display(), weights.display()));
            if model.frame.end == onnx::End::LogSoftmax {
                note("the network that is written ends in logits, before their LogSoftmax");
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The model, or what is wrong with an ONNX model, which has an explanation.
    fn open(&self) -> Result<Result<Model, OnnxError>> {
        let extension = self.model.extension().unwrap_or_default();
        if !extension.eq_ignore_ascii_case("safetensors") {
            return Ok(onnx::open(&self.model));
        }
        let Packed { model, frame, .. } = packed::load(&self.model)?;
        let codes = model.layers().filter_map(|(layer, _)| {
            model.codes(layer).map(|codes| (layer.to_owned(), codes.clone()))
        });
        Ok(Ok(Model {
            network: model.network().clone(),
            weights: model.dequantized(),
            codes: codes.collect(),
            quantizer: model.quantizer().map(str::to_owned),
            frame,
            explanation: Explanation { nodes: Vec::new() },
            remarks: Vec::new(),
        }))
    }
}

fn write(path: &Path, weights: &Path, model: &Model) -> Result<()> {
    let network = serde_json::to_string_pretty(&model.network)?;
    atomic_file::write(path, network.as_bytes()).with_context(|| path.display().to_string())?;
    Ok(safetensors::save(weights, &model.weights)?)
}

/// A row for each node.
fn nodes(explanation: &Explanation) -> String {
    let mut table = tables::framed(&["node", "operation", "became"]);
    for node in &explanation.nodes {
        table.add_row([&node.node, &node.op, &node.became.to_string()]);
    }
    tables::text(&table)
}

fn summary(model: &Model) -> String {
    let Model { network, frame, .. } = model;
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for node in network.nodes() {
        *kinds.entry(node.op.kind()).or_default() += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let profiles = network.profiles();
    let weights: u64 = profiles.iter().map(|layer| layer.weights()).sum();
    let macs: u64 = profiles.iter().map(|layer| layer.macs()).sum();
    let mut table = tables::plain();
    for (label, value) in [
        ("network", network.name().to_owned()),
        ("from", origin_of(frame)),
        ("input", format!("{} {}", frame.input, input_of(network, frame))),
        ("output", format!("{} [{}], {}", frame.output, network.outputs(), end_of(frame))),
        ("layers", format!("{}: {}", network.nodes().len(), kinds.join(", "))),
        ("searched", format!("{} layers, {weights} weights, {macs} MACs", profiles.len())),
    ] {
        table.add_row([label, &value]);
    }
    if let Some(quantized) = model.quantized() {
        let bits = quantized.bits();
        let by = model.quantizer.as_ref().map_or(String::new(), |by| format!(", {by}"));
        table.add_row(["bits", &format!("{bits} in the mean {:.2}{by}", bits.mean())]);
    }
    tables::text(&table)
}

/// What wrote the model that the network is from.
fn origin_of(frame: &Frame) -> String {
    match frame.opset {
        0 => "no ONNX model".to_owned(),
        opset if frame.producer.is_empty() => format!("ONNX operators {opset}"),
        opset => format!("{}, ONNX operators {opset}", frame.producer),
    }
}

fn input_of(network: &Network, frame: &Frame) -> String {
    let [channels, height, width] = network.input();
    let batch = match &frame.batch {
        Batch::Fixed(size) => size.to_string(),
        Batch::Any(symbol) => symbol.clone().unwrap_or_else(|| "batch".to_owned()),
    };
    match frame.layout {
        Layout::ChannelsFirst => format!("[{batch}, {channels}, {height}, {width}]"),
        Layout::ChannelsLast => format!("[{batch}, {height}, {width}, {channels}]"),
        Layout::Features => format!("[{batch}, {channels}]"),
    }
}

const fn end_of(frame: &Frame) -> &'static str {
    match frame.end {
        onnx::End::Logits => "logits",
        onnx::End::Softmax => "probabilities",
        onnx::End::LogSoftmax => "logarithms of probabilities",
    }
}

fn object(model: &Model) -> serde_json::Value {
    let Model { network, frame, explanation, remarks, .. } = model;
    let nodes = explanation.nodes.iter().map(|node| {
        json!({ "node": node.node, "operation": node.op, "became": node.became.to_string() })
    });
    json!({
        "network": network,
        "producer": frame.producer,
        "opset": frame.opset,
        "input": { "name": frame.input, "shape": input_of(network, frame) },
        "output": { "name": frame.output, "gives": end_of(frame) },
        "bits": model.quantized().map(|quantized| quantized.bits()),
        "quantizer": model.quantizer,
        "nodes": nodes.collect::<Vec<_>>(),
        "remarks": remarks.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
