//! A job that was taken, and stays taken as long as somebody works on it.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{AckKind, message::Acker};
use tokio::{task::AbortHandle, time};

use crate::engine::Engine;

/// How long the last word on a job may take; without it, the job is given out again, which does no harm.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Tells the server that a job is being worked on, until it is dropped.
pub(crate) struct Lease {
    acker: Arc<Acker>,
    ticker: AbortHandle,
}

impl Lease {
    /// Three times as often as the lease asks for: twice may be lost.
    pub(crate) fn new(engine: &Engine, acker: Acker, lease: Duration) -> Self {
        let acker = Arc::new(acker);
        let of_ticker = Arc::clone(&acker);
        let ticker = engine.spawn(async move {
            loop {
                time::sleep(lease / 3).await;
                if let Err(error) = of_ticker.ack_with(AckKind::Progress).await {
                    log::info!("a lease is not renewed: {error}");
                }
            }
        });
        Self { acker, ticker }
    }

    /// The job is done, or no job, or for somebody else.
    pub(crate) fn end(self, engine: &Engine, kind: AckKind) {
        let acker = Arc::clone(&self.acker);
        let said = engine.call(async move {
            match time::timeout(LAST_WORD, acker.double_ack_with(kind)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("no answer".to_owned()),
            }
        });
        if let Ok(Some(reason)) = said {
            log::info!("a job may be given out again: {reason}");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ticker.abort();
    }
}
