//! VIA's C interface, `include/vipl.h`: translation between C's types and this library's, and nothing else.
//!
//! What C promises is what vipl.h says: pointers are null or point to what their type says, and descriptors stay in
//! place while they are posted. Handles may have any value.
#![expect(unsafe_code, non_snake_case, reason = "C's names and C's pointers")]

mod connect;
mod cq;
mod error_callback;
mod management;
mod memory;
mod name_service;
mod nic;
mod notify;
mod pointers;
mod stderr_log;
mod transfer;
mod types;
mod vendor;
mod vi;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::name_service::NameError;
use types::{VipReturn, VipUlong};

/// Defines functions of the interface. What they give is a `Result<VipReturn>`, with an error that is named, or else [`Error`]. A
/// panic in one is a mistake of this library and becomes `VIP_ERROR_RESOURCE`, as C cannot be unwound.
macro_rules! entry_points {
    ($($(#[$meta:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $error:ty)? $body:block)+) => { $(
        $(#[$meta])*
        #[unsafe(no_mangle)]
        pub(super) unsafe extern "C" fn $name($($argument: $type),*) -> $crate::capi::types::VipReturn {
            $crate::capi::guarded::<$crate::capi::entry_points!(@error $($error)?)>(move || $body)
        }
    )+ };
    (@error) => { $crate::error::Error };
    (@error $error:ty) => { $error };
}
use entry_points;

#[inline(always)]
fn guarded<E: Into<Error>>(call: impl FnOnce() -> Result<VipReturn, E>) -> VipReturn {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => code(&error.into()),
        Err(_) => VipReturn::ERROR_RESOURCE,
    }
}

/// The return code that stands for an error.
#[cold]
fn code(error: &Error) -> VipReturn {
    match error {
        Error::InvalidHandle(_) | Error::InvalidParameter(_) | Error::Malformed(_) => {
            VipReturn::INVALID_PARAMETER
        }
        Error::OutOfResources(_) | Error::NicFailed | Error::Closed => VipReturn::ERROR_RESOURCE,
        Error::TimedOut => VipReturn::TIMEOUT,
        Error::Rejected => VipReturn::REJECT,
        Error::InvalidReliabilityLevel => VipReturn::INVALID_RELIABILITY_LEVEL,
        Error::InvalidTransferSize => VipReturn::INVALID_MTU,
        Error::InvalidQualityOfService => VipReturn::INVALID_QOS,
        Error::InvalidProtectionTag => VipReturn::INVALID_PTAG,
        Error::InvalidRdmaRead => VipReturn::INVALID_RDMAREAD,
        Error::InvalidState(_) => VipReturn::INVALID_STATE,
        Error::NoMatch => VipReturn::NO_MATCH,
        Error::NotReachable => VipReturn::NOT_REACHABLE,
        Error::NameService(error) => {
            if matches!(error, NameError::Unreadable { .. } | NameError::Malformed { .. }) {
                log::error!("{error}");
            }
            VipReturn::ERROR_NAMESERVICE
        }
        Error::NotSupported => VipReturn::ERROR_NOT_SUPPORTED,
        Error::Agent(error) => {
            log::error!("{error}");
            VipReturn::ERROR_RESOURCE
        }
    }
}

/// A time-out in milliseconds. Programs say "for ever" with 32 bits of ones or with 64.
fn timeout(milliseconds: VipUlong) -> Option<Duration> {
    (milliseconds < 0xffff_ffff).then(|| Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests;
