//! `vip-pingpong`: one message at a time, there and back.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::json;
use vipl::{DescriptorPool, MemoryAttributes, Nic, Queue, RegisteredBuffer, Work};

use crate::channel::Waiting;
use crate::cli::Common;
use crate::pattern::Message;
use crate::session::{Meeting, Session, print_result};

/// The tool's name.
pub const TOOL: &str = "vip-pingpong";

/// Receive buffers: one is posted anew while a message may come into the other.
const RECEIVES: usize = 2;

/// What a client wants to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
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

/// Runs a plan against the server at `host`, or at this NIC.
///
/// # Errors
/// When the exchange fails or a byte is wrong.
pub fn run(nic: &Nic, options: &Common, host: Option<[u8; 6]>, plan: Plan) -> anyhow::Result<()> {
    let session = meeting(options).connect(nic, host, plan)?;
    Exchange::start(nic, session)?.ask(options.json)
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
        let buffer = RegisteredBuffer::new(nic, slot * (RECEIVES + 1), &MemoryAttributes::default())
            .context(memory)?;
        let pool = DescriptorPool::new(nic, RECEIVES + 1, 1, None).context(memory)?;
        let (bytes, expected) = (vec![0; max], Vec::with_capacity(max));
        let mut exchange = Self { session, pool, buffer, slot, sent: 0, received: 0, bytes, expected };
        for number in 0..RECEIVES {
            let mut receive = exchange.pool.take().context("no descriptor is free")?;
            receive.fill(&Work::Receive { segments: &[exchange.buffer.segment(number * slot, slot)?] })?;
            exchange.session.channel.post(Queue::Receive, receive)?;
        }
        exchange.session.start(TOOL)?;
        Ok(exchange)
    }

    fn ask(mut self, json: bool) -> anyhow::Result<()> {
        let Plan { sizes, iterations, warm_up, check, .. } = self.session.plan.clone();
        let head = format!(
            "{:>9} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "bytes", "iterations", "min[us]", "p50[us]", "p90[us]", "p99[us]", "max[us]"
        );
        for (index, &size) in sizes.iter().enumerate() {
            let mut round_trips = Histogram::<u64>::new(3).context("no histogram")?;
            for round in 0..warm_up + iterations {
                self.fill(size)?;
                let begin = Instant::now();
                self.send(size)?;
                let message = self.session.channel.next_of(Queue::Receive)?;
                let elapsed = begin.elapsed();
                self.session.channel.next_of(Queue::Send)?;
                self.accept(message, size)?;
                if round >= warm_up {
                    round_trips.record(u64::try_from(elapsed.as_nanos())?).context("no histogram")?;
                }
            }
            // Half a round trip: one way.
            let us = |nanoseconds: u64| rounded(nanoseconds as f64 / 2000.0);
            let quantile = |quantile| us(round_trips.value_at_quantile(quantile));
            let (min, max) = (us(round_trips.min()), us(round_trips.max()));
            let (p50, p90, p99) = (quantile(0.5), quantile(0.9), quantile(0.99));
            let line = format!(
                "{size:>9} {iterations:>11} {min:>10.2} {p50:>10.2} {p90:>10.2} {p99:>10.2} {max:>10.2}"
            );
            let object = json!({
                "tool": TOOL, "size": size, "iterations": iterations, "checked": check,
                "latency_us": { "min": min, "p50": p50, "p90": p90, "p99": p99, "max": max },
            });
            print_result(json, index == 0, &head, &line, &object)?;
        }
        Ok(())
    }

    fn answer(mut self) -> anyhow::Result<()> {
        let Plan { sizes, iterations, warm_up, check, .. } = self.session.plan.clone();
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
        let mut send = self.pool.take().context("no descriptor is free")?;
        let segment = self.buffer.segment(RECEIVES * self.slot, size as usize)?;
        send.fill(&Work::Send { segments: &[segment], immediate: None })?;
        self.sent += 1;
        self.session.channel.post(Queue::Send, send)
    }

    /// Checks a message that has come, and posts its descriptor anew.
    fn accept(&mut self, message: vipl::Descriptor, size: u32) -> anyhow::Result<()> {
        let number = self.received;
        self.received += 1;
        let length = message.outcome().unwrap_or(0);
        ensure!(length == size, "message {number} has {length} bytes instead of {size}");
        if self.session.plan.check {
            // Receives complete in the order of their posts.
            let slot = usize::try_from(number)? % RECEIVES;
            let bytes = &mut self.bytes[..size as usize];
            self.buffer.read(slot * self.slot, bytes);
            let (seed, sender) = (self.session.plan.seed, self.session.side.peer());
            Message { seed, sender, number }.check(bytes, &mut self.expected)?;
        }
        self.session.channel.post(Queue::Receive, message)
    }
}

/// Three decimals: nanoseconds, in a figure of microseconds.
fn rounded(microseconds: f64) -> f64 {
    (microseconds * 1000.0).round() / 1000.0
}
