//! The card as a vhost-user back end: one [`Server`] for each card, which serves one front end (QEMU, or VIPL's direct
//! link) at a time.
//!
//! The vhost-user-backend crate speaks the protocol. Three rules keep it and QEMU alive:
//!
//! * nothing that waits for the front end (mapping NIC memory) runs in a request handler or under a lock that one takes;
//! * `handle_event` never fails, because the crate's worker would end without a word;
//! * when a queue has been stopped, the card touches nothing of the guest's until it runs again.

mod attach;
mod backend;
mod chain;
mod config_space;
mod connection;
mod event_queue;
mod raw_fd;
mod server;
mod shared_memory;
#[cfg(test)]
mod test_queue;
mod vring;

pub use server::Server;

use vianic_abi::attach::AttachRequest;
use vianic_abi::status::Status;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::engine::{EngineHandle, HostSide, NicId};
use crate::guest_memory::GuestMemory;

/// Guest RAM as the front end last told it.
type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// Descriptors that a card may hold: for each of 63 queues its kick, its call and a duplicate of its kick for the engine;
/// for two memory tables, the new one and the one before, 8 files each; 32 that come with one message; and a
/// connection's own.
pub const DESCRIPTORS_PER_CARD: usize = 320;

/// What a back end asks of the card that it stands for.
pub trait Card: Send + Sync {
    /// A driver has attached: context 0 comes alive.
    fn attach(&self, request: AttachRequest, host: HostSide) -> Status;
    /// The queues stopped: on return the card touches neither guest memory nor the event queue. State is kept.
    fn pause(&self);
    /// The queues run again after a pause.
    fn resume(&self, host: HostSide);
    /// Everything of the driver before is dropped.
    fn reset(&self);
    /// The guest's memory table changed.
    fn update_memory(&self, memory: GuestMemory);
    /// The guest offered event buffers.
    fn event_buffers(&self);
}

/// One card of an engine.
pub struct EngineCard {
    /// The engine.
    pub engine: EngineHandle,
    /// The card's number.
    pub nic: NicId,
}

impl Card for EngineCard {
    fn attach(&self, request: AttachRequest, host: HostSide) -> Status {
        self.engine.attach(self.nic, request, host)
    }

    fn pause(&self) {
        self.engine.pause(self.nic);
    }

    fn resume(&self, host: HostSide) {
        self.engine.resume(self.nic, host);
    }

    fn reset(&self) {
        self.engine.reset(self.nic);
    }

    fn update_memory(&self, memory: GuestMemory) {
        self.engine.update_memory(self.nic, memory);
    }

    fn event_buffers(&self) {
        self.engine.event_buffers(self.nic);
    }
}
