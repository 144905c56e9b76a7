//! The two places where file descriptors change owner in a way that the crates' types cannot express.
#![expect(
    unsafe_code,
    reason = "ownership of file descriptors passes between crates as bare numbers, here only"
)]

use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};

use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};
use vmm_sys_util::eventfd::EventFd;

/// A kick as an eventfd.
pub(super) fn event_fd(kick: EventConsumer) -> EventFd {
    // SAFETY: `into_raw_fd` gives the descriptor away; `EventFd` is its only owner.
    unsafe { EventFd::from_raw_fd(kick.into_raw_fd()) }
}

/// The event that ends the worker of a `VhostUserDaemon`.
///
/// The crate takes the consumer's descriptor out of its owner and never closes it; [`ExitEvent::close`] does.
#[derive(Debug)]
pub(super) struct ExitEvent {
    leaked: RawFd,
}

impl ExitEvent {
    /// A new event, with the two ends that the daemon wants.
    pub(super) fn new() -> std::io::Result<(Self, (EventConsumer, EventNotifier))> {
        let ends = new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?;
        Ok((Self { leaked: ends.0.as_raw_fd() }, ends))
    }

    /// Closes what the daemon has left open.
    ///
    /// # Safety
    /// The daemon that was given the consumer must have been dropped.
    pub(super) unsafe fn close(self) {
        // SAFETY: the daemon has turned the consumer into a bare number, and it is gone, as the caller promises.
        drop(unsafe { OwnedFd::from_raw_fd(self.leaked) });
    }
}
