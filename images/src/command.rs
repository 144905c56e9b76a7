//! Runs other programs.

use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// Runs a program to its end and returns its standard output.
pub(crate) fn run(command: &mut Command, hint: &'static str) -> Result<String> {
    let output = output(command, hint)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Failed { program: shown(command), status: output.status, output: both(&output) })
}

/// Runs a program to its end, whatever that is.
pub(crate) fn output(command: &mut Command, hint: &'static str) -> Result<Output> {
    command.stdin(Stdio::null()).output().map_err(|source| Error::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
        hint,
    })
}

/// Everything a program has written.
pub(crate) fn both(output: &Output) -> String {
    let text =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).trim().to_string());
    text.join("\n").trim().to_string()
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
