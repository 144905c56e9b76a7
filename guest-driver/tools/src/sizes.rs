//! How long messages are.

use serde::{Deserialize, Serialize};

use crate::pattern::{Sender, stream};

/// The sizes of one run's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sizes {
    /// All the same.
    Fixed(u32),
    /// Random, up to a maximum; known to both sides by the seed.
    Mixed {
        /// The longest.
        max: u32,
    },
}

impl Sizes {
    /// The longest message.
    #[must_use]
    pub fn max(self) -> u32 {
        match self {
            Self::Fixed(size) => size,
            Self::Mixed { max } => max,
        }
    }

    /// The sizes of the messages that `sender` sends, in order.
    pub fn of(self, seed: u64, sender: Sender) -> impl Iterator<Item = u32> {
        let mut rng = stream(seed, sender);
        std::iter::repeat_with(move || match self {
            Self::Fixed(size) => size,
            Self::Mixed { max } => mixed(&mut rng, max),
        })
    }
}

/// On a logarithmic scale, small sizes more often than large ones, so that a hundred thousand messages are some hundred
/// megabytes; often a power of two or its neighbour, and now and then the limits themselves, as that is where mistakes are.
fn mixed(rng: &mut fastrand::Rng, max: u32) -> u32 {
    let powers = max.checked_ilog2().unwrap_or(0);
    let power = 1 << (0..3).map(|_| rng.u32(0..=powers)).min().unwrap_or(0);
    let size = match rng.u32(0..512) {
        0..32 => 0,
        32 => max,
        33..64 => power,
        64..96 => power - 1,
        96..128 => power.saturating_add(1),
        _ => rng.u32(power..=power.saturating_mul(2) - 1),
    };
    size.min(max)
}

/// Powers of two from 1 up to `max`, with `zero` a 0 before them.
#[must_use]
pub fn powers_of_two(max: u32, zero: bool) -> Vec<u32> {
    let powers = (0..u32::BITS).map(|shift| 1 << shift).take_while(|size| *size <= max);
    zero.then_some(0).into_iter().chain(powers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_know_the_mixed_sizes() {
        for max in [0, 1, 2, 1000, 1 << 20, u32::MAX] {
            let sizes = Sizes::Mixed { max };
            let some: Vec<u32> = sizes.of(5, Sender::Client).take(5000).collect();
            assert!(some.iter().copied().eq(sizes.of(5, Sender::Client).take(5000)));
            assert!(some.iter().all(|size| *size <= max));
            assert!(some.contains(&0) && some.contains(&max));
            if max > 1000 {
                assert!(sizes.of(5, Sender::Server).zip(&some).any(|(other, size)| other != *size));
                assert!(some.iter().any(|size| size % 8 != 0));
            }
        }
    }

    #[test]
    fn powers_end_at_the_maximum() {
        assert_eq!(powers_of_two(8, false), [1, 2, 4, 8]);
        assert_eq!(powers_of_two(7, true), [0, 1, 2, 4]);
        assert_eq!(powers_of_two(1 << 20, false).last(), Some(&(1 << 20)));
        assert_eq!(powers_of_two(u32::MAX, false).len(), 32);
    }
}
