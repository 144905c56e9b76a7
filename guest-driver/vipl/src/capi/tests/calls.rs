//! What C programs rely on beyond what the library beneath gives.

use std::ffi::{CStr, c_void};
use std::ptr::null_mut;
use std::sync::mpsc;

use vianic_abi::status::{ErrorCode, Status};

use crate::capi::pointers::{Handle, In, InAddress, Name, Out, OutAddress};
use crate::capi::types::{
    DescriptorPtr, VipBoolean, VipErrorDescriptor, VipMemAttributes, VipResourceCode, VipReturn,
    VipViAttributes, VipViState,
};
use crate::capi::{connect, cq, error_callback, memory, nic, notify, timeout, transfer, vi};
use crate::descriptor::Queue;
use crate::tests::{self, DONE, LIMIT, TestDescriptor};

#[test]
fn all_ones_of_any_width_is_for_ever() {
    assert_eq!(timeout(0xffff_ffff), None);
    assert_eq!(timeout(u64::MAX), None);
    assert_eq!(timeout(0xffff_fffe), Some(std::time::Duration::from_millis(0xffff_fffe)));
    assert_eq!(timeout(0), Some(std::time::Duration::ZERO));
}

#[test]
fn a_name_that_is_none_is_an_invalid_parameter() {
    let mut handle = Handle::new(5);
    for name in [c"", c"no such NIC", c"/dev/null", c"direct:/no/such/socket", c"VINIC60000", c"\xff"] {
        // SAFETY: good pointers.
        let answer = unsafe { nic::VipOpenNic(Name::from(name), Out::to(&mut handle)) };
        assert_eq!((answer, handle.value()), (VipReturn::INVALID_PARAMETER, 0), "{name:?}");
    }
}

#[test]
fn the_nic_says_what_it_is() {
    let (open, _card) = tests::open();
    let mut attributes = std::mem::MaybeUninit::zeroed();
    let place = attributes.as_mut_ptr();
    // SAFETY: a good pointer; all-zero attributes are attributes, and the NIC's address stays while it is open.
    let (answer, attributes, address) = unsafe {
        let answer = nic::VipQueryNic(Handle::new(open.0.value()), Out::to(&mut *place));
        let attributes = attributes.assume_init();
        (answer, attributes, std::slice::from_raw_parts(attributes.local_nic_address, 6))
    };
    assert_eq!(answer, VipReturn::SUCCESS);
    // SAFETY: a string.
    assert_eq!(unsafe { CStr::from_ptr(attributes.name.as_ptr()) }, c"card of a test");
    assert_eq!((attributes.nic_address_len, address), (6, &[2, 0, 0, 0, 0, 1][..]));
    assert_eq!((attributes.thread_safe, attributes.max_discriminator_len), (1, 28));
    assert_eq!((attributes.max_register_bytes, attributes.max_descriptors_per_queue), (0x7fff_ffff, 1024));
    assert_eq!((attributes.reliability_level_support, attributes.rdma_read_support), (7, 6));
    open.close().unwrap();
}

/// From creating to destroying, as C does it, with null tags and null attributes.
#[test]
fn a_life_in_c() {
    let (open, card) = tests::open();
    let nic_handle = Handle::new(open.0.value());
    let (mut tag, mut cq_handle, mut vi_handle) = (Handle::NULL, Handle::NULL, Handle::NULL);
    let (mut tagged, mut untagged) = (0, 0);
    let mut bytes = [0u8; 32];
    let region = bytes.as_mut_ptr().cast::<c_void>();
    let attributes = VipViAttributes {
        reliability_level: 2,
        max_transfer_size: 32768,
        qos: null_mut(),
        ptag: Handle::NULL,
        // Any value but 0 is true.
        enable_rdma_write: 4,
        enable_rdma_read: 0,
    };
    let success = [VipReturn::SUCCESS; 4];
    // SAFETY: good pointers.
    unsafe {
        let made = [
            memory::VipCreatePtag(nic_handle, Out::to(&mut tag)),
            memory::VipRegisterMem(nic_handle, region, 31, In::NULL, Out::to(&mut untagged)),
            cq::VipCreateCQ(nic_handle, 16, Out::to(&mut cq_handle)),
            vi::VipCreateVi(
                nic_handle,
                In::from(&attributes),
                Handle::NULL,
                cq_handle,
                Out::to(&mut vi_handle),
            ),
        ];
        assert_eq!(made, success);
        let with_tag = VipMemAttributes { ptag: tag, enable_rdma_write: 2, enable_rdma_read: 0 };
        let answer =
            memory::VipRegisterMem(nic_handle, region, 31, In::from(&with_tag), Out::to(&mut tagged));
        assert_eq!(answer, VipReturn::SUCCESS);
        assert!(tagged != untagged && tagged != 0 && untagged != 0);
        let mut known = with_tag;
        assert_eq!(memory::VipQueryMem(nic_handle, region, tagged, Out::to(&mut known)), VipReturn::SUCCESS);
        assert_eq!((known.ptag.value(), known.enable_rdma_write), (tag.value(), 1));
        assert_eq!(memory::VipDestroyPtag(nic_handle, tag), VipReturn::ERROR_RESOURCE, "in use");

        let (mut state, mut known, mut send_empty, mut receive_empty) = (VipViState::ERROR, attributes, 0, 0);
        let answer = vi::VipQueryVi(
            vi_handle,
            Out::to(&mut state),
            Out::to(&mut known),
            Out::to(&mut send_empty),
            Out::to(&mut receive_empty),
        );
        assert_eq!((answer, state, send_empty, receive_empty), (VipReturn::SUCCESS, VipViState::IDLE, 1, 1));
        assert_eq!((known.max_transfer_size, known.enable_rdma_write), (32768, 1));
        vi::VipSetUserData(vi_handle, region);
        assert_eq!(vi::VipGetUserData(vi_handle), region);

        // The descriptor's pointer is written in any case.
        let mut pointer: DescriptorPtr = region.cast();
        assert_eq!(transfer::VipRecvDone(vi_handle, Out::to(&mut pointer)), VipReturn::DESCRIPTOR_ERROR);
        assert!(pointer.is_null());
        let mut descriptor = TestDescriptor::new(1);
        assert_eq!(transfer::VipPostRecv(vi_handle, descriptor.pointer(), untagged), VipReturn::SUCCESS);
        pointer = region.cast();
        assert_eq!(transfer::VipRecvDone(vi_handle, Out::to(&mut pointer)), VipReturn::NOT_DONE);
        assert!(pointer.is_null());
        pointer = region.cast();
        assert_eq!(transfer::VipRecvWait(vi_handle, 0, Out::to(&mut pointer)), VipReturn::INVALID_PARAMETER);
        assert!(pointer.is_null(), "a queue with a completion queue");

        let number = crate::vi::ViId::from_value(vi_handle.value()).unwrap().object().unwrap().number;
        card.complete(number, Queue::Receive, DONE | crate::DescriptorStatus::LENGTH_ERROR);
        let (mut event_vi, mut is_receive) = (Handle::NULL, 0);
        let answer = cq::VipCQDone(cq_handle, Out::to(&mut event_vi), Out::to(&mut is_receive));
        assert_eq!((answer, event_vi.value(), is_receive), (VipReturn::SUCCESS, vi_handle.value(), 1));
        assert_eq!(transfer::VipRecvDone(vi_handle, Out::to(&mut pointer)), VipReturn::DESCRIPTOR_ERROR);
        assert_eq!(pointer, descriptor.pointer());
        let answer = cq::VipCQDone(cq_handle, Out::to(&mut event_vi), Out::to(&mut is_receive));
        assert_eq!((answer, event_vi.value()), (VipReturn::NOT_DONE, 0));
        let answer = cq::VipCQWait(cq_handle, 0, Out::to(&mut event_vi), Out::to(&mut is_receive));
        assert_eq!(answer, VipReturn::TIMEOUT);

        assert_eq!(cq::VipDestroyCQ(cq_handle), VipReturn::ERROR_RESOURCE, "in use");
        let ended = [
            vi::VipDestroyVi(vi_handle),
            cq::VipDestroyCQ(cq_handle),
            memory::VipDeregisterMem(nic_handle, region, tagged),
            memory::VipDestroyPtag(nic_handle, tag),
        ];
        assert_eq!(ended, success);
        assert_eq!(nic::VipCloseNic(nic_handle), VipReturn::SUCCESS);
    }
}

#[test]
fn attributes_that_cannot_be_have_codes_of_their_own() {
    let (open, _card) = tests::open();
    let nic_handle = Handle::new(open.0.value());
    let good = VipViAttributes {
        reliability_level: 1,
        max_transfer_size: 1,
        qos: null_mut(),
        ptag: Handle::NULL,
        enable_rdma_write: 0,
        enable_rdma_read: 0,
    };
    let mut vi_handle = Handle::NULL;
    let qos = (&raw mut vi_handle).cast();
    for (attributes, code) in [
        (VipViAttributes { reliability_level: 6, ..good }, VipReturn::INVALID_RELIABILITY_LEVEL),
        (VipViAttributes { max_transfer_size: 1 << 32, ..good }, VipReturn::INVALID_MTU),
        (VipViAttributes { qos, ..good }, VipReturn::INVALID_QOS),
        (VipViAttributes { ptag: nic_handle, ..good }, VipReturn::INVALID_PTAG),
        (VipViAttributes { enable_rdma_read: 1, ..good }, VipReturn::INVALID_RDMAREAD),
    ] {
        // SAFETY: good pointers.
        let answer = unsafe {
            vi::VipCreateVi(
                nic_handle,
                In::from(&attributes),
                Handle::NULL,
                Handle::NULL,
                Out::to(&mut vi_handle),
            )
        };
        assert_eq!(answer, code);
    }
    open.close().unwrap();
}

/// A `VIP_NET_ADDRESS`.
fn address(host: &[u8], discriminator: &[u8]) -> Vec<u8> {
    let length = |part: &[u8]| u16::try_from(part.len()).unwrap().to_ne_bytes();
    [&length(host), &length(discriminator), host, discriminator].concat()
}

#[test]
fn addresses_are_taken_as_programs_write_them() {
    let parsed = InAddress::from(&address(&[0xaa; 6], b"12345678")).local().unwrap();
    assert_eq!((parsed.host_len, parsed.discriminator_len), (0, 8), "the local host part may be anything");
    assert_eq!(InAddress::from(&address(&[], b"")).local().unwrap().discriminator_len, 0);
    let parsed = InAddress::from(&address(&[1, 2, 3, 4, 5, 6], &[7; 28])).remote().unwrap();
    assert_eq!((parsed.host, parsed.discriminator), ([1, 2, 3, 4, 5, 6], [7; 28]));
    assert_eq!(InAddress::from(&address(&[], b"x")).remote().unwrap().host_len, 0, "this NIC");
    assert!(InAddress::from(&address(&[1; 5], b"x")).remote().is_err());
    assert!(InAddress::from(&address(&[1; 6], &[7; 29])).remote().is_err());
    assert!(InAddress::from(&[0xff; 4]).local().is_err(), "nothing behind lengths that cannot be is read");
}

#[test]
fn a_server_in_c_learns_who_asks() {
    let (open, card) = tests::open();
    let nic_handle = Handle::new(open.0.value());
    let here = address(&[0; 6], b"here");
    let (mut remote, mut request) = ([0xeeu8; 40], Handle::NULL);
    let attributes = VipViAttributes {
        reliability_level: 2,
        max_transfer_size: 4096,
        qos: null_mut(),
        ptag: Handle::NULL,
        enable_rdma_write: 0,
        enable_rdma_read: 0,
    };
    let mut theirs = attributes;
    let mut wait = |milliseconds| {
        // SAFETY: good pointers, and room for the longest address.
        unsafe {
            connect::VipConnectWait(
                nic_handle,
                InAddress::from(&here),
                milliseconds,
                OutAddress::to(&mut remote),
                Out::to(&mut theirs),
                Out::to(&mut request),
            )
        }
    };
    assert_eq!(wait(0), VipReturn::TIMEOUT);
    card.request_comes(3);
    assert_eq!(wait(u64::MAX), VipReturn::SUCCESS);
    let expected = address(&[2, 0, 0, 0, 0, 9], b"them");
    assert_eq!(remote[..expected.len()], expected);
    assert!(
        remote[expected.len()..].iter().all(|byte| *byte == 0xee),
        "nothing behind the address is written"
    );
    assert_eq!((theirs.reliability_level, theirs.max_transfer_size), (2, 4096));
    let mut vi_handle = Handle::NULL;
    card.answer_accept(Err(Status::INVALID_RELIABILITY_LEVEL));
    // SAFETY: good pointers.
    unsafe {
        vi::VipCreateVi(
            nic_handle,
            In::from(&attributes),
            Handle::NULL,
            Handle::NULL,
            Out::to(&mut vi_handle),
        );
        let refused = connect::VipConnectAccept(request, vi_handle);
        assert_eq!(refused, VipReturn::INVALID_RELIABILITY_LEVEL);
        assert_eq!(connect::VipConnectAccept(request, vi_handle), VipReturn::SUCCESS);
        assert_eq!(connect::VipConnectReject(request), VipReturn::INVALID_PARAMETER);
        assert_eq!(connect::VipDisconnect(vi_handle), VipReturn::SUCCESS);
        assert_eq!(connect::VipDisconnect(vi_handle), VipReturn::SUCCESS);
        let (here, there) = (InAddress::from(&here), InAddress::from(&here));
        let answer = connect::VipConnectRequest(vi_handle, here, there, 0, Out::NULL);
        assert_eq!(answer, VipReturn::INVALID_PARAMETER);
        let answer = connect::VipConnectRequest(vi_handle, here, there, u64::MAX, Out::NULL);
        assert_eq!(answer, VipReturn::NO_MATCH);
    }
    open.close().unwrap();
}

unsafe extern "C" fn pass_on(context: *mut c_void, error: *mut VipErrorDescriptor) {
    // SAFETY: the test passes a sender, which stays until the NIC is closed.
    let (sender, error) = unsafe { (&*context.cast::<mpsc::Sender<VipErrorDescriptor>>(), *error) };
    sender.send(error).unwrap();
}

#[test]
fn a_handler_in_c_gets_handles_and_codes() {
    let (open, card) = tests::open();
    let (connected, number) = tests::connected(open, &card, None, None);
    let nic_handle = Handle::new(open.0.value());
    let (sender, errors) = mpsc::channel::<VipErrorDescriptor>();
    let context = (&raw const sender).cast_mut().cast();
    // SAFETY: the sender stays until the NIC is closed.
    let answer = unsafe { error_callback::VipErrorCallback(nic_handle, context, Some(pass_on)) };
    assert_eq!(answer, VipReturn::SUCCESS);
    for (code, resource) in
        [(ErrorCode::POST_DESC, VipResourceCode::DESCRIPTOR), (ErrorCode::CONN_LOST, VipResourceCode::VI)]
    {
        card.report(number, code);
        let error = errors.recv_timeout(LIMIT.unwrap()).unwrap();
        assert_eq!(error.vi_handle.value(), connected.0.value());
        assert_eq!(error.nic_handle.value(), nic_handle.value());
        assert_eq!((error.error_code.cast_unsigned(), error.resource_code), (code.0, resource));
        assert_eq!((error.descriptor.addr(), error.op_code), (0x40, 0));
    }
    open.close().unwrap();
}

/// What a handler was called with: NIC, VI, and the descriptor or whether it is the receive queue.
type Call = (u64, u64, usize);

unsafe extern "C" fn pass_descriptor(
    context: *mut c_void,
    nic: Handle,
    vi: Handle,
    descriptor: DescriptorPtr,
) {
    // SAFETY: the test passes a sender, which stays until the NIC is closed.
    let sender = unsafe { &*context.cast::<mpsc::Sender<Call>>() };
    sender.send((nic.value(), vi.value(), descriptor.addr())).unwrap();
}

unsafe extern "C" fn pass_event(context: *mut c_void, nic: Handle, vi: Handle, receive: VipBoolean) {
    // SAFETY: as above.
    let sender = unsafe { &*context.cast::<mpsc::Sender<Call>>() };
    sender.send((nic.value(), vi.value(), usize::try_from(receive).unwrap())).unwrap();
}

#[test]
fn notify_handlers_in_c_get_handles_and_what_completed() {
    let (open, card) = tests::open();
    let cq_id = crate::CqId::create(&open.context().unwrap(), 1).unwrap();
    let (connected, number) = tests::connected(open, &card, None, Some(cq_id));
    let [nic_value, vi_value] = [open.0.value(), connected.0.value()];
    let (vi_handle, cq_handle) = (Handle::new(vi_value), Handle::new(cq_id.0.value()));
    let (sender, calls) = mpsc::channel::<Call>();
    let context = (&raw const sender).cast_mut().cast();
    let mut descriptors = [TestDescriptor::new(1), TestDescriptor::new(1)];
    let [sent, received] = descriptors.each_mut().map(|descriptor| descriptor.pointer());
    // SAFETY: the sender and the descriptors stay until the NIC is closed.
    unsafe {
        assert_eq!(transfer::VipPostSend(vi_handle, sent, 1), VipReturn::SUCCESS);
        assert_eq!(transfer::VipPostRecv(vi_handle, received, 1), VipReturn::SUCCESS);
        let answer = notify::VipSendNotify(vi_handle, context, Some(pass_descriptor));
        assert_eq!(answer, VipReturn::SUCCESS);
        let answer = notify::VipRecvNotify(vi_handle, context, Some(pass_descriptor));
        assert_eq!(answer, VipReturn::INVALID_PARAMETER, "a queue with a completion queue");
        let answer = notify::VipCQNotify(cq_handle, context, None);
        assert_eq!(answer, VipReturn::INVALID_PARAMETER);
        assert_eq!(notify::VipCQNotify(cq_handle, context, Some(pass_event)), VipReturn::SUCCESS);
    }
    card.complete(number, Queue::Send, DONE);
    let call = calls.recv_timeout(LIMIT.unwrap()).unwrap();
    assert_eq!(call, (nic_value, vi_value, sent.addr()));
    card.complete(number, Queue::Receive, DONE);
    let call = calls.recv_timeout(LIMIT.unwrap()).unwrap();
    assert_eq!(call, (nic_value, vi_value, 1));
    // The entry is taken, the descriptor is not.
    let mut pointer = null_mut();
    // SAFETY: a good pointer.
    let answer = unsafe { transfer::VipRecvDone(vi_handle, Out::to(&mut pointer)) };
    assert_eq!((answer, pointer), (VipReturn::SUCCESS, received));
    open.close().unwrap();
}

#[test]
fn one_descriptor_too_many_is_refused_and_reported() {
    let (open, card) = tests::open_with(
        tests::card::Layout { token_table_log2: 12, ..Default::default() },
        crate::settings::Settings { spin: std::time::Duration::ZERO, strict: false },
    );
    let (connected, _) = tests::connected(open, &card, None, None);
    let (nic_handle, vi_handle) = (Handle::new(open.0.value()), Handle::new(connected.0.value()));
    let (sender, errors) = mpsc::channel::<VipErrorDescriptor>();
    let context = (&raw const sender).cast_mut().cast();
    // SAFETY: the sender stays until the NIC is closed.
    let answer = unsafe { error_callback::VipErrorCallback(nic_handle, context, Some(pass_on)) };
    assert_eq!(answer, VipReturn::SUCCESS);
    let mut descriptors = TestDescriptor::many(1025);
    let answers = descriptors.iter_mut().map(|descriptor| {
        // SAFETY: a descriptor that stays until the NIC is closed.
        unsafe { transfer::VipPostSend(vi_handle, descriptor.pointer(), 1) }
    });
    let answers: Vec<_> = answers.collect();
    let (last, rest) = answers.split_last().unwrap();
    assert!(rest.iter().all(|answer| *answer == VipReturn::SUCCESS));
    assert_eq!(*last, VipReturn::ERROR_RESOURCE);
    let error = errors.recv_timeout(LIMIT.unwrap()).unwrap();
    assert_eq!((error.error_code, error.resource_code), (3, VipResourceCode::VI));
    assert_eq!(error.vi_handle.value(), vi_handle.value());
    assert_eq!(error.descriptor, descriptors[1024].pointer().cast());
    open.close().unwrap();
}

#[test]
fn attributes_of_memory_and_of_vis_change() {
    let (open, card) = tests::open();
    let nic_handle = Handle::new(open.0.value());
    let (mut tag, mut vi_handle, mut region) = (Handle::NULL, Handle::NULL, 0);
    let mut bytes = [0u8; 32];
    let address = bytes.as_mut_ptr().cast::<c_void>();
    let beyond = address.cast::<u8>().wrapping_add(32).cast::<c_void>();
    let last = address.cast::<u8>().wrapping_add(31).cast::<c_void>();
    let plain = VipMemAttributes { ptag: Handle::NULL, enable_rdma_write: 0, enable_rdma_read: 0 };
    let vi_attributes = VipViAttributes {
        reliability_level: 2,
        max_transfer_size: 32768,
        qos: null_mut(),
        ptag: Handle::NULL,
        enable_rdma_write: 0,
        enable_rdma_read: 0,
    };
    // SAFETY: good pointers.
    unsafe {
        let made = [
            memory::VipCreatePtag(nic_handle, Out::to(&mut tag)),
            memory::VipRegisterMem(nic_handle, address, 32, In::from(&plain), Out::to(&mut region)),
            vi::VipCreateVi(
                nic_handle,
                In::from(&vi_attributes),
                Handle::NULL,
                Handle::NULL,
                Out::to(&mut vi_handle),
            ),
        ];
        assert_eq!(made, [VipReturn::SUCCESS; 3]);
        let tagged = VipMemAttributes { ptag: tag, enable_rdma_write: 1, enable_rdma_read: 1 };
        let set = |address, handle, attributes| {
            memory::VipSetMemAttributes(nic_handle, address, handle, attributes)
        };
        assert_eq!(set(last, region, In::from(&tagged)), VipReturn::SUCCESS);
        let known = card.region(region).unwrap();
        assert_eq!((known.ptag, known.access), (1, 3));
        let mut told = plain;
        assert_eq!(memory::VipQueryMem(nic_handle, address, region, Out::to(&mut told)), VipReturn::SUCCESS);
        assert_eq!((told.ptag.value(), told.enable_rdma_write, told.enable_rdma_read), (tag.value(), 1, 1));
        let bad_tag = VipMemAttributes { ptag: Handle::new(0x7777), ..plain };
        assert_eq!(set(address, region, In::from(&bad_tag)), VipReturn::INVALID_PTAG);
        assert_eq!(set(address, region, In::NULL), VipReturn::INVALID_PARAMETER);
        assert_eq!(set(beyond, region, In::from(&plain)), VipReturn::INVALID_PARAMETER);
        assert_eq!(set(address, region + 1, In::from(&plain)), VipReturn::INVALID_PARAMETER);
        assert_eq!(card.region(region).unwrap(), known, "nothing has changed");

        let other =
            VipViAttributes { max_transfer_size: 99, ptag: tag, enable_rdma_write: 1, ..vi_attributes };
        assert_eq!(vi::VipSetViAttributes(vi_handle, In::from(&other)), VipReturn::SUCCESS);
        let qos = VipViAttributes { qos: address, ..other };
        assert_eq!(vi::VipSetViAttributes(vi_handle, In::from(&qos)), VipReturn::INVALID_QOS);
        let bad_tag = VipViAttributes { ptag: Handle::new(0x7777), ..other };
        assert_eq!(vi::VipSetViAttributes(vi_handle, In::from(&bad_tag)), VipReturn::INVALID_PTAG);
        assert_eq!(vi::VipSetViAttributes(vi_handle, In::NULL), VipReturn::INVALID_PARAMETER);
        assert_eq!(vi::VipSetViAttributes(Handle::new(5), In::from(&other)), VipReturn::INVALID_PARAMETER);
        let number = crate::vi::ViId::from_value(vi_handle.value()).unwrap().object().unwrap().number;
        let known = card.vi(number).unwrap();
        assert_eq!((known.ptag, known.attributes.max_transfer_size, known.attributes.flags), (1, 99, 1));
    }
    open.close().unwrap();
}

#[test]
fn peers_meet_in_c() {
    let (open, card) = tests::open();
    let attributes = VipViAttributes {
        reliability_level: 2,
        max_transfer_size: 32768,
        qos: null_mut(),
        ptag: Handle::NULL,
        enable_rdma_write: 1,
        enable_rdma_read: 0,
    };
    let mut handle = Handle::NULL;
    // Lengths of host and discriminator, then their bytes.
    let local = [0, 0, 2, 0, b'm', b'e'];
    let remote = [6, 0, 3, 0, 2, 0, 0, 0, 0, 1, b'y', b'o', b'u'];
    let short_host = [5, 0, 3, 0, 2, 0, 0, 0, 0, b'y', b'o', b'u'];
    let mut told = VipViAttributes { max_transfer_size: 0, ..attributes };
    // SAFETY: good pointers.
    unsafe {
        let nic_handle = Handle::new(open.0.value());
        let none = Handle::NULL;
        let made = vi::VipCreateVi(nic_handle, In::from(&attributes), none, none, Out::to(&mut handle));
        assert_eq!(made, VipReturn::SUCCESS);
        let ask = |vi, local: InAddress, remote: InAddress, timeout| {
            connect::VipConnectPeerRequest(vi, local, remote, timeout)
        };
        let (local, remote) = (InAddress::from(&local), InAddress::from(&remote));
        assert_eq!(ask(handle, local, remote, 0), VipReturn::INVALID_PARAMETER);
        assert_eq!(ask(handle, InAddress::NULL, remote, 9), VipReturn::INVALID_PARAMETER);
        assert_eq!(ask(handle, local, InAddress::NULL, 9), VipReturn::INVALID_PARAMETER);
        assert_eq!(ask(handle, local, InAddress::from(&short_host), 9), VipReturn::INVALID_PARAMETER);
        assert_eq!(ask(Handle::new(5), local, remote, 9), VipReturn::INVALID_PARAMETER);
        assert_eq!(connect::VipConnectPeerDone(handle, Out::NULL), VipReturn::INVALID_STATE);
        assert_eq!(connect::VipConnectPeerWait(handle, Out::NULL), VipReturn::INVALID_STATE);
        assert_eq!(connect::VipConnectPeerDone(Handle::new(5), Out::NULL), VipReturn::INVALID_PARAMETER);
        assert_eq!(connect::VipConnectPeerWait(Handle::new(5), Out::NULL), VipReturn::INVALID_PARAMETER);

        assert_eq!(ask(handle, local, remote, 1000), VipReturn::SUCCESS);
        assert_eq!(ask(handle, local, remote, 1000), VipReturn::INVALID_STATE);
        assert_eq!(connect::VipConnectPeerDone(handle, Out::to(&mut told)), VipReturn::NOT_DONE);
        assert_eq!(told.max_transfer_size, 0);
        let number = crate::vi::ViId::from_value(handle.value()).unwrap().object().unwrap().number;
        card.end_attempt(number, Ok(()));
        assert_eq!(connect::VipConnectPeerDone(handle, Out::to(&mut told)), VipReturn::SUCCESS);
        assert_eq!((told.max_transfer_size, told.enable_rdma_write), (32768, 1));
        assert_eq!(connect::VipDisconnect(handle), VipReturn::SUCCESS);
        let failures = [
            (Status::TIMEOUT, VipReturn::TIMEOUT),
            (Status::NO_MATCH, VipReturn::NO_MATCH),
            (Status::NOT_REACHABLE, VipReturn::NOT_REACHABLE),
            (Status::INVALID_RELIABILITY_LEVEL, VipReturn::INVALID_RELIABILITY_LEVEL),
            (Status::INVALID_MTU, VipReturn::INVALID_MTU),
            (Status::NIC_FAILED, VipReturn::ERROR_RESOURCE),
        ];
        for (status, code) in failures {
            assert_eq!(ask(handle, local, remote, u64::MAX), VipReturn::SUCCESS);
            card.end_attempt(number, Err(status));
            assert_eq!(connect::VipConnectPeerWait(handle, Out::NULL), code);
        }
        // Given up: the VI is Idle, and can be destroyed.
        assert_eq!(ask(handle, local, remote, 1000), VipReturn::SUCCESS);
        assert_eq!(vi::VipDestroyVi(handle), VipReturn::ERROR_RESOURCE);
        assert_eq!(connect::VipDisconnect(handle), VipReturn::SUCCESS);
        assert_eq!(vi::VipDestroyVi(handle), VipReturn::SUCCESS);
    }
    open.close().unwrap();
}
