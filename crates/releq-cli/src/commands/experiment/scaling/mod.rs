//! `releq experiment scaling`: how fast a run would be with more workers.

mod queue;
mod replay;

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use releq::{
    AgentKind, Choice, Event, Experiment, ExperimentConfig, Report, RunFolder,
    core::Weights,
    format::safetensors,
    jobs::{Job, Task},
};
use serde::Serialize;
use serde_json::json;

use self::{
    queue::{Queue, Workers},
    replay::{Record, Replay, Round},
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
/// same search ask simulated workers, which take no time but count it: the agent, its batches and the long retrains
/// are those of a real search, the queue, the workers and their deaths are simulated. The images of the run must be on
/// this machine. docs/remote.md shows the result for LeNet.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq experiment scaling runs/lenet-mnist-1
  releq experiment scaling runs/lenet-mnist-1 --counts 8,64 --batches 4,64
  releq experiment scaling runs/lenet-mnist-1 --no-comparison
  releq experiment scaling runs/lenet-mnist-1 --deaths 0.05 --lease 30")]
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
        default_value_t = 30.0,
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
    /// Of the searches, and of the long retrains after them.
    seconds: [f64; 2],
    /// How many times as fast as one worker, all together.
    speedup: f64,
    /// Shares of the workers' time that one worker would use too: of the searches, of the long retrains, and of both.
    search_efficiency: f64,
    long_efficiency: f64,
    efficiency: f64,
}

impl Args {
    pub(super) fn run(&self) -> Result<ExitCode> {
        let interrupt = Interrupt::new()?;
        let mut config = RunFolder::config_of(&self.run)?;
        let report = RunFolder::report_of(&self.run)?
            .with_context(|| format!("{} has no report yet", self.run.display()))?;
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
                let Some(rounds) = replayed else {
                    folder.abandon();
                    note("stopped: there is nothing to show yet");
                    return Ok(interrupt.exit_code().into());
                };
                let row = self.row(batch, workers, &rounds, &record, between, alone, config.seed);
                alone.get_or_insert(Alone::of(&rounds, &record, &row));
                note(format_args!(
                    "{} at a time, {}",
                    count(batch, "evaluation"),
                    count(workers, "worker")
                ));
                rows.push(row);
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

    #[allow(clippy::too_many_arguments, reason = "all that a row follows from")]
    fn row(
        &self,
        batch: usize,
        count: usize,
        rounds: &[Round],
        record: &Record,
        between: f64,
        alone: Option<Alone>,
        seed: u64,
    ) -> Row {
        let Self { beside, deaths, lease, back_after, .. } = *self;
        let mut queue = Queue::new(Workers { count, beside, deaths, lease, back_after }, seed);
        let mut searched = 0.0;
        let mut jobs = [0; 2];
        for round in rounds {
            let is_long = round.iter().any(long);
            let seconds: Vec<f64> = round.iter().map(|job| record.seconds(job)).collect();
            queue.pass(between);
            queue.round(&seconds);
            jobs[usize::from(is_long)] += round.len();
            if !is_long {
                searched = queue.now();
            }
        }
        let seconds = [searched, queue.now() - searched];
        let alone =
            alone.unwrap_or_else(|| Alone { work: work(rounds, record), seconds: queue.now() });
        let share = |work: f64, seconds: f64| {
            if seconds > 0.0 { work / (count as f64 * seconds) } else { 1.0 }
        };
        Row {
            batch,
            workers: count,
            jobs,
            deaths: queue.deaths(),
            seconds,
            speedup: alone.seconds / queue.now(),
            search_efficiency: share(alone.work[0], seconds[0]),
            long_efficiency: share(alone.work[1], seconds[1]),
            efficiency: share(alone.work.iter().sum(), queue.now()),
        }
    }
}

/// What one worker does, to compare with.
#[derive(Clone, Copy, Debug)]
struct Alone {
    /// Seconds of its short and of its long retrains.
    work: [f64; 2],
    /// Seconds until it is through.
    seconds: f64,
}

impl Alone {
    fn of(rounds: &[Round], record: &Record, row: &Row) -> Self {
        Self { work: work(rounds, record), seconds: row.seconds.iter().sum() }
    }
}

fn work(rounds: &[Round], record: &Record) -> [f64; 2] {
    let of = |wanted: bool| {
        let jobs = rounds.iter().flatten().filter(|job| long(job) == wanted);
        jobs.map(|job| record.seconds(job)).sum()
    };
    [of(false), of(true)]
}

const fn long(job: &Job) -> bool {
    matches!(job.task, Task::Long { .. })
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

/// What a run asks so many workers for, round by round; `None` if it was stopped. The searches, which do not depend on the
/// number of workers, are in `root` after the first time.
fn replay(
    config: &ExperimentConfig,
    weights: &Weights,
    record: &Arc<Record>,
    workers: usize,
    root: &Path,
    interrupt: &Interrupt,
) -> Result<Option<Vec<Round>>> {
    const SEARCHED: [&str; 4] =
        ["config.json", "weights.safetensors", "stages.jsonl", "evaluations.jsonl"];
    let searches = root.join("searches.json");
    let known: Option<Vec<Round>> = match fs::read(&searches) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes)?),
        Err(_) => None,
    };
    let folder = root.join(format!("run-{workers}"));
    if known.is_some() {
        fs::create_dir_all(&folder)?;
        for name in SEARCHED {
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
        if matches!(event, Event::Episodes { .. } | Event::SearchBegun { .. }) {
            replay.waited();
        }
    };
    let report = experiment.run_in(&RunFolder::open(&folder)?, &interrupt.cancel, &on_event)?;
    if report.cancelled {
        return Ok(None);
    }
    ensure!(report.failed().is_none(), "{}", report.failed().unwrap_or_default());
    let mut rounds = replay.taken();
    match known {
        Some(known) => rounds.splice(0..0, known).for_each(drop),
        None => {
            let short: Vec<&Round> =
                rounds.iter().take_while(|round| !round.iter().any(long)).collect();
            fs::write(&searches, serde_json::to_vec(&short)?)?;
            for name in SEARCHED {
                fs::copy(folder.join(name), root.join(name))?;
            }
        }
    }
    fs::remove_dir_all(&folder)?;
    Ok(Some(rounds))
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
        "search_efficiency",
        "long_efficiency",
        "efficiency",
    ]);
    for row in rows {
        let counts = [row.batch, row.workers, row.jobs[0], row.jobs[1], row.deaths];
        let numbers = [
            row.seconds[0],
            row.seconds[1],
            row.speedup,
            row.search_efficiency,
            row.long_efficiency,
            row.efficiency,
        ];
        let counts = counts.into_iter().map(|count| count.to_string());
        table.row(counts.chain(numbers.into_iter().map(number)));
    }
    table
}

fn shown(rows: &[Row], [short, long]: [f64; 2], between: f64) -> String {
    let header = ["batch", "workers", "minutes", "speed-up", "searches", "long", "efficiency"];
    let mut table = tables::framed(&header);
    for row in rows {
        let seconds: f64 = row.seconds.iter().sum();
        table.add_row([
            row.batch.to_string(),
            row.workers.to_string(),
            format!("{:.2}", seconds / 60.0),
            format!("{:.2}x", row.speedup),
            format!("{:.2}", row.search_efficiency),
            format!("{:.2}", row.long_efficiency),
            format!("{:.2}", row.efficiency),
        ]);
    }
    let note = format!(
        "batch: evaluations at a time; efficiency: share of the workers' time in retrains that one\n\
         worker would do too, of the searches, of the long retrains and of both\n\
         on record: {short:.2} s for a short retrain and {long:.2} s for a long one, {between:.3} s between batches"
    );
    format!("{}\n{note}", tables::text(&table))
}
