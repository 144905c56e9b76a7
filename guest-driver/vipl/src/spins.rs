//! How long a wait looks busily before it sleeps. What comes soon is cheaper to wait for than to be woken for; what does not is
//! cheaper to sleep for. Which it will be, the waits before tell: the time is doubled after a wait that a longer look would have ended,
//! halved after one that took longer than the longest look, and otherwise stays, as in Linux's haltpoll governor.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Where it begins, and the least: about what a sleep and a wake-up cost.
const LEAST: Duration = Duration::from_micros(20);

/// Waits for different NRA words learn apart, unless their numbers are the same modulo this.
const LEARNERS: usize = 64;

/// What the waits of one context have learnt: nanoseconds to look.
#[derive(Debug)]
pub(crate) struct Spins([AtomicU32; LEARNERS]);

impl Default for Spins {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(LEAST.subsec_nanos())))
    }
}

impl Spins {
    /// How long to look before a sleep on this NRA word, `most` at most.
    pub(crate) fn before_sleep(&self, nra_word: u32, most: Duration) -> Duration {
        Duration::from_nanos(self.learner(nra_word).load(Ordering::Relaxed).into()).min(most)
    }

    /// A wait for this NRA word has ended after so long, where looking may take `most`.
    pub(crate) fn learn(&self, nra_word: u32, took: Duration, most: Duration) {
        let learner = self.learner(nra_word);
        let now = Duration::from_nanos(learner.load(Ordering::Relaxed).into());
        let next = if took <= now {
            now
        } else if took <= most {
            (now * 2).min(most)
        } else {
            (now / 2).max(LEAST)
        };
        if next != now {
            // Of two threads that wait for the same, either may be believed.
            learner.store(u32::try_from(next.as_nanos()).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    fn learner(&self, nra_word: u32) -> &AtomicU32 {
        &self.0[nra_word as usize % LEARNERS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(200);

    /// The microseconds to look after each of the waits.
    fn learnt(waits: &[u64]) -> Vec<u128> {
        let spins = Spins::default();
        let learn = |took: &u64| {
            spins.learn(7, Duration::from_micros(*took), MOST);
            spins.before_sleep(7, MOST).as_micros()
        };
        waits.iter().map(learn).collect()
    }

    #[test]
    fn what_comes_soon_is_looked_for_and_what_does_not_is_slept_for() {
        assert_eq!(learnt(&[90, 90, 90, 90, 5]), [40, 80, 160, 160, 160], "as long as it takes");
        assert_eq!(learnt(&[190, 190, 190, 190, 190]), [40, 80, 160, 200, 200], "no longer than the most");
        assert_eq!(learnt(&[190, 190, 5000, 5000, 5000]), [40, 80, 40, 20, 20]);
        assert_eq!(learnt(&[5000, 10]), [20, 20]);
    }

    #[test]
    fn queues_learn_apart_and_the_most_holds() {
        let spins = Spins::default();
        spins.learn(1, Duration::from_micros(100), MOST);
        assert_eq!(spins.before_sleep(1, MOST).as_micros(), 40);
        assert_eq!(spins.before_sleep(2, MOST).as_micros(), 20);
        assert_eq!(spins.before_sleep(1, Duration::ZERO), Duration::ZERO);
        assert_eq!(spins.before_sleep(1, Duration::from_micros(5)).as_micros(), 5);
    }
}
