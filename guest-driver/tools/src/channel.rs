//! A connected VI, and waiting for its completions in the ways that the options allow.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use vipl::{CompletionQueue, Descriptor, DescriptorStatus, Error, Nic, Poll, Queue, Vi, ViAttributes};

use crate::cli::Wait;

/// A poller that has found nothing this often looks at the clock and lets others run.
const LOOKS: u32 = 1 << 8;

/// How completions are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Busily or asleep.
    pub wait: Wait,
    /// Through a completion queue.
    pub cq: bool,
    /// For so long.
    pub limit: Duration,
}

/// A VI and its completions.
#[derive(Debug)]
pub struct Channel {
    // Dropped before the completion queue that it reports to.
    vi: Vi,
    cq: Option<CompletionQueue>,
    waiting: Waiting,
    /// Completions of one queue that came while the other was waited for.
    early: [VecDeque<Descriptor>; 2],
    /// Descriptors posted and not complete.
    posted: [usize; 2],
}

impl Channel {
    /// A VI, not connected yet.
    ///
    /// # Errors
    /// As [`Nic::create_vi`].
    pub fn new(nic: &Nic, attributes: &ViAttributes, waiting: Waiting) -> anyhow::Result<Self> {
        let cq =
            waiting.cq.then(|| nic.create_cq()).transpose().context("cannot create a completion queue")?;
        let vi = nic.create_vi(attributes, cq.as_ref(), cq.as_ref()).context("cannot create a VI")?;
        Ok(Self { vi, cq, waiting, early: Default::default(), posted: [0; 2] })
    }

    /// The VI.
    #[must_use]
    pub fn vi(&self) -> &Vi {
        &self.vi
    }

    /// Posts a descriptor.
    ///
    /// # Errors
    /// As [`Vi::post`].
    pub fn post(&mut self, queue: Queue, descriptor: Descriptor) -> anyhow::Result<()> {
        self.vi.post(queue, descriptor).map_err(|failure| failure.error)?;
        self.posted[index(queue)] += 1;
        Ok(())
    }

    /// The oldest descriptor of `queue`, complete.
    ///
    /// # Errors
    /// If it completed with an error, or nothing came in time.
    pub fn next_of(&mut self, queue: Queue) -> anyhow::Result<Descriptor> {
        if let Some(descriptor) = self.early[index(queue)].pop_front() {
            return Ok(descriptor);
        }
        if self.cq.is_none() {
            return self.wait_on_queue(queue);
        }
        loop {
            let (from, descriptor) = self.next_event()?;
            if from == queue {
                return Ok(descriptor);
            }
            self.early[index(from)].push_back(descriptor);
        }
    }

    /// The next completion of any queue.
    ///
    /// # Errors
    /// As [`next_of`](Self::next_of). Without a completion queue only polling works.
    pub fn next_completion(&mut self) -> anyhow::Result<(Queue, Descriptor)> {
        for queue in [Queue::Receive, Queue::Send] {
            if let Some(descriptor) = self.early[index(queue)].pop_front() {
                return Ok((queue, descriptor));
            }
        }
        self.next_event()
    }

    fn next_event(&mut self) -> anyhow::Result<(Queue, Descriptor)> {
        match (&self.cq, self.waiting.wait) {
            (Some(cq), Wait::Block) => {
                let event = cq.wait(Some(self.waiting.limit)).map_err(|error| self.explain(error))?;
                self.take(event.queue).map(|descriptor| (event.queue, descriptor))
            }
            (None, Wait::Block) => bail!("blocking on two work queues at once takes a completion queue"),
            (_, Wait::Poll) => self.poll_until(Self::try_next),
        }
    }

    fn try_next(&mut self) -> anyhow::Result<Option<(Queue, Descriptor)>> {
        match &self.cq {
            Some(cq) => {
                let Some(event) = cq.poll()? else { return Ok(None) };
                self.take(event.queue).map(|descriptor| Some((event.queue, descriptor)))
            }
            None => {
                for queue in [Queue::Receive, Queue::Send] {
                    if let Some(descriptor) = self.try_queue(queue)? {
                        return Ok(Some((queue, descriptor)));
                    }
                }
                Ok(None)
            }
        }
    }

    fn wait_on_queue(&mut self, queue: Queue) -> anyhow::Result<Descriptor> {
        match self.waiting.wait {
            Wait::Poll => self.poll_until(|channel| channel.try_queue(queue)),
            Wait::Block => {
                let found = self.vi.wait(queue, Some(self.waiting.limit));
                match found.map_err(|error| self.explain(error))? {
                    Poll::Done(descriptor) => self.completed(queue, descriptor),
                    Poll::NotDone | Poll::Empty => bail!("nothing is posted on the {queue:?} queue"),
                }
            }
        }
    }

    fn try_queue(&mut self, queue: Queue) -> anyhow::Result<Option<Descriptor>> {
        match self.vi.done(queue)? {
            Poll::Done(descriptor) => self.completed(queue, descriptor).map(Some),
            Poll::NotDone | Poll::Empty => Ok(None),
        }
    }

    /// Takes a descriptor that the completion queue has told of.
    fn take(&mut self, queue: Queue) -> anyhow::Result<Descriptor> {
        match self.try_queue(queue)? {
            Some(descriptor) => Ok(descriptor),
            None => bail!("the completion queue told of a {queue:?} descriptor that is not complete"),
        }
    }

    fn completed(&mut self, queue: Queue, descriptor: Descriptor) -> anyhow::Result<Descriptor> {
        self.posted[index(queue)] -= 1;
        match descriptor.outcome() {
            Ok(_) => Ok(descriptor),
            Err(status) if status.contains(DescriptorStatus::FLUSHED_ERROR) => {
                bail!("the peer has gone: the connection is lost")
            }
            Err(status) => bail!("a {queue:?} descriptor completed with {status:?}"),
        }
    }

    fn poll_until<T>(
        &mut self,
        mut look: impl FnMut(&mut Self) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let mut deadline = None;
        loop {
            for _ in 0..LOOKS {
                if let Some(found) = look(self)? {
                    return Ok(found);
                }
                std::hint::spin_loop();
            }
            if Instant::now() >= *deadline.get_or_insert_with(|| Instant::now() + self.waiting.limit) {
                return Err(self.explain(Error::TimedOut));
            }
            // With fewer cores than pollers, somebody else has to run for anything to come.
            std::thread::yield_now();
        }
    }

    fn explain(&self, error: Error) -> anyhow::Error {
        match error {
            Error::TimedOut => anyhow::anyhow!(
                "nothing completed for {:?} ({} sends and {} receives are outstanding; --timeout sets the time)",
                self.waiting.limit,
                self.posted[index(Queue::Send)],
                self.posted[index(Queue::Receive)],
            ),
            error => error.into(),
        }
    }
}

fn index(queue: Queue) -> usize {
    match queue {
        Queue::Send => 0,
        Queue::Receive => 1,
    }
}
