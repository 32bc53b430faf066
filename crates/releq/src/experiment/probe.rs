//! At which learning rate a network that nobody knows can be retrained.

use std::{fmt, ops::ControlFlow};

use releq_core::{Bitwidth, BitwidthAssignment, LayerKind};
use releq_train::{Length, Schedule, TrainerFactory as _, accuracy, train};

use super::{EXPERIMENT, Experiment, images::Images, pieces::Pieces};
use crate::{
    ReleqError,
    evaluate::{EVALUATION_BATCH, unless_diverged},
    guard::guard,
};

/// Shares of the configured rates that are tried, from the highest down.
///
/// A trained ResNet-20 at 3 bits learns at a rate of 0.01 with its batch norms (84 % after 120 steps), and at 0.0003 if an
/// exporter made them part of the convolutions (83.5 %); the latter collapses to chance at 0.01, and stays at 17 % at 0.002.
const SHARES: [f64; 3] = [1.0, 0.1, 0.03];
/// Steps of each trial.
const STEPS: usize = 40;
/// Held-out images that a trial is measured on, at most.
const IMAGES: usize = 1000;
/// The bitwidth at which rates are tried, or the nearest that may be chosen: few enough for the network to have to learn.
const BITS: u8 = 3;

/// What a network made of the rates that it was retrained at for a few steps.
#[derive(Clone, Debug, PartialEq)]
pub struct RateProbe {
    /// The bitwidth of its layers.
    pub bits: Bitwidth,
    /// Rates of the short retrain with the accuracies after it, from 0 to 1.
    pub tried: Vec<(f32, f64)>,
    /// The rate that was best.
    pub chosen: f32,
}

impl fmt::Display for RateProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "learning rate {}: after {STEPS} steps at {} bits, ", self.chosen, self.bits)?;
        for (index, (rate, accuracy)) in self.tried.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{:.1} % at {rate}", 100.0 * accuracy)?;
        }
        Ok(())
    }
}

impl Experiment {
    /// Tries the rates of the retrains, and shares of them, on weights that are given, and puts the best in the configuration.
    ///
    /// Networks differ by a factor of thirty in the rate that they can be retrained at, above all by whether their batch norms
    /// were made part of the convolutions. The same seed tries the same.
    ///
    /// # Errors
    /// [`ReleqError::Setting`] without weights; any other [`ReleqError`] if the inputs do not fit together.
    pub fn probe_rates(self) -> Result<(Self, RateProbe), ReleqError> {
        guard(|| EXPERIMENT.to_owned(), || self.probed())
    }

    fn probed(mut self) -> Result<(Self, RateProbe), ReleqError> {
        self.config.check()?;
        let config = &self.config;
        let Some(weights) = self.own.weights(config, &self.network)? else {
            let reason = "are needed to try learning rates on".to_owned();
            return Err(ReleqError::Setting { setting: "weights", reason });
        };
        let pieces = Pieces::new(config, &self.own)?;
        let images = Images::new(self.own.data(config)?, config)?;
        let validation = images.search_validation.take(IMAGES, config.seed)?;
        let distance = |bits: &&Bitwidth| bits.get().abs_diff(BITS);
        let bits = config.actions.iter().filter(|bits| !bits.is_float()).min_by_key(distance);
        let bits = bits.copied().unwrap_or(Bitwidth::FLOAT);
        let layers = self.network.profiles().into_iter().map(|layer| {
            // Their ranges are not known yet.
            if layer.kind == LayerKind::Activations {
                return Bitwidth::FLOAT;
            }
            let fixed = config.fixed_layers.iter().find(|(name, _)| *name == layer.name);
            fixed.map_or(bits, |&(_, bits)| bits)
        });
        let assignment = BitwidthAssignment::new(layers.collect())?;

        let mut trainer = pieces.trainers.trainer(&self.network, pieces.quantizer.clone())?;
        let rate = config.short_retrain.sgd.learning_rate;
        let mut tried: Vec<(f32, f64)> = Vec::with_capacity(SHARES.len());
        for share in SHARES {
            trainer.load(&weights)?;
            trainer.set_bits(Some(&assignment))?;
            let mut schedule = Schedule { length: Length::Steps(STEPS), ..config.short_retrain };
            schedule.sgd.learning_rate = part(rate, share);
            let mut go_on = |_| ControlFlow::Continue(());
            let trainer = trainer.as_mut();
            let (train_set, normalization) = (&images.train, &images.normalization);
            let seen = unless_diverged(|| {
                train(trainer, train_set, normalization, &schedule, config.seed, &mut go_on)?;
                Ok(accuracy(trainer, &validation, normalization, EVALUATION_BATCH)?.accuracy())
            })?;
            // A rate that is far too high: the next one is lower.
            tried.push((part(rate, share), seen.unwrap_or(0.0)));
        }
        // Of equals the highest, with which a retrain gets furthest.
        let best = tried.iter().zip(SHARES).rev().max_by(|((_, a), _), ((_, b), _)| a.total_cmp(b));
        let (chosen, share) = best.map_or((rate, 1.0), |(&(rate, _), share)| (rate, share));
        self.config.short_retrain.sgd.learning_rate = chosen;
        let long = &mut self.config.long_retrain.sgd.learning_rate;
        *long = part(*long, share);
        Ok((self, RateProbe { bits, tried, chosen }))
    }
}

/// A share of a rate, in three digits: settings are read by people.
fn part(rate: f32, share: f64) -> f32 {
    let exact = share * f64::from(rate);
    let digits = 10_f64.powf(3.0 - exact.log10().ceil());
    if digits.is_finite() { ((exact * digits).round() / digits) as f32 } else { exact as f32 }
}
