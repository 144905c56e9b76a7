//! The event queue as the engine's thread uses it.

use std::io::Write as _;
use std::sync::atomic::Ordering;

use vhost_user_backend::VringT as _;
use vianic_abi::event::Event;
use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{QueueT as _, Writer};
use vm_memory::{Bytes as _, GuestAddress, GuestAddressSpace as _};
use zerocopy::IntoBytes as _;

use super::vring::Vring;
use super::{Memory, chain};
use crate::engine::EventSink;
use crate::guest_memory::GuestMemory;
use crate::rate_limit::warn_limited;

/// The event queue of one card.
pub(super) struct EventQueue {
    ring: Vring,
    memory: Memory,
    unsignalled: bool,
}

impl EventQueue {
    pub(super) fn new(ring: Vring, memory: Memory) -> Self {
        Self { ring, memory, unsignalled: false }
    }

    /// Whether the driver wants to hear of used buffers.
    fn wants_signal(&self) -> bool {
        let mut state = self.ring.get_mut();
        // A queue that cannot be read gets its signal: one too many does no harm.
        let wanted = state.needs_notification().unwrap_or(true);
        let avail_ring = GuestAddress(state.get_queue().avail_ring());
        let flags = self.memory.memory().load(avail_ring, Ordering::Relaxed).map_or(0, u16::from_le);
        wanted && u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0
    }
}

impl EventSink for EventQueue {
    fn push(&mut self, event: Event) -> bool {
        if !self.ring.is_running() {
            return false;
        }
        let memory = self.memory.memory();
        let size = self.ring.get_ref().get_queue().size();
        for _ in 0..size {
            let Some(chain) = chain::pop(&self.ring, memory.clone()) else { return false };
            let head = chain.head_index();
            let bytes = event.as_bytes();
            let written = Writer::new(&*memory, chain)
                .ok()
                .filter(|writer| writer.available_bytes() >= bytes.len())
                .and_then(|mut writer| writer.write_all(bytes).ok())
                .and_then(|()| u32::try_from(bytes.len()).ok());
            chain::give_back(&self.ring, head, written.unwrap_or(0));
            self.unsignalled = true;
            if written.is_some() {
                return true;
            }
            warn_limited!("a driver offered an event buffer that holds no event; it is passed over");
        }
        false
    }

    fn notify(&mut self) {
        if std::mem::take(&mut self.unsignalled) && self.ring.is_running() && self.wants_signal() {
            chain::signal(&self.ring);
        }
    }

    fn memory_changed(&mut self, _memory: GuestMemory) {
        // `self.memory` is the table itself and not a copy of it.
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vhost::test_queue::{Part, RAM, TestQueue};
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use vianic_abi::event::EventKind;

    const BUFFER: u64 = 0x5000;

    fn event(nra_word: u32) -> Event {
        Event { kind: EventKind::NOTIFY.0, context: 1, nra_word }
    }

    fn sink(queue: &TestQueue) -> EventQueue {
        EventQueue::new(queue.ring.clone(), queue.memory.clone())
    }

    /// The queue's call descriptor; what it counts are the signals.
    fn call(queue: &TestQueue) -> OwnedFd {
        let flags = rustix::event::EventfdFlags::NONBLOCK;
        let call = rustix::event::eventfd(0, flags).expect("eventfd");
        queue.ring.set_call(Some(File::from(call.try_clone().expect("duplicate"))));
        call
    }

    fn signals(call: &OwnedFd) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(call, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }

    #[test]
    fn events_fill_buffers_in_order_and_one_signal_tells() {
        let mut queue = TestQueue::new();
        let call = call(&queue);
        let mut sink = sink(&queue);
        assert!(!sink.push(event(1)), "no buffer yet");
        for number in 0..3 {
            queue.offer(&[Part::In(BUFFER + number * 8, 8)]);
        }
        assert!(sink.push(event(1)) && sink.push(event(2)) && sink.push(event(3)));
        assert!(!sink.push(event(4)));
        sink.notify();
        sink.notify();
        assert_eq!(queue.used(), [(0, 8), (1, 8), (2, 8)]);
        assert_eq!(queue.read::<8>(BUFFER + 8), event(2).as_bytes());
        assert_eq!(signals(&call), 1);
    }

    #[test]
    fn a_buffer_that_holds_no_event_is_passed_over() {
        let mut queue = TestQueue::new();
        queue.offer(&[Part::In(BUFFER, 7)]);
        queue.offer(&[Part::Out(BUFFER, 8)]);
        queue.offer(&[Part::In(RAM - 4, 8)]);
        queue.offer(&[Part::In(u64::MAX, 8)]);
        queue.make_available(u16::MAX);
        let good = queue.offer(&[Part::In(BUFFER, 3), Part::In(BUFFER + 0x100, 100)]);
        assert!(sink(&queue).push(event(9)));
        assert_eq!(queue.used(), [(0, 0), (1, 0), (2, 0), (3, 0), (u32::from(good), 8)]);
        assert_eq!(queue.read::<3>(BUFFER), event(9).as_bytes()[..3]);
        assert_eq!(queue.read::<5>(BUFFER + 0x100), event(9).as_bytes()[3..]);
    }

    #[test]
    fn a_driver_that_wants_no_signal_gets_none() {
        let mut queue = TestQueue::new();
        let call = call(&queue);
        queue.set_avail_flags(1);
        queue.offer(&[Part::In(BUFFER, 8)]);
        let mut sink = sink(&queue);
        assert!(sink.push(event(1)));
        sink.notify();
        assert_eq!(signals(&call), 0);
    }

    #[test]
    fn a_queue_that_does_not_run_is_left_alone() {
        let mut queue = TestQueue::new();
        queue.offer(&[Part::In(BUFFER, 8)]);
        let mut sink = sink(&queue);
        queue.ring.set_enabled(false);
        assert!(!sink.push(event(1)));
        queue.ring.set_enabled(true);
        queue.ring.set_queue_ready(false);
        assert!(!sink.push(event(1)));
        assert_eq!(queue.used(), []);
        queue.ring.set_queue_ready(true);
        assert!(sink.push(event(1)));
    }

    #[test]
    fn an_avail_index_that_jumps_is_not_followed() {
        let queue = TestQueue::new();
        queue.set_avail_index(1000);
        assert!(!sink(&queue).push(event(1)));
    }
}
