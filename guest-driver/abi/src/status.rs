//! Outcomes: of control commands and of the Kernel Agent's calls.

use crate::open_enum;

open_enum! {
    /// The outcome of a control command or of a Kernel Agent call. Values below 0x100 are those of
    /// `VIP_RETURN` (Intel's vipl.h), so that VIPL passes them on as they are.
    Status: u32 {
        /// Done.
        SUCCESS = 0,
        /// What was asked for is still under way; of the Kernel Agent only.
        NOT_DONE = 1,
        /// A value that the call does not allow, or a number of an object that does not exist.
        INVALID_PARAMETER = 2,
        /// The card or the Kernel Agent is out of something.
        ERROR_RESOURCE = 3,
        /// The time given ran out.
        TIMEOUT = 4,
        /// The other side refused the connection.
        REJECT = 5,
        /// The VIs' reliability levels differ, or the level does not exist.
        INVALID_RELIABILITY_LEVEL = 6,
        /// The VIs' maximum transfer sizes differ, or the size is beyond the NIC's.
        INVALID_MTU = 7,
        /// Quality of service that the NIC does not have.
        INVALID_QOS = 8,
        /// No such protection tag.
        INVALID_PTAG = 9,
        /// RDMA read is not supported here.
        INVALID_RDMAREAD = 10,
        /// The object is in a state that does not allow the call.
        INVALID_STATE = 12,
        /// Nobody waits at the address.
        NO_MATCH = 14,
        /// No NIC of the fabric has the address.
        NOT_REACHABLE = 15,
        /// The card does not know the command.
        NOT_SUPPORTED = 16,
        /// The command was taken back by a cancel, or its context ended.
        CANCELLED = 0x100,
        /// The card or the context has failed for good.
        NIC_FAILED = 0x101,
    }
}

open_enum! {
    /// `VIP_ERROR_CODE`: what an asynchronous error is about (VIA specification, error callback).
    ErrorCode: u32 {
        /// A descriptor was malformed in a way that it cannot itself report.
        POST_DESC = 0,
        /// The connection is lost and the VI is in the Error state.
        CONN_LOST = 1,
        /// A message came and no receive descriptor was posted.
        RECVQ_EMPTY = 2,
        /// More descriptors were posted than a queue holds.
        VI_OVERRUN = 3,
        /// An incoming RDMA write failed the protection check.
        RDMAW_PROT = 4,
        /// An incoming RDMA write was corrupted.
        RDMAW_DATA = 5,
        /// An incoming RDMA write ended before its last byte.
        RDMAW_ABORT = 6,
        /// An incoming RDMA read failed the protection check.
        RDMAR_PROT = 7,
        /// A completion could not be written.
        COMP_PROT = 8,
        /// A transport failure while serving an incoming RDMA operation.
        RDMA_TRANSPORT = 9,
        /// The NIC or the context has failed.
        CATASTROPHIC = 10,
    }
}

open_enum! {
    /// `VIP_RELIABILITY_LEVEL`: one level for a VI, an OR of levels for a NIC.
    ReliabilityLevel: u16 {
        /// Unreliable Delivery.
        UNRELIABLE = 1,
        /// Reliable Delivery.
        RELIABLE_DELIVERY = 2,
        /// Reliable Reception.
        RELIABLE_RECEPTION = 4,
    }
}
