//! The conformance suite's coverage, and the document about it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use vianic_tests::vianic::{run_dir::RunDir, workspace};
use vianic_tests::{CProgram, coverage};

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
        "docs/conformance.md is not current: VIANIC_UPDATE_DOCS=1 cargo test --workspace --test coverage"
    );
    Ok(())
}

/// Other libraries have no more than the standard's functions and codes.
#[test]
fn the_suite_does_with_the_standards_header() -> Result<()> {
    let header = std::fs::read_to_string(workspace::root()?.join("guest-driver/vipl/include/vipl.h"))?;
    let beyond = [
        "    VIP_NOT_REACHABLE = 15,\n",
        "    VIP_ERROR_NOT_SUPPORTED = 16,\n",
        "typedef VIP_PVOID VIP_EVENT_HANDLE;\n",
        "#define VIP_BASE_SERVICES 0x0007\n",
    ];
    let (before, vendor) =
        header.split_once("/* Found in one vendor's library */").context("the vendor's")?;
    let (_, after) = vendor.split_once("#ifdef __cplusplus").context("the header's end")?;
    let mut standard = format!("{before}#ifdef __cplusplus{after}");
    for line in beyond {
        ensure!(standard.contains(line), "no {line:?} in vipl.h");
        standard = standard.replace(line, "");
    }
    let directory = RunDir::new()?;
    std::fs::write(directory.path().join("vipl.h"), standard)?;
    let output = Command::new("cc")
        .args(["-std=c99", "-pedantic", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"])
        .args(["-DWITHOUT_VENDOR", "-DVIP_NOT_REACHABLE=15", "-DVIP_ERROR_NOT_SUPPORTED=16", "-I"])
        .arg(directory.path())
        .args(CProgram::conformance_sources()?)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
