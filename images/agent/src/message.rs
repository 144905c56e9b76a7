//! What host and guest say to each other.

use serde::{Deserialize, Serialize};

/// A message from the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The request this belongs to.
    pub id: u32,
    /// What is asked.
    pub body: Request,
}

/// What a host asks for. The first variant never changes, so that any two versions can greet each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Begins a session; answered by [`Reply::Hello`].
    Hello {
        /// The host's [`crate::PROTOCOL_VERSION`].
        version: u32,
        /// Any number that tells this session from earlier ones.
        session: u64,
    },
    /// Answered by [`Reply::Pong`].
    Ping,
    /// Answered by [`Reply::Info`].
    Info,
    /// Runs a command: [`Reply::Started`], any number of [`Reply::Output`], [`Reply::Exited`].
    Exec(Exec),
    /// Bytes for the standard input of a command or for a file that is being written.
    Data(Vec<u8>),
    /// No more [`Request::Data`]. For a file: put it in place, answered by [`Reply::Done`].
    End,
    /// The host has taken this many bytes of output: as many more may come.
    Credit(u32),
    /// Sends a signal to the command's process group.
    Signal(i32),
    /// The window of a command's terminal has another size now.
    Resize(WindowSize),
    /// Ends the request: kills the command's process group, or forgets the file being written.
    Cancel,
    /// Writes a file from the [`Request::Data`] that follow. Missing folders are made. A regular file comes
    /// into being whole, at [`Request::End`]; anything else (a device, a file in /proc) is written in place.
    WriteFile {
        /// Where.
        path: String,
        /// Permission bits of a new file.
        mode: u32,
    },
    /// Reads a file to its end: [`Reply::Output`]s, then [`Reply::Done`].
    ReadFile {
        /// Which.
        path: String,
        /// Bytes that may come before the first [`Request::Credit`].
        window: u32,
    },
    /// Stops the guest: ends all processes, writes disks back, powers off. [`Reply::Done`] comes first.
    PowerOff,
    /// As [`Request::PowerOff`], but boots again.
    Reboot,
}

/// A command to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The program, looked up in PATH, and its arguments.
    pub argv: Vec<String>,
    /// Variables added to the agent's environment.
    pub env: Vec<(String, String)>,
    /// Working directory, if not `/`.
    pub cwd: Option<String>,
    /// User and group to run as, if not the agent's.
    pub owner: Option<(u32, u32)>,
    /// Whether [`Request::Data`] will follow; if not, standard input is empty. A terminal always has input.
    pub stdin: bool,
    /// Runs the command on a terminal of its own: standard error then comes with standard output.
    pub pty: Option<WindowSize>,
    /// Bytes of output that may come before the first [`Request::Credit`].
    pub window: u32,
}

/// Size of a terminal's window in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// A message from the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The request this belongs to.
    pub id: u32,
    /// What is answered.
    pub body: Reply,
}

/// What a guest answers. The first variant never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The session has begun, if the versions are the same.
    Hello {
        /// The guest's [`crate::PROTOCOL_VERSION`].
        version: u32,
        /// The number the host gave.
        session: u64,
    },
    /// The agent has just started (id 0). To a host that was in a session: the guest has booted again, and
    /// all its requests are lost.
    Booted,
    /// To [`Request::Ping`].
    Pong,
    /// To [`Request::Info`].
    Info(Info),
    /// The command runs.
    Started {
        /// Its process id in the guest.
        pid: i32,
    },
    /// Bytes a command wrote, or a file's.
    Output(Stream, Vec<u8>),
    /// The guest has taken this many bytes of [`Request::Data`]: as many more may come.
    Credit(u32),
    /// The command has ended and all its output was sent.
    Exited(ExitStatus),
    /// The request is fulfilled.
    Done,
    /// The request has failed and is over.
    Failed {
        /// The system's error number, if it was the system that refused.
        errno: Option<i32>,
        /// What was tried and why it failed.
        message: String,
    },
}

impl Reply {
    /// Whether this ends its request.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Hello { .. }
            | Self::Pong
            | Self::Info(_)
            | Self::Exited(_)
            | Self::Done
            | Self::Failed { .. } => true,
            Self::Booted | Self::Started { .. } | Self::Output(..) | Self::Credit(_) => false,
        }
    }
}

/// What a guest tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Version of the running kernel.
    pub kernel: String,
    /// Whether the agent is the guest's init.
    pub init: bool,
    /// What became of the kernel module.
    pub module: ModuleState,
}

/// What became of the kernel module at boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModuleState {
    /// The image has none, or the agent isn't its init.
    Absent,
    /// Loaded.
    Loaded,
    /// The kernel refused it; why.
    Failed(String),
}

/// Where output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output, a terminal, or a file being read.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl ExitStatus {
    /// Whether the command exited with 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}"),
        }
    }
}
