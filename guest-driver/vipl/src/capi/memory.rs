//! Protection tags and registered memory.

use std::ffi::c_void;

use crate::capi::entry_points;
use crate::capi::nic::nic;
use crate::capi::pointers::{Handle, In, Out};
use crate::capi::types::{VipMemAttributes, VipMemHandle, VipReturn, VipUlong};
use crate::error::{Error, Result};
use crate::memory::{MemoryAttributes, TagId};

entry_points! {
    fn VipCreatePtag(NicHandle: Handle, ProtectionTag: Out<Handle>) {
        let place = ProtectionTag.required()?;
        let tag = TagId::create(&nic(NicHandle)?.context()?)?;
        place.set(Handle::new(tag.0.value()));
        Ok(VipReturn::SUCCESS)
    }

    fn VipDestroyPtag(NicHandle: Handle, ProtectionTag: Handle) {
        let context = nic(NicHandle)?.context()?;
        let tag = TagId::from_value(ProtectionTag.value());
        tag.and_then(|tag| tag.destroy_in(&context)).map_err(|error| match error {
            Error::InvalidProtectionTag => Error::InvalidParameter("no such protection tag"),
            other => other,
        })?;
        Ok(VipReturn::SUCCESS)
    }

    fn VipRegisterMem(
        NicHandle: Handle,
        VirtualAddress: *mut c_void,
        Length: VipUlong,
        MemAttribs: In<VipMemAttributes>,
        MemoryHandle: Out<VipMemHandle>,
    ) {
        let place = MemoryHandle.required()?;
        place.set(0);
        let attributes = MemAttribs.given().map(|given| from_c(&given)).transpose()?.unwrap_or_default();
        let length = usize::try_from(Length).map_err(|_| Error::InvalidParameter("length of a region"))?;
        // SAFETY: C owns the memory, and no Rust reference to it exists.
        let handle = unsafe { nic(NicHandle)?.register_memory(VirtualAddress.addr(), length, &attributes)? };
        place.set(handle);
        Ok(VipReturn::SUCCESS)
    }

    fn VipDeregisterMem(NicHandle: Handle, VirtualAddress: *mut c_void, MemoryHandle: VipMemHandle) {
        nic(NicHandle)?.deregister_memory(VirtualAddress.addr(), MemoryHandle)?;
        Ok(VipReturn::SUCCESS)
    }

    fn VipSetMemAttributes(
        NicHandle: Handle,
        Address: *mut c_void,
        MemoryHandle: VipMemHandle,
        MemAttribs: In<VipMemAttributes>,
    ) {
        let nic = nic(NicHandle)?;
        nic.query_memory(Address.addr(), MemoryHandle)?;
        let attributes = from_c(&MemAttribs.required()?)?;
        nic.set_memory_attributes(Address.addr(), MemoryHandle, &attributes)?;
        Ok(VipReturn::SUCCESS)
    }

    fn VipQueryMem(
        NicHandle: Handle,
        Address: *mut c_void,
        MemoryHandle: VipMemHandle,
        MemAttribs: Out<VipMemAttributes>,
    ) {
        let attributes = nic(NicHandle)?.query_memory(Address.addr(), MemoryHandle)?;
        MemAttribs.required()?.set(VipMemAttributes {
            ptag: tag_to_c(attributes.tag),
            enable_rdma_write: attributes.rdma_write.into(),
            enable_rdma_read: attributes.rdma_read.into(),
        });
        Ok(VipReturn::SUCCESS)
    }
}

fn from_c(attributes: &VipMemAttributes) -> Result<MemoryAttributes> {
    Ok(MemoryAttributes {
        tag: tag_from_c(attributes.ptag)?,
        rdma_write: attributes.enable_rdma_write != 0,
        rdma_read: attributes.enable_rdma_read != 0,
    })
}

/// The tag of a handle; null is the default tag.
pub(super) fn tag_from_c(handle: Handle) -> Result<Option<TagId>> {
    handle.given().map(TagId::from_value).transpose()
}

pub(super) fn tag_to_c(tag: Option<TagId>) -> Handle {
    tag.map_or(Handle::NULL, |tag| Handle::new(tag.0.value()))
}
