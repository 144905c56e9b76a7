//! What wakes the engine: doorbells, and requests from the vhost-user side.

use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::eventfd::EventFd;

use crate::engine::NicId;

/// `Events::data` of the eventfd that says "there is a request".
const REQUEST: u32 = u32::MAX;

/// The engine's subscriber: collects which doorbells rang.
#[derive(Debug)]
pub(super) struct Inbox {
    wake: Arc<EventFd>,
    doorbells: HashMap<NicId, Vec<EventFd>>,
    rung: Vec<(NicId, u16)>,
}

impl Inbox {
    pub(super) fn new(wake: Arc<EventFd>) -> Self {
        Self { wake, doorbells: HashMap::new(), rung: Vec::new() }
    }

    /// Watches the doorbells of a card, which stand in the order of its contexts.
    pub(super) fn watch(
        ops: &mut EventOps<'_>,
        nic: NicId,
        doorbells: &[EventFd],
    ) -> Result<(), event_manager::Error> {
        for (context, doorbell) in (0..).zip(doorbells) {
            ops.add(Self::events(nic, context, doorbell.as_raw_fd()))?;
        }
        Ok(())
    }

    pub(super) fn unwatch(ops: &mut EventOps<'_>, nic: NicId, doorbells: &[EventFd]) {
        for (context, doorbell) in (0..).zip(doorbells) {
            if let Err(error) = ops.remove(Self::events(nic, context, doorbell.as_raw_fd())) {
                log::debug!("NIC {nic}: doorbell {context} was not watched: {error}");
            }
        }
    }

    fn events(nic: NicId, context: u16, doorbell: RawFd) -> Events {
        let nic = u32::try_from(nic).unwrap_or(u32::MAX);
        Events::with_data_raw(doorbell, nic << 8 | u32::from(context), EventSet::IN)
    }

    /// Keeps the doorbells of a card open.
    pub(super) fn keep(&mut self, nic: NicId, doorbells: Vec<EventFd>) {
        self.doorbells.insert(nic, doorbells);
    }

    /// Gives up the doorbells of a card.
    pub(super) fn release(&mut self, nic: NicId) -> Vec<EventFd> {
        self.rung.retain(|(rung, _)| *rung != nic);
        self.doorbells.remove(&nic).unwrap_or_default()
    }

    /// The doorbells that rang, each by card and context.
    pub(super) fn take_rung(&mut self) -> Vec<(NicId, u16)> {
        std::mem::take(&mut self.rung)
    }
}

impl MutEventSubscriber for Inbox {
    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        if events.data() == REQUEST {
            // Which request it was, the channel says.
            let _ = self.wake.read();
            return;
        }
        let [context, nic @ ..] = events.data().to_le_bytes();
        let nic = NicId::from(u16::from_le_bytes([nic[0], nic[1]]));
        let doorbell = self.doorbells.get(&nic).and_then(|doorbells| doorbells.get(usize::from(context)));
        if let Some(doorbell) = doorbell {
            // Not readable: somebody else took it, and with it the news.
            let _ = doorbell.read();
            self.rung.push((nic, u16::from(context)));
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::with_data(&*self.wake, REQUEST, EventSet::IN)) {
            log::error!("the engine cannot watch for requests: {error}");
        }
    }
}
