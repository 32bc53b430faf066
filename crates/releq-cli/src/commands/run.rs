//! `releq run`: what a network says of given images.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, ensure};
use releq::{
    core::{BitwidthAssignment, Network},
    data::npz::{self, Array},
    train::{Backend, Trainer, TrainerFactory},
};

use crate::{
    args::{Files, NetworkArgs, PrecisionArgs, UsageError, WeightsArgs},
    terminal::output::note,
};

/// Images that are computed at a time.
const BATCH: usize = 32;

/// Compute the outputs of a network
///
/// The images are numbers as the network takes them, already normalized. What comes out is what the network gives: logits,
/// or probabilities if its model ends with a softmax.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq run model.onnx --input x.npz --output logits.npz
  releq run packed.safetensors --input x.npz --output logits.npz
  releq run net.json --weights net.safetensors --input x.npz --output logits.npz
  releq run model.onnx ... --bits 4    with weights rounded to 4 bits")]
pub(crate) struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    weights: WeightsArgs,
    /// Images: array `x` [images, channels, height, width] in a file of NumPy, .npz, or the only array of one that is .npy
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// File of NumPy to write: array `logits` [images, classes] in .npz
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// What computes, one of `releq list backends` [default: native, or flex for a network that it does not support]
    #[arg(long, value_name = "BACKEND")]
    backend: Option<Backend>,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        Files::new()
            .reads("--network", self.network.file())
            .reads("--weights", self.weights.weights.as_ref())
            .reads("--input", Some(&self.input))
            .writes("--output", Some(&self.output))
            .check()?;
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

        let images = npz::read(&self.input, "x")?;
        let count = self.check(&images, &network)?;
        let sample: usize = network.input().iter().product();
        let mut logits = Vec::with_capacity(count * network.outputs());
        for batch in images.values.chunks(BATCH * sample) {
            logits.extend(trainer.logits(batch)?);
        }
        for image in logits.chunks_exact_mut(network.outputs()) {
            end.apply(image);
        }
        let logits = Array { shape: vec![count, network.outputs()], values: logits };
        npz::write(&self.output, &[("logits", &logits)])?;
        note(format_args!("{count} images; written to {}", self.output.display()));
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

    /// The number of images, which must be of the network's size.
    fn check(&self, images: &Array, network: &Network) -> Result<usize> {
        let [channels, height, width] = network.input();
        let fits = match *images.shape.as_slice() {
            [_, c, h, w] => [c, h, w] == network.input(),
            [_, features] => [features, 1, 1] == network.input(),
            _ => false,
        };
        ensure!(
            fits && images.shape[0] > 0,
            "{}: array `x` has shape {:?}, but `{}` takes [images, {channels}, {height}, {width}]",
            self.input.display(),
            images.shape,
            network.name()
        );
        Ok(images.shape[0])
    }
}
