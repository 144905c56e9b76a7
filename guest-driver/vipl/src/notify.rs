//! Notifications: a handler that is called with one completion.
//!
//! One registration is good for one completion. It takes the completion that is there, or the next one; several on
//! one queue take completions in the order in which they were registered. Handlers run on a thread of the NIC handle, one
//! after the other. That thread sleeps until the [`Bell`] rings; then it looks at every queue with registrations
//! and arms the NRA words of those that have nothing. A second thread sleeps in the Kernel Agent until any word of the
//! context has fired, and rings. So nobody polls, and a program may register for as many queues as it has.
//!
//! The lock of the registrations is taken before those that [`Context`] lists, and by nobody who holds one of them.
//! Completions are taken under it, so that a registration that is cancelled has taken nothing.

mod bell;

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use vianic_abi::completion::arm;
use vianic_abi::nic_memory::NRA_ANY;
use vianic_abi::sync::Native;

use crate::context::Context;
use crate::cq::{CqId, QueueEvent};
use crate::descriptor::Queue;
use crate::error::{Error, Result};
use crate::handle::Key;
use crate::mapping::ContextMemory;
use crate::vi::ViId;
use crate::work_queue::{Poll, RawCompletion};
use bell::Bell;

/// How long whoever cancels waits for a handler to return. A handler may itself be waiting for a lock that he holds.
const HANDLER_LIMIT: Duration = Duration::from_secs(1);

/// Called once with a completion, on a thread of the library.
pub(crate) type Handler<T> = Box<dyn FnOnce(T) + Send>;

/// Something that completions are taken from.
pub(crate) trait Source: Copy + Eq + Hash {
    type Completion;

    /// The VI or the completion queue with which registrations end.
    fn owner(self) -> Key;

    /// Takes the oldest completion. `None` if there is none, or the source has gone.
    fn take(self) -> Option<Self::Completion>;

    fn lines(registrations: &mut Registrations) -> &mut Lines<Self>;
}

/// A work queue without a completion queue.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct WorkSource {
    pub(crate) vi: ViId,
    pub(crate) queue: Queue,
}

impl Source for WorkSource {
    type Completion = RawCompletion;

    fn owner(self) -> Key {
        self.vi.0
    }

    fn take(self) -> Option<RawCompletion> {
        match self.vi.done(self.queue) {
            Ok(Poll::Done(completion)) => Some(completion),
            Ok(Poll::NotDone | Poll::Empty) | Err(_) => None,
        }
    }

    fn lines(registrations: &mut Registrations) -> &mut Lines<Self> {
        &mut registrations.work_queues
    }
}

impl Source for CqId {
    type Completion = QueueEvent;

    fn owner(self) -> Key {
        self.0
    }

    fn take(self) -> Option<QueueEvent> {
        self.poll().ok().flatten()
    }

    fn lines(registrations: &mut Registrations) -> &mut Lines<Self> {
        &mut registrations.completion_queues
    }
}

/// Who waits in line for the completions of each source. There is no empty line.
pub(crate) struct Lines<S: Source>(HashMap<S, Line<S::Completion>>);

struct Line<T> {
    nra_word: u32,
    handlers: VecDeque<Handler<T>>,
}

impl<S: Source> Default for Lines<S> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<S: Source> Lines<S> {
    fn add(&mut self, source: S, nra_word: u32, handler: Handler<S::Completion>) {
        let line = self.0.entry(source).or_insert_with(|| Line { nra_word, handlers: VecDeque::new() });
        line.handlers.push_back(handler);
    }

    /// The first in line and what it was waiting for. Without a completion, the next one rings.
    fn next(&mut self, source: S, memory: &ContextMemory) -> Option<(Handler<S::Completion>, S::Completion)> {
        let line = self.0.get_mut(&source)?;
        let completion = source.take().or_else(|| {
            arm::<Native>(memory.nra_word(line.nra_word));
            source.take()
        })?;
        let handler = line.handlers.pop_front()?;
        if line.handlers.is_empty() {
            self.0.remove(&source);
        }
        Some((handler, completion))
    }
}

#[derive(Default)]
pub(crate) struct Notifications {
    registrations: Mutex<Registrations>,
    /// A handler has returned.
    returned: Condvar,
    /// There are registrations, or the context is closed.
    needed: Condvar,
    bell: Bell,
}

#[derive(Default)]
pub(crate) struct Registrations {
    work_queues: Lines<WorkSource>,
    completion_queues: Lines<CqId>,
    /// The thread that is in a handler, and the VI or completion queue whose completion it handles.
    running: Option<(ThreadId, Key)>,
    delivering: bool,
    watching: bool,
}

impl Registrations {
    fn is_empty(&self) -> bool {
        self.work_queues.0.is_empty() && self.completion_queues.0.is_empty()
    }
}

impl Notifications {
    /// Something may have completed without the card's saying so.
    pub(crate) fn look_again(&self) {
        self.bell.ring();
    }

    /// Ends the registrations of a VI or completion queue that is gone. When this returns, none of their handlers runs
    /// any more, unless it is the one that calls.
    pub(crate) fn cancel(&self, owner: Key) {
        self.cancel_all(|candidate| candidate == owner);
    }

    /// The context is closed.
    pub(crate) fn close(&self) {
        self.cancel_all(|_| true);
        self.needed.notify_all();
        self.bell.ring();
    }

    fn cancel_all(&self, ends: impl Fn(Key) -> bool) {
        let deadline = Instant::now() + HANDLER_LIMIT;
        let mut registrations = self.registrations.lock();
        // Dropped without the lock: what they own may call the library.
        let ended = (
            registrations.work_queues.0.extract_if(|source, _| ends(source.owner())).collect::<Vec<_>>(),
            registrations
                .completion_queues
                .0
                .extract_if(|source, _| ends(source.owner()))
                .collect::<Vec<_>>(),
        );
        while registrations
            .running
            .is_some_and(|(thread, owner)| ends(owner) && thread != std::thread::current().id())
        {
            if self.returned.wait_until(&mut registrations, deadline).timed_out() {
                log::warn!("a handler has not returned for {HANDLER_LIMIT:?}; it is no longer waited for");
                break;
            }
        }
        drop(registrations);
        drop(ended);
    }
}

impl Context {
    /// Registers a handler for one completion of `source`, whose NRA word `find_word` gives unless there is no such source.
    pub(crate) fn notify<S: Source>(
        self: &Arc<Self>,
        source: S,
        handler: Handler<S::Completion>,
        find_word: impl FnOnce() -> Result<u32>,
    ) -> Result<()> {
        let notifications = &self.notifications;
        let mut registrations = notifications.registrations.lock();
        if self.is_closed() {
            return Err(Error::Closed);
        }
        // Under the lock: whoever ends the source cancels after it.
        let nra_word = find_word()?;
        self.start_threads(&mut registrations)?;
        S::lines(&mut registrations).add(source, nra_word, handler);
        drop(registrations);
        notifications.needed.notify_all();
        notifications.bell.ring();
        Ok(())
    }

    fn start_threads(self: &Arc<Self>, registrations: &mut Registrations) -> Result<()> {
        let start = |name: &str, run: fn(&Self)| {
            let context = Arc::clone(self);
            let thread = std::thread::Builder::new().name(name.into()).spawn(move || run(&context));
            thread.map(drop).map_err(|_| Error::OutOfResources("no thread for handlers"))
        };
        if !registrations.delivering {
            start("vipl-notify", Self::deliver_notifications)?;
            registrations.delivering = true;
        }
        if !registrations.watching {
            start("vipl-watch", Self::watch_words)?;
            registrations.watching = true;
        }
        Ok(())
    }

    /// Calls handlers until the context is closed.
    fn deliver_notifications(&self) {
        while !self.is_closed() {
            while self.sweep::<WorkSource>() | self.sweep::<CqId>() {}
            self.notifications.bell.wait();
        }
    }

    /// Serves each line once. `false`: nobody's completion was there.
    fn sweep<S: Source>(&self) -> bool {
        let sources: Vec<S> =
            S::lines(&mut self.notifications.registrations.lock()).0.keys().copied().collect();
        let mut served = false;
        for source in sources {
            served |= self.serve(source);
        }
        served
    }

    fn serve<S: Source>(&self, source: S) -> bool {
        let (handler, completion) = {
            let mut registrations = self.notifications.registrations.lock();
            let Some(found) = S::lines(&mut registrations).next(source, &self.memory) else { return false };
            registrations.running = Some((std::thread::current().id(), source.owner()));
            found
        };
        // What a panic has to say has been said, and the other handlers still want to be called.
        let _ = catch_unwind(AssertUnwindSafe(move || handler(completion)));
        self.notifications.registrations.lock().running = None;
        self.notifications.returned.notify_all();
        true
    }

    /// Rings when a word of the context has fired, until the context is closed or has failed.
    fn watch_words(&self) {
        let mut seen = 0;
        while self.until_needed() {
            match self.agent.wait(NRA_ANY, seen, None).map_err(Error::from) {
                Ok(now) if now == seen => {}
                Ok(now) => {
                    seen = now;
                    self.notifications.bell.ring();
                }
                Err(Error::TimedOut) => {}
                Err(Error::Closed) => return,
                Err(Error::NicFailed) => return self.fail(),
                Err(error) => return log::error!("notifications are no longer delivered: {error}"),
            }
        }
    }

    /// Sleeps until there are registrations. `false`: the context is closed.
    fn until_needed(&self) -> bool {
        let mut registrations = self.notifications.registrations.lock();
        while registrations.is_empty() && !self.is_closed() {
            self.notifications.needed.wait(&mut registrations);
        }
        !self.is_closed()
    }
}
