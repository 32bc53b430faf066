//! Activations of up to 8 bits: their ranges from images, and the accuracy that they leave.

use std::{collections::BTreeMap, num::NonZeroUsize};

use anyhow::Result;
use releq::{
    DataConfig,
    core::{Bitwidth, BitwidthAssignment, Network},
    data::Normalization,
    format::QuantizedNetwork,
    quant::{ActivationGrid, ActivationGrids, QuantizerKind},
    train::{self, Calibration, NativeTrainer, RangeRule, RoundedActivations, Trainer},
};
use serde::Serialize;

use crate::args::{
    DataArgs, ImageArgs, UsageError,
    images::{self, Split},
    options,
};

/// Images that are computed at a time.
const BATCH: usize = 100;

/// How activations are rounded, if they are.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Activations")]
pub(super) struct ActivationArgs {
    /// Round activations as well: to 8 bits in a file of form dq that ONNX Runtime computes with integers, and to 1 to 8 in
    /// a packed one that `releq run` does. One number for all that layers with weights read, or one for what each of them
    /// reads; what several read has the bits of the one that asks for most. Ranges come from training images, and the accuracy
    /// is measured on test images. 32 is full precision [default: in a packed file those
    /// that a run has searched, else 32]
    #[arg(
        long,
        value_name = "BITS",
        num_args = 1..,
        value_parser = options::bits,
        allow_negative_numbers = true
    )]
    activation_bits: Vec<BitwidthAssignment>,
    /// Number of training images that ranges come from
    #[arg(
        long,
        value_name = "N",
        default_value_t = Calibration::IMAGES,
        value_parser = options::count,
        allow_negative_numbers = true
    )]
    calibration_images: NonZeroUsize,
    /// Let ranges end where this many percent of the values do on either side of zero, such as 99.99 [default: the
    /// smallest and the largest value]
    #[arg(long, value_name = "PERCENT", value_parser = options::percent, allow_hyphen_values = true)]
    percentile: Option<f64>,
    /// Measure on at most this many test images, with all classes in proportion
    #[arg(long, value_name = "N", value_parser = options::count, allow_negative_numbers = true)]
    images: Option<NonZeroUsize>,
    #[command(flatten)]
    data: DataArgs,
}

/// Which activations are asked for.
#[derive(Clone, Copy)]
pub(super) enum Ask<'a> {
    /// So many bits of what all layers with weights read, or of what each of them does.
    Bits(&'a BitwidthAssignment),
    /// The grids that a run has found, by the layer that gives the values.
    Searched(&'a BTreeMap<String, ActivationGrid>),
}

/// The bits of what each layer with weights reads, 8 where that has no grid.
fn read(network: &Network, grids: &BTreeMap<String, ActivationGrid>) -> Result<BitwidthAssignment> {
    let nodes = network.nodes();
    let readers = (0..nodes.len()).filter(|&index| nodes[index].op.has_weights());
    let bits = readers.map(|index| {
        let source = network.unmoved(network.sources(index)[0]);
        grids.get(network.source_name(source)).map_or(Bitwidth::EIGHT, |grid| grid.bits)
    });
    Ok(BitwidthAssignment::new(bits.collect())?)
}

/// Grids of activations, and what they cost.
pub(super) struct Rounded {
    pub(super) grids: ActivationGrids,
    pub(super) accuracy: Accuracy,
}

/// Accuracies on the same test images, in 0 to 1.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Accuracy {
    /// With quantized weights and activations in full precision.
    pub(super) weights_only: f64,
    /// With rounded activations as well.
    pub(super) with_activations: f64,
    pub(super) test_images: usize,
    pub(super) calibration_images: usize,
    /// Bits of what each layer with weights reads.
    pub(super) activation_bits: BitwidthAssignment,
}

impl ActivationArgs {
    /// How images are read.
    pub(super) const fn images(&self) -> &ImageArgs {
        &self.data.images
    }

    /// The images that the options name, if they name any.
    pub(super) fn named(&self, network: &Network) -> Result<Option<DataConfig>> {
        if self.data.is_named() { self.data.find(network) } else { Ok(None) }
    }

    /// Bits of activations, as they are given: for all layers with weights, or for each. `None` where activations are not
    /// rounded.
    ///
    /// # Errors
    /// For bits that no form takes.
    pub(super) fn asked(&self) -> Result<Option<BitwidthAssignment>> {
        let Some(bits) = options::join_bits(&self.activation_bits) else { return Ok(None) };
        if self.in_full_precision() {
            return Ok(None);
        }
        match bits.iter().find(|&&bits| bits > Bitwidth::EIGHT) {
            None => Ok(Some(bits)),
            Some(other) => Err(UsageError(format!(
                "--activation-bits {other}: activations are written with 1 to 8 bits, or all in full precision, which is 32"
            ))
            .into()),
        }
    }

    /// Whether full precision is asked for, also for a run that has searched bitwidths of activations.
    pub(super) fn in_full_precision(&self) -> bool {
        options::join_bits(&self.activation_bits)
            .is_some_and(|bits| bits.iter().all(|bits| bits.float_at_32().is_float()))
    }

    /// Finds the ranges of activations, and measures: on the images that the options name, or else on those of a run.
    pub(super) fn round(
        &self,
        asked: Ask<'_>,
        model: &QuantizedNetwork,
        normalization: Option<&Normalization>,
        of_run: Option<&DataConfig>,
    ) -> Result<Rounded> {
        let network = model.network();
        let profiles = network.profiles();
        let names = profiles.iter().map(|layer| layer.name.as_str());
        let nothing = BTreeMap::new();
        let (bits, known) = match asked {
            Ask::Bits(bits) => (options::per_layer("--activation-bits", bits, names)?, &nothing),
            Ask::Searched(grids) => (read(network, grids)?, grids),
        };
        let normalization = normalization.ok_or_else(|| {
            UsageError(format!(
                "--mean and --std, or --preprocess: say how images were normalized in the training of `{}`, since its \
                 activations depend on it",
                network.name()
            ))
        })?;
        let rule = match self.percentile {
            Some(percent) => RangeRule::Percentile(percent),
            None => RangeRule::MinMax,
        };
        let source = match of_run.filter(|_| !self.data.is_named()) {
            Some(data) => data.clone(),
            None => self.data.required(network)?,
        };
        let limit = Some(self.calibration_images);
        let (calibration, _) = images::load(&source, Split::Train, limit, network)?;
        // The weights are rounded already, so this rounds none.
        let mut trainer = NativeTrainer::new(network, QuantizerKind::default().build())?;
        trainer.load(&model.dequantized())?;
        let calibration = Calibration::of(&mut trainer, &calibration, normalization)?;
        let grids = calibration.grids_beside(&trainer, rule, Some(&bits), known)?;

        let (test, _) = images::load(&source, Split::Test, self.images, network)?;
        let weights_only = train::accuracy(&mut trainer, &test, normalization, BATCH)?;
        let mut rounded = RoundedActivations::new(trainer, &grids);
        let with_activations = train::accuracy(&mut rounded, &test, normalization, BATCH)?;
        let accuracy = Accuracy {
            weights_only: weights_only.accuracy(),
            with_activations: with_activations.accuracy(),
            test_images: test.len(),
            calibration_images: calibration.images(),
            activation_bits: bits,
        };
        Ok(Rounded { grids, accuracy })
    }
}
