//! `releq run`: what a network says of given images.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Result, bail, ensure};
use releq::{
    core::{BitwidthAssignment, Network},
    data::npz::{self, Array},
    format::{
        onnx::End,
        packed::{self, Packed},
    },
    train::{Backend, Trainer, TrainerFactory},
};
use releq_kernels::Isa;
use releq_runtime::{Model, Options};

use crate::{
    args::{Files, NetworkArgs, PrecisionArgs, UsageError, WeightsArgs, options, usage},
    plot::number::amount,
    terminal::{
        output::{note, print},
        tables,
    },
};

/// Images that are computed at a time.
const BATCH: usize = 32;

/// Compute the outputs of a network
///
/// The images are numbers as the network takes them, already normalized. What comes out is what the network gives: logits,
/// or probabilities if its model ends with a softmax. A packed network with activations of 8 bits is computed with integers,
/// unless --backend names what computes it in full precision.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq run model.onnx --input x.npz --output logits.npz
  releq run packed.safetensors --input x.npz --top 5   the likeliest classes
  releq run packed.safetensors --explain               which kernel each layer gets
  releq run net.json --weights net.safetensors --input x.npz --output logits.npz
  releq run model.onnx ... --bits 4    with weights rounded to 4 bits")]
pub(crate) struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    weights: WeightsArgs,
    /// Images: array `x` [images, channels, height, width] in a file of NumPy, .npz, or the only array of one that is .npy
    #[arg(long, value_name = "FILE", required_unless_present = "explain")]
    input: Option<PathBuf>,
    /// File of NumPy to write: array `logits` [images, classes] in .npz
    #[arg(long, value_name = "FILE", required_unless_present_any = ["explain", "top"])]
    output: Option<PathBuf>,
    /// Show the N likeliest classes of each image, by name where the file has names
    #[arg(long, value_name = "N", value_parser = options::count, allow_negative_numbers = true)]
    top: Option<NonZeroUsize>,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// What computes, one of `releq list backends` [default: native, or flex for a network that it does not support; a
    /// packed network with activations of 8 bits is computed with integers]
    #[arg(long, value_name = "BACKEND")]
    backend: Option<Backend>,
    /// Instruction set: portable, avx2 or avx512 [default: the best one that this CPU supports]
    #[arg(long, value_name = "NAME")]
    isa: Option<Isa>,
    /// Number of threads that compute a layer [default: 1]
    #[arg(long, value_name = "N", value_parser = options::threads, allow_negative_numbers = true)]
    threads: Option<NonZeroUsize>,
    /// Show how each layer of a packed network is computed, and why, instead of computing
    #[arg(long)]
    explain: bool,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        Files::new()
            .reads("--network", self.network.file())
            .reads("--weights", self.weights.weights.as_ref())
            .reads("--input", self.input.as_ref())
            .writes("--output", self.output.as_ref())
            .check()?;
        if let Some(packed) = self.packed()? {
            let options = Options {
                isa: usage(self.isa.unwrap_or_else(Isa::best).check())?,
                threads: self.threads.unwrap_or(NonZeroUsize::MIN),
                ..Options::default()
            };
            let mut model = Model::compile(&packed, &options)?;
            if self.explain {
                return explain(&model);
            }
            let mut run = |batch: &[f32]| {
                let sample: usize = model.input().iter().product();
                let mut logits = vec![0.0; batch.len() / sample * model.outputs()];
                let outputs = logits.chunks_exact_mut(model.outputs());
                for (image, logits) in batch.chunks_exact(sample).zip(outputs) {
                    model.run(image, logits)?;
                }
                Ok(logits)
            };
            // The runtime applies a softmax itself.
            return self.tell(packed.model.network(), End::Logits, &packed.about.classes, &mut run);
        }
        for (option, given) in [
            ("--explain", self.explain),
            ("--isa", self.isa.is_some()),
            ("--threads", self.threads.is_some()),
        ] {
            if given {
                let reason = format!(
                    "{option} is for packed networks with activations of 8 bits, as they are; `releq export --form packed \
                     --activation-bits 8` writes them"
                );
                return Err(UsageError(reason).into());
            }
        }
        let named = self.network.required()?;
        let end = named.frame.end;
        let (network, weights) = self.weights.of(named)?;
        let Some((_, weights)) = weights else {
            let reason = "--weights: name the file with the weights of the network";
            return Err(UsageError(reason.to_owned()).into());
        };
        let bits: Option<BitwidthAssignment> = self.precision.assignment(&network)?;
        let mut trainer = self.trainer(&network)?;
        trainer.load(&weights)?;
        trainer.set_bits(bits.as_ref())?;
        self.tell(&network, end, &[], &mut |batch| Ok(trainer.logits(batch)?))
    }

    /// The network that the runtime computes; `None` for one that a trainer does.
    fn packed(&self) -> Result<Option<Packed>> {
        let as_it_is = self.weights.weights.is_none()
            && self.precision.bits.is_empty()
            && self.backend.is_none();
        let Some(path) = self.network.packed().filter(|_| as_it_is) else { return Ok(None) };
        let packed = packed::load(path)?;
        let is_runtimes = packed.activations.is_some() || self.explain;
        Ok(Some(packed).filter(|_| is_runtimes))
    }

    /// Computes all images, and writes and shows what was asked for.
    fn tell(
        &self,
        network: &Network,
        end: End,
        classes: &[String],
        run: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<ExitCode> {
        let Some(input) = &self.input else {
            return Err(UsageError("--input: name the file with the images".to_owned()).into());
        };
        let images = npz::read(input, "x")?;
        let count = check(input, &images, network)?;
        let sample: usize = network.input().iter().product();
        if let Some(place) = images.values.iter().position(|value| !value.is_finite()) {
            bail!(
                "{}: array `x`: value {} of image {} is {}; images have finite numbers in single precision",
                input.display(),
                place % sample,
                place / sample,
                images.values[place]
            );
        }
        let mut logits = Vec::with_capacity(count * network.outputs());
        for batch in images.values.chunks(BATCH * sample) {
            logits.extend(run(batch)?);
        }
        for image in logits.chunks_exact_mut(network.outputs()) {
            end.apply(image);
        }
        if let Some(top) = self.top {
            print(likeliest(&logits, network.outputs(), classes, top))?;
        }
        let mut told = format!("{count} images");
        if let Some(output) = &self.output {
            let logits = Array { shape: vec![count, network.outputs()], values: logits };
            npz::write(output, &[("logits", &logits)])?;
            told += &format!("; written to {}", output.display());
        }
        note(told);
        Ok(ExitCode::SUCCESS)
    }

    fn trainer(&self, network: &Network) -> Result<Box<dyn Trainer>> {
        let on = |backend: Backend| -> Result<Box<dyn Trainer>> {
            Ok(backend.trainer(network, self.precision.quantizer.build())?)
        };
        match self.backend {
            Some(backend) => on(backend),
            None => on(Backend::Native).or_else(|_| on(Backend::Flex)),
        }
    }
}

/// The likeliest classes of every image.
fn likeliest(logits: &[f32], outputs: usize, classes: &[String], top: NonZeroUsize) -> String {
    let mut table = tables::plain();
    table.set_header(["image", "class", "output"]);
    for (image, logits) in logits.chunks_exact(outputs).enumerate() {
        let mut order: Vec<usize> = (0..outputs).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        for class in order.into_iter().take(top.get()) {
            let name = classes.get(class).cloned().unwrap_or_else(|| class.to_string());
            table.add_row([image.to_string(), name, format!("{:.4}", logits[class])]);
        }
    }
    tables::text(&table)
}

/// How each layer is computed.
fn explain(model: &Model) -> Result<ExitCode> {
    let mut table = tables::plain();
    table.set_header(["layer", "operation", "bits", "kernel", "weights", "why"]);
    for plan in model.layers() {
        let bits = plan.bits.map_or_else(String::new, |bits| format!("{bits} x 8"));
        let bytes = amount(plan.bytes as f64, "bytes");
        table.add_row([plan.layer, plan.kind.to_owned(), bits, plan.kernel, bytes, plan.reason]);
    }
    print(tables::text(&table))?;
    Ok(ExitCode::SUCCESS)
}

/// The number of images, which must be of the network's size.
fn check(input: &Path, images: &Array, network: &Network) -> Result<usize> {
    let [channels, height, width] = network.input();
    let fits = match *images.shape.as_slice() {
        [_, c, h, w] => [c, h, w] == network.input(),
        [_, features] => [features, 1, 1] == network.input(),
        _ => false,
    };
    ensure!(
        fits && images.shape[0] > 0,
        "{}: array `x` has shape {:?}, but `{}` takes [images, {channels}, {height}, {width}]",
        input.display(),
        images.shape,
        network.name()
    );
    Ok(images.shape[0])
}
