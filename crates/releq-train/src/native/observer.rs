//! Looks at what passes between the layers of the native trainer, and corrects it.

use releq_core::Network;
use releq_kernels::{BatchMoments, FloatNorm, Isa};

use super::layer::{Parameters, pixels};
use crate::{
    Moments, TrainError,
    correction::{Observed, observed, rescaled},
};

/// What a pass is watched by, layer after layer in the order of the network.
pub(super) struct Observer<'a> {
    isa: Isa,
    targets: Option<&'a [Moments]>,
    pub(super) seen: Vec<Moments>,
}

/// Parameters as they were before a correction.
pub(super) struct Kept {
    running: [Vec<f32>; 2],
    bias: Option<Vec<f32>>,
}

impl Kept {
    pub(super) fn put_back(self, parameters: &mut Parameters) {
        parameters.running = self.running;
        if let (Some(bias), Some(kept)) = (&mut parameters.bias, self.bias) {
            bias.values = kept;
        }
    }
}

impl<'a> Observer<'a> {
    pub(super) const fn new(isa: Isa, targets: Option<&'a [Moments]>) -> Self {
        Self { isa, targets, seen: Vec::new() }
    }

    /// Notes the moments of `x`; gives them with those that they should have.
    fn note(
        &mut self,
        network: &Network,
        node: usize,
        channels: usize,
        x: &[f32],
    ) -> Result<Option<(&Moments, &Moments)>, TrainError> {
        let unsupported = |error: releq_kernels::KernelError| TrainError::Unsupported {
            layer: network.nodes()[node].name.clone(),
            trainer: "native",
            what: format!("the moments of it: {error}"),
        };
        let mut seen = BatchMoments::default();
        FloatNorm::new(channels, self.isa).map_err(unsupported)?.moments(x, &mut seen);
        let place = self.seen.len();
        self.seen.push(Moments { mean: seen.mean, variance: seen.variance });
        Ok(self.targets.map(|targets| (&self.seen[place], &targets[place])))
    }

    /// Looks at what a layer reads, and corrects its parameters for this pass; gives them as they were.
    pub(super) fn before(
        &mut self,
        network: &Network,
        node: usize,
        x: &[f32],
        parameters: &mut Parameters,
    ) -> Result<Option<Kept>, TrainError> {
        let place = match observed(network, node) {
            Some(place @ (Observed::Norm | Observed::ScaleShift)) => place,
            _ => return Ok(None),
        };
        let (channels, _) = pixels(network.input_shape(node));
        let Some((seen, target)) = self.note(network, node, channels, x)? else { return Ok(None) };
        let bias = parameters.bias.as_ref().map(|bias| bias.values.clone());
        let kept = Kept { running: parameters.running.clone(), bias };
        if place == Observed::Norm {
            let [mean, variance] = &parameters.running;
            parameters.running = seen.moved(target, [mean, variance]);
        } else if let (Some(scale), Some(bias)) = (&parameters.weight, &mut parameters.bias) {
            bias.values = rescaled(&scale.values, &bias.values, &seen.above(target));
        }
        Ok(Some(kept))
    }

    /// Looks at what a layer gives, and corrects it.
    pub(super) fn after(
        &mut self,
        network: &Network,
        node: usize,
        out: &mut [f32],
    ) -> Result<(), TrainError> {
        if observed(network, node) != Some(Observed::Output) {
            return Ok(());
        }
        let (channels, _) = pixels(network.shape(node));
        if let Some((seen, target)) = self.note(network, node, channels, out)? {
            let factors = seen.factors(target, out.len() / channels);
            for pixel in out.chunks_exact_mut(channels) {
                let means = seen.mean.iter().zip(&target.mean);
                for (value, (factor, (seen, target))) in
                    pixel.iter_mut().zip(factors.iter().zip(means))
                {
                    *value = (*value - seen) * factor + target;
                }
            }
        }
        Ok(())
    }
}
