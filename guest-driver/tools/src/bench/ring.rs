//! What a device that costs nothing would reach: 64-byte tokens posted in one ring, 64-byte completions in another, each with
//! the word that makes it valid inside it, and every byte of both read. The device may copy a message for each token.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::beside::Cores;
use super::contestant::{Contestant, Quantity, Role, Sample, WARM_UP, exchanges, one_by_one};
use super::copies::Pool;

/// Entries of a ring; more than any window.
const ENTRIES: usize = 1024;

/// An entry: one cache line, whose first word is its number in the ring's endless sequence.
#[repr(align(64))]
#[derive(Default)]
struct Entry([AtomicU64; 8]);

impl Entry {
    #[inline]
    fn put(&self, number: u64, content: u64) {
        let [valid, words @ ..] = &self.0;
        for word in words {
            word.store(content, Ordering::Relaxed);
        }
        valid.store(number, Ordering::Release);
    }

    /// The sum of its content, if it has been put.
    #[inline]
    fn get(&self, number: u64) -> Option<u64> {
        let [valid, words @ ..] = &self.0;
        (valid.load(Ordering::Acquire) == number)
            .then(|| words.iter().fold(0_u64, |sum, word| sum.wrapping_add(word.load(Ordering::Relaxed))))
    }
}

struct Ring(Box<[Entry]>);

impl Ring {
    fn new() -> Self {
        Self((0..ENTRIES).map(|_| Entry::default()).collect())
    }

    #[inline]
    fn at(&self, number: u64) -> &Entry {
        #[expect(clippy::cast_possible_truncation, reason = "it is less than the number of entries")]
        &self.0[(number % ENTRIES as u64) as usize]
    }

    #[inline]
    fn wait(&self, number: u64) -> u64 {
        loop {
            if let Some(sum) = self.at(number).get(number) {
                return sum;
            }
            std::hint::spin_loop();
        }
    }
}

/// The two rings, and what the device does with a token.
pub struct TokenRing {
    cores: Cores,
    quantity: Quantity,
    window: u32,
    messages: u32,
    tokens: Ring,
    completions: Ring,
    pool: Option<Pool>,
}

impl TokenRing {
    /// A limit of `quantity` with `window` posts outstanding and samples of `messages`.
    #[must_use]
    pub fn new(cores: Cores, quantity: Quantity, window: u32, messages: u32) -> Self {
        let (tokens, completions) = (Ring::new(), Ring::new());
        Self { cores, quantity, window, messages, tokens, completions, pool: None }
    }

    /// The device copies a message of the pool for each token.
    #[must_use]
    pub fn with_copies(self, pool: Pool) -> Self {
        Self { pool: Some(pool), ..self }
    }
}

impl Contestant for TokenRing {
    fn name(&self) -> String {
        let copies = if self.pool.is_some() { ", device copies" } else { "" };
        format!("token -> completion{copies}")
    }

    /// Latency is compared with what the protocol alone takes.
    fn role(&self) -> Role {
        if self.pool.is_some() && self.quantity == Quantity::Latency { Role::Bound } else { Role::Limit }
    }

    fn sample(&mut self) -> anyhow::Result<Sample> {
        let Self { cores, quantity, window, messages, tokens, completions, pool } = self;
        let (messages, window) = (*messages, u64::from(*window));
        let count = match quantity {
            Quantity::Latency => exchanges(messages),
            Quantity::Rate | Quantity::Bandwidth => WARM_UP + messages,
        };
        // Numbers of the last sample must not look valid.
        (*tokens, *completions) = (Ring::new(), Ring::new());
        let (tokens, completions) = (&*tokens, &*completions);
        let device = || {
            for number in 1..=u64::from(count) {
                let sum = tokens.wait(number);
                if let Some(pool) = pool {
                    pool.copy();
                }
                completions.at(number).put(number, sum);
            }
        };
        let post = |number| tokens.at(number).put(number, number);
        cores.beside(device, || {
            let mut sum = 0_u64;
            let sample = match quantity {
                Quantity::Latency => {
                    let mut number = 0;
                    one_by_one(messages, &mut || {
                        number += 1;
                        post(number);
                        sum = sum.wrapping_add(completions.wait(number));
                        Ok(())
                    })
                }
                Quantity::Rate | Quantity::Bandwidth => {
                    let mut posted = 0;
                    let mut begin = Instant::now();
                    for completed in 1..=u64::from(count) {
                        while posted < u64::from(count) && posted + 1 - completed < window {
                            posted += 1;
                            post(posted);
                        }
                        sum = sum.wrapping_add(completions.wait(completed));
                        if completed == u64::from(WARM_UP) {
                            begin = Instant::now();
                        }
                    }
                    Ok(Sample { messages: messages.into(), time: begin.elapsed(), singles: Vec::new() })
                }
            };
            std::hint::black_box(sum);
            sample
        })
    }
}
