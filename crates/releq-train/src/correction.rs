//! Corrections of quantized networks that need neither gradients nor labels.

use std::ops::ControlFlow;

use releq_core::{Network, Op, ParameterRole, Weights, layer_parameters};
use releq_data::{Dataset, Label, Normalization};
use serde::{Deserialize, Serialize};

use crate::{TrainError, Trainer, compare_while, logits_while, trainer::pixels_of, training};

/// Images that are seen at a time: what all layers give for so many has to fit in memory.
const BATCH: usize = 32;
/// A channel is scaled by no more than this.
const MOST_FACTOR: f32 = 4.0;
/// A channel of so many values is scaled half as its own variance asks, half as those of the whole layer do.
const VALUES: f32 = 1000.0;

/// What stands in for a retrain where there are no gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct Correction {
    /// Images whose mean outputs are restored. They need no labels. Fewer if there are not as many.
    pub images: usize,
}

releq_core::named_fields!(Correction);

impl Default for Correction {
    /// 256 images. A channel's mean error is the same from image to image, so that few tell it.
    fn default() -> Self {
        Self { images: 256 }
    }
}

/// Mean and variance of every channel over images and pixels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Means.
    pub mean: Vec<f32>,
    /// Biased variances.
    pub variance: Vec<f32>,
}

impl Moments {
    /// Of values that lie `[batch, channels, area]`.
    pub(crate) fn of(values: &[f32], channels: usize, area: usize) -> Self {
        let count = (values.len() / channels) as f64;
        let over = |channel: usize, of: &dyn Fn(f64) -> f64| {
            let planes = values.chunks_exact(area).skip(channel).step_by(channels);
            planes.flatten().map(|&value| of(f64::from(value))).sum::<f64>() / count
        };
        let mean: Vec<f64> = (0..channels).map(|channel| over(channel, &|value| value)).collect();
        let spread = |channel| over(channel, &|value| (value - mean[channel]).powi(2)) as f32;
        let variance = (0..channels).map(spread).collect();
        Self { mean: mean.into_iter().map(|mean| mean as f32).collect(), variance }
    }

    /// How far the means are above those of `target`.
    pub(crate) fn above(&self, target: &Self) -> Vec<f32> {
        self.mean.iter().zip(&target.mean).map(|(seen, target)| seen - target).collect()
    }

    /// What the distances of values from these means are multiplied by, so that their variance is that of `target`, as far as
    /// `values` of each channel tell: the fewer, the more all channels are alike. A hundred images say little of the
    /// scale of a single class, and classes that are scaled by chance are mistaken for each other.
    pub(crate) fn factors(&self, target: &Self, values: usize) -> Vec<f32> {
        // What hardly varies, in either network, says nothing of its scale.
        let known = |factor: f32| factor.is_finite() && factor > 0.0;
        let factor = |seen: f32, target: f32| {
            let factor = Some((target / seen).sqrt()).filter(|&factor| known(factor));
            factor.map(|factor| factor.clamp(1.0 / MOST_FACTOR, MOST_FACTOR))
        };
        let layer = factor(self.variance.iter().sum(), target.variance.iter().sum());
        let layer = layer.unwrap_or(1.0);
        let own = values as f32 / (values as f32 + VALUES);
        let pairs = self.variance.iter().zip(&target.variance);
        pairs
            .map(|(&seen, &target)| factor(seen, target).unwrap_or(layer))
            .map(|factor| layer * (factor / layer).powf(own))
            .collect()
    }

    /// Running mean and variance, moved as far as these moments are from those of `target`.
    pub(crate) fn moved(&self, target: &Self, [mean, variance]: [&[f32]; 2]) -> [Vec<f32>; 2] {
        let mean = mean.iter().zip(self.above(target)).map(|(mean, above)| mean + above);
        let ratios = self.variance.iter().zip(&target.variance);
        // A channel that never varies says nothing of its scale.
        let ratio = |(&seen, &target): (&f32, &f32)| if target > 0.0 { seen / target } else { 1.0 };
        let variance = variance.iter().zip(ratios.map(ratio)).map(|(old, ratio)| old * ratio);
        [mean.collect(), variance.collect()]
    }
}

/// Where a layer's [`Moments`] are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Observed {
    /// What a batch norm reads, which its statistics describe.
    Norm,
    /// What a scale and shift reads, which its bias shifts.
    ScaleShift,
    /// What a layer with a bias gives.
    Output,
}

/// Where the moments of layer `index` are taken, if they are.
pub(crate) fn observed(network: &Network, index: usize) -> Option<Observed> {
    let op = network.nodes()[index].op;
    let has_bias =
        || layer_parameters(network, index).iter().any(|(role, _)| *role == ParameterRole::Bias);
    match op {
        Op::BatchNorm { .. } => Some(Observed::Norm),
        Op::ScaleShift => Some(Observed::ScaleShift),
        _ if op.is_quantizable() && has_bias() => Some(Observed::Output),
        _ => None,
    }
}

/// All layers whose moments are taken, in order, with the number of their channels.
fn all_observed(network: &Network) -> impl Iterator<Item = (usize, Observed, usize)> {
    (0..network.nodes().len()).filter_map(|index| {
        let observed = observed(network, index)?;
        let shape = match observed {
            Observed::Output => network.shape(index),
            Observed::Norm | Observed::ScaleShift => network.input_shape(index),
        };
        Some((index, observed, shape.channels()))
    })
}

/// Checks what [`Trainer::moments`] is given; the number of images.
///
/// # Errors
/// [`TrainError::Batch`], [`TrainError::EmptyBatch`], or [`TrainError::Moments`] unless there are moments to restore for
/// every layer of `network` that is observed.
pub(crate) fn check_observed(
    network: &Network,
    images: &[f32],
    restore: Option<&[Moments]>,
) -> Result<usize, TrainError> {
    let count = images.len() / pixels_of(network, images)?;
    if count == 0 {
        return Err(TrainError::EmptyBatch);
    }
    restore.map_or(Ok(()), |moments| check_moments(network, moments))?;
    Ok(count)
}

fn check_moments(network: &Network, moments: &[Moments]) -> Result<(), TrainError> {
    let expected: Vec<usize> = all_observed(network).map(|(.., channels)| channels).collect();
    let fits = |(moments, &channels): (&Moments, &usize)| {
        moments.mean.len() == channels && moments.variance.len() == channels
    };
    if moments.len() == expected.len() && moments.iter().zip(&expected).all(fits) {
        return Ok(());
    }
    Err(TrainError::Moments { expected: expected.len(), got: moments.len() })
}

/// Restores what quantized weights did to the mean and the variance of what a network's layers give.
///
/// Rounding weights shifts and scales what each channel of a layer gives, and all layers after it see other inputs. Layer
/// after layer, each with those before it corrected, mean and variance are measured on images and brought back to what
/// they are in full precision: by the bias and the weights of a convolution or fully connected layer, whose scale then
/// follows if the quantizer has one for each channel; by the running statistics of a batch norm; by the bias of a scale and
/// shift, its mean alone. A layer without bias whose outputs nothing normalizes stays as it is.
///
/// A correction stays only if the outputs for the same images are nearer to those in full precision with it.
///
/// The statistics of batch norms are estimated anew, but only by how far they move: the images need no
/// augmentation, even if the network was trained under one, whose statistics are others
/// ([`Schedule::statistics_only`](crate::Schedule::statistics_only)). In a network whose convolutions have a norm each and
/// no bias, that is the whole of it but for the last layer.
///
/// # Source
/// Bias correction: Nagel, van Baalen, Blankevoort and Welling 2019 (arXiv 1906.04721), section 4.2 and appendix D,
/// on images. That restores means alone. A scale of least squares makes the weights of few bits smaller, and with them
/// the outputs, which changes no class until the means of large outputs are put into small ones: LeNet on drawn digits at 2
/// bits went from 95 % to 14 %. So the variance is ours, and that batches of images are corrected each by itself and the
/// mean of the corrections is taken, which bounds the memory; and what is done to norms, which the paper folds.
#[derive(Debug)]
pub struct Corrector<D> {
    data: D,
    normalization: Normalization,
    /// For every batch, what the observed layers show in full precision.
    targets: Vec<Vec<Moments>>,
    /// Outputs in full precision.
    reference: Vec<f32>,
}

impl<D: Dataset> Corrector<D> {
    /// Shows the images of `data` to `trainer`, which has the weights in full precision; its bitwidths are taken away.
    /// `go_on` is asked before every batch, `None` if it broke off.
    ///
    /// # Errors
    /// A normalization or images that do not fit, and [`TrainError::NoMoments`] for a trainer that cannot tell.
    pub fn new(
        trainer: &mut dyn Trainer,
        data: D,
        normalization: &Normalization,
        go_on: &dyn Fn() -> ControlFlow<()>,
    ) -> Result<Option<Self>, TrainError> {
        training::check_normalization(&data, normalization)?;
        training::check_images(&data, trainer.network())?;
        trainer.set_bits(None)?;
        let normalization = normalization.clone();
        let (targets, reference) = (Vec::new(), Vec::new());
        let corrector = Self { data, normalization, targets, reference };
        let mut targets = Vec::new();
        let done = corrector.batches(go_on, |_, images| {
            let seen = trainer.moments(images, None)?;
            check_moments(trainer.network(), &seen)?;
            targets.push(seen);
            Ok(())
        })?;
        let reference =
            logits_while(trainer, &corrector.data, &corrector.normalization, BATCH, go_on)?;
        Ok(reference.filter(|_| done).map(|reference| Self { targets, reference, ..corrector }))
    }

    /// Corrects the network of `trainer`, which has the weights in full precision, at the bitwidths that are set. The
    /// corrected weights replace those that were loaded, if they are better. `false` if `go_on` broke off; nothing is
    /// changed then.
    ///
    /// # Errors
    /// Weights that cannot be quantized, or an image that cannot be read.
    pub fn correct(
        &self,
        trainer: &mut dyn Trainer,
        go_on: &dyn Fn() -> ControlFlow<()>,
    ) -> Result<bool, TrainError> {
        let plain = trainer.weights();
        let Some(corrected) = self.restored(trainer, go_on)? else { return Ok(false) };
        let Some(before) = self.divergence(trainer, go_on)? else { return Ok(false) };
        trainer.load(&corrected)?;
        let after = self.divergence(trainer, go_on)?;
        if after.is_none_or(|after| after >= before) {
            trainer.load(&plain)?;
        }
        Ok(after.is_some())
    }

    /// How far the outputs of `trainer` are from those in full precision; `None` if `go_on` broke off.
    fn divergence(
        &self,
        trainer: &mut dyn Trainer,
        go_on: &dyn Fn() -> ControlFlow<()>,
    ) -> Result<Option<f64>, TrainError> {
        let Self { data, normalization, reference, .. } = self;
        let compared = compare_while(trainer, data, normalization, BATCH, reference, go_on)?;
        Ok(compared.map(|compared| compared.divergence.value))
    }

    /// The weights of `trainer` with every mean restored; `None` if `go_on` broke off.
    fn restored(
        &self,
        trainer: &mut dyn Trainer,
        go_on: &dyn Fn() -> ControlFlow<()>,
    ) -> Result<Option<Weights>, TrainError> {
        let places: Vec<_> = all_observed(trainer.network()).collect();
        let zeros = |channels: usize| [(); 2].map(|()| vec![[0.0; 2]; channels]);
        // Sums over all images: mean and variance, each as seen and in full precision.
        let mut sums: Vec<_> = places.iter().map(|&(.., channels)| zeros(channels)).collect();
        let mut count = 0.0;
        let done = self.batches(go_on, |batch, images| {
            let targets = &self.targets[batch];
            let seen = trainer.moments(images, Some(targets))?;
            check_moments(trainer.network(), &seen)?;
            let share = images.len() as f64;
            count += share;
            for (sums, (seen, target)) in sums.iter_mut().zip(seen.iter().zip(targets)) {
                let [means, variances] = sums;
                add(means, [&seen.mean, &target.mean], share);
                add(variances, [&seen.variance, &target.variance], share);
            }
            Ok(())
        })?;
        if !done {
            return Ok(None);
        }
        let mut weights = trainer.weights();
        for (&(index, observed, _), [means, variances]) in places.iter().zip(&sums) {
            let mean = |sums: &[[f64; 2]], of: usize| -> Vec<f32> {
                sums.iter().map(|sum| (sum[of] / count) as f32).collect()
            };
            let moments = |of| Moments { mean: mean(means, of), variance: mean(variances, of) };
            let name = trainer.network().nodes()[index].name.clone();
            let shape = trainer.network().shape(index);
            let values = self.data.len() * shape.len() / shape.channels();
            apply(&mut weights, &name, observed, &moments(0), &moments(1), values);
        }
        Ok(Some(weights))
    }

    /// Gives `see` the images of every batch; `false` if `go_on` broke off.
    fn batches(
        &self,
        go_on: &dyn Fn() -> ControlFlow<()>,
        mut see: impl FnMut(usize, &[f32]) -> Result<(), TrainError>,
    ) -> Result<bool, TrainError> {
        let indices: Vec<usize> = (0..self.data.len()).collect();
        let (mut images, mut labels): (Vec<f32>, Vec<Label>) = (Vec::new(), Vec::new());
        for (batch, indices) in indices.chunks(BATCH).enumerate() {
            if go_on().is_break() {
                return Ok(false);
            }
            self.data.gather(indices, &self.normalization, &mut images, &mut labels)?;
            see(batch, &images)?;
        }
        Ok(true)
    }
}

fn add(sums: &mut [[f64; 2]], values: [&[f32]; 2], share: f64) {
    for (sum, (seen, target)) in sums.iter_mut().zip(values[0].iter().zip(values[1])) {
        sum[0] += share * f64::from(*seen);
        sum[1] += share * f64::from(*target);
    }
}

/// Takes shift and scale out of the parameters of one layer, of which every channel had so many values.
fn apply(
    weights: &mut Weights,
    layer: &str,
    place: Observed,
    seen: &Moments,
    target: &Moments,
    values: usize,
) {
    let of = |role: ParameterRole| -> Vec<f32> {
        let parameter = weights.0.get(&role.name(layer));
        parameter.map(|parameter| parameter.values.clone()).unwrap_or_default()
    };
    let changed = match place {
        Observed::Norm => {
            let roles = [ParameterRole::RunningMean, ParameterRole::RunningVar];
            let [mean, variance] = roles.map(of);
            roles.into_iter().zip(seen.moved(target, [&mean, &variance])).collect()
        }
        Observed::ScaleShift => {
            let [scale, bias] = [ParameterRole::Weight, ParameterRole::Bias].map(of);
            vec![(ParameterRole::Bias, rescaled(&scale, &bias, &seen.above(target)))]
        }
        Observed::Output => {
            let [mut weight, mut bias] = [ParameterRole::Weight, ParameterRole::Bias].map(of);
            let inputs = weight.len() / bias.len().max(1);
            let means = seen.mean.iter().zip(&target.mean);
            let channels = weight.chunks_exact_mut(inputs.max(1)).zip(&mut bias);
            for ((weights, bias), (factor, (seen, target))) in
                channels.zip(seen.factors(target, values).iter().zip(means))
            {
                weights.iter_mut().for_each(|weight| *weight *= factor);
                *bias = (*bias - seen) * factor + target;
            }
            vec![(ParameterRole::Weight, weight), (ParameterRole::Bias, bias)]
        }
    };
    for (role, values) in changed {
        if let Some(parameter) = weights.0.get_mut(&role.name(layer)) {
            parameter.values = values;
        }
    }
}

/// The bias of a scale and shift whose inputs are so far above those in full precision.
pub(crate) fn rescaled(scale: &[f32], bias: &[f32], above: &[f32]) -> Vec<f32> {
    let products = scale.iter().zip(above).map(|(scale, above)| scale * above);
    bias.iter().zip(products).map(|(bias, product)| bias - product).collect()
}

#[cfg(test)]
mod tests {
    use releq_core::{Bitwidth, BitwidthAssignment, Node};
    use releq_data::ImageSet;
    use releq_quant::{Quantizer, QuantizerKind};

    use super::*;
    use crate::{
        Backend, NativeTrainer, TrainerFactory,
        oracle::{self, close, lenet, networks},
        reference,
        trainer::layer_weights,
    };

    fn noise(network: &Network, len: usize) -> (ImageSet, Normalization) {
        let input = network.input();
        let pixels = (0..len * input.iter().product::<usize>()).map(|i| (i * i * 31 % 251) as u8);
        let data = ImageSet::new("noise", input, 1, pixels.collect(), vec![0; len]).unwrap();
        let normalization = Normalization::measured(&data).unwrap();
        (data, normalization)
    }

    fn go_on() -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn bits(network: &Network, bits: u8) -> BitwidthAssignment {
        BitwidthAssignment::uniform(Bitwidth::new(bits).unwrap(), network.quantizable_layers())
            .unwrap()
    }

    /// What layer `last` gives, by the plain reference.
    fn outputs_of(network: &Network, last: usize, weights: &Weights, images: &[f32]) -> Vec<f32> {
        let nodes: Vec<Node> = network.nodes()[..=last].to_vec();
        let part = Network::new("part".into(), network.input(), nodes).unwrap();
        let (values, _) = reference::forward(&part, &reference::values(weights), images, None);
        values.into_iter().map(|value| value as f32).collect()
    }

    /// The weights with those of every quantizable layer rounded.
    fn rounded(network: &Network, weights: &Weights, quantizer: &dyn Quantizer) -> Weights {
        let mut rounded = weights.clone();
        for (index, node) in network.nodes().iter().enumerate() {
            if node.op.is_quantizable() {
                let name = ParameterRole::Weight.name(&node.name);
                let float = &weights.0[&name].values;
                let float = layer_weights(network, index, float).unwrap();
                let values = &mut rounded.0.get_mut(&name).unwrap().values;
                quantizer.fake_quantize(float, Bitwidth::new(3).unwrap(), values).unwrap();
            }
        }
        rounded
    }

    /// The slow, obvious way: the network up to each layer, again for each.
    fn naive(network: &Network, start: &Weights, quantizer: &dyn Quantizer, x: &[f32]) -> Weights {
        let mut corrected = start.clone();
        for (index, place, channels) in all_observed(network) {
            let (last, shape) = match place {
                Observed::Output => (index, network.shape(index)),
                _ => (network.sources(index)[0].unwrap(), network.input_shape(index)),
            };
            let moments = |weights: &Weights| {
                let values = outputs_of(network, last, weights, x);
                Moments::of(&values, channels, shape.len() / channels)
            };
            let (seen, target) =
                (moments(&rounded(network, &corrected, quantizer)), moments(start));
            let name = &network.nodes()[index].name;
            let images = x.len() / network.input().iter().product::<usize>();
            let values = images * shape.len() / channels;
            apply(&mut corrected, name, place, &seen, &target, values);
        }
        corrected
    }

    #[test]
    fn layer_after_layer_is_corrected_as_by_hand_on_both_trainers() {
        for network in networks() {
            // What scales with the weights of a channel, so that the pass and the weights agree.
            let quantizer = QuantizerKind::WrpnScaledPerChannel.build();
            let start = oracle::state(&network, 4);
            let (data, normalization) = noise(&network, 7);
            let (mut images, mut labels) = (Vec::new(), Vec::new());
            let all: Vec<usize> = (0..7).collect();
            data.gather(&all, &normalization, &mut images, &mut labels).unwrap();
            let expected = naive(&network, &start, &*quantizer, &images);
            for backend in [Backend::Native, Backend::Flex] {
                let mut trainer = backend.trainer(&network, quantizer.clone()).unwrap();
                trainer.load(&start).unwrap();
                let corrector = Corrector::new(&mut *trainer, &data, &normalization, &go_on);
                let corrector = corrector.unwrap().unwrap();
                trainer.set_bits(Some(&bits(&network, 3))).unwrap();
                let restored = corrector.restored(&mut *trainer, &go_on).unwrap().unwrap();
                let what = format!("network `{}`, {backend}", network.name());
                close(&restored, &expected, 2e-3, &what);
                let before = corrector.divergence(&mut *trainer, &go_on).unwrap().unwrap();
                assert!(corrector.correct(&mut *trainer, &go_on).unwrap());
                let after = corrector.divergence(&mut *trainer, &go_on).unwrap().unwrap();
                assert!(after <= before, "{what}: {after} after the correction, {before} before");
                let kept = [&start, &restored].contains(&&trainer.weights());
                assert!(kept, "{what}: either all of the correction or nothing");
                // In full precision there is nothing to correct.
                trainer.load(&start).unwrap();
                trainer.set_bits(None).unwrap();
                assert!(corrector.correct(&mut *trainer, &go_on).unwrap());
                close(&trainer.weights(), &start, 1e-6, &what);
            }
        }
    }

    #[test]
    fn a_network_without_norms_comes_nearer_to_full_precision() {
        let network = lenet();
        let quantizer = QuantizerKind::WrpnScaled.build();
        let mut trainer = NativeTrainer::new(&network, quantizer).unwrap();
        let start = oracle::state(&network, 9);
        trainer.load(&start).unwrap();
        let (data, normalization) = noise(&network, 70);
        let corrector = Corrector::new(&mut trainer, &data, &normalization, &go_on).unwrap();
        let corrector = corrector.unwrap();
        assert_eq!(corrector.targets.len(), 3, "70 images make three batches");
        let (images, _) = oracle::batch(&network, 40, 3);
        let float = trainer.logits(&images).unwrap();
        trainer.set_bits(Some(&bits(&network, 3))).unwrap();
        let distance =
            |logits: Vec<f32>| logits.iter().zip(&float).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        let before = distance(trainer.logits(&images).unwrap());
        assert!(corrector.correct(&mut trainer, &go_on).unwrap());
        // Other images, of another distribution, than it was corrected on.
        let after = distance(trainer.logits(&images).unwrap());
        assert!(after < 0.95 * before, "{after} after the correction, {before} before");
        assert!(trainer.weights().0.iter().all(|(name, corrected)| *corrected != start.0[name]));
    }

    #[test]
    fn what_is_broken_off_or_does_not_fit_changes_nothing() {
        let network = lenet();
        let mut trainer = NativeTrainer::new(&network, QuantizerKind::WrpnScaled.build()).unwrap();
        let (data, normalization) = noise(&network, 40);
        let stop = || ControlFlow::Break(());
        assert!(Corrector::new(&mut trainer, &data, &normalization, &stop).unwrap().is_none());
        let corrector =
            Corrector::new(&mut trainer, &data, &normalization, &go_on).unwrap().unwrap();
        trainer.set_bits(Some(&bits(&network, 2))).unwrap();
        let before = trainer.weights();
        assert!(!corrector.correct(&mut trainer, &stop).unwrap());
        assert_eq!(trainer.weights(), before);
        let other = Network::builder("other", [1, 28, 28]).conv2d("conv", 2, 3).flatten("flatten");
        let other = other.linear("fc", 10).build().unwrap();
        let mut other = NativeTrainer::new(&other, QuantizerKind::WrpnScaled.build()).unwrap();
        let refused = corrector.correct(&mut other, &go_on).unwrap_err().to_string();
        assert!(refused.contains("the network has 2 layers"), "{refused}");
        let gray = Normalization { mean: vec![0.5; 3], std: vec![0.5; 3] };
        let refused = Corrector::new(&mut trainer, &data, &gray, &go_on).unwrap_err();
        assert!(matches!(refused, TrainError::Normalization { channels: 1, .. }), "{refused}");
    }
}
