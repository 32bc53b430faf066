//! The options that say how pixels become numbers.

use anyhow::Result;
use releq::{core::Network, data::Normalization, zoo};

use super::{ImageArgs, UsageError, options, usage};

/// How the pixels of an image become the numbers that a network was trained on.
#[derive(clap::Args, Clone, Debug)]
pub struct NormalizationArgs {
    /// Mean of each channel, for pixels scaled to 0..1, such as 0.5,0.5,0.5 [default: the network's preset]
    #[arg(
        long,
        value_name = "MEAN",
        value_delimiter = ',',
        value_parser = options::mean,
        allow_hyphen_values = true,
        requires = "std"
    )]
    mean: Vec<f32>,
    /// Standard deviation of each channel [default: the network's preset]
    #[arg(
        long,
        value_name = "STD",
        value_delimiter = ',',
        value_parser = options::deviation,
        allow_hyphen_values = true,
        requires = "mean"
    )]
    std: Vec<f32>,
}

impl NormalizationArgs {
    /// Whether the options name one.
    #[must_use]
    pub const fn is_given(&self) -> bool {
        !self.mean.is_empty()
    }

    /// The normalization for the images of `network`: the one [`given`](Self::given), else that of its file, else that of
    /// its preset.
    ///
    /// # Errors
    /// As there, and [`UsageError`] where there is none.
    pub fn required(
        &self,
        network: &Network,
        images: &ImageArgs,
        of_file: Option<Normalization>,
    ) -> Result<Normalization> {
        let preset = || zoo::preset(network.name()).map(|preset| preset.normalization);
        self.given(network, images)?.or(of_file).or_else(preset).ok_or_else(|| {
            UsageError(format!(
                "--mean and --std, or --preprocess: say how images were normalized in the training of `{}`, such as \
                 --preprocess torchvision for torchvision's networks",
                network.name()
            ))
            .into()
        })
    }

    /// The normalization for the images of `network`, if the options name one, or else the one of the framework that
    /// `images` names.
    ///
    /// # Errors
    /// [`UsageError`] for more or fewer numbers than channels.
    pub fn given(&self, network: &Network, images: &ImageArgs) -> Result<Option<Normalization>> {
        match self.mean.as_slice() {
            [] => images.normalization(network),
            mean => usage(options::normalization(mean, &self.std, network)).map(Some),
        }
    }
}
