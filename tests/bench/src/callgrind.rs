//! Instructions as callgrind counts them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

/// Runs a program under callgrind and gives the instructions of each of the functions, with everything that they called.
/// Each must be called from some other function of the program.
///
/// # Errors
/// If there is no valgrind, or the program fails.
pub fn count<const N: usize>(command: &[&str], functions: [&str; N]) -> anyhow::Result<[u64; N]> {
    let directory = tempfile::tempdir()?;
    let profile = directory.path().join("callgrind.out");
    run(command, &functions, &profile)?;
    let text = std::fs::read_to_string(&profile).context("callgrind wrote no profile")?;
    let counts = functions.map(|function| inclusive(&text, function));
    match functions.iter().zip(counts).find(|(_, count)| *count == 0) {
        Some((function, _)) => bail!("{function} was not called"),
        None => Ok(counts),
    }
}

fn run(command: &[&str], functions: &[&str], profile: &Path) -> anyhow::Result<()> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"]);
    valgrind.arg(format!("--callgrind-out-file={}", profile.display()));
    valgrind.args(functions.iter().map(|function| format!("--toggle-collect=*{function}*")));
    // valgrind has less address space than the direct link would take.
    valgrind.args(command).env("VIANIC_RAM_GIB", "1");
    let output = valgrind.output().context("cannot run valgrind (Debian's package valgrind has it)")?;
    if !output.status.success() {
        bail!(
            "{} under callgrind: {}\n{}",
            command.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// The sum of what calls of `function` cost, in a profile with whole names. A call is three lines: whom, how often, and at which
/// line for how much.
fn inclusive(profile: &str, function: &str) -> u64 {
    let mut called = false;
    let mut lines = profile.lines();
    let mut sum = 0;
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("cfn=") {
            called = name.contains(function);
        } else if line.starts_with("calls=")
            && let Some(cost) = lines.next()
            && called
        {
            sum += cost.split_whitespace().next_back().and_then(|cost| cost.parse().ok()).unwrap_or(0);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_summed_by_whom_they_call() {
        let profile = "\
events: Ir
fn=main
12 5
cfn=bench::works
calls=1 180
141 9397
cfn=bench::rests
calls=7 3
142 11
cfn=bench::works
calls=1023 180
141 983103
fn=bench::works
146 77
";
        assert_eq!(inclusive(profile, "works"), 9397 + 983_103);
        assert_eq!(inclusive(profile, "rests"), 11);
        assert_eq!(inclusive(profile, "sleeps"), 0);
    }
}
