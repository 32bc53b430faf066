//! Pieces of the user's own, each under its name: an error or a panic of one of them says whose it is, wherever it
//! comes up.

use std::{error::Error, sync::Arc};

use releq_core::{
    Bitwidth, BitwidthAssignment, Cost, CostError, CostModel, LayerBits, LayerProfile, Network,
    Weights,
};
use releq_data::{DataError, Dataset, DatasetInfo, Label, Normalization, Splits};
use releq_quant::{LayerWeights, QuantError, Quantized, Quantizer};
use releq_reward::Reward;
use releq_train::{Batch, Moments, Sgd, TrainError, Trainer, TrainerFactory, TrainerState};

use super::pieces::AnySplits;
use crate::{
    ReleqError,
    evaluate::{Evaluation, Evaluator},
    guard::{blame, guard},
};

/// A piece under its name.
#[derive(Debug)]
pub(super) struct Named<P> {
    what: &'static str,
    name: String,
    piece: P,
}

impl<P> Named<P> {
    /// `what` is the seam that the piece fits, as in "quantizer".
    pub(super) fn new(what: &'static str, name: &str, piece: P) -> Self {
        Self { what, name: name.to_owned(), piece }
    }

    fn title(&self) -> String {
        format!("{} `{}`", self.what, self.name)
    }

    fn call<'s, T>(&'s self, f: impl FnOnce(&'s P) -> T) -> T {
        blame(|| self.title(), || f(&self.piece))
    }

    fn call_mut<T>(&mut self, f: impl FnOnce(&mut P) -> T) -> T {
        let Self { what, name, piece } = self;
        blame(|| format!("{what} `{name}`"), || f(piece))
    }

    /// The error of the piece's own, with the name before it.
    fn failed(&self, source: Box<dyn Error + Send + Sync>) -> Box<dyn Error + Send + Sync> {
        Box::new(ReleqError::Piece { piece: self.title(), source })
    }
}

/// Both sets under the name of the one to train on.
pub(super) fn named_data<D: Dataset + 'static>(data: Splits<D>) -> AnySplits {
    let Splits { train, test, source } = data;
    let name = train.name().to_owned();
    let named = |set| Arc::new(Named::new("data set", &name, set)) as Arc<dyn Dataset>;
    Splits { train: named(train), test: named(test), source }
}

impl<Q: Quantizer> Named<Q> {
    fn quantizing<T>(&self, f: impl FnOnce(&Q) -> Result<T, QuantError>) -> Result<T, QuantError> {
        self.call(f).map_err(|error| match error {
            QuantError::Other(source) => QuantError::Other(self.failed(source)),
            error => error,
        })
    }
}

impl<Q: Quantizer> Quantizer for Named<Q> {
    fn name(&self) -> &str {
        &self.name
    }

    fn supports(&self, bits: Bitwidth) -> bool {
        self.call(|quantizer| quantizer.supports(bits))
    }

    fn fake_quantize(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        out: &mut [f32],
    ) -> Result<(), QuantError> {
        self.quantizing(|quantizer| quantizer.fake_quantize(weights, bits, out))
    }

    fn clips(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
    ) -> Result<Option<Vec<f32>>, QuantError> {
        self.quantizing(|quantizer| quantizer.clips(weights, bits))
    }

    fn fake_quantize_within(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        clips: &[f32],
        out: &mut [f32],
    ) -> Result<(), QuantError> {
        self.quantizing(|quantizer| quantizer.fake_quantize_within(weights, bits, clips, out))
    }

    fn backward(
        &self,
        weights: LayerWeights<'_>,
        bits: Bitwidth,
        grad_out: &[f32],
        grad_in: &mut [f32],
    ) -> Result<(), QuantError> {
        self.quantizing(|quantizer| quantizer.backward(weights, bits, grad_out, grad_in))
    }

    fn quantize(&self, weights: LayerWeights<'_>, bits: Bitwidth) -> Result<Quantized, QuantError> {
        self.quantizing(|quantizer| quantizer.quantize(weights, bits))
    }
}

impl<R: Reward> Reward for Named<R> {
    fn name(&self) -> &str {
        &self.name
    }

    fn reward(&self, acc_state: f64, quant_state: f64) -> f64 {
        self.call(|reward| reward.reward(acc_state, quant_state))
    }

    fn over_limit(&self, acc_state: f64, quant_state: f64, excess: f64) -> f64 {
        self.call(|reward| reward.over_limit(acc_state, quant_state, excess))
    }
}

impl<M: CostModel> CostModel for Named<M> {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit(&self) -> &str {
        self.call(M::unit)
    }

    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        self.call(|model| model.layer_cost(layer, bits))
    }

    fn network_cost(&self, layers: &[LayerProfile], bits: &[LayerBits]) -> Result<Cost, CostError> {
        self.call(|model| model.network_cost(layers, bits))
    }

    fn searched_layers_only(&self) -> bool {
        self.call(M::searched_layers_only)
    }
}

impl<D: Dataset> Dataset for Named<D> {
    fn info(&self) -> DatasetInfo<'_> {
        self.call(D::info)
    }

    fn label(&self, index: usize) -> Option<Label> {
        self.call(|data| data.label(index))
    }

    fn read_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
        self.call(|data| data.read_image(index, pixels))
    }

    fn gather(
        &self,
        indices: &[usize],
        normalization: &Normalization,
        images: &mut Vec<f32>,
        labels: &mut Vec<Label>,
    ) -> Result<(), DataError> {
        self.call(|data| data.gather(indices, normalization, images, labels))
    }
}

impl<F: TrainerFactory> TrainerFactory for Named<F> {
    fn trainer(
        &self,
        network: &Network,
        quantizer: Arc<dyn Quantizer>,
    ) -> Result<Box<dyn Trainer>, TrainError> {
        let made = self.call(|factory| factory.trainer(network, quantizer));
        let trainer = made.map_err(|error| self.named(error))?;
        Ok(Box::new(Named::new(self.what, &self.name, trainer)))
    }
}

impl<P> Named<P> {
    fn named(&self, error: TrainError) -> TrainError {
        match error {
            TrainError::Other(source) => TrainError::Other(self.failed(source)),
            error => error,
        }
    }
}

impl Named<Box<dyn Trainer>> {
    fn train<T>(
        &mut self,
        f: impl FnOnce(&mut dyn Trainer) -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        self.call_mut(|trainer| f(trainer.as_mut())).map_err(|error| self.named(error))
    }
}

impl Trainer for Named<Box<dyn Trainer>> {
    fn network(&self) -> &Network {
        self.call(|trainer| trainer.network())
    }

    fn set_bits(&mut self, bits: Option<&BitwidthAssignment>) -> Result<(), TrainError> {
        self.train(|trainer| trainer.set_bits(bits))
    }

    fn train_step(&mut self, batch: &Batch<'_>, optimizer: Sgd) -> Result<f32, TrainError> {
        self.train(|trainer| trainer.train_step(batch, optimizer))
    }

    fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, TrainError> {
        self.train(|trainer| trainer.logits(images))
    }

    fn moments(
        &mut self,
        images: &[f32],
        restore: Option<&[Moments]>,
    ) -> Result<Vec<Moments>, TrainError> {
        self.train(|trainer| trainer.moments(images, restore))
    }

    fn snapshot(&self) -> TrainerState {
        self.call(|trainer| trainer.snapshot())
    }

    fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError> {
        self.train(|trainer| trainer.restore(state))
    }

    fn load(&mut self, weights: &Weights) -> Result<(), TrainError> {
        self.train(|trainer| trainer.load(weights))
    }

    fn weights(&self) -> Weights {
        self.call(|trainer| trainer.weights())
    }
}

impl<E: Evaluator> Evaluator for Named<E> {
    fn full_precision(&self) -> f64 {
        self.call(E::full_precision)
    }

    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        guard(|| self.title(), || self.piece.evaluate(bits))
    }

    fn evaluate_each(
        &self,
        batch: &[BitwidthAssignment],
        answered: &(dyn Fn(usize, &Evaluation) -> Result<(), ReleqError> + Sync),
    ) -> Result<Vec<Evaluation>, ReleqError> {
        guard(|| self.title(), || self.piece.evaluate_each(batch, answered))
    }

    fn name(&self) -> &str {
        &self.name
    }
}
