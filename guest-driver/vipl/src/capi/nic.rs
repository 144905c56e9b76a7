//! NICs.

use std::ffi::{c_char, c_ulong};

use vianic_abi::NIC_ADDRESS_LEN;

use crate::capi::pointers::{Handle, Name, Out};
use crate::capi::types::{VipNicAttributes, VipReturn, VipUlong};
use crate::capi::{entry_points, stderr_log};
use crate::connect::MAX_DISCRIMINATOR_LEN;
use crate::error::{Error, Result};
use crate::nic::{MAX_CQ_ENTRIES, NicId, NicObject};

/// Clients keep attributes in an int.
const MAX_ADVERTISED: u64 = 0x7fff_ffff;

/// Tags that a process may have at the least; the Kernel Agent has no limit of its own.
const MAX_PTAGS: u64 = 1024;

entry_points! {
    fn VipOpenNic(DeviceName: Name, NicHandle: Out<Handle>) {
        stderr_log::start();
        let place = NicHandle.required()?;
        place.set(Handle::NULL);
        place.set(Handle::new(NicId::open(DeviceName.required()?)?.0.value()));
        Ok(VipReturn::SUCCESS)
    }

    fn VipCloseNic(NicHandle: Handle) {
        NicId::from_value(NicHandle.value())?.close()?;
        Ok(VipReturn::SUCCESS)
    }

    fn VipQueryNic(NicHandle: Handle, NicAttributes: Out<VipNicAttributes>) {
        let nic = nic(NicHandle)?.object()?;
        NicAttributes.required()?.set(attributes(&nic)?);
        Ok(VipReturn::SUCCESS)
    }
}

/// The NIC that a handle names.
pub(super) fn nic(handle: Handle) -> Result<NicId> {
    NicId::from_value(handle.value())
}

fn attributes(nic: &NicObject) -> Result<VipNicAttributes> {
    // In the context, so that the address stays in place while the NIC is open.
    let info = &nic.context.info;
    let registers = &info.registers;
    let max_bytes = info.max_register_bytes.min(MAX_ADVERTISED);
    let number =
        |length: usize| u16::try_from(length).map_err(|_| Error::InvalidParameter("length of an address"));
    Ok(VipNicAttributes {
        name: c_name(&nic.name),
        hardware_version: registers.abi_version.into(),
        provider_version: provider_version(),
        nic_address_len: number(NIC_ADDRESS_LEN)?,
        local_nic_address: registers.nic_address.as_ptr(),
        thread_safe: 1,
        max_discriminator_len: number(MAX_DISCRIMINATOR_LEN)?,
        max_register_bytes: max_bytes,
        max_register_regions: registers.max_regions.into(),
        max_register_block_bytes: max_bytes,
        max_vi: registers.max_vi.into(),
        max_descriptors_per_queue: nic.context.max_descriptors().into(),
        max_segments_per_desc: registers.max_segments.into(),
        max_cq: registers.max_cq.into(),
        max_cq_entries: MAX_CQ_ENTRIES,
        max_transfer_size: registers.max_transfer_size.into(),
        native_mtu: registers.native_mtu.into(),
        max_ptags: MAX_PTAGS,
        reliability_level_support: registers.reliability_levels,
        rdma_read_support: registers.rdma_read_levels,
    })
}

/// This library's version: major in the upper 16 bits, minor in the lower.
fn provider_version() -> VipUlong {
    let part = |text: &str| text.parse::<c_ulong>().unwrap_or_default();
    part(env!("CARGO_PKG_VERSION_MAJOR")) << 16 | part(env!("CARGO_PKG_VERSION_MINOR"))
}

/// As much of a name as there is room for, and a zero.
fn c_name(name: &str) -> [c_char; 64] {
    let mut place = [0; 64];
    for (to, from) in place[..63].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    place
}
