//! `vip-pingpong`: one message at a time, there and back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::json;
use vipl::{
    Descriptor, DescriptorPool, LocalSegment, MemoryAttributes, Nic, Queue, RegisteredBuffer,
    ReliabilityLevel, Work,
};

use crate::channel::Waiting;
use crate::cli::Common;
use crate::pattern::Message;
use crate::session::{Meeting, Memory, Session, print_result};

/// The tool's name.
pub const TOOL: &str = "vip-pingpong";

/// Receive buffers: one is posted anew while a message may come into the other.
const RECEIVES: usize = 2;

/// How the bytes of a message travel, if not in a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Rdma {
    /// By RDMA write with immediate data, to where the other side has room for the next message.
    Write,
    /// By RDMA read: the client fetches the server's message, and the server has no part in it.
    Read,
}

/// What a client wants to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// How the bytes travel, if not in a send.
    pub rdma: Option<Rdma>,
    /// Message sizes, one run each.
    pub sizes: Vec<u32>,
    /// Round trips of each run.
    pub iterations: u64,
    /// Round trips before each run that are not measured.
    pub warm_up: u64,
    /// Whether every byte is checked.
    pub check: bool,
    /// Seed of the contents.
    pub seed: u64,
}

/// Serves one client.
///
/// # Errors
/// When the exchange fails or a byte is wrong.
pub fn serve(nic: &Nic, options: &Common) -> anyhow::Result<()> {
    let session = meeting(options).serve::<Plan>(nic)?;
    Exchange::start(nic, session)?.answer()
}

/// How the client shows what it has measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// As a table.
    Table,
    /// As JSON.
    Json,
    /// As JSON, with how often each time was measured.
    Histogram,
}

/// Runs a plan against the server at `host`, or at this NIC.
///
/// # Errors
/// When the exchange fails or a byte is wrong.
pub fn run(
    nic: &Nic,
    options: &Common,
    host: Option<[u8; 6]>,
    plan: Plan,
    shown: Shown,
) -> anyhow::Result<()> {
    let level = ReliabilityLevel::from(options.reliability).0;
    ensure!(
        plan.rdma != Some(Rdma::Read) || nic.registers()?.rdma_read_levels & level != 0,
        "the NIC has no RDMA read at reliability level {:?}",
        options.reliability
    );
    let session = meeting(options).connect(nic, host, plan)?;
    Exchange::start(nic, session)?.ask(shown)
}

fn meeting(options: &Common) -> Meeting<'_> {
    let waiting = Waiting { wait: options.wait, cq: options.cq, limit: options.timeout };
    Meeting { tool: TOOL, options, waiting }
}

/// Both sides' state: they differ in who sends first.
struct Exchange {
    // Its VI is dropped before the memory that the card writes.
    session: Session<Plan>,
    pool: DescriptorPool,
    buffer: RegisteredBuffer,
    slot: usize,
    sent: u64,
    received: u64,
    bytes: Vec<u8>,
    expected: Vec<u8>,
}

impl Exchange {
    fn start(nic: &Nic, session: Session<Plan>) -> anyhow::Result<Self> {
        let max = session.plan.sizes.iter().copied().max().unwrap_or(0) as usize;
        let limit = nic.registers()?.max_transfer_size as usize;
        ensure!(max <= limit, "messages of {max} bytes are longer than the NIC's maximum of {limit}");
        let slot = max.max(1).next_multiple_of(64);
        let memory = "cannot register memory";
        let rdma = session.plan.rdma;
        let attributes = MemoryAttributes {
            tag: None,
            rdma_write: rdma == Some(Rdma::Write),
            rdma_read: rdma == Some(Rdma::Read),
        };
        let buffer = RegisteredBuffer::new(nic, slot * (RECEIVES + 1), &attributes).context(memory)?;
        // An RDMA operation has an address segment besides its data.
        let pool = DescriptorPool::new(nic, RECEIVES + 1, 2, None).context(memory)?;
        let (bytes, expected) = (vec![0; max], Vec::with_capacity(max));
        let mut exchange = Self { session, pool, buffer, slot, sent: 0, received: 0, bytes, expected };
        for number in 0..RECEIVES {
            let mut receive = exchange.pool.take().context("no descriptor is free")?;
            receive.fill(&Work::Receive { segments: &[exchange.buffer.segment(number * slot, slot)?] })?;
            exchange.session.channel.post(Queue::Receive, receive)?;
        }
        let memory = rdma.map(|_| Memory::of(&exchange.buffer));
        exchange.session.start(TOOL, memory)?;
        Ok(exchange)
    }

    fn ask(mut self, shown: Shown) -> anyhow::Result<()> {
        let Plan { sizes, iterations, warm_up, check, rdma, .. } = self.session.plan.clone();
        let head = format!(
            "{:>9} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "bytes", "iterations", "min[us]", "p50[us]", "p90[us]", "p99[us]", "max[us]"
        );
        for (index, &size) in sizes.iter().enumerate() {
            let mut round_trips = Histogram::<u64>::new(3).context("no histogram")?;
            if rdma == Some(Rdma::Read) {
                self.next_run()?;
            }
            for round in 0..warm_up + iterations {
                let elapsed = match rdma {
                    Some(Rdma::Read) => self.read(size)?,
                    Some(Rdma::Write) | None => self.round_trip(size)?,
                };
                if round >= warm_up {
                    round_trips.record(u64::try_from(elapsed.as_nanos())?).context("no histogram")?;
                }
            }
            // Half a round trip: one way. A read is one round trip.
            let ways = if rdma == Some(Rdma::Read) { 1.0 } else { 2.0 };
            let us = |nanoseconds: u64| rounded(nanoseconds as f64 / 1000.0 / ways);
            let quantile = |quantile| us(round_trips.value_at_quantile(quantile));
            let (min, max) = (us(round_trips.min()), us(round_trips.max()));
            let (p50, p90, p99) = (quantile(0.5), quantile(0.9), quantile(0.99));
            let line = format!(
                "{size:>9} {iterations:>11} {min:>10.2} {p50:>10.2} {p90:>10.2} {p99:>10.2} {max:>10.2}"
            );
            let mut object = json!({
                "tool": TOOL, "size": size, "iterations": iterations, "checked": check, "rdma": rdma,
                "latency_us": { "min": min, "p50": p50, "p90": p90, "p99": p99, "max": max },
            });
            if shown == Shown::Histogram {
                let counts = round_trips.iter_recorded();
                object["round_trips_ns"] =
                    counts.map(|step| json!([step.value_iterated_to(), step.count_at_value()])).collect();
            }
            print_result(shown != Shown::Table, index == 0, &head, &line, &object)?;
        }
        if rdma == Some(Rdma::Read) {
            // The server's memory is no longer needed.
            self.next_run()?;
        }
        Ok(())
    }

    /// One message there and one back; how long it took.
    fn round_trip(&mut self, size: u32) -> anyhow::Result<Duration> {
        self.fill(size)?;
        let begin = Instant::now();
        self.send(size)?;
        let message = self.session.channel.next_of(Queue::Receive)?;
        let elapsed = begin.elapsed();
        self.session.channel.next_of(Queue::Send)?;
        self.accept(message, size)?;
        Ok(elapsed)
    }

    fn answer(mut self) -> anyhow::Result<()> {
        let Plan { sizes, iterations, warm_up, check, rdma, .. } = self.session.plan.clone();
        if rdma == Some(Rdma::Read) {
            return self.be_read(&sizes);
        }
        for size in sizes {
            for _ in 0..warm_up + iterations {
                let message = self.session.channel.next_of(Queue::Receive)?;
                if check {
                    self.accept(message, size)?;
                    self.fill(size)?;
                    self.send(size)?;
                } else {
                    // Answer first: the other receive is posted for the next message.
                    self.send(size)?;
                    self.accept(message, size)?;
                }
                self.session.channel.next_of(Queue::Send)?;
            }
        }
        Ok(())
    }

    /// Fills the message to send next.
    fn fill(&mut self, size: u32) -> anyhow::Result<()> {
        if self.session.plan.check {
            let bytes = &mut self.bytes[..size as usize];
            let (seed, sender) = (self.session.plan.seed, self.session.side);
            Message { seed, sender, number: self.sent }.fill(bytes);
            self.buffer.write(RECEIVES * self.slot, bytes);
        }
        Ok(())
    }

    fn send(&mut self, size: u32) -> anyhow::Result<()> {
        let segments = [self.buffer.segment(RECEIVES * self.slot, size as usize)?];
        let slot = usize::try_from(self.sent)? % RECEIVES;
        self.sent += 1;
        self.post(&match self.session.plan.rdma {
            // Receives complete in the order of their posts: that is the slot that the peer looks at next.
            Some(Rdma::Write) => Work::RdmaWrite {
                target: self.peer_memory()?.at(slot * self.slot),
                segments: &segments,
                immediate: Some(size),
            },
            Some(Rdma::Read) | None => Work::Send { segments: &segments, immediate: None },
        })
    }

    fn post(&mut self, work: &Work<'_>) -> anyhow::Result<()> {
        let mut descriptor = self.pool.take().context("no descriptor is free")?;
        descriptor.fill(work)?;
        self.session.channel.post(Queue::Send, descriptor)
    }

    fn peer_memory(&self) -> anyhow::Result<Memory> {
        self.session.peer_memory.context("the other side has opened no memory")
    }

    /// Checks a message that has come, and posts its descriptor anew.
    fn accept(&mut self, message: Descriptor, size: u32) -> anyhow::Result<()> {
        let number = self.received;
        self.received += 1;
        let length = match self.session.plan.rdma {
            // The receive descriptor of an RDMA write knows nothing of its bytes.
            Some(Rdma::Write) => message.immediate().context("a message came without immediate data")?,
            Some(Rdma::Read) | None => message.outcome().unwrap_or(0),
        };
        ensure!(length == size, "message {number} has {length} bytes instead of {size}");
        let slot = usize::try_from(number)? % RECEIVES;
        self.check(slot * self.slot, size, number)?;
        self.session.channel.post(Queue::Receive, message)
    }

    /// Checks the bytes of the peer's message `number`, which lie `offset` into the buffer.
    fn check(&mut self, offset: usize, size: u32, number: u64) -> anyhow::Result<()> {
        if self.session.plan.check {
            let bytes = &mut self.bytes[..size as usize];
            self.buffer.read(offset, bytes);
            let (seed, sender) = (self.session.plan.seed, self.session.side.peer());
            Message { seed, sender, number }.check(bytes, &mut self.expected)?;
        }
        Ok(())
    }

    /// Reads the server's message; how long it took.
    fn read(&mut self, size: u32) -> anyhow::Result<Duration> {
        let source = self.peer_memory()?.at(RECEIVES * self.slot);
        let segments: [LocalSegment; 1] = [self.buffer.segment(0, size as usize)?];
        if self.session.plan.check {
            // What the read before has left would do as well.
            self.buffer.write(0, &vec![0; size as usize]);
        }
        let begin = Instant::now();
        self.post(&Work::RdmaRead { source, segments: &segments })?;
        self.session.channel.next_of(Queue::Send)?;
        let elapsed = begin.elapsed();
        self.check(0, size, self.received)?;
        Ok(elapsed)
    }

    /// Has the server put its next message where it can be read.
    fn next_run(&mut self) -> anyhow::Result<()> {
        self.post(&Work::Send { segments: &[], immediate: None })?;
        let ready = self.session.channel.next_of(Queue::Receive)?;
        self.session.channel.next_of(Queue::Send)?;
        self.received += 1;
        self.session.channel.post(Queue::Receive, ready)
    }

    /// Puts messages where the client can read them, one of each size, and stays until it has read all.
    fn be_read(&mut self, sizes: &[u32]) -> anyhow::Result<()> {
        for size in sizes.iter().copied().map(Some).chain([None]) {
            let asked = self.session.channel.next_of(Queue::Receive)?;
            self.sent += 1;
            if let Some(size) = size {
                self.fill(size)?;
            }
            self.session.channel.post(Queue::Receive, asked)?;
            self.post(&Work::Send { segments: &[], immediate: None })?;
            self.session.channel.next_of(Queue::Send)?;
        }
        Ok(())
    }
}

/// Three decimals: nanoseconds, in a figure of microseconds.
fn rounded(microseconds: f64) -> f64 {
    (microseconds * 1000.0).round() / 1000.0
}
