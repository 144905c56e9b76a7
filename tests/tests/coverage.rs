//! The conformance suite's coverage, and the document about it.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use vianic_tests::{CProgram, coverage, vianic::workspace};

#[test]
fn the_suite_covers_what_is_documented() -> Result<()> {
    let document = coverage::document(&CProgram::conformance_suite()?.list()?)?;
    let path: PathBuf = workspace::root()?.join("docs/conformance.md");
    if std::env::var_os("VIANIC_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &document)?;
    }
    let current = std::fs::read_to_string(&path).context("docs/conformance.md")?;
    ensure!(
        current == document,
        "docs/conformance.md is not current: VIANIC_UPDATE_DOCS=1 cargo test -p vianic-tests --test coverage"
    );
    Ok(())
}
