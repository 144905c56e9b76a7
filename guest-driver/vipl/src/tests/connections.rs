//! Connections and the states of a VI.

use vianic_abi::status::{ErrorCode, Status};

use super::*;
use crate::connect::RequestId;
use crate::error::Error;
use crate::vi::ViState;

fn idle(nic: NicId) -> ViId {
    ViId::create(&nic.context().unwrap(), &ATTRIBUTES, None, None).unwrap()
}

fn request(nic: NicId, card: &Card, connection: u32) -> RequestId {
    card.request_comes(connection);
    let local = crate::net_address(None, b"here").unwrap();
    RequestId::wait(&nic.context().unwrap(), &local, LIMIT).unwrap()
}

#[test]
fn a_failed_request_leaves_the_vi_idle_with_its_receives() {
    let (nic, card) = open();
    let vi = idle(nic);
    let mut descriptor = TestDescriptor::new(1);
    post(vi, Queue::Receive, &mut descriptor).unwrap();
    assert!(matches!(connect(vi), Err(Error::NoMatch)));
    for status in [Status::REJECT, Status::TIMEOUT, Status::NOT_REACHABLE] {
        card.answer_connect(Err(status));
        connect(vi).unwrap_err();
        assert_eq!(vi.query().unwrap().state, ViState::Idle);
    }
    card.answer_connect(Ok(()));
    connect(vi).unwrap();
    let info = vi.query().unwrap();
    assert_eq!(
        (info.state, info.send_queue_empty, info.receive_queue_empty),
        (ViState::Connected, true, false)
    );
    assert!(matches!(connect(vi), Err(Error::InvalidState(_))));
    nic.close().unwrap();
}

#[test]
fn a_request_needs_time() {
    let (nic, _card) = open();
    let address = crate::net_address(None, b"there").unwrap();
    let answer = idle(nic).connect_request(&address, &address, Some(Duration::ZERO));
    assert!(matches!(answer, Err(Error::InvalidParameter(_))));
    nic.close().unwrap();
}

#[test]
fn a_mismatch_leaves_the_request_and_an_answer_uses_it_up() {
    let (nic, card) = open();
    let (vi, request) = (idle(nic), request(nic, &card, 5));
    assert_eq!(request.remote().unwrap().host, [2, 0, 0, 0, 0, 9]);
    assert_eq!(request.attributes().unwrap(), ATTRIBUTES);
    card.answer_accept(Err(Status::INVALID_MTU));
    assert!(matches!(request.accept(vi), Err(Error::InvalidTransferSize)));
    assert_eq!(vi.query().unwrap().state, ViState::Idle);
    request.accept(vi).unwrap();
    assert_eq!(vi.query().unwrap().state, ViState::Connected);
    assert!(matches!(request.accept(vi), Err(Error::InvalidHandle(_))));
    assert!(matches!(request.reject(), Err(Error::InvalidHandle(_))));
    nic.close().unwrap();
}

#[test]
fn a_refused_request_is_used_up() {
    let (nic, card) = open();
    let request = request(nic, &card, 6);
    request.reject().unwrap();
    assert_eq!(card.rejected(), [6]);
    assert!(request.remote().is_err());
    nic.close().unwrap();
}

#[test]
fn a_requester_that_has_gone_uses_the_request_up() {
    let (nic, card) = open();
    let (vi, request) = (idle(nic), request(nic, &card, 7));
    card.answer_accept(Err(Status::TIMEOUT));
    assert!(matches!(request.accept(vi), Err(Error::TimedOut)));
    assert!(request.accept(vi).is_err());
    assert_eq!(vi.query().unwrap().state, ViState::Idle);
    nic.close().unwrap();
}

#[test]
fn disconnecting_gives_everything_back_flushed_and_does_no_harm_twice() {
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    let mut descriptors = TestDescriptor::many(4);
    let [done, sent, received, lost] = &mut descriptors[..] else { panic!() };
    post(vi, Queue::Send, done).unwrap();
    card.complete(number, Queue::Send, DONE);
    post(vi, Queue::Receive, lost).unwrap();
    card.lose(number, Queue::Receive);
    post(vi, Queue::Send, sent).unwrap();
    post(vi, Queue::Receive, received).unwrap();
    vi.disconnect().unwrap();
    vi.disconnect().unwrap();
    assert_eq!(card.disconnects(), 1);
    assert_eq!(vi.query().unwrap().state, ViState::Idle);
    assert_eq!(take(vi, Queue::Send), (done.pointer(), DONE));
    assert_eq!(take(vi, Queue::Send), (sent.pointer(), FLUSHED));
    assert_eq!(take(vi, Queue::Receive), (lost.pointer(), FLUSHED), "though the card could not say so");
    assert_eq!(take(vi, Queue::Receive), (received.pointer(), FLUSHED));
    assert!(matches!(vi.done(Queue::Receive).unwrap(), Poll::Empty));
    vi.destroy().unwrap();
    assert!(matches!(vi.query(), Err(Error::InvalidHandle(_))));
    nic.close().unwrap();
}

#[test]
fn a_lost_connection_shows_in_the_state_and_can_be_ended() {
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    let mut descriptor = TestDescriptor::new(0);
    post(vi, Queue::Receive, &mut descriptor).unwrap();
    card.report(number, ErrorCode::CONN_LOST);
    assert_eq!(vi.query().unwrap().state, ViState::Error);
    assert!(matches!(vi.destroy(), Err(Error::OutOfResources(_))));
    assert_eq!(take(vi, Queue::Receive).1, FLUSHED);
    vi.disconnect().unwrap();
    assert_eq!(vi.query().unwrap().state, ViState::Idle);
    card.answer_connect(Ok(()));
    connect(vi).unwrap();
    assert_eq!(vi.query().unwrap().state, ViState::Connected, "the old loss is forgotten");
    nic.close().unwrap();
}

#[test]
fn a_vi_with_descriptors_is_destroyed_unless_one_is_strict() {
    let mut descriptors = TestDescriptor::many(2);
    for strict in [false, true] {
        let (nic, card) = open_with(Layout::default(), Settings { spin: Duration::ZERO, strict });
        let (vi, number) = connected(nic, &card, None, None);
        for descriptor in &mut descriptors {
            post(vi, Queue::Receive, descriptor).unwrap();
        }
        card.complete(number, Queue::Receive, DONE);
        vi.disconnect().unwrap();
        assert_eq!(vi.destroy().is_ok(), !strict);
        nic.close().unwrap();
    }
}

#[test]
fn attributes_are_checked() {
    let (nic, _card) = open();
    let create = |attributes: ViAttributes| ViId::create(&nic.context().unwrap(), &attributes, None, None);
    for level in [0, 3, 8] {
        let wrong = ViAttributes { reliability: ReliabilityLevel(level), ..ATTRIBUTES };
        assert!(matches!(create(wrong), Err(Error::InvalidReliabilityLevel)));
    }
    let wrong = ViAttributes { max_transfer_size: 2 << 20, ..ATTRIBUTES };
    assert!(matches!(create(wrong), Err(Error::InvalidTransferSize)));
    let reader = ViAttributes { rdma_read: true, ..ATTRIBUTES };
    assert_eq!(create(reader).unwrap().query().unwrap().attributes, reader);
    let wrong = ViAttributes { reliability: ReliabilityLevel::UNRELIABLE, ..reader };
    assert!(matches!(create(wrong), Err(Error::InvalidRdmaRead)));
    let (other, _other_card) = open();
    let tag = crate::TagId::create(&other.context().unwrap()).unwrap();
    let wrong = ViAttributes { tag: Some(tag), ..ATTRIBUTES };
    assert!(matches!(create(wrong), Err(Error::InvalidProtectionTag)), "a tag of another NIC handle");
    let cq = CqId::create(&other.context().unwrap(), 1).unwrap();
    let foreign = ViId::create(&nic.context().unwrap(), &ATTRIBUTES, Some(cq), None);
    assert!(matches!(foreign, Err(Error::InvalidParameter(_))), "a CQ of another NIC handle");
    nic.close().unwrap();
    other.close().unwrap();
}

#[test]
fn an_idle_vi_takes_other_attributes_and_nothing_changes_on_failure() {
    let (nic, card) = open();
    let (vi, context) = (idle(nic), nic.context().unwrap());
    let number = vi.object().unwrap().number;
    let tag = crate::TagId::create(&context).unwrap();
    let mut descriptor = TestDescriptor::new(1);
    post(vi, Queue::Receive, &mut descriptor).unwrap();
    let other = ViAttributes { tag: Some(tag), max_transfer_size: 100, rdma_write: true, ..ATTRIBUTES };
    vi.set_attributes(&other).unwrap();
    let info = vi.query().unwrap();
    assert_eq!((info.attributes, info.receive_queue_empty), (other, false));
    let known = card.vi(number).unwrap();
    assert_eq!((known.ptag, known.attributes.max_transfer_size), (1, 100));
    for (wrong, is_expected) in [
        (
            ViAttributes { reliability: ReliabilityLevel(3), ..ATTRIBUTES },
            (|error| matches!(error, Error::InvalidReliabilityLevel)) as fn(&Error) -> bool,
        ),
        (ViAttributes { max_transfer_size: 2 << 20, ..ATTRIBUTES }, |error| {
            matches!(error, Error::InvalidTransferSize)
        }),
        (
            ViAttributes { reliability: ReliabilityLevel::UNRELIABLE, rdma_read: true, ..ATTRIBUTES },
            |error| matches!(error, Error::InvalidRdmaRead),
        ),
    ] {
        assert!(is_expected(&vi.set_attributes(&wrong).unwrap_err()), "{wrong:?}");
        assert_eq!((vi.query().unwrap().attributes, card.vi(number).unwrap()), (other, known));
    }
    card.answer_connect(Ok(()));
    connect(vi).unwrap();
    assert!(matches!(vi.set_attributes(&ATTRIBUTES), Err(Error::InvalidState(_))));
    assert_eq!(vi.query().unwrap().attributes, other);
    nic.close().unwrap();
}
