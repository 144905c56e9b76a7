//! Connections between equals, and the states of a VI.

use vianic_abi::status::{ErrorCode, Status};

use super::*;
use crate::error::Error;
use crate::vi::ViState;

fn idle(nic: NicId) -> (ViId, u16) {
    let vi = ViId::create(&nic.context().unwrap(), &ATTRIBUTES, None, None).unwrap();
    (vi, vi.object().unwrap().number)
}

fn ask(vi: ViId) -> Result<()> {
    let address = crate::net_address(None, b"peer").unwrap();
    vi.connect_peer_request(&address, &address, LIMIT)
}

fn state(vi: ViId) -> ViState {
    vi.query().unwrap().state
}

#[test]
fn an_attempt_goes_on_until_it_is_told_to_be_made() {
    let (nic, card) = open();
    let (vi, number) = idle(nic);
    assert!(matches!(vi.connect_peer_done(), Err(Error::InvalidState(_))), "there is none");
    ask(vi).unwrap();
    assert!(vi.connect_peer_done().unwrap().is_none());
    assert_eq!(state(vi), ViState::ConnectPending);
    assert!(matches!(ask(vi), Err(Error::InvalidState(_))));
    assert!(matches!(vi.destroy(), Err(Error::OutOfResources(_))));
    card.end_attempt(number, Ok(()));
    assert_eq!(vi.connect_peer_done().unwrap(), Some(ATTRIBUTES));
    assert_eq!(state(vi), ViState::Connected);
    assert!(matches!(vi.connect_peer_done(), Err(Error::InvalidState(_))), "it is told once");
    assert!(matches!(vi.connect_peer_wait(), Err(Error::InvalidState(_))));
    nic.close().unwrap();
}

#[test]
fn a_connection_shows_before_it_is_told_and_a_failure_afterwards() {
    let (nic, card) = open();
    let (vi, number) = idle(nic);
    ask(vi).unwrap();
    card.end_attempt(number, Ok(()));
    assert_eq!(state(vi), ViState::Connected);
    assert_eq!(vi.connect_peer_wait().unwrap(), ATTRIBUTES);
    vi.disconnect().unwrap();
    let mut descriptor = TestDescriptor::new(1);
    post(vi, Queue::Receive, &mut descriptor).unwrap();
    type IsExpected = fn(&Error) -> bool;
    let failures: [(Status, IsExpected); 5] = [
        (Status::TIMEOUT, |error| matches!(error, Error::TimedOut)),
        (Status::INVALID_RELIABILITY_LEVEL, |error| matches!(error, Error::InvalidReliabilityLevel)),
        (Status::INVALID_MTU, |error| matches!(error, Error::InvalidTransferSize)),
        (Status::NO_MATCH, |error| matches!(error, Error::NoMatch)),
        (Status::NOT_REACHABLE, |error| matches!(error, Error::NotReachable)),
    ];
    for (failure, is_expected) in failures {
        ask(vi).unwrap();
        card.end_attempt(number, Err(failure));
        assert_eq!(state(vi), ViState::ConnectPending);
        assert!(is_expected(&vi.connect_peer_done().unwrap_err()), "{failure:?}");
        let info = vi.query().unwrap();
        assert_eq!((info.state, info.receive_queue_empty), (ViState::Idle, false), "{failure:?}");
    }
    nic.close().unwrap();
}

#[test]
fn waits_end_with_the_attempt_and_one_of_them_is_told() {
    let (nic, card) = open();
    let (vi, number) = idle(nic);
    ask(vi).unwrap();
    let waits: Vec<_> = (0..3).map(|_| std::thread::spawn(move || vi.connect_peer_wait())).collect();
    card.until_waiting(3);
    card.end_attempt(number, Ok(()));
    let told = waits.into_iter().map(|wait| wait.join().unwrap()).filter(|answer| match answer {
        Ok(attributes) => *attributes == ATTRIBUTES,
        Err(error) => {
            assert!(matches!(error, Error::InvalidState(_)), "{error}");
            false
        }
    });
    assert_eq!(told.count(), 1);
    assert_eq!(state(vi), ViState::Connected);
    nic.close().unwrap();
}

#[test]
fn a_wait_learns_what_another_call_has_found() {
    let (nic, card) = open();
    let (vi, number) = idle(nic);
    for _ in 0..50 {
        ask(vi).unwrap();
        let wait = std::thread::spawn(move || vi.connect_peer_wait());
        card.until_waiting(1);
        let look = std::thread::spawn(move || while state(vi) == ViState::ConnectPending {});
        card.end_attempt(number, Ok(()));
        assert_eq!(wait.join().unwrap().unwrap(), ATTRIBUTES);
        look.join().unwrap();
        vi.disconnect().unwrap();
    }
    nic.close().unwrap();
}

#[test]
fn disconnecting_gives_the_attempt_up() {
    let (nic, card) = open();
    let (vi, _) = idle(nic);
    ask(vi).unwrap();
    let wait = std::thread::spawn(move || vi.connect_peer_wait());
    card.until_waiting(1);
    vi.disconnect().unwrap();
    assert!(matches!(wait.join().unwrap(), Err(Error::InvalidState(_))));
    assert_eq!((state(vi), card.attempts()), (ViState::Idle, 0));
    ask(vi).unwrap();
    vi.disconnect().unwrap();
    vi.destroy().unwrap();
    nic.close().unwrap();
}

#[test]
fn a_wait_learns_that_the_attempt_was_given_up() {
    let (nic, card) = open();
    let (vi, number) = idle(nic);
    ask(vi).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || vi.connect_peer_wait());
        card.until_waiting(1);
        // As the card's answer may come before the attempt is forgotten.
        card.end_attempt(number, Err(Status::CANCELLED));
        assert!(matches!(waiter.join().unwrap(), Err(Error::InvalidState(_))));
    });
    nic.close().unwrap();
}

#[test]
fn a_failed_nic_is_told_of_an_attempt_that_it_has_ended() {
    let (nic, card) = open();
    let (vi, _) = idle(nic);
    ask(vi).unwrap();
    card.fail();
    assert!(nic.context().unwrap().has_failed());
    assert!(matches!(vi.connect_peer_done(), Err(Error::NicFailed)));
    assert_eq!(state(vi), ViState::Error);
    nic.close().unwrap();
}

#[test]
fn closing_the_nic_ends_waits_and_the_attempt() {
    let (nic, card) = open();
    let (vi, _) = idle(nic);
    ask(vi).unwrap();
    let wait = std::thread::spawn(move || vi.connect_peer_wait());
    card.until_waiting(1);
    nic.close().unwrap();
    assert!(matches!(wait.join().unwrap(), Err(Error::Closed)));
    assert_eq!(card.objects().0, 0);
}

#[test]
fn a_connection_that_is_lost_before_it_is_told_is_told_and_lost() {
    let (nic, card) = open();
    let (vi, number) = idle(nic);
    ask(vi).unwrap();
    card.end_attempt(number, Ok(()));
    card.report(number, ErrorCode::CONN_LOST);
    assert_eq!(state(vi), ViState::Error);
    assert_eq!(vi.connect_peer_done().unwrap(), Some(ATTRIBUTES));
    vi.disconnect().unwrap();
    assert_eq!(state(vi), ViState::Idle);
    nic.close().unwrap();
}

#[test]
fn an_attempt_needs_time_and_one_that_cannot_begin_leaves_the_vi_idle() {
    let (nic, card) = open();
    let (vi, _) = idle(nic);
    let address = crate::net_address(None, b"peer").unwrap();
    let timeless = vi.connect_peer_request(&address, &address, Some(Duration::ZERO));
    assert!(matches!(timeless, Err(Error::InvalidParameter(_))));
    card.answer_connect(Err(Status::ERROR_RESOURCE));
    assert!(matches!(ask(vi), Err(Error::OutOfResources(_))));
    assert_eq!(state(vi), ViState::Idle);
    nic.close().unwrap();
}
