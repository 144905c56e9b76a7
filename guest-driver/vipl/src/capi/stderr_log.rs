//! Where the library's log goes in a program that has no logger, as C programs have none: to standard error.

use std::io::Write as _;

use log::{LevelFilter, Log, Metadata, Record};

/// How much is said: `off`, `error`, `warn`, `info`, `debug` or `trace`.
const LEVEL_VARIABLE: &str = "VIANIC_LOG";

struct StandardError;

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // Nobody can be told that standard error is closed.
            let _ = writeln!(std::io::stderr(), "vipl: {}: {}", record.level(), record.args());
        }
    }

    fn flush(&self) {}
}

/// Starts the log, unless there is one.
pub(super) fn start() {
    if log::set_logger(&StandardError).is_ok() {
        let level = std::env::var(LEVEL_VARIABLE).ok().and_then(|level| level.parse().ok());
        log::set_max_level(level.unwrap_or(LevelFilter::Warn));
    }
}
