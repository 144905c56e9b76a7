//! A work queue: the descriptors of one direction of a VI in the order in which they were posted.
//!
//! Posters hold the producer's lock, across the work queue and the Token Table, so that both have one order. Whoever
//! dequeues holds the consumer's. Neither lock is ever held while anybody sleeps, and they lie apart, so that one thread may
//! post while another dequeues.
//!
//! Every locked instruction waits until all stores before it are done, those to cache lines that the card has included. Posting
//! has two: to take a token, and to publish it. All stores come between them, so that they are waited for once.

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use vianic_abi::MAX_DESCRIPTORS_PER_QUEUE;
use vianic_abi::descriptor::{ControlSegment, DescriptorStatus};
use vianic_abi::nic_memory::nra_work_queue;
use vianic_abi::sync::{Atomics as _, Native};

use crate::async_error::{AsyncError, ErrorCode};
use crate::context::Context;
use crate::descriptor::{LinkField, Malformed, Queue, RawDescriptor, failed};
use crate::error::{Error, Result};
use crate::handle::Key;
use crate::short_lock::ShortLock;

/// What a look at a queue found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll<T> {
    /// Nothing is outstanding.
    Empty,
    /// The oldest is not complete.
    NotDone,
    /// The oldest was complete and has been taken.
    Done(T),
}

/// Why a work queue refuses a call: an [`Error`] that fits into a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such VI.
    NoVi,
    /// The descriptor's form is wrong.
    Malformed(Malformed),
    /// The queue is full.
    Full,
    /// The NIC takes no more posts.
    NicFailed,
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<Refusal> for Error {
    #[cold]
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoVi => Self::InvalidHandle("VI"),
            Refusal::Malformed(malformed) => malformed.into(),
            Refusal::Full => Self::OutOfResources("the work queue is full"),
            Refusal::NicFailed => Self::NicFailed,
        }
    }
}

/// A completed descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawCompletion {
    pub(crate) descriptor: RawDescriptor,
    pub(crate) status: DescriptorStatus,
}

impl RawCompletion {
    /// Whether the operation failed.
    pub(crate) fn failed(&self) -> bool {
        failed(self.status)
    }
}

/// How many descriptors behind the one that has just been dequeued the next ones are fetched from the card's cache: when many
/// are complete, their lines move while the program works on those before.
const AHEAD: u32 = 4;

/// Descriptors dequeued since one was found that is not complete, before those behind are fetched: who is close behind the card would
/// fetch lines from it that it is about to write to.
const BACKLOG: u32 = 2 * AHEAD;

const RING: usize = MAX_DESCRIPTORS_PER_QUEUE as usize;
const _: () = assert!(RING.is_power_of_two());

/// What a work queue belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) key: Key,
    pub(crate) context: Arc<Context>,
    pub(crate) vi: u16,
    pub(crate) queue: Queue,
    pub(crate) has_cq: bool,
}

#[derive(Default)]
pub(crate) struct WorkQueue {
    producer: CacheAligned<ProducerEnd>,
    consumer: CacheAligned<ConsumerEnd>,
    ring: OnceLock<Box<[AtomicPtr<ControlSegment>]>>,
}

/// On cache lines of its own; two of them, as processors fetch lines in pairs.
#[derive(Default)]
#[repr(align(128))]
struct CacheAligned<T>(T);

#[derive(Default)]
struct ProducerEnd {
    link: ShortLock<Option<Link>>,
    /// Descriptors linked so far; written under the lock.
    tail: AtomicU32,
    /// Whether the last post found the queue full; under the lock.
    overrun: AtomicBool,
}

#[derive(Default)]
struct ConsumerEnd {
    link: ShortLock<Option<Link>>,
    /// Whose queue it is, as a number; 0 for nobody's. Written under the lock.
    owner: AtomicU64,
    /// Descriptors dequeued so far; written under the lock.
    head: AtomicU32,
    /// Descriptors dequeued since one was found that is not complete; under the lock.
    in_a_row: AtomicU32,
}

/// The work queue's owner as `key` names it.
#[inline]
fn owner(link: &Option<Link>, key: Key) -> Result<&Link, Refusal> {
    link.as_ref().filter(|link| link.key == key).ok_or(Refusal::NoVi)
}

impl WorkQueue {
    /// Gives the work queue to a new VI.
    pub(crate) fn open(&self, link: &Link) {
        let mut producer = self.producer.0.link.lock();
        let mut consumer = self.consumer.0.link.lock();
        // Who sees one of them sees that the queue is its last owner's no more.
        self.producer.0.tail.store(0, Ordering::Release);
        self.consumer.0.head.store(0, Ordering::Release);
        self.producer.0.overrun.store(false, Ordering::Relaxed);
        // Who sees the new owner sees its queue.
        self.consumer.0.owner.store(link.key.value(), Ordering::Release);
        *producer = Some(link.clone());
        *consumer = Some(link.clone());
    }

    /// Takes the work queue from its VI, and gives the descriptors still on it.
    pub(crate) fn close(&self) -> Vec<RawDescriptor> {
        let mut producer = self.producer.0.link.lock();
        let mut consumer = self.consumer.0.link.lock();
        self.consumer.0.owner.store(0, Ordering::Relaxed);
        (*producer, *consumer) = (None, None);
        let (head, tail) = (self.head(Ordering::Relaxed), self.tail());
        (0..tail.wrapping_sub(head)).filter_map(|index| self.linked(head.wrapping_add(index))).collect()
    }

    #[inline(always)]
    fn entry(&self, index: u32) -> &AtomicPtr<ControlSegment> {
        let ring = self.ring.get_or_init(|| (0..RING).map(|_| AtomicPtr::default()).collect());
        &ring[index as usize % RING]
    }

    #[inline(always)]
    fn head(&self, order: Ordering) -> u32 {
        self.consumer.0.head.load(order)
    }

    /// Descriptors linked since the VI was made.
    #[inline(always)]
    pub(crate) fn tail(&self) -> u32 {
        self.producer.0.tail.load(Ordering::Acquire)
    }

    /// Whether no descriptor is on the queue.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head(Ordering::Acquire) == self.tail()
    }

    /// Posts a descriptor whose memory has `handle`.
    #[inline(always)]
    pub(crate) fn post(
        &self,
        key: Key,
        descriptor: RawDescriptor,
        (handle, link_field): (u32, LinkField),
    ) -> Result<(), Refusal> {
        Native::prefetch_for_write(descriptor.as_ptr());
        let producer = self.producer.0.link.lock();
        let link = owner(&producer, key)?;
        let context = &*link.context;
        let tail = self.producer.0.tail.load(Ordering::Relaxed);
        if tail.wrapping_sub(self.head(Ordering::Acquire)) >= context.max_descriptors() {
            self.report_overrun(link, descriptor);
            return Err(Refusal::Full);
        }
        self.producer.0.overrun.store(false, Ordering::Relaxed);
        let token = descriptor.token(link.vi, link.queue, handle, context.max_segments())?;
        if link.has_cq {
            context.make_room_in_mcq();
        }
        let reservation = context.reserve()?;
        descriptor.clear(link_field);
        // Linked before it is posted: whoever learns of its completion finds it here.
        self.entry(tail).store(descriptor.as_ptr(), Ordering::Relaxed);
        self.producer.0.tail.store(tail.wrapping_add(1), Ordering::Release);
        context.publish(reservation, &token);
        Ok(())
    }

    /// The queue has no room for `descriptor`. Said once until a post finds room, as programs try again and again.
    #[cold]
    fn report_overrun(&self, link: &Link, descriptor: RawDescriptor) {
        if !self.producer.0.overrun.swap(true, Ordering::Relaxed) {
            link.context.errors.push(AsyncError {
                code: ErrorCode::VI_OVERRUN,
                vi: Some(link.key),
                descriptor: descriptor.address(),
            });
        }
    }

    /// Whether the queue is `key`'s and no descriptor is on it. Takes no lock, as programs poll such queues millions of times.
    #[inline]
    fn is_empty_queue_of(&self, key: Key) -> bool {
        let is_owner = || self.consumer.0.owner.load(Ordering::Acquire) == key.value();
        // The second look: a queue that changed hands meanwhile is another one.
        is_owner() && self.is_empty() && is_owner()
    }

    /// Dequeues the oldest descriptor if it is complete.
    #[inline(always)]
    pub(crate) fn done(&self, key: Key) -> Result<Poll<RawCompletion>, Refusal> {
        if self.is_empty_queue_of(key) {
            return Ok(Poll::Empty);
        }
        let consumer = self.consumer.0.link.lock();
        let link = owner(&consumer, key)?;
        let head = self.head(Ordering::Relaxed);
        if head == self.tail() {
            return Ok(Poll::Empty);
        }
        let Some(descriptor) = self.linked(head) else { return Ok(Poll::Empty) };
        let status = match descriptor.completed() {
            Some(status) => status,
            None if link.context.has_failed() => {
                let flushed = DescriptorStatus::DONE | DescriptorStatus::FLUSHED_ERROR;
                descriptor.finish(flushed);
                flushed
            }
            None => {
                self.consumer.0.in_a_row.store(0, Ordering::Relaxed);
                return Ok(Poll::NotDone);
            }
        };
        self.consumer.0.head.store(head.wrapping_add(1), Ordering::Release);
        let in_a_row = self.consumer.0.in_a_row.load(Ordering::Relaxed);
        if in_a_row >= BACKLOG {
            self.prefetch(head.wrapping_add(AHEAD));
        } else {
            self.consumer.0.in_a_row.store(in_a_row + 1, Ordering::Relaxed);
        }
        Ok(Poll::Done(RawCompletion { descriptor, status }))
    }

    /// The descriptor at `index`, if there is one, will be looked at soon.
    #[inline(always)]
    fn prefetch(&self, index: u32) {
        if self.tail().wrapping_sub(index).cast_signed() > 0 {
            // Also for the post that will follow, which writes to it.
            Native::prefetch_for_write(self.entry(index).load(Ordering::Relaxed));
        }
    }

    /// The descriptor at `index`, which is between head and tail.
    #[expect(unsafe_code, reason = "descriptors are the application's memory")]
    #[inline(always)]
    fn linked(&self, index: u32) -> Option<RawDescriptor> {
        // SAFETY: `post` stored what as_ptr gave, and the descriptor is not dequeued yet.
        unsafe { RawDescriptor::from_ptr(self.entry(index).load(Ordering::Relaxed)) }
    }

    /// As [`done`](Self::done), but sleeps until the oldest descriptor is complete. `None`: the time ran out.
    pub(crate) fn wait(&self, key: Key, timeout: Option<Duration>) -> Result<Option<Poll<RawCompletion>>> {
        let context = Arc::clone(&owner(&self.consumer.0.link.lock(), key)?.context);
        context.wait_for(self.nra_word(key)?, timeout, || match self.done(key)? {
            Poll::NotDone => Ok(None),
            other => Ok(Some(other)),
        })
    }

    /// The NRA word that fires when a descriptor completes.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a work queue with a completion queue.
    pub(crate) fn nra_word(&self, key: Key) -> Result<u32> {
        let consumer = self.consumer.0.link.lock();
        let link = owner(&consumer, key)?;
        if link.has_cq {
            return Err(Error::InvalidParameter("the work queue has a completion queue: wait on that"));
        }
        Ok(nra_work_queue(link.vi, link.queue == Queue::Receive))
    }

    /// Completes as flushed what was linked before the queue's tail was `tail` and never completed: the card has let go of
    /// it without being able to say so.
    pub(crate) fn flush_until(&self, tail: u32) {
        let _consumer = self.consumer.0.link.lock();
        let mut index = self.head(Ordering::Relaxed);
        while tail.wrapping_sub(index).cast_signed() > 0 {
            if let Some(descriptor) = self.linked(index)
                && descriptor.completed().is_none()
            {
                descriptor.finish(DescriptorStatus::DONE | DescriptorStatus::FLUSHED_ERROR);
            }
            index = index.wrapping_add(1);
        }
    }
}
