//! Connections: client and server, and equals.

use crate::capi::nic::nic;
use crate::capi::pointers::{Handle, InAddress, Out, OutAddress};
use crate::capi::types::{VipReturn, VipUlong, VipViAttributes};
use crate::capi::vi::{to_c, vi};
use crate::capi::{entry_points, timeout};
use crate::connect::RequestId;
use crate::error::Result;

entry_points! {
    fn VipConnectWait(
        NicHandle: Handle,
        LocalAddr: InAddress,
        Timeout: VipUlong,
        RemoteAddr: OutAddress,
        RemoteViAttribs: Out<VipViAttributes>,
        ConnHandle: Out<Handle>,
    ) {
        let place = ConnHandle.required()?;
        place.set(Handle::NULL);
        let request = RequestId::wait(&nic(NicHandle)?.context()?, &LocalAddr.local()?, timeout(Timeout))?;
        RemoteAddr.set(&request.remote()?);
        RemoteViAttribs.set(to_c(&request.attributes()?));
        place.set(Handle::new(request.0.value()));
        Ok(VipReturn::SUCCESS)
    }

    fn VipConnectAccept(ConnHandle: Handle, ViHandle: Handle) {
        request(ConnHandle)?.accept(vi(ViHandle)?)?;
        Ok(VipReturn::SUCCESS)
    }

    fn VipConnectReject(ConnHandle: Handle) {
        request(ConnHandle)?.reject()?;
        Ok(VipReturn::SUCCESS)
    }

    fn VipConnectRequest(
        ViHandle: Handle,
        LocalAddr: InAddress,
        RemoteAddr: InAddress,
        Timeout: VipUlong,
        RemoteViAttribs: Out<VipViAttributes>,
    ) {
        let (local, remote) = (LocalAddr.local()?, RemoteAddr.remote()?);
        let attributes = vi(ViHandle)?.connect_request(&local, &remote, timeout(Timeout))?;
        RemoteViAttribs.set(to_c(&attributes));
        Ok(VipReturn::SUCCESS)
    }

    fn VipConnectPeerRequest(
        ViHandle: Handle,
        LocalAddr: InAddress,
        RemoteAddr: InAddress,
        Timeout: VipUlong,
    ) {
        let (local, remote) = (LocalAddr.local()?, RemoteAddr.remote()?);
        vi(ViHandle)?.connect_peer_request(&local, &remote, timeout(Timeout))?;
        Ok(VipReturn::SUCCESS)
    }

    fn VipConnectPeerDone(ViHandle: Handle, RemoteViAttribs: Out<VipViAttributes>) {
        let Some(attributes) = vi(ViHandle)?.connect_peer_done()? else { return Ok(VipReturn::NOT_DONE) };
        RemoteViAttribs.set(to_c(&attributes));
        Ok(VipReturn::SUCCESS)
    }

    fn VipConnectPeerWait(ViHandle: Handle, RemoteViAttribs: Out<VipViAttributes>) {
        RemoteViAttribs.set(to_c(&vi(ViHandle)?.connect_peer_wait()?));
        Ok(VipReturn::SUCCESS)
    }

    fn VipDisconnect(ViHandle: Handle) {
        vi(ViHandle)?.disconnect()?;
        Ok(VipReturn::SUCCESS)
    }
}

fn request(handle: Handle) -> Result<RequestId> {
    RequestId::from_value(handle.value())
}
