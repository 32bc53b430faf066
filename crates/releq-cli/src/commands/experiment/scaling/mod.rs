//! `releq experiment scaling`: how fast a run would be with more workers.

mod asked;
mod replay;
mod schedule;

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use releq::{
    AgentKind, Choice, Event, Experiment, ExperimentConfig, Report, RunFolder, core::Weights,
    format::safetensors,
};
use serde::Serialize;
use serde_json::json;

use self::{
    replay::{Record, Replay},
    schedule::{Asked, Passed, Workers, pass},
};
use super::folder::FolderArgs;
use crate::{
    args::options,
    plot::{
        efficiency::{Curve, efficiency},
        number::count,
        table::{Table, number},
    },
    terminal::{
        interrupt::Interrupt,
        output::{note, print},
        tables,
    },
};

/// Plan how many workers a search is worth
///
/// Takes the durations and the accuracies of the retrains in the folder of a run that has come to its end, and lets the
/// same search ask simulated workers, which take no time but count it: the agent, its batches, the searches it is compared
/// with and the long retrains are those of a real run; the queue, the workers, their deaths, and what goes on side by side
/// are simulated. The images of the run must be on this machine. docs/remote.md shows the result for LeNet.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq experiment scaling runs/lenet-mnist-1
  releq experiment scaling runs/lenet-mnist-1 --counts 8,64 --batches 4,64
  releq experiment scaling runs/lenet-mnist-1 --no-comparison
  releq experiment scaling runs/lenet-mnist-1 --deaths 0.05 --lease 60")]
pub(super) struct Args {
    /// Folder of a run that has come to its end
    run: PathBuf,
    /// Numbers of workers
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        value_parser = options::count,
        default_value = "1,2,4,8,16,32,64,128,256,512,1024"
    )]
    counts: Vec<NonZeroUsize>,
    /// Evaluations that the agent asks for at a time; without the option, as many as in the run, and 16 and 64
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = options::count)]
    batches: Vec<NonZeroUsize>,
    /// Share of the jobs at which the worker dies
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = deaths)]
    deaths: f64,
    /// Seconds that a job stays with a worker that has died
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 10.0,
        value_parser = options::positive,
        allow_hyphen_values = true
    )]
    lease: f64,
    /// Seconds until a worker that has died is there again
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = options::not_negative)]
    back_after: f64,
    /// Seconds beside each retrain, for the queue
    #[arg(long, value_name = "SECONDS", default_value_t = 0.013, value_parser = options::not_negative)]
    beside: f64,
    /// Leave out the searches that the agent's is compared with
    #[arg(long)]
    no_comparison: bool,
    #[command(flatten)]
    output: FolderArgs,
}

/// A share that leaves something.
fn deaths(text: &str) -> Result<f64, String> {
    let share = options::not_negative(text)?;
    if share <= 0.9 { Ok(share) } else { Err("expected a share from 0 to 0.9".to_owned()) }
}

/// A run with so many workers.
#[derive(Clone, Debug, Serialize)]
struct Row {
    batch: usize,
    workers: usize,
    /// Short and long retrains.
    jobs: [usize; 2],
    deaths: usize,
    /// Of the searches with what goes on beside them, and of the long retrains after them.
    seconds: [f64; 2],
    /// How many times as fast as one worker.
    speedup: f64,
    /// Share of the workers' time in retrains that one worker would do too.
    efficiency: f64,
}

impl Args {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let interrupt = Interrupt::new()?;
        let mut config = RunFolder::config_of(&self.run)?;
        let report = RunFolder::report_of(&self.run)?
            .with_context(|| format!("{} has no report yet", self.run.display()))?;
        ensure!(
            !report.cancelled && report.failed().is_none(),
            "the run in {0} has not come to its end; `releq resume {0}` goes on with it",
            self.run.display()
        );
        config.compare &= !self.no_comparison;
        let at_once = config.threads.get();
        let time = |stage: &str| report.times.get(stage).copied().unwrap_or_default();
        let searches = time("pretrain") + time("sensitivities");
        let finals = searches + time("search") + time("comparisons");
        let recorded = RunFolder::retrains_of(&self.run)?;
        let record = Arc::new(Record::new(&recorded, at_once, (searches, finals), config.seed)?);
        let between = between_batches(&report);
        let weights = safetensors::load(self.run.join("weights.safetensors"))?;
        let mut counts: Vec<usize> = self.counts.iter().map(|count| count.get()).collect();
        counts.sort_unstable();
        counts.dedup();

        let folder = self.output.open("scaling")?;
        let mut rows = Vec::new();
        for batch in self.batches(&config)? {
            let config = with_batch(&config, batch)?;
            let root = tempfile::tempdir()?;
            let mut alone = None;
            for &workers in [1].iter().chain(&counts) {
                if alone.is_some()
                    && rows.iter().any(|row: &Row| (row.batch, row.workers) == (batch, workers))
                {
                    continue;
                }
                let replayed =
                    replay(&config, &weights, &record, workers, root.path(), &interrupt)?;
                let Some(mut asked) = replayed else {
                    folder.abandon();
                    note("stopped: there is nothing to show yet");
                    return Ok(interrupt.exit_code().into());
                };
                asked.between = between;
                note(format_args!(
                    "{} at a time, {}",
                    count(batch, "evaluation"),
                    count(workers, "worker")
                ));
                rows.push(self.row(batch, workers, &asked, &mut alone, config.seed));
            }
        }
        rows.retain(|row| counts.contains(&row.workers));
        let curves = curves(&rows);
        let title = "Workers and what becomes of their time";
        let figure = efficiency(title, &curves, table(&rows)).context("nothing was simulated")?;
        let means = record.means();
        let settings = json!({
            "run": self.run,
            "deaths": self.deaths,
            "lease": self.lease,
            "back_after": self.back_after,
            "beside": self.beside,
            "config": config,
        });
        let results = json!({
            "rows": rows,
            "mean_short_seconds": means[0],
            "mean_long_seconds": means[1],
            "seconds_between_batches": between,
        });
        let text = folder.write(&[figure], Vec::new(), &settings, &results)?;
        print(if self.output.json { text } else { shown(&rows, means, between) })?;
        Ok(ExitCode::SUCCESS)
    }

    /// The batches to try, the run's own first.
    fn batches(&self, config: &ExperimentConfig) -> Result<Vec<usize>> {
        let own = own_batch(config).context(
            "the agent of the run has no setting for how many evaluations it asks for at a time",
        )?;
        let named: Vec<usize> = self.batches.iter().map(|batch| batch.get()).collect();
        let mut all = if named.is_empty() { vec![own, 16, 64] } else { named };
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|batch| seen.insert(*batch));
        Ok(all)
    }

    /// `alone` is what one worker does, which comes first.
    fn row(
        &self,
        batch: usize,
        count: usize,
        asked: &Asked,
        alone: &mut Option<Alone>,
        seed: u64,
    ) -> Row {
        let Self { beside, deaths, lease, back_after, .. } = *self;
        let workers = Workers { count, beside, deaths, lease, back_after };
        let Passed { searched, all, deaths } = pass(asked, workers, seed);
        let alone = alone.get_or_insert_with(|| Alone { work: asked.work(), seconds: all });
        Row {
            batch,
            workers: count,
            jobs: asked.jobs(),
            deaths,
            seconds: [searched, all - searched],
            speedup: alone.seconds / all,
            efficiency: if all > 0.0 { alone.work / (count as f64 * all) } else { 1.0 },
        }
    }
}

/// What one worker does, to compare with.
#[derive(Clone, Copy, Debug)]
struct Alone {
    /// Seconds of its retrains.
    work: f64,
    /// Seconds until it is through.
    seconds: f64,
}

/// Seconds that the search takes for itself between two batches, as it did in the run.
fn between_batches(report: &Report) -> f64 {
    let time = |name: &str| report.search.times.get(name).copied().unwrap_or_default();
    let own = time("seconds") - time("evaluation_seconds");
    own.max(0.0) / report.search.history.len().max(1) as f64
}

/// Evaluations that the agent of a configuration asks for at a time, where that is a setting.
fn own_batch(config: &ExperimentConfig) -> Option<usize> {
    match &config.agent {
        Choice::Ours(AgentKind::PpoPlanned(planned)) => Some(planned.planning.batch),
        Choice::Ours(AgentKind::Ppo(ppo)) => Some(ppo.episodes_per_batch),
        _ => None,
    }
}

fn with_batch(config: &ExperimentConfig, batch: usize) -> Result<ExperimentConfig> {
    let mut config = config.clone();
    match &mut config.agent {
        Choice::Ours(AgentKind::PpoPlanned(planned)) => planned.planning.batch = batch,
        Choice::Ours(AgentKind::Ppo(ppo)) => ppo.episodes_per_batch = batch,
        _ => {}
    }
    config.check()?;
    Ok(config)
}

/// What a run asks so many workers for; `None` if it was stopped. `root` has the searches, which do not depend on the number of
/// workers, and the long retrains that are wanted whatever they find, once the run of one worker has come to its end.
fn replay(
    config: &ExperimentConfig,
    weights: &Weights,
    record: &Arc<Record>,
    workers: usize,
    root: &Path,
    interrupt: &Interrupt,
) -> Result<Option<Asked>> {
    // With the weights of the answer, which is the same for all.
    const KNOWN: [&str; 5] = [
        "config.json",
        "weights.safetensors",
        "stages.jsonl",
        "evaluations.jsonl",
        "best.safetensors",
    ];
    const FINALS: &str = "finals.jsonl";
    let folder = root.join(format!("run-{workers}"));
    let is_known = workers > 1;
    if is_known {
        fs::create_dir_all(&folder)?;
        for name in KNOWN.into_iter().chain([FINALS]) {
            fs::copy(root.join(name), folder.join(name))?;
        }
    }
    let replay = Arc::new(Replay::new(Arc::clone(record), workers));
    let mut config = config.clone();
    // The weights are trained already, whatever they were trained from.
    (config.weights, config.fine_tune) = (None, None);
    let experiment =
        Experiment::from_config(config)?.weights(weights.clone()).workers(Arc::clone(&replay));
    let on_event = |event: &Event| {
        if matches!(event, Event::Retrained { bits: None, .. }) {
            replay.next_round();
        }
    };
    let report = experiment.run_in(&RunFolder::open(&folder)?, &interrupt.cancel, &on_event)?;
    if report.cancelled {
        return Ok(None);
    }
    ensure!(report.failed().is_none(), "{}", report.failed().unwrap_or_default());
    let asked = Asked::by(&report, replay.taken(), record);
    if !is_known {
        for name in KNOWN {
            fs::copy(folder.join(name), root.join(name))?;
        }
        // One worker does first what is wanted whatever the searches find, and others have done it ahead.
        let finals = fs::read_to_string(folder.join(FINALS))?;
        let lines = finals.split_inclusive('\n').take(asked.ahead.len());
        fs::write(root.join(FINALS), lines.collect::<String>())?;
    }
    fs::remove_dir_all(&folder)?;
    Ok(Some(asked))
}

fn curves(rows: &[Row]) -> Vec<Curve> {
    let chunks = rows.chunk_by(|a, b| a.batch == b.batch);
    let curve = |rows: &[Row]| Curve {
        name: format!("{} at a time", count(rows[0].batch, "evaluation")),
        points: rows.iter().map(|row| (row.workers, row.efficiency)).collect(),
    };
    chunks.map(curve).collect()
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "batch",
        "workers",
        "short_jobs",
        "long_jobs",
        "deaths",
        "search_seconds",
        "long_seconds",
        "speedup",
        "efficiency",
    ]);
    for row in rows {
        let counts = [row.batch, row.workers, row.jobs[0], row.jobs[1], row.deaths];
        let numbers = [row.seconds[0], row.seconds[1], row.speedup, row.efficiency];
        let counts = counts.into_iter().map(|count| count.to_string());
        table.row(counts.chain(numbers.into_iter().map(number)));
    }
    table
}

fn shown(rows: &[Row], [short, long]: [f64; 2], between: f64) -> String {
    let header = ["batch", "workers", "minutes", "speed-up", "efficiency"];
    let mut table = tables::framed(&header);
    for row in rows {
        let seconds: f64 = row.seconds.iter().sum();
        table.add_row([
            row.batch.to_string(),
            row.workers.to_string(),
            format!("{:.2}", seconds / 60.0),
            format!("{:.2}x", row.speedup),
            format!("{:.2}", row.efficiency),
        ]);
    }
    let note = format!(
        "batch: evaluations at a time; efficiency: share of the workers' time in retrains that one\n\
         worker would do too\n\
         on record: {short:.2} s for a short retrain and {long:.2} s for a long one, {between:.3} s between batches"
    );
    format!("{}\n{note}", tables::text(&table))
}
