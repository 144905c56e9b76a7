//! Faults of a link, on purpose: messages that are lost, corrupted or broken off, by chance or a number of them in a row, from a
//! schedule that the same seed gives again.

use std::fmt;
use std::str::FromStr;

use fastrand::Rng;
use thiserror::Error;

use crate::vito::frame::Slice;

/// How many messages a fault happens to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Rate {
    /// None.
    #[default]
    Never,
    /// Each with this probability, 0 to 1.
    Chance(f64),
    /// So many, the next ones.
    Next(u32),
}

/// What a link does to messages.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Plan {
    /// Seed of the schedule.
    pub seed: u64,
    /// Messages that never arrive.
    pub drops: Rate,
    /// Messages whose check fails where they arrive.
    pub corrupts: Rate,
    /// Messages that arrive without their second half.
    pub breaks: Rate,
}

/// Text that is not a plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadPlan {
    /// Not `name=value`, or a name that does not exist.
    #[error("{0:?} is no fault: write seed=NUMBER, drop=RATE, corrupt=RATE, break=RATE, separated by commas")]
    Unknown(String),
    /// A rate that is not a rate.
    #[error("{0:?} is no rate: write a probability from 0 to 1, or next:NUMBER")]
    Rate(String),
    /// A seed that is not a number.
    #[error("{0:?} is no seed: write a number")]
    Seed(String),
}

impl FromStr for Rate {
    type Err = BadPlan;

    fn from_str(text: &str) -> Result<Self, BadPlan> {
        let bad = || BadPlan::Rate(text.to_owned());
        if let Some(count) = text.strip_prefix("next:") {
            return count.parse().map(Self::Next).map_err(|_| bad());
        }
        let chance: f64 = text.parse().map_err(|_| bad())?;
        if (0.0..=1.0).contains(&chance) { Ok(Self::Chance(chance)) } else { Err(bad()) }
    }
}

impl FromStr for Plan {
    type Err = BadPlan;

    fn from_str(text: &str) -> Result<Self, BadPlan> {
        let mut plan = Self::default();
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("seed", seed)) => {
                    plan.seed = seed.parse().map_err(|_| BadPlan::Seed(seed.to_owned()))?;
                }
                Some(("drop", rate)) => plan.drops = rate.parse()?,
                Some(("corrupt", rate)) => plan.corrupts = rate.parse()?,
                Some(("break", rate)) => plan.breaks = rate.parse()?,
                _ => return Err(BadPlan::Unknown(part.to_owned())),
            }
        }
        Ok(plan)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("0"),
            Self::Chance(chance) => chance.fmt(f),
            Self::Next(count) => write!(f, "next:{count}"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, drops, corrupts, breaks } = self;
        write!(f, "seed={seed},drop={drops},corrupt={corrupts},break={breaks}")
    }
}

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It never arrives.
    Drop,
    /// Its check fails.
    Corrupt,
    /// It ends in this slice, after so many of the slice's bytes.
    Break(u32),
}

/// How often a link has done what to messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Dropped.
    pub dropped: u64,
    /// Corrupted.
    pub corrupted: u64,
    /// Broken off.
    pub broken: u64,
}

/// A plan under way on one link.
#[derive(Clone, Debug)]
pub struct Faults {
    /// What is still to come of the plan.
    plan: Plan,
    random: Rng,
    counts: Counts,
}

impl Faults {
    /// The plan from its beginning, on link number `link`: each has a schedule of its own.
    #[must_use]
    pub fn new(plan: Plan, link: usize) -> Self {
        let mut seeds = Rng::with_seed(plan.seed);
        let seed = (0..=link).fold(0, |_, _| seeds.u64(..));
        Self { plan, random: Rng::with_seed(seed), counts: Counts::default() }
    }

    /// What is still to come of the plan.
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// What has been done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What happens to the message that `slice` is of. Asked with each slice: a message's first slice decides whether it is
    /// dropped or corrupted, the one that its middle is in whether it breaks off.
    pub fn strike(&mut self, slice: Slice) -> Option<Fault> {
        let Self { plan, random, counts } = self;
        if slice.is_first() && plan.drops.strikes(random) {
            counts.dropped += 1;
            return Some(Fault::Drop);
        }
        if slice.is_first() && plan.corrupts.strikes(random) {
            counts.corrupted += 1;
            return Some(Fault::Corrupt);
        }
        // A message of less than two bytes has no middle.
        let middle = slice.total / 2;
        let before = middle.checked_sub(slice.offset).filter(|before| *before < slice.length && middle > 0);
        if let Some(before) = before
            && plan.breaks.strikes(random)
        {
            counts.broken += 1;
            return Some(Fault::Break(before));
        }
        None
    }
}

impl Rate {
    fn strikes(&mut self, random: &mut Rng) -> bool {
        match self {
            Self::Never => false,
            Self::Chance(chance) => random.f64() < *chance,
            Self::Next(0) => false,
            Self::Next(left) => {
                *left -= 1;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        text.parse().expect("a plan")
    }

    /// What happens to `count` messages of one slice.
    fn run(faults: &mut Faults, count: u32) -> Vec<Option<Fault>> {
        (0..count).map(|_| faults.strike(Slice::whole(100))).collect()
    }

    #[test]
    fn plans_are_read_and_written() {
        let expected =
            Plan { seed: 7, drops: Rate::Chance(0.25), corrupts: Rate::Next(3), breaks: Rate::Chance(1.0) };
        assert_eq!(plan("seed=7,drop=0.25,corrupt=next:3,break=1"), expected);
        assert_eq!(plan(&expected.to_string()), expected);
        assert_eq!(plan("drop=0.5"), Plan { drops: Rate::Chance(0.5), ..Plan::default() });
        for bad in [
            "",
            "drop",
            "drop=",
            "drop=2",
            "drop=-1",
            "drop=nan",
            "drop=next:x",
            "seed=x",
            "lose=1",
            "drop=1,",
        ] {
            assert!(bad.parse::<Plan>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_each_link_has_its_own() {
        let plan = plan("seed=3,drop=0.1,corrupt=0.1,break=0.1");
        let schedule = |link| run(&mut Faults::new(plan, link), 1000);
        assert_eq!(schedule(0), schedule(0));
        assert_ne!(schedule(0), schedule(1));
        let other = Plan { seed: 4, ..plan };
        assert_ne!(schedule(0), run(&mut Faults::new(other, 0), 1000));
    }

    #[test]
    fn chances_are_kept() {
        let mut faults = Faults::new(plan("seed=1,drop=0.1,corrupt=0.05,break=0.02"), 0);
        run(&mut faults, 100_000);
        let Counts { dropped, corrupted, broken } = faults.counts();
        assert!((9_000..11_000).contains(&dropped), "{dropped}");
        // Of the nine tenths that are not dropped.
        assert!((4_000..5_000).contains(&corrupted), "{corrupted}");
        assert!((1_400..2_000).contains(&broken), "{broken}");
        assert!(
            run(&mut Faults::new(plan("drop=1"), 0), 1000).iter().all(|fault| *fault == Some(Fault::Drop))
        );
        assert!(run(&mut Faults::new(plan("drop=0"), 0), 1000).iter().all(Option::is_none));
    }

    #[test]
    fn the_next_ones_are_hit_and_no_more() {
        let mut faults = Faults::new(plan("drop=next:2,corrupt=next:1"), 0);
        let expected = [Some(Fault::Drop), Some(Fault::Drop), Some(Fault::Corrupt), None, None];
        assert_eq!(run(&mut faults, 5), expected);
        assert_eq!(faults.plan().drops, Rate::Next(0));
    }

    #[test]
    fn a_message_of_many_slices_is_asked_about_once() {
        let slice = |offset, length| Slice { total: 1000, offset, length };
        let mut faults = Faults::new(plan("drop=0,break=1"), 0);
        let struck = [slice(0, 400), slice(400, 400), slice(800, 200)].map(|slice| faults.strike(slice));
        assert_eq!(struck, [None, Some(Fault::Break(100)), None]);
        let mut faults = Faults::new(plan("corrupt=next:3"), 0);
        let struck = [slice(0, 500), slice(500, 500)].map(|slice| faults.strike(slice));
        assert_eq!(struck, [Some(Fault::Corrupt), None]);
        let mut faults = Faults::new(plan("break=1"), 0);
        let struck = [slice(0, 500), slice(500, 500)].map(|slice| faults.strike(slice));
        assert_eq!(struck, [None, Some(Fault::Break(0))], "the middle is where the second slice begins");
        for short in [0, 1] {
            assert_eq!(faults.strike(Slice::whole(short)), None);
        }
    }
}
