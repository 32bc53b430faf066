//! A job that was taken, and stays taken as long as somebody works on it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    AckKind, Context, message::Acker, stream::LastRawMessageErrorKind::NoMessageFound,
};
use releq::Cancel;
use tokio::{task::AbortHandle, time};

use crate::{connection::Connection, engine::Engine, layout::JOBS};

/// How long the last word on a job may take; without it, the job is given out again, which does no harm.
const LAST_WORD: Duration = Duration::from_secs(2);
/// How long a beat lasts at most, however long the lease: so often it is looked whether the job is wanted.
const BEAT: Duration = Duration::from_secs(5);
/// After so long outside the queue, a job is not wanted: a search that still waits for one that was lost there, or that
/// another search took out, has put it back by then.
const GONE: Duration = Duration::from_secs(15);

/// Tells the server that a job is being worked on, until it is dropped.
pub(crate) struct Lease {
    acker: Arc<Acker>,
    ticker: AbortHandle,
}

impl Lease {
    /// At least three times as often as the lease asks for: twice may be lost. Cancels `unwanted` when the job under `subject` is in the
    /// queue no more.
    pub(crate) fn new(
        engine: &Engine,
        acker: Acker,
        lease: Duration,
        (jetstream, subject): (Context, String),
        unwanted: Cancel,
    ) -> Self {
        let acker = Arc::new(acker);
        let of_ticker = Arc::clone(&acker);
        let beat = (lease / 3).min(BEAT);
        let ticker = engine.spawn(async move {
            let mut gone: Option<Instant> = None;
            loop {
                time::sleep(beat).await;
                if let Err(error) = of_ticker.ack_with(AckKind::Progress).await {
                    log::info!("a lease is not renewed: {error}");
                }
                match time::timeout(beat / 2, is_gone(&jetstream, &subject)).await {
                    Ok(true) if gone.get_or_insert_with(Instant::now).elapsed() > GONE => {
                        unwanted.cancel();
                    }
                    Ok(true) => {}
                    Ok(false) => gone = None,
                    Err(_) => {}
                }
            }
        });
        Self { acker, ticker }
    }

    /// The job is done, or no job, or for somebody else.
    pub(crate) fn end(self, engine: &Engine, connection: &Connection, kind: AckKind) {
        if !connection.away().is_zero() {
            return;
        }
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

/// Whether the queue has no job under this subject. A server that does not say is none that lacks it.
async fn is_gone(jetstream: &Context, subject: &str) -> bool {
    let Ok(stream) = jetstream.get_stream_no_info(JOBS).await else { return false };
    let found = stream.get_last_raw_message_by_subject(subject).await;
    found.is_err_and(|error| error.kind() == NoMessageFound)
}
