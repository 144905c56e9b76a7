//! Programs of the same build as the tests.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use vianic::workspace;

/// Where a program or a library of the workspace is. All are built if they are out of date, once in a test process.
///
/// # Errors
/// If one does not compile.
pub fn program(name: &str) -> Result<PathBuf> {
    Ok(build()?.join(name))
}

/// Where an example of one of the workspace's libraries is, as [`program`].
///
/// # Errors
/// As [`program`].
pub fn example(name: &str) -> Result<PathBuf> {
    Ok(build()?.join("examples").join(name))
}

/// The card's program.
pub(crate) fn device() -> Result<PathBuf> {
    match std::env::var_os("VIANIC_DEVICE") {
        Some(given) => Ok(given.into()),
        None => program("vianic-device"),
    }
}

/// Builds what tests run, and says where it is.
fn build() -> Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(folder) = &*built {
        return Ok(folder.clone());
    }
    // <target>/<profile>/deps/<test>
    let test = std::env::current_exe()?;
    let profile = test.ancestors().nth(2).context("the test is not in cargo's target directory")?;
    let target = profile.parent().context("the test is not in cargo's target directory")?;
    let name = profile.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        // With all packages and some target of the tests' kind every crate has the features that it has in the tests of the
        // workspace: what they are made of is not compiled again.
        .args(["build", "--workspace", "--lib", "--bins", "--examples"])
        .args(["--profile", if name == "debug" { "dev" } else { name }])
        .arg("--target-dir")
        .arg(target)
        .current_dir(workspace::root()?)
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(built.insert(profile.to_owned()).clone())
}
