//! Virtual interfaces: a pair of work queues that can be connected to another pair.

mod owner;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use vianic_abi::NO_CQ;
use vianic_abi::command::{self, VI_RDMA_READ, VI_RDMA_WRITE};
use vianic_abi::mrt::DEFAULT_PTAG;

pub use owner::{PostFailure, Vi};
pub use state::ViState;
pub use vianic_abi::status::ReliabilityLevel;

use crate::agent::NewVi;
use crate::context::Context;
use crate::cq::CqId;
use crate::descriptor::{LinkField, Queue, RawDescriptor};
use crate::error::{Error, Result};
use crate::handle::{Key, Kind, Pool, Shared};
use crate::memory::TagId;
use crate::notify::{Handler, WorkSource};
use crate::peer::Untold;
use crate::work_queue::{Link, Poll, RawCompletion, Refusal, WorkQueue};
pub(crate) use state::Attempt;
use state::{Disconnect, State};

static VIS: Pool<ViSlot> = Pool::new(Kind::Vi);

#[derive(Default)]
struct ViSlot {
    send: WorkQueue,
    receive: WorkQueue,
    object: Shared<ViObject>,
}

/// A VI's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViAttributes {
    /// Reliability level.
    pub reliability: ReliabilityLevel,
    /// Bytes of the longest message.
    pub max_transfer_size: u32,
    /// Protection tag; none goes with every tag of the process.
    pub tag: Option<TagId>,
    /// The peer may write by RDMA.
    pub rdma_write: bool,
    /// The peer may read by RDMA.
    pub rdma_read: bool,
}

impl ViAttributes {
    /// As the card and the peer know them.
    fn on_wire(&self) -> command::ViAttributes {
        command::ViAttributes {
            reliability_level: self.reliability.0,
            flags: if self.rdma_write { VI_RDMA_WRITE } else { 0 }
                | if self.rdma_read { VI_RDMA_READ } else { 0 },
            max_transfer_size: self.max_transfer_size,
        }
    }

    /// A peer's, whose tag is its own affair.
    pub(crate) fn of_peer(attributes: &command::ViAttributes) -> Self {
        Self {
            reliability: ReliabilityLevel(attributes.reliability_level),
            max_transfer_size: attributes.max_transfer_size,
            tag: None,
            rdma_write: attributes.flags & VI_RDMA_WRITE != 0,
            rdma_read: attributes.flags & VI_RDMA_READ != 0,
        }
    }
}

/// What VIPL knows of a VI besides its work queues.
#[derive(Debug)]
pub(crate) struct ViObject {
    pub(crate) key: Key,
    pub(crate) number: u16,
    pub(crate) context: Arc<Context>,
    pub(crate) state: Mutex<State>,
    /// What became of an attempt with a peer, until the program is told.
    pub(crate) untold: Untold,
    attributes: Mutex<ViAttributes>,
    /// Held while the VI is being disconnected, so that a second caller returns when it is.
    disconnecting: Mutex<()>,
    user_data: AtomicUsize,
}

impl ViObject {
    pub(crate) fn reliability(&self) -> ReliabilityLevel {
        self.attributes.lock().reliability
    }

    /// Ends the VI with its NIC handle.
    pub(crate) fn release(&self) {
        *self.state.lock() = State::Gone;
        if ViId(self.key).forget().is_some() {
            let _ = self.context.agent.destroy_vi(self.number);
            VIS.give_back(self.key);
        }
    }
}

/// What VipQueryVi tells.
#[derive(Clone, Copy, Debug)]
pub struct ViInfo {
    /// State now.
    pub state: ViState,
    /// Attributes.
    pub attributes: ViAttributes,
    /// No descriptor is on the send queue.
    pub send_queue_empty: bool,
    /// No descriptor is on the receive queue.
    pub receive_queue_empty: bool,
}

/// Names a VI. It may outlive it: then every call says [`Error::InvalidHandle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ViId(pub(crate) Key);

impl ViId {
    #[inline]
    pub(crate) fn from_value(value: u64) -> Result<Self, Refusal> {
        VIS.key(value).map(Self).ok_or(Refusal::NoVi)
    }

    #[inline]
    fn slot(self) -> Result<&'static ViSlot, Refusal> {
        VIS.slot(self.0).ok_or(Refusal::NoVi)
    }

    #[inline]
    fn work_queue(self, queue: Queue) -> Result<&'static WorkQueue, Refusal> {
        let slot = self.slot()?;
        Ok(match queue {
            Queue::Send => &slot.send,
            Queue::Receive => &slot.receive,
        })
    }

    pub(crate) fn object(self) -> Result<Arc<ViObject>> {
        self.slot()?.object.get(self.0).ok_or(Error::InvalidHandle("VI"))
    }

    pub(crate) fn create(
        context: &Arc<Context>,
        attributes: &ViAttributes,
        send_cq: Option<CqId>,
        receive_cq: Option<CqId>,
    ) -> Result<Self> {
        let ptag = check_attributes(context, attributes)?;
        let cq_number = |cq: Option<CqId>| match cq.map(CqId::object).transpose()? {
            None => Ok(NO_CQ),
            Some(cq) if Arc::ptr_eq(&cq.context, context) => Ok(cq.number),
            Some(_) => Err(Error::InvalidParameter("the completion queue belongs to another NIC handle")),
        };
        let new = NewVi {
            attributes: attributes.on_wire(),
            ptag,
            send_cq: cq_number(send_cq)?,
            receive_cq: cq_number(receive_cq)?,
        };
        let (key, slot) = VIS.take().ok_or(Error::OutOfResources("no more VIs"))?;
        let number = context.agent.create_vi(&new).inspect_err(|_| VIS.give_back(key))?;
        let object = Arc::new(ViObject {
            key,
            number,
            context: Arc::clone(context),
            state: Mutex::default(),
            untold: Untold::default(),
            attributes: Mutex::new(*attributes),
            disconnecting: Mutex::default(),
            user_data: AtomicUsize::new(0),
        });
        for (work_queue, queue, cq) in
            [(&slot.send, Queue::Send, send_cq), (&slot.receive, Queue::Receive, receive_cq)]
        {
            let context = Arc::clone(context);
            work_queue.open(&Link { key, context, vi: number, queue, has_cq: cq.is_some() });
        }
        slot.object.put(key, Arc::clone(&object));
        // What the MCQ still has of an earlier VI of this number is taken before this one is entered.
        if context.drain_then(|reaper| reaper.add_vi(&object)) {
            return Ok(Self(key));
        }
        object.release();
        Err(Error::Closed)
    }

    /// Takes the VI away from its name; for one caller only.
    fn forget(self) -> Option<Vec<RawDescriptor>> {
        let slot = self.slot().ok()?;
        slot.object.take(self.0)?;
        let mut left = slot.send.close();
        left.append(&mut slot.receive.close());
        Some(left)
    }

    /// Ends the VI. Descriptors still on its queues are forgotten, and so are their entries in completion queues.
    ///
    /// # Errors
    /// [`Error::OutOfResources`] unless the VI is Idle.
    pub fn destroy(self) -> Result<()> {
        self.destroy_and_take().map(drop)
    }

    /// Ends the VI and gives the descriptors that were still on its queues.
    pub(crate) fn destroy_and_take(self) -> Result<Vec<RawDescriptor>> {
        let object = self.object()?;
        let context = &object.context;
        context.drain();
        if context.settings.strict && !self.queues_are_empty()? {
            return Err(Error::OutOfResources("descriptors are on the VI's queues (VIANIC_STRICT is set)"));
        }
        object.state.lock().destroy()?;
        let left = self.forget().ok_or(Error::InvalidHandle("VI"))?;
        let destroyed = context.agent.destroy_vi(object.number);
        context.drain_then(|reaper| reaper.remove_vi(&object));
        context.errors.purge(self.0);
        context.notifications.cancel(self.0);
        VIS.give_back(self.0);
        match destroyed {
            // A context that has failed has no VIs any more.
            Err(error) if !context.has_failed() => Err(error.into()),
            _ => Ok(left),
        }
    }

    fn queues_are_empty(self) -> Result<bool> {
        let slot = self.slot()?;
        Ok(slot.send.is_empty() && slot.receive.is_empty())
    }

    /// The VI's state and attributes now.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`].
    pub fn query(self) -> Result<ViInfo> {
        let object = self.object()?;
        let slot = self.slot()?;
        if !object.context.has_failed() {
            object.context.drain();
        }
        object.look_for_peer()?;
        let state = object.state.lock().seen_by_program();
        Ok(ViInfo {
            state,
            attributes: *object.attributes.lock(),
            send_queue_empty: slot.send.is_empty(),
            receive_queue_empty: slot.receive.is_empty(),
        })
    }

    /// Gives the VI, which must be Idle, other attributes. After any failure it is as it was. Receives that are posted stay, and
    /// are subject to the new tag.
    ///
    /// # Errors
    /// [`Error::InvalidState`] unless the VI is Idle; what is wrong with the attributes.
    pub fn set_attributes(self, attributes: &ViAttributes) -> Result<()> {
        let object = self.object()?;
        let context = &object.context;
        let ptag = check_attributes(context, attributes)?;
        context.drain();
        object.state.lock().begin_change()?;
        let answer = context.agent.set_vi_attributes(object.number, attributes.on_wire(), ptag);
        if answer.is_ok() {
            *object.attributes.lock() = *attributes;
        }
        object.state.lock().end_change();
        Ok(answer?)
    }

    /// Ends the VI's connection: all outstanding descriptors complete as flushed, and the VI is Idle. Harmless on a VI
    /// that is Idle. An attempt with a peer is given up.
    ///
    /// # Errors
    /// [`Error::InvalidState`] while a connection is being made by another call.
    pub fn disconnect(self) -> Result<()> {
        let object = self.object()?;
        let slot = self.slot()?;
        let context = &object.context;
        let _alone = object.disconnecting.lock();
        context.drain();
        if object.state.lock().begin_disconnect()? == Disconnect::Nothing {
            return Ok(());
        }
        object.untold.forget();
        context.errors.purge(self.0);
        let (send, receive) = (slot.send.tail(), slot.receive.tail());
        let answer = match context.agent.disconnect(object.number) {
            Err(error) if !context.has_failed() => Err(error.into()),
            // A context that has failed has no connections any more.
            _ => Ok(()),
        };
        if answer.is_ok() {
            slot.send.flush_until(send);
            slot.receive.flush_until(receive);
            context.notifications.look_again();
        }
        // What the MCQ has of the old connection is taken while it is being ended.
        context.drain_then(|_| object.state.lock().end_disconnect(answer.is_ok()));
        answer
    }

    /// Posts a descriptor whose memory has a handle, and its link field a use.
    ///
    /// # Errors
    /// Any [`Refusal`].
    #[inline(always)]
    pub(crate) fn post(
        self,
        queue: Queue,
        descriptor: RawDescriptor,
        memory: (u32, LinkField),
    ) -> Result<(), Refusal> {
        self.work_queue(queue)?.post(self.0, descriptor, memory)
    }

    #[inline(always)]
    pub(crate) fn done(self, queue: Queue) -> Result<Poll<RawCompletion>, Refusal> {
        self.work_queue(queue)?.done(self.0)
    }

    /// `None`: the time ran out.
    pub(crate) fn wait(self, queue: Queue, timeout: Option<Duration>) -> Result<Option<Poll<RawCompletion>>> {
        self.work_queue(queue)?.wait(self.0, timeout)
    }

    /// Has `handler` called with one completed descriptor of `queue`, which is dequeued: the oldest, or else the next.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a queue with a completion queue; [`Error::OutOfResources`] if there can be no thread.
    pub(crate) fn notify(self, queue: Queue, handler: Handler<RawCompletion>) -> Result<()> {
        let source = WorkSource { vi: self, queue };
        self.object()?.context.notify(source, handler, || self.work_queue(queue)?.nra_word(self.0))
    }

    /// The word that the program keeps with the VI.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`].
    pub fn user_data(self) -> Result<usize> {
        Ok(self.object()?.user_data.load(Ordering::Relaxed))
    }

    /// Sets the word that the program keeps with the VI.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`].
    pub fn set_user_data(self, value: usize) -> Result<()> {
        self.object()?.user_data.store(value, Ordering::Relaxed);
        Ok(())
    }
}

/// Whether a VI may have these attributes; the number of its tag.
fn check_attributes(context: &Arc<Context>, attributes: &ViAttributes) -> Result<u32> {
    let nic = &context.info.registers;
    let level = attributes.reliability.0;
    if level.count_ones() != 1 || level & nic.reliability_levels == 0 {
        return Err(Error::InvalidReliabilityLevel);
    }
    if attributes.max_transfer_size > nic.max_transfer_size {
        return Err(Error::InvalidTransferSize);
    }
    if attributes.rdma_read && level & nic.rdma_read_levels == 0 {
        return Err(Error::InvalidRdmaRead);
    }
    attributes.tag.map_or(Ok(DEFAULT_PTAG), |tag| tag.number_in(context))
}
