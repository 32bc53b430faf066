//! Packed networks with calibrated activations, as `releq export` writes them.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]
#![allow(clippy::missing_panics_doc, reason = "a test may fail loudly")]

use releq::{
    core::{BitwidthAssignment, Network, Weights},
    data::{
        Dataset, ImageSet, Normalization,
        digits::{self, DigitsConfig},
    },
    format::{QuantizedNetwork, packed::Packed},
    quant::QuantizerKind,
    train::{Batch, Calibration, NativeTrainer, RangeRule, Sgd, Trainer, initial_weights},
    zoo,
};

/// Quantizes weights as they are, and calibrates activations on images.
#[must_use]
pub fn packed(
    network: &Network,
    weights: Weights,
    bits: &str,
    images: &dyn Dataset,
    normalization: &Normalization,
) -> Packed {
    let bits: BitwidthAssignment = bits.parse().unwrap();
    let quantizer = QuantizerKind::WrpnScaledPerChannel.build();
    let model = QuantizedNetwork::new(network.clone(), weights, &bits, &*quantizer).unwrap();
    let mut trainer = trainer(&model);
    let calibration = Calibration::of(&mut trainer, images, normalization).unwrap();
    let activations = Some(calibration.grids(&trainer, RangeRule::MinMax, None).unwrap());
    Packed { activations, ..Packed::from(model) }
}

/// The network with its rounded weights, in single precision.
#[must_use]
pub fn trainer(model: &QuantizedNetwork) -> NativeTrainer {
    let mut trainer = NativeTrainer::new(model.network(), QuantizerKind::Wrpn.build()).unwrap();
    trainer.load(&model.dequantized()).unwrap();
    trainer
}

/// LeNet, trained for a moment on drawn digits, at 4 bits; and digits that it has not seen.
#[must_use]
pub fn packed_lenet() -> (Packed, ImageSet) {
    let network = zoo::by_name("lenet").unwrap();
    let config = DigitsConfig { train: 3_000, test: 2_000, ..DigitsConfig::default() };
    let drawn = digits::generate(&config).unwrap();
    let normalization = zoo::preset("lenet").unwrap().normalization;
    let mut trainer = NativeTrainer::new(&network, QuantizerKind::Wrpn.build()).unwrap();
    trainer.load(&initial_weights(&network, 1)).unwrap();
    let (mut x, mut labels) = (Vec::new(), Vec::new());
    let order: Vec<usize> = (0..3_000).collect();
    for batch in order.chunks(50) {
        drawn.train.gather(batch, &normalization, &mut x, &mut labels).unwrap();
        let sgd = Sgd { learning_rate: 0.01, momentum: 0.9, weight_decay: 0.0 };
        trainer.train_step(&Batch::labelled(&x, &labels), sgd).unwrap();
    }
    let calibration = drawn.train.take(300, 1);
    let packed = packed(&network, trainer.weights(), "4-4-4-4", &calibration, &normalization);
    (packed, drawn.test)
}
