//! `releq worker`: carries out the retrains of searches.

use std::{fs, num::NonZeroUsize, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, ensure};
use releq_remote::{Worker, WorkerConfig};

use crate::{
    args::{ServerArgs, options},
    terminal::{interrupt::Interrupt, output::note},
};

/// Carry out the retrains of searches on this machine
///
/// Takes jobs from the NATS server at URL, one at a time for each thread, and serves any number of searches. Networks and
/// weights come from the server; images are read here. Ctrl-C or SIGTERM ends it after the jobs that it is at; whatever it
/// leaves undone, others do.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq worker nats://localhost:4222              with `nats-server -js` there
  releq search --workers nats://localhost:4222    in another terminal
  releq worker tls://queue.example:4222 --creds worker.creds --data-dir /data

docs/remote.md has settings of servers, rights, and units for launchers.")]
pub(crate) struct Args {
    /// Address of the server, such as nats://localhost:4222
    url: String,
    /// Number of evaluations that run in parallel; does not affect the result [default: all cores]
    #[arg(long, value_name = "N", value_parser = options::threads, allow_negative_numbers = true)]
    threads: Option<NonZeroUsize>,
    /// Folder with images, for searches whose own folder is not on this machine; may be given several times. Whether they
    /// are the same images is checked
    #[arg(long, value_name = "DIR")]
    data_dir: Vec<PathBuf>,
    /// Name in the list of workers: letters, digits, - and _ [default: machine and process]
    #[arg(long, value_name = "NAME")]
    worker_name: Option<String>,
    /// Folder for networks and weights that were fetched; may be emptied at any time [default: in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let access = self.server.access(&self.url)?;
        let name = match &self.worker_name {
            Some(name) => {
                let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
                ensure!(
                    !name.is_empty() && name.chars().all(known),
                    "--worker-name {name}: expected letters, digits, - and _"
                );
                name.clone()
            }
            None => {
                let host = fs::read_to_string("/etc/hostname").unwrap_or_default();
                WorkerConfig::default_name(host.trim())
            }
        };
        let cache = match &self.cache_dir {
            Some(folder) => folder.clone(),
            None => dirs::cache_dir()
                .context("there is no cache folder for this user; name one with --cache-dir")?
                .join("releq")
                .join("jobs"),
        };
        let threads = self
            .threads
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN);
        let config = WorkerConfig { name, threads, data: self.data_dir.clone(), cache };
        let interrupt = Interrupt::new()?;
        note(format_args!("worker {}: {threads} at a time", config.name));
        Worker::new(access, config).run(&interrupt.cancel, &|event| note(event))?;
        Ok(interrupt.exit_code().into())
    }
}
