//! What was measured, as it is written to JSON.

use serde::{Deserialize, Serialize};

use super::contestant::{Quantity, Role};
use super::statistics::Spread;

/// One case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CaseResult {
    /// What was measured, and so the unit of all figures.
    pub quantity: Quantity,
    /// Bytes of a message.
    pub size: u32,
    /// Messages at once.
    pub window: u32,
    /// In the order in which they take turns.
    pub outcomes: Vec<Outcome>,
}

/// What one contestant reached in a case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// What it is to the others.
    pub role: Role,
    /// The rounds' figures, each the median of its samples; nanoseconds, messages per second or bytes per second.
    pub figure: Option<Spread>,
    /// The rounds' figures by those of the limit in the same rounds.
    pub ratio: Option<Spread>,
    /// Nanoseconds that 99 % of single exchanges did not exceed.
    pub p99_ns: Option<f64>,
    /// The figure of each round, if a sample of it counts.
    pub rounds: Vec<Option<f64>>,
    /// Samples that count.
    pub samples: usize,
    /// Samples that were dropped, because both processors were one core at the time, or somebody else used one of the cores too.
    pub dropped: usize,
}

/// How much better the card is than a peer.
#[derive(Clone, Copy, Debug)]
pub struct Gain<'a> {
    /// The card.
    pub card: &'a Outcome,
    /// What else one could use.
    pub peer: &'a Outcome,
    /// By how many times its latency is lower, or its rate or bandwidth higher, in the same rounds.
    pub times: Spread,
}

impl CaseResult {
    /// The outcomes in one role.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(move |outcome| outcome.role == role)
    }

    /// How much better the card is than each peer, in each way that it was used.
    pub fn gains(&self) -> impl Iterator<Item = Gain<'_>> {
        let pairs =
            self.of_role(Role::Card).flat_map(|card| self.of_role(Role::Peer).map(move |peer| (card, peer)));
        pairs.filter_map(|(card, peer)| Some(Gain { card, peer, times: self.times(card, peer)? }))
    }

    fn times(&self, card: &Outcome, peer: &Outcome) -> Option<Spread> {
        let rounds = card.rounds.iter().zip(&peer.rounds);
        Spread::of(rounds.filter_map(|(card, peer)| {
            let (card, peer) = ((*card)?, (*peer)?);
            Some(match self.quantity {
                Quantity::Latency => peer / card,
                Quantity::Rate | Quantity::Bandwidth => card / peer,
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(role: Role, rounds: &[Option<f64>]) -> Outcome {
        Outcome {
            name: format!("{role:?}"),
            role,
            figure: None,
            ratio: None,
            p99_ns: None,
            rounds: rounds.to_vec(),
            samples: 0,
            dropped: 0,
        }
    }

    #[test]
    fn gains_are_of_the_same_rounds() {
        let outcomes = vec![
            outcome(Role::Limit, &[Some(1.0); 4]),
            outcome(Role::Card, &[Some(2.0), Some(4.0), None, Some(8.0)]),
            outcome(Role::Peer, &[Some(20.0), Some(20.0), Some(1.0), Some(40.0)]),
            outcome(Role::Peer, &[None; 4]),
        ];
        let mut case = CaseResult { quantity: Quantity::Latency, size: 8, window: 1, outcomes };
        let [times] = case.gains().map(|gain| gain.times).collect::<Vec<_>>()[..] else {
            panic!("a peer without figures is left out")
        };
        assert_eq!(times, Spread { low: 5.0, median: 5.0, high: 10.0 });
        case.quantity = Quantity::Bandwidth;
        let higher = case.gains().map(|gain| gain.times.high).collect::<Vec<_>>();
        assert_eq!(higher, [0.2]);
    }
}
