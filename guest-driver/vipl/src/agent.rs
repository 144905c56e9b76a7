//! What a Kernel Agent answers: the control path, one [`Agent`] for each context.
//!
//! [`kernel`] asks the Kernel Agent in the kernel by ioctl. Posting and completing never come this way: they go
//! through the memory that [`Agent::open_context`] gives.

pub mod direct;
pub mod kernel;

use std::fmt;
use std::io;
use std::time::Duration;

use vianic_abi::command::{NetAddress, NicList, ViAttributes};
use vianic_abi::nic_memory::Registers;
use vianic_abi::status::Status;

use crate::mapping::ContextMemory;

/// One open NIC: calls about its context and the objects in it.
///
/// Every call may come from any thread at any time. Calls that block ([`connect_wait`](Self::connect_wait),
/// [`connect_request`](Self::connect_request), [`connect_peer_wait`](Self::connect_peer_wait), [`wait`](Self::wait)) hold up no others. A time-out of `None` never comes.
/// Dropping the last reference releases the context and everything in it, as the death of the process would.
pub trait Agent: Send + Sync + fmt::Debug {
    /// What the NIC is.
    ///
    /// # Errors
    /// [`AgentError::Io`] if the card is gone.
    fn query_nic(&self) -> Result<NicInfo, AgentError>;

    /// Makes the context and gives its memory. Called once, before any of the calls below.
    ///
    /// # Errors
    /// `ERROR_RESOURCE` when the card's contexts are taken, `NOT_SUPPORTED` for another version of the contract.
    fn open_context(&self) -> Result<ContextMemory, AgentError>;

    /// Makes a protection tag; never [`DEFAULT_PTAG`](vianic_abi::mrt::DEFAULT_PTAG).
    ///
    /// # Errors
    /// `ERROR_RESOURCE`.
    fn create_ptag(&self) -> Result<u32, AgentError>;

    /// Ends a protection tag.
    ///
    /// # Errors
    /// `ERROR_RESOURCE` while a VI or a region has it, `INVALID_PARAMETER` if there is none such.
    fn destroy_ptag(&self, ptag: u32) -> Result<(), AgentError>;

    /// Registers memory and gives its handle, never 0 or `0xffff_ffff`. The same range may be registered again and
    /// gets another handle.
    ///
    /// # Errors
    /// `ERROR_RESOURCE`, `INVALID_PARAMETER`, `INVALID_PTAG`, `INVALID_RDMAREAD`.
    ///
    /// # Safety
    /// From now until the handle is deregistered the card reads and writes these bytes at any time: the range must stay
    /// mapped, and nobody may hold a Rust reference into it that excludes this.
    #[expect(unsafe_code, reason = "the caller promises something about the memory")]
    unsafe fn register_memory(&self, region: &Region) -> Result<u32, AgentError>;

    /// Deregisters the region that starts at `address`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` if `handle` is not a region that starts there.
    fn deregister_memory(&self, address: usize, handle: u32) -> Result<(), AgentError>;

    /// Gives a region another tag and other permissions. When it returns, the card goes by the new ones; after any failure
    /// the region is as it was.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` if no region with that handle is around the address, `INVALID_PTAG`, `INVALID_RDMAREAD`.
    fn set_memory_attributes(&self, change: &RegionChange) -> Result<(), AgentError>;

    /// Makes a completion queue and gives its number.
    ///
    /// # Errors
    /// `ERROR_RESOURCE`.
    fn create_cq(&self) -> Result<u16, AgentError>;

    /// Ends a completion queue. Waits on its NRA word end or run into their time-outs.
    ///
    /// # Errors
    /// `ERROR_RESOURCE` while a VI uses it, `INVALID_PARAMETER` if there is none such.
    fn destroy_cq(&self, cq: u16) -> Result<(), AgentError>;

    /// Makes a VI, Idle, and gives its number.
    ///
    /// # Errors
    /// `ERROR_RESOURCE`, `INVALID_PARAMETER`, `INVALID_PTAG`, `INVALID_RELIABILITY_LEVEL`, `INVALID_MTU`,
    /// `INVALID_RDMAREAD`.
    fn create_vi(&self, vi: &NewVi) -> Result<u16, AgentError>;

    /// Gives an Idle VI other attributes and another tag; after any failure it is as it was.
    ///
    /// # Errors
    /// `INVALID_STATE` unless it is Idle, `INVALID_PARAMETER` if there is none such; as [`create_vi`](Self::create_vi) what is wrong with
    /// the attributes.
    fn set_vi_attributes(&self, vi: u16, attributes: ViAttributes, ptag: u32) -> Result<(), AgentError>;

    /// Ends a VI in whatever state. When it returns, the card has written its last to the VI's descriptors and to
    /// the MCQ about it. Waits on its NRA words end or run into their time-outs.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` if there is none such.
    fn destroy_vi(&self, vi: u16) -> Result<(), AgentError>;

    /// Waits for a connection request at `local`, of which only the discriminator counts. A time-out of zero looks once.
    ///
    /// # Errors
    /// `TIMEOUT`, `ERROR_RESOURCE`, `INVALID_PARAMETER`.
    fn connect_wait(
        &self,
        local: &NetAddress,
        timeout: Option<Duration>,
    ) -> Result<IncomingRequest, AgentError>;

    /// Accepts a connection request with an Idle VI. A mismatch of attributes leaves the request pending.
    ///
    /// # Errors
    /// `INVALID_RELIABILITY_LEVEL`, `INVALID_MTU`: mismatch. `TIMEOUT`: the requester has gone; the request is used up.
    /// `INVALID_STATE`: the VI is not Idle. `INVALID_PARAMETER`: no such request or VI.
    fn connect_accept(&self, connection: u32, vi: u16) -> Result<(), AgentError>;

    /// Refuses a connection request; uses it up.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`: no such request.
    fn connect_reject(&self, connection: u32) -> Result<(), AgentError>;

    /// Asks for a connection of an Idle VI and gives the peer's attributes. The time-out is not zero.
    ///
    /// # Errors
    /// `TIMEOUT`, `REJECT`, `NO_MATCH`, `NOT_REACHABLE`, `INVALID_STATE`, `INVALID_PARAMETER`.
    fn connect_request(
        &self,
        request: &OutgoingRequest,
        timeout: Option<Duration>,
    ) -> Result<ViAttributes, AgentError>;

    /// Begins to connect an Idle VI with one that asks for it, and returns at once. The time-out, which is not zero, counts
    /// from here. `local` is what the peer asks for.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`; `INVALID_STATE` if an attempt is under way for the VI, or what became of one was not asked; `ERROR_RESOURCE`.
    fn connect_peer_request(
        &self,
        request: &OutgoingRequest,
        timeout: Option<Duration>,
    ) -> Result<(), AgentError>;

    /// Waits for what becomes of the attempt that [`connect_peer_request`](Self::connect_peer_request) began, and gives the
    /// peer's attributes. `None`: it goes on. Whatever became of it is told once. A time-out of zero looks once.
    ///
    /// # Errors
    /// `INVALID_STATE`: there is no attempt, or what became of it was told already. Why it has failed: `TIMEOUT`,
    /// `INVALID_RELIABILITY_LEVEL`, `INVALID_MTU`, `NO_MATCH`, `NOT_REACHABLE`, `ERROR_RESOURCE`, `CANCELLED`.
    fn connect_peer_wait(
        &self,
        vi: u16,
        timeout: Option<Duration>,
    ) -> Result<Option<ViAttributes>, AgentError>;

    /// Ends a VI's connection, or its attempt with a peer. When it returns, all descriptors that were posted before it have completed and the VI is
    /// Idle. An Idle VI may be disconnected.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` if there is none such.
    fn disconnect(&self, vi: u16) -> Result<(), AgentError>;

    /// Finds the NICs of the fabric whose drivers are attached, this one counted, in the order of their addresses, without the first
    /// `first` of them.
    ///
    /// # Errors
    /// `ERROR_RESOURCE`.
    fn discover(&self, first: u32) -> Result<NicList, AgentError>;

    /// Sleeps until the number of times that the NRA word has fired differs from `seen`, as a futex does, and gives the
    /// number. It may return early with `seen`: the caller looks at its queue and waits again.
    ///
    /// # Errors
    /// `TIMEOUT`; `NIC_FAILED` when the context has failed.
    fn wait(&self, nra_word: u32, seen: u32, timeout: Option<Duration>) -> Result<u32, AgentError>;

    /// The handle is being closed: calls that block, now or later, return [`AgentError::ShutDown`] promptly.
    fn shut_down(&self);
}

/// What a NIC is.
#[derive(Clone, Copy, Debug)]
pub struct NicInfo {
    /// A copy of the card's registers.
    pub registers: Registers,
    /// Bytes that this process may register, or `u64::MAX`.
    pub max_register_bytes: u64,
}

/// Memory to register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub address: usize,
    /// Bytes; more than 0.
    pub length: usize,
    /// Protection tag.
    pub ptag: u32,
    /// [`ACCESS_*`](vianic_abi::mrt::ACCESS_RDMA_WRITE).
    pub access: u16,
}

/// What a region shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionChange {
    /// Any address in the region.
    pub address: usize,
    /// Its handle.
    pub handle: u32,
    /// Protection tag.
    pub ptag: u32,
    /// [`ACCESS_*`](vianic_abi::mrt::ACCESS_RDMA_WRITE).
    pub access: u16,
}

/// A VI to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewVi {
    /// Attributes.
    pub attributes: ViAttributes,
    /// Protection tag.
    pub ptag: u32,
    /// CQ of the send queue, or [`NO_CQ`](vianic_abi::NO_CQ).
    pub send_cq: u16,
    /// CQ of the receive queue, or [`NO_CQ`](vianic_abi::NO_CQ).
    pub receive_cq: u16,
}

/// A connection request that has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncomingRequest {
    /// Its number, for [`Agent::connect_accept`] or [`Agent::connect_reject`].
    pub connection: u32,
    /// Who asks.
    pub remote: NetAddress,
    /// The attributes of the asking VI.
    pub attributes: ViAttributes,
}

/// A connection request to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutgoingRequest {
    /// The VI that asks.
    pub vi: u16,
    /// Who asks; the host part does not count.
    pub local: NetAddress,
    /// Whom.
    pub remote: NetAddress,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// There is no NIC of that name.
    #[error("there is no NIC {0}")]
    NoSuchNic(String),
    /// The Kernel Agent or the card answered with a status that is not success.
    #[error("the Kernel Agent answered {0:?}")]
    Refused(Status),
    /// The Kernel Agent could not be asked.
    #[error("{call} failed: {source}")]
    Io {
        /// The call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What the Kernel Agent gave cannot be right, or is of another version.
    #[error("the Kernel Agent cannot be used: {0}")]
    Unusable(String),
    /// The NIC handle was closed while the call waited.
    #[error("the NIC handle was closed")]
    ShutDown,
}

impl AgentError {
    /// The failure as a status.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Refused(status) => *status,
            Self::NoSuchNic(_) => Status::INVALID_PARAMETER,
            Self::Io { .. } | Self::Unusable(_) => Status::ERROR_RESOURCE,
            Self::ShutDown => Status::CANCELLED,
        }
    }
}

impl From<Status> for AgentError {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}
