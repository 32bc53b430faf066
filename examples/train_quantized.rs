//! Trains LeNet in full precision, retrains it at 2 to 3 bits, writes the weights and reads them again.
//!
//! ```text
//! cargo run --release --example train_quantized -- lenet.safetensors
//! ```
//!
//! The parts of a search without the search: data, a trainer, a schedule, a quantizer and a file of weights. The
//! weights in the file are floats; the quantizer rounds them again wherever they are used. `releq train` and
//! `releq evaluate` do this with all options.

use std::{ops::ControlFlow, process::ExitCode};

use anyhow::{Context, Result};
use releq::{
    ExperimentConfig,
    data::{
        Normalization,
        digits::{self, DigitsConfig},
    },
    format,
    quant::QuantizerKind,
    train::{Backend, Length, Schedule, TrainerFactory, accuracy, initial_weights, train},
    zoo::lenet,
};
use releq_cli::terminal::{exit_code, output::print};

fn main() -> ExitCode {
    exit_code(run)
}

fn run() -> Result<()> {
    let path = std::env::args_os().nth(1).context("name the file to write the weights to")?;
    let data = digits::generate(&DigitsConfig { train: 8000, test: 2000, ..Default::default() })?;
    let normalization = Normalization { mean: vec![0.1307], std: vec![0.3081] };
    let network = lenet();
    let quantizer = QuantizerKind::WrpnScaled.build();
    let mut trainer = Backend::Native.trainer(&network, quantizer.clone())?;
    trainer.load(&initial_weights(&network, 1))?;

    let config = ExperimentConfig::lenet(1);
    let bits = "2-2-3-2".parse()?;
    let stages = [
        ("full precision", None, Schedule { length: Length::Epochs(4.0), ..config.pretrain }),
        (
            "2-2-3-2, before retraining",
            Some(&bits),
            Schedule { length: Length::Steps(0), ..config.long_retrain },
        ),
        ("2-2-3-2, retrained", Some(&bits), config.long_retrain),
    ];
    for (label, bits, schedule) in stages {
        trainer.set_bits(bits)?;
        let mut go_on = |_| ControlFlow::Continue(());
        train(trainer.as_mut(), &data.train, &normalization, &schedule, 1, &mut go_on)?;
        let test = accuracy(trainer.as_mut(), &data.test, &normalization, 256)?;
        print(format_args!("{label:<28} {:.2} %", 100.0 * test.accuracy()))?;
    }
    // As they are computed with; the trainer keeps floating-point weights behind them.
    let weights = trainer.snapshot().settled(&network, &*quantizer)?;
    format::safetensors::save(&path, &weights)?;

    // Whoever has the file and the bitwidths has the network.
    let mut reader = Backend::Native.trainer(&network, quantizer)?;
    reader.load(&format::load(&path, &network)?)?;
    reader.set_bits(Some(&bits))?;
    let test = accuracy(reader.as_mut(), &data.test, &normalization, 256)?;
    print(format_args!("{:<28} {:.2} %", "2-2-3-2, read again", 100.0 * test.accuracy()))
}
