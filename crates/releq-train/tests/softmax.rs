//! A trainer written from nothing: softmax regression, trained by the same loop as every other.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use releq_core::{BitwidthAssignment, Network, Weights};
use releq_data::{Normalization, digits};
use releq_quant::{LayerWeights, Quantizer, WrpnScaled};
use releq_train::{
    Batch, Length, OptimizerState, Schedule, Sgd, Target, TrainError, Trainer, TrainerFactory,
    TrainerState, accuracy, check_trainer, initial_weights, train,
};

/// One linear layer without a bias, by plain gradient descent.
struct Softmax {
    network: Network,
    quantizer: Arc<dyn Quantizer>,
    state: TrainerState,
}

impl Softmax {
    fn used(&self) -> Result<Vec<f32>, TrainError> {
        let master = &self.state.weights.0["fc.weight"].values;
        let mut used = master.clone();
        if let Some(bits) = self.state.bits.as_ref().filter(|bits| !bits[0].is_float()) {
            let weights = LayerWeights::new(master, self.network.outputs())?;
            self.quantizer.fake_quantize(weights, bits[0], &mut used)?;
        }
        Ok(used)
    }
}

impl Trainer for Softmax {
    fn network(&self) -> &Network {
        &self.network
    }
    fn set_bits(&mut self, bits: Option<&BitwidthAssignment>) -> Result<(), TrainError> {
        self.state.bits = bits.cloned();
        Ok(())
    }
    fn train_step(&mut self, batch: &Batch<'_>, optimizer: Sgd) -> Result<f32, TrainError> {
        let count = batch.check(&self.network)?;
        let Target::Labels(labels) = batch.target else {
            return Err(TrainError::Other("only labels are learned from".into()));
        };
        let outputs = self.network.outputs();
        let (logits, pixels) = (self.logits(batch.images)?, batch.images.len() / count);
        let weights = &mut self.state.weights.0.get_mut("fc.weight").unwrap().values;
        let mut loss = 0.0;
        for (image, &label) in labels.iter().enumerate() {
            let logits = &logits[image * outputs..][..outputs];
            let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
            loss += sum.ln() - logits[usize::from(label)];
            for (output, row) in weights.chunks_exact_mut(pixels).enumerate() {
                let wanted = f32::from(u8::from(output == usize::from(label)));
                let rate = optimizer.learning_rate * (logits[output].exp() / sum - wanted);
                let image = &batch.images[image * pixels..][..pixels];
                row.iter_mut().zip(image).for_each(|(w, x)| *w -= rate * x / count as f32);
            }
        }
        Ok(loss / count as f32)
    }
    fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, TrainError> {
        let (used, pixels) = (self.used()?, self.network.input().iter().product());
        let dot = |row: &[f32], image: &[f32]| row.iter().zip(image).map(|(w, x)| w * x).sum();
        let rows = |image| used.chunks_exact(pixels).map(move |row| dot(row, image));
        Ok(images.chunks_exact(pixels).flat_map(rows).collect())
    }
    fn snapshot(&self) -> TrainerState {
        self.state.clone()
    }
    fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError> {
        state.check(&self.network, self.quantizer.name())?;
        self.state = state.clone();
        Ok(())
    }
}

#[test]
fn a_trainer_from_nothing_learns_and_is_quantized() {
    let network = Network::builder("softmax", [1, 28, 28])
        .flatten("flatten")
        .layer("fc", releq_core::Op::Linear { out_features: 10, bias: false }, &[])
        .build()
        .unwrap();
    let config = digits::DigitsConfig { train: 1500, test: 300, ..Default::default() };
    let data = digits::generate(&config).unwrap();
    let normalization = Normalization::measured(&data.train).unwrap();
    let quantizer: Arc<dyn Quantizer> = Arc::new(WrpnScaled::default());
    let state = TrainerState {
        weights: Weights::clone(&initial_weights(&network, 1)),
        optimizer: OptimizerState::start(&network),
        bits: None,
        quantizer: quantizer.name().to_owned(),
        // It finds them anew at every step.
        clips: BTreeMap::new(),
    };
    let mut trainer = Softmax { network, quantizer, state };
    let schedule = Schedule::new(
        Length::Steps(120),
        50,
        Sgd { learning_rate: 0.05, momentum: 0.0, weight_decay: 0.0 },
    );
    let mut go_on = |_| ControlFlow::Continue(());
    train(&mut trainer, &data.train, &normalization, &schedule, 1, &mut go_on).unwrap();
    let mut classified = |bits: Option<&str>| {
        let bits = bits.map(|bits| bits.parse().unwrap());
        trainer.set_bits(bits.as_ref()).unwrap();
        accuracy(&mut trainer, &data.test, &normalization, 100).unwrap().accuracy()
    };
    let (float, eight, one) = (classified(None), classified(Some("8")), classified(Some("1")));
    assert!(float > 0.6, "{float}");
    assert!((float - eight).abs() < 0.03 && one < float, "{float}, {eight}, {one}");
}

/// A trainer around another one that counts its steps, as the smallest useful trainer of one's own.
struct Counted(Box<dyn Trainer>, u64);

impl Trainer for Counted {
    fn network(&self) -> &Network {
        self.0.network()
    }
    fn set_bits(&mut self, bits: Option<&BitwidthAssignment>) -> Result<(), TrainError> {
        self.0.set_bits(bits)
    }
    fn train_step(&mut self, batch: &Batch<'_>, optimizer: Sgd) -> Result<f32, TrainError> {
        self.1 += 1;
        self.0.train_step(batch, optimizer)
    }
    fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, TrainError> {
        self.0.logits(images)
    }
    fn snapshot(&self) -> TrainerState {
        self.0.snapshot()
    }
    fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError> {
        self.0.restore(state)
    }
}

struct Counting;

impl TrainerFactory for Counting {
    fn trainer(
        &self,
        network: &Network,
        quantizer: Arc<dyn Quantizer>,
    ) -> Result<Box<dyn Trainer>, TrainError> {
        let inner = releq_train::Backend::Native.trainer(network, quantizer)?;
        Ok(Box::new(Counted(inner, 0)))
    }
}

#[test]
fn a_trainer_around_another_one_conforms() {
    check_trainer(&Counting);
}
