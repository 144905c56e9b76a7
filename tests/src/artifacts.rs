//! What a failed test leaves for its reader.

use std::path::PathBuf;

use anyhow::{Context, Result};
use vianic::fabric::Fabric;
use vianic::run_dir::RunDir;
use vianic::workspace;

/// The directory for a test's logs.
fn directory(test: &str) -> Result<PathBuf> {
    let name: String = test.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let place = match std::env::var_os("VIANIC_ARTIFACTS") {
        Some(place) => PathBuf::from(place),
        None => workspace::root()?.join("artifacts"),
    };
    Ok(place.join(name))
}

/// Keeps the logs and counters of a run.
pub(crate) fn keep_fabric(test: &str, fabric: &Fabric) {
    report(test, || {
        let to = directory(test)?;
        fabric.keep_logs(&to)?;
        let stats = match fabric.stats() {
            Ok(stats) => format!("{stats:#}\n"),
            Err(error) => format!("{error}\n"),
        };
        std::fs::write(to.join("stats.json"), stats).context("cannot write stats.json")?;
        Ok(to)
    });
}

/// Keeps the logs of a run that did not start.
pub(crate) fn keep_run_dir(test: &str, run_dir: &RunDir) {
    report(test, || {
        let to = directory(test)?;
        run_dir.keep_logs(&to)?;
        Ok(to)
    });
}

fn report(test: &str, keep: impl FnOnce() -> Result<PathBuf>) {
    // On the way out of a failure: another one must not hide it.
    match keep() {
        Ok(to) => eprintln!("{test}: the logs are in {}", to.display()),
        Err(error) => eprintln!("{test}: the logs could not be kept: {error:#}"),
    }
}
