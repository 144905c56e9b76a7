//! One guest: its QEMU process, its monitor and its agent.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Value, json};

use crate::accel::Accelerator;
use crate::agent::{Agent, ExecOptions, Output, Process};
use crate::child::Child;
use crate::command_line::{self, Files};
use crate::error::{Error, Result, VmFailure};
use crate::limit::Limit;
use crate::log_tail;
use crate::network::Network;
use crate::probe::Qemu;
use crate::qmp::Qmp;
use crate::run_dir::RunDir;

/// How long QEMU may take to connect to its sockets.
const START_LIMIT: Duration = Duration::from_secs(60);
const FILE_LIMIT: Duration = Duration::from_secs(300);

/// What a guest's wish to boot again leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnReboot {
    /// QEMU ends: a panic ends the run at once.
    Exit,
    /// The guest boots again.
    Restart,
}

/// A file that a guest gets at each boot.
#[derive(Debug, Clone)]
pub struct VmFile {
    /// Where; missing directories are made.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// What is in it.
    pub contents: Vec<u8>,
}

/// A guest to be started.
#[derive(Debug, Clone)]
pub struct VmConfig {
    /// Its name in messages and file names.
    pub name: String,
    /// The QEMU to run.
    pub qemu: Qemu,
    /// What executes the guest's code.
    pub accelerator: Accelerator,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of processors.
    pub cpus: u32,
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initial file system.
    pub initrd: PathBuf,
    /// The kernel's command line.
    pub kernel_arguments: String,
    /// Files it has besides those of its image.
    pub files: Vec<VmFile>,
    /// Sockets of the cards in it.
    pub cards: Vec<PathBuf>,
    /// Its ordinary network card.
    pub network: Option<Network>,
    /// What a reboot leads to.
    pub on_reboot: OnReboot,
    /// More arguments for QEMU.
    pub qemu_arguments: Vec<OsString>,
    /// How long the guest may take until its agent answers.
    pub boot_limit: Duration,
}

/// A running guest. Dropping it kills QEMU.
#[derive(Debug)]
pub struct Vm {
    name: String,
    command_line: String,
    child: Mutex<Child>,
    qmp: Arc<Qmp>,
    agent: Arc<Agent>,
    stderr: PathBuf,
    serial: PathBuf,
    files: Vec<VmFile>,
    boot_limit: Duration,
    on_reboot: OnReboot,
}

impl Vm {
    /// Starts QEMU and waits until the guest's agent answers.
    pub fn launch(config: &VmConfig, run_dir: &RunDir) -> Result<Self> {
        let vm = Self::start(config, run_dir)?;
        vm.wait_ready()?;
        Ok(vm)
    }

    /// Waits until the guest's agent answers and the guest has its files.
    pub fn wait_ready(&self) -> Result<()> {
        let limit = Limit::new(format!("the agent of {} to answer", self.name), self.boot_limit);
        self.explain(self.agent.wait_ready(&limit))?;
        self.write_files()
    }

    fn write_files(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| self.write_file(&file.path, file.mode, &file.contents))
    }

    /// Starts QEMU without waiting for the guest.
    pub fn start(config: &VmConfig, run_dir: &RunDir) -> Result<Self> {
        let name = &config.name;
        let files = Files {
            qmp: run_dir.socket(&format!("{name}.qmp"))?,
            agent: run_dir.socket(&format!("{name}.agent"))?,
            serial: run_dir.file(&format!("{name}.serial.log")),
        };
        let stderr = run_dir.file(&format!("{name}.qemu.log"));
        // QEMU connects to us: no moment at which a socket is not there yet.
        let monitor = listen(&files.qmp)?;
        let port = listen(&files.agent)?;
        let mut command = config.qemu.start();
        command.args(command_line::arguments(config, &files));
        let mut child = Child::spawn_logged("QEMU", command, &stderr)?;
        let command_line = child.command_line().to_owned();
        let connected = connect(&mut child, &monitor, &port);
        let (qmp, agent) = connected.map_err(|reason| {
            // Whatever it still has to say is in the log once it has ended.
            if let Err(error) = child.kill() {
                log::warn!("{error}");
            }
            failure(name, &command_line, &stderr, &files.serial, reason)
        })?;
        let vm = Self {
            name: name.clone(),
            command_line,
            child: Mutex::new(child),
            qmp: Arc::new(qmp),
            agent: Arc::new(agent),
            stderr,
            serial: files.serial,
            files: config.files.clone(),
            boot_limit: config.boot_limit,
            on_reboot: config.on_reboot,
        };
        vm.watch();
        vm.explain(vm.qmp.execute("cont", Value::Null))?;
        Ok(vm)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// QEMU's command line, quoted for a shell.
    pub fn command_line(&self) -> &str {
        &self.command_line
    }

    /// The log of its serial console.
    pub fn serial_log(&self) -> &Path {
        &self.serial
    }

    /// QEMU's monitor.
    pub fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// The guest's agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The agent, for a watcher that must not keep it alive.
    pub(crate) fn weak_agent(&self) -> Weak<Agent> {
        Arc::downgrade(&self.agent)
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.child().pid()
    }

    /// Runs a command in the guest to its end.
    pub fn exec(&self, argv: &[impl AsRef<str>], options: &ExecOptions) -> Result<Output> {
        self.explain(self.agent.exec(argv, options))
    }

    /// Starts a command in the guest.
    pub fn spawn(&self, argv: &[impl AsRef<str>], options: &ExecOptions) -> Result<Process> {
        self.explain(self.agent.spawn(argv, options))
    }

    /// Writes a file of the guest; missing directories are made.
    pub fn write_file(&self, path: &str, mode: u32, contents: &[u8]) -> Result<()> {
        let limit = Limit::new(format!("{} to write {path}", self.name), FILE_LIMIT);
        self.explain(self.agent.write_file(path, mode, contents, &limit))
    }

    /// Reads a file of the guest.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        let limit = Limit::new(format!("{} to read {path}", self.name), FILE_LIMIT);
        self.explain(self.agent.read_file(path, &limit))
    }

    /// Resets the machine as its reset button would, and waits until the agent answers again.
    pub fn reset(&self) -> Result<()> {
        self.boot_again(|| self.qmp.execute("system_reset", Value::Null).map(drop))
    }

    /// Has the guest reboot in order, and waits until the agent answers again.
    pub fn reboot(&self) -> Result<()> {
        let limit = Limit::new(format!("{} to reboot", self.name), FILE_LIMIT);
        self.boot_again(|| self.agent.reboot(&limit))
    }

    fn boot_again(&self, how: impl FnOnce() -> Result<()>) -> Result<()> {
        let before = self.agent.boots();
        let limit =
            Limit::new(format!("the agent of {} to answer after a reset", self.name), self.boot_limit);
        let outcome = self
            .allow_reboot(true)
            .and_then(|()| how())
            .and_then(|()| self.agent.wait_boot(before, &limit))
            .and_then(|()| self.allow_reboot(self.on_reboot == OnReboot::Restart));
        self.explain(outcome)?;
        self.write_files()
    }

    fn allow_reboot(&self, allow: bool) -> Result<()> {
        let action = if allow { "reset" } else { "shutdown" };
        self.qmp.execute("set-action", json!({ "reboot": action })).map(drop)
    }

    /// Waits until QEMU has ended, as it does after the guest has powered off.
    pub fn wait_exit(&self, limit: &Limit) -> Result<ExitStatus> {
        let outcome = self.child().wait(limit);
        self.explain(outcome)
    }

    /// Kills QEMU at once, as a power cut would.
    pub fn kill(&self) -> Result<()> {
        self.child().kill().map(drop)
    }

    /// Turns an error into one that tells everything known of this guest.
    pub fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|reason| match reason {
            // Already a report, or the guest's own refusal of something: nothing is wrong with the machine.
            Error::Vm(_) | Error::AgentRefused { .. } | Error::QmpRefused { .. } => reason,
            reason => self.failure(reason),
        })
    }

    fn failure(&self, reason: Error) -> Error {
        failure(&self.name, &self.command_line, &self.stderr, &self.serial, reason)
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hangs up on the agent as soon as the accelerator has failed, for nobody would answer any more.
    fn watch(&self) {
        let (qmp, agent) = (Arc::clone(&self.qmp), Arc::clone(&self.agent));
        let mut mark = qmp.mark();
        std::thread::spawn(move || {
            let limit = Limit::new("the machine to stop", Duration::MAX);
            // Ends with the connection to QEMU.
            while qmp.wait_event("STOP", &mut mark, &limit).is_ok() {
                let status = qmp.execute("query-status", Value::Null).unwrap_or_default();
                if status["status"] == "internal-error" {
                    agent.hang_up("QEMU stopped the machine with an internal error");
                }
            }
        });
    }
}

fn failure(name: &str, command_line: &str, stderr: &Path, serial: &Path, reason: Error) -> Error {
    Error::Vm(Box::new(VmFailure {
        name: name.to_owned(),
        reason,
        command_line: command_line.to_owned(),
        stderr: log_tail::of(stderr),
        serial: log_tail::of(serial),
    }))
}

fn listen(path: &Path) -> Result<UnixListener> {
    let doing = || format!("listen on {}", path.display());
    let listener = UnixListener::bind(path).map_err(Error::io(doing()))?;
    // A connection that was given up again must not block us.
    listener.set_nonblocking(true).map_err(Error::io(doing()))?;
    Ok(listener)
}

fn connect(child: &mut Child, monitor: &UnixListener, port: &UnixListener) -> Result<(Qmp, Agent)> {
    let limit = Limit::new("QEMU to connect to its sockets", START_LIMIT);
    let monitor = accept(child, monitor, &limit)?;
    let port = accept(child, port, &limit)?;
    let clone = monitor.try_clone().map_err(Error::io("clone the monitor's socket"))?;
    let qmp = match Qmp::connect(clone, monitor, &limit.rename("QEMU's monitor to greet")) {
        Ok(qmp) => qmp,
        // The usual reason is a bad argument, and QEMU's end says more than the broken connection.
        Err(error @ Error::QmpBroken(_)) => {
            let limit = Limit::new("QEMU to end", Duration::from_secs(5));
            child.wait(&limit).map_err(|_| error)?;
            return Err(child.check_alive().err().unwrap_or(Error::QmpBroken("QEMU ended".to_owned())));
        }
        Err(error) => return Err(error),
    };
    Ok((qmp, Agent::new(port)?))
}

fn accept(child: &mut Child, listener: &UnixListener, limit: &Limit) -> Result<UnixStream> {
    loop {
        child.wait_readable(listener.as_fd(), limit)?;
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).map_err(Error::io("use QEMU's connection"))?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(Error::io("accept QEMU's connection")(error)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
