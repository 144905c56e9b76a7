//! Posting descriptors and getting them back.

use crate::capi::pointers::{Handle, Out};
use crate::capi::types::{DescriptorPtr, VipMemHandle, VipReturn, VipUlong};
use crate::capi::vi::vi;
use crate::capi::{entry_points, timeout};
use crate::descriptor::{LinkField, Queue, RawDescriptor};
use crate::error::Result;
use crate::vi::ViId;
use crate::work_queue::{Poll, RawCompletion, Refusal};

entry_points! {
    fn VipPostSend(ViHandle: Handle, Descriptor: DescriptorPtr, MemoryHandle: VipMemHandle) -> Refusal {
        post(ViHandle, Queue::Send, Descriptor, MemoryHandle)
    }

    fn VipPostRecv(ViHandle: Handle, Descriptor: DescriptorPtr, MemoryHandle: VipMemHandle) -> Refusal {
        post(ViHandle, Queue::Receive, Descriptor, MemoryHandle)
    }

    fn VipSendDone(ViHandle: Handle, Descriptor: Out<DescriptorPtr>) -> Refusal {
        done(ViHandle, Queue::Send, Descriptor)
    }

    fn VipRecvDone(ViHandle: Handle, Descriptor: Out<DescriptorPtr>) -> Refusal {
        done(ViHandle, Queue::Receive, Descriptor)
    }

    fn VipSendWait(ViHandle: Handle, Timeout: VipUlong, Descriptor: Out<DescriptorPtr>) {
        wait(ViHandle, Queue::Send, Timeout, Descriptor)
    }

    fn VipRecvWait(ViHandle: Handle, Timeout: VipUlong, Descriptor: Out<DescriptorPtr>) {
        wait(ViHandle, Queue::Receive, Timeout, Descriptor)
    }
}

#[inline(always)]
fn post(
    handle: Handle,
    queue: Queue,
    descriptor: DescriptorPtr,
    memory: VipMemHandle,
) -> Result<VipReturn, Refusal> {
    let vi = ViId::from_value(handle.value())?;
    // SAFETY: C promises that the descriptor stays, and is let alone, until it is dequeued.
    let descriptor = unsafe { RawDescriptor::new(descriptor)? };
    vi.post(queue, descriptor, (memory, LinkField::Free))?;
    Ok(VipReturn::SUCCESS)
}

/// The pointer is written in any case: programs look at nothing else.
#[inline(always)]
fn done(handle: Handle, queue: Queue, place: Out<DescriptorPtr>) -> Result<VipReturn, Refusal> {
    let Some(place) = place.given() else { return Ok(VipReturn::INVALID_PARAMETER) };
    place.set(std::ptr::null_mut());
    Ok(give(ViId::from_value(handle.value())?.done(queue)?, place))
}

fn wait(
    handle: Handle,
    queue: Queue,
    milliseconds: VipUlong,
    place: Out<DescriptorPtr>,
) -> Result<VipReturn> {
    let place = place.required()?;
    place.set(std::ptr::null_mut());
    match vi(handle)?.wait(queue, timeout(milliseconds))? {
        Some(found) => Ok(give(found, place)),
        None => Ok(VipReturn::TIMEOUT),
    }
}

#[inline]
fn give(found: Poll<RawCompletion>, place: Out<DescriptorPtr>) -> VipReturn {
    match found {
        Poll::NotDone => VipReturn::NOT_DONE,
        Poll::Empty => VipReturn::DESCRIPTOR_ERROR,
        Poll::Done(completion) => {
            place.set(completion.descriptor.as_ptr());
            if completion.failed() { VipReturn::DESCRIPTOR_ERROR } else { VipReturn::SUCCESS }
        }
    }
}
