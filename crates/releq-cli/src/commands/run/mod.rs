//! `releq run`: what a network says of given images.

mod input;
mod outcome;

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use releq::{
    core::{BitwidthAssignment, Network},
    data::{
        Normalization, image_folder,
        npz::{self, Array},
    },
    format::{
        onnx::End,
        packed::{self, FileCodes, Packed},
    },
    train::{Backend, Trainer, TrainerFactory},
};
use releq_kernels::Isa;
use releq_runtime::{Model, Options};

use self::input::Images;
use crate::{
    args::{
        Files, ImageArgs, NetworkArgs, NormalizationArgs, PrecisionArgs, UsageError, WeightsArgs,
        options, usage,
    },
    terminal::output::{note, print},
};

/// Images that are computed at a time.
const BATCH: usize = 32;

/// Compute the outputs of a network
///
/// The images are files, or arrays of numbers as the network takes them, already normalized. What comes out is what the
/// network gives: logits, or probabilities if its model ends with a softmax. A packed network with activations of 8 bits is
/// computed with integers, unless --backend names what computes it in full precision.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq run model.onnx --input x.npz --output logits.npz
  releq run packed.safetensors --input cat.jpg --top 5   the likeliest classes
  releq run model.onnx --input photos/ --preprocess torchvision --top 1 --json
  releq run packed.safetensors --explain                 which kernel each layer gets
  releq run net.json --weights net.safetensors --input x.npz --output logits.npz
  releq run model.onnx ... --bits 4    with weights rounded to 4 bits")]
pub(crate) struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    weights: WeightsArgs,
    /// Images: image files, folders of them, or array `x` [images, channels, height, width] in a file of NumPy, .npz, or the
    /// only array of one that is .npy
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "explain")]
    input: Vec<PathBuf>,
    #[command(flatten)]
    images: ImageArgs,
    #[command(flatten)]
    normalization: NormalizationArgs,
    /// File of NumPy to write: array `logits` [images, classes] in .npz
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show the N likeliest classes of each image, by name where the network's file or --classes has names
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
    /// Print JSON in place of tables, with --top or --explain
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let files = Files::new()
            .reads("--network", self.network.file())
            .reads("--weights", self.weights.weights.as_ref());
        let input = self.input.iter().filter(|path| !path.is_dir());
        input
            .fold(files, |files, path| files.reads("--input", Some(path)))
            .writes("--output", self.output.as_ref())
            .check()?;
        if !self.explain && self.top.is_none() && self.output.is_none() {
            let reason = "say what is wanted: --top N shows the likeliest classes of each image, --output FILE writes all outputs";
            return Err(UsageError(reason.to_owned()).into());
        }
        if self.json && self.top.is_none() && !self.explain {
            let reason = "--json: say with --top how many classes of each image are wanted";
            return Err(UsageError(reason.to_owned()).into());
        }
        if let Some(packed) = self.packed()? {
            let options = Options {
                isa: usage(self.isa.unwrap_or_else(Isa::best).check())?,
                threads: self.threads.unwrap_or(NonZeroUsize::MIN),
                ..Options::default()
            };
            let mut model = Model::compile(&packed, &options)?;
            if self.explain {
                print(outcome::explained(&model, self.json)?)?;
                return Ok(ExitCode::SUCCESS);
            }
            let network = packed.model.network();
            let (mean, std) = (packed.about.mean.clone(), packed.about.std.clone());
            let normalization = (!mean.is_empty())
                .then(|| Normalization::new(mean, std))
                .transpose()
                .with_context(|| network.name().to_owned())?;
            let images = self.images(network, normalization)?;
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
            return self.tell(network, End::Logits, &images, &packed.about.classes, &mut run);
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
        let (end, normalization) = (named.frame.end, named.normalization.clone());
        let classes = named.classes.clone();
        let (network, weights) = self.weights.of(named)?;
        let Some((_, weights)) = weights else {
            let reason = "--weights: name the file with the weights of the network";
            return Err(UsageError(reason.to_owned()).into());
        };
        let bits: Option<BitwidthAssignment> = self.precision.assignment(&network)?;
        let images = self.images(&network, normalization)?;
        let mut trainer = self.trainer(&network)?;
        trainer.load(&weights)?;
        trainer.set_bits(bits.as_ref())?;
        self.tell(&network, end, &images, &classes, &mut |batch| Ok(trainer.logits(batch)?))
    }

    fn images(&self, network: &Network, of_file: Option<Normalization>) -> Result<Images> {
        Images::read(&self.input, network, &self.images, &self.normalization, of_file)
    }

    /// The network that the runtime computes; `None` for one that a trainer does.
    fn packed(&self) -> Result<Option<Packed<FileCodes>>> {
        let as_it_is = self.weights.weights.is_none()
            && self.precision.bits.is_empty()
            && self.backend.is_none();
        let Some(path) = self.network.packed().filter(|_| as_it_is) else { return Ok(None) };
        let packed = packed::open(path)?;
        let is_runtimes = packed.activations.is_some() || self.explain;
        Ok(Some(packed).filter(|_| is_runtimes))
    }

    /// Computes all images, and writes and shows what was asked for.
    fn tell(
        &self,
        network: &Network,
        end: End,
        images: &Images,
        classes: &[String],
        run: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<ExitCode> {
        let classes = match self.images.class_list() {
            Some(list) => image_folder::listed_classes(list)?,
            None => classes.to_vec(),
        };
        let count = images.len();
        let mut logits = Vec::with_capacity(count * network.outputs());
        for start in (0..count).step_by(BATCH) {
            logits.extend(run(&images.batch(start..count.min(start + BATCH))?)?);
        }
        for image in logits.chunks_exact_mut(network.outputs()) {
            end.apply(image);
        }
        if let Some(top) = self.top {
            let likeliest = outcome::likeliest(images, &logits, network.outputs(), &classes, top);
            print(outcome::told(&likeliest, self.json)?)?;
        }
        let mut told = format!("{count} images{}", images.remark());
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
