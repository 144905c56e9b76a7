//! The Master Completion Queue: a NIC that completes against a consumer that arms, looks again and sleeps.

use std::array::from_fn;
use std::sync::Arc;

use loom::thread;
use vianic_abi::completion::{
    Completion, Consumer, Mcq, McqHeader, McqSlot, Producer, PushError, arm, take_armed,
};
use vianic_abi::sync::{Atomics, CacheLine};

use crate::atomics::{Word32, Word64};
use crate::wake::Wake;
use crate::{Fenced, Unfenced, explore};

struct Shared<A: Atomics> {
    header: McqHeader<A>,
    slots: Vec<McqSlot<A>>,
    nra_word: A::U32,
    doorbell: Wake,
    interrupt: Wake,
}

impl<A: Atomics<U32 = Word32, U64 = Word64>> Shared<A> {
    fn new(entries: usize) -> Arc<Self> {
        Arc::new(Self {
            header: McqHeader {
                consumed: CacheLine(Word32::default()),
                stalled: CacheLine(Word32::default()),
                reserved: from_fn(|_| CacheLine(Word32::default())),
            },
            slots: (0..entries).map(|_| McqSlot::new(from_fn(|_| Word64::default()))).collect(),
            nra_word: Word32::default(),
            doorbell: Wake::new(),
            interrupt: Wake::new(),
        })
    }

    fn mcq(&self) -> Mcq<'_, A> {
        Mcq::new(&self.header, &self.slots)
    }

    /// The NIC: completes `count` times. A full queue makes it wait for the doorbell. Returns how often it
    /// notified.
    fn produce(&self, count: u32) -> usize {
        let mut producer = Producer::new();
        let mut notified = 0;
        for number in 0..count {
            while let Err(error) = producer.push(self.mcq(), &completion(number)) {
                assert_eq!(error, PushError::Full);
                self.doorbell.sleep();
            }
            A::fence();
            if take_armed::<A>(&self.nra_word) {
                notified += 1;
                self.interrupt.wake();
            }
        }
        notified
    }

    /// VIPL: takes `count` completions, and sleeps whenever there is none. Returns how often it armed.
    fn consume(&self, count: u32) -> usize {
        let mut consumer = Consumer::new();
        let mut armed = 0;
        let mut next = 0;
        while next < count {
            if let Some(taken) = consumer.pop(self.mcq()) {
                assert_eq!(Completion { sequence: 0, ..taken }, completion(next));
                next += 1;
                if consumer.publish(self.mcq()) {
                    self.doorbell.wake();
                }
                continue;
            }
            arm::<A>(&self.nra_word);
            armed += 1;
            if !consumer.is_ready(self.mcq()) {
                self.interrupt.sleep();
            }
        }
        assert!(consumer.pop(self.mcq()).is_none(), "a completion that nobody wrote");
        armed
    }
}

/// Every word tells which completion this is, so that a torn or stale entry does not go unseen.
fn completion(number: u32) -> Completion {
    Completion {
        descriptor: u64::from(number) << 32 | 1,
        status: number,
        length: number,
        immediate: number,
        ..Completion::default()
    }
}

fn complete_and_reap<A>(entries: usize, count: u32)
where
    A: Atomics<U32 = Word32, U64 = Word64>,
    Shared<A>: Send + Sync,
{
    let shared = Shared::<A>::new(entries);
    let nic = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || shared.produce(count))
    };
    let armed = shared.consume(count);
    let notified = nic.join().expect("the NIC ends");
    assert!(notified <= armed, "{notified} notifications for {armed} armings");
}

#[test]
fn an_armed_completion_wakes_the_consumer_once() {
    explore(3, || complete_and_reap::<Fenced>(4, 2));
}

#[test]
fn a_full_queue_holds_the_nic_back_and_loses_nothing() {
    explore(3, || complete_and_reap::<Fenced>(1, 3));
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fences_a_notification_is_missed() {
    explore(3, || complete_and_reap::<Unfenced>(4, 2));
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fences_a_stalled_nic_is_forgotten() {
    explore(3, || {
        // Every completion notifies, so that only the doorbell can be missed.
        let shared = Shared::<Unfenced>::new(1);
        let nic = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut producer = Producer::new();
                for number in 0..2 {
                    while producer.push(shared.mcq(), &completion(number)).is_err() {
                        shared.doorbell.sleep();
                    }
                    shared.interrupt.wake();
                }
            })
        };
        let mut consumer = Consumer::new();
        for _ in 0..2 {
            while consumer.pop(shared.mcq()).is_none() {
                shared.interrupt.sleep();
            }
            if consumer.publish(shared.mcq()) {
                shared.doorbell.wake();
            }
        }
        nic.join().expect("the NIC ends");
    });
}
