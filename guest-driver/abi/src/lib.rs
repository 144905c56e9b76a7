//! The contract between the card (`device/`), the Kernel Agent (`guest-driver/kernel-agent`) and VIPL
//! (`guest-driver/vipl`).
//!
//! Everything that two of them share in memory is laid out here and nowhere else: NIC memory, token tables,
//! Master Completion Queues, the Memory Region Table, control commands, events, and the ioctls of
//! `/dev/vianicN`. The protocols that cross the guest/device border without a lock, posting
//! ([`token_table`]), completing ([`completion`]) and deregistering memory ([`mdl`], [`mrt::MrtSlot`]), stand here as code that
//! both sides run and that the model checker explores.
//!
//! The C header `include/vianic_abi.h` is generated from this crate; a test keeps it up to date.
//!
//! All values are little-endian; both ends are x86-64 or another little-endian 64-bit machine.
#![cfg_attr(not(test), no_std)]

#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!("vianic's shared structures are defined for little-endian 64-bit machines");

pub mod attach;
pub mod command;
pub mod completion;
pub mod descriptor;
pub mod event;
pub mod layout;
mod macros;
pub mod mdl;
pub mod mrt;
pub mod nic_memory;
pub mod slot;
pub mod status;
pub mod sync;
pub mod token;
pub mod token_table;
pub mod uapi;

pub(crate) use macros::{open_enum, shared_layout};

/// The version of this contract. A driver and a card of different versions do not work together: the
/// Kernel Agent refuses to bind and says so.
pub const ABI_VERSION: u32 = 2;

/// Contexts a card has: number 0 is the Kernel Agent's, the others belong to user processes.
///
/// QEMU and vhost-user allow 64 queues for each device thread: one is the event queue, one is spare.
pub const MAX_CONTEXTS: u16 = 62;

/// The Kernel Agent's context, the only one that may post control commands.
pub const KERNEL_CONTEXT: u16 = 0;

/// VIs of one context.
pub const MAX_VI: u16 = 1024;

/// Completion queues of one context.
pub const MAX_CQ: u16 = 1024;

/// "No completion queue": the work queue reports to its descriptors only.
pub const NO_CQ: u16 = 0xffff;

/// Descriptors that may be outstanding on one work queue.
pub const MAX_DESCRIPTORS_PER_QUEUE: u32 = 1024;

/// Segments of one descriptor, an address segment counted (VIA asks for 252 at least).
pub const MAX_SEGMENTS: u16 = 252;

/// Bytes of one message.
pub const MAX_TRANSFER_SIZE: u32 = 1 << 20;

/// Bytes of a NIC's address.
pub const NIC_ADDRESS_LEN: usize = 6;

/// Bytes of a connection discriminator.
pub const MAX_DISCRIMINATOR_LEN: usize = 28;

/// The virtio device id under which the card appears. QEMU has a name for it and Linux has no driver, so a
/// driver of ours may take it after it has seen [`nic_memory::CONFIG_MAGIC`].
pub const VIRTIO_ID: u32 = 38;

/// The virtqueue that carries events from the card to the Kernel Agent.
pub const EVENT_QUEUE: u16 = 0;

/// The virtqueue whose notify page is the doorbell of context 0, and which carries the attach request.
pub const ATTACH_QUEUE: u16 = 1;

/// Virtqueues of a card: the event queue and a doorbell for each context.
pub const QUEUE_COUNT: u16 = 1 + MAX_CONTEXTS;

/// The virtqueue whose notify page is the doorbell of `context`.
#[must_use]
pub const fn doorbell_queue(context: u16) -> u16 {
    context + 1
}
