//! A connection that outlives the server's restarts.

use std::{
    fmt::Debug,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::{ConnectErrorKind, Event, jetstream};
use tokio::{sync::Notify, time};

use crate::{Access, RemoteError, error::chain};

/// How long the first connection of a search or a worker is tried for.
pub(crate) const CONNECT: Duration = Duration::from_secs(20);
/// After so long without the first connection, somebody should know.
const SAY_AFTER: Duration = Duration::from_secs(3);
/// How long one call may take before it is made again.
const ATTEMPT: Duration = Duration::from_secs(8);
/// Three of these without an answer, and the server is taken for gone.
const PING: Duration = Duration::from_secs(5);
/// After so many failures of one call in a row, somebody should know.
const WARN_AFTER: u32 = 3;

/// A connection to a server with JetStream.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) jetstream: jetstream::Context,
    news: Arc<News>,
}

/// What the client tells beside the answers to calls.
#[derive(Debug, Default)]
struct News {
    /// What the server forbade last: the call itself only times out.
    refusal: Mutex<Option<String>>,
    connected: Notify,
    /// Since when it has not answered, if it does not.
    away: Mutex<Option<Instant>>,
    /// Whether it was said that it does not.
    told: AtomicBool,
}

impl Connection {
    /// Connects. What may pass, such as a server that is about to start, is waited for as long as `patience` says; wrong
    /// credentials are not.
    pub(crate) async fn open(
        access: &Access,
        name: &str,
        patience: Duration,
    ) -> Result<Self, RemoteError> {
        let begun = Instant::now();
        let mut said = false;
        loop {
            let news = Arc::new(News::default());
            let heard = Arc::clone(&news);
            let options = access
                .options()?
                .name(name)
                .ping_interval(PING)
                .request_timeout(Some(Duration::from_secs(5)))
                .reconnect_delay_callback(|attempt| {
                    let exponent = u32::try_from(attempt).unwrap_or(u32::MAX).min(9);
                    Duration::from_millis(2_u64.pow(exponent).min(500))
                })
                .event_callback(move |event| {
                    let heard = Arc::clone(&heard);
                    async move { heard.hear(&event) }
                });
            let error = match options.connect(access.servers()).await {
                Ok(client) => {
                    let mut jetstream = jetstream::new(client);
                    jetstream.set_timeout(Duration::from_secs(5));
                    return Ok(Self { jetstream, news });
                }
                Err(error) => error,
            };
            let reason = chain(&error);
            let for_good = match error.kind() {
                // TLS that fails comes as this, too.
                ConnectErrorKind::Io => {
                    let reason = reason.to_lowercase();
                    ["certificate", "fatal alert", "invalidcontenttype"]
                        .iter()
                        .any(|tls| reason.contains(tls))
                }
                kind => !matches!(kind, ConnectErrorKind::TimedOut | ConnectErrorKind::Dns),
            };
            if for_good || begun.elapsed() > patience {
                let hint = match error.kind() {
                    ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                        "; name a file with credentials that the server knows (--creds)"
                    }
                    ConnectErrorKind::Io if !for_good => "; is `nats-server -js` running there?",
                    _ => "",
                };
                let reason = format!("{reason}{hint}");
                return Err(RemoteError::Connect { url: access.url().to_owned(), reason });
            }
            if begun.elapsed() > SAY_AFTER && !std::mem::replace(&mut said, true) {
                let (url, seconds) = (access.url(), patience.as_secs());
                log::warn!("no connection to {url} yet ({reason}); it is tried for {seconds} s");
            }
            time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// How long the server has not answered; nothing if it does, as far as is known.
    pub(crate) fn away(&self) -> Duration {
        self.news.away().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Waits until the connection is there again after it was lost.
    pub(crate) async fn reconnected(&self) {
        self.news.connected.notified().await;
    }

    /// Makes a call until it succeeds: a server that is restarted, or stands still, is waited for. With `patience`, only so
    /// often.
    ///
    /// # Errors
    /// [`RemoteError::Permission`] and [`RemoteError::Full`], which waiting does not mend; with `patience`
    /// [`RemoteError::NoQueue`], and [`RemoteError::Server`] at its end.
    pub(crate) async fn persist<T, E, F>(
        &self,
        what: &str,
        patience: Option<u32>,
        mut attempt: impl FnMut() -> F + Send,
    ) -> Result<T, RemoteError>
    where
        E: std::error::Error + Send,
        F: Future<Output = Result<T, E>> + Send,
        T: Send,
    {
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            let reason = match time::timeout(ATTEMPT, attempt()).await {
                Ok(Ok(value)) => {
                    self.news.is_there();
                    return Ok(value);
                }
                Ok(Err(error)) => chain(&error),
                Err(_) => "no answer".to_owned(),
            };
            let what = || what.to_owned();
            if let Some(refusal) = self.news.take_refusal() {
                return Err(RemoteError::Permission { what: what(), refusal });
            }
            if ["insufficient resources", "maximum bytes", "insufficient storage"]
                .iter()
                .any(|full| reason.contains(full))
            {
                return Err(RemoteError::Full { what: what(), reason });
            }
            if patience.is_some() && is_lost(&reason) {
                return Err(RemoteError::NoQueue);
            }
            self.news.away().get_or_insert(begun);
            failures += 1;
            if patience.is_some_and(|patience| failures >= patience) {
                return Err(RemoteError::Server { what: what(), reason });
            }
            if failures >= WARN_AFTER && !self.news.told.swap(true, Ordering::Relaxed) {
                let without = ["no responders", "resource does not exist"];
                let hint = match is_lost(&reason) || without.iter().any(|no| reason.contains(no)) {
                    true => {
                        "its streams are gone, or it runs without JetStream; a search makes them anew"
                    }
                    false => "waiting for it; if it runs and answers, its disk may be full",
                };
                log::warn!("the server does not {}: {reason}; {hint}", what());
            }
            time::sleep(Duration::from_millis(100 << failures.min(4))).await;
        }
    }
}

impl News {
    fn hear(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.is_there();
                self.connected.notify_waiters();
            }
            Event::Disconnected => {
                self.away().get_or_insert_with(Instant::now);
            }
            Event::ServerError(error) => {
                let text = error.to_string();
                if text.to_lowercase().contains("permissions violation") {
                    *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(text.clone());
                }
                log::warn!("the server says: {text}");
            }
            other => log::info!("connection: {other}"),
        }
    }

    /// It has answered.
    fn is_there(&self) {
        *self.away() = None;
        self.told.store(false, Ordering::Relaxed);
    }

    fn away(&self) -> MutexGuard<'_, Option<Instant>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whether a call failed because what searches have created is not there.
fn is_lost(reason: &str) -> bool {
    ["stream not found", "no stream found", "consumer not found"]
        .iter()
        .any(|lost| reason.contains(lost))
}
