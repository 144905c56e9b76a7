//! Completion queues.
//!
//! The card has one queue for all completions of a context, the MCQ; whoever looks at a completion queue empties the MCQ
//! into the queues in process memory, which grow as they need to. So no completion is ever lost for want of room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use vianic_abi::nic_memory::nra_cq;

use crate::context::Context;
use crate::descriptor::Queue;
use crate::error::{Error, Result};
use crate::handle::{Key, Kind, Pool, Shared};
use crate::nic::MAX_CQ_ENTRIES;
use crate::vi::ViId;

static QUEUES: Pool<CqSlot> = Pool::new(Kind::CompletionQueue);

#[derive(Default)]
struct CqSlot {
    entries: Mutex<Entries>,
    object: Shared<CqObject>,
}

#[derive(Default)]
struct Entries {
    owner: Option<(Key, Arc<Context>)>,
    waiting: VecDeque<QueueEvent>,
}

/// A completion: a descriptor of this VI's queue is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueEvent {
    /// The VI.
    pub vi: ViId,
    /// Which of its work queues.
    pub queue: Queue,
}

/// A completion queue of a context.
#[derive(Debug)]
pub(crate) struct CqObject {
    key: Key,
    pub(crate) number: u16,
    pub(crate) context: Arc<Context>,
}

impl CqObject {
    fn slot(&self) -> Option<&'static CqSlot> {
        QUEUES.slot(self.key)
    }

    /// A descriptor has completed.
    pub(crate) fn push(&self, vi: Key, queue: Queue) {
        if let Some(mut entries) = self.slot().map(|slot| slot.entries.lock())
            && entries.is_owned_by(self.key)
        {
            entries.waiting.push_back(QueueEvent { vi: ViId(vi), queue });
        }
    }

    /// Forgets a VI that is gone.
    pub(crate) fn purge(&self, vi: Key) {
        if let Some(mut entries) = self.slot().map(|slot| slot.entries.lock())
            && entries.is_owned_by(self.key)
        {
            entries.waiting.retain(|event| event.vi.0 != vi);
        }
    }

    /// Ends the completion queue with its NIC handle.
    pub(crate) fn release(&self) {
        if CqId(self.key).forget().is_some() {
            let _ = self.context.agent.destroy_cq(self.number);
            QUEUES.give_back(self.key);
        }
    }
}

impl Entries {
    fn is_owned_by(&self, key: Key) -> bool {
        self.owner.as_ref().is_some_and(|(owner, _)| *owner == key)
    }

    fn context(&self, key: Key) -> Result<&Arc<Context>> {
        match &self.owner {
            Some((owner, context)) if *owner == key => Ok(context),
            _ => Err(Error::InvalidHandle("completion queue")),
        }
    }
}

/// Names a completion queue. It may outlive it: then every call says [`Error::InvalidHandle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CqId(pub(crate) Key);

impl CqId {
    pub(crate) fn from_value(value: u64) -> Result<Self> {
        QUEUES.key(value).map(Self).ok_or(Error::InvalidHandle("completion queue"))
    }

    fn slot(self) -> Result<&'static CqSlot> {
        QUEUES.slot(self.0).ok_or(Error::InvalidHandle("completion queue"))
    }

    pub(crate) fn object(self) -> Result<Arc<CqObject>> {
        self.slot()?.object.get(self.0).ok_or(Error::InvalidHandle("completion queue"))
    }

    pub(crate) fn create(context: &Arc<Context>, entries: u64) -> Result<Self> {
        if entries == 0 {
            return Err(Error::InvalidParameter("a completion queue has at least one entry"));
        }
        if entries > MAX_CQ_ENTRIES {
            return Err(Error::OutOfResources("more entries than a completion queue may have"));
        }
        let (key, slot) = QUEUES.take().ok_or(Error::OutOfResources("no more completion queues"))?;
        let number = context.agent.create_cq().inspect_err(|_| QUEUES.give_back(key))?;
        let object = Arc::new(CqObject { key, number, context: Arc::clone(context) });
        *slot.entries.lock() = Entries { owner: Some((key, Arc::clone(context))), waiting: VecDeque::new() };
        slot.object.put(key, Arc::clone(&object));
        if context.drain_then(|reaper| reaper.add_cq(&object)) {
            return Ok(Self(key));
        }
        object.release();
        Err(Error::Closed)
    }

    /// Takes the queue away from its name; for one caller only.
    fn forget(self) -> Option<Arc<CqObject>> {
        let slot = self.slot().ok()?;
        let object = slot.object.take(self.0)?;
        *slot.entries.lock() = Entries::default();
        Some(object)
    }

    /// Ends the completion queue. Completions in it are forgotten.
    ///
    /// # Errors
    /// [`Error::OutOfResources`] while a VI uses it.
    pub fn destroy(self) -> Result<()> {
        let object = self.object()?;
        match object.context.agent.destroy_cq(object.number) {
            Err(error) if !object.context.has_failed() => return Err(error.into()),
            // A context that has failed has no completion queues any more.
            _ => {}
        }
        object.context.drain_then(|reaper| reaper.remove_cq(&object));
        self.forget().ok_or(Error::InvalidHandle("completion queue"))?;
        object.context.notifications.cancel(self.0);
        QUEUES.give_back(self.0);
        Ok(())
    }

    /// Asks for room for at least `entries` completions. The queue grows by itself, so that there is nothing to do
    /// but to check.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for 0, [`Error::OutOfResources`] for less than are waiting or more than the NIC allows.
    pub fn resize(self, entries: u64) -> Result<()> {
        let slot = self.slot()?;
        let context = Arc::clone(slot.entries.lock().context(self.0)?);
        if entries == 0 {
            return Err(Error::InvalidParameter("a completion queue has at least one entry"));
        }
        // Completions that have come and that nobody has asked for wait, too.
        context.drain();
        if entries > MAX_CQ_ENTRIES || entries < slot.entries.lock().waiting.len() as u64 {
            return Err(Error::OutOfResources("more entries than allowed, or fewer than are waiting"));
        }
        Ok(())
    }

    /// Takes the oldest completion, if there is one.
    ///
    /// # Errors
    /// [`Error::NicFailed`] when none will ever come.
    #[inline]
    pub fn poll(self) -> Result<Option<QueueEvent>> {
        let slot = self.slot()?;
        let context = {
            let mut entries = slot.entries.lock();
            entries.context(self.0)?;
            if let Some(event) = entries.waiting.pop_front() {
                return Ok(Some(event));
            }
            let context = entries.context(self.0)?;
            if context.is_quiet() {
                return Ok(None);
            }
            Arc::clone(context)
        };
        context.drain();
        let mut entries = slot.entries.lock();
        entries.context(self.0)?;
        match entries.waiting.pop_front() {
            None if context.has_failed() => Err(Error::NicFailed),
            found => Ok(found),
        }
    }

    /// Waits for a completion and takes it.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::NicFailed`]; [`Error::Closed`] when the NIC handle is closed meanwhile.
    pub fn wait(self, timeout: Option<Duration>) -> Result<QueueEvent> {
        let object = self.object()?;
        let found = object.context.wait_for(nra_cq(object.number), timeout, || self.poll())?;
        found.ok_or(Error::TimedOut)
    }

    /// Has `handler` called with one completion, which is taken: the oldest, or else the next. It runs on a thread of
    /// the library and may call whatever it likes. It is dropped when the queue is destroyed first.
    ///
    /// # Errors
    /// [`Error::NicFailed`]; [`Error::OutOfResources`] if there can be no thread.
    pub fn notify(self, handler: impl FnOnce(QueueEvent) + Send + 'static) -> Result<()> {
        let object = self.object()?;
        if object.context.has_failed() {
            return Err(Error::NicFailed);
        }
        object.context.notify(self, Box::new(handler), || Ok(nra_cq(self.object()?.number)))
    }
}

/// A completion queue; destroyed when dropped.
#[derive(Debug)]
pub struct CompletionQueue(CqId);

impl CompletionQueue {
    pub(crate) fn new(id: CqId) -> Self {
        Self(id)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> CqId {
        self.0
    }
}

impl std::ops::Deref for CompletionQueue {
    type Target = CqId;

    fn deref(&self) -> &CqId {
        &self.0
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        match self.0.destroy() {
            Ok(()) | Err(Error::InvalidHandle(_)) => {}
            Err(error) => log::warn!("a completion queue stays until its NIC is closed: {error}"),
        }
    }
}
