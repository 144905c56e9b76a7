//! Takes samples in turns and makes results of them.

use std::time::Duration;

use super::beside::Cores;
use super::contestant::{Contestant, Quantity, Role, Sample};
use super::placement::{Judge, Placement, Watch};
use super::result::{CaseResult, Outcome};
use super::statistics::{Spread, percentile, sorted};

/// What takes turns with one another.
pub struct Case<'a> {
    /// What is measured.
    pub quantity: Quantity,
    /// Bytes of a message.
    pub size: u32,
    /// Messages at once.
    pub window: u32,
    /// Who takes turns.
    pub contestants: Vec<Box<dyn Contestant + 'a>>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// Rounds.
    pub rounds: u32,
    /// Samples of each contestant in each round, if it doesn't take fewer.
    pub samples: u32,
    /// How long to wait in all for moments in which two cores are this machine's alone; samples of other moments do not count. `None`: all
    /// samples count, as they last for longer than such a moment.
    pub patience: Option<Duration>,
}

/// A sample, and the placements before it and after it, if they matter.
struct Taken {
    round: u32,
    placements: Option<[Placement; 2]>,
    sample: Sample,
}

impl Taken {
    fn counts(&self, judge: Option<&Judge>) -> bool {
        let accepted =
            |judge: &Judge| self.placements.iter().flatten().all(|placement| judge.accepts(placement));
        judge.is_none_or(accepted)
    }
}

impl Rounds {
    /// Measures the cases. After each round `progress` is called with its number.
    ///
    /// # Errors
    /// What the contestants say.
    pub fn run(
        self,
        cores: Cores,
        mut cases: Vec<Case<'_>>,
        mut progress: impl FnMut(u32),
    ) -> anyhow::Result<Vec<CaseResult>> {
        let mut taken: Vec<Vec<Vec<Taken>>> =
            cases.iter().map(|case| case.contestants.iter().map(|_| Vec::new()).collect()).collect();
        let mut watch = self.patience.map(|patience| Watch::new(cores, patience)).transpose()?;
        for contestant in cases.iter_mut().flat_map(|case| &mut case.contestants) {
            contestant.warm_up()?;
        }
        for round in 0..self.rounds {
            for (case, taken) in cases.iter_mut().zip(&mut taken) {
                case.turns(watch.as_mut(), round, self.samples, taken)?;
            }
            progress(round + 1);
        }
        let judge = watch.as_ref().map(Watch::judge);
        let good = |taken: &Taken| taken.counts(judge.as_ref());
        Ok(cases.iter().zip(taken).map(|(case, taken)| case.result(self.rounds, &taken, good)).collect())
    }
}

impl Case<'_> {
    fn turns(
        &mut self,
        mut watch: Option<&mut Watch>,
        round: u32,
        samples: u32,
        taken: &mut [Vec<Taken>],
    ) -> anyhow::Result<()> {
        for turn in 0..samples {
            for (contestant, taken) in self.contestants.iter_mut().zip(&mut *taken) {
                if turn >= contestant.samples(samples) {
                    continue;
                }
                let before = watch.as_mut().map(|watch| watch.wait()).transpose()?;
                let sample = contestant.sample()?;
                contestant.rest();
                let after = watch.as_mut().map(|watch| watch.look()).transpose()?;
                taken.push(Taken { round, placements: before.zip(after).map(<[_; 2]>::from), sample });
            }
        }
        Ok(())
    }

    /// A contestant without a good sample in any round in which there is one of the limit, as happens when there are few, is shown by all that it
    /// has; how many should have been dropped is shown beside.
    fn result(&self, rounds: u32, taken: &[Vec<Taken>], good: impl Fn(&Taken) -> bool) -> CaseResult {
        let figures = |taken: &[Taken], all: bool| -> Vec<Option<f64>> {
            let of = |round| {
                let samples = taken.iter().filter(|taken| taken.round == round && (all || good(taken)));
                Spread::of(samples.map(|taken| self.quantity.of(&taken.sample, self.size)))
            };
            (0..rounds).map(|round| of(round).map(|spread| spread.median)).collect()
        };
        let none_beside = |taken: &[Taken], limits: &[Option<f64>]| {
            let mut both = figures(taken, false).into_iter().zip(limits);
            !both.any(|(figure, limit)| figure.is_some() && limit.is_some())
        };
        let everywhere = vec![Some(1.0); rounds as usize];
        let limit = self.contestants.iter().position(|contestant| contestant.role() == Role::Limit);
        let limits = limit.map(|place| {
            let taken = &taken[place];
            figures(taken, none_beside(taken, &everywhere))
        });
        let outcome = |contestant: &dyn Contestant, taken: &[Taken]| {
            let all = none_beside(taken, limits.as_ref().unwrap_or(&everywhere));
            let figures = figures(taken, all);
            let limits = limits.as_deref().unwrap_or_default();
            let ratios =
                figures.iter().zip(limits).filter_map(|(figure, limit)| Some((*figure)? / (*limit)?));
            let samples = taken.iter().filter(|taken| good(taken)).count();
            let singles = taken.iter().filter(|taken| all || good(taken));
            let singles = singles.flat_map(|taken| &taken.sample.singles);
            Outcome {
                name: contestant.name(),
                role: contestant.role(),
                figure: Spread::of(figures.iter().copied().flatten()),
                ratio: Spread::of(ratios),
                p99_ns: percentile(&sorted(singles.map(|single| *single as f64)), 99),
                rounds: figures,
                samples,
                dropped: taken.len() - samples,
            }
        };
        let outcomes = self.contestants.iter().zip(taken);
        let outcomes = outcomes.map(|(contestant, taken)| outcome(contestant.as_ref(), taken)).collect();
        CaseResult { quantity: self.quantity, size: self.size, window: self.window, outcomes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stub(Role);

    impl Contestant for Stub {
        fn name(&self) -> String {
            format!("{:?}", self.0)
        }
        fn role(&self) -> Role {
            self.0
        }
        fn sample(&mut self) -> anyhow::Result<Sample> {
            unreachable!("samples are made up")
        }
    }

    /// A sample of one message, of one round.
    fn taken(round: u32, nanoseconds: u64) -> Taken {
        let sample =
            Sample { messages: 1, time: Duration::from_nanos(nanoseconds), singles: vec![nanoseconds] };
        Taken { round, placements: None, sample }
    }

    #[test]
    fn ratios_are_of_good_samples_as_long_as_both_have_some_in_a_round() {
        let contestants: Vec<Box<dyn Contestant>> =
            vec![Box::new(Stub(Role::Limit)), Box::new(Stub(Role::Card))];
        let case = Case { quantity: Quantity::Latency, size: 64, window: 1, contestants };
        let samples = [vec![taken(0, 100), taken(1, 200)], vec![taken(0, 400), taken(1, 600)]];
        let ratio = |bad: [u64; 2]| {
            let is_good = |taken: &Taken| !taken.sample.singles.iter().any(|single| bad.contains(single));
            let result = case.result(2, &samples, is_good);
            let ratios =
                result.outcomes.iter().map(|outcome| outcome.ratio.map(|ratio| (ratio.low, ratio.high)));
            ratios.collect::<Vec<_>>()
        };
        assert_eq!(ratio([0, 0]), [Some((1.0, 1.0)), Some((3.0, 4.0))]);
        assert_eq!(ratio([100, 0]), [Some((1.0, 1.0)), Some((3.0, 3.0))]);
        // The limit's good sample is of one round, the card's of the other.
        assert_eq!(ratio([100, 600]), [Some((1.0, 1.0)), Some((3.0, 3.0))]);
        assert_eq!(ratio([100, 200]), [Some((1.0, 1.0)), Some((3.0, 4.0))]);
    }
}
