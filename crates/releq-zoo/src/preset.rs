//! Settings with which each network was trained and searched.

use std::ops::Range;

use releq_core::BitwidthAssignment;
use releq_data::Normalization;
use releq_quant::QuantizerKind;
use releq_train::{Length, Schedule, Sgd};
use serde::{Deserialize, Serialize};

use crate::published_bits;

/// Default settings for one network.
///
/// Retrains use batches of 256, momentum 0.9 and weight decay 1e-4 at a constant learning rate, as in the
/// authors' code. The authors' learning rate also drops at epochs 60 and 75, which count all training and so
/// depend on when a checkpoint was written; the drops are left out.
///
/// # Source
/// Unless marked otherwise, the scripts and models that the ReLeQ authors released (he-actlab/releq). Settings
/// marked "ours" are not in the authors' code and can be changed freely. Retrains are in epochs, with the
/// learning rate:
///
/// | network | quantizer | short retrain | long retrain | searched | normalization |
/// |---|---|---|---|---|---|
/// | `lenet` | DoReFa | 5 epochs, 0.001 | ours: 40 | all | MNIST's own mean and deviation |
/// | `simplenet` | WRPN | 10, 0.001 | 40, 0.001 | all | 0.5, found by evaluation |
/// | `svhn` | WRPN | 10, 0.001 | 50, 0.001 | all | 0.5, but see below |
/// | `svhn10` | as `svhn` | as `svhn` | as `svhn` | ours: all but the ends | as `svhn` |
/// | `vgg11` | WRPN | 10, 0.0001 | ours: 40 | all but the ends | as `simplenet`, which has the same loader |
/// | `vgg16`, `vgg16_3fc` | the paper's WRPN | ours: as `vgg11` | ours | ours: all but the ends | as `vgg11` |
/// | `resnet20` | DoReFa | 10, 0.001 | ours: 40 | all but the ends | as `simplenet`, which has the same loader |
/// | `resnet20_option_a` | as `resnet20` | as `resnet20` | ours: 40 | as `resnet20` | akamaster's checkpoint |
/// | `alexnet` | WRPN | 2, 0.001 | ours: 8 | all but the ends | ImageNet's |
/// | `mobilenet_v1` | WRPN | 1, 0.01 | ours: 4 | all | ImageNet's |
/// | `mobilenet_v1_tf` | as `mobilenet_v1` | as `mobilenet_v1` | ours: 4 | all | TensorFlow's: 0.5 |
///
/// With a normalization of 0.5, the authors' checkpoint of `simplenet` classifies 7,114 of the 10,000 CIFAR-10
/// test images (as JPEG of quality 75) correctly; with the other common normalizations, at most 6,562. The
/// authors' training transform for SVHN has a typing error that makes the third mean 0; here it is 0.5.
///
/// # Examples
///
/// ```
/// use releq_zoo::preset;
///
/// let preset = preset("vgg11").unwrap();
/// assert_eq!(preset.searched, 1..8);
/// assert_eq!(preset.published.unwrap().loss_points, 0.17);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Preset {
    /// Name of the data set.
    pub data: String,
    /// Normalization of the pixels.
    pub normalization: Normalization,
    /// The quantizer of the authors' code.
    pub quantizer: QuantizerKind,
    /// Indices of the quantizable layers that are searched; the others have 8 bits.
    pub searched: Range<usize>,
    /// Schedule of the retrain of every assignment that a search measures.
    pub short_retrain: Schedule,
    /// Schedule of the retrain of an assignment that was chosen.
    pub long_retrain: Schedule,
    /// Full-precision accuracy, from 0 to 1, that the authors' code sets as a constant.
    pub authors_full_precision: Option<f64>,
    /// The result of the paper.
    pub published: Option<Published>,
}

/// A result of the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Weight bitwidths; [`published_bits`] describes how the published lists map to layers.
    pub bits: BitwidthAssignment,
    /// Accuracy loss relative to full precision, in percentage points.
    pub loss_points: f64,
}

/// Returns the settings for the network with this name, one of [`NAMES`](crate::NAMES).
#[must_use]
pub fn preset(name: &str) -> Option<Preset> {
    use QuantizerKind::{Dorefa, Wrpn};
    // The rows of the table above: data, quantizer, searched layers, short retrain (epochs, learning rate), long
    // retrain (epochs), authors' full precision, loss in points.
    let (data, quantizer, searched, short, long, full_precision, loss_points) = match name {
        "lenet" => ("MNIST", Dorefa, 0..4, (5.0, 0.001), 40.0, Some(0.998), Some(0.00)),
        "simplenet" => ("CIFAR-10", Wrpn, 0..5, (10.0, 0.001), 40.0, Some(0.75), Some(0.30)),
        "svhn" => ("SVHN", Wrpn, 0..8, (10.0, 0.001), 50.0, Some(0.97), Some(0.00)),
        "svhn10" => ("SVHN", Wrpn, 1..9, (10.0, 0.001), 50.0, None, Some(0.00)),
        "vgg11" => ("CIFAR-10", Wrpn, 1..8, (10.0, 0.0001), 40.0, Some(0.96), Some(0.17)),
        "vgg16" => ("CIFAR-10", Wrpn, 1..13, (10.0, 0.0001), 40.0, None, None),
        "vgg16_3fc" => ("CIFAR-10", Wrpn, 1..15, (10.0, 0.0001), 40.0, None, Some(0.10)),
        "resnet20" => ("CIFAR-10", Dorefa, 1..21, (10.0, 0.001), 40.0, Some(0.93), Some(0.12)),
        "resnet20_option_a" => ("CIFAR-10", Dorefa, 1..19, (10.0, 0.001), 40.0, None, Some(0.12)),
        "alexnet" => ("ImageNet", Wrpn, 1..7, (2.0, 0.001), 8.0, Some(0.65), Some(0.08)),
        "mobilenet_v1" => ("ImageNet", Wrpn, 0..28, (1.0, 0.01), 4.0, Some(0.70), Some(0.26)),
        "mobilenet_v1_tf" => ("ImageNet", Wrpn, 0..28, (1.0, 0.01), 4.0, None, None),
        _ => return None,
    };
    let (epochs, learning_rate) = short;
    let schedule = |epochs| {
        let sgd = Sgd { learning_rate, momentum: 0.9, weight_decay: 1e-4 };
        Schedule::new(Length::Epochs(epochs), 256, sgd)
    };
    let (mean, std): (&[f32], &[f32]) = match (name, data) {
        (_, "MNIST") => (&[0.1307], &[0.3081]),
        // The published CIFAR-10 checkpoint was trained with the normalization of ImageNet.
        ("mobilenet_v1_tf", _) => (&[0.5; 3], &[0.5; 3]),
        ("resnet20_option_a", _) | (_, "ImageNet") => {
            (&[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225])
        }
        _ => (&[0.5; 3], &[0.5; 3]),
    };
    Some(Preset {
        data: data.to_owned(),
        normalization: Normalization { mean: mean.to_vec(), std: std.to_vec() },
        quantizer,
        searched,
        short_retrain: schedule(epochs),
        long_retrain: schedule(long),
        authors_full_precision: full_precision,
        published: published_bits(name)
            .zip(loss_points)
            .map(|(bits, loss_points)| Published { bits, loss_points }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NAMES, by_name};

    #[test]
    fn every_network_has_settings_that_fit_it() {
        for name in NAMES {
            let (network, preset) = (by_name(name).unwrap(), preset(name).unwrap());
            let channels = network.input()[0];
            let Normalization { mean, std } = &preset.normalization;
            assert_eq!((mean.len(), std.len()), (channels, channels), "{name}");
            assert!(preset.searched.end <= network.quantizable_layers(), "{name}");
            for schedule in [preset.short_retrain, preset.long_retrain] {
                schedule.check().unwrap();
            }
            assert!(preset.short_retrain.steps(1000) < preset.long_retrain.steps(1000), "{name}");
            assert_eq!(preset.published.is_some(), published_bits(name).is_some(), "{name}");
            // Layers that are not searched have 8 bits in the published lists.
            for (index, bits) in preset.published.iter().flat_map(|p| p.bits.iter().enumerate()) {
                assert!(preset.searched.contains(&index) || bits.get() == 8, "{name} {index}");
            }
            let json = serde_json::to_string(&preset).unwrap();
            assert_eq!(serde_json::from_str::<Preset>(&json).unwrap(), preset);
        }
        assert!(preset("vgg99").is_none());
    }
}
