//! The options that say how a search trains and what it holds out.

use std::num::NonZeroUsize;

use anyhow::Result;
use releq::{
    ExperimentConfig, HeldOut,
    data::Splits,
    train::{Length, Schedule},
};

use super::options;

/// How a search trains, and on which images it chooses.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Training")]
pub struct TrainingArgs {
    /// Fine-tune the weights in full precision for this many epochs first, with the settings of the long retrain
    #[arg(
        long,
        value_name = "EPOCHS",
        requires = "weights",
        value_parser = options::epochs,
        allow_hyphen_values = true
    )]
    pub fine_tune: Option<f64>,
    /// Number of passes over the training images in full precision, without weights to start from
    #[arg(
        long,
        value_name = "EPOCHS",
        conflicts_with = "weights",
        value_parser = options::epochs,
        allow_hyphen_values = true
    )]
    pub epochs: Option<f64>,
    /// Correct quantized weights in place of retraining them: means and variances of all layers are restored on training
    /// images, without gradients and without labels; images without labels are measured by their agreement with full
    /// precision. Weights are needed; the quantizer is wrpn-scaled-per-channel unless --quantizer says otherwise
    #[arg(
        long,
        conflicts_with_all = ["short_epochs", "long_epochs", "learning_rate", "batch_size", "no_distillation"]
    )]
    pub no_retraining: bool,
    /// Number of training images that corrections see [default: 256]
    #[arg(
        long,
        value_name = "N",
        requires = "no_retraining",
        value_parser = options::count,
        allow_negative_numbers = true
    )]
    pub correction_images: Option<NonZeroUsize>,
    /// Epochs of the short retrain, which every assignment gets during the search
    #[arg(
        long,
        value_name = "EPOCHS",
        value_parser = options::epochs,
        allow_hyphen_values = true
    )]
    pub short_epochs: Option<f64>,
    /// Let short retrains learn from the labels, not from the network in full precision
    #[arg(long)]
    pub no_distillation: bool,
    /// Number of held-out images that every layer is shown at every bitwidth before the search, which tells the search
    /// where bits matter; 0 leaves that out [default: 1000]
    #[arg(
        long,
        value_name = "N",
        value_parser = options::whole::<usize>,
        allow_negative_numbers = true
    )]
    pub sensitivity_images: Option<usize>,
    /// Epochs of the long retrain, which the best assignments get at the end
    #[arg(
        long,
        value_name = "EPOCHS",
        value_parser = options::epochs,
        allow_hyphen_values = true
    )]
    pub long_epochs: Option<f64>,
    /// Peak learning rate of both retrains
    #[arg(long, value_name = "RATE", value_parser = options::rate, allow_hyphen_values = true)]
    pub learning_rate: Option<f32>,
    /// Batch size of both retrains
    #[arg(long, value_name = "N", value_parser = options::count, allow_negative_numbers = true)]
    pub batch_size: Option<NonZeroUsize>,
    /// Shift training images randomly by up to this many pixels in both retrains
    #[arg(
        long,
        value_name = "PIXELS",
        value_parser = options::whole::<usize>,
        allow_negative_numbers = true
    )]
    pub shift: Option<usize>,
    /// Flip training images horizontally at random in both retrains
    #[arg(long)]
    pub mirror: bool,
    /// Number of held-out images, on which all decisions are made [default: 5000, or fewer for small data sets]
    #[arg(long, value_name = "N", value_parser = options::count, allow_negative_numbers = true)]
    pub held_out: Option<NonZeroUsize>,
    /// Hold out test images instead of training images, because published weights were trained on the latter; the
    /// report uses the remaining test images
    #[arg(long)]
    pub held_out_from_test: bool,
}

impl TrainingArgs {
    /// Puts the options over the settings of a search.
    ///
    /// # Errors
    /// If a schedule cannot work.
    pub fn configure(&self, config: &mut ExperimentConfig) -> Result<()> {
        for (schedule, epochs) in [
            (&mut config.short_retrain, self.short_epochs),
            (&mut config.long_retrain, self.long_epochs),
        ] {
            schedule.length = epochs.map_or(schedule.length, Length::Epochs);
            schedule.sgd.learning_rate = self.learning_rate.unwrap_or(schedule.sgd.learning_rate);
            schedule.batch_size = self.batch_size.map_or(schedule.batch_size, NonZeroUsize::get);
            let augmentation = &mut schedule.augmentation;
            augmentation.max_shift = self.shift.unwrap_or(augmentation.max_shift);
            augmentation.mirror |= self.mirror;
            schedule.check()?;
        }
        if let Some(epochs) = self.epochs {
            config.pretrain.length = Length::Epochs(epochs);
        }
        if let Some(epochs) = self.fine_tune {
            config.fine_tune =
                Some(Schedule { length: Length::Epochs(epochs), ..config.long_retrain });
        }
        for schedule in config.fine_tune.iter().chain([&config.pretrain]) {
            schedule.check()?;
        }
        if self.no_retraining {
            let correction = config.correction.get_or_insert_default();
            correction.images = self.correction_images.map_or(correction.images, NonZeroUsize::get);
        }
        config.distilled &= !self.no_distillation;
        config.sensitivity_images = self.sensitivity_images.unwrap_or(config.sensitivity_images);
        if self.held_out_from_test {
            config.held_out = HeldOut::Test;
        }
        Ok(())
    }

    /// Holds out as many images as the options say, or no more than small data sets can spare.
    pub fn hold_out(&self, config: &mut ExperimentConfig, data: &Splits) {
        let train = data.train.len();
        let most = match (config.held_out, config.correction) {
            (HeldOut::Training, None) => train / 5,
            // All but those that corrections are made on.
            (HeldOut::Training, Some(correction)) => train - correction.images.min(train / 2),
            (HeldOut::Test, _) => data.test.len() / 2,
        };
        config.validation =
            self.held_out.map_or(config.validation.min(most.max(1)), NonZeroUsize::get);
    }
}
