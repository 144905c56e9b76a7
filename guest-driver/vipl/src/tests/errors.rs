//! Asynchronous errors.

use std::sync::mpsc;

use vianic_abi::status::{ErrorCode, Status};

use super::*;
use crate::async_error::AsyncError;
use crate::vi::ViState;

/// A handler that passes everything on.
pub(super) fn listen(nic: NicId) -> mpsc::Receiver<AsyncError> {
    let (sender, receiver) = mpsc::channel();
    let handler = move |error: &AsyncError| sender.send(*error).unwrap();
    nic.context().unwrap().set_error_handler(Some(Arc::new(handler))).unwrap();
    receiver
}

fn next(errors: &mpsc::Receiver<AsyncError>) -> (ErrorCode, Option<ViId>) {
    let error = errors.recv_timeout(LIMIT.unwrap()).expect("an error");
    (error.code, error.vi())
}

#[test]
fn a_lost_connection_is_reported_once() {
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    let (other, other_number) = connected(nic, &card, None, None);
    let errors = listen(nic);
    card.until_waiting(1);
    card.report(number, ErrorCode::CONN_LOST);
    assert_eq!(next(&errors), (ErrorCode::CONN_LOST, Some(vi)));
    card.report(other_number, ErrorCode::RECVQ_EMPTY);
    assert_eq!(next(&errors), (ErrorCode::RECVQ_EMPTY, Some(other)), "and nothing in between");
    nic.close().unwrap();
    assert!(errors.recv().is_err(), "the handler has gone with the NIC");
}

#[test]
fn nothing_is_reported_of_a_vi_that_the_program_has_let_go_of() {
    let (nic, card) = open();
    let (closed, closed_number) = connected(nic, &card, None, None);
    let (_, number) = connected(nic, &card, None, None);
    closed.disconnect().unwrap();
    let errors = listen(nic);
    card.report(closed_number, ErrorCode::CONN_LOST);
    closed.destroy().unwrap();
    card.report(closed_number, ErrorCode::POST_DESC);
    card.report(number, ErrorCode::CONN_LOST);
    assert_eq!(next(&errors).0, ErrorCode::CONN_LOST);
    assert!(errors.try_recv().is_err());
    nic.close().unwrap();
}

#[test]
fn a_loss_that_overtakes_the_connection_is_not_forgotten() {
    let (nic, card) = open();
    let vi = ViId::create(&nic.context().unwrap(), &ATTRIBUTES, None, None).unwrap();
    let object = vi.object().unwrap();
    object.state.lock().begin_connect(crate::vi::Attempt::Call).unwrap();
    card.report(object.number, ErrorCode::CONN_LOST);
    assert_eq!(vi.query().unwrap().state, ViState::ConnectPending);
    object.state.lock().end_connect(true);
    assert_eq!(vi.query().unwrap().state, ViState::Error);
    nic.close().unwrap();
}

#[test]
fn a_failed_context_is_a_catastrophe() {
    let (nic, card) = open();
    let (vi, _) = connected(nic, &card, None, None);
    let errors = listen(nic);
    card.until_waiting(1);
    card.fail();
    assert_eq!(next(&errors), (ErrorCode::CATASTROPHIC, None));
    assert_eq!(vi.query().unwrap().state, ViState::Error);
    assert!(errors.recv_timeout(Duration::ZERO).is_err(), "reported once");
    card.answer_connect(Err(Status::NIC_FAILED));
    nic.close().unwrap();
}

#[test]
fn a_handler_may_close_the_nic() {
    let (nic, card) = open();
    let (_, number) = connected(nic, &card, None, None);
    let (sender, closed) = mpsc::channel();
    let handler = move |_: &AsyncError| sender.send(nic.close().is_ok()).unwrap();
    nic.context().unwrap().set_error_handler(Some(Arc::new(handler))).unwrap();
    card.report(number, ErrorCode::CONN_LOST);
    assert!(closed.recv_timeout(LIMIT.unwrap()).unwrap());
}

#[test]
fn without_a_handler_errors_are_logged_and_gone() {
    let (nic, card) = open();
    let (_, number) = connected(nic, &card, None, None);
    card.report(number, ErrorCode::CONN_LOST);
    let errors = listen(nic);
    card.report(number, ErrorCode::RECVQ_EMPTY);
    assert_eq!(next(&errors).0, ErrorCode::RECVQ_EMPTY);
    nic.context().unwrap().set_error_handler(None).unwrap();
    card.report(number, ErrorCode::RECVQ_EMPTY);
    assert!(errors.recv().is_err(), "the handler was dropped");
    nic.close().unwrap();
}
