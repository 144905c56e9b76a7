//! Completion queues.

use crate::capi::nic::nic;
use crate::capi::pointers::{Handle, Out};
use crate::capi::types::{VipBoolean, VipReturn, VipUlong};
use crate::capi::{entry_points, timeout};
use crate::cq::{CqId, QueueEvent};
use crate::descriptor::Queue;
use crate::error::Result;

entry_points! {
    fn VipCreateCQ(NicHandle: Handle, EntryCount: VipUlong, CQHandle: Out<Handle>) {
        let place = CQHandle.required()?;
        let cq = CqId::create(&nic(NicHandle)?.context()?, EntryCount)?;
        place.set(Handle::new(cq.0.value()));
        Ok(VipReturn::SUCCESS)
    }

    fn VipDestroyCQ(CQHandle: Handle) {
        cq(CQHandle)?.destroy()?;
        Ok(VipReturn::SUCCESS)
    }

    fn VipResizeCQ(CQHandle: Handle, EntryCount: VipUlong) {
        cq(CQHandle)?.resize(EntryCount)?;
        Ok(VipReturn::SUCCESS)
    }

    fn VipCQDone(CQHandle: Handle, ViHandle: Out<Handle>, RecvQueue: Out<VipBoolean>) {
        let (vi, queue) = (ViHandle.required()?, RecvQueue.required()?);
        vi.set(Handle::NULL);
        match cq(CQHandle)?.poll()? {
            Some(event) => Ok(give(event, vi, queue)),
            None => Ok(VipReturn::NOT_DONE),
        }
    }

    fn VipCQWait(
        CQHandle: Handle,
        Timeout: VipUlong,
        ViHandle: Out<Handle>,
        RecvQueue: Out<VipBoolean>,
    ) {
        let (vi, queue) = (ViHandle.required()?, RecvQueue.required()?);
        vi.set(Handle::NULL);
        Ok(give(cq(CQHandle)?.wait(timeout(Timeout))?, vi, queue))
    }
}

fn give(event: QueueEvent, vi: Out<Handle>, queue: Out<VipBoolean>) -> VipReturn {
    vi.set(Handle::new(event.vi.0.value()));
    queue.set((event.queue == Queue::Receive).into());
    VipReturn::SUCCESS
}

/// The completion queue that a handle names.
#[inline]
pub(super) fn cq(handle: Handle) -> Result<CqId> {
    CqId::from_value(handle.value())
}

/// The completion queue of a handle; null is none.
pub(super) fn cq_from_c(handle: Handle) -> Result<Option<CqId>> {
    handle.given().map(CqId::from_value).transpose()
}
