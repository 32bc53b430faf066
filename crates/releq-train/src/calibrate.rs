//! Ranges of activations, found on images, and networks whose activations are rounded.

use std::{collections::BTreeMap, num::NonZeroUsize};

use releq_core::{Bitwidth, BitwidthAssignment, Network, Op, ParameterRole, Weights, WeightsError};
use releq_data::{Dataset, Normalization};
use releq_quant::{ActivationGrid, ActivationGrids};

use crate::{
    Batch, NativeTrainer, Sgd, TrainError, Trainer, TrainerState, trainer::activation_grid,
    training,
};

/// Images that are looked at at a time.
const BATCH: usize = 32;
/// Bins of a histogram, on both sides of zero together.
const BINS: usize = 4096;
/// Ranges that are tried for a bitwidth, from the whole one down.
const CLIPS: usize = 100;

/// How the range of an activation follows from the values that images give.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum RangeRule {
    /// From the smallest value to the largest.
    #[default]
    MinMax,
    /// From where this many percent of the values end on either side of zero, above 50 and at most 100. What lies beyond
    /// is clipped, which leaves finer steps for the rest.
    Percentile(f64),
}

/// Ranges of all activations of a network, batch by batch: memory does not depend on the number of images.
#[derive(Debug)]
pub struct Calibration {
    /// By index of the layer; the input is `None`.
    histograms: BTreeMap<Option<usize>, Histogram>,
    images: usize,
}

impl Calibration {
    /// Training images that ranges come from where nobody says how many.
    pub const IMAGES: NonZeroUsize = NonZeroUsize::new(300).unwrap();

    /// Shows images to a network, as its weights are now, at its bitwidths.
    ///
    /// # Errors
    /// A normalization or images that do not fit; [`TrainError::Calibration`] without images, for images that are all one
    /// pixel, and for activations that are not finite.
    pub fn of(
        trainer: &mut NativeTrainer,
        images: &dyn Dataset,
        normalization: &Normalization,
    ) -> Result<Self, TrainError> {
        training::check_normalization(images, normalization)?;
        training::check_images(images, trainer.network())?;
        let mut histograms: BTreeMap<Option<usize>, Histogram> = BTreeMap::new();
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        let indices: Vec<usize> = (0..images.len()).collect();
        for batch in indices.chunks(BATCH) {
            images.gather(batch, normalization, &mut pixels, &mut labels)?;
            trainer.visited_logits(&pixels, &mut |layer, values| {
                histograms.entry(layer).or_default().add(values);
            })?;
        }
        let wrong = |reason: String| Err(TrainError::Calibration { reason });
        if images.is_empty() {
            return wrong("there are no images to find the ranges of activations on".to_owned());
        }
        let name = |layer: &Option<usize>| match *layer {
            None => "the input".to_owned(),
            Some(layer) => format!("layer `{}`", trainer.network().nodes()[layer].name),
        };
        for (layer, histogram) in &histograms {
            if histogram.is_broken {
                return wrong(format!("{} gives values that are not finite", name(layer)));
            }
        }
        if let Some(input) = histograms.get(&None)
            && input.min == input.max
        {
            return wrong(format!("every pixel of the {} images is the same", images.len()));
        }
        Ok(Self { histograms, images: images.len() })
    }

    /// Images that were shown.
    #[must_use]
    pub const fn images(&self) -> usize {
        self.images
    }

    /// Finds the ranges of all activations that `network` rounds, for every bitwidth from 1 to 8 the one whose grid leaves the
    /// least mean squared error: the fewer the levels, the more of the rare large values are clipped for the sake of finer steps.
    /// The trainer that was shown the images must have been one of `network` in full precision.
    ///
    /// # Source
    /// Clipping by the least squared error as in Banner et al. 2018 (arXiv 1810.05723), section 3, but over the values that were
    /// seen in place of a distribution that they are taken to have.
    ///
    /// # Errors
    /// [`TrainError::Quant`] for ranges without a scale.
    pub fn find_ranges(&self, network: &Network, weights: &mut Weights) -> Result<(), TrainError> {
        weights.add_ranges(network);
        for (index, node) in network.nodes().iter().enumerate() {
            let histogram = self.histograms.get(&Some(index));
            let ranges = weights.0.get_mut(&ParameterRole::Ranges.name(&node.name));
            let (Op::FakeQuantize, Some(histogram), Some(ranges)) = (node.op, histogram, ranges)
            else {
                continue;
            };
            let all = (1..).map_while(|bits| Bitwidth::new(bits).ok());
            for (bits, range) in all.zip(ranges.values.chunks_exact_mut(2)) {
                let (min, max) = histogram.best_range(bits)?;
                range.copy_from_slice(&[min, max]);
            }
        }
        Ok(())
    }

    /// The grids of all activations but the logits, which stay as they are. What only moves values, such as a maximum of
    /// a window, keeps the grid of what it moves.
    ///
    /// `bits` has those of what each layer with weights reads, 8 without it; what several of them read has those of the one that asks
    /// for most, and what none of them reads has 8.
    ///
    /// # Errors
    /// [`TrainError::Calibration`] for a percentile out of range and for another number of bitwidths than layers with weights,
    /// [`TrainError::Quant`] for ranges without a scale and for more than 8 bits.
    pub fn grids(
        &self,
        trainer: &NativeTrainer,
        rule: RangeRule,
        bits: Option<&BitwidthAssignment>,
    ) -> Result<ActivationGrids, TrainError> {
        self.grids_beside(trainer, rule, bits, &BTreeMap::new())
    }

    /// As [`grids`](Self::grids), with the grids that are `known` already, by the layer whose values they are for (`input` for
    /// the network's input): those that [`known_grids`] gives.
    ///
    /// # Errors
    /// As [`grids`](Self::grids).
    pub fn grids_beside(
        &self,
        trainer: &NativeTrainer,
        rule: RangeRule,
        bits: Option<&BitwidthAssignment>,
        known: &BTreeMap<String, ActivationGrid>,
    ) -> Result<ActivationGrids, TrainError> {
        if let RangeRule::Percentile(percent) = rule
            && !(percent > 50.0 && percent <= 100.0)
        {
            let reason = format!("a percentile of {percent:?} is not above 50 and at most 100");
            return Err(TrainError::Calibration { reason });
        }
        let network = trainer.network();
        let bits = bits.map(|bits| read_at(network, bits)).transpose()?.unwrap_or_default();
        let grid = |layer: Option<usize>| -> Result<Option<ActivationGrid>, TrainError> {
            if let Some(grid) = known.get(network.source_name(layer)) {
                return Ok(Some(*grid));
            }
            let Some(histogram) = self.histograms.get(&layer) else { return Ok(None) };
            let (min, max) = histogram.range(rule);
            let bits = bits.get(&layer).copied().unwrap_or(Bitwidth::EIGHT);
            Ok(Some(ActivationGrid::of_range(min, max, bits)?))
        };
        let Some(input) = grid(None)? else {
            let reason = "there are no images to find the ranges of activations on".to_owned();
            return Err(TrainError::Calibration { reason });
        };
        let mut found: Vec<Option<ActivationGrid>> = Vec::with_capacity(network.nodes().len());
        for (index, node) in network.nodes().iter().enumerate() {
            let is_last = index + 1 == network.nodes().len();
            let of_source = || match network.sources(index)[0] {
                None => Some(input),
                Some(source) => found[source],
            };
            let own = if node.op.moves_values() { of_source() } else { grid(Some(index))? };
            found.push(if is_last { None } else { own });
        }
        let names = network.nodes().iter().map(|node| node.name.clone());
        let layers = names.zip(found).filter_map(|(name, grid)| Some((name, grid?)));
        Ok(ActivationGrids { input, layers: layers.collect() })
    }
}

/// The grids that a network with weights rounds its activations to at `bits`, by the layer whose values they are for, `input`
/// for the network's input; those in full precision have none.
///
/// # Errors
/// [`TrainError::AssignmentLength`] for another number of bitwidths than quantizable layers; [`TrainError::Weights`],
/// [`TrainError::Calibration`] or [`TrainError::Quant`] for ranges that are missing, not found, or without a scale.
pub fn known_grids(
    network: &Network,
    weights: &Weights,
    bits: &BitwidthAssignment,
) -> Result<BTreeMap<String, ActivationGrid>, TrainError> {
    let layers = network.quantizable_layers();
    if bits.len() != layers {
        return Err(TrainError::AssignmentLength { layers, bits: bits.len() });
    }
    let nodes = network.nodes().iter().enumerate();
    let quantizable = nodes.filter(|(_, node)| node.op.is_quantizable()).zip(bits.iter());
    let mut grids = BTreeMap::new();
    for ((index, node), &bits) in quantizable {
        if node.op != Op::FakeQuantize || bits.is_float() {
            continue;
        }
        let name = ParameterRole::Ranges.name(&node.name);
        let Some(ranges) = weights.0.get(&name) else {
            return Err(WeightsError::Missing(name).into());
        };
        let source = network.source_name(network.sources(index)[0]);
        grids.insert(source.to_owned(), activation_grid(network, index, &ranges.values, bits)?);
    }
    Ok(grids)
}

/// The most bits that a layer with weights asks for of what it reads, by the index of the layer that gives it; the input is `None`.
fn read_at(
    network: &Network,
    bits: &BitwidthAssignment,
) -> Result<BTreeMap<Option<usize>, Bitwidth>, TrainError> {
    let nodes = network.nodes();
    let readers: Vec<usize> =
        (0..nodes.len()).filter(|&index| nodes[index].op.has_weights()).collect();
    if readers.len() != bits.len() {
        let (got, expected) = (bits.len(), readers.len());
        let reason = format!("{got} bitwidths of activations for {expected} layers with weights");
        return Err(TrainError::Calibration { reason });
    }
    let mut read = BTreeMap::new();
    for (index, &bits) in readers.into_iter().zip(bits.iter()) {
        let most = read.entry(network.unmoved(network.sources(index)[0])).or_insert(bits);
        *most = bits.max(*most);
    }
    Ok(read)
}

/// How often values occurred, over a range that doubles when a value is beyond it.
#[derive(Debug)]
struct Histogram {
    counts: Vec<u64>,
    /// The bins go from `-reach` to `reach`; a power of two, and 0 until there was a value other than 0.
    reach: f32,
    min: f32,
    max: f32,
    is_broken: bool,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BINS],
            reach: 0.0,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
            is_broken: false,
        }
    }
}

impl Histogram {
    fn add(&mut self, values: &[f32]) {
        let (mut min, mut max) = (self.min, self.max);
        for &value in values {
            if !value.is_finite() {
                self.is_broken = true;
                return;
            }
            (min, max) = (min.min(value), max.max(value));
        }
        (self.min, self.max) = (min, max);
        self.widen((-min).max(max));
        let half = BINS as f32 / 2.0;
        for &value in values {
            let place = if self.reach > 0.0 { value / self.reach * half + half } else { half };
            self.counts[(place as usize).min(BINS - 1)] += 1;
        }
    }

    /// Doubles the range until it has `value`: two bins become one.
    fn widen(&mut self, value: f32) {
        if value <= self.reach || value == 0.0 {
            return;
        }
        if self.reach == 0.0 {
            // Zeros alone have been counted, in the middle.
            self.reach = value.log2().ceil().exp2().clamp(f32::MIN_POSITIVE, f32::MAX);
            return;
        }
        while self.reach < value && self.reach < f32::MAX / 2.0 {
            let mut wide = vec![0; BINS];
            for (bin, count) in self.counts.iter().enumerate() {
                wide[BINS / 4 + bin / 2] += count;
            }
            self.counts = wide;
            self.reach *= 2.0;
        }
    }

    /// The share of the range whose grid of so many bits leaves the least squared error, in steps of [`CLIPS`].
    fn best_range(&self, bits: Bitwidth) -> Result<(f32, f32), TrainError> {
        let width = self.reach / (BINS as f32 / 2.0);
        let middle =
            |bin: usize| (width * (bin as f32 + 0.5) - self.reach).clamp(self.min, self.max);
        let values: Vec<f32> = (0..self.counts.len()).map(middle).collect();
        let mut best = (f64::INFINITY, (self.min, self.max));
        for clip in (1..=CLIPS).rev() {
            let share = clip as f32 / CLIPS as f32;
            let range = (self.min * share, self.max * share);
            let Ok(grid) = ActivationGrid::of_range(range.0, range.1, bits) else { continue };
            let error = self.squared_error(&values, &grid);
            if error < best.0 {
                best = (error, range);
            }
        }
        if best.0.is_infinite() {
            ActivationGrid::of_range(self.min, self.max, bits)?;
        }
        Ok(best.1)
    }

    /// Sum of the squared errors that a grid leaves of the `middles` of the bins.
    fn squared_error(&self, middles: &[f32], grid: &ActivationGrid) -> f64 {
        let mut rounded = middles.to_vec();
        grid.fake_quantize(&mut rounded);
        let errors =
            middles.iter().zip(&rounded).map(|(value, rounded)| f64::from(value - rounded));
        errors.zip(&self.counts).map(|(error, &count)| error * error * count as f64).sum()
    }

    fn range(&self, rule: RangeRule) -> (f32, f32) {
        let RangeRule::Percentile(percent) = rule else { return (self.min, self.max) };
        let total: u64 = self.counts.iter().sum();
        let beyond = ((1.0 - percent / 100.0) * total as f64) as u64;
        let width = self.reach / (BINS as f32 / 2.0);
        let low = -self.reach + width * first_within(self.counts.iter(), beyond) as f32;
        let high = self.reach - width * first_within(self.counts.iter().rev(), beyond) as f32;
        (low.max(self.min), high.min(self.max))
    }
}

/// The first bin with which more than `beyond` values have been passed.
fn first_within<'c>(mut counts: impl Iterator<Item = &'c u64>, beyond: u64) -> usize {
    let mut passed = 0;
    let is_within = |count: &u64| {
        passed += count;
        passed > beyond
    };
    counts.position(is_within).unwrap_or(0)
}

/// A network whose activations are rounded to grids in inference. It trains as the one that it has inside.
#[derive(Debug)]
pub struct RoundedActivations {
    trainer: NativeTrainer,
    input: ActivationGrid,
    /// By index of the layer.
    layers: Vec<Option<ActivationGrid>>,
}

impl RoundedActivations {
    /// Rounds the activations of `trainer` to these grids; layers that have none are left as they are.
    #[must_use]
    pub fn new(trainer: NativeTrainer, grids: &ActivationGrids) -> Self {
        let nodes = trainer.network().nodes().iter();
        let layers = nodes.map(|node| grids.layers.get(&node.name).copied()).collect();
        Self { trainer, input: grids.input, layers }
    }
}

impl Trainer for RoundedActivations {
    fn network(&self) -> &releq_core::Network {
        self.trainer.network()
    }

    fn set_bits(&mut self, bits: Option<&BitwidthAssignment>) -> Result<(), TrainError> {
        self.trainer.set_bits(bits)
    }

    fn train_step(&mut self, batch: &Batch<'_>, optimizer: Sgd) -> Result<f32, TrainError> {
        self.trainer.train_step(batch, optimizer)
    }

    fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, TrainError> {
        let Self { trainer, input, layers } = self;
        trainer.visited_logits(images, &mut |layer, values| match layer {
            None => input.fake_quantize(values),
            Some(layer) => {
                if let Some(grid) = &layers[layer] {
                    grid.fake_quantize(values);
                }
            }
        })
    }

    fn snapshot(&self) -> TrainerState {
        self.trainer.snapshot()
    }

    fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError> {
        self.trainer.restore(state)
    }

    fn load(&mut self, weights: &Weights) -> Result<(), TrainError> {
        self.trainer.load(weights)
    }

    fn weights(&self) -> Weights {
        self.trainer.weights()
    }
}

#[cfg(test)]
mod tests {
    use releq_core::{Conv2d, Network};
    use releq_data::ImageSet;
    use releq_quant::QuantizerKind;

    use super::*;
    use crate::initial_weights;

    fn network() -> Network {
        Network::builder("small", [1, 6, 6])
            .conv("conv", Conv2d::new(4, 3).padding(1).without_bias())
            .batch_norm("bn")
            .relu("relu")
            .max_pool("pool", 2, 2)
            .conv("other", Conv2d::new(4, 1))
            .add("sum", &["pool", "other"])
            .flatten("flatten")
            .linear("fc", 3)
            .build()
            .unwrap()
    }

    fn trainer() -> NativeTrainer {
        let mut trainer = NativeTrainer::new(&network(), QuantizerKind::Wrpn.build()).unwrap();
        trainer.load(&initial_weights(&network(), 3)).unwrap();
        trainer
    }

    fn images(count: usize, pixel: impl Fn(usize) -> u8) -> ImageSet {
        let pixels = (0..count * 36).map(pixel).collect();
        ImageSet::new("test", [1, 6, 6], 3, pixels, vec![0; count]).unwrap()
    }

    fn normalization() -> Normalization {
        Normalization::new(vec![0.5], vec![0.25]).unwrap()
    }

    #[test]
    fn ranges_are_those_of_what_is_read_and_moved_values_keep_theirs() {
        let mut trainer = trainer();
        let images = images(70, |place| (place * 37 % 251) as u8);
        let calibration = Calibration::of(&mut trainer, &images, &normalization()).unwrap();
        assert_eq!(calibration.images(), 70);
        let grids = calibration.grids(&trainer, RangeRule::MinMax, None).unwrap();
        let names: Vec<&str> = grids.layers.keys().map(String::as_str).collect();
        assert_eq!(names, ["flatten", "other", "pool", "relu", "sum"]);
        assert_eq!(grids.layers["pool"], grids.layers["relu"]);
        assert_eq!(grids.layers["flatten"], grids.layers["sum"]);
        assert_eq!(grids.layers["relu"].zero_point, 0);
        assert_ne!(grids.layers["other"].zero_point, 0);
        // By hand: pixels from 0 to 250, (x / 255 - 0.5) / 0.25.
        let input =
            ActivationGrid::of_range(-2.0, (250.0 / 255.0 - 0.5) / 0.25, Bitwidth::EIGHT).unwrap();
        assert!((grids.input.scale - input.scale).abs() < 1e-6);
        assert_eq!(grids.input.zero_point, input.zero_point);
    }

    #[test]
    fn ranges_leave_less_error_than_the_whole_one_and_grids_follow_from_them() {
        let network = network().with_fake_quantize().unwrap();
        let mut trainer = NativeTrainer::new(&network, QuantizerKind::Wrpn.build()).unwrap();
        let mut weights = initial_weights(&network, 3);
        trainer.load(&weights).unwrap();
        let images = images(70, |place| (place * 37 % 251) as u8);
        let calibration = Calibration::of(&mut trainer, &images, &normalization()).unwrap();
        calibration.find_ranges(&network, &mut weights).unwrap();
        weights.check(&network).unwrap();

        let rounds: Vec<usize> = (0..network.nodes().len())
            .filter(|&index| network.nodes()[index].op == Op::FakeQuantize)
            .collect();
        let mut seen: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        let all: Vec<usize> = (0..images.len()).collect();
        images.gather(&all, &normalization(), &mut pixels, &mut labels).unwrap();
        let mut visit = |layer: Option<usize>, values: &mut [f32]| {
            if let Some(layer) = layer.filter(|layer| rounds.contains(layer)) {
                seen.entry(layer).or_default().extend_from_slice(values);
            }
        };
        trainer.visited_logits(&pixels, &mut visit).unwrap();
        let error = |values: &[f32], range: &[f32], bits: Bitwidth| -> f64 {
            let grid = ActivationGrid::of_range(range[0], range[1], bits).unwrap();
            let mut rounded = values.to_vec();
            grid.fake_quantize(&mut rounded);
            let errors = values.iter().zip(&rounded).map(|(a, b)| f64::from(a - b).powi(2));
            errors.sum()
        };
        let mut clipped = 0;
        for (layer, values) in &seen {
            let name = ParameterRole::Ranges.name(&network.nodes()[*layer].name);
            let ranges = &weights.0[&name].values;
            let whole = values
                .iter()
                .fold([0f32; 2], |[min, max], &value| [min.min(value), max.max(value)]);
            for bits in 1..=8 {
                let range = &ranges[2 * (bits - 1)..2 * bits];
                let bits = Bitwidth::new(u8::try_from(bits).unwrap()).unwrap();
                let (found, all) = (error(values, range, bits), error(values, &whole, bits));
                // The bins are no finer than this.
                assert!(found <= 1.02 * all, "{name} at {bits} bits: {found}, {all}");
                clipped += usize::from(found < 0.9 * all);
            }
        }
        assert_eq!(seen.len(), 3);
        assert!(clipped >= 4, "{clipped} ranges leave clearly less error");

        let bits = BitwidthAssignment::from_bits([8, 4, 4, 3, 2, 4]).unwrap();
        let known = known_grids(&network, &weights, &bits).unwrap();
        let names: Vec<(&str, u8)> =
            known.iter().map(|(name, grid)| (name.as_str(), grid.bits.get())).collect();
        assert_eq!(names, [("input", 8), ("relu", 4), ("sum", 2)]);
        // Beside them, the others have 8 bits, and what moves values the grid of what it moves.
        let plain = network.without_fake_quantize().unwrap();
        let mut floats = weights.clone();
        floats.remove_ranges(&network);
        let mut trainer = NativeTrainer::new(&plain, QuantizerKind::Wrpn.build()).unwrap();
        trainer.load(&floats).unwrap();
        let calibration = Calibration::of(&mut trainer, &images, &normalization()).unwrap();
        let grids = calibration.grids_beside(&trainer, RangeRule::MinMax, None, &known).unwrap();
        assert_eq!(grids.layers["pool"], known["relu"]);
        assert_eq!(grids.layers["flatten"], known["sum"]);
        assert_eq!(grids.layers["other"].bits, Bitwidth::EIGHT);
        assert_eq!(grids.input, known["input"]);

        // What is computed with them is what the network with the rounding layers computes, but for the branch of 8 bits.
        let mut rounding = NativeTrainer::new(&network, QuantizerKind::Wrpn.build()).unwrap();
        rounding.load(&weights).unwrap();
        rounding.set_bits(Some(&bits)).unwrap();
        trainer.set_bits(Some(&network.weight_bits(&bits).unwrap())).unwrap();
        let expected = rounding.logits(&pixels).unwrap();
        let got = RoundedActivations::new(trainer, &grids).logits(&pixels).unwrap();
        let spread = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
        let apart: f32 = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).sum();
        assert!(apart / (got.len() as f32) < 0.05 * spread, "{apart} {spread}");
    }

    #[test]
    fn what_layers_read_has_the_bits_of_the_one_that_asks_for_most() {
        let network = Network::builder("branches", [1, 6, 6])
            .conv("conv", Conv2d::new(4, 3).padding(1))
            .relu("relu")
            .max_pool("pool", 2, 2)
            .conv("left", Conv2d::new(4, 1))
            .conv("right", Conv2d::new(4, 1))
            .from("pool")
            .add("sum", &["left", "right"])
            .flatten("flatten")
            .linear("fc", 3)
            .build()
            .unwrap();
        let mut trainer = NativeTrainer::new(&network, QuantizerKind::Wrpn.build()).unwrap();
        trainer.load(&initial_weights(&network, 3)).unwrap();
        let images = images(20, |place| (place * 37 % 251) as u8);
        let calibration = Calibration::of(&mut trainer, &images, &normalization()).unwrap();
        let grids = |bits: &[u8]| {
            let bits = BitwidthAssignment::from_bits(bits.to_vec()).unwrap();
            calibration.grids(&trainer, RangeRule::MinMax, Some(&bits))
        };
        let found = grids(&[5, 2, 4, 3]).unwrap();
        assert_eq!(found.input.bits.get(), 5);
        let bits = |layer: &str| found.layers[layer].bits.get();
        // Two layers read the pool, which has the values of the ReLU; nobody with weights reads what they give.
        assert_eq!(["relu", "pool", "sum", "flatten"].map(bits), [4, 4, 3, 3]);
        assert_eq!(["left", "right"].map(bits), [8, 8]);
        let eight = calibration.grids(&trainer, RangeRule::MinMax, None).unwrap();
        assert_eq!(eight, grids(&[8, 8, 8, 8]).unwrap());
        let refused = |bits: &[u8]| grids(bits).unwrap_err().to_string();
        assert!(refused(&[8]).contains("1 bitwidths of activations for 4 layers"));
        assert!(refused(&[9, 8, 8, 8]).contains("activations of 9 bits"));
    }

    #[test]
    fn rounded_activations_are_near_and_on_their_grids() {
        let mut trainer = trainer();
        let images = images(40, |place| (place * 53 % 256) as u8);
        let calibration = Calibration::of(&mut trainer, &images, &normalization()).unwrap();
        let grids = calibration.grids(&trainer, RangeRule::MinMax, None).unwrap();
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        let indices: Vec<usize> = (0..40).collect();
        images.gather(&indices, &normalization(), &mut pixels, &mut labels).unwrap();
        let exact = trainer.logits(&pixels).unwrap();
        let mut rounded = RoundedActivations::new(trainer, &grids);
        let logits = rounded.logits(&pixels).unwrap();
        let reach = exact.iter().fold(0.0f32, |reach, logit| reach.max(logit.abs()));
        let far = exact.iter().zip(&logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far > 0.0 && far < 0.05 * reach, "{far} of {reach}");
    }

    #[test]
    fn percentiles_leave_outliers_out_and_histograms_widen() {
        let mut histogram = Histogram::default();
        histogram.add(&[0.0; 10]);
        histogram.add(&(0..10_000).map(|index| index as f32 / 10_000.0).collect::<Vec<_>>());
        histogram.add(&[300.0, -5.0]);
        assert_eq!(histogram.range(RangeRule::MinMax), (-5.0, 300.0));
        assert_eq!(histogram.range(RangeRule::Percentile(100.0)), (-5.0, 300.0));
        let (low, high) = histogram.range(RangeRule::Percentile(99.9));
        let width = 512.0 / (BINS as f32 / 2.0);
        assert!(low >= -width && low <= 0.0, "{low}");
        assert!((high - 0.999).abs() <= width, "{high}");
        assert_eq!(histogram.counts.iter().sum::<u64>(), 10_012);
    }

    #[test]
    fn images_that_say_nothing_are_refused() {
        let of = |images: ImageSet| {
            Calibration::of(&mut trainer(), &images, &normalization()).unwrap_err().to_string()
        };
        assert!(of(images(20, |_| 7)).contains("every pixel of the 20 images is the same"));
        let mut broken = trainer();
        let mut weights = broken.weights();
        weights.0.get_mut("other.weight").unwrap().values[0] = 3e38;
        weights.0.get_mut("bn.weight").unwrap().values.fill(3e38);
        broken.load(&weights).unwrap();
        let images = images(3, |place| place as u8);
        let error = Calibration::of(&mut broken, &images, &normalization()).unwrap_err();
        assert!(error.to_string().contains("gives values that are not finite"), "{error}");
        let mut trainer = trainer();
        let calibration = Calibration::of(&mut trainer, &images, &normalization()).unwrap();
        for percent in [50.0, 100.1, f64::NAN] {
            let refused = calibration.grids(&trainer, RangeRule::Percentile(percent), None);
            assert!(refused.unwrap_err().to_string().contains("not above 50"));
        }
    }
}
