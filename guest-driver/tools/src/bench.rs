//! Benchmarks of a card over the direct link, each beside the machine's own limit, measured in the same run.

pub mod bounce;
pub mod latency;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Where samples lie, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    /// Least.
    pub min: u64,
    /// Median.
    pub p50: u64,
    /// One in ten is above.
    pub p90: u64,
    /// Most.
    pub max: u64,
}

impl Quantiles {
    fn of(samples: impl IntoIterator<Item = u64>) -> anyhow::Result<Self> {
        let mut histogram = Histogram::<u64>::new(3)?;
        for sample in samples {
            histogram.record(sample)?;
        }
        Ok(Self {
            min: histogram.min(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            max: histogram.max(),
        })
    }
}
