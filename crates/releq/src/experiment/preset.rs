//! Settings for the networks of the zoo.

use releq_core::Bitwidth;
use releq_data::Augmentation;
use releq_train::{Decay, Length, Schedule, Sgd};

use super::{DataConfig, ExperimentConfig};
use crate::Budget;

impl ExperimentConfig {
    /// Settings for a network of the zoo, one of [`releq_zoo::NAMES`]; `None` for another name.
    ///
    /// For `lenet` they are [`lenet`](Self::lenet)'s, with the normalization of published weights. For the
    /// others, what [`releq_zoo::preset`] knows of the authors' code: quantizer, normalization, which layers
    /// are searched (the rest has 8 bits), length, batch and learning rate of the retrains. Ours are the
    /// rest: the rate falls along a cosine,
    /// full-precision training runs for 30 epochs on images shifted by up to an eighth of their side (for
    /// CIFAR-10 also mirrored: He et al. 2015, section 4.2), every held-out image counts, and the search
    /// ends after 300 evaluations. Where there is a published assignment, it stands
    /// [`beside`](Self::beside) what is found.
    #[must_use]
    pub fn preset(name: &str, seed: u64) -> Option<Self> {
        let (preset, network) = releq_zoo::preset(name).zip(releq_zoo::by_name(name).ok())?;
        let lenet = Self::lenet(seed);
        let published = preset.published.map(|published| ("published".to_owned(), published.bits));
        let beside = published.into_iter().collect();
        if name == "lenet" {
            return Some(Self { beside, normalization: Some(preset.normalization), ..lenet });
        }
        let cosine = |schedule| Schedule { decay: Decay::Cosine, ..schedule };
        let layers = network.profiles().into_iter().enumerate();
        let fixed = layers.filter(|(index, _)| !preset.searched.contains(index));
        let sgd = Sgd { learning_rate: 0.02, momentum: 0.9, weight_decay: 5e-4 };
        Some(Self {
            quantizer: preset.quantizer.into(),
            fixed_layers: fixed.map(|(_, layer)| (layer.name, Bitwidth::EIGHT)).collect(),
            normalization: Some(preset.normalization),
            pretrain: Schedule {
                warmup_steps: 200,
                augmentation: Augmentation {
                    max_shift: network.input()[1] / 8,
                    mirror: preset.data != "SVHN",
                },
                ..cosine(Schedule::new(Length::Epochs(30.0), 64, sgd))
            },
            // Networks that err more often need more images for the same precision.
            search_validation: lenet.validation,
            short_retrain: cosine(preset.short_retrain),
            long_retrain: cosine(preset.long_retrain),
            budget: Budget { evaluations: Some(300), ..lenet.budget },
            beside,
            ..lenet
        })
    }

    /// The same with this data set, so that a report's configuration says where the images came from.
    #[must_use]
    pub fn with_data(self, data: DataConfig) -> Self {
        Self { data: Some(data.into()), ..self }
    }
}
