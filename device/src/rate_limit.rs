//! Logging of what a guest can cause as often as it likes: a few lines, then a count of those left out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines logged in one [`WINDOW`] from one place in the code.
const BURST: u32 = 5;
/// How long a burst counts.
const WINDOW: Duration = Duration::from_secs(10);

/// Decides which messages from one place in the code are logged.
#[derive(Debug, Default)]
pub struct RateLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    window_start: Option<Instant>,
    in_window: u32,
    suppressed: u64,
}

impl RateLimit {
    /// Nothing logged so far.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(State { window_start: None, in_window: 0, suppressed: 0 }))
    }

    /// Whether a message may be logged at `now`: if so, how many were left out before it.
    #[must_use]
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.window_start.is_none_or(|start| now.saturating_duration_since(start) >= WINDOW) {
            state.window_start = Some(now);
            state.in_window = 0;
        }
        if state.in_window >= BURST {
            state.suppressed += 1;
            return None;
        }
        state.in_window += 1;
        Some(std::mem::take(&mut state.suppressed))
    }
}

/// Logs, at a level, what a guest can cause as often as it likes.
macro_rules! log_limited {
    ($level:expr, $($message:tt)+) => {{
        static LIMIT: $crate::rate_limit::RateLimit = $crate::rate_limit::RateLimit::new();
        match LIMIT.admit(std::time::Instant::now()) {
            None => {}
            Some(0) => log::log!($level, $($message)+),
            Some(more) => log::log!($level, "{} ({more} messages like this were left out)", format_args!($($message)+)),
        }
    }};
}

/// `log::warn!` for what a guest can cause as often as it likes.
macro_rules! warn_limited {
    ($($message:tt)+) => { $crate::rate_limit::log_limited!(log::Level::Warn, $($message)+) };
}

/// `log::info!` for what a guest can cause as often as it likes.
macro_rules! info_limited {
    ($($message:tt)+) => { $crate::rate_limit::log_limited!(log::Level::Info, $($message)+) };
}
pub(crate) use {info_limited, log_limited, warn_limited};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_cut_to_a_burst_and_counted() {
        let limit = RateLimit::new();
        let start = Instant::now();
        let admitted = (0..1000).filter(|_| limit.admit(start).is_some()).count();
        assert_eq!(admitted, 5);
        assert_eq!(limit.admit(start + WINDOW), Some(995));
        assert_eq!(limit.admit(start + WINDOW), Some(0));
    }
}
