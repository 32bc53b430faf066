//! Changes what the agent wants, and with it what it finds.
//!
//! ```text
//! cargo run --example custom_reward
//! ```
//!
//! Searches LeNet on our own digits twice from the same weights: with the paper's reward, and with
//! one of this file that accepts almost no loss of accuracy. Everything about the second reward is
//! the `Strict` struct below.

use std::{num::NonZeroUsize, process::ExitCode, sync::Mutex};

use anyhow::Result;
use releq::{
    Cancel, Event, Experiment, ExperimentConfig, data::digits, reward::Reward, zoo::lenet,
};
use releq_cli::terminal::{
    exit_code,
    output::{note, print},
};

/// Assignments that each search measures at most.
const EVALUATIONS: usize = 60;

/// The same seed gives the same result.
const SEED: u64 = 1;

/// Pays for low bitwidths only while accuracy stays above a floor, and the closer to full precision
/// the better.
struct Strict {
    floor: f64,
}

impl Reward for Strict {
    fn name(&self) -> &str {
        "strict"
    }

    fn reward(&self, acc_state: f64, quant_state: f64) -> f64 {
        if acc_state < self.floor { -1.0 } else { (1.0 - quant_state) * acc_state.powi(20) }
    }
}

fn main() -> ExitCode {
    exit_code(run)
}

fn run() -> Result<()> {
    let data = digits::generate(&digits::DigitsConfig { seed: SEED, ..Default::default() })?;
    note(format_args!("data: {}", data.source));
    let mut config = ExperimentConfig::lenet(SEED);
    config.budget.evaluations = Some(EVALUATIONS);
    config.threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    config.compare = false;

    // Train in full precision once; both searches start from the same weights.
    let never = Cancel::new();
    let stage = Mutex::new(None);
    let news = |event: &Event| {
        let last = stage.lock().map(|mut stage| stage.replace(event.stage()));
        if last.is_ok_and(|last| last != Some(event.stage())) {
            note(format_args!("{}: {} to do", event.stage(), event.progress().1));
        }
    };
    let experiment = || Experiment::new(lenet(), data.clone(), config.clone());
    let weights = experiment().pretrain(&never, &news)?;

    let with_paper = experiment().weights(weights.clone()).run(&never, &news)?;
    let strict = Strict { floor: 0.99 };
    let with_ours = experiment().weights(weights).reward(strict).run(&never, &news)?;

    for report in [with_paper, with_ours] {
        let Some(best) = &report.search.best else { continue };
        print(format_args!(
            "{:>8} reward: its best is {} ({:.2} bits) with {:.2} % of the full-precision accuracy",
            report.config.reward(),
            best.bits,
            best.bits.mean(),
            100.0 * best.acc_state,
        ))?;
    }
    Ok(())
}
