//! The thread on which the client of NATS lives, and blocking calls to it.

use std::{
    future::Future,
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{runtime::Builder, runtime::Handle, sync::oneshot, task::AbortHandle};

use crate::RemoteError;

/// So often somebody who waits looks whether the wait is over for another reason.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One thread with an asynchronous runtime. Calls to it work on any thread, also on one of somebody else's runtime, where
/// blocking on a future would panic.
#[derive(Debug)]
pub(crate) struct Engine {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    pub(crate) fn start() -> Result<Self, RemoteError> {
        let failed = |error: std::io::Error| RemoteError::Server {
            what: "be talked to".to_owned(),
            reason: error.to_string(),
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("nats".to_owned())
            .spawn(move || {
                let _ = runtime.block_on(stopped);
            })
            .map_err(failed)?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Something that goes on until it ends or is aborted.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.handle.spawn(task).abort_handle()
    }

    /// What a future gives.
    ///
    /// # Errors
    /// [`RemoteError::Closed`] if it panics.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, RemoteError> {
        self.call_unless(&|| false, future)?.ok_or(RemoteError::Closed)
    }

    /// What a future gives, or `None` soon after `over` says that nobody wants it any more.
    pub(crate) fn call_unless<T: Send + 'static>(
        &self,
        over: &dyn Fn() -> bool,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<Option<T>, RemoteError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let task = self.handle.spawn(async move {
            let _ = sender.send(future.await);
        });
        loop {
            match receiver.recv_timeout(LOOK_EVERY) {
                Ok(value) => return Ok(Some(value)),
                Err(RecvTimeoutError::Disconnected) => return Err(RemoteError::Closed),
                Err(RecvTimeoutError::Timeout) if over() => {
                    task.abort();
                    return Ok(None);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_give_values_and_end_when_nobody_waits_or_the_future_panics() {
        let engine = Engine::start().unwrap();
        assert_eq!(engine.call(async { 7 }).unwrap(), 7);
        let never = std::future::pending::<()>();
        assert!(engine.call_unless(&|| true, never).unwrap().is_none());
        let panics = async { panic!("it does") };
        assert!(matches!(engine.call::<()>(panics), Err(RemoteError::Closed)));
        let inside = Builder::new_current_thread().build().unwrap();
        assert_eq!(inside.block_on(async { engine.call(async { 8 }).unwrap() }), 8);
    }
}
