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
    /// Samples that were dropped, because both cores were one at the time.
    pub dropped: usize,
}

impl CaseResult {
    /// The outcomes in one role.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(move |outcome| outcome.role == role)
    }
}
