//! Asynchronous errors: what goes wrong and cannot be written into a descriptor.
//!
//! They are handed to the program's handler on a thread of their own, which is started with the first handler. Without a
//! handler they are logged. A handler that was taken away, or whose NIC was closed, runs no more.

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
    waiting: Mutex<VecDeque<AsyncError>>,
    delivery: Mutex<Delivery>,
    /// A handler has returned.
    returned: Condvar,
    has_thread: AtomicBool,
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
        if !self.has_thread.load(Ordering::Acquire) {
            return log_error(&error);
        }
        let mut waiting = self.waiting.lock();
        if waiting.len() < MAX_WAITING {
            waiting.push_back(error);
        }
    }

    /// Forgets what was not delivered yet about a VI that the program has let go of.
    pub(crate) fn purge(&self, vi: Key) {
        self.waiting.lock().retain(|error| error.vi != Some(vi));
    }

    pub(crate) fn close(&self) {
        self.waiting.lock().clear();
        self.replace(&mut self.delivery.lock(), None);
    }

    fn pop(&self) -> Option<AsyncError> {
        self.waiting.lock().pop_front()
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
        if handler.is_some() && !self.errors.has_thread.load(Ordering::Relaxed) {
            let context = Arc::clone(self);
            std::thread::Builder::new()
                .name("vipl-errors".into())
                .spawn(move || context.deliver_errors())
                .map_err(|_| Error::OutOfResources("no thread for the error handler"))?;
            self.errors.has_thread.store(true, Ordering::Release);
        }
        self.errors.replace(&mut delivery, handler);
        Ok(())
    }

    /// Hands errors to the handler until the context is closed or has failed.
    fn deliver_errors(&self) {
        loop {
            let found = self.wait_for(NRA_ERRORS, None, || {
                self.drain();
                Ok(self.errors.pop())
            });
            match found {
                Ok(Some(error)) => self.errors.deliver(&error),
                Ok(None) => {}
                Err(Error::Closed | Error::NicFailed) => return,
                Err(error) => return log::error!("asynchronous errors are no longer reported: {error}"),
            }
        }
    }
}
