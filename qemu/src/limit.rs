//! Named limits: every wait of this crate says what it waits for and gives up in the end.

use std::borrow::Cow;
use std::time::{Duration, Instant};

/// A wait that has a name and an end.
#[derive(Debug, Clone)]
pub struct Limit {
    what: Cow<'static, str>,
    duration: Duration,
    end: Instant,
}

/// What a wait returns when its limit has passed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("gave up waiting for {what} after {}", humantime::format_duration(*duration))]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub duration: Duration,
}

impl Limit {
    /// A limit that starts now. `what` completes the sentence "gave up waiting for ...".
    pub fn new(what: impl Into<Cow<'static, str>>, duration: Duration) -> Self {
        let now = Instant::now();
        // A duration too long for the clock means a wait without a practical end, such as a year.
        let end = now.checked_add(duration).unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 3600));
        Self { what: what.into(), duration, end }
    }

    /// The same end for another wait, for the steps of one larger wait.
    pub fn rename(&self, what: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into(), ..self.clone() }
    }

    /// How much is left, or the error when nothing is.
    pub fn remaining(&self) -> Result<Duration, TimedOut> {
        match self.end.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(self.timed_out()),
        }
    }

    /// The error of this limit.
    pub fn timed_out(&self) -> TimedOut {
        TimedOut { what: self.what.to_string(), duration: self.duration }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_it_waited_for() {
        let limit = Limit::new("the guest", Duration::ZERO);
        assert_eq!(limit.remaining().unwrap_err().to_string(), "gave up waiting for the guest after 0s");
    }

    #[test]
    fn endless_durations_are_cut() {
        assert!(Limit::new("nothing", Duration::MAX).remaining().is_ok());
    }
}
