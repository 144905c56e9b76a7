//! Whether the processor that the engine polls on is wanted by somebody else, as with two guests and the engine on two
//! processors. Then polling does harm: who polls is put behind others that spin, for whole ticks of the scheduler, while who
//! sleeps and is woken goes first.

use crate::nic::pacing::Patience;

/// Turns without work follow each other within microseconds. With such a gap between them, in nanoseconds, the thread was
/// kept off the processor.
const GAP: u64 = 200_000;

/// One gap may be anything, an interrupt or a passing thread; two within this time, in nanoseconds, are crowding.
const PAIR: u64 = 20_000_000;

/// For how long, in nanoseconds, crowding is believed in after it was noticed: at first, and after it was noticed again and
/// again.
const FIRST_BELIEF: u64 = 50_000_000;
const LONGEST_BELIEF: u64 = 2_000_000_000;

/// Notices crowding by the time between turns.
#[derive(Debug)]
pub(super) struct Crowding {
    /// Time of the last turn, if it had nothing to do.
    last_idle: Option<u64>,
    last_gap: Option<u64>,
    now: u64,
    crowded_until: u64,
    belief: u64,
}

impl Default for Crowding {
    fn default() -> Self {
        Self { last_idle: None, last_gap: None, now: 0, crowded_until: 0, belief: FIRST_BELIEF }
    }
}

impl Crowding {
    /// A turn that had work, or a sleep: the time until the next turn says nothing.
    pub(super) fn worked(&mut self) {
        self.last_idle = None;
    }

    /// A turn that had nothing to do, at time `now` in nanoseconds.
    pub(super) fn idle(&mut self, now: u64) {
        self.now = now;
        if self.last_idle.replace(now).is_some_and(|last| now.saturating_sub(last) > GAP)
            && self.last_gap.replace(now).is_some_and(|last| now.saturating_sub(last) < PAIR)
        {
            self.believe(now);
        }
    }

    fn believe(&mut self, now: u64) {
        // Noticed again soon after the last belief ended: believe longer.
        let again = self.crowded_until > 0 && now < self.crowded_until.saturating_add(self.belief);
        self.belief = if again { (self.belief * 2).min(LONGEST_BELIEF) } else { FIRST_BELIEF };
        self.crowded_until = now.saturating_add(self.belief);
    }

    /// How long polling may go on without finding anything.
    pub(super) fn patience(&self) -> Patience {
        if self.now < self.crowded_until { Patience::Short } else { Patience::Full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Two idle turns with a gap between them, the second at `now`.
    fn gap(crowding: &mut Crowding, now: u64) {
        crowding.worked();
        crowding.idle(now - MS);
        crowding.idle(now);
    }

    #[test]
    fn two_gaps_between_idle_turns_are_crowding_and_are_believed_for_a_while() {
        let mut crowding = Crowding::default();
        gap(&mut crowding, 5 * MS);
        crowding.idle(5 * MS + 5_000);
        assert_eq!(crowding.patience(), Patience::Full, "one gap may be anything");
        gap(&mut crowding, 30 * MS);
        assert_eq!(crowding.patience(), Patience::Full, "the other was long ago");
        gap(&mut crowding, 40 * MS);
        assert_eq!(crowding.patience(), Patience::Short);
        for (now, patience) in [(89, Patience::Short), (91, Patience::Full)] {
            crowding.worked();
            crowding.idle(now * MS);
            assert_eq!(crowding.patience(), patience, "{now} ms: work and sleep are no gaps");
        }
        // Noticed again: believed in for longer.
        gap(&mut crowding, 100 * MS);
        gap(&mut crowding, 110 * MS);
        for (now, patience) in [(209, Patience::Short), (211, Patience::Full)] {
            crowding.worked();
            crowding.idle(now * MS);
            assert_eq!(crowding.patience(), patience, "{now} ms");
        }
    }

    #[test]
    fn the_belief_has_a_limit() {
        let mut crowding = Crowding::default();
        for _ in 0..20 {
            let end = crowding.crowded_until;
            gap(&mut crowding, end + 2 * MS);
            gap(&mut crowding, end + 4 * MS);
        }
        assert_eq!(crowding.belief, LONGEST_BELIEF);
    }
}
