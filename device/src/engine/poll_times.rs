//! How long a card has been polled in which way.

use vianic_abi::nic_memory::Counter;

use crate::nic::memory::NicMemory;
use crate::nic::pacing::Poll;

/// The way in which one card is polled, and since when. Its time is counted when another way begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct PollTimes {
    state: Poll,
    since: u64,
}

impl PollTimes {
    /// A card that nobody looks at, from `now` in nanoseconds.
    pub(super) fn asleep(now: u64) -> Self {
        Self { state: Poll::Asleep, since: now }
    }

    /// From `now` on the card is polled in this way.
    #[inline]
    pub(super) fn enter(&mut self, state: Poll, now: u64, memory: &NicMemory) {
        if state != self.state {
            self.settle(now, memory);
            self.state = state;
        }
    }

    /// Counts the time until `now`.
    pub(super) fn settle(&mut self, now: u64, memory: &NicMemory) {
        let counter = match self.state {
            Poll::Busy => Counter::busy_ns,
            Poll::Spaced => Counter::spaced_ns,
            Poll::Asleep => Counter::asleep_ns,
        };
        memory.count(counter, now.saturating_sub(self.since));
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nanosecond_belongs_to_one_state() {
        let memory = NicMemory::new().expect("NIC memory");
        let mut times = PollTimes::asleep(100);
        for (state, now) in [
            (Poll::Asleep, 150),
            (Poll::Busy, 200),
            (Poll::Busy, 250),
            (Poll::Spaced, 300),
            (Poll::Busy, 1_300),
            (Poll::Asleep, 1_310),
        ] {
            times.enter(state, now, &memory);
        }
        times.settle(11_310, &memory);
        let counted = memory.counters();
        assert_eq!((counted.busy_ns, counted.spaced_ns, counted.asleep_ns), (110, 1_000, 10_100));
    }
}
