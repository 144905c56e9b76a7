//! Medians, percentiles and ratios.

use serde::{Deserialize, Serialize};

/// Where figures lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Least.
    pub low: f64,
    /// As many are above as are below.
    pub median: f64,
    /// Most.
    pub high: f64,
}

impl Spread {
    /// Of figures, if there are any.
    #[must_use]
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let sorted = sorted(figures);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        Some(Self { low, median: percentile(&sorted, 50)?, high })
    }

    /// The same in another unit.
    #[must_use]
    pub fn by(self, divisor: f64) -> Self {
        Self { low: self.low / divisor, median: self.median / divisor, high: self.high / divisor }
    }
}

/// The figure that so many percent of the figures do not exceed; of sorted figures, between two of them if need be.
#[must_use]
pub fn percentile(sorted: &[f64], percent: u8) -> Option<f64> {
    let hundredths = usize::from(percent) * sorted.len().checked_sub(1)?;
    let (place, part) = (hundredths / 100, (hundredths % 100) as f64 / 100.0);
    let below = *sorted.get(place)?;
    let above = sorted.get(place + 1).copied().unwrap_or(below);
    Some(below + (above - below) * part)
}

/// Sorts figures.
#[must_use]
pub fn sorted(figures: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_between_figures() {
        let figures = sorted([4.0, 1.0, 3.0, 2.0]);
        assert_eq!(percentile(&figures, 0), Some(1.0));
        assert_eq!(percentile(&figures, 50), Some(2.5));
        assert_eq!(percentile(&figures, 100), Some(4.0));
        assert_eq!(percentile(&sorted((0..=100).map(f64::from)), 99), Some(99.0));
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn a_spread_has_both_ends() {
        assert_eq!(Spread::of([5.0, 1.0, 2.0]), Some(Spread { low: 1.0, median: 2.0, high: 5.0 }));
        assert_eq!(Spread::of([]), None);
    }
}
