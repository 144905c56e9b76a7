//! What can go wrong between the user's command and a running guest.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::limit::TimedOut;

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A wait reached its limit.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// The operating system refused something.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A path does not fit into a socket address.
    #[error(
        "the socket path {path} has {length} bytes, and the system allows {limit}; set TMPDIR to a shorter directory",
        path = path.display(), length = path.as_os_str().len(), limit = crate::run_dir::SOCKET_PATH_MAX
    )]
    SocketPath {
        /// The path.
        path: PathBuf,
    },
    /// A file that the command needs does not exist.
    #[error("{what} not found at {path}; {hint}", path = path.display())]
    Missing {
        /// What it is.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// A QEMU binary lacks what the card needs.
    #[error("{program} ({version}) cannot host the card: it has no {missing}; QEMU 11.1 or later is needed")]
    UnsuitableQemu {
        /// The binary.
        program: String,
        /// Its version.
        version: String,
        /// The features it lacks.
        missing: String,
    },
    /// A program is not QEMU, or cannot even start.
    #[error("{program} does not answer as QEMU does: {message}")]
    NotQemu {
        /// The program.
        program: String,
        /// What happened instead.
        message: String,
    },
    /// KVM was demanded and does not run guests here.
    #[error("KVM does not run a guest here: {reason}; use --accel tcg, or leave the choice to --accel auto")]
    NoKvm {
        /// Why not.
        reason: String,
    },
    /// A process ended before it was ready.
    #[error("{name} ended early ({status})")]
    EndedEarly {
        /// Which process.
        name: String,
        /// Its exit status.
        status: String,
    },
    /// QEMU refused a QMP command.
    #[error("QMP command {command} failed: {message}")]
    QmpRefused {
        /// The command.
        command: String,
        /// QEMU's description.
        message: String,
    },
    /// QEMU's monitor said something that is not QMP, or fell silent.
    #[error("the QMP connection to QEMU broke: {0}")]
    QmpBroken(String),
    /// The connection to the guest agent ended.
    #[error("the connection to the guest agent ended: {0}")]
    AgentGone(String),
    /// The guest agent refused a request.
    #[error("the guest agent could not {doing}: {message}")]
    AgentRefused {
        /// The request.
        doing: String,
        /// The guest system's error number, if it was the system that refused.
        errno: Option<i32>,
        /// The guest's answer.
        message: String,
    },
    /// The card's control socket answered with something else than its statistics.
    #[error("the card's statistics are not readable: {0}")]
    BadStats(String),
    /// The card's control socket does not do what was asked.
    #[error("the card refuses: {0}")]
    CardRefused(String),
    /// The card process was started without a pipe for its log.
    #[error("vianic-device has no standard error to read")]
    CardOutput,
    /// More NICs than one run can have.
    #[error("too many NICs: at most {most} in all guests together")]
    TooManyCards {
        /// The limit.
        most: usize,
    },
    /// A network joins two guests.
    #[error("an ordinary network is between two guests, not {vms}")]
    NotTwoGuests {
        /// How many there would be.
        vms: usize,
    },
    /// A guest's driver does not have the guest's NICs.
    #[error(
        "the driver in {vm} has {found} of the guest's {expected} NICs: {why}; if the versions differ, build vianic and vianic-device from the same source"
    )]
    MissingNics {
        /// The guest.
        vm: String,
        /// How many NICs the driver has.
        found: usize,
        /// How many there are.
        expected: usize,
        /// What the guest says about it.
        why: String,
    },
    /// The guest image could not be built or found.
    #[error("cannot provide {what}: {message}")]
    Image {
        /// Which part.
        what: &'static str,
        /// The reason, with all causes.
        message: String,
    },
    /// Something failed in or around a guest; the report says all that is known.
    #[error(transparent)]
    Vm(Box<VmFailure>),
    /// Something failed in or around the card process.
    #[error(transparent)]
    Card(Box<CardFailure>),
}

impl Error {
    /// An I/O error with what was tried.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// A failure of the guest image's parts, with all its causes.
    pub(crate) fn image<E: std::error::Error>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| {
            let mut message = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                message = format!("{message}: {error}");
                cause = error.source();
            }
            Self::Image { what, message }
        }
    }

    /// Whether a wait that reached its limit is behind this error.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::TimedOut(_) => true,
            Self::Vm(failure) => failure.reason.is_timeout(),
            Self::Card(failure) => failure.reason.is_timeout(),
            _ => false,
        }
    }
}

/// A failure of one guest, with everything that helps to understand it.
#[derive(Debug)]
pub struct VmFailure {
    /// The guest's name.
    pub name: String,
    /// What went wrong.
    pub reason: Error,
    /// QEMU's command line, quoted for a shell.
    pub command_line: String,
    /// What QEMU wrote to its standard error.
    pub stderr: String,
    /// The end of the guest's serial console.
    pub serial: String,
}

impl std::error::Error for VmFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

impl fmt::Display for VmFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name, self.reason)?;
        section(f, "QEMU was started with", &self.command_line)?;
        section(f, "QEMU's standard error", &self.stderr)?;
        section(f, "end of the guest's serial console", &self.serial)
    }
}

/// A failure of the card process, with the end of its log.
#[derive(Debug)]
pub struct CardFailure {
    /// What went wrong.
    pub reason: Error,
    /// The command line, quoted for a shell.
    pub command_line: String,
    /// The end of the log.
    pub log: String,
}

impl std::error::Error for CardFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

impl fmt::Display for CardFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the card process: {}", self.reason)?;
        section(f, "it was started with", &self.command_line)?;
        section(f, "end of its log", &self.log)
    }
}

fn section(f: &mut fmt::Formatter<'_>, title: &str, text: &str) -> fmt::Result {
    if text.trim().is_empty() {
        return writeln!(f, "--- {title}: nothing");
    }
    writeln!(f, "--- {title}:")?;
    writeln!(f, "{}", text.trim_end())
}
