//! Exit codes: the guest's command speaks through them, and failures of vianic have their own.

use std::io;

use vianic::Error;
use vianic_guest_agent::ExitStatus;

/// The run took longer than it may.
const TIMED_OUT: u8 = 124;
/// vianic itself, QEMU, the card process or the guest failed.
const INFRASTRUCTURE: u8 = 125;
/// The command was found and could not be run.
const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
const NOT_FOUND: u8 = 127;
/// A signal has this added to its number.
const SIGNAL: u8 = 128;

/// For `--help`.
pub(super) const HELP: &str = "\
Exit status:
  that of COMMAND, or
  124  the time of --timeout or --boot-timeout was up
  125  vianic, QEMU, the card process or the guest failed (details on standard error)
  126  COMMAND cannot be executed
  127  COMMAND was not found in the guest
  128+n  signal n ended COMMAND, or vianic itself";

/// The exit code for a command that ended in the guest.
pub(super) fn of_status(status: ExitStatus) -> u8 {
    match status {
        ExitStatus::Code(code) => u8::try_from(code & 0xff).unwrap_or(INFRASTRUCTURE),
        ExitStatus::Signal(signal) => of_signal(signal),
    }
}

/// The exit code for a signal.
pub(super) fn of_signal(signal: i32) -> u8 {
    u8::try_from(signal).ok().and_then(|signal| SIGNAL.checked_add(signal)).unwrap_or(INFRASTRUCTURE)
}

/// A signal ended the run, or would have if we did not ignore it. Nothing more needs to be said.
#[derive(Debug, thiserror::Error)]
#[error("ended by signal {0}")]
pub(super) struct Interrupted(pub(super) i32);

/// The exit code for a failure.
pub(super) fn of_error(error: &anyhow::Error) -> u8 {
    if let Some(Interrupted(signal)) = error.downcast_ref() {
        return of_signal(*signal);
    }
    match error.downcast_ref::<Error>() {
        Some(error) if error.is_timeout() => TIMED_OUT,
        Some(Error::AgentRefused { errno: Some(errno), .. }) => {
            match io::Error::from_raw_os_error(*errno).kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                io::ErrorKind::PermissionDenied => NOT_EXECUTABLE,
                _ => INFRASTRUCTURE,
            }
        }
        _ => INFRASTRUCTURE,
    }
}

/// An error with its causes; nothing if there is nothing to say.
pub(super) fn describe(error: &anyhow::Error) -> Option<String> {
    if error.is::<Interrupted>() {
        return None;
    }
    // Ours name their causes already.
    Some(if error.is::<Error>() { error.to_string() } else { format!("{error:#}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use vianic::Limit;

    fn code(error: Error) -> u8 {
        of_error(&error.into())
    }

    fn refused(errno: i32) -> Error {
        Error::AgentRefused { doing: "run x".to_owned(), errno: Some(errno), message: "no".to_owned() }
    }

    #[test]
    fn the_guests_status_is_ours() {
        assert_eq!(of_status(ExitStatus::Code(0)), 0);
        assert_eq!(of_status(ExitStatus::Code(42)), 42);
        assert_eq!(of_status(ExitStatus::Signal(9)), 137);
        assert_eq!(of_signal(15), 143);
        assert_eq!(of_signal(-1), INFRASTRUCTURE);
    }

    #[test]
    fn failures_are_told_apart() {
        assert_eq!(code(Limit::new("x", Duration::ZERO).timed_out().into()), 124);
        assert_eq!(code(Error::AgentGone("panic".to_owned())), 125);
        assert_eq!(code(refused(13)), 126);
        assert_eq!(code(refused(2)), 127);
        assert_eq!(code(refused(12)), 125);
        assert_eq!(of_error(&anyhow::anyhow!("anything else")), 125);
        assert_eq!(of_error(&Interrupted(2).into()), 130);
    }
}
