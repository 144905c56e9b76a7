//! Taking descriptor chains from a virtqueue and giving them back, whatever the guest has written there.

use std::ops::Deref;

use vhost_user_backend::VringT as _;
use virtio_queue::{DescriptorChain, QueueOwnedT as _, QueueT as _};
use vm_memory::GuestMemory;

use super::vring::Vring;
use crate::rate_limit::warn_limited;

/// The next chain that the guest has made available.
pub(super) fn pop<M>(ring: &Vring, memory: M) -> Option<DescriptorChain<M>>
where
    M: Clone + Deref,
    M::Target: GuestMemory,
{
    let mut state = ring.get_mut();
    match state.get_queue_mut().iter(memory) {
        Ok(mut chains) => chains.next(),
        Err(error) => {
            warn_limited!("a virtqueue cannot be read: {error}");
            None
        }
    }
}

/// Gives a chain back with so many bytes written.
pub(super) fn give_back(ring: &Vring, head: u16, written: u32) {
    let mut state = ring.get_mut();
    if head >= state.get_queue().size() {
        warn_limited!("a virtqueue's chain starts at descriptor {head}, which does not exist");
    } else if let Err(error) = state.add_used(head, written) {
        warn_limited!("a virtqueue's used ring cannot be written: {error}");
    }
}

/// Signals the guest.
pub(super) fn signal(ring: &Vring) {
    if let Err(error) = ring.signal_used_queue()
        && error.kind() != std::io::ErrorKind::WouldBlock
    {
        warn_limited!("the guest cannot be signalled: {error}");
    }
}
