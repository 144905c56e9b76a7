//! What registered memory costs: registering it, deregistering it, and posting work whose region the card knows already or has to
//! look up, beside other regions that are registered meanwhile.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;
use vipl::{
    DescriptorPool, Error, MemoryAttributes, Nic, Queue, RegisteredBuffer, RegisteredPart, ReliabilityLevel,
    ViAttributes, Work, net_address,
};

use crate::channel::{Channel, Waiting};
use crate::cli::{Wait, both_sides};

/// Bytes of a region, and of a message.
const SIZE: usize = 64;
/// Pages that regions are in; there may be more regions than pages.
const PAGES: usize = 1024;
const PAGE: usize = 4096;
/// Samples before those that count.
const WARM_UP: u32 = 50;

/// What was measured beside so many other regions. Times are nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryReport {
    /// Other regions that were registered meanwhile.
    pub live: usize,
    /// Registering a page that was registered before.
    pub register_ns: Times,
    /// Deregistering it.
    pub deregister_ns: Times,
    /// From post to completion, of a region that the card knows.
    pub post_hit_ns: Times,
    /// The same, of a region that the card has to look up in the MRT.
    pub post_miss_ns: Times,
}

/// Where samples lie.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    /// Median.
    pub median: u64,
    /// Nine in ten are below.
    pub p90: u64,
    /// Mean.
    pub mean: u64,
}

/// Samples of one thing.
struct Samples(Histogram<u64>);

impl Samples {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new(3)?))
    }

    fn add(&mut self, time: Duration) -> anyhow::Result<()> {
        Ok(self.0.record(u64::try_from(time.as_nanos())?)?)
    }

    fn times(&self) -> Times {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time, rounded")]
        let mean = self.0.mean() as u64;
        Times { median: self.0.value_at_quantile(0.5), p90: self.0.value_at_quantile(0.9), mean }
    }
}

impl MemoryReport {
    /// The head of a table of these.
    pub const HEAD: &'static str = "   regions     register   deregister     post, hit    post, miss";
}

impl fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { live, register_ns, deregister_ns, post_hit_ns, post_miss_ns } = self;
        write!(
            f,
            "{live:>10} {:>12} {:>12} {:>13} {:>13}",
            register_ns.median, deregister_ns.median, post_hit_ns.median, post_miss_ns.median
        )
    }
}

/// Measures beside each number of `live` regions in turn, in ascending order, with so many `samples`; calls `report` for each.
///
/// # Errors
/// If the NIC cannot be used, or has no room for so many regions.
pub fn measure(
    nic: &Nic,
    live: &[usize],
    samples: u32,
    mut report: impl FnMut(&MemoryReport) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let memory = RegisteredBuffer::new(nic, PAGES * PAGE, &MemoryAttributes::default())
        .context("cannot register memory")?;
    let mut writer = Writer::new(nic)?;
    let mut ballast: Vec<RegisteredPart<'_>> = Vec::new();
    let part =
        |number: usize| memory.register_part(number % PAGES * PAGE, SIZE, &MemoryAttributes::default());
    for &live in live {
        ensure!(live >= ballast.len(), "numbers of regions go up");
        while ballast.len() < live {
            ballast.push(part(ballast.len()).with_context(|| format!("after {} regions", ballast.len()))?);
        }
        let [mut register, mut deregister, mut hit, mut miss] =
            [Samples::new()?, Samples::new()?, Samples::new()?, Samples::new()?];
        for sample in 0..samples + WARM_UP {
            let begin = Instant::now();
            let region = part(sample as usize)?;
            let registered = begin.elapsed();
            let missed = writer.write(&region)?;
            let found = writer.write(&region)?;
            let begin = Instant::now();
            drop(region);
            let deregistered = begin.elapsed();
            if sample >= WARM_UP {
                register.add(registered)?;
                miss.add(missed)?;
                hit.add(found)?;
                deregister.add(deregistered)?;
            }
        }
        report(&MemoryReport {
            live,
            register_ns: register.times(),
            deregister_ns: deregister.times(),
            post_hit_ns: hit.times(),
            post_miss_ns: miss.times(),
        })?;
    }
    Ok(())
}

/// Two VIs of one NIC, of which one writes to the other's memory by RDMA.
struct Writer {
    // Dropped before the memory that the card writes.
    from: Channel,
    _to: Channel,
    pool: DescriptorPool,
    target: RegisteredBuffer,
}

impl Writer {
    fn new(nic: &Nic) -> anyhow::Result<Self> {
        let attributes = ViAttributes {
            reliability: ReliabilityLevel::RELIABLE_DELIVERY,
            max_transfer_size: nic.registers()?.max_transfer_size,
            tag: None,
            rdma_write: true,
            rdma_read: false,
        };
        let limit = Duration::from_secs(10);
        let waiting = Waiting { wait: Wait::Poll, cq: false, limit };
        let from = Channel::new(nic, &attributes, waiting)?;
        let to = Channel::new(nic, &attributes, waiting)?;
        let memory = "cannot register memory";
        let open = MemoryAttributes { rdma_write: true, ..MemoryAttributes::default() };
        let target = RegisteredBuffer::new(nic, SIZE, &open).context(memory)?;
        let pool = DescriptorPool::new(nic, 1, 2, None).context(memory)?;
        // Nobody else meets at a discriminator with this process's number.
        let address = net_address(None, format!("vip-memory-{}", std::process::id()).as_bytes())?;
        both_sides(
            nic,
            || Ok(nic.connect_wait(&address, Some(limit))?.accept(to.vi().id())?),
            || {
                let deadline = Instant::now() + limit;
                loop {
                    match from.vi().connect_request(&address, &address, Some(limit)) {
                        Ok(_) => return Ok(()),
                        // The other thread is about to wait.
                        Err(Error::NoMatch) if Instant::now() < deadline => std::thread::yield_now(),
                        Err(error) => return Err(error.into()),
                    }
                }
            },
        )
        .context("cannot connect two VIs of the NIC")?;
        Ok(Self { from, _to: to, pool, target })
    }

    /// From the post of a write of what is in `region` to its completion. The card is awake and has just written something else.
    fn write(&mut self, region: &RegisteredPart<'_>) -> anyhow::Result<Duration> {
        let warm = self.target.segment(0, SIZE)?;
        let target = self.target.as_remote();
        let mut descriptor = self.pool.take().context("no descriptor is free")?;
        let mut time = Duration::ZERO;
        for segment in [warm, region.segment()] {
            descriptor.fill(&Work::RdmaWrite { target, segments: &[segment], immediate: None })?;
            let begin = Instant::now();
            self.from.post(Queue::Send, descriptor)?;
            descriptor = self.from.next_of(Queue::Send)?;
            time = begin.elapsed();
        }
        Ok(time)
    }
}
