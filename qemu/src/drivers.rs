//! Whether the drivers in the guests have the guests' NICs.

use std::time::Duration;

use vianic_guest_agent::ModuleState;

use crate::agent::ExecOptions;
use crate::error::{Error, Result};
use crate::limit::Limit;
use crate::vm::Vm;

/// How long a guest that has booted may take to say what it is.
const INFO_LIMIT: Duration = Duration::from_secs(60);

/// Counts the NICs that programs can open, then gives what the kernel has said about the rest. NICs are there as soon as the module
/// is loaded.
const LOOK: &str = "ls -d /dev/vianic[0-9]* 2>/dev/null | wc -l; dmesg | grep -i vianic";

/// Fails unless programs in the guest can open all of its NICs.
pub(crate) fn check(vm: &Vm, expected: usize) -> Result<()> {
    if expected == 0 {
        return Ok(());
    }
    let (found, why) = match module(vm)? {
        ModuleState::Loaded => {
            let options = ExecOptions { limit: INFO_LIMIT, ..ExecOptions::default() };
            parse(&vm.exec(&["sh", "-c", LOOK], &options)?.stdout())
        }
        ModuleState::Absent => (0, "its image has no driver".to_owned()),
        ModuleState::Failed(why) => (0, format!("the driver is not loaded: {why}")),
    };
    if found >= expected {
        return Ok(());
    }
    Err(Error::MissingNics { vm: vm.name().to_owned(), found, expected, why })
}

/// Warns of NICs that programs in the guest cannot open: such a guest can still be looked into. One whose image has no driver is
/// as it was asked for.
pub(crate) fn warn(vm: &Vm, expected: usize) -> Result<()> {
    if module(vm)? == ModuleState::Absent {
        return Ok(());
    }
    match check(vm, expected) {
        Err(error @ Error::MissingNics { .. }) => {
            log::warn!("{error}");
            Ok(())
        }
        outcome => outcome,
    }
}

fn module(vm: &Vm) -> Result<ModuleState> {
    let limit = Limit::new(format!("{} to tell of itself", vm.name()), INFO_LIMIT);
    Ok(vm.explain(vm.agent().info(&limit))?.module)
}

/// What [`LOOK`] has found: how many NICs, and the kernel's words without its time stamps.
fn parse(output: &str) -> (usize, String) {
    let (count, log) = output.split_once('\n').unwrap_or((output, ""));
    let words = log.lines().map(|line| match line.strip_prefix('[').and_then(|line| line.split_once("] ")) {
        Some((_, words)) => words,
        None => line,
    });
    // Of a kernel that is told its command line, among others.
    let words: Vec<_> = words.filter(|words| !words.to_lowercase().contains("command line")).collect();
    let said = if words.is_empty() { "its kernel says nothing of them".to_owned() } else { words.join("; ") };
    (count.trim().parse().unwrap_or(0), said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_kernel_says_why_a_nic_is_missing() {
        let log = "1\n[    0.000000] Command line: console=ttyS0 vianic.x=1\n\
                   [    1.5] vianic virtio3: the card has ABI version 1, this driver has version 2\n";
        let why = "vianic virtio3: the card has ABI version 1, this driver has version 2";
        assert_eq!(parse(log), (1, why.to_owned()));
        assert_eq!(parse("0\n"), (0, "its kernel says nothing of them".to_owned()));
    }
}
