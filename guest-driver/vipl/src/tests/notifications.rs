//! Handlers that are called with completions.

use std::sync::mpsc;

use vianic_abi::status::ErrorCode;

use super::*;
use crate::cq::QueueEvent;
use crate::error::Error;

/// What a handler was called with, by the number of its registration.
type Calls = mpsc::Receiver<(usize, usize, DescriptorStatus)>;

/// Registers handlers that say who they are, which descriptor they got, and its status.
fn register(vi: ViId, queue: Queue, numbers: std::ops::Range<usize>) -> Calls {
    let (sender, calls) = mpsc::channel();
    for number in numbers {
        let sender = sender.clone();
        let handler = move |completion: crate::work_queue::RawCompletion| {
            let call = (number, completion.descriptor.as_ptr().addr(), completion.status);
            sender.send(call).expect("the test listens");
        };
        vi.notify(queue, Box::new(handler)).unwrap();
    }
    calls
}

fn next<T>(calls: &mpsc::Receiver<T>) -> T {
    calls.recv_timeout(LIMIT.unwrap()).expect("a call")
}

/// Registers a handler on the send queue that says that it runs, and keeps the thread until it is released.
fn hold_thread(vi: ViId) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (entered, in_handler) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let handler = move |_| {
        entered.send(()).unwrap();
        released.recv_timeout(LIMIT.unwrap()).expect("released");
    };
    vi.notify(Queue::Send, Box::new(handler)).unwrap();
    (in_handler, release)
}

fn address(descriptor: &mut TestDescriptor) -> usize {
    descriptor.pointer().addr()
}

#[test]
fn a_completion_that_is_there_is_taken() {
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    let mut descriptor = TestDescriptor::new(1);
    post(vi, Queue::Receive, &mut descriptor).unwrap();
    card.complete(number, Queue::Receive, DONE);
    let calls = register(vi, Queue::Receive, 0..1);
    assert_eq!(next(&calls), (0, address(&mut descriptor), DONE));
    assert!(matches!(vi.done(Queue::Receive).unwrap(), Poll::Empty), "it is dequeued");
    nic.close().unwrap();
}

#[test]
fn registrations_are_served_in_completion_order() {
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    // Before anything is posted.
    let calls = register(vi, Queue::Send, 0..3);
    card.until_waiting(1);
    let mut descriptors = TestDescriptor::many(4);
    for descriptor in &mut descriptors {
        post(vi, Queue::Send, descriptor).unwrap();
    }
    for (index, descriptor) in descriptors.iter_mut().enumerate().take(3) {
        assert!(calls.try_recv().is_err(), "one completion, one call");
        let status = if index == 1 { DONE | DescriptorStatus::TRANSPORT_ERROR } else { DONE };
        card.complete(number, Queue::Send, status);
        assert_eq!(next(&calls), (index, address(descriptor), status), "errors too");
    }
    card.complete(number, Queue::Send, DONE);
    assert!(calls.recv().is_err(), "all handlers are used up");
    assert_eq!(take(vi, Queue::Send).0, descriptors[3].pointer());
    nic.close().unwrap();
}

#[test]
fn a_completion_that_the_program_takes_first_leaves_the_registration() {
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    let mut descriptors = TestDescriptor::many(3);
    let [first, second, other] = &mut descriptors[..] else { panic!() };
    post(vi, Queue::Receive, first).unwrap();
    post(vi, Queue::Send, other).unwrap();
    let (in_handler, release) = hold_thread(vi);
    card.complete(number, Queue::Send, DONE);
    next(&in_handler);
    let calls = register(vi, Queue::Receive, 0..1);
    card.complete(number, Queue::Receive, DONE);
    assert_eq!(take(vi, Queue::Receive).0, first.pointer());
    release.send(()).unwrap();
    post(vi, Queue::Receive, second).unwrap();
    card.complete(number, Queue::Receive, DONE);
    assert_eq!(next(&calls), (0, address(second), DONE));
    nic.close().unwrap();
}

#[test]
fn one_thread_serves_many_queues() {
    const VIS: usize = 50;
    let (nic, card) = open();
    let cq = CqId::create(&nic.context().unwrap(), 1).unwrap();
    let (reporting, reporting_number) = connected(nic, &card, None, Some(cq));
    let (sender, events) = mpsc::channel();
    cq.notify(move |event| sender.send((event, std::thread::current().id())).unwrap()).unwrap();
    let (sender, calls) = mpsc::channel();
    let vis: Vec<_> = (0..VIS).map(|_| connected(nic, &card, None, None)).collect();
    let mut descriptors = TestDescriptor::many(VIS + 1);
    for ((vi, _), descriptor) in vis.iter().zip(&mut descriptors) {
        post(*vi, Queue::Receive, descriptor).unwrap();
        let (vi, sender) = (*vi, sender.clone());
        let handler = move |_| sender.send((vi, std::thread::current().id())).unwrap();
        vi.notify(Queue::Receive, Box::new(handler)).unwrap();
    }
    card.until_waiting(1);
    post(reporting, Queue::Receive, &mut descriptors[VIS]).unwrap();
    card.complete(reporting_number, Queue::Receive, DONE);
    let (event, thread) = next(&events);
    assert_eq!(event, QueueEvent { vi: reporting, queue: Queue::Receive });
    assert_ne!(thread, std::thread::current().id());
    take(reporting, Queue::Receive);
    for (vi, number) in vis.iter().rev() {
        card.complete(*number, Queue::Receive, DONE);
        assert_eq!(next(&calls), (*vi, thread));
    }
    nic.close().unwrap();
}

#[test]
fn flushed_descriptors_are_completions() {
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    let mut descriptors = TestDescriptor::many(3);
    for descriptor in &mut descriptors {
        post(vi, Queue::Receive, descriptor).unwrap();
    }
    let calls = register(vi, Queue::Receive, 0..3);
    card.until_waiting(1);
    // What the card has lost is flushed by the library, without a word from the card.
    card.lose(number, Queue::Receive);
    vi.disconnect().unwrap();
    for (index, descriptor) in descriptors.iter_mut().enumerate() {
        assert_eq!(next(&calls), (index, address(descriptor), FLUSHED));
    }
    vi.destroy().unwrap();
    nic.close().unwrap();
}

#[test]
fn a_failing_context_flushes_into_the_handlers() {
    let (nic, card) = open();
    let cq = CqId::create(&nic.context().unwrap(), 1).unwrap();
    let (vi, _) = connected(nic, &card, None, None);
    let mut descriptor = TestDescriptor::new(1);
    post(vi, Queue::Receive, &mut descriptor).unwrap();
    let calls = register(vi, Queue::Receive, 0..1);
    card.until_waiting(1);
    card.fail();
    assert_eq!(next(&calls).2, FLUSHED);
    assert!(matches!(cq.notify(|_| panic!("nothing comes")), Err(Error::NicFailed)));
    nic.close().unwrap();
}

#[test]
fn what_is_destroyed_cancels_its_registrations() {
    let (nic, card) = open();
    let cq = CqId::create(&nic.context().unwrap(), 1).unwrap();
    let vi = ViId::create(&nic.context().unwrap(), &ATTRIBUTES, None, None).unwrap();
    let (other, other_number) = connected(nic, &card, None, None);
    let calls = register(vi, Queue::Receive, 0..2);
    let other_calls = register(other, Queue::Receive, 0..1);
    let (sender, events) = mpsc::channel::<QueueEvent>();
    cq.notify(move |event| sender.send(event).unwrap()).unwrap();
    vi.destroy().unwrap();
    assert!(calls.recv().is_err(), "the handlers are gone, uncalled");
    cq.destroy().unwrap();
    assert!(events.recv().is_err());
    assert!(matches!(vi.notify(Queue::Send, Box::new(|_| ())), Err(Error::InvalidHandle(_))));
    let mut descriptor = TestDescriptor::new(1);
    post(other, Queue::Receive, &mut descriptor).unwrap();
    card.complete(other_number, Queue::Receive, DONE);
    next(&other_calls);
    let left = register(other, Queue::Receive, 0..1);
    nic.close().unwrap();
    assert!(left.recv().is_err());
}

#[test]
fn destroying_waits_for_the_handler_that_runs() {
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    let mut descriptor = TestDescriptor::new(1);
    post(vi, Queue::Send, &mut descriptor).unwrap();
    let (in_handler, release) = hold_thread(vi);
    card.complete(number, Queue::Send, DONE);
    next(&in_handler);
    vi.disconnect().unwrap();
    std::thread::scope(|scope| {
        let destroyed = scope.spawn(|| {
            vi.destroy().unwrap();
            // What the handler owns goes when it returns.
            release.send(()).is_err()
        });
        // The VI's name is gone before anybody is waited for.
        while vi.query().is_ok() {
            std::thread::yield_now();
        }
        release.send(()).unwrap();
        assert!(destroyed.join().unwrap(), "the handler had returned");
    });
    nic.close().unwrap();
}

/// A handler registers again, posts, destroys the VI and closes the NIC.
#[test]
fn a_handler_may_call_anything() {
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    let mut descriptors = TestDescriptor::many(2);
    let [first, second] = &mut descriptors[..] else { panic!() };
    post(vi, Queue::Send, first).unwrap();
    // SAFETY: the test keeps the descriptor until the NIC is closed.
    let second = unsafe { RawDescriptor::new(second.pointer()) }.unwrap();
    let (sender, closed) = mpsc::channel();
    let again = Arc::clone(&card);
    let last = move |_| {
        vi.disconnect().unwrap();
        vi.destroy().unwrap();
        sender.send(nic.close().is_ok()).unwrap();
    };
    let handler = move |_| {
        vi.post(Queue::Send, second, (HANDLE, LinkField::Free)).unwrap();
        vi.notify(Queue::Send, Box::new(last)).unwrap();
        again.complete(number, Queue::Send, DONE);
    };
    vi.notify(Queue::Send, Box::new(handler)).unwrap();
    card.complete(number, Queue::Send, DONE);
    assert!(next(&closed));
    assert_eq!(card.objects().0, 0);
}

#[test]
fn a_panic_ends_one_handler_only() {
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    let mut descriptors = TestDescriptor::many(2);
    for descriptor in &mut descriptors {
        post(vi, Queue::Send, descriptor).unwrap();
    }
    vi.notify(Queue::Send, Box::new(|_| std::panic::resume_unwind(Box::new("as if")))).unwrap();
    let calls = register(vi, Queue::Send, 0..1);
    card.complete(number, Queue::Send, DONE);
    card.complete(number, Queue::Send, DONE);
    assert_eq!(next(&calls).1, address(&mut descriptors[1]));
    vi.disconnect().unwrap();
    vi.destroy().unwrap();
    nic.close().unwrap();
}

#[test]
fn a_queue_with_a_completion_queue_takes_no_registration() {
    let (nic, card) = open();
    let cq = CqId::create(&nic.context().unwrap(), 1).unwrap();
    let (vi, _) = connected(nic, &card, None, Some(cq));
    let refused = vi.notify(Queue::Receive, Box::new(|_| ()));
    assert!(matches!(refused, Err(Error::InvalidParameter(_))));
    vi.notify(Queue::Send, Box::new(|_| ())).unwrap();
    nic.close().unwrap();
    assert!(matches!(cq.notify(|_| ()), Err(Error::InvalidHandle(_))));
}

/// Completions and registrations at once: none is lost, none is served twice.
#[test]
fn nothing_is_lost_between_registering_and_completing() {
    const COUNT: usize = 2000;
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    let mut descriptors = TestDescriptor::many(64);
    let (sender, calls) = mpsc::channel();
    for round in 0..COUNT {
        let descriptor = &mut descriptors[round % 64];
        let expected = address(descriptor);
        post(vi, Queue::Receive, descriptor).unwrap();
        let sender = sender.clone();
        std::thread::scope(|scope| {
            scope.spawn(|| card.complete(number, Queue::Receive, DONE));
            let handler = move |completion: crate::work_queue::RawCompletion| {
                sender.send(completion.descriptor.as_ptr().addr()).unwrap();
            };
            vi.notify(Queue::Receive, Box::new(handler)).unwrap();
        });
        assert_eq!(next(&calls), expected, "round {round}");
    }
    card.report(number, ErrorCode::CONN_LOST);
    nic.close().unwrap();
}
