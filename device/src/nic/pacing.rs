//! How eagerly a context's Token Table is looked at (claims 10 and 11).
//!
//! **Batch** (claim 10): the number of entries copied per copy operation doubles when a copy operation found as many as it
//! asked for, and halves when it found less than a quarter.
//!
//! **Polling** (claim 11): a table in which valid entries are found is polled without pause; one that has been empty for
//! [`Limits::busy_ns`] is polled with pauses, in which other threads get the processor; one that has been
//! empty for [`Limits::spaced_ns`] more is left to the doorbell. Where processors are short ([`Patience::Short`]) it is left
//! to the doorbell much sooner: a thread that sleeps and is woken gets the processor before threads that spin.

mod limits;

use vianic_abi::nic_memory::Counter;

pub use limits::{BadLimits, LARGEST_BATCH, Limits};

/// Whether there are processors to spare for polling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// There are.
    Full,
    /// Somebody else waits for this one.
    Short,
}

/// What to do about a Token Table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Poll {
    /// Leave it to the doorbell.
    Asleep,
    /// Look again after a pause.
    Spaced,
    /// Look again at once.
    Busy,
}

/// The controllers of one context.
#[derive(Debug)]
pub struct Pacing {
    limits: Limits,
    batch: u32,
    empty_since: Option<u64>,
}

impl Pacing {
    /// Controllers at rest.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, batch: limits.min_batch, empty_since: None }
    }

    /// Entries to copy in the next copy operation.
    #[must_use]
    pub fn batch(&self) -> u32 {
        self.batch
    }

    /// A copy operation found `valid` entries.
    #[inline]
    pub fn copied(&mut self, valid: u32) {
        if valid >= self.batch {
            self.batch = (self.batch * 2).min(self.limits.max_batch);
        } else if valid < self.batch / 4 {
            self.batch = (self.batch / 2).max(self.limits.min_batch);
        }
        if valid > 0 {
            self.empty_since = None;
        }
    }

    /// A copy operation found nothing, at time `now` in nanoseconds: how to go on.
    pub fn empty(&mut self, now: u64, patience: Patience) -> Poll {
        let since = *self.empty_since.get_or_insert(now);
        match now.saturating_sub(since) {
            idle if patience == Patience::Short && idle >= self.limits.short_ns => Poll::Asleep,
            idle if idle < self.limits.busy_ns => Poll::Busy,
            idle if idle < self.limits.busy_ns + self.limits.spaced_ns => Poll::Spaced,
            _ => Poll::Asleep,
        }
    }

    /// The counter of copy operations that found so many entries, at least one.
    #[inline]
    #[must_use]
    pub fn batches_counter(valid: usize) -> Counter {
        const BY_LOG2: [Counter; 9] = [
            Counter::batches_1,
            Counter::batches_2,
            Counter::batches_4,
            Counter::batches_8,
            Counter::batches_16,
            Counter::batches_32,
            Counter::batches_64,
            Counter::batches_128,
            Counter::batches_256,
        ];
        const { assert!(1 << (BY_LOG2.len() - 1) == LARGEST_BATCH as usize) };
        let log2 = valid.checked_ilog2().unwrap_or(0) as usize;
        BY_LOG2[log2.min(BY_LOG2.len() - 1)]
    }

    /// The doorbell rang: polling starts over.
    pub fn woken(&mut self) {
        self.empty_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_grows_under_load_and_shrinks_when_idle() {
        let mut pacing = Pacing::new(Limits::default());
        let mut seen = Vec::new();
        for _ in 0..6 {
            seen.push(pacing.batch());
            pacing.copied(pacing.batch());
        }
        assert_eq!(seen, [4, 8, 16, 32, 64, 64]);
        seen.clear();
        for _ in 0..6 {
            pacing.copied(0);
            seen.push(pacing.batch());
        }
        assert_eq!(seen, [32, 16, 8, 4, 4, 4]);
        pacing.copied(2);
        assert_eq!(pacing.batch(), 4, "a table with a few entries keeps the batch");
    }

    #[test]
    fn batches_are_counted_by_powers_of_two() {
        let counters = [1, 2, 3, 4, 7, 8, 255, 256, 1000].map(Pacing::batches_counter);
        assert_eq!(
            counters,
            [
                Counter::batches_1,
                Counter::batches_2,
                Counter::batches_2,
                Counter::batches_4,
                Counter::batches_4,
                Counter::batches_8,
                Counter::batches_128,
                Counter::batches_256,
                Counter::batches_256,
            ]
        );
    }

    #[test]
    fn recorded_loads_are_followed() {
        let limits = Limits { min_batch: 2, max_batch: 32, ..Limits::default() };
        // Entries that were posted before each copy operation, and the batch that should be asked for next: a burst, a steady
        // stream of few, a burst that ends.
        let burst = [(40, 4), (36, 8), (32, 16), (24, 32), (8, 32), (0, 16)];
        let steady = [(3, 8), (1, 4), (3, 4), (3, 4), (2, 4), (0, 2)];
        let mut pacing = Pacing::new(limits);
        for (posted, next) in burst.into_iter().chain(steady) {
            pacing.copied(posted.min(pacing.batch()));
            assert_eq!(pacing.batch(), next, "after {posted}");
        }
    }

    #[test]
    fn polling_slows_down_and_ends_when_nothing_comes() {
        let mut pacing = Pacing::new(Limits { busy_ns: 100, spaced_ns: 1000, ..Limits::default() });
        assert_eq!(pacing.empty(5, Patience::Full), Poll::Busy);
        assert_eq!(pacing.empty(104, Patience::Full), Poll::Busy);
        assert_eq!(pacing.empty(105, Patience::Full), Poll::Spaced);
        assert_eq!(pacing.empty(1104, Patience::Full), Poll::Spaced);
        assert_eq!(pacing.empty(1105, Patience::Full), Poll::Asleep);
        pacing.copied(1);
        assert_eq!(pacing.empty(2000, Patience::Full), Poll::Busy, "one valid entry starts it over");
        pacing.woken();
        assert_eq!(pacing.empty(9000, Patience::Full), Poll::Busy);
    }

    #[test]
    fn where_processors_are_short_polling_ends_soon() {
        let limits = Limits { busy_ns: 100, spaced_ns: 1000, short_ns: 10, ..Limits::default() };
        let mut pacing = Pacing::new(limits);
        assert_eq!(pacing.empty(0, Patience::Short), Poll::Busy);
        assert_eq!(pacing.empty(10, Patience::Full), Poll::Busy);
        assert_eq!(pacing.empty(10, Patience::Short), Poll::Asleep);
    }
}
