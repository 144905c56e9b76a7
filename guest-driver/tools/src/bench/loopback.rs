//! The card: messages between two connected VIs of this process, on one NIC.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use vipl::{
    Descriptor, DescriptorPool, MemoryAttributes, Nic, Poll, Queue, RegisteredBuffer, ReliabilityLevel, Vi,
    ViAttributes, Work, net_address,
};

use super::contestant::{Contestant, Exchange, GROUP, Role, Sample, WARM_UP, one_by_one};
use super::copies::Pool;
use crate::cli::both_sides;

/// How long a connection or a message may take.
const LIMIT: Duration = Duration::from_secs(10);
/// A poller that has found nothing this often looks at the clock.
const LOOKS: u32 = 1 << 20;
/// The card has come to rest when it has not looked at its Token Tables for so long.
const QUIET: Duration = Duration::from_micros(100);

/// Two VIs of one NIC, connected with each other, and descriptors for messages of one size.
pub struct Loopback {
    // Dropped before the memory that the card writes.
    /// The VI that sends.
    pub from: Vi,
    /// The VI that receives.
    pub to: Vi,
    /// The sends that are not posted.
    pub sends: Vec<Descriptor>,
    _buffers: [RegisteredBuffer; 2],
    _pool: DescriptorPool,
}

impl Loopback {
    /// Connects two VIs, with `window` sends to post and `receives` receives posted, which take the buffers of each
    /// side in turn: as many as a [`Pool`] has.
    ///
    /// # Errors
    /// If the NIC has no room for it.
    pub fn new(nic: &Nic, size: u32, window: u32, receives: u32) -> anyhow::Result<Self> {
        let registers = nic.registers()?;
        let (longest, most) = (registers.max_transfer_size, registers.max_descriptors);
        ensure!(size <= longest, "the NIC's messages have {longest} bytes at most");
        ensure!((1..=most).contains(&window) && receives <= most, "a work queue has {most} descriptors");
        let attributes = ViAttributes {
            reliability: ReliabilityLevel::RELIABLE_DELIVERY,
            max_transfer_size: longest,
            tag: None,
            rdma_write: false,
            rdma_read: false,
        };
        let vi = || nic.create_vi(&attributes, None, None).context("cannot create a VI");
        let (from, to) = (vi()?, vi()?);
        connect(nic, &from, &to)?;

        let memory = "cannot register memory";
        let places = Pool::buffers(size, window);
        let size = size as usize;
        let slot = size.max(1).next_multiple_of(64);
        let buffer = || RegisteredBuffer::new(nic, slot * places, &MemoryAttributes::default());
        let buffers = [buffer().context(memory)?, buffer().context(memory)?];
        // Pages of memory that was never written are all the same one.
        for buffer in &buffers {
            (0..places).for_each(|place| buffer.write(place * slot, &vec![1; slot]));
        }
        let pool = DescriptorPool::new(nic, (window + receives) as usize, 1, None).context(memory)?;
        let take = || pool.take().context("no descriptor is free");
        let mut sends = Vec::new();
        for place in (0..places).cycle().take(window as usize) {
            let mut send = take()?;
            send.fill(&Work::Send { segments: &[buffers[0].segment(place * slot, size)?], immediate: None })?;
            sends.push(send);
        }
        for place in (0..places).cycle().take(receives as usize) {
            let mut receive = take()?;
            receive.fill(&Work::Receive { segments: &[buffers[1].segment(place * slot, size)?] })?;
            post(&to, Queue::Receive, receive)?;
        }
        Ok(Self { from, to, sends, _buffers: buffers, _pool: pool })
    }

    /// One send at a time, from its post until it, or the receive, is complete.
    fn singly(&mut self, messages: u32, until: Queue) -> anyhow::Result<Sample> {
        let mut singly = Singly { loopback: self, until, taken: Vec::new(), posted: GROUP };
        let sample = one_by_one(messages, &mut singly)?;
        singly.prepare(GROUP)?;
        if self.sends.is_empty() {
            self.sends.push(next(&self.from, Queue::Send)?);
        }
        Ok(sample)
    }

    /// As many messages at once as there are sends: a send and a receive are posted for each, and both complete. The oldest message makes
    /// room for the next one.
    fn stream(&mut self, messages: u32) -> anyhow::Result<Sample> {
        let Self { from, to, sends, .. } = self;
        let all = WARM_UP + messages;
        let window = u32::try_from(sends.len())?;
        for send in sends.drain(..) {
            post(from, Queue::Send, send)?;
        }
        let mut begin = Instant::now();
        for received in 1..=all + window {
            post(to, Queue::Receive, next(to, Queue::Receive)?)?;
            let send = next(from, Queue::Send)?;
            if received <= all {
                post(from, Queue::Send, send)?;
            } else {
                sends.push(send);
            }
            if received == WARM_UP {
                begin = Instant::now();
            }
        }
        Ok(Sample { messages: (messages + window).into(), time: begin.elapsed(), singles: Vec::new() })
    }
}

/// Sends one at a time, to receives that have been posted before: [`GROUP`] of them between samples.
struct Singly<'a> {
    loopback: &'a mut Loopback,
    until: Queue,
    /// Receives to post again.
    taken: Vec<Descriptor>,
    /// How many receives wait for messages.
    posted: u32,
}

impl Exchange for Singly<'_> {
    fn prepare(&mut self, exchanges: u32) -> anyhow::Result<()> {
        let to = &self.loopback.to;
        for _ in self.posted..exchanges {
            let receive = match self.taken.pop() {
                Some(receive) => receive,
                None => next(to, Queue::Receive)?,
            };
            post(to, Queue::Receive, receive)?;
        }
        self.posted = exchanges;
        Ok(())
    }

    fn exchange(&mut self) -> anyhow::Result<()> {
        let Loopback { from, to, sends, .. } = &mut *self.loopback;
        let send = match sends.pop() {
            Some(send) => send,
            None => next(from, Queue::Send)?,
        };
        post(from, Queue::Send, send)?;
        self.posted -= 1;
        match self.until {
            Queue::Send => sends.push(next(from, Queue::Send)?),
            Queue::Receive => self.taken.push(next(to, Queue::Receive)?),
        }
        Ok(())
    }
}

fn connect(nic: &Nic, from: &Vi, to: &Vi) -> anyhow::Result<()> {
    // Nobody else meets at a discriminator with this process's number.
    let address = net_address(None, format!("vip-bench-{}", std::process::id()).as_bytes())?;
    both_sides(
        nic,
        || Ok(nic.connect_wait(&address, Some(LIMIT))?.accept(to.id())?),
        || {
            let deadline = Instant::now() + LIMIT;
            loop {
                match from.connect_request(&address, &address, Some(LIMIT)) {
                    Ok(_) => return Ok(()),
                    // The other thread is about to wait.
                    Err(vipl::Error::NoMatch) if Instant::now() < deadline => std::thread::yield_now(),
                    Err(error) => return Err(error.into()),
                }
            }
        },
    )
    .context("cannot connect two VIs of the NIC")
}

/// Posts a descriptor.
///
/// # Errors
/// As [`Vi::post`].
#[inline]
pub fn post(vi: &Vi, queue: Queue, descriptor: Descriptor) -> anyhow::Result<()> {
    Ok(vi.post(queue, descriptor).map_err(|failure| failure.error)?)
}

/// Takes the oldest descriptor of a queue, if it is complete.
///
/// # Errors
/// If it completed with an error.
#[inline]
pub fn done(vi: &Vi, queue: Queue) -> anyhow::Result<Option<Descriptor>> {
    let Poll::Done(descriptor) = vi.done(queue)? else { return Ok(None) };
    match descriptor.outcome() {
        Ok(_) => Ok(Some(descriptor)),
        Err(status) => bail!("a {queue:?} descriptor completed with {status:?}"),
    }
}

#[inline]
fn next(vi: &Vi, queue: Queue) -> anyhow::Result<Descriptor> {
    let mut deadline = None;
    loop {
        for _ in 0..LOOKS {
            if let Some(descriptor) = done(vi, queue)? {
                return Ok(descriptor);
            }
            std::hint::spin_loop();
        }
        if Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + LIMIT) {
            bail!("no {queue:?} descriptor completed for {LIMIT:?}");
        }
    }
}

/// How the card is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// One message at a time, until its send is complete.
    Completion,
    /// One message at a time, until it has been received.
    Receipt,
    /// As many messages as the window has.
    Stream,
}

/// The card, used in one way.
pub struct CardUse<'a> {
    nic: &'a Nic,
    loopback: Loopback,
    pattern: Pattern,
    messages: u32,
}

impl<'a> CardUse<'a> {
    /// Samples of `messages` messages of `size` bytes, `window` at once.
    ///
    /// # Errors
    /// As [`Loopback::new`].
    pub fn new(
        nic: &'a Nic,
        pattern: Pattern,
        size: u32,
        window: u32,
        messages: u32,
    ) -> anyhow::Result<Self> {
        let (window, receives) = match pattern {
            Pattern::Completion | Pattern::Receipt => (1, GROUP),
            Pattern::Stream => (window, window),
        };
        let loopback = Loopback::new(nic, size, window, receives)?;
        Ok(Self { nic, loopback, pattern, messages })
    }
}

impl Contestant for CardUse<'_> {
    fn name(&self) -> String {
        match self.pattern {
            Pattern::Completion => "card, post -> send complete".into(),
            Pattern::Receipt => "card, post -> received".into(),
            Pattern::Stream => "card".into(),
        }
    }

    fn role(&self) -> Role {
        Role::Card
    }

    fn sample(&mut self) -> anyhow::Result<Sample> {
        match self.pattern {
            Pattern::Completion => self.loopback.singly(self.messages, Queue::Send),
            Pattern::Receipt => self.loopback.singly(self.messages, Queue::Receive),
            Pattern::Stream => self.loopback.stream(self.messages),
        }
    }

    fn rest(&mut self) {
        let looks = || self.nic.counters().map_or(0, |counters| counters.polls);
        let deadline = Instant::now() + LIMIT;
        let mut before = looks();
        while Instant::now() < deadline {
            std::thread::sleep(QUIET);
            let now = looks();
            if now == before {
                return;
            }
            before = now;
        }
    }
}
