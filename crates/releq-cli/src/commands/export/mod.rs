//! `releq export`: what was found, in files for other programs.

mod activations;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use activations::{Accuracy, ActivationArgs, Ask};
use anyhow::Result;
use clap::ValueEnum;
use releq::{
    Choice, DataConfig, RunAnswer, RunFolder,
    core::{Bitwidth, Network},
    data::{Normalization, image_folder},
    format::{
        QuantizedNetwork,
        onnx::{self, ExportConfig, Form, Frame, Stored},
        packed::{self, About, Packed},
        safetensors,
    },
    quant::{ActivationGrid, ActivationGrids},
    zoo,
};
use serde::Serialize;

use crate::{
    args::{
        Files, NetworkName, NoNetwork, NormalizationArgs, PrecisionArgs, UsageError, WeightsArgs,
    },
    plot::number::{amount, percent, times},
    terminal::{
        output::{note, print},
        tables,
    },
};

/// Write a quantized network for other programs
///
/// Of a run, its answer is written: the retrained weights at the bitwidths that were found. Of any other network, the
/// weights are rounded as they are to the bitwidths of --bits; layers without stay in full precision. All forms compute
/// with the same weights, bit for bit. Of a run that searched bitwidths of activations, a packed file has those too; the other
/// forms have the weights alone.
#[derive(clap::Args, Debug)]
#[command(after_help = "Forms:
  dq           ONNX with integer weights; the file shrinks. ONNX Runtime
               computes in full precision, and dequantizes in every inference
               unless the session has session.disable_quant_qdq=1
  qcdq         ONNX with weights in full precision that are rounded and
               clipped, for tools that read bitwidths from Clip
  qonnx        ONNX with the operators of QONNX, for tools of FPGAs; one image
               at a time; ONNX Runtime does not read it
  packed       every weight at its bits, the smallest file; releq reads it as a
               network, and Python in ten lines. With --activation-bits 8,
               `releq run` and programs with releq-runtime compute with integers
  safetensors  weights in full precision that have the rounded values, under
               the names of the network, as for PyTorch

Examples:
  releq export runs/lenet-mnist-1 --output lenet.onnx
  releq export runs/lenet-mnist-1 --form packed --output lenet.safetensors
  releq export model.onnx --bits 8,4,4,8 --output quantized.onnx
  releq export runs/lenet-mnist-1 --activation-bits 8 --output int8.onnx
  releq export runs/lenet-mnist-1 --form packed --activation-bits 8 --output lenet.safetensors
  releq export ... --opset 21             for runtimes without 2-bit integers")]
pub(crate) struct Args {
    /// Folder of a run; or a network: one of `releq list networks` or a file, model.onnx, a packed .safetensors or net.json
    #[arg(value_name = "RUN|NETWORK")]
    source: Source,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// How the file holds weights; see below
    #[arg(long, value_enum, default_value_t = FileForm::Dq)]
    form: FileForm,
    /// Highest version of ONNX's operators to ask for. Without 25, weights of 2 bits and fewer take 4 bits in dq, without
    /// 21 those of 4 bits and fewer take 8 [default: the lowest that has all types that are needed]
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(13..=25))]
    opset: Option<i64>,
    #[command(flatten)]
    normalization: NormalizationArgs,
    #[command(flatten)]
    activations: ActivationArgs,
    /// File to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Print a JSON object instead of tables
    #[arg(long)]
    json: bool,
}

/// What is exported.
#[derive(Clone, Debug)]
enum Source {
    Run(PathBuf),
    Network(NetworkName),
}

impl FromStr for Source {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let path = Path::new(text);
        // A place on the disk without the extension of a network's file can only be meant as a run, also one that is not there.
        let place = path.components().count() > 1 && path.extension().is_none();
        if path.is_dir() || place {
            Ok(Self::Run(text.into()))
        } else {
            text.parse().map(Self::Network)
        }
    }
}

/// Forms of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum FileForm {
    Dq,
    Qcdq,
    Qonnx,
    Packed,
    Safetensors,
}

/// A network that is to be written, with what is known of it.
struct Found {
    model: QuantizedNetwork,
    frame: Frame,
    normalization: Option<Normalization>,
    /// Grids of activations, where what is exported has them.
    activations: Option<ActivationGrids>,
    /// Those of the activations that a run has searched, by the layer that gives them.
    searched: BTreeMap<String, ActivationGrid>,
    /// The data of a run.
    data: Option<DataConfig>,
    /// Names of the classes, where a file has them.
    classes: Vec<String>,
    origin: BTreeMap<String, String>,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Outcome {
    network: String,
    form: FileForm,
    /// Version of ONNX's operators.
    opset: Option<i64>,
    quantizer: Option<String>,
    layers: Vec<Layer>,
    /// Parameters in single precision.
    bytes_before: u64,
    bytes: u64,
    /// Where activations are rounded as well.
    accuracy: Option<Accuracy>,
}

#[derive(Debug, Serialize)]
struct Layer {
    name: String,
    bits: Bitwidth,
    stored: String,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let network = match &self.source {
            Source::Run(_) => None,
            Source::Network(name) => name.file(),
        };
        let takes_activations = matches!(self.form, FileForm::Dq | FileForm::Packed);
        if let Some(bits) = self.activations.asked()? {
            let reason = if !takes_activations {
                Some("--activation-bits is for the forms dq and packed")
            } else if self.form == FileForm::Dq && bits.iter().any(|&bits| bits < Bitwidth::EIGHT) {
                Some(
                    "--activation-bits: ONNX Runtime computes with activations of 8 bits; --form packed takes fewer",
                )
            } else {
                None
            };
            if let Some(reason) = reason {
                return Err(UsageError(reason.to_owned()).into());
            }
        }
        if self.opset.is_some() && self.onnx_form().is_none() {
            let reason = "--opset is for the forms of ONNX: dq, qcdq and qonnx";
            return Err(UsageError(reason.to_owned()).into());
        }
        let packed = |path: &Path| {
            path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("safetensors"))
        };
        if self.form == FileForm::Packed && !packed(&self.output) {
            let reason = "--output: a packed network needs a name that ends in .safetensors, by which other commands know it";
            return Err(UsageError(reason.to_owned()).into());
        }
        Files::new()
            .reads("NETWORK", network)
            .reads("--weights", self.weights.weights.as_ref())
            .writes("--output", Some(&self.output))
            .check()?;
        let found = match &self.source {
            Source::Run(run) => self.answer(run)?,
            Source::Network(name) => self.network(name)?,
        };
        if !found.model.is_quantized() {
            note("no layer is quantized; --bits says to how many bits");
        }
        let outcome = self.write(found)?;
        print(if self.json { serde_json::to_string_pretty(&outcome)? } else { table(&outcome) })?;
        if !self.json {
            note(remark(&outcome));
        }
        note(format_args!("written to {}", self.output.display()));
        Ok(ExitCode::SUCCESS)
    }

    /// The answer of a run.
    fn answer(&self, run: &Path) -> Result<Found> {
        if !self.precision.bits.is_empty() || self.weights.weights.is_some() {
            let reason =
                "a run has weights and bitwidths of its own; --weights and --bits are for networks";
            return Err(UsageError(reason.to_owned()).into());
        }
        let RunAnswer { model, frame, report, accuracies, activations: searched, .. } =
            RunFolder::answer_of(run)?;
        let mut origin = BTreeMap::from([
            ("releq".to_owned(), report.version.clone()),
            ("seed".to_owned(), report.config.seed.to_string()),
            ("data".to_owned(), report.data.clone()),
        ]);
        if let Some([validation, test]) = accuracies {
            origin.insert("validation accuracy".to_owned(), validation.to_string());
            origin.insert("test accuracy".to_owned(), test.to_string());
        }
        let frame = frame.unwrap_or_else(|| Frame::of(model.network()));
        // Never that of the preset: a run on other images, or on drawn ones, has measured its own.
        let of_run = report.normalization.clone().or_else(|| report.config.normalization.clone());
        let given = self.normalization.given(model.network(), self.activations.images())?;
        let normalization = given.or(of_run);
        let data = match &report.config.data {
            Some(Choice::Ours(data)) => Some(data.clone()),
            _ => None,
        };
        let (activations, classes) = (None, Vec::new());
        Ok(Found { model, frame, normalization, activations, searched, data, classes, origin })
    }

    /// A network with its weights, quantized as they are.
    fn network(&self, name: &NetworkName) -> Result<Found> {
        let mut named = name.read()?;
        let (frame, of_file) = (named.frame.clone(), named.normalization.clone());
        let quantized = named.quantized.take().filter(|_| self.weights.weights.is_none());
        let (of_quantized, classes) = (named.activations.take(), named.classes.clone());
        let (network, weights) = self.weights.of(named)?;
        let Some((_, weights)) = weights else {
            let reason = "--weights: name the file with the weights of the network";
            return Err(UsageError(reason.to_owned()).into());
        };
        let bits = self.precision.assignment(&network)?;
        let normalization = self.normalization(&network, of_file)?;
        let mut activations = None;
        let model = match (bits, quantized) {
            (None, Some(quantized)) => {
                activations = of_quantized;
                quantized
            }
            (None, None) => QuantizedNetwork::from_parts(network, weights, BTreeMap::new(), None)?,
            (Some(bits), _) => {
                let quantizer = self.precision.quantizer.build();
                QuantizedNetwork::new(network, weights, &bits, &*quantizer)?
            }
        };
        let (searched, data, origin) = (BTreeMap::new(), None, BTreeMap::new());
        Ok(Found { model, frame, normalization, activations, searched, data, classes, origin })
    }

    /// How images were normalized: as the options say, as what is exported says, or as the preset of the network.
    fn normalization(
        &self,
        network: &Network,
        known: Option<Normalization>,
    ) -> Result<Option<Normalization>> {
        let preset = || zoo::preset(network.name()).map(|preset| preset.normalization);
        Ok(self.normalization.given(network, self.activations.images())?.or(known).or_else(preset))
    }

    /// Names of the classes for a packed file: of the images that the options name, or else of what is exported. A run may
    /// have been on images that are no longer there.
    fn classes(&self, found: &Found) -> Result<Vec<String>> {
        if self.form != FileForm::Packed {
            return Ok(Vec::new());
        }
        if let Some(list) = self.activations.images().class_list() {
            return Ok(image_folder::listed_classes(list)?);
        }
        let named = match self.activations.named(found.model.network())? {
            Some(data) => data.class_names()?,
            None => match found.data.as_ref().map_or(Ok(Vec::new()), DataConfig::class_names) {
                Ok(classes) => classes,
                Err(error) => {
                    note(format_args!(
                        "classes go without names: {error}; --data or --classes names them"
                    ));
                    Vec::new()
                }
            },
        };
        Ok(if named.is_empty() { found.classes.clone() } else { named })
    }

    fn write(&self, found: Found) -> Result<Outcome> {
        let classes = self.classes(&found)?;
        let Found { model, frame, normalization, mut activations, searched, data, origin, .. } =
            found;
        let data = data.as_ref();
        let network = model.network().name().to_owned();
        let quantizer = model.quantizer().map(str::to_owned);
        let mut layers: Vec<Layer> = model
            .layers()
            .map(|(name, bits)| Layer {
                name: name.to_owned(),
                bits,
                stored: match self.form {
                    FileForm::Packed if !bits.is_float() => format!("{bits} bits"),
                    _ => Stored::Float.to_string(),
                },
            })
            .collect();
        let values: usize = releq::core::parameter_shapes(model.network())
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        let (mut opset, mut accuracy) = (None, None);
        match self.onnx_form() {
            Some(form) => {
                let most_opset = self.opset.unwrap_or(ExportConfig::default().most_opset);
                let exported = if let Some(bits) = self.activations.asked()? {
                    let rounded = self.activations.round(
                        Ask::Bits(&bits),
                        &model,
                        normalization.as_ref(),
                        data,
                    )?;
                    accuracy = Some(rounded.accuracy);
                    onnx::export_int8(&model, &frame, &rounded.grids, most_opset)?
                } else {
                    onnx::export(&model, &frame, &ExportConfig { form, most_opset })?
                };
                exported.write(&self.output)?;
                opset = Some(exported.opset);
                for (layer, (_, _, stored)) in layers.iter_mut().zip(&exported.layers) {
                    layer.stored = stored.to_string();
                }
            }
            None if self.form == FileForm::Packed => {
                let asked = self.activations.asked()?;
                let asked = match &asked {
                    Some(bits) => Some(Ask::Bits(bits)),
                    None if self.activations.in_full_precision() => {
                        activations = None;
                        None
                    }
                    None => (!searched.is_empty()).then_some(Ask::Searched(&searched)),
                };
                if let Some(asked) = asked {
                    let rounded =
                        self.activations.round(asked, &model, normalization.as_ref(), data)?;
                    (activations, accuracy) = (Some(rounded.grids), Some(rounded.accuracy));
                }
                let (mean, std) =
                    normalization.map_or_else(Default::default, |pixels| (pixels.mean, pixels.std));
                let about = About { mean, std, classes, origin };
                packed::save(&self.output, &Packed { model, frame, activations, about })?;
            }
            None => safetensors::save(&self.output, &model.dequantized())?,
        }
        Ok(Outcome {
            network,
            form: self.form,
            opset,
            quantizer,
            layers,
            bytes_before: 4 * values as u64,
            bytes: fs::metadata(&self.output)?.len(),
            accuracy,
        })
    }

    const fn onnx_form(&self) -> Option<Form> {
        match self.form {
            FileForm::Dq => Some(Form::Dq),
            FileForm::Qcdq => Some(Form::Qcdq),
            FileForm::Qonnx => Some(Form::Qonnx),
            FileForm::Packed | FileForm::Safetensors => None,
        }
    }
}

fn table(outcome: &Outcome) -> String {
    let mut layers = tables::framed(&["layer", "bits", "stored as"]);
    for layer in &outcome.layers {
        layers.add_row([&layer.name, &layer.bits.to_string(), &layer.stored]);
    }
    let mut summary = tables::plain();
    let bytes = |count: u64| amount(count as f64, "bytes");
    let smaller = outcome.bytes_before as f64 / outcome.bytes as f64;
    let mut rows = vec![
        ("network", outcome.network.clone()),
        ("before", format!("{} in single precision", bytes(outcome.bytes_before))),
        ("after", format!("{}, {} smaller", bytes(outcome.bytes), times(smaller))),
    ];
    if smaller < 1.05 {
        rows[2].1 = format!("{}, not smaller", bytes(outcome.bytes));
    }
    rows.extend(outcome.quantizer.clone().map(|quantizer| ("quantizer", quantizer)));
    rows.extend(outcome.opset.map(|opset| ("operators", format!("ONNX {opset}"))));
    if let Some(accuracy) = &outcome.accuracy {
        rows.push((
            "accuracy",
            format!(
                "{} with activations of {} bits, {} with quantized weights alone, on {} test images",
                percent(accuracy.with_activations),
                match accuracy.activation_bits.iter().collect::<BTreeSet<_>>().len() {
                    1 => accuracy.activation_bits[0].to_string(),
                    _ => accuracy.activation_bits.to_string(),
                },
                percent(accuracy.weights_only),
                accuracy.test_images
            ),
        ));
    }
    for (label, value) in rows {
        summary.add_row([label, &value]);
    }
    format!("{}\n{}", tables::text(&layers), tables::text(&summary))
}

/// What whoever deploys the file should know.
fn remark(outcome: &Outcome) -> &'static str {
    match outcome.form {
        FileForm::Dq if outcome.accuracy.is_some() => {
            "ONNX Runtime computes with 8-bit integers, whatever the bitwidths of the weights: fewer bits make this file \
             neither smaller nor faster"
        }
        FileForm::Dq => {
            "the file is small, not fast: ONNX Runtime dequantizes the weights in every inference. With \
             session.disable_quant_qdq=1 it does so once, takes the time of full precision, and computes the same bit \
             for bit"
        }
        FileForm::Qcdq => {
            "qcdq does not shrink a file: its weights are in single precision, for tools that round them again"
        }
        FileForm::Qonnx => {
            "qonnx does not shrink a file: its weights are in single precision, for tools that round them again. ONNX \
             Runtime does not read it"
        }
        FileForm::Packed if outcome.accuracy.is_some() => {
            "`releq run` computes the file with integer kernels, and `releq bench` times it; other commands take it as a \
             network with activations in full precision"
        }
        FileForm::Packed => {
            "`releq run`, `releq evaluate` and `releq export` take the file as a network"
        }
        FileForm::Safetensors => {
            "the weights have the rounded values in single precision, so the file is as large as before"
        }
    }
}
