//! Completion queues.

use super::*;
use crate::cq::QueueEvent;
use crate::error::Error;

fn create(nic: NicId) -> CqId {
    CqId::create(&nic.context().unwrap(), 1).unwrap()
}

#[test]
fn one_queue_tells_of_both_directions_of_many_vis() {
    let (nic, card) = open();
    let cq = create(nic);
    let (first, first_number) = connected(nic, &card, Some(cq), Some(cq));
    let (second, second_number) = connected(nic, &card, Some(cq), None);
    let mut descriptors = TestDescriptor::many(3);
    let [a, b, c] = &mut descriptors[..] else { panic!() };
    post(first, Queue::Send, a).unwrap();
    post(first, Queue::Receive, b).unwrap();
    post(second, Queue::Send, c).unwrap();
    assert_eq!(cq.poll().unwrap(), None);
    card.complete(first_number, Queue::Receive, DONE);
    card.complete(second_number, Queue::Send, DONE);
    card.complete(first_number, Queue::Send, DONE);
    let mut events = Vec::new();
    while let Some(event) = cq.poll().unwrap() {
        take(event.vi, event.queue);
        events.push(event);
    }
    assert_eq!(
        events,
        [
            QueueEvent { vi: first, queue: Queue::Receive },
            QueueEvent { vi: second, queue: Queue::Send },
            QueueEvent { vi: first, queue: Queue::Send },
        ]
    );
    nic.close().unwrap();
}

#[test]
fn a_wait_ends_with_a_completion() {
    let (nic, card) = open();
    let cq = create(nic);
    let (vi, number) = connected(nic, &card, None, Some(cq));
    let mut descriptor = TestDescriptor::new(1);
    post(vi, Queue::Receive, &mut descriptor).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| cq.wait(LIMIT).unwrap());
        card.until_waiting(1);
        card.complete(number, Queue::Receive, DONE);
        assert_eq!(waiter.join().unwrap(), QueueEvent { vi, queue: Queue::Receive });
    });
    assert!(matches!(cq.wait(Some(Duration::ZERO)), Err(Error::TimedOut)));
    nic.close().unwrap();
}

/// The entry of one queue may be taken out of the MCQ by a thread that looks at another.
#[test]
fn whoever_looks_serves_all_queues() {
    let (nic, card) = open();
    let (waited, polled) = (create(nic), create(nic));
    let (vi, number) = connected(nic, &card, Some(waited), Some(polled));
    let mut descriptors = TestDescriptor::many(50);
    for descriptor in &mut descriptors {
        post(vi, Queue::Send, descriptor).unwrap();
    }
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| (0..50).for_each(|_| assert_eq!(waited.wait(LIMIT).unwrap().vi, vi)));
        for _ in 0..50 {
            card.complete(number, Queue::Send, DONE);
            assert_eq!(polled.poll().unwrap(), None);
        }
        waiter.join().unwrap();
    });
    nic.close().unwrap();
}

/// A program that only posts, with far more completions than the MCQ has entries, loses none.
#[test]
fn no_completion_is_lost_for_want_of_room() {
    let layout = Layout { mcq_log2: 4, ..Layout::default() };
    let (nic, card) = open_with(layout, Settings { spin: Duration::ZERO, strict: false });
    let cq = create(nic);
    let (vi, number) = connected(nic, &card, Some(cq), None);
    let mut descriptors = TestDescriptor::many(1000);
    for descriptor in &mut descriptors {
        post(vi, Queue::Send, descriptor).unwrap();
        assert!(card.complete(number, Queue::Send, DONE), "the library makes room in time");
    }
    for descriptor in &mut descriptors {
        assert_eq!(cq.poll().unwrap(), Some(QueueEvent { vi, queue: Queue::Send }));
        assert_eq!(take(vi, Queue::Send).0, descriptor.pointer());
    }
    assert_eq!(cq.poll().unwrap(), None);
    nic.close().unwrap();
}

#[test]
fn a_stalled_card_is_rung_when_there_is_room() {
    let layout = Layout { mcq_log2: 4, ..Layout::default() };
    let (nic, card) = open_with(layout, Settings { spin: Duration::ZERO, strict: false });
    let cq = create(nic);
    let (vi, number) = connected(nic, &card, None, Some(cq));
    let mut descriptors = TestDescriptor::many(40);
    for descriptor in &mut descriptors {
        post(vi, Queue::Receive, descriptor).unwrap();
    }
    card.start_polling();
    while card.complete(number, Queue::Receive, DONE) {}
    let doorbells = card.doorbells();
    assert!(cq.poll().unwrap().is_some());
    assert_eq!(card.doorbells(), doorbells + 1);
    nic.close().unwrap();
}

#[test]
fn destroying_a_vi_takes_its_completions_along() {
    let (nic, card) = open();
    let cq = create(nic);
    let (gone, gone_number) = connected(nic, &card, Some(cq), None);
    let (stays, stays_number) = connected(nic, &card, Some(cq), None);
    let mut descriptors = TestDescriptor::many(3);
    let [a, b, c] = &mut descriptors[..] else { panic!() };
    post(gone, Queue::Send, a).unwrap();
    post(gone, Queue::Send, b).unwrap();
    post(stays, Queue::Send, c).unwrap();
    card.complete(gone_number, Queue::Send, DONE);
    card.complete(stays_number, Queue::Send, DONE);
    gone.disconnect().unwrap();
    assert!(matches!(cq.destroy(), Err(Error::OutOfResources(_))));
    gone.destroy().unwrap();
    assert_eq!(cq.poll().unwrap(), Some(QueueEvent { vi: stays, queue: Queue::Send }));
    assert_eq!(cq.poll().unwrap(), None);
    stays.disconnect().unwrap();
    stays.destroy().unwrap();
    cq.destroy().unwrap();
    assert_eq!(card.objects(), (0, 0, 0));
    assert!(matches!(cq.poll(), Err(Error::InvalidHandle(_))));
    nic.close().unwrap();
}

#[test]
fn resizing_keeps_what_is_there() {
    let (nic, card) = open();
    let cq = create(nic);
    let (vi, number) = connected(nic, &card, Some(cq), None);
    let mut descriptors = TestDescriptor::many(2);
    for descriptor in &mut descriptors {
        post(vi, Queue::Send, descriptor).unwrap();
        card.complete(number, Queue::Send, DONE);
    }
    assert!(matches!(cq.resize(1), Err(Error::OutOfResources(_))), "two wait, though nobody has looked");
    assert!(cq.poll().unwrap().is_some());
    assert!(matches!(cq.resize(0), Err(Error::InvalidParameter(_))));
    cq.resize(96).unwrap();
    assert!(cq.poll().unwrap().is_some());
    nic.close().unwrap();
}
