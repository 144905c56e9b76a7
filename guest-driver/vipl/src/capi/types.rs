//! The structures and values of vipl.h.

use std::ffi::{c_char, c_int, c_ulong, c_ushort, c_void};

use crate::capi::pointers::{Handle, OutAddresses};
use crate::descriptor::ControlSegment;

/// `VIP_ULONG`.
pub(crate) type VipUlong = c_ulong;
/// `VIP_BOOLEAN`.
pub(crate) type VipBoolean = c_int;
/// `VIP_MEM_HANDLE`.
pub(crate) type VipMemHandle = u32;
/// `VIP_DESCRIPTOR *`.
pub(crate) type DescriptorPtr = *mut ControlSegment;

macro_rules! c_enum {
    ($(#[$meta:meta])* $name:ident { $($value:ident = $number:expr,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(transparent)]
        pub(crate) struct $name(pub(crate) c_int);

        impl $name {
            $(pub(crate) const $value: Self = Self($number);)+

            /// Names and numbers, for the test against the header.
            #[cfg(test)]
            pub(crate) const ALL: &'static [(&'static str, c_int)] = &[$((stringify!($value), $number)),+];
        }
    };
}

c_enum! {
    /// `VIP_RETURN`.
    VipReturn {
        SUCCESS = 0,
        NOT_DONE = 1,
        INVALID_PARAMETER = 2,
        ERROR_RESOURCE = 3,
        TIMEOUT = 4,
        REJECT = 5,
        INVALID_RELIABILITY_LEVEL = 6,
        INVALID_MTU = 7,
        INVALID_QOS = 8,
        INVALID_PTAG = 9,
        INVALID_RDMAREAD = 10,
        DESCRIPTOR_ERROR = 11,
        INVALID_STATE = 12,
        ERROR_NAMESERVICE = 13,
        NO_MATCH = 14,
        NOT_REACHABLE = 15,
        ERROR_NOT_SUPPORTED = 16,
    }
}

c_enum! {
    /// `VIP_VI_STATE`.
    VipViState {
        IDLE = 0,
        CONNECTED = 1,
        CONNECT_PENDING = 2,
        ERROR = 3,
    }
}

c_enum! {
    /// `VIP_RESOURCE_CODE`.
    VipResourceCode {
        NIC = 0,
        VI = 1,
        DESCRIPTOR = 3,
    }
}

/// `VIP_NIC_ATTRIBUTES`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct VipNicAttributes {
    pub(crate) name: [c_char; 64],
    pub(crate) hardware_version: VipUlong,
    pub(crate) provider_version: VipUlong,
    pub(crate) nic_address_len: u16,
    pub(crate) local_nic_address: *const u8,
    pub(crate) thread_safe: VipBoolean,
    pub(crate) max_discriminator_len: u16,
    pub(crate) max_register_bytes: VipUlong,
    pub(crate) max_register_regions: VipUlong,
    pub(crate) max_register_block_bytes: VipUlong,
    pub(crate) max_vi: VipUlong,
    pub(crate) max_descriptors_per_queue: VipUlong,
    pub(crate) max_segments_per_desc: VipUlong,
    pub(crate) max_cq: VipUlong,
    pub(crate) max_cq_entries: VipUlong,
    pub(crate) max_transfer_size: VipUlong,
    pub(crate) native_mtu: VipUlong,
    pub(crate) max_ptags: VipUlong,
    pub(crate) reliability_level_support: c_ushort,
    pub(crate) rdma_read_support: c_ushort,
}

/// `VIP_VI_ATTRIBUTES`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct VipViAttributes {
    pub(crate) reliability_level: c_ushort,
    pub(crate) max_transfer_size: VipUlong,
    pub(crate) qos: *mut c_void,
    pub(crate) ptag: Handle,
    pub(crate) enable_rdma_write: VipBoolean,
    pub(crate) enable_rdma_read: VipBoolean,
}

/// `VIP_MEM_ATTRIBUTES`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct VipMemAttributes {
    pub(crate) ptag: Handle,
    pub(crate) enable_rdma_write: VipBoolean,
    pub(crate) enable_rdma_read: VipBoolean,
}

/// `VIP_AUTODISCOVERY_LIST`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct VipAutodiscoveryList {
    pub(crate) number_of_hops: VipUlong,
    pub(crate) ad_addr_array: OutAddresses,
    pub(crate) num_ad_addrs: VipUlong,
}

/// `VIP_ERROR_DESCRIPTOR`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct VipErrorDescriptor {
    pub(crate) nic_handle: Handle,
    pub(crate) vi_handle: Handle,
    pub(crate) cq_handle: Handle,
    pub(crate) descriptor: DescriptorPtr,
    pub(crate) op_code: VipUlong,
    pub(crate) resource_code: VipResourceCode,
    pub(crate) error_code: c_int,
}
