//! How long a wait looks busily before it sleeps. What comes soon is cheaper to wait for than to be woken for; what does not is
//! cheaper to sleep for. Which it will be, the waits before tell: the time is doubled after a wait that came to its end within the
//! longest look, and halved after one that took longer.
//!
//! It begins with the longest: two ends that answer each other and both sleep take longer than that, and would never learn that looking makes
//! them fast. A queue for which it is wrong has looked for twice the longest look when it knows.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The least: about what a sleep and a wake-up cost.
const LEAST: Duration = Duration::from_micros(20);

/// Waits for different NRA words learn apart, unless their numbers are the same modulo this.
const LEARNERS: usize = 64;

/// What the waits of one context have learnt.
#[derive(Debug)]
pub(crate) struct Spins {
    longest: Duration,
    /// Nanoseconds to look.
    learnt: [AtomicU32; LEARNERS],
}

impl Spins {
    /// Waits that look for `longest` at most.
    pub(crate) fn new(longest: Duration) -> Self {
        Self { longest, learnt: std::array::from_fn(|_| AtomicU32::new(nanoseconds(longest))) }
    }

    /// How long to look before a sleep on this NRA word.
    pub(crate) fn before_sleep(&self, nra_word: u32) -> Duration {
        Duration::from_nanos(self.learner(nra_word).load(Ordering::Relaxed).into())
    }

    /// A wait for this NRA word has taken so long, and found what it waited for or taken longer than the longest look.
    pub(crate) fn learn(&self, nra_word: u32, took: Duration) {
        let now = self.before_sleep(nra_word);
        let next = if took <= self.longest { now * 2 } else { (now / 2).max(LEAST) }.min(self.longest);
        if next != now {
            // Of two threads that wait for the same, either may be believed.
            self.learner(nra_word).store(nanoseconds(next), Ordering::Relaxed);
        }
    }

    fn learner(&self, nra_word: u32) -> &AtomicU32 {
        &self.learnt[nra_word as usize % LEARNERS]
    }
}

fn nanoseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(200);

    /// The microseconds to look after each of the waits.
    fn learnt(waits: &[u64]) -> Vec<u128> {
        let spins = Spins::new(LONGEST);
        let learn = |took: &u64| {
            spins.learn(7, Duration::from_micros(*took));
            spins.before_sleep(7).as_micros()
        };
        waits.iter().map(learn).collect()
    }

    #[test]
    fn what_comes_soon_is_looked_for_and_what_does_not_is_slept_for() {
        assert_eq!(learnt(&[5, 190, 90]), [200, 200, 200], "no longer than the longest");
        assert_eq!(
            learnt(&[5000, 5000, 5000, 5000, 5000]),
            [100, 50, 25, 20, 20],
            "no shorter than the least"
        );
        assert_eq!(
            learnt(&[5000, 5000, 190, 5, 5]),
            [100, 50, 100, 200, 200],
            "one that looking ended counts too"
        );
    }

    #[test]
    fn queues_learn_apart() {
        let spins = Spins::new(LONGEST);
        spins.learn(1, Duration::from_secs(1));
        assert_eq!(spins.before_sleep(1).as_micros(), 100);
        assert_eq!(spins.before_sleep(2).as_micros(), 200);
    }

    #[test]
    fn waits_that_must_not_look_never_do() {
        let spins = Spins::new(Duration::ZERO);
        for took in [Duration::ZERO, Duration::from_micros(1), Duration::from_secs(1)] {
            spins.learn(3, took);
            assert_eq!(spins.before_sleep(3), Duration::ZERO);
        }
    }
}
