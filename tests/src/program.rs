//! Programs of the same build as the tests.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use vianic::workspace;

/// Builds a program of the workspace if it is out of date, once in a test process, and says where it is.
///
/// # Errors
/// If it does not compile.
pub fn program(package: &str, name: &str) -> Result<PathBuf> {
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    let folder = match built.get(package) {
        Some(folder) => folder.clone(),
        None => {
            let folder = build(package, &[])?;
            built.insert(package.to_owned(), folder.clone());
            folder
        }
    };
    Ok(folder.join(name))
}

/// Builds an example of a package if it is out of date, and says where it is.
///
/// # Errors
/// If it does not compile.
pub fn example(package: &str, name: &str) -> Result<PathBuf> {
    Ok(build(package, &["--example", name])?.join("examples").join(name))
}

/// The card's program.
pub(crate) fn device() -> Result<PathBuf> {
    match std::env::var_os("VIANIC_DEVICE") {
        Some(given) => Ok(given.into()),
        None => program("vianic-device", "vianic-device"),
    }
}

fn build(package: &str, what: &[&str]) -> Result<PathBuf> {
    // <target>/<profile>/deps/<test>
    let test = std::env::current_exe()?;
    let profile = test.ancestors().nth(2).context("the test is not in cargo's target directory")?;
    let target = profile.parent().context("the test is not in cargo's target directory")?;
    let name = profile.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--package", package])
        .args(what)
        .args(["--profile", if name == "debug" { "dev" } else { name }])
        .arg("--target-dir")
        .arg(target)
        .current_dir(workspace::root()?)
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "building {package}:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(Path::new(profile).to_path_buf())
}
