//! Programs in guests, and what they leave behind.

use anyhow::{Result, ensure};

use crate::{CProgram, TestFabric};

/// Copies a program into a guest and returns its path there.
///
/// # Errors
/// If the guest does not take it.
pub fn install(fabric: &TestFabric, vm: usize, program: &CProgram) -> Result<&'static str> {
    let path = "/root/program";
    fabric.vms()[vm].write_file(path, 0o755, &std::fs::read(program.path())?)?;
    Ok(path)
}

/// Checks that the Kernel Agent of a guest holds nothing for anybody, and that its kernel has not complained.
///
/// # Errors
/// With what is left.
pub fn nothing_left(fabric: &TestFabric, vm: usize) -> Result<()> {
    fabric.run(
        vm,
        "cd /sys/class/misc/vianic0
         i=0; until [ $(cat pinned_pages) = 0 -a $(cat pending_unpins) = 0 ]; do
             i=$((i + 1)); [ $i -lt 300 ] || exit 1; sleep 0.1
         done
         test $(cat contexts) = 0 && test $(cat regions) = 0",
    )?;
    let log = fabric.run(vm, "dmesg")?;
    for trouble in ["BUG", "WARNING", "Oops"] {
        ensure!(!log.contains(trouble), "the kernel reports a {trouble}:\n{log}");
    }
    Ok(())
}
