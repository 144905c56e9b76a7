//! VIPL, the VIA provider library.
//!
//! A program opens a [`Nic`], registers memory, makes [`Vi`]s, connects them, and posts descriptors. Posting and polling
//! take no system call: the card takes tokens from a table in shared memory and writes completions there. Everything
//! else goes to the Kernel Agent ([`agent`]).
//!
//! The same library has VIA's standard C interface, `include/vipl.h`.

pub mod agent;
mod async_error;
mod capi;
mod connect;
mod context;
mod cq;
mod descriptor;
mod descriptor_pool;
mod error;
mod fork;
mod handle;
pub mod mapping;
mod memory;
mod name_service;
mod nic;
mod nic_address;
mod notify;
mod peer;
mod process_barrier;
mod settings;
mod short_lock;
mod spins;
mod vi;
mod work_queue;

#[cfg(test)]
mod tests;

pub use async_error::{AsyncError, ErrorCode, ErrorHandler};
pub use connect::{ConnectionRequest, MAX_DISCRIMINATOR_LEN, NetAddress, RequestId, net_address};
pub use cq::{CompletionQueue, CqId, QueueEvent};
pub use descriptor::{Malformed, Queue};
pub use descriptor_pool::{Descriptor, DescriptorPool, DescriptorStatus, Work};
pub use error::{Error, Result};
pub use memory::{
    LocalSegment, MemoryAttributes, ProtectionTag, RegisteredBuffer, RegisteredPart, RemoteMemory, TagId,
};
pub use name_service::{HOSTS_FILE, MalformedHosts, NameError, NameService};
pub use nic::{MAX_CQ_ENTRIES, Nic, NicId};
pub use nic_address::{NicAddress, NotAnAddress};
pub use vi::{PostFailure, ReliabilityLevel, Vi, ViAttributes, ViId, ViInfo, ViState};
pub use work_queue::Poll;
