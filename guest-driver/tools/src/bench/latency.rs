//! From the post of a message to its completion, both busily polled, beside the time that a cache line takes to another
//! core and back. Rounds of the two alternate, so that a busy machine slows both down alike.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use vipl::{
    DescriptorPool, MemoryAttributes, Nic, Queue, RegisteredBuffer, ReliabilityLevel, ViAttributes, Work,
    net_address,
};

use super::Quantiles;
use super::bounce::{Bouncer, take_a_core};
use crate::channel::{Channel, Waiting};
use crate::cli::{Wait, both_sides, open_nic};

/// Two threads of one core exchange a cache line several times faster than two cores do. A virtual machine's processors may be
/// either, and change from one second to the next. Rounds that ran on one core tell nothing about a card on another core:
/// what is faster than this, in nanoseconds, is dropped ...
const SAME_CORE: u64 = 150;
/// ... if at least so many percent of the rounds were slower. Otherwise this may be a machine as fast as that.
const ENOUGH_PERCENT: usize = 10;

/// Messages before each round that are not measured: the first one wakes the card.
const WARM_UP: u32 = 8;

/// What to measure.
#[derive(Clone, Debug)]
pub struct LatencyOptions {
    /// The NIC; usually `direct:SOCKET`.
    pub nic: String,
    /// Bytes of a message.
    pub size: u32,
    /// Rounds: each gives one sample of both times.
    pub rounds: u32,
    /// Messages of a round, one after the other.
    pub batch: u32,
}

impl Default for LatencyOptions {
    fn default() -> Self {
        Self { nic: "nic0".into(), size: 64, rounds: 500, batch: 200 }
    }
}

/// What was measured. Times are nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyReport {
    /// Bytes of a message.
    pub size: u32,
    /// Rounds that count.
    pub rounds: usize,
    /// Rounds that were dropped because both threads ran on one core.
    pub dropped: usize,
    /// A cache line to another core and back.
    pub bounce_ns: Quantiles,
    /// From the post of a message to its completion.
    pub post_to_completion_ns: Quantiles,
    /// The median of the second by that of the first.
    pub ratio: f64,
}

impl fmt::Display for LatencyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, name: &str, times: &Quantiles| {
            let Quantiles { min, p50, p90, max } = times;
            writeln!(f, "{name:<34} {min:>8} {p50:>8} {p90:>8} {max:>8}")
        };
        writeln!(f, "{:<34} {:>8} {:>8} {:>8} {:>8}", "nanoseconds", "min", "p50", "p90", "max")?;
        line(f, "core to core and back", &self.bounce_ns)?;
        line(f, &format!("post to completion, {} bytes", self.size), &self.post_to_completion_ns)?;
        let Self { ratio, rounds, dropped, .. } = self;
        write!(
            f,
            "post to completion is {ratio:.2} x core to core ({rounds} rounds; {dropped} on one core, dropped)"
        )
    }
}

/// Measures. The calling thread stays on one core afterwards.
///
/// # Errors
/// If the NIC cannot be used, or there is one core only.
pub fn latency(options: &LatencyOptions) -> anyhow::Result<LatencyReport> {
    let nic = open_nic(&options.nic)?;
    let mut loopback = Loopback::new(&nic, options.size, options.batch)?;
    let mut bouncer = Bouncer::start(take_a_core()?)?;
    let mut samples = Vec::new();
    // The first rounds find caches cold, the card asleep, and the clock of the core low.
    let warm_up = (options.rounds / 10).max(1);
    for round in 0..options.rounds + warm_up {
        let sample = (bouncer.measure(u64::from(options.batch)), loopback.measure()?);
        if round >= warm_up {
            samples.push(sample);
        }
    }
    let all = samples.len();
    let slower = samples.iter().filter(|(bounce, _)| *bounce >= SAME_CORE).count();
    if slower * 100 >= all * ENOUGH_PERCENT {
        samples.retain(|(bounce, _)| *bounce >= SAME_CORE);
    }
    let bounce_ns = Quantiles::of(samples.iter().map(|sample| sample.0))?;
    let post_to_completion_ns = Quantiles::of(samples.iter().map(|sample| sample.1))?;
    Ok(LatencyReport {
        size: options.size,
        rounds: samples.len(),
        dropped: all - samples.len(),
        bounce_ns,
        post_to_completion_ns,
        ratio: post_to_completion_ns.p50 as f64 / bounce_ns.p50 as f64,
    })
}

/// Two VIs of one NIC, connected with each other.
struct Loopback {
    // Dropped before the memory that the card writes.
    from: Channel,
    to: Channel,
    pool: DescriptorPool,
    buffer: RegisteredBuffer,
    size: usize,
    batch: u32,
}

impl Loopback {
    fn new(nic: &Nic, size: u32, batch: u32) -> anyhow::Result<Self> {
        let registers = nic.registers()?;
        ensure!(
            size <= registers.max_transfer_size,
            "the NIC's messages have {} bytes at most",
            registers.max_transfer_size
        );
        let receives = batch.saturating_add(WARM_UP);
        let most = registers.max_descriptors.saturating_sub(WARM_UP);
        ensure!(batch > 0 && batch <= most, "a round has 1 to {most} messages");
        let attributes = ViAttributes {
            reliability: ReliabilityLevel::RELIABLE_DELIVERY,
            max_transfer_size: registers.max_transfer_size,
            tag: None,
            rdma_write: false,
            rdma_read: false,
        };
        let limit = Duration::from_secs(10);
        let waiting = Waiting { wait: Wait::Poll, cq: false, limit };
        let from = Channel::new(nic, &attributes, waiting)?;
        let to = Channel::new(nic, &attributes, waiting)?;
        let size = size as usize;
        let slot = size.max(1).next_multiple_of(64);
        let memory = "cannot register memory";
        let buffer = RegisteredBuffer::new(nic, 2 * slot, &MemoryAttributes::default()).context(memory)?;
        let pool = DescriptorPool::new(nic, receives as usize + 1, 1, None).context(memory)?;
        // Nobody else meets at a discriminator with this process's number.
        let address = net_address(None, format!("vip-bench-{}", std::process::id()).as_bytes())?;
        both_sides(
            nic,
            || Ok(nic.connect_wait(&address, Some(limit))?.accept(to.vi().id())?),
            || {
                let deadline = Instant::now() + limit;
                loop {
                    match from.vi().connect_request(&address, &address, Some(limit)) {
                        Ok(_) => return Ok(()),
                        // The other thread is about to wait.
                        Err(vipl::Error::NoMatch) if Instant::now() < deadline => std::thread::yield_now(),
                        Err(error) => return Err(error.into()),
                    }
                }
            },
        )
        .context("cannot connect two VIs of the NIC")?;
        let mut loopback = Self { from, to, pool, buffer, size, batch };
        let receive = loopback.buffer.segment(slot, size)?;
        for _ in 0..receives {
            let mut descriptor = loopback.pool.take().context("no descriptor is free")?;
            descriptor.fill(&Work::Receive { segments: &[receive] })?;
            loopback.to.post(Queue::Receive, descriptor)?;
        }
        Ok(loopback)
    }

    /// Nanoseconds from post to completion, the mean of one batch.
    fn measure(&mut self) -> anyhow::Result<u64> {
        let mut send = self.pool.take().context("no descriptor is free")?;
        send.fill(&Work::Send { segments: &[self.buffer.segment(0, self.size)?], immediate: None })?;
        for _ in 0..WARM_UP {
            self.from.post(Queue::Send, send)?;
            send = self.from.next_of(Queue::Send)?;
        }
        let begin = Instant::now();
        for _ in 0..self.batch {
            self.from.post(Queue::Send, send)?;
            send = self.from.next_of(Queue::Send)?;
        }
        let elapsed = begin.elapsed().as_nanos();
        for _ in 0..self.batch + WARM_UP {
            let receive = self.to.next_of(Queue::Receive)?;
            self.to.post(Queue::Receive, receive)?;
        }
        Ok(u64::try_from(elapsed / u128::from(self.batch))?)
    }
}
