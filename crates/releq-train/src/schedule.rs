//! How long to train, and at which learning rate.

use releq_data::{Augmentation, Dataset, DatasetInfo};
use serde::{Deserialize, Serialize};

use crate::{Sgd, TrainError};

/// Most epochs of a schedule; more are a slip of the keyboard, and their steps would not fit their number.
pub const MOST_EPOCHS: f64 = 1e6;

/// How long to train.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Length {
    /// Passes over the data; fractions are allowed, and the last step is rounded up.
    Epochs(f64),
    /// Batches.
    Steps(usize),
}

/// What happens to the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Decay {
    /// Nothing.
    Constant,
    /// It falls in a straight line to zero at the end.
    Linear,
    /// It falls to zero along half a cosine (Loshchilov and Hutter, 2017, without restarts).
    Cosine,
    /// It is multiplied by `factor` after every `every` steps.
    Step {
        /// Steps between two changes.
        every: usize,
        /// What it is multiplied by.
        factor: f32,
    },
}

/// How to train.
///
/// Batches run across the borders of epochs, so that all have the same size. Every epoch visits
/// every image once, in an order of its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// How long.
    pub length: Length,
    /// Images in one step.
    pub batch_size: usize,
    /// The optimizer; its learning rate is the largest of the schedule.
    pub sgd: Sgd,
    /// What happens to the learning rate.
    pub decay: Decay,
    /// Steps in which the learning rate rises in a straight line to its largest value.
    #[serde(default)]
    pub warmup_steps: usize,
    /// How images are changed at random.
    #[serde(default)]
    pub augmentation: Augmentation,
}

impl Schedule {
    /// A constant learning rate, no warm-up, no augmentation.
    #[must_use]
    pub const fn new(length: Length, batch_size: usize, sgd: Sgd) -> Self {
        let augmentation = Augmentation { max_shift: 0, mirror: false };
        Self { length, batch_size, sgd, decay: Decay::Constant, warmup_steps: 0, augmentation }
    }

    /// Steps that leave the weights alone: batch norm estimates its statistics anew, as it may need to where
    /// weights are quantized without a retrain.
    ///
    /// Set the [`augmentation`](Self::augmentation) under which the network was trained: images that are not
    /// shifted and mirrored have other statistics, which cost `resnet20_option_a` 1.7 points in full precision.
    ///
    /// A running statistic keeps the share `(1 - momentum)^steps` of its old value: with the usual momentum of
    /// 0.1, after 50 steps half a percent.
    #[must_use]
    pub const fn statistics_only(steps: usize, batch_size: usize) -> Self {
        let sgd = Sgd { learning_rate: 0.0, momentum: 0.0, weight_decay: 0.0 };
        Self::new(Length::Steps(steps), batch_size, sgd)
    }

    /// Number of steps on a set of `images` images.
    #[must_use]
    pub fn steps(&self, images: usize) -> usize {
        match self.length {
            Length::Steps(steps) => steps,
            Length::Epochs(epochs) => {
                (epochs * images as f64 / self.batch_size.max(1) as f64).ceil() as usize
            }
        }
    }

    /// Learning rate of step `step` of `steps`, counted from zero.
    #[must_use]
    pub fn learning_rate(&self, step: usize, steps: usize) -> f32 {
        let largest = self.sgd.learning_rate;
        if step < self.warmup_steps {
            return largest * (step + 1) as f32 / self.warmup_steps as f32;
        }
        let after = step - self.warmup_steps;
        let progress = after as f64 / steps.saturating_sub(self.warmup_steps).max(1) as f64;
        match self.decay {
            Decay::Constant => largest,
            Decay::Linear => largest * (1.0 - progress) as f32,
            Decay::Cosine => {
                largest * (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())) as f32
            }
            Decay::Step { every, factor } => {
                let changes = i32::try_from(after / every.max(1)).unwrap_or(i32::MAX);
                largest * factor.powi(changes)
            }
        }
    }

    /// Refuses a batch larger than `data`, which could only be filled by showing images twice.
    ///
    /// # Errors
    /// [`TrainError::BatchTooLarge`].
    pub fn check_images(&self, data: &dyn Dataset) -> Result<(), TrainError> {
        let DatasetInfo { name, len, .. } = data.info();
        if self.batch_size <= len {
            return Ok(());
        }
        let (batch_size, data) = (self.batch_size, name.to_owned());
        Err(TrainError::BatchTooLarge { batch_size, data, images: len })
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`TrainError::Schedule`], naming the first field that is out of its range.
    pub fn check(&self) -> Result<(), TrainError> {
        let check = |ok: bool, field, allowed, got: f64| {
            if ok { Ok(()) } else { Err(TrainError::Schedule { field, allowed, got }) }
        };
        if let Length::Epochs(epochs) = self.length {
            let ok = (0.0..=MOST_EPOCHS).contains(&epochs);
            check(ok, "length.epochs", "from 0 to a million", epochs)?;
        }
        check(self.batch_size > 0, "batch_size", "positive", 0.0)?;
        for (field, value) in [
            ("sgd.learning_rate", self.sgd.learning_rate),
            ("sgd.momentum", self.sgd.momentum),
            ("sgd.weight_decay", self.sgd.weight_decay),
        ] {
            check(
                value >= 0.0 && value.is_finite(),
                field,
                "finite and not negative",
                value.into(),
            )?;
        }
        // Of 1 and more, no step would ever wear off.
        let momentum = self.sgd.momentum;
        check(momentum < 1.0, "sgd.momentum", "below 1", momentum.into())?;
        if let Decay::Step { every, factor } = self.decay {
            check(every > 0, "decay.step.every", "positive", 0.0)?;
            let ok = factor >= 0.0 && factor.is_finite();
            check(ok, "decay.step.factor", "finite and not negative", factor.into())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rates_follow_the_schedule() {
        let check = |decay, warmup_steps, expected: &[f32]| {
            let sgd = Sgd { learning_rate: 1.0, momentum: 0.9, weight_decay: 0.0 };
            let schedule =
                Schedule { decay, warmup_steps, ..Schedule::new(Length::Steps(4), 1, sgd) };
            let got: Vec<f32> = (0..4).map(|step| schedule.learning_rate(step, 4)).collect();
            let close = got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-6);
            assert!(close, "{decay:?}: {got:?}, expected {expected:?}");
        };
        check(Decay::Constant, 0, &[1.0; 4]);
        check(Decay::Constant, 2, &[0.5, 1.0, 1.0, 1.0]);
        check(Decay::Linear, 0, &[1.0, 0.75, 0.5, 0.25]);
        check(Decay::Cosine, 2, &[0.5, 1.0, 1.0, 0.5]);
        check(Decay::Step { every: 2, factor: 0.1 }, 0, &[1.0, 1.0, 0.1, 0.1]);
    }
}
