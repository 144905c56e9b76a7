//! What can be measured in turns.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Exchanges before each sample that are not measured: the first one wakes whoever answers.
pub const WARM_UP: u32 = 8;

/// What is measured, and so in which unit figures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Quantity {
    /// Nanoseconds of one exchange; less is better.
    Latency,
    /// Messages per second.
    Rate,
    /// Bytes per second.
    Bandwidth,
}

impl Quantity {
    /// The figure of a sample of messages of `size` bytes.
    #[must_use]
    pub fn of(self, sample: &Sample, size: u32) -> f64 {
        let seconds = sample.time.as_secs_f64();
        let messages = sample.messages as f64;
        match self {
            Self::Latency => seconds * 1e9 / messages,
            Self::Rate => messages / seconds,
            Self::Bandwidth => messages * f64::from(size) / seconds,
        }
    }

    /// The unit in which people read it, and how many of the figure's own are one of these.
    #[must_use]
    pub fn shown(self) -> (&'static str, f64) {
        match self {
            Self::Latency => ("ns", 1.0),
            Self::Rate => ("M/s", 1e6),
            Self::Bandwidth => ("MB/s", 1e6),
        }
    }
}

/// What a contestant is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The limit of the case: what a device that costs nothing would reach. Ratios are to it.
    Limit,
    /// Another limit of the machine.
    Bound,
    /// The card.
    Card,
    /// What else one could use.
    Peer,
}

/// One measurement of some messages.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// How many.
    pub messages: u64,
    /// How long all of them took.
    pub time: Duration,
    /// Nanoseconds of single ones, if they were timed; the clock is read for each, so that they are a little slower.
    pub singles: Vec<u64>,
}

/// Something to be measured.
pub trait Contestant {
    /// Its name, for people.
    fn name(&self) -> String;
    /// What it is to the others.
    fn role(&self) -> Role;
    /// Takes a sample.
    ///
    /// # Errors
    /// When it does not work.
    fn sample(&mut self) -> anyhow::Result<Sample>;
    /// Before the first round: caches are cold, whoever answers is asleep, and the clock of the core is low.
    ///
    /// # Errors
    /// When it does not work.
    fn warm_up(&mut self) -> anyhow::Result<()> {
        self.sample()?;
        self.rest();
        Ok(())
    }
    /// How many samples it takes in a round where the others take `most`.
    fn samples(&self, most: u32) -> u32 {
        most
    }
    /// Comes to rest, so that it does not disturb whoever is next.
    fn rest(&mut self) {}
}

/// How many exchanges a sample of `messages` single ones takes.
#[must_use]
pub fn exchanges(messages: u32) -> u32 {
    WARM_UP + 2 * messages
}

/// Times exchanges that follow one another: all together without a look at the clock, then each alone.
///
/// # Errors
/// The exchange's own.
pub fn one_by_one(messages: u32, mut exchange: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Sample> {
    for _ in 0..WARM_UP {
        exchange()?;
    }
    let begin = Instant::now();
    for _ in 0..messages {
        exchange()?;
    }
    let time = begin.elapsed();
    let mut singles = Vec::with_capacity(messages as usize);
    let mut before = Instant::now();
    for _ in 0..messages {
        exchange()?;
        let now = Instant::now();
        singles.push(u64::try_from((now - before).as_nanos())?);
        before = now;
    }
    Ok(Sample { messages: messages.into(), time, singles })
}
