//! `releq workers`: who works at a server.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use releq_remote::{Doing, Step, WorkerStatus, roster};

use crate::{
    args::ServerArgs,
    plot::number::count,
    terminal::{
        output::print,
        tables::{framed, text},
    },
};

/// List the workers at a NATS server
///
/// Each with what it does and for how long, the jobs that it has done, and how long they took. Workers that have been silent
/// for half a minute are not listed.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq workers nats://localhost:4222")]
pub(crate) struct Args {
    /// Address of the server, such as nats://localhost:4222
    url: String,
    #[command(flatten)]
    server: ServerArgs,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let roster = roster(&self.server.access(&self.url)?)?;
        let busy: usize = roster.workers.iter().map(|worker| worker.doing.len()).sum();
        let mut table = framed(&["worker", "for", "done", "seconds each", "doing"]);
        for worker in &roster.workers {
            table.add_row(row(worker));
        }
        if !roster.workers.is_empty() {
            print(text(&table))?;
        }
        print(format_args!(
            "nats-server {}: {}, {}, {busy} being carried out",
            roster.server,
            count(roster.workers.len(), "worker"),
            count(usize::try_from(roster.jobs).unwrap_or(usize::MAX), "job"),
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn row(worker: &WorkerStatus) -> [String; 5] {
    let WorkerStatus { name, machine, threads, since, done, busy_seconds, doing, refused, .. } =
        worker;
    let each =
        if *done == 0 { "-".to_owned() } else { format!("{:.1}", busy_seconds / *done as f64) };
    let mut lines: Vec<String> = doing.iter().map(job).collect();
    lines.extend(refused.iter().map(|reason| format!("refused: {reason}")));
    let doing = if lines.is_empty() { "waiting".to_owned() } else { lines.join("\n") };
    let who = format!("{name}\n{machine}, {threads} at a time");
    [who, ago(*since), done.to_string(), each, doing]
}

fn job(doing: &Doing) -> String {
    let Doing { network, job, since, step, .. } = doing;
    let step = match step {
        Step::Loading => "loading, ",
        Step::Storing => "sending the answer, ",
        _ => "",
    };
    format!("{network} at {}, {}, {step}{}", job.bits, job.task, ago(*since))
}

/// How long ago a moment is; clocks that differ make it nothing, not negative.
fn ago(since: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    match now.saturating_sub(since) {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
