//! The attach request: how a driver that has set up its virtqueues tells the card where context 0 is.
//!
//! The driver puts one chain on virtqueue 1: an [`AttachRequest`] to read and an [`AttachReply`] to write. The card
//! answers when its NIC memory is mapped and context 0 works. Nothing else ever travels on that queue, so
//! that a queue which starts at index 0 belongs to a driver that has not attached yet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::shared_layout;

/// Where context 0 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AttachRequest {
    /// [`ABI_VERSION`](crate::ABI_VERSION) of the driver.
    pub abi_version: u32,
    /// Entries of the Token Table, as a power of two.
    pub token_table_log2: u8,
    /// Entries of the MCQ, as a power of two.
    pub mcq_log2: u8,
    /// Zero.
    pub reserved: u16,
    /// Guest-physical address of context 0's Token Table, zeroed; aligned to 4096.
    pub token_table: u64,
    /// Guest-physical address of context 0's MCQ, zeroed; aligned to 4096.
    pub mcq: u64,
    /// Guest-physical address of the MDL_Insert counter (32 bits): MDL entries inserted so far.
    pub mdl_insert: u64,
}
shared_layout!(AttachRequest, 32, {
    abi_version @ 0, token_table_log2 @ 4, mcq_log2 @ 5, reserved @ 6, token_table @ 8, mcq @ 16, mdl_insert @ 24,
});

/// The card's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AttachReply {
    /// [`Status`](crate::status::Status): `NOT_SUPPORTED` for another ABI version, `INVALID_PARAMETER` for addresses
    /// outside guest memory, `INVALID_STATE` if attached already, `ERROR_RESOURCE` without NIC memory.
    pub status: u32,
    /// [`ABI_VERSION`](crate::ABI_VERSION) of the card.
    pub abi_version: u32,
}
shared_layout!(AttachReply, 8, {
    status @ 0, abi_version @ 4,
});
