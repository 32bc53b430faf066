//! Workers at a server, and who asks for them.

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Result;
use releq_remote::{Access, Credentials, RemoteConfig, RemoteWorkers};

use super::{options, usage};
use crate::{plot::number::count, terminal::output::note};

/// A worker that has died should not keep its job for longer.
const MOST_LEASE: Duration = Duration::from_secs(24 * 3600);

/// Who asks at a server, and whom it trusts. No secret is an option: everybody on a machine sees those.
#[derive(clap::Args, Clone, Debug)]
pub struct ServerArgs {
    /// File that says who asks: credentials of NATS (.creds), the seed of an nkey, or `user:password` in one line
    #[arg(long, value_name = "FILE")]
    creds: Option<PathBuf>,
    /// Trust the certificates in this PEM file in place of the system's, and use TLS
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Certificate to show to the server, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Key of that certificate, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl ServerArgs {
    /// Access to the server at `url`.
    ///
    /// # Errors
    /// If the address is none, or a file cannot be read.
    pub fn access(&self, url: &str) -> Result<Access> {
        let mut access = usage(Access::new(url))?;
        if let Some(file) = &self.creds {
            access = access.credentials(Credentials::read(file)?);
        }
        if let Some(file) = &self.tls_ca {
            access = access.root_certificates(file.clone());
        }
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            access = access.client_certificate(certificate.clone(), key.clone());
        }
        Ok(access)
    }
}

/// Who carries out the retrains of a search.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Workers")]
pub struct WorkersArgs {
    /// Let the workers at this NATS server (`releq worker`) carry out retrains too; the report is the same
    #[arg(long, value_name = "URL")]
    workers: Option<String>,
    /// Leave all retrains to the workers
    #[arg(long, requires = "workers")]
    workers_only: bool,
    /// Let machines of any kind answer, though their last bits may differ [default: only this machine's instruction set]
    #[arg(long, requires = "workers")]
    any_machine: bool,
    /// Send the images along, for workers that do not have them; they take room at the server
    #[arg(long, requires = "workers")]
    send_data: bool,
    /// Seconds that a job stays with a worker that says nothing, if this search is the first at its server
    #[arg(
        long,
        value_name = "SECONDS",
        requires = "workers",
        default_value_t = 10.0,
        value_parser = options::positive,
        allow_hyphen_values = true
    )]
    lease: f64,
    /// Who asks.
    #[command(flatten)]
    server: ServerArgs,
}

impl WorkersArgs {
    /// The workers, if there are to be any, beside so many threads of this process.
    ///
    /// # Errors
    /// If the server cannot be used.
    pub fn connect(&self, threads: NonZeroUsize) -> Result<Option<Arc<RemoteWorkers>>> {
        let Some(url) = &self.workers else { return Ok(None) };
        let mut config = RemoteConfig::default();
        config.local = if self.workers_only { 0 } else { threads.get() };
        config.any_machine = self.any_machine;
        config.send_data = self.send_data;
        config.lease =
            Duration::try_from_secs_f64(self.lease).unwrap_or(Duration::MAX).min(MOST_LEASE);
        let workers = RemoteWorkers::connect(&self.server.access(url)?, config)?;
        note(format_args!("workers: at {url}, nats-server {}", workers.server()));
        Ok(Some(Arc::new(workers)))
    }
}

/// Says which worker has done how many of the retrains, if there were workers.
pub fn tell_shares(workers: Option<&RemoteWorkers>) {
    let answers = workers.map(RemoteWorkers::answers).unwrap_or_default();
    let shares: Vec<_> =
        answers.iter().map(|(worker, answers)| format!("{worker} {answers}")).collect();
    if !shares.is_empty() {
        let total = count(answers.values().sum(), "retrain");
        note(format_args!("{total} by {}: {}", count(shares.len(), "worker"), shares.join(", ")));
    }
}
