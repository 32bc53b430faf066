//! What every trainer must do.

use std::sync::Arc;

use releq_core::{BitwidthAssignment, Network, NetworkError, Weights};
use releq_data::Label;
use releq_quant::{Quantizer, QuantizerKind};

use crate::{Batch, Sgd, TrainError, Trainer, TrainerFactory, initial_weights};

const SGD: Sgd = Sgd { learning_rate: 0.05, momentum: 0.9, weight_decay: 0.0 };

/// Images of a batch, and their classes: the brightest quarter of an image.
fn batch(len: usize) -> (Vec<f32>, Vec<Label>) {
    let labels: Vec<Label> = (0..len).map(|index| (index % 4) as Label).collect();
    let mut images = Vec::with_capacity(len * 64);
    for (index, &label) in labels.iter().enumerate() {
        for position in 0..64 {
            let quarter = 2 * usize::from(position / 8 >= 4) + usize::from(position % 8 >= 4);
            let noise = ((index * 64 + position) * 2_654_435_761 % 997) as f32 / 997.0 - 0.5;
            images.push(noise + if quarter == usize::from(label) { 1.0 } else { 0.0 });
        }
    }
    (images, labels)
}

fn network() -> Result<Network, NetworkError> {
    Network::builder("check", [1, 8, 8])
        .conv2d("conv", 6, 3)
        .batch_norm("bn")
        .relu("relu")
        .max_pool("pool", 2, 2)
        .flatten("flatten")
        .linear("fc", 4)
        .build()
}

/// Checks the trainers of a factory on a small network: the same answers every time; a snapshot from which
/// another trainer continues exactly; bitwidths that change what the network computes, float layers that do
/// not, and master weights that stay in floating point; a loss that falls; settled weights that compute what the trained ones do; and batches, weights and bitwidths
/// that do not fit refused with nothing changed.
///
/// # Panics
/// If a trainer breaks a rule; the message says which.
pub fn check_trainer(factory: &dyn TrainerFactory) {
    let network = checked(network(), "the network of the suite");
    let quantizer = QuantizerKind::WrpnScaled.build();
    let make = || checked(factory.trainer(&network, Arc::clone(&quantizer)), "making a trainer");
    let start = initial_weights(&network, 3);
    check_bits(&mut *make(), &start, &*quantizer);
    check_moments(&mut *make(), &start);
    check_learning(&mut *make(), &start);
    check_snapshot(&make, &start);
    check_settled(&mut *make(), &start, &*quantizer);
    check_refusals(&mut *make(), &start);
}

fn checked<T, E: std::fmt::Display>(result: Result<T, E>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}

fn assignment(text: &str) -> BitwidthAssignment {
    checked(text.parse(), "an assignment of the suite")
}

fn step(trainer: &mut dyn Trainer, optimizer: Sgd) -> f32 {
    let (images, labels) = batch(16);
    checked(trainer.train_step(&Batch::labelled(&images, &labels), optimizer), "a step")
}

fn check_bits(trainer: &mut dyn Trainer, start: &Weights, quantizer: &dyn Quantizer) {
    let (images, _) = batch(8);
    let mut logits = |bits: Option<&str>| {
        checked(trainer.load(start), "loading weights");
        let bits = bits.map(assignment);
        checked(trainer.set_bits(bits.as_ref()), "setting bits");
        let logits = checked(trainer.logits(&images), "logits");
        assert_eq!(logits.len(), 8 * 4, "one logit for every image and output");
        assert_eq!(checked(trainer.logits(&images), "logits"), logits, "the same logits twice");
        assert_eq!(&trainer.weights(), start, "master weights stay in floating point");
        logits
    };
    let float = logits(None);
    assert_eq!(logits(Some("float-float")), float, "an assignment of float layers is none");
    let (first, both) = (logits(Some("2-float")), logits(Some("2-2")));
    assert_ne!(first, float, "{}: two bits in the first layer show", quantizer.name());
    assert_ne!(both, first, "{}: two bits in the last layer show", quantizer.name());
}

fn check_moments(trainer: &mut dyn Trainer, start: &Weights) {
    let (images, _) = batch(8);
    checked(trainer.load(start), "loading weights");
    checked(trainer.set_bits(None), "setting bits");
    let seen = match trainer.moments(&images, None) {
        // Corrections are not for everybody.
        Err(TrainError::NoMoments) => return,
        seen => checked(seen, "moments"),
    };
    let channels: Vec<usize> = seen.iter().map(|moments| moments.mean.len()).collect();
    assert_eq!(channels, [6, 6, 4], "the moments of the convolution, the norm and the last layer");
    checked(trainer.set_bits(Some(&assignment("2-2"))), "setting bits");
    let before = (trainer.snapshot(), checked(trainer.logits(&images), "logits"));
    let restored = checked(trainer.moments(&images, Some(&seen)), "restored moments");
    assert_ne!(restored, seen, "two bits show in the moments");
    let after = (trainer.snapshot(), checked(trainer.logits(&images), "logits"));
    assert_eq!(after, before, "moments change nothing");
    assert!(trainer.moments(&images, Some(&seen[1..])).is_err(), "moments of fewer layers");
    assert!(trainer.moments(&images[1..], None).is_err(), "an image that lacks a pixel");
    assert!(trainer.moments(&[], None).is_err(), "moments of no image");
}

fn check_learning(trainer: &mut dyn Trainer, start: &Weights) {
    for bits in [None, Some(assignment("4-4"))] {
        checked(trainer.load(start), "loading weights");
        checked(trainer.set_bits(bits.as_ref()), "setting bits");
        let first = step(trainer, SGD);
        let last = (0..30).map(|_| step(trainer, SGD)).fold(first, |_, loss| loss);
        assert!(last < 0.7 * first, "bits {bits:?}: the loss went from {first} to {last}");
    }
    checked(trainer.load(start), "loading weights");
    step(trainer, Sgd { learning_rate: 0.0, ..SGD });
    for (name, before) in &start.0 {
        if !name.contains("running_") {
            let after = &trainer.weights().0[name];
            assert_eq!(after, before, "`{name}` after a step of learning rate 0");
        }
    }
}

fn check_snapshot(make: &dyn Fn() -> Box<dyn Trainer>, start: &Weights) {
    let run = |stop: Option<usize>| {
        let mut trainer = make();
        checked(trainer.load(start), "loading weights");
        checked(trainer.set_bits(Some(&assignment("3-5"))), "setting bits");
        for taken in 0..6 {
            if stop == Some(taken) {
                let state = trainer.snapshot();
                trainer = make();
                checked(trainer.restore(&state), "restoring a snapshot");
                assert_eq!(trainer.snapshot(), state, "a snapshot of what was restored");
            }
            step(&mut *trainer, SGD);
        }
        trainer.snapshot()
    };
    let straight = run(None);
    assert_eq!(run(None), straight, "the same training twice");
    for stop in [0, 1, 5] {
        assert_eq!(run(Some(stop)), straight, "restored after {stop} steps");
    }
}

fn check_settled(trainer: &mut dyn Trainer, start: &Weights, quantizer: &dyn Quantizer) {
    let (images, _) = batch(8);
    let bits = assignment("2-4");
    checked(trainer.load(start), "loading weights");
    checked(trainer.set_bits(Some(&bits)), "setting bits");
    let first = checked(trainer.logits(&images), "logits");
    for _ in 0..5 {
        step(trainer, SGD);
    }
    let logits = checked(trainer.logits(&images), "logits");
    let network = trainer.network().clone();
    let settled = checked(trainer.snapshot().settled(&network, quantizer), "settled weights");
    checked(trainer.load(&settled), "loading weights");
    checked(trainer.set_bits(Some(&bits)), "setting bits");
    let again = checked(trainer.logits(&images), "logits");
    assert_eq!(again, logits, "settled weights give the logits of the trained ones");
    checked(trainer.load(start), "loading weights");
    let again = checked(trainer.logits(&images), "logits");
    assert_eq!(again, first, "weights that are loaded are not quantized within others' clips");
}

fn check_refusals(trainer: &mut dyn Trainer, start: &Weights) {
    checked(trainer.load(start), "loading weights");
    checked(trainer.set_bits(Some(&assignment("4-4"))), "setting bits");
    step(trainer, SGD);
    let before = trainer.snapshot();
    let (images, labels) = batch(4);
    let mut foreign = labels.clone();
    foreign[2] = 4;
    for (batch, what) in [
        (Batch::labelled(&images[1..], &labels), "an image that lacks a pixel"),
        (Batch::labelled(&images, &labels[1..]), "an image without a label"),
        (Batch::labelled(&[], &[]), "an empty batch"),
        (Batch::labelled(&images, &foreign), "a label without an output"),
        (Batch::taught(&images, &[0.0; 15]), "a teacher that lacks a logit"),
        (Batch::taught(&images, &[f32::NAN; 16]), "a teacher of NaN"),
    ] {
        assert!(trainer.train_step(&batch, SGD).is_err(), "{what}");
    }
    assert!(trainer.logits(&images[1..]).is_err(), "logits of an image that lacks a pixel");
    assert!(trainer.set_bits(Some(&assignment("4-4-4"))).is_err(), "bits of a third layer");
    assert!(trainer.set_bits(Some(&assignment("4-32"))).is_err(), "bits that nothing quantizes to");
    let mut broken = start.clone();
    broken.0.remove("fc.bias");
    assert!(trainer.load(&broken).is_err(), "weights that lack a parameter");
    let mut state = before.clone();
    state.optimizer.velocity.0.remove("fc.bias");
    assert!(trainer.restore(&state).is_err(), "a state that lacks a velocity");
    let state = crate::TrainerState { quantizer: "nobody's".into(), ..before.clone() };
    assert!(trainer.restore(&state).is_err(), "a state of another quantizer");
    if !before.clips.is_empty() {
        for (layer, clips) in [("conv", vec![1.0; 2]), ("conv", vec![f32::NAN]), ("bn", vec![1.0])]
        {
            let mut state = before.clone();
            state.clips.insert(layer.to_owned(), clips);
            assert!(trainer.restore(&state).is_err(), "clips that do not fit");
        }
    }
    assert_eq!(trainer.snapshot(), before, "a refusal changes nothing");
}

#[cfg(test)]
mod tests {
    use releq_kernels::{FloatPrecision, Isa};

    use super::*;
    use crate::{Backend, NativeTrainer, trainer_fn};

    #[test]
    fn our_trainers_conform() {
        check_trainer(&Backend::Native);
        check_trainer(&Backend::Flex);
        for isa in Isa::available().filter(|&isa| FloatPrecision::Bf16.check(isa).is_ok()) {
            check_trainer(&trainer_fn(|network, quantizer| {
                let precision = FloatPrecision::Bf16;
                Ok(Box::new(NativeTrainer::with_precision(network, quantizer, isa, precision)?))
            }));
        }
        check_trainer(&Box::new(Backend::Native));
    }
}
