//! The host's end of the guest agent: runs commands and moves files in a guest.

mod connection;
mod process;

use std::os::unix::net::UnixStream;
use std::time::Duration;

use vianic_guest_agent::{Exec, ExitStatus, Info, Reply, Request, Stream, WindowSize};

use crate::error::{Error, Result};
use crate::limit::Limit;
use connection::Connection;
pub use process::{Process, ProcessEvent, ProcessHandle};

/// Bytes of output the guest may send ahead of us.
const OUTPUT_WINDOW: u32 = 256 * 1024;

/// How a command is run.
#[derive(Debug, Clone)]
pub struct ExecOptions {
    /// Variables added to the agent's environment.
    pub env: Vec<(String, String)>,
    /// Working directory, if not `/`.
    pub cwd: Option<String>,
    /// User and group to run as, if not root.
    pub owner: Option<(u32, u32)>,
    /// A terminal of this size for the command.
    pub pty: Option<WindowSize>,
    /// For [`Agent::exec`]: what the command reads. For [`Agent::spawn`]: whether it reads at all.
    pub stdin: Option<Vec<u8>>,
    /// For [`Agent::exec`]: how long it may take.
    pub limit: Duration,
}

impl Default for ExecOptions {
    fn default() -> Self {
        Self { env: vec![], cwd: None, owner: None, pty: None, stdin: None, limit: Duration::from_secs(120) }
    }
}

/// What a finished command left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to standard output.
    pub stdout: Vec<u8>,
    /// All it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A connection to one guest's agent. All methods may be called from several threads.
#[derive(Debug)]
pub struct Agent {
    connection: Connection,
}

/// A count of the guest's boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boots(pub(crate) u64);

impl Agent {
    /// Takes over a stream to the agent, which may not have started yet.
    pub fn new(stream: UnixStream) -> Result<Self> {
        Ok(Self { connection: Connection::new(stream)? })
    }

    /// Waits until the agent has answered.
    pub fn wait_ready(&self, limit: &Limit) -> Result<()> {
        self.connection.wait_ready(Boots(0), limit)
    }

    /// Ends the connection: whoever waits for the guest gets `reason`.
    pub fn hang_up(&self, reason: &str) {
        self.connection.hang_up(reason);
    }

    /// How often the agent has started since we are connected.
    pub fn boots(&self) -> Boots {
        self.connection.boots()
    }

    /// Waits until the agent has started once more than `before` and has answered.
    pub fn wait_boot(&self, before: Boots, limit: &Limit) -> Result<()> {
        self.connection.wait_ready(Boots(before.0 + 1), limit)
    }

    /// What the guest tells of itself.
    pub fn info(&self, limit: &Limit) -> Result<Info> {
        let request = self.connection.request(Request::Info)?;
        match request.next(limit)? {
            Reply::Info(info) => Ok(info),
            other => Err(unexpected("tell of the guest", other)),
        }
    }

    /// Starts a command. Any number may run at once.
    pub fn spawn(&self, argv: &[impl AsRef<str>], options: &ExecOptions) -> Result<Process> {
        let exec = Exec {
            argv: argv.iter().map(|word| word.as_ref().to_owned()).collect(),
            env: options.env.clone(),
            cwd: options.cwd.clone(),
            owner: options.owner,
            stdin: options.stdin.is_some(),
            pty: options.pty,
            window: OUTPUT_WINDOW,
        };
        let name = exec.argv.join(" ");
        Ok(Process::new(self.connection.request(Request::Exec(exec))?, name))
    }

    /// Runs a command to its end.
    pub fn exec(&self, argv: &[impl AsRef<str>], options: &ExecOptions) -> Result<Output> {
        let process = self.spawn(argv, options)?;
        let limit = Limit::new(format!("the command {:?} to end", process.name()), options.limit);
        if let Some(bytes) = options.stdin.clone() {
            let input = process.handle();
            // Beside the reading of output: a command such as `cat` needs both at once.
            std::thread::spawn(move || input.send_all(&mut bytes.as_slice()));
        }
        process.collect(&limit)
    }

    /// Writes a file of the guest.
    pub fn write_file(&self, path: &str, mode: u32, contents: &[u8], limit: &Limit) -> Result<()> {
        let request = self.connection.request(Request::WriteFile { path: path.to_owned(), mode })?;
        let reply = std::thread::scope(|scope| {
            let input = request.handle();
            scope.spawn(|| {
                if input.send(contents) {
                    input.end();
                }
            });
            let reply = request.next(limit);
            // Lets the other thread go if the guest failed or fell silent.
            input.close();
            reply
        })?;
        match reply {
            Reply::Done => Ok(()),
            other => Err(unexpected(&format!("write {path}"), other)),
        }
    }

    /// Reads a file of the guest.
    pub fn read_file(&self, path: &str, limit: &Limit) -> Result<Vec<u8>> {
        let request =
            self.connection.request(Request::ReadFile { path: path.to_owned(), window: OUTPUT_WINDOW })?;
        let mut contents = Vec::new();
        loop {
            match request.next(limit)? {
                Reply::Output(Stream::Stdout, bytes) => contents.extend(bytes),
                Reply::Done => return Ok(contents),
                other => return Err(unexpected(&format!("read {path}"), other)),
            }
        }
    }

    /// Asks the guest to end all processes and to power off.
    pub fn power_off(&self, limit: &Limit) -> Result<()> {
        self.end_guest(Request::PowerOff, "power off", limit)
    }

    /// Asks the guest to boot again.
    pub fn reboot(&self, limit: &Limit) -> Result<()> {
        self.end_guest(Request::Reboot, "reboot", limit)
    }

    fn end_guest(&self, how: Request, doing: &str, limit: &Limit) -> Result<()> {
        match self.connection.request(how)?.next(limit) {
            // The guest may be gone before its answer has left it.
            Ok(Reply::Done) | Err(Error::AgentGone(_)) => Ok(()),
            Ok(other) => Err(unexpected(doing, other)),
            Err(error) => Err(error),
        }
    }
}

/// The error for an answer that is none to the request.
fn unexpected(doing: &str, reply: Reply) -> Error {
    let (errno, message) = match reply {
        Reply::Failed { errno, message } => (errno, message),
        other => (None, format!("it answered {other:?}")),
    };
    Error::AgentRefused { doing: doing.to_owned(), errno, message }
}

#[cfg(test)]
mod tests;
