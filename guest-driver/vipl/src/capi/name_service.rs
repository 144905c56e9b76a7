//! The name service.

use std::ffi::c_void;
use std::sync::Arc;

use crate::capi::entry_points;
use crate::capi::nic::nic;
use crate::capi::pointers::{Handle, InAddress, InOut, Name, OutAddress, OutString};
use crate::capi::types::{VipReturn, VipUlong};
use crate::error::{Error, Result};
use crate::name_service::{NameError, NameService};
use crate::nic_address::NicAddress;

entry_points! {
    /// There is nothing to say at initialisation: what `NSInitInfo` points to is not looked at.
    fn VipNSInit(NicHandle: Handle, _NSInitInfo: *mut c_void) {
        let nic = nic(NicHandle)?;
        let names = Arc::new(nic.start_name_service()?);
        *nic.object()?.names.lock() = Some(names);
        Ok(VipReturn::SUCCESS)
    }

    fn VipNSGetHostByName(NicHandle: Handle, HostName: Name, Address: OutAddress, NameIndex: VipUlong) {
        let place = Address.required()?;
        let name = HostName.required()?;
        let index = usize::try_from(NameIndex).unwrap_or(usize::MAX);
        place.set_host(names(NicHandle)?.address(name, index)?.0);
        Ok(VipReturn::SUCCESS)
    }

    /// The length is that of the name without its zero; if there is no room, the room that it takes with its zero.
    fn VipNSGetHostByAddr(
        NicHandle: Handle,
        Address: InAddress,
        HostName: OutString,
        NameLen: InOut<VipUlong>,
    ) {
        let (place, length) = (HostName.required()?, NameLen.required()?);
        let host = Address.host()?;
        let names = names(NicHandle)?;
        let name = names.name(host.map_or(names.own_address(), NicAddress))?;
        let room = usize::try_from(length.get()).unwrap_or(usize::MAX);
        if room <= name.len() {
            length.set(name.len() as VipUlong + 1);
            return Err(Error::OutOfResources("no room for the name"));
        }
        place.set(name);
        length.set(name.len() as VipUlong);
        Ok(VipReturn::SUCCESS)
    }

    fn VipNSShutdown(NicHandle: Handle) {
        nic(NicHandle)?.object()?.names.lock().take().ok_or(NameError::NotStarted)?;
        Ok(VipReturn::SUCCESS)
    }
}

fn names(handle: Handle) -> Result<Arc<NameService>> {
    let nic = nic(handle)?.object()?;
    let names = nic.names.lock().clone();
    Ok(names.ok_or(NameError::NotStarted)?)
}
