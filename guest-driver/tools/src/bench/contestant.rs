//! What can be measured in turns.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Messages before each sample of many at once that are not measured: the first one wakes whoever answers.
pub const WARM_UP: u32 = 8;

/// Exchanges, one at a time, that follow each other at once. Between two groups of them preparations may be made.
pub const GROUP: u32 = 32;
/// The first ones of each group are not measured: what prepared it may not be over.
const LEAD: u32 = 4;

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

/// Something that is done again and again, once at a time.
pub trait Exchange {
    /// What is needed for the next [`GROUP`] of them. It takes no time of theirs.
    ///
    /// # Errors
    /// When it does not work.
    fn prepare(&mut self, exchanges: u32) -> anyhow::Result<()> {
        let _ = exchanges;
        Ok(())
    }
    /// Once.
    ///
    /// # Errors
    /// When it does not work.
    fn exchange(&mut self) -> anyhow::Result<()>;
}

impl<F: FnMut() -> anyhow::Result<()>> Exchange for F {
    fn exchange(&mut self) -> anyhow::Result<()> {
        self()
    }
}

/// How many exchanges a sample of at least `messages` single ones takes: as many before they are measured, then measured together, and
/// then each alone.
#[must_use]
pub fn exchanges(messages: u32) -> u32 {
    3 * groups(messages) * GROUP
}

fn groups(messages: u32) -> u32 {
    messages.div_ceil(GROUP - LEAD)
}

/// Times exchanges that follow one another: together, without a look at the clock within a group of them, then each alone.
///
/// # Errors
/// The exchange's own.
pub fn one_by_one(messages: u32, each: &mut impl Exchange) -> anyhow::Result<Sample> {
    let groups = groups(messages);
    for _ in 0..groups {
        together(each)?;
    }
    let time = (0..groups).map(|_| together(each)).sum::<anyhow::Result<Duration>>()?;
    let mut singles = Vec::with_capacity((groups * (GROUP - LEAD)) as usize);
    for _ in 0..groups {
        lead(each)?;
        let mut before = Instant::now();
        for _ in LEAD..GROUP {
            each.exchange()?;
            let now = Instant::now();
            singles.push(u64::try_from((now - before).as_nanos())?);
            before = now;
        }
    }
    Ok(Sample { messages: singles.len() as u64, time, singles })
}

/// How long the measured exchanges of a group take.
fn together(each: &mut impl Exchange) -> anyhow::Result<Duration> {
    lead(each)?;
    let begin = Instant::now();
    for _ in LEAD..GROUP {
        each.exchange()?;
    }
    Ok(begin.elapsed())
}

/// The beginning of a group.
fn lead(each: &mut impl Exchange) -> anyhow::Result<()> {
    each.prepare(GROUP)?;
    (0..LEAD).try_for_each(|_| each.exchange())
}
