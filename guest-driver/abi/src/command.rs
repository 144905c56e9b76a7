//! Control commands: tokens of kind [`COMMAND`](crate::token::TokenKind::COMMAND) in context 0's Token Table. Each
//! completes with an entry in context 0's MCQ that returns the command's tag and a
//! [`Status`](crate::status::Status). Commands are handled in order; the ones that wait for somebody
//! ([`Opcode::LISTEN`], [`Opcode::CONNECT`], [`Opcode::CONNECT_PEER`], [`Opcode::ACCEPT`]) complete when it has come.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{MAX_DISCRIMINATOR_LEN, NIC_ADDRESS_LEN, open_enum, shared_layout};

open_enum! {
    /// A control command, in the token's `vi` field; the parameters are the token's body.
    Opcode: u16 {
        /// Gives the card a chunk of the MRT: [`MrtChunk`].
        ADD_MRT_CHUNK = 1,
        /// Lets go of all handles in the MDL now; completes when it has. No parameters.
        DRAIN_MDL = 2,
        /// Makes a context: [`CreateContext`].
        CREATE_CONTEXT = 3,
        /// Ends a context, its VIs, CQs, listeners and connections; afterwards the card touches none of its
        /// memory: [`Target`].
        DESTROY_CONTEXT = 4,
        /// Makes a completion queue: [`Target`], `object` is the CQ number.
        CREATE_CQ = 5,
        /// Ends a completion queue; `INVALID_STATE` while a VI uses it: [`Target`].
        DESTROY_CQ = 6,
        /// Makes a VI, Idle: [`CreateVi`].
        CREATE_VI = 7,
        /// Ends a VI, Idle or not; its peer loses the connection: [`Target`], `object` is the VI number.
        DESTROY_VI = 8,
        /// Waits for a connection request at a discriminator: [`Connect`] (its block's `local` is the address;
        /// `vi` is unused). Completes with the request in the block. Cancelled by its tag.
        LISTEN = 9,
        /// Asks for a connection of an Idle VI to the block's `remote`: [`Connect`]. Completes when it is made
        /// (the block has the peer's attributes), refused or nobody waits there.
        CONNECT = 10,
        /// Takes back a LISTEN, CONNECT, CONNECT_PEER or ACCEPT: [`Cancel`]. Both commands complete; the one taken back with
        /// `CANCELLED`, or with its result if it came first.
        CANCEL = 11,
        /// Accepts a connection request: [`Answer`].
        ACCEPT = 12,
        /// Refuses a connection request: [`Answer`]; `vi` is unused.
        REJECT = 13,
        /// Ends a VI's connection, flushes its queues and makes it Idle: [`Target`].
        DISCONNECT = 14,
        /// Gives an Idle VI other attributes and another protection tag: [`SetVi`]. `INVALID_STATE` if it is not
        /// Idle; after any failure it has those that it had.
        SET_VI = 15,
        /// Asks for a connection of an Idle VI with one whose CONNECT_PEER asks for it: [`Connect`]. Completes when it is made
        /// (the block has the peer's attributes), when the two VIs do not go together (`INVALID_RELIABILITY_LEVEL`,
        /// `INVALID_MTU`; both commands), or when the NIC asked has no driver (`NO_MATCH`) or does not exist.
        CONNECT_PEER = 16,
        /// Finds the NICs of the fabric whose drivers are attached, this one counted: [`Discover`].
        DISCOVER = 17,
    }
}

/// Parameters of [`Opcode::ADD_MRT_CHUNK`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MrtChunk {
    /// Which chunk: entries `chunk * MRT_CHUNK_ENTRIES` and on.
    pub chunk: u32,
    /// Zero.
    pub reserved: u32,
    /// Guest-physical address, aligned to 4096.
    pub address: u64,
    /// Zero.
    pub reserved2: [u64; 4],
}
shared_layout!(MrtChunk, 48, {
    chunk @ 0, reserved @ 4, address @ 8, reserved2 @ 16,
});

/// Parameters of [`Opcode::CREATE_CONTEXT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CreateContext {
    /// Context number, 1 and up.
    pub context: u16,
    /// Entries of the Token Table, as a power of two.
    pub token_table_log2: u8,
    /// Entries of the MCQ, as a power of two.
    pub mcq_log2: u8,
    /// Zero.
    pub reserved: u32,
    /// Guest-physical address of the Token Table, zeroed; aligned to 4096.
    pub token_table: u64,
    /// Guest-physical address of the MCQ, zeroed; aligned to 4096.
    pub mcq: u64,
    /// Zero.
    pub reserved2: [u64; 3],
}
shared_layout!(CreateContext, 48, {
    context @ 0, token_table_log2 @ 2, mcq_log2 @ 3, reserved @ 4, token_table @ 8, mcq @ 16, reserved2 @ 24,
});

/// Parameters that name an object of a context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Target {
    /// Context number.
    pub context: u16,
    /// CQ or VI number.
    pub object: u16,
    /// Zero.
    pub reserved: [u32; 11],
}
shared_layout!(Target, 48, {
    context @ 0, object @ 2, reserved @ 4,
});

/// A VI's attributes as the card and the peer know them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ViAttributes {
    /// One [`ReliabilityLevel`](crate::status::ReliabilityLevel).
    pub reliability_level: u16,
    /// `VI_RDMA_*`.
    pub flags: u16,
    /// Bytes of the longest message.
    pub max_transfer_size: u32,
}
shared_layout!(ViAttributes, 8, {
    reliability_level @ 0, flags @ 2, max_transfer_size @ 4,
});

/// VI flag: the peer may write by RDMA.
pub const VI_RDMA_WRITE: u16 = 0x0001;
/// VI flag: the peer may read by RDMA.
pub const VI_RDMA_READ: u16 = 0x0002;

/// Parameters of [`Opcode::CREATE_VI`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CreateVi {
    /// Context number.
    pub context: u16,
    /// VI number.
    pub vi: u16,
    /// CQ of the send queue, or [`NO_CQ`](crate::NO_CQ).
    pub send_cq: u16,
    /// CQ of the receive queue, or [`NO_CQ`](crate::NO_CQ).
    pub receive_cq: u16,
    /// Protection tag.
    pub ptag: u32,
    /// Attributes.
    pub attributes: ViAttributes,
    /// Zero.
    pub reserved: [u32; 7],
}
shared_layout!(CreateVi, 48, {
    context @ 0, vi @ 2, send_cq @ 4, receive_cq @ 6, ptag @ 8, attributes @ 12, reserved @ 20,
});

/// Parameters of [`Opcode::SET_VI`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetVi {
    /// Context number.
    pub context: u16,
    /// VI number.
    pub vi: u16,
    /// Protection tag.
    pub ptag: u32,
    /// Attributes.
    pub attributes: ViAttributes,
    /// Zero.
    pub reserved: [u64; 4],
}
shared_layout!(SetVi, 48, {
    context @ 0, vi @ 2, ptag @ 4, attributes @ 8, reserved @ 16,
});

/// Parameters of [`Opcode::LISTEN`], [`Opcode::CONNECT`] and [`Opcode::CONNECT_PEER`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Connect {
    /// Context number.
    pub context: u16,
    /// VI number.
    pub vi: u16,
    /// Zero.
    pub reserved: u32,
    /// Guest-physical address of a [`ConnectBlock`], aligned to 8; the card's until the command completes.
    pub block: u64,
    /// Zero.
    pub reserved2: [u64; 4],
}
shared_layout!(Connect, 48, {
    context @ 0, vi @ 2, reserved @ 4, block @ 8, reserved2 @ 16,
});

/// Parameters of [`Opcode::CANCEL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Cancel {
    /// Tag of the command to take back.
    pub tag: u64,
    /// Zero.
    pub reserved: [u64; 5],
}
shared_layout!(Cancel, 48, {
    tag @ 0, reserved @ 8,
});

/// Parameters of [`Opcode::ACCEPT`] and [`Opcode::REJECT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Answer {
    /// Context number of the listener.
    pub context: u16,
    /// VI number.
    pub vi: u16,
    /// The request, as its LISTEN returned it.
    pub connection: u32,
    /// Zero.
    pub reserved: [u64; 5],
}
shared_layout!(Answer, 48, {
    context @ 0, vi @ 2, connection @ 4, reserved @ 8,
});

/// A network address: a host and a discriminator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NetAddress {
    /// Bytes of `host` in use: [`NIC_ADDRESS_LEN`], or 0 for "this NIC".
    pub host_len: u16,
    /// Bytes of `discriminator` in use.
    pub discriminator_len: u16,
    /// The NIC's address.
    pub host: [u8; NIC_ADDRESS_LEN],
    /// Zero.
    pub reserved: u16,
    /// Who at that NIC.
    pub discriminator: [u8; MAX_DISCRIMINATOR_LEN],
}
shared_layout!(NetAddress, 40, {
    host_len @ 0, discriminator_len @ 2, host @ 4, reserved @ 10, discriminator @ 12,
});

/// What LISTEN, CONNECT and CONNECT_PEER ask and answer, in guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConnectBlock {
    /// LISTEN: where to wait. Others: who asks.
    pub local: NetAddress,
    /// LISTEN: the card writes who asks. Others: whom to ask.
    pub remote: NetAddress,
    /// The card writes the peer's attributes.
    pub attributes: ViAttributes,
    /// LISTEN: the card writes the number that ACCEPT or REJECT name.
    pub connection: u32,
    /// Zero.
    pub reserved: u32,
}
shared_layout!(ConnectBlock, 96, {
    local @ 0, remote @ 40, attributes @ 80, connection @ 88, reserved @ 92,
});

/// Parameters of [`Opcode::DISCOVER`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Discover {
    /// How many NICs to leave out, in the order of their addresses.
    pub first: u32,
    /// Zero.
    pub reserved: u32,
    /// Guest-physical address of a [`NicList`], aligned to 8; the card's until the command completes.
    pub list: u64,
    /// Zero.
    pub reserved2: [u64; 4],
}
shared_layout!(Discover, 48, {
    first @ 0, reserved @ 4, list @ 8, reserved2 @ 16,
});

/// NICs that a [`NicList`] holds.
pub const NIC_LIST_ENTRIES: usize = 64;

/// A NIC of the fabric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NicEntry {
    /// Its address.
    pub address: [u8; NIC_ADDRESS_LEN],
    /// Zero.
    pub reserved: u16,
}
shared_layout!(NicEntry, 8, {
    address @ 0, reserved @ 6,
});

/// What DISCOVER answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NicList {
    /// NICs of the fabric.
    pub total: u32,
    /// Entries of `nics` in use.
    pub count: u32,
    /// NICs in the order of their addresses.
    pub nics: [NicEntry; NIC_LIST_ENTRIES],
}
shared_layout!(NicList, 520, {
    total @ 0, count @ 4, nics @ 8,
});
