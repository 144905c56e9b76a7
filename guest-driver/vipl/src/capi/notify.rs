//! Handlers for one completion.

use std::ffi::c_void;

use crate::capi::cq::cq;
use crate::capi::entry_points;
use crate::capi::pointers::{Handle, HandlerContext};
use crate::capi::types::{DescriptorPtr, VipBoolean, VipReturn};
use crate::capi::vi::vi;
use crate::descriptor::Queue;
use crate::error::{Error, Result};

/// `VIP_VI_CALLBACK`.
pub(super) type ViHandler =
    unsafe extern "C" fn(Context: *mut c_void, Nic: Handle, Vi: Handle, Descriptor: DescriptorPtr);

/// `VIP_CQ_CALLBACK`.
pub(super) type CqHandler =
    unsafe extern "C" fn(Context: *mut c_void, Nic: Handle, Vi: Handle, RecvQueue: VipBoolean);

entry_points! {
    fn VipSendNotify(ViHandle: Handle, Context: *mut c_void, Handler: Option<ViHandler>) {
        notify(ViHandle, Queue::Send, HandlerContext::new(Context), Handler)
    }

    fn VipRecvNotify(ViHandle: Handle, Context: *mut c_void, Handler: Option<ViHandler>) {
        notify(ViHandle, Queue::Receive, HandlerContext::new(Context), Handler)
    }

    fn VipCQNotify(CQHandle: Handle, Context: *mut c_void, Handler: Option<CqHandler>) {
        let (cq, context) = (cq(CQHandle)?, HandlerContext::new(Context));
        let handler = required(Handler)?;
        let nic = Handle::new(cq.object()?.context.nic.0.value());
        cq.notify(move |event| {
            let receive = event.queue == Queue::Receive;
            // SAFETY: C promises a function of this type that may be called on any thread.
            unsafe { handler(context.value(), nic, Handle::new(event.vi.0.value()), receive.into()) };
        })?;
        Ok(VipReturn::SUCCESS)
    }
}

fn notify(
    vi_handle: Handle,
    queue: Queue,
    context: HandlerContext,
    handler: Option<ViHandler>,
) -> Result<VipReturn> {
    let (vi, handler) = (vi(vi_handle)?, required(handler)?);
    let nic = Handle::new(vi.object()?.context.nic.0.value());
    vi.notify(
        queue,
        Box::new(move |completion| {
            // SAFETY: C promises a function of this type that may be called on any thread.
            unsafe { handler(context.value(), nic, vi_handle, completion.descriptor.as_ptr()) };
        }),
    )?;
    Ok(VipReturn::SUCCESS)
}

fn required<H>(handler: Option<H>) -> Result<H> {
    handler.ok_or(Error::InvalidParameter("the handler is null"))
}
