//! The VIPL descriptor (VIA 1.0; Intel's vipl.h): a control segment of 32 bytes and up to
//! [`MAX_SEGMENTS`](crate::MAX_SEGMENTS) segments of 16 bytes, contiguous, aligned to 64 bytes.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{open_enum, shared_layout};

/// Alignment of a descriptor's address in bytes.
pub const ALIGNMENT: u64 = 64;

/// The first 32 bytes of a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ControlSegment {
    /// Virtual address of the next descriptor on the work queue; VIPL's while posted.
    pub next: u64,
    /// Memory handle of the next descriptor; VIPL's while posted.
    pub next_handle: u32,
    /// Segments that follow, an address segment counted.
    pub segment_count: u16,
    /// Operation and options: [`Control`].
    pub control: u16,
    /// Zero.
    pub reserved: u32,
    /// Immediate data: the sender's to give, the NIC's to write on receive.
    pub immediate: u32,
    /// Bytes to send, room to receive, then bytes received.
    pub length: u32,
    /// [`DescriptorStatus`]; cleared by VIPL at post, written by the NIC at completion.
    pub status: u32,
}
shared_layout!(ControlSegment, 32, {
    next @ 0, next_handle @ 8, segment_count @ 12, control @ 14, reserved @ 16, immediate @ 20, length @ 24, status @ 28,
});

/// Where the NIC writes immediate data in a descriptor.
pub const IMMEDIATE_OFFSET: u64 = 20;

/// Where the NIC writes length and status in a descriptor: one aligned 64-bit word, length in the low half,
/// stored with release order after everything else of the completion.
pub const COMPLETION_OFFSET: u64 = 24;

/// A data or address segment: 16 bytes.
///
/// In an address segment (the first of an RDMA descriptor) address and handle are the remote side's and
/// `length` is reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Segment {
    /// Virtual address in the owner's address space.
    pub address: u64,
    /// Memory handle of the region that holds the bytes.
    pub handle: u32,
    /// Bytes.
    pub length: u32,
}
shared_layout!(Segment, 16, {
    address @ 0, handle @ 8, length @ 12,
});

open_enum! {
    /// The operation in a descriptor's control field.
    Operation: u16 {
        /// Send on a send queue, receive on a receive queue.
        SEND_RECEIVE = 0,
        /// RDMA write.
        RDMA_WRITE = 1,
        /// RDMA read.
        RDMA_READ = 2,
    }
}

bitflags! {
    /// A descriptor's control field besides the operation (low two bits).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Control: u16 {
        /// `immediate` is valid.
        const IMMEDIATE = 0x0004;
        /// Start only after all earlier RDMA reads of this queue have finished.
        const QUEUE_FENCE = 0x0008;
    }
}

impl Control {
    /// The control field's bits that hold the operation.
    pub const OPERATION_MASK: u16 = 0x0003;
    /// The control field's bits that must be zero.
    pub const RESERVED_MASK: u16 = 0xfff0;
}

bitflags! {
    /// A descriptor's status field.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DescriptorStatus: u32 {
        /// Completed, with or without error.
        const DONE = 0x0000_0001;
        /// The descriptor is malformed.
        const FORMAT_ERROR = 0x0000_0002;
        /// A local segment is not the VI's to use.
        const PROTECTION_ERROR = 0x0000_0004;
        /// Too long: for the VI, or for the receive descriptor.
        const LENGTH_ERROR = 0x0000_0008;
        /// Only a part arrived.
        const PARTIAL_ERROR = 0x0000_0010;
        /// Flushed by a disconnect or by the Error state.
        const FLUSHED_ERROR = 0x0000_0020;
        /// The transport failed.
        const TRANSPORT_ERROR = 0x0000_0040;
        /// The remote side refused the RDMA operation.
        const RDMA_PROTECTION_ERROR = 0x0000_0080;
        /// The remote side's receive descriptor was missing or faulty.
        const REMOTE_DESCRIPTOR_ERROR = 0x0000_0100;
        /// Completed a receive.
        const OP_RECEIVE = 0x0001_0000;
        /// Completed an RDMA write.
        const OP_RDMA_WRITE = 0x0002_0000;
        /// A receive descriptor consumed by the peer's RDMA write with immediate data.
        const OP_REMOTE_RDMA_WRITE = 0x0003_0000;
        /// Completed an RDMA read.
        const OP_RDMA_READ = 0x0004_0000;
        /// Immediate data came.
        const IMMEDIATE = 0x0008_0000;
    }
}

impl DescriptorStatus {
    /// All error bits.
    pub const ERROR_MASK: u32 = 0x0000_01fe;
}
