//! Whatever a program passes as a handle, it gets an answer.

use std::ffi::c_void;
use std::ptr::null_mut;

use crate::capi::pointers::{Handle, In, InAddress, InOut, Name, Out, OutAddress, OutString};
use crate::capi::types::{DescriptorPtr, VipBoolean, VipReturn};
use crate::capi::{
    connect, cq, error_callback, management, memory, name_service, nic, notify, transfer, vendor, vi,
};
use crate::tests;

/// Values that programs have been seen to pass, and neighbours of a handle that exists: other uses of its slot and other
/// marks, but neither other slots nor other kinds, which may be another test's.
fn garbage(handle: u64) -> Vec<Handle> {
    let local = 0u64;
    let address = (&raw const local).addr() as u64;
    let mut values = vec![0, 1, 64, 0xdead_beef, u64::MAX, u64::MAX >> 1, 1 << 63, address];
    values.extend((24..56).chain(60..64).map(|bit| handle ^ 1 << bit));
    values.extend((6..16).map(|kind| 0xa0 << 56 | kind << 56 | 1 << 24));
    values.into_iter().map(Handle::new).collect()
}

unsafe extern "C" fn never_vi(_: *mut c_void, _: Handle, _: Handle, _: DescriptorPtr) {
    panic!("nothing completes here");
}

unsafe extern "C" fn never_cq(_: *mut c_void, _: Handle, _: Handle, _: VipBoolean) {
    panic!("nothing completes here");
}

#[test]
fn no_function_takes_a_handle_that_names_nothing() {
    let (open, card) = tests::open();
    let (connected, _) = tests::connected(open, &card, None, None);
    let (nic_handle, vi_handle) = (Handle::new(open.0.value()), Handle::new(connected.0.value()));
    let address = [0u8, 0, 4, 0, b'd', b'i', b's', b'c'];
    let mut descriptor = tests::TestDescriptor::new(0);
    for (real, is_vi) in [(nic_handle, false), (vi_handle, true)] {
        for handle in garbage(real.value()) {
            let (mut pointer, mut boolean, mut other): (DescriptorPtr, _, _) = (null_mut(), 0, Handle::NULL);
            let place = || InAddress::from(&address);
            // SAFETY: all pointers are good or null; the descriptor is never posted.
            let answers = unsafe {
                [
                    nic::VipCloseNic(handle),
                    nic::VipQueryNic(handle, Out::NULL),
                    memory::VipCreatePtag(handle, Out::to(&mut other)),
                    memory::VipDestroyPtag(handle, handle),
                    memory::VipRegisterMem(handle, null_mut(), 1, In::NULL, Out::to(&mut 0)),
                    memory::VipDeregisterMem(handle, null_mut(), 1),
                    memory::VipSetMemAttributes(handle, null_mut(), 1, In::NULL),
                    vi::VipCreateVi(handle, In::NULL, handle, handle, Out::to(&mut other)),
                    vi::VipDestroyVi(handle),
                    vi::VipSetViAttributes(handle, In::NULL),
                    vi::VipQueryVi(handle, Out::NULL, Out::NULL, Out::NULL, Out::NULL),
                    transfer::VipPostSend(handle, descriptor.pointer(), 1),
                    transfer::VipPostRecv(handle, descriptor.pointer(), 1),
                    transfer::VipSendDone(handle, Out::to(&mut pointer)),
                    transfer::VipRecvWait(handle, 0, Out::to(&mut pointer)),
                    cq::VipCreateCQ(handle, 1, Out::to(&mut other)),
                    cq::VipDestroyCQ(handle),
                    cq::VipResizeCQ(handle, 5),
                    cq::VipCQDone(handle, Out::to(&mut other), Out::to(&mut boolean)),
                    cq::VipCQWait(handle, 0, Out::to(&mut other), Out::to(&mut boolean)),
                    connect::VipConnectWait(
                        handle,
                        place(),
                        0,
                        OutAddress::to(&mut []),
                        Out::NULL,
                        Out::to(&mut other),
                    ),
                    connect::VipConnectAccept(handle, vi_handle),
                    connect::VipConnectReject(handle),
                    connect::VipConnectRequest(handle, place(), place(), 1, Out::NULL),
                    connect::VipConnectPeerRequest(handle, place(), place(), 1),
                    connect::VipConnectPeerDone(handle, Out::NULL),
                    connect::VipConnectPeerWait(handle, Out::NULL),
                    connect::VipDisconnect(handle),
                    management::VipQuerySystemManagementInfo(handle, 1, null_mut()),
                    error_callback::VipErrorCallback(handle, null_mut(), None),
                    notify::VipSendNotify(handle, null_mut(), Some(never_vi)),
                    notify::VipRecvNotify(handle, null_mut(), Some(never_vi)),
                    notify::VipCQNotify(handle, null_mut(), Some(never_cq)),
                    name_service::VipNSInit(handle, null_mut()),
                    name_service::VipNSGetHostByName(
                        handle,
                        Name::from(c"localhost"),
                        OutAddress::to(&mut [0; 40]),
                        0,
                    ),
                    name_service::VipNSGetHostByAddr(
                        handle,
                        place(),
                        OutString::to(&mut [0; 300]),
                        InOut::at(&mut 300),
                    ),
                    name_service::VipNSShutdown(handle),
                    vendor::VipAddTagCQ(handle, Out::to(&mut other), 1, 1),
                    vendor::VipRemoveTagCQ(handle, handle, 1),
                    vendor::VipPostDeferredSends(handle, 0, Out::to(&mut boolean)),
                ]
            };
            assert!(
                answers.iter().all(|answer| *answer == VipReturn::INVALID_PARAMETER),
                "{handle:?} (vi: {is_vi}): {answers:?}"
            );
            // SAFETY: as above.
            unsafe { vi::VipSetUserData(handle, null_mut()) };
            // SAFETY: as above.
            assert!(unsafe { vi::VipGetUserData(handle) }.is_null());
        }
    }
    connected.query().unwrap();
    open.close().unwrap();
}

#[test]
fn null_results_and_names_are_refused() {
    let (open, card) = tests::open();
    let (connected, _) = tests::connected(open, &card, None, None);
    let (nic_handle, vi_handle) = (Handle::new(open.0.value()), Handle::new(connected.0.value()));
    let mut handle = Handle::NULL;
    // SAFETY: all pointers are good or null.
    let answers = unsafe {
        [
            nic::VipOpenNic(Name::NULL, Out::to(&mut handle)),
            nic::VipOpenNic(Name::from(c"nic0"), Out::NULL),
            nic::VipQueryNic(nic_handle, Out::NULL),
            memory::VipCreatePtag(nic_handle, Out::NULL),
            memory::VipRegisterMem(nic_handle, null_mut(), 1, In::NULL, Out::to(&mut 0)),
            memory::VipRegisterMem(nic_handle, (&raw mut handle).cast(), 8, In::NULL, Out::NULL),
            vi::VipCreateVi(nic_handle, In::NULL, Handle::NULL, Handle::NULL, Out::to(&mut handle)),
            transfer::VipPostSend(vi_handle, null_mut(), 1),
            transfer::VipSendDone(vi_handle, Out::NULL),
            transfer::VipRecvWait(vi_handle, 0, Out::NULL),
            notify::VipSendNotify(vi_handle, null_mut(), None),
            notify::VipRecvNotify(vi_handle, null_mut(), None),
            cq::VipCreateCQ(nic_handle, 1, Out::NULL),
            connect::VipConnectWait(
                nic_handle,
                InAddress::NULL,
                0,
                OutAddress::to(&mut []),
                Out::NULL,
                Out::to(&mut handle),
            ),
            connect::VipConnectRequest(vi_handle, InAddress::NULL, InAddress::NULL, 1, Out::NULL),
        ]
    };
    assert!(answers.iter().all(|answer| *answer == VipReturn::INVALID_PARAMETER), "{answers:?}");
    open.close().unwrap();
}
