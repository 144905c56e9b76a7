//! The VI of a Rust program, with descriptors that are owned.

use std::time::Duration;

use crate::descriptor::{LinkField, Queue, RawDescriptor};
use crate::descriptor_pool::Descriptor;
use crate::error::{Error, Result};
use crate::vi::ViId;
use crate::work_queue::{Poll, RawCompletion, Refusal};

/// A VI; disconnected and destroyed when dropped.
#[derive(Debug)]
pub struct Vi(ViId);

/// A descriptor that could not be posted, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot post: {error}")]
pub struct PostFailure {
    /// The descriptor.
    pub descriptor: Descriptor,
    /// Why.
    #[source]
    pub error: Error,
}

impl Vi {
    pub(crate) fn new(id: ViId) -> Self {
        Self(id)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> ViId {
        self.0
    }

    /// Posts a descriptor to one of the work queues. No system call, and never blocks.
    ///
    /// # Errors
    /// [`Error::Malformed`]; [`Error::OutOfResources`] when the queue is full; [`Error::NicFailed`].
    #[inline]
    pub fn post(&self, queue: Queue, descriptor: Descriptor) -> Result<(), Box<PostFailure>> {
        let handle = descriptor.handle();
        let raw = descriptor.give_away();
        self.0.post(queue, raw, (handle, LinkField::Kept)).map_err(|refusal| failure(raw, refusal))
    }

    /// Posts a descriptor to the send queue.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    #[inline]
    pub fn post_send(&self, descriptor: Descriptor) -> Result<(), Box<PostFailure>> {
        self.post(Queue::Send, descriptor)
    }

    /// Posts a descriptor to the receive queue.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    #[inline]
    pub fn post_receive(&self, descriptor: Descriptor) -> Result<(), Box<PostFailure>> {
        self.post(Queue::Receive, descriptor)
    }

    /// Takes the oldest descriptor of a work queue if it is complete. No system call, and never blocks.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`] when the NIC is closed.
    #[inline]
    pub fn done(&self, queue: Queue) -> Result<Poll<Descriptor>> {
        Ok(owned(self.0.done(queue)?))
    }

    /// Waits until the oldest descriptor of a work queue is complete and takes it; [`Poll::Empty`] if there is none.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::InvalidParameter`] for a queue with a completion queue; [`Error::Closed`].
    pub fn wait(&self, queue: Queue, timeout: Option<Duration>) -> Result<Poll<Descriptor>> {
        self.0.wait(queue, timeout)?.map(owned).ok_or(Error::TimedOut)
    }

    /// Has `handler` called with one completed descriptor of a work queue, which is dequeued: the oldest, or else the
    /// next. It runs on a thread of the library and may call whatever it likes. It is dropped when the VI is destroyed first.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a queue with a completion queue; [`Error::OutOfResources`] if there can be no thread.
    pub fn notify(&self, queue: Queue, handler: impl FnOnce(Descriptor) + Send + 'static) -> Result<()> {
        self.0.notify(queue, Box::new(move |completion| handler(take_back(completion.descriptor))))
    }
}

#[cold]
fn failure(raw: RawDescriptor, refusal: Refusal) -> Box<PostFailure> {
    Box::new(PostFailure { descriptor: take_back(raw), error: refusal.into() })
}

#[inline]
fn owned(found: Poll<RawCompletion>) -> Poll<Descriptor> {
    match found {
        Poll::Empty => Poll::Empty,
        Poll::NotDone => Poll::NotDone,
        Poll::Done(completion) => Poll::Done(take_back(completion.descriptor)),
    }
}

#[expect(unsafe_code, reason = "descriptors are handed over by address")]
#[inline]
fn take_back(raw: RawDescriptor) -> Descriptor {
    // SAFETY: on the queues of an owned VI there are only descriptors that `post` has given away, and each is dequeued once.
    unsafe { Descriptor::take_back(raw) }
}

impl std::ops::Deref for Vi {
    type Target = ViId;

    fn deref(&self) -> &ViId {
        &self.0
    }
}

impl Drop for Vi {
    fn drop(&mut self) {
        let ended = self.0.disconnect().and_then(|()| {
            for queue in [Queue::Send, Queue::Receive] {
                while let Poll::Done(_) = self.done(queue)? {}
            }
            self.0.destroy_and_take()
        });
        match ended {
            Ok(left) => left.into_iter().map(take_back).for_each(drop),
            // The NIC handle is closed, and the VI with it.
            Err(Error::InvalidHandle(_)) => {}
            Err(error) => log::warn!("a VI stays until its NIC is closed: {error}"),
        }
    }
}
