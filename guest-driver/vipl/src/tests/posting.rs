//! Posting and polling.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vianic_abi::token::{TOKEN_RECEIVE, TokenKind};

use super::*;
use crate::async_error::ErrorCode;
use crate::error::Error;
use crate::tests::card::inline_segments;
use crate::tests::errors::listen;
use crate::work_queue::{Link, Refusal, WorkQueue};

#[test]
fn descriptors_come_back_in_the_order_of_posting() {
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    let mut descriptors = TestDescriptor::many(5);
    for descriptor in &mut descriptors {
        post(vi, Queue::Send, descriptor).unwrap();
    }
    assert_eq!(vi.done(Queue::Send).unwrap_not_done(), ());
    for descriptor in &mut descriptors {
        assert!(card.complete(number, Queue::Send, DONE));
        assert_eq!(take(vi, Queue::Send), (descriptor.pointer(), DONE));
    }
    assert!(matches!(vi.done(Queue::Send).unwrap(), Poll::Empty));
    nic.close().unwrap();
}

trait UnwrapNotDone {
    fn unwrap_not_done(self);
}

impl<T: std::fmt::Debug> UnwrapNotDone for Result<Poll<T>, Refusal> {
    fn unwrap_not_done(self) {
        assert!(matches!(self, Ok(Poll::NotDone)), "{self:?}");
    }
}

#[test]
fn posting_clears_link_and_status_and_keeps_the_rest() {
    let (nic, card) = open();
    let (vi, _) = connected(nic, &card, None, None);
    let mut descriptor = TestDescriptor::new(2);
    descriptor.control = ControlSegment {
        next: 7,
        next_handle: 8,
        immediate: 9,
        length: 16,
        status: 1,
        segment_count: 2,
        control: 4,
        reserved: 3,
    };
    post(vi, Queue::Send, &mut descriptor).unwrap();
    let expected = ControlSegment { next: 0, next_handle: 0, status: 0, ..descriptor.control };
    assert_eq!(descriptor.control, expected);
    assert_eq!((expected.immediate, expected.length, expected.reserved), (9, 16, 3));
    nic.close().unwrap();
}

#[test]
fn two_segments_travel_in_the_token_and_three_do_not() {
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    let (mut two, mut three) = (TestDescriptor::new(2), TestDescriptor::new(3));
    post(vi, Queue::Receive, &mut two).unwrap();
    post(vi, Queue::Send, &mut three).unwrap();
    card.accept();
    let [first, second] = card.accepted()[..] else { panic!("two tokens") };
    assert_eq!((first.kind, first.flags, first.vi), (TokenKind::INLINE_DESCRIPTOR.0, TOKEN_RECEIVE, number));
    assert_eq!(inline_segments(&first), two.segments[..2]);
    assert_eq!((second.kind, second.flags), (TokenKind::INDIRECT_DESCRIPTOR.0, 0));
    assert_eq!(second.descriptor, three.pointer().addr() as u64);
    nic.close().unwrap();
}

#[test]
fn malformed_descriptors_are_not_linked_and_say_why() {
    let (nic, card) = open();
    let (vi, _) = connected(nic, &card, None, None);
    let mut descriptor = TestDescriptor::new(1);
    descriptor.control.control = 0x10;
    assert!(matches!(
        post(vi, Queue::Send, &mut descriptor),
        Err(Error::Malformed(crate::Malformed::ReservedControl))
    ));
    assert_eq!(descriptor.control.status, (DONE | DescriptorStatus::FORMAT_ERROR).bits());
    assert!(matches!(vi.done(Queue::Send).unwrap(), Poll::Empty));
    let misaligned = descriptor.pointer().wrapping_byte_add(8);
    // SAFETY: it is misaligned.
    let refused = unsafe { RawDescriptor::new(misaligned) };
    assert_eq!(refused, Err(crate::Malformed::Misaligned));
    assert_eq!(card.accept(), 0);
    nic.close().unwrap();
}

#[test]
fn a_full_work_queue_takes_no_more_until_one_is_dequeued_and_says_so_once() {
    let (nic, card) = open_with(
        Layout { token_table_log2: 12, ..Layout::default() },
        Settings { spin: Duration::ZERO, strict: false },
    );
    let (vi, number) = connected(nic, &card, None, None);
    let errors = listen(nic);
    let mut descriptors = TestDescriptor::many(1026);
    let (last, rest) = descriptors.split_last_mut().unwrap();
    let (surplus, rest) = rest.split_last_mut().unwrap();
    for descriptor in rest {
        post(vi, Queue::Receive, descriptor).unwrap();
    }
    assert!(matches!(post(vi, Queue::Receive, surplus), Err(Error::OutOfResources(_))));
    // The card sleeps, so that the report does not come from there.
    let error = errors.recv_timeout(LIMIT.unwrap()).expect("an error");
    assert_eq!((error.code, error.vi()), (ErrorCode::VI_OVERRUN, Some(vi)));
    assert_eq!(error.descriptor, surplus.pointer().addr() as u64);
    assert_eq!(vi.query().unwrap().state, crate::ViState::Connected, "nothing is lost");
    card.complete(number, Queue::Receive, DONE);
    assert!(matches!(post(vi, Queue::Receive, surplus), Err(Error::OutOfResources(_))), "not dequeued yet");
    take(vi, Queue::Receive);
    post(vi, Queue::Receive, surplus).unwrap();
    assert!(matches!(post(vi, Queue::Receive, last), Err(Error::OutOfResources(_))), "full again");
    let error = errors.recv_timeout(LIMIT.unwrap()).expect("an error");
    assert_eq!(
        error.descriptor,
        last.pointer().addr() as u64,
        "one report each time the queue has filled up"
    );
    assert!(errors.try_recv().is_err());
    nic.close().unwrap();
}

#[test]
fn a_sleeping_card_is_rung_once_and_a_polling_one_never() {
    let (nic, card) = open();
    let (vi, _) = connected(nic, &card, None, None);
    let mut descriptors = TestDescriptor::many(20);
    let (first, second) = descriptors.split_at_mut(10);
    for descriptor in first {
        post(vi, Queue::Receive, descriptor).unwrap();
    }
    assert_eq!(card.doorbells(), 1);
    card.start_polling();
    card.accept();
    for descriptor in second {
        post(vi, Queue::Receive, descriptor).unwrap();
    }
    assert_eq!(card.doorbells(), 1);
    nic.close().unwrap();
}

/// Order on the queue and order in the Token Table agree, though the table is full most of the time.
#[test]
fn concurrent_posters_keep_one_order() {
    const EACH: usize = 250;
    let layout = Layout { token_table_log2: 4, ..Layout::default() };
    let (nic, card) = open_with(layout, Settings { spin: Duration::ZERO, strict: false });
    let (vi, number) = connected(nic, &card, None, None);
    let mut descriptors = TestDescriptor::many(4 * EACH);
    let posted = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !posted.load(Ordering::Acquire) {
                card.accept();
                std::thread::yield_now();
            }
        });
        let posters: Vec<_> = descriptors
            .chunks_mut(EACH)
            .map(|mine| scope.spawn(move || mine.iter_mut().for_each(|d| post(vi, Queue::Send, d).unwrap())))
            .collect();
        posters.into_iter().for_each(|poster| poster.join().unwrap());
        posted.store(true, Ordering::Release);
    });
    card.accept();
    let accepted: Vec<u64> = card.accepted().iter().map(|token| token.descriptor).collect();
    assert_eq!(accepted.len(), descriptors.len());
    for address in &accepted {
        assert!(card.complete(number, Queue::Send, DONE));
        assert_eq!(take(vi, Queue::Send).0.addr() as u64, *address);
    }
    let place: HashMap<u64, usize> =
        accepted.iter().enumerate().map(|(place, address)| (*address, place)).collect();
    for mine in descriptors.chunks_mut(EACH) {
        let places: Vec<usize> = mine.iter_mut().map(|d| place[&(d.pointer().addr() as u64)]).collect();
        assert!(places.is_sorted(), "one thread's descriptors keep their order");
    }
    nic.close().unwrap();
}

#[test]
fn a_failed_context_takes_no_posts_and_gives_back_what_it_has() {
    let (nic, card) = open();
    let (vi, _) = connected(nic, &card, None, None);
    let mut descriptors = TestDescriptor::many(3);
    let (last, rest) = descriptors.split_last_mut().unwrap();
    for descriptor in &mut *rest {
        post(vi, Queue::Send, descriptor).unwrap();
    }
    card.fail();
    assert!(matches!(post(vi, Queue::Send, last), Err(Error::NicFailed)));
    assert_eq!(vi.query().unwrap().state, crate::ViState::Error);
    for descriptor in rest {
        assert_eq!(take(vi, Queue::Send), (descriptor.pointer(), FLUSHED));
    }
    assert!(matches!(vi.done(Queue::Send).unwrap(), Poll::Empty));
    vi.disconnect().unwrap();
    vi.destroy().unwrap();
    nic.close().unwrap();
}

#[test]
fn a_queue_is_never_empty_to_whoever_knows_of_a_post() {
    const ROUNDS: u32 = 2000;
    let (nic, card) = open();
    let (vi, number) = connected(nic, &card, None, None);
    let mut descriptors = TestDescriptor::many(2);
    let (posted, taken) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while taken.load(Ordering::Relaxed) < ROUNDS {
                let known = posted.load(Ordering::Acquire);
                match vi.done(Queue::Receive).unwrap() {
                    Poll::Empty => assert_eq!(known, taken.load(Ordering::Relaxed), "one is on the queue"),
                    Poll::NotDone => {}
                    Poll::Done(_) => {
                        taken.fetch_add(1, Ordering::Release);
                    }
                }
            }
        });
        for (round, i) in (1..=ROUNDS).zip((0..2).cycle()) {
            post(vi, Queue::Receive, &mut descriptors[i]).unwrap();
            posted.store(round, Ordering::Release);
            assert!(card.complete(number, Queue::Receive, DONE));
            while taken.load(Ordering::Acquire) < round {
                std::hint::spin_loop();
            }
        }
    });
    nic.close().unwrap();
}

#[test]
fn an_empty_queue_is_told_to_its_owner_only() {
    let (nic, card) = open();
    let owners = [(); 2].map(|()| connected(nic, &card, None, None).0);
    let context = nic.context().unwrap();
    let queue = WorkQueue::default();
    for (owner, other) in [(owners[0], owners[1]), (owners[1], owners[0])] {
        let context = Arc::clone(&context);
        queue.open(&Link { key: owner.0, context, vi: 0, queue: Queue::Send, has_cq: false });
        assert!(matches!(queue.done(owner.0), Ok(Poll::Empty)));
        assert_eq!(queue.done(other.0).err(), Some(Refusal::NoVi));
        assert!(queue.close().is_empty());
        assert_eq!(queue.done(owner.0).err(), Some(Refusal::NoVi), "nobody's");
    }
    nic.close().unwrap();
}
