//! What can be asked about the network.

use std::ffi::c_void;

use crate::capi::entry_points;
use crate::capi::nic::nic;
use crate::capi::pointers::{Handle, InOut};
use crate::capi::types::{VipAutodiscoveryList, VipReturn, VipUlong};
use crate::connect::net_address;
use crate::error::{Error, Result};
use crate::nic::NicId;

/// `VIP_SMI_AUTODISCOVERY`.
pub(super) const SMI_AUTODISCOVERY: VipUlong = 1;

entry_points! {
    fn VipQuerySystemManagementInfo(NicHandle: Handle, InfoType: VipUlong, SysManInfo: *mut c_void) {
        let nic = nic(NicHandle)?;
        nic.object()?;
        if InfoType != SMI_AUTODISCOVERY {
            return Err(Error::InvalidParameter("no such kind of information"));
        }
        discover(nic, InOut::from_void(SysManInfo))?;
        Ok(VipReturn::SUCCESS)
    }
}

/// Writes the addresses for which there is room. All NICs of a fabric are one hop apart, so how far to look does not matter.
fn discover(nic: NicId, list: InOut<VipAutodiscoveryList>) -> Result<()> {
    let place = list.required()?;
    let mut list = place.get();
    let nics = nic.discover()?;
    let room = usize::try_from(list.num_ad_addrs).unwrap_or(usize::MAX).min(nics.len());
    let pointers = list.ad_addr_array.take(room)?;
    for (pointer, nic) in pointers.into_iter().zip(&nics) {
        pointer.set(&net_address(Some(nic.0), &[])?);
    }
    list.num_ad_addrs = VipUlong::try_from(nics.len()).unwrap_or(VipUlong::MAX);
    place.set(list);
    Ok(())
}
