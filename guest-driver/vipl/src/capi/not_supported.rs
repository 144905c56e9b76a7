//! What this provider does not do: the functions exist, and say so.

use std::ffi::c_void;

use crate::capi::entry_points;
use crate::capi::pointers::Handle;
use crate::capi::types::VipUlong;
use crate::error::Error;

/// Declares functions that return `VIP_ERROR_NOT_SUPPORTED`.
macro_rules! not_supported {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?);)+) => {
        entry_points! { $(fn $name($($argument: $type),*) {
            $(let _ = $argument;)*
            Err(Error::NotSupported)
        })+ }
    };
}

not_supported! {
    fn VipQuerySystemManagementInfo(NicHandle: Handle, InfoType: VipUlong, SysManInfo: *mut c_void);
}
