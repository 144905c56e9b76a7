//! Asynchronous errors: what goes wrong and cannot be written into a descriptor.
//!
//! They are handed to the program's handler on a thread of their own, which is started with the first handler, and with it one
//! that waits for the card to report an error. Without a handler they are logged. A handler that was taken away, or whose NIC
//! was closed, runs no more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use vianic_abi::nic_memory::NRA_ERRORS;

pub use vianic_abi::status::ErrorCode;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::handle::Key;
use crate::vi::ViId;

/// Errors that may wait for a handler that does not return; later ones are dropped.
const MAX_WAITING: usize = 4096;

/// How long whoever takes a handler away waits for it to return. A handler may itself be waiting for a lock that he holds.
const HANDLER_LIMIT: Duration = Duration::from_secs(1);

/// An asynchronous error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncError {
    /// What happened.
    pub code: ErrorCode,
    pub(crate) vi: Option<Key>,
    /// Virtual address of the descriptor that it is about, or 0.
    pub descriptor: u64,
}

impl AsyncError {
    /// The VI that it happened to; `None` if it concerns the whole NIC.
    #[must_use]
    pub fn vi(&self) -> Option<ViId> {
        self.vi.map(ViId)
    }
}

/// What a program does about asynchronous errors. Called on a thread of the library.
pub type ErrorHandler = dyn Fn(&AsyncError) + Send + Sync;

#[derive(Default)]
pub(crate) struct AsyncErrors {
    waiting: Mutex<Waiting>,
    /// An error waits, or none will any more.
    arrived: Condvar,
    delivery: Mutex<Delivery>,
    /// A handler has returned.
    returned: Condvar,
    has_deliverer: AtomicBool,
    has_watcher: AtomicBool,
}

/// Errors on their way to the handler.
#[derive(Default)]
struct Waiting {
    errors: VecDeque<AsyncError>,
    closed: bool,
}

#[derive(Default)]
struct Delivery {
    handler: Option<Arc<ErrorHandler>>,
    /// The thread that is in the handler.
    running: Option<ThreadId>,
}

impl AsyncErrors {
    /// Reports an error: to the thread that waits for one, or in the log if there is none.
    pub(crate) fn push(&self, error: AsyncError) {
        if !self.has_deliverer.load(Ordering::Acquire) {
            return log_error(&error);
        }
        let mut waiting = self.waiting.lock();
        if waiting.errors.len() < MAX_WAITING && !waiting.closed {
            waiting.errors.push_back(error);
            self.arrived.notify_one();
        }
    }

    /// Forgets what was not delivered yet about a VI that the program has let go of.
    pub(crate) fn purge(&self, vi: Key) {
        self.waiting.lock().errors.retain(|error| error.vi != Some(vi));
    }

    pub(crate) fn close(&self) {
        *self.waiting.lock() = Waiting { errors: VecDeque::new(), closed: true };
        self.arrived.notify_all();
        self.replace(&mut self.delivery.lock(), None);
    }

    /// Sleeps until there is an error to deliver. `None`: the context is closed.
    fn next(&self) -> Option<AsyncError> {
        let mut waiting = self.waiting.lock();
        while waiting.errors.is_empty() && !waiting.closed {
            self.arrived.wait(&mut waiting);
        }
        waiting.errors.pop_front()
    }

    /// Replaces the handler. When this returns, the old one runs no more, unless it is the old one that calls.
    fn replace(&self, delivery: &mut MutexGuard<'_, Delivery>, handler: Option<Arc<ErrorHandler>>) {
        delivery.handler = handler;
        let deadline = Instant::now() + HANDLER_LIMIT;
        while delivery.running.is_some_and(|thread| thread != std::thread::current().id()) {
            if self.returned.wait_until(delivery, deadline).timed_out() {
                log::warn!(
                    "an error handler has not returned for {HANDLER_LIMIT:?}; it is no longer waited for"
                );
                break;
            }
        }
    }

    fn deliver(&self, error: &AsyncError) {
        let handler = {
            let mut delivery = self.delivery.lock();
            delivery.running = delivery.handler.is_some().then(|| std::thread::current().id());
            delivery.handler.clone()
        };
        let Some(handler) = handler else { return log_error(error) };
        handler(error);
        drop(handler);
        self.delivery.lock().running = None;
        self.returned.notify_all();
    }
}

fn log_error(error: &AsyncError) {
    match error.vi {
        Some(vi) => log::warn!("asynchronous error {:?} on VI {vi:?}", error.code),
        None => log::warn!("asynchronous error {:?}", error.code),
    }
}

impl Context {
    /// Sets or takes away the handler. Errors that happened before a handler is set are logged.
    pub(crate) fn set_error_handler(self: &Arc<Self>, handler: Option<Arc<ErrorHandler>>) -> Result<()> {
        self.drain();
        let mut delivery = self.errors.delivery.lock();
        if self.is_closed() {
            return Err(Error::Closed);
        }
        if handler.is_some() {
            self.start(&self.errors.has_deliverer, "vipl-errors", |context| {
                while let Some(error) = context.errors.next() {
                    context.errors.deliver(&error);
                }
            })?;
            self.start(&self.errors.has_watcher, "vipl-watch", |context| context.watch_for_errors())?;
        }
        self.errors.replace(&mut delivery, handler);
        Ok(())
    }

    /// Starts a thread unless it `runs`; under the lock of the delivery.
    fn start(self: &Arc<Self>, runs: &AtomicBool, name: &str, run: fn(&Self)) -> Result<()> {
        if !runs.load(Ordering::Relaxed) {
            let context = Arc::clone(self);
            std::thread::Builder::new()
                .name(name.into())
                .spawn(move || run(&context))
                .map_err(|_| Error::OutOfResources("no thread for the error handler"))?;
            runs.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Takes in what the card reports, until the context is closed or has failed.
    fn watch_for_errors(&self) {
        let ended = self.wait_for(NRA_ERRORS, None, || {
            self.drain();
            Ok(None::<()>)
        });
        match ended {
            Ok(_) | Err(Error::Closed | Error::NicFailed) => {}
            Err(error) => log::error!("asynchronous errors are no longer reported: {error}"),
        }
    }
}
