//! Retraining as an evaluator.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::{num::NonZeroUsize, sync::Arc};

use releq::{
    Cancel,
    data::{Dataset, Normalization, Subset, digits},
    evaluate::{EarlyStop, Evaluator, Retrain, RetrainSetup, check_evaluator},
    quant::{Quantizer, Wrpn},
    train::{Backend, Length, Schedule, Sgd, Trainer, TrainerFactory, initial_weights, train},
    zoo::lenet,
};

#[test]
fn retraining_conforms_and_float_layers_stay_as_they_are() {
    let network = lenet();
    let config = digits::DigitsConfig { train: 600, test: 100, ..Default::default() };
    let data = digits::generate(&config).unwrap();
    let normalization = Normalization::measured(&data.train).unwrap();
    let quantizer: Arc<dyn Quantizer> = Arc::new(Wrpn);
    let sgd = Sgd { learning_rate: 0.03, momentum: 0.9, weight_decay: 0.0 };
    let schedule = |steps| Schedule::new(Length::Steps(steps), 32, sgd);
    let mut trainer = Backend::Native.trainer(&network, Arc::clone(&quantizer)).unwrap();
    trainer.load(&initial_weights(&network, 1)).unwrap();
    let mut go_on = |_| std::ops::ControlFlow::Continue(());
    train(trainer.as_mut(), &data.train, &normalization, &schedule(60), 1, &mut go_on).unwrap();
    let weights = trainer.weights();

    let validation = Subset::all(&data.test as &dyn Dataset);
    let setup = RetrainSetup {
        network: &network,
        weights: &weights,
        train: &data.train,
        validation: &validation,
        normalization: &normalization,
        quantizer: &quantizer,
        trainers: &Backend::Native,
        threads: NonZeroUsize::new(2).unwrap(),
        seed: 3,
        cancel: &Cancel::new(),
    };
    let all = ["2-2-2-2", "4-4-4-4", "8-2-3-8"].map(|bits| bits.parse().unwrap());
    let early_stop = EarlyStop { images: 50, ..EarlyStop::default() };
    let retrain = Retrain::new(setup, schedule(8)).unwrap().early_stop(early_stop).unwrap();
    check_evaluator(&retrain, &all);

    // Without a step and with every layer in float, nothing changes.
    let retrain = Retrain::new(setup, schedule(0)).unwrap();
    let float = retrain.evaluate(&"float-float-float-float".parse().unwrap()).unwrap();
    assert_eq!(float.accuracy(), Some(retrain.full_precision()));
    let some = retrain.evaluate(&"2-float-float-2".parse().unwrap()).unwrap();
    assert_ne!(some.accuracy(), float.accuracy());
}
