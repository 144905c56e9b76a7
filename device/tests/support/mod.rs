//! What the tests of the process share.
#![allow(dead_code, clippy::allow_attributes, reason = "each test program uses a part of it")]

pub(crate) mod device;
pub(crate) mod front_end;
pub(crate) mod raw;

use std::time::{Duration, Instant};

/// How long a test waits for what must happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Waits until `happened`.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < LIMIT, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
