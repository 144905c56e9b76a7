//! Copies files of the host into guests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use vianic::vm::Vm;

use super::values::Copy;

/// Copies a file, or a directory with all that is in it.
pub(super) fn into_guest(vm: &Vm, copy: &Copy) -> Result<()> {
    tree(vm, &copy.host, &copy.guest)
}

fn tree(vm: &Vm, host: &Path, guest: &str) -> Result<()> {
    let reading = || format!("cannot read {}", host.display());
    let metadata = fs::metadata(host).with_context(reading)?;
    if !metadata.is_dir() {
        let contents = fs::read(host).with_context(reading)?;
        log::debug!("copying {} to {}:{guest}", host.display(), vm.name());
        return Ok(vm.write_file(guest, metadata.permissions().mode() & 0o7777, &contents)?);
    }
    for entry in fs::read_dir(host).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let name = entry.file_name();
        let name = name.to_str().with_context(|| format!("{} is not UTF-8", entry.path().display()))?;
        tree(vm, &entry.path(), &format!("{guest}/{name}"))?;
    }
    Ok(())
}
