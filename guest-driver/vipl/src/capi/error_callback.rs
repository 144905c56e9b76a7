//! Asynchronous errors.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use crate::async_error::{AsyncError, ErrorCode, ErrorHandler};
use crate::capi::entry_points;
use crate::capi::nic::nic;
use crate::capi::pointers::{Handle, HandlerContext};
use crate::capi::types::{VipErrorDescriptor, VipResourceCode, VipReturn, VipUlong};
use crate::descriptor_pool::DescriptorStatus;

type Handler = unsafe extern "C" fn(Context: *mut c_void, Error: *mut VipErrorDescriptor);

entry_points! {
    fn VipErrorCallback(NicHandle: Handle, Context: *mut c_void, Handler: Option<Handler>) {
        let context = HandlerContext::new(Context);
        let handler = Handler.map(|handler| -> Arc<ErrorHandler> {
            Arc::new(move |error| call(handler, &context, NicHandle, error))
        });
        nic(NicHandle)?.context()?.set_error_handler(handler)?;
        Ok(VipReturn::SUCCESS)
    }
}

fn call(handler: Handler, context: &HandlerContext, nic: Handle, error: &AsyncError) {
    let mut descriptor = VipErrorDescriptor {
        nic_handle: nic,
        vi_handle: error.vi.map_or(Handle::NULL, |vi| Handle::new(vi.value())),
        cq_handle: Handle::NULL,
        descriptor: std::ptr::with_exposed_provenance_mut(
            usize::try_from(error.descriptor).unwrap_or_default(),
        ),
        op_code: operation(error.code),
        resource_code: match (error.code, error.vi) {
            (ErrorCode::POST_DESC, _) => VipResourceCode::DESCRIPTOR,
            (_, Some(_)) => VipResourceCode::VI,
            (_, None) => VipResourceCode::NIC,
        },
        error_code: c_int::try_from(error.code.0).unwrap_or_default(),
    };
    // SAFETY: C promises a function of this type that may be called on any thread.
    unsafe { handler(context.value(), &raw mut descriptor) };
}

/// The operation that failed, as a status has it.
fn operation(code: ErrorCode) -> VipUlong {
    let operation = match code {
        ErrorCode::RDMAW_PROT | ErrorCode::RDMAW_DATA | ErrorCode::RDMAW_ABORT => {
            DescriptorStatus::OP_REMOTE_RDMA_WRITE
        }
        // The card serves nothing but reads that can fail so.
        ErrorCode::RDMAR_PROT | ErrorCode::RDMA_TRANSPORT => DescriptorStatus::OP_RDMA_READ,
        ErrorCode::RECVQ_EMPTY => DescriptorStatus::OP_RECEIVE,
        _ => DescriptorStatus::empty(),
    };
    operation.bits().into()
}
