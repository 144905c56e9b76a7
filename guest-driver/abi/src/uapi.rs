//! The Kernel Agent's calls: the ioctls and mappings of `/dev/vianicN`.
//!
//! An open file is nothing until [`OPEN_CONTEXT`]; from then on it owns one context. An ioctl returns 0 when the Kernel
//! Agent has answered, and the answer's `status` is a [`Status`](crate::status::Status). It fails with `EFAULT` for a bad
//! pointer, `EINVAL` for a nonzero reserved field, `ENOTTY` for an unknown request, `ENXIO` without a
//! context (QUERY_NIC needs none), `EBUSY` for a second OPEN_CONTEXT, `EINTR` when a signal ended a wait, `ENODEV` when the card is gone.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::command::{NetAddress, NicList, ViAttributes};
use crate::nic_memory::Registers;
use crate::shared_layout;

/// The ioctls' type letter.
pub const IOCTL_TYPE: u32 = 0xb7;

const fn iowr<T>(number: u32) -> u32 {
    // _IOC(_IOC_READ | _IOC_WRITE, IOCTL_TYPE, number, sizeof(T)) of <asm-generic/ioctl.h>.
    #[expect(clippy::cast_possible_truncation, reason = "asserted")]
    let size = {
        assert!(size_of::<T>() < 1 << 14);
        size_of::<T>() as u32
    };
    3 << 30 | size << 16 | IOCTL_TYPE << 8 | number
}

/// [`NicInfo`]: what the NIC is.
pub const QUERY_NIC: u32 = iowr::<NicInfo>(1);
/// [`OpenContext`]: makes the file's context.
pub const OPEN_CONTEXT: u32 = iowr::<OpenContext>(2);
/// [`ObjectCall`]: makes a protection tag; `object` is it.
pub const CREATE_PTAG: u32 = iowr::<ObjectCall>(3);
/// [`ObjectCall`]: ends a protection tag; `ERROR_RESOURCE` while a VI or a region has it.
pub const DESTROY_PTAG: u32 = iowr::<ObjectCall>(4);
/// [`RegisterMemory`].
pub const REGISTER_MEMORY: u32 = iowr::<RegisterMemory>(5);
/// [`DeregisterMemory`].
pub const DEREGISTER_MEMORY: u32 = iowr::<DeregisterMemory>(6);
/// [`ObjectCall`]: makes a completion queue; `object` is its number.
pub const CREATE_CQ: u32 = iowr::<ObjectCall>(7);
/// [`ObjectCall`]: ends a completion queue; `ERROR_RESOURCE` while a VI uses it.
pub const DESTROY_CQ: u32 = iowr::<ObjectCall>(8);
/// [`CreateViCall`].
pub const CREATE_VI: u32 = iowr::<CreateViCall>(9);
/// [`ObjectCall`]: ends a VI.
pub const DESTROY_VI: u32 = iowr::<ObjectCall>(10);
/// [`ConnectWait`].
pub const CONNECT_WAIT: u32 = iowr::<ConnectWait>(11);
/// [`ConnectAnswer`]: accepts.
pub const CONNECT_ACCEPT: u32 = iowr::<ConnectAnswer>(12);
/// [`ConnectAnswer`]: refuses; `vi` is unused.
pub const CONNECT_REJECT: u32 = iowr::<ConnectAnswer>(13);
/// [`ConnectRequest`].
pub const CONNECT_REQUEST: u32 = iowr::<ConnectRequest>(14);
/// [`ObjectCall`]: disconnects a VI.
pub const DISCONNECT: u32 = iowr::<ObjectCall>(15);
/// [`Wait`]: sleeps until an NRA word has fired.
pub const WAIT: u32 = iowr::<Wait>(16);

/// [`ObjectCall`], `object` 0: all waits of this file (CONNECT_WAIT, CONNECT_REQUEST,
/// CONNECT_PEER_WAIT, WAIT) end with status `CANCELLED`,
/// those under way and those to come.
pub const SHUT_DOWN: u32 = iowr::<ObjectCall>(17);
/// [`SetMemoryAttributes`]: gives a region another tag and other permissions. When it returns, the card goes by the new ones.
pub const SET_MEMORY_ATTRIBUTES: u32 = iowr::<SetMemoryAttributes>(18);
/// [`SetViAttributes`]: gives an Idle VI other attributes and another tag.
pub const SET_VI_ATTRIBUTES: u32 = iowr::<SetViAttributes>(19);
/// [`ConnectRequest`]: begins to connect a VI with a peer that asks for it, and returns at once. `INVALID_STATE` if an attempt is
/// under way for the VI, or has ended and nobody has asked what became of it. The time-out counts from here.
pub const CONNECT_PEER_REQUEST: u32 = iowr::<ConnectRequest>(20);
/// [`ConnectPeerWait`]: waits for what becomes of an attempt with a peer.
pub const CONNECT_PEER_WAIT: u32 = iowr::<ConnectPeerWait>(21);
/// [`DiscoverNics`]: finds the NICs of the fabric whose drivers are attached, this one counted.
pub const DISCOVER: u32 = iowr::<DiscoverNics>(22);

/// A time-out that never comes.
pub const INFINITE_MS: u64 = u64::MAX;

/// mmap offset of the context's Token Table (read, write).
pub const MMAP_TOKEN_TABLE: u64 = 0x0000_0000;
/// mmap offset of the context's MCQ (read, write).
pub const MMAP_MCQ: u64 = 0x1000_0000;
/// mmap offset of the context's Notification Request Area (read, write).
pub const MMAP_NRA: u64 = 0x2000_0000;
/// mmap offset of the context's doorbell page (write). The doorbell is the 16-bit word at
/// [`OpenContext::doorbell_offset`]; store [`OpenContext::doorbell_value`].
pub const MMAP_DOORBELL: u64 = 0x3000_0000;
/// mmap offset of the card's registers and counters (two pages, read only).
pub const MMAP_REGISTERS: u64 = 0x4000_0000;

/// Answer of [`QUERY_NIC`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NicInfo {
    /// Outcome.
    pub status: u32,
    /// Zero.
    pub reserved: u32,
    /// A copy of the card's registers.
    pub registers: Registers,
    /// Bytes that may be registered by one process (its memlock limit), or `u64::MAX`.
    pub max_register_bytes: u64,
}
shared_layout!(NicInfo, 208, {
    status @ 0, reserved @ 4, registers @ 8, max_register_bytes @ 200,
});

/// [`OPEN_CONTEXT`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OpenContext {
    /// In: [`ABI_VERSION`](crate::ABI_VERSION) of the caller. Another one gets `NOT_SUPPORTED`.
    pub abi_version: u32,
    /// Out: outcome; `ERROR_RESOURCE` when all contexts are taken.
    pub status: u32,
    /// Out: context number.
    pub context: u16,
    /// Out: entries of the Token Table, as a power of two.
    pub token_table_log2: u8,
    /// Out: entries of the MCQ, as a power of two.
    pub mcq_log2: u8,
    /// Out: offset of the doorbell word in its page.
    pub doorbell_offset: u16,
    /// Out: what to store there.
    pub doorbell_value: u16,
}
shared_layout!(OpenContext, 16, {
    abi_version @ 0, status @ 4, context @ 8, token_table_log2 @ 10, mcq_log2 @ 11, doorbell_offset @ 12, doorbell_value @ 14,
});

/// A call about one object by its number.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ObjectCall {
    /// In, or out for the calls that make one: the object.
    pub object: u32,
    /// Out: outcome.
    pub status: u32,
}
shared_layout!(ObjectCall, 8, {
    object @ 0, status @ 4,
});

/// [`REGISTER_MEMORY`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegisterMemory {
    /// In: first byte.
    pub address: u64,
    /// In: bytes.
    pub length: u64,
    /// In: protection tag.
    pub ptag: u32,
    /// In: [`ACCESS_*`](crate::mrt::ACCESS_RDMA_WRITE).
    pub access: u32,
    /// Out: memory handle.
    pub handle: u32,
    /// Out: outcome.
    pub status: u32,
}
shared_layout!(RegisterMemory, 32, {
    address @ 0, length @ 8, ptag @ 16, access @ 20, handle @ 24, status @ 28,
});

/// [`DEREGISTER_MEMORY`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DeregisterMemory {
    /// In: first byte, as registered.
    pub address: u64,
    /// In: memory handle.
    pub handle: u32,
    /// Out: outcome.
    pub status: u32,
}
shared_layout!(DeregisterMemory, 16, {
    address @ 0, handle @ 8, status @ 12,
});

/// [`SET_MEMORY_ATTRIBUTES`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetMemoryAttributes {
    /// In: any address in the region.
    pub address: u64,
    /// In: memory handle.
    pub handle: u32,
    /// In: protection tag.
    pub ptag: u32,
    /// In: [`ACCESS_*`](crate::mrt::ACCESS_RDMA_WRITE).
    pub access: u32,
    /// Out: outcome; after any failure the region is as it was.
    pub status: u32,
}
shared_layout!(SetMemoryAttributes, 24, {
    address @ 0, handle @ 8, ptag @ 12, access @ 16, status @ 20,
});

/// [`CREATE_VI`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CreateViCall {
    /// In: attributes.
    pub attributes: ViAttributes,
    /// In: protection tag.
    pub ptag: u32,
    /// In: CQ of the send queue, or [`NO_CQ`](crate::NO_CQ).
    pub send_cq: u16,
    /// In: CQ of the receive queue, or [`NO_CQ`](crate::NO_CQ).
    pub receive_cq: u16,
    /// Out: VI number.
    pub vi: u32,
    /// Out: outcome.
    pub status: u32,
}
shared_layout!(CreateViCall, 24, {
    attributes @ 0, ptag @ 8, send_cq @ 12, receive_cq @ 14, vi @ 16, status @ 20,
});

/// [`SET_VI_ATTRIBUTES`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetViAttributes {
    /// In: VI number.
    pub vi: u32,
    /// In: protection tag.
    pub ptag: u32,
    /// In: attributes.
    pub attributes: ViAttributes,
    /// Zero.
    pub reserved: u32,
    /// Out: outcome; `INVALID_STATE` if the VI is not Idle. After any failure it is as it was.
    pub status: u32,
}
shared_layout!(SetViAttributes, 24, {
    vi @ 0, ptag @ 4, attributes @ 8, reserved @ 16, status @ 20,
});

/// [`CONNECT_WAIT`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConnectWait {
    /// In: where to wait; only the discriminator counts.
    pub local: NetAddress,
    /// Out: who asks.
    pub remote: NetAddress,
    /// In: milliseconds, or [`INFINITE_MS`]. 0 looks once.
    pub timeout_ms: u64,
    /// Out: attributes of the asking VI.
    pub attributes: ViAttributes,
    /// Out: the request, for [`CONNECT_ACCEPT`] or [`CONNECT_REJECT`].
    pub connection: u32,
    /// Out: outcome.
    pub status: u32,
}
shared_layout!(ConnectWait, 104, {
    local @ 0, remote @ 40, timeout_ms @ 80, attributes @ 88, connection @ 96, status @ 100,
});

/// [`CONNECT_ACCEPT`] and [`CONNECT_REJECT`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConnectAnswer {
    /// In: the request.
    pub connection: u32,
    /// In: VI number.
    pub vi: u32,
    /// Zero.
    pub reserved: u32,
    /// Out: outcome.
    pub status: u32,
}
shared_layout!(ConnectAnswer, 16, {
    connection @ 0, vi @ 4, reserved @ 8, status @ 12,
});

/// [`CONNECT_REQUEST`] and [`CONNECT_PEER_REQUEST`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConnectRequest {
    /// In: who asks; the host part does not count.
    pub local: NetAddress,
    /// In: whom.
    pub remote: NetAddress,
    /// In: milliseconds, or [`INFINITE_MS`]. 0 gets `INVALID_PARAMETER`.
    pub timeout_ms: u64,
    /// In: VI number.
    pub vi: u32,
    /// Out: outcome.
    pub status: u32,
    /// Out: attributes of the peer's VI; CONNECT_PEER_REQUEST leaves them alone.
    pub attributes: ViAttributes,
}
shared_layout!(ConnectRequest, 104, {
    local @ 0, remote @ 40, timeout_ms @ 80, vi @ 88, status @ 92, attributes @ 96,
});

/// [`CONNECT_PEER_WAIT`].
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConnectPeerWait {
    /// In: VI number.
    pub vi: u32,
    /// Out: `SUCCESS`: the VI is connected. `NOT_DONE`: the attempt goes on. `INVALID_STATE`: there is none, or what became of it
    /// was told already. Else why it has failed; `TIMEOUT` if its time is over. Whatever became of it is told once.
    pub status: u32,
    /// In: milliseconds, or [`INFINITE_MS`]. 0 looks once.
    pub timeout_ms: u64,
    /// Out: attributes of the peer's VI.
    pub attributes: ViAttributes,
}
shared_layout!(ConnectPeerWait, 24, {
    vi @ 0, status @ 4, timeout_ms @ 8, attributes @ 16,
});

/// [`DISCOVER`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DiscoverNics {
    /// In: how many NICs to leave out, in the order of their addresses.
    pub first: u32,
    /// Out: outcome.
    pub status: u32,
    /// Out: what there is.
    pub list: NicList,
}
shared_layout!(DiscoverNics, 528, {
    first @ 0, status @ 4, list @ 8,
});

/// [`WAIT`]: sleeps until the number of times that the NRA word has fired differs from `seen`, as a futex does: a
/// waiter remembers the count, arms the word, looks at its queue once more, and waits with the count.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Wait {
    /// In: NRA word.
    pub nra_word: u32,
    /// In: the count that the waiter knows. Out: the count now.
    pub seen: u32,
    /// In: milliseconds, or [`INFINITE_MS`].
    pub timeout_ms: u64,
    /// Out: `SUCCESS`, `TIMEOUT`, `NIC_FAILED` when the context has failed.
    pub status: u32,
    /// Zero.
    pub reserved: u32,
}
shared_layout!(Wait, 24, {
    nra_word @ 0, seen @ 4, timeout_ms @ 8, status @ 16, reserved @ 20,
});
