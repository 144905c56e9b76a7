//! Waiting for descriptors.

use super::*;
use crate::error::Error;

#[test]
fn a_wait_ends_when_the_head_completes() {
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    let mut descriptor = TestDescriptor::new(1);
    post(vi, Queue::Receive, &mut descriptor).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope
            .spawn(|| vi.wait(Queue::Receive, LIMIT).unwrap().map(|found| matches!(found, Poll::Done(_))));
        card.until_waiting(1);
        vi.done(Queue::Receive).map(|found| assert!(matches!(found, Poll::NotDone))).unwrap();
        card.complete(number, Queue::Receive, DONE);
        assert_eq!(waiter.join().unwrap(), Some(true));
    });
    nic.close().unwrap();
}

#[test]
fn a_wait_on_a_complete_head_asks_nobody() {
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    let mut descriptor = TestDescriptor::new(1);
    post(vi, Queue::Receive, &mut descriptor).unwrap();
    card.complete(number, Queue::Receive, DONE);
    // For ever, and yet it returns.
    assert!(matches!(vi.wait(Queue::Receive, None).unwrap(), Some(Poll::Done(_))));
    assert!(matches!(vi.wait(Queue::Receive, None).unwrap(), Some(Poll::Empty)));
    nic.close().unwrap();
}

#[test]
fn a_wait_without_time_looks_once() {
    let (nic, card) = open();
    let (vi, _) = connected(nic, &card, None, None);
    let mut descriptor = TestDescriptor::new(1);
    post(vi, Queue::Receive, &mut descriptor).unwrap();
    assert!(vi.wait(Queue::Receive, Some(Duration::ZERO)).unwrap().is_none());
    assert!(vi.wait(Queue::Receive, Some(Duration::from_millis(1))).unwrap().is_none());
    nic.close().unwrap();
}

#[test]
fn two_waiters_get_one_descriptor_each() {
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    let mut descriptors = TestDescriptor::many(2);
    for descriptor in &mut descriptors {
        post(vi, Queue::Send, descriptor).unwrap();
    }
    std::thread::scope(|scope| {
        let wait = || vi.wait(Queue::Send, LIMIT).unwrap().map(|found| matches!(found, Poll::Done(_)));
        let waiters = [scope.spawn(wait), scope.spawn(wait)];
        card.until_waiting(2);
        card.complete(number, Queue::Send, DONE);
        card.complete(number, Queue::Send, DONE);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Some(true));
        }
    });
    nic.close().unwrap();
}

#[test]
fn a_queue_with_a_completion_queue_is_not_waited_on() {
    let (nic, card) = open();
    let cq = CqId::create(&nic.context().unwrap(), 1).unwrap();
    let (vi, _) = connected(nic, &card, Some(cq), None);
    assert!(matches!(vi.wait(Queue::Send, None), Err(Error::InvalidParameter(_))));
    nic.close().unwrap();
}

#[test]
fn closing_the_nic_ends_every_wait() {
    let (nic, card) = open();
    let cq = CqId::create(&nic.context().unwrap(), 1).unwrap();
    let (vi, _) = connected(nic, &card, Some(cq), None);
    let mut descriptor = TestDescriptor::new(1);
    post(vi, Queue::Receive, &mut descriptor).unwrap();
    let local = crate::net_address(None, b"here").unwrap();
    std::thread::scope(|scope| {
        let on_queue = scope.spawn(|| vi.wait(Queue::Receive, None).is_err());
        let on_cq = scope.spawn(|| cq.wait(None).is_err());
        let context = nic.context().unwrap();
        let local = &local;
        let on_connection = scope.spawn(move || crate::RequestId::wait(&context, local, None).is_err());
        card.until_waiting(3);
        nic.close().unwrap();
        assert!(on_queue.join().unwrap() && on_cq.join().unwrap() && on_connection.join().unwrap());
    });
    assert_eq!(card.objects().0, 0);
}

#[test]
fn a_failing_context_ends_every_wait() {
    let (nic, card) = open();
    let cq = CqId::create(&nic.context().unwrap(), 1).unwrap();
    let (vi, _) = connected(nic, &card, Some(cq), None);
    let mut descriptor = TestDescriptor::new(1);
    post(vi, Queue::Receive, &mut descriptor).unwrap();
    std::thread::scope(|scope| {
        let on_queue = scope.spawn(|| match vi.wait(Queue::Receive, None).unwrap() {
            Some(Poll::Done(completion)) => completion.status,
            other => panic!("{other:?}"),
        });
        let on_cq = scope.spawn(|| cq.wait(None));
        card.until_waiting(2);
        card.fail();
        assert_eq!(on_queue.join().unwrap(), FLUSHED);
        assert!(matches!(on_cq.join().unwrap(), Err(Error::NicFailed)));
    });
    nic.close().unwrap();
}
