//! The least that any exchange between two cores takes: a cache line that goes there and back.

use std::sync::atomic::{AtomicU64, Ordering};

use super::beside::Cores;
use super::contestant::{Contestant, Role, Sample, exchanges, one_by_one};

/// Exchanges of a probe.
const PROBE: u32 = 28;

/// On a cache line of its own; two of them, as processors fetch lines in pairs.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

/// A cache line bounced between two cores.
#[derive(Debug)]
pub struct Bounce {
    cores: Cores,
    messages: u32,
}

impl Bounce {
    /// As a contestant, with samples of so many round trips.
    #[must_use]
    pub fn new(cores: Cores, messages: u32) -> Self {
        Self { cores, messages }
    }

    /// Nanoseconds of one round trip, now.
    ///
    /// # Errors
    /// None that a working machine has.
    pub fn probe(cores: Cores) -> anyhow::Result<f64> {
        let sample = Self::new(cores, PROBE).sample()?;
        Ok(sample.time.as_secs_f64() * 1e9 / sample.messages as f64)
    }
}

impl Contestant for Bounce {
    fn name(&self) -> String {
        "cache line, there and back".into()
    }

    fn role(&self) -> Role {
        Role::Bound
    }

    fn sample(&mut self) -> anyhow::Result<Sample> {
        let (there, back) = (Line::default(), Line::default());
        let count = u64::from(exchanges(self.messages));
        let mut number = 0;
        self.cores.beside(
            || {
                for number in 1..=count {
                    while there.0.load(Ordering::Acquire) != number {
                        std::hint::spin_loop();
                    }
                    back.0.store(number, Ordering::Release);
                }
            },
            || {
                one_by_one(self.messages, &mut || {
                    number += 1;
                    there.0.store(number, Ordering::Release);
                    while back.0.load(Ordering::Acquire) != number {
                        std::hint::spin_loop();
                    }
                    Ok(())
                })
            },
        )
    }
}
