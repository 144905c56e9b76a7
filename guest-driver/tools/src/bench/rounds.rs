//! Takes samples in turns and makes results of them.

use super::beside::Cores;
use super::bounce::Bounce;
use super::contestant::{Contestant, Quantity, Role, Sample};
use super::result::{CaseResult, Outcome};
use super::statistics::{Spread, percentile, sorted};

/// Two virtual processors may be threads of one core now and of two cores a second later; threads of one core exchange a cache line
/// several times faster. What was measured while a cache line was faster than this (nanoseconds, there and back) tells
/// nothing about a card on another core, and is dropped ...
const SAME_CORE_NS: f64 = 100.0;
/// ... if at least this part of the probes was slower. Otherwise this may be a machine as fast as that. A contestant none of whose
/// samples is left, as happens when there are few, is shown by those that it has; that all were to be dropped is shown beside.
const ENOUGH: f64 = 0.1;

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
}

/// A sample and the placement at its time.
struct Taken {
    round: u32,
    bounce_ns: f64,
    sample: Sample,
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
        for contestant in cases.iter_mut().flat_map(|case| &mut case.contestants) {
            contestant.warm_up()?;
        }
        for round in 0..self.rounds {
            for (case, taken) in cases.iter_mut().zip(&mut taken) {
                case.turns(cores, round, self.samples, taken)?;
            }
            progress(round + 1);
        }
        let probes = || taken.iter().flatten().flatten();
        let slower = probes().filter(|taken| taken.bounce_ns >= SAME_CORE_NS).count();
        let telling = slower as f64 >= probes().count() as f64 * ENOUGH;
        let good = |taken: &Taken| !telling || taken.bounce_ns >= SAME_CORE_NS;
        Ok(cases.iter().zip(taken).map(|(case, taken)| case.result(self.rounds, &taken, good)).collect())
    }
}

impl Case<'_> {
    fn turns(
        &mut self,
        cores: Cores,
        round: u32,
        samples: u32,
        taken: &mut [Vec<Taken>],
    ) -> anyhow::Result<()> {
        for turn in 0..samples {
            for (contestant, taken) in self.contestants.iter_mut().zip(&mut *taken) {
                if turn < contestant.samples(samples) {
                    let bounce_ns = Bounce::probe(cores)?;
                    let sample = contestant.sample()?;
                    contestant.rest();
                    taken.push(Taken { round, bounce_ns, sample });
                }
            }
        }
        Ok(())
    }

    fn result(&self, rounds: u32, taken: &[Vec<Taken>], good: impl Fn(&Taken) -> bool) -> CaseResult {
        let none_left = |taken: &[Taken]| !taken.iter().any(&good);
        let figures = |taken: &[Taken]| -> Vec<Option<f64>> {
            let all = none_left(taken);
            let of = |round| {
                let samples = taken.iter().filter(|taken| taken.round == round && (all || good(taken)));
                Spread::of(samples.map(|taken| self.quantity.of(&taken.sample, self.size)))
            };
            (0..rounds).map(|round| of(round).map(|spread| spread.median)).collect()
        };
        let limit = self.contestants.iter().position(|contestant| contestant.role() == Role::Limit);
        let limits = limit.map(|place| figures(&taken[place])).unwrap_or_default();
        let outcome = |contestant: &dyn Contestant, taken: &[Taken]| {
            let figures = figures(taken);
            let ratios =
                figures.iter().zip(&limits).filter_map(|(figure, limit)| Some((*figure)? / (*limit)?));
            let samples = taken.iter().filter(|taken| good(taken)).count();
            let all = none_left(taken);
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
