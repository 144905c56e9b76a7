//! The controllers' limits, and how a command line says them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// Most entries that a copy operation may be allowed.
pub const LARGEST_BATCH: u32 = 256;

/// The longest time that polling may go on without an entry.
const LONGEST: Duration = Duration::from_secs(10);

/// The controllers' limits.
///
/// As text: `busy=50us,spaced=200us,short=2us,min-batch=4,max-batch=64`, any of them; what is left out is as by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fewest entries per copy operation.
    pub min_batch: u32,
    /// Most entries per copy operation.
    pub max_batch: u32,
    /// Nanoseconds without an entry until polling is spaced.
    pub busy_ns: u64,
    /// Nanoseconds of spaced polling without an entry until the table is left to the doorbell.
    pub spaced_ns: u64,
    /// Nanoseconds without an entry until the table is left to the doorbell where processors are short.
    pub short_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min_batch: 4, max_batch: 64, busy_ns: 50_000, spaced_ns: 200_000, short_ns: 2_000 }
    }
}

/// Limits that cannot be.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum BadLimits {
    /// No such limit.
    #[error("{0:?} is none of busy=TIME, spaced=TIME, short=TIME, min-batch=NUMBER and max-batch=NUMBER")]
    Unknown(String),
    /// A limit that is there already.
    #[error("{0} is given twice")]
    Twice(String),
    /// No time, or too much of it.
    #[error("{name}={value}: a time is a number with a unit, as in 50us, and {LONGEST:?} at most")]
    Time {
        /// The limit.
        name: String,
        /// What was given.
        value: String,
    },
    /// Not a number of entries.
    #[error("{name}={value}: a copy operation takes 1 to {LARGEST_BATCH} entries")]
    Batch {
        /// The limit.
        name: String,
        /// What was given.
        value: String,
    },
    /// The smallest batch is larger than the largest.
    #[error("min-batch={smallest} is more than max-batch={largest}")]
    Crossed {
        /// The smallest.
        smallest: u32,
        /// The largest.
        largest: u32,
    },
}

impl FromStr for Limits {
    type Err = BadLimits;

    fn from_str(text: &str) -> Result<Self, BadLimits> {
        let mut limits = Self::default();
        let mut given = Vec::new();
        for part in text.split(',') {
            let (name, value) = part.split_once('=').ok_or_else(|| BadLimits::Unknown(part.to_owned()))?;
            if given.contains(&name) {
                return Err(BadLimits::Twice(name.to_owned()));
            }
            given.push(name);
            match name {
                "busy" => limits.busy_ns = nanoseconds(name, value)?,
                "spaced" => limits.spaced_ns = nanoseconds(name, value)?,
                "short" => limits.short_ns = nanoseconds(name, value)?,
                "min-batch" => limits.min_batch = batch(name, value)?,
                "max-batch" => limits.max_batch = batch(name, value)?,
                _ => return Err(BadLimits::Unknown(part.to_owned())),
            }
        }
        let Self { min_batch: smallest, max_batch: largest, .. } = limits;
        if smallest > largest {
            return Err(BadLimits::Crossed { smallest, largest });
        }
        Ok(limits)
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min_batch, max_batch, busy_ns, spaced_ns, short_ns } = self;
        write!(
            f,
            "busy={busy_ns}ns,spaced={spaced_ns}ns,short={short_ns}ns,min-batch={min_batch},max-batch={max_batch}"
        )
    }
}

fn nanoseconds(name: &str, value: &str) -> Result<u64, BadLimits> {
    let time = humantime::parse_duration(value).ok().filter(|time| *time <= LONGEST);
    time.and_then(|time| u64::try_from(time.as_nanos()).ok())
        .ok_or_else(|| BadLimits::Time { name: name.to_owned(), value: value.to_owned() })
}

fn batch(name: &str, value: &str) -> Result<u32, BadLimits> {
    let entries = value.parse().ok().filter(|entries| (1..=LARGEST_BATCH).contains(entries));
    entries.ok_or_else(|| BadLimits::Batch { name: name.to_owned(), value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_as_by_default() {
        let limits: Limits = "busy=1ms,max-batch=16".parse().expect("limits");
        assert_eq!(limits, Limits { busy_ns: 1_000_000, max_batch: 16, ..Limits::default() });
        let all = "busy=0s,spaced=300us,short=5us,min-batch=1,max-batch=256".parse::<Limits>();
        let all = all.expect("limits");
        assert_eq!((all.busy_ns, all.spaced_ns, all.short_ns), (0, 300_000, 5_000));
        assert_eq!((all.min_batch, all.max_batch), (1, 256));
        assert_eq!(all.to_string().parse(), Ok(all), "what is shown can be given");
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (text, said) in [
            ("", "none of busy=TIME"),
            ("busy", "none of busy=TIME"),
            ("idle=5us", "\"idle=5us\" is none of"),
            ("busy=5us,busy=6us", "busy is given twice"),
            ("busy=50", "busy=50: a time is a number with a unit"),
            ("spaced=11s", "10s at most"),
            ("min-batch=0", "1 to 256 entries"),
            ("max-batch=257", "1 to 256 entries"),
            ("max-batch=many", "max-batch=many"),
            ("max-batch=2", "min-batch=4 is more than max-batch=2"),
        ] {
            let error = text.parse::<Limits>().expect_err(text).to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
