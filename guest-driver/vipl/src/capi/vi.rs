//! VIs.

use std::ffi::c_void;
use std::panic::catch_unwind;

use crate::capi::cq::cq_from_c;
use crate::capi::entry_points;
use crate::capi::memory::{tag_from_c, tag_to_c};
use crate::capi::nic::nic;
use crate::capi::pointers::{Handle, In, Out};
use crate::capi::types::{VipBoolean, VipReturn, VipViAttributes, VipViState};
use crate::error::{Error, Result};
use crate::vi::{ReliabilityLevel, ViAttributes, ViId, ViState};

entry_points! {
    fn VipCreateVi(
        NicHandle: Handle,
        ViAttribs: In<VipViAttributes>,
        SendCQHandle: Handle,
        RecvCQHandle: Handle,
        ViHandle: Out<Handle>,
    ) {
        let place = ViHandle.required()?;
        let context = nic(NicHandle)?.context()?;
        let attributes = from_c(&ViAttribs.required()?)?;
        let (send_cq, receive_cq) = (cq_from_c(SendCQHandle)?, cq_from_c(RecvCQHandle)?);
        let vi = ViId::create(&context, &attributes, send_cq, receive_cq)?;
        place.set(Handle::new(vi.0.value()));
        Ok(VipReturn::SUCCESS)
    }

    fn VipDestroyVi(ViHandle: Handle) {
        vi(ViHandle)?.destroy()?;
        Ok(VipReturn::SUCCESS)
    }

    fn VipSetViAttributes(ViHandle: Handle, ViAttribs: In<VipViAttributes>) {
        let vi = vi(ViHandle)?;
        vi.object()?;
        vi.set_attributes(&from_c(&ViAttribs.required()?)?)?;
        Ok(VipReturn::SUCCESS)
    }

    fn VipQueryVi(
        ViHandle: Handle,
        State: Out<VipViState>,
        ViAttribs: Out<VipViAttributes>,
        ViSendQEmpty: Out<VipBoolean>,
        ViRecvQEmpty: Out<VipBoolean>,
    ) {
        let info = vi(ViHandle)?.query()?;
        State.set(match info.state {
            ViState::Idle => VipViState::IDLE,
            ViState::Connected => VipViState::CONNECTED,
            ViState::ConnectPending => VipViState::CONNECT_PENDING,
            ViState::Error => VipViState::ERROR,
        });
        ViAttribs.set(to_c(&info.attributes));
        ViSendQEmpty.set(info.send_queue_empty.into());
        ViRecvQEmpty.set(info.receive_queue_empty.into());
        Ok(VipReturn::SUCCESS)
    }
}

/// `VipGetUserData`, of one vendor: null for a handle that names no VI.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn VipGetUserData(ViHandle: Handle) -> *mut c_void {
    let value = catch_unwind(|| vi(ViHandle)?.user_data());
    std::ptr::with_exposed_provenance_mut(value.unwrap_or(Ok(0)).unwrap_or(0))
}

/// `VipSetUserData`, of one vendor.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn VipSetUserData(ViHandle: Handle, Data: *mut c_void) {
    let value = Data.expose_provenance();
    // There is no way to say that the handle names no VI.
    let _ = catch_unwind(|| vi(ViHandle)?.set_user_data(value));
}

/// The VI that a handle names.
#[inline]
pub(super) fn vi(handle: Handle) -> Result<ViId> {
    Ok(ViId::from_value(handle.value())?)
}

fn from_c(attributes: &VipViAttributes) -> Result<ViAttributes> {
    if !attributes.qos.is_null() {
        return Err(Error::InvalidQualityOfService);
    }
    Ok(ViAttributes {
        reliability: ReliabilityLevel(attributes.reliability_level),
        max_transfer_size: u32::try_from(attributes.max_transfer_size)
            .map_err(|_| Error::InvalidTransferSize)?,
        tag: tag_from_c(attributes.ptag)?,
        rdma_write: attributes.enable_rdma_write != 0,
        rdma_read: attributes.enable_rdma_read != 0,
    })
}

pub(super) fn to_c(attributes: &ViAttributes) -> VipViAttributes {
    VipViAttributes {
        reliability_level: attributes.reliability.0,
        max_transfer_size: attributes.max_transfer_size.into(),
        qos: std::ptr::null_mut(),
        ptag: tag_to_c(attributes.tag),
        enable_rdma_write: attributes.rdma_write.into(),
        enable_rdma_read: attributes.rdma_read.into(),
    }
}
