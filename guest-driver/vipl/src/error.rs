//! Why a call of VIPL failed.

use vianic_abi::status::Status;

use crate::agent::AgentError;
use crate::descriptor::Malformed;
use crate::name_service::NameError;

/// Why a call failed. The C interface gives each as one `VIP_RETURN`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The object that a handle names is not there: never was, was destroyed, or went with its NIC handle.
    #[error("there is no such {0}")]
    InvalidHandle(&'static str),
    /// A value that the call does not allow.
    #[error("{0}")]
    InvalidParameter(&'static str),
    /// The descriptor is malformed; it was not posted.
    #[error("the descriptor is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// The library, the Kernel Agent or the card is out of something, or the object is in use.
    #[error("{0}")]
    OutOfResources(&'static str),
    /// The time given ran out.
    #[error("the time ran out")]
    TimedOut,
    /// The other side refused the connection.
    #[error("the other side refused the connection")]
    Rejected,
    /// The VIs' reliability levels differ, or the NIC does not have the level.
    #[error("the reliability levels differ, or the NIC does not have the level")]
    InvalidReliabilityLevel,
    /// The VIs' maximum transfer sizes differ, or the size is beyond the NIC's.
    #[error("the maximum transfer sizes differ, or the NIC does not have the size")]
    InvalidTransferSize,
    /// Quality of service that the NIC does not have.
    #[error("the NIC has no such quality of service")]
    InvalidQualityOfService,
    /// The protection tag is not one of this NIC handle.
    #[error("the protection tag is not one of this NIC handle")]
    InvalidProtectionTag,
    /// RDMA read is not supported here.
    #[error("the NIC has no RDMA read at this reliability level")]
    InvalidRdmaRead,
    /// The VI is in a state that does not allow the call.
    #[error("{0}")]
    InvalidState(&'static str),
    /// Nobody waits at the address.
    #[error("nobody waits at that address")]
    NoMatch,
    /// No NIC of the fabric has the address.
    #[error("no NIC has that address")]
    NotReachable,
    /// The name service has no answer.
    #[error(transparent)]
    NameService(#[from] NameError),
    /// This library or the card cannot do it.
    #[error("not supported")]
    NotSupported,
    /// The card or this process's context has failed for good. Close the NIC.
    #[error("the NIC has failed; close it and open it again")]
    NicFailed,
    /// The NIC handle was closed meanwhile.
    #[error("the NIC handle was closed")]
    Closed,
    /// The Kernel Agent could not be asked.
    #[error(transparent)]
    Agent(AgentError),
}

impl From<AgentError> for Error {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Refused(status) => match status {
                Status::INVALID_PARAMETER => Self::InvalidParameter("the Kernel Agent refused a parameter"),
                Status::ERROR_RESOURCE => {
                    Self::OutOfResources("out of resources, or the object is still in use")
                }
                Status::TIMEOUT => Self::TimedOut,
                Status::REJECT => Self::Rejected,
                Status::INVALID_RELIABILITY_LEVEL => Self::InvalidReliabilityLevel,
                Status::INVALID_MTU => Self::InvalidTransferSize,
                Status::INVALID_QOS => Self::InvalidQualityOfService,
                Status::INVALID_PTAG => Self::InvalidProtectionTag,
                Status::INVALID_RDMAREAD => Self::InvalidRdmaRead,
                Status::INVALID_STATE => Self::InvalidState("the object's state does not allow this"),
                Status::NO_MATCH => Self::NoMatch,
                Status::NOT_REACHABLE => Self::NotReachable,
                Status::NOT_SUPPORTED => Self::NotSupported,
                Status::CANCELLED => Self::Closed,
                Status::NIC_FAILED => Self::NicFailed,
                _ => Self::Agent(error),
            },
            AgentError::NoSuchNic(_) => Self::InvalidHandle("NIC"),
            AgentError::ShutDown => Self::Closed,
            other => Self::Agent(other),
        }
    }
}

/// What a call gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;
