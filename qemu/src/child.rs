//! Child processes that cannot outlive us and whose end can be waited for with a limit.
#![expect(unsafe_code, reason = "the death signal must be set between fork and exec")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{LazyLock, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::error::{Error, Result};
use crate::limit::Limit;
use crate::quote;

/// A running child process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    command_line: String,
    process: process::Child,
    pidfd: OwnedFd,
    status: Option<ExitStatus>,
}

impl Child {
    /// Starts `command` with no standard input and its output in `log`.
    pub(crate) fn spawn_logged(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let doing = || format!("write {}", log.display());
        let file = File::create(log).map_err(Error::io(doing()))?;
        let again = file.try_clone().map_err(Error::io(doing()))?;
        command.stdin(Stdio::null()).stdout(file).stderr(again);
        Self::spawn(name, command)
    }

    /// Starts `command` so that the kernel kills it when this process dies.
    pub(crate) fn spawn(name: &str, mut command: Command) -> Result<Self> {
        let command_line = quote::command(&command);
        log::debug!("starting {name}: {command_line}");
        // A group of its own, so that an interrupt from the terminal reaches us alone and we end things in order.
        command.process_group(0);
        let parent = rustix::process::getpid();
        // It runs where this thread may run, not where the thread that forks was started.
        let cores = rustix::thread::sched_getaffinity(None)
            .map_err(|e| Error::io(format!("find out where {name} may run"))(e.into()))?;
        // SAFETY: the closure makes some system calls and touches no memory that another thread may have locked.
        unsafe {
            command.pre_exec(move || {
                rustix::thread::sched_setaffinity(None, &cores)?;
                die_with(parent)
            });
        }
        let process = on_spawner_thread(move || command.spawn())
            .map_err(Error::io(format!("start {name} ({command_line})")))?;
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&process), PidfdFlags::empty())
            .map_err(|e| Error::io(format!("watch {name}"))(e.into()))?;
        Ok(Self { name: name.to_owned(), command_line, process, pidfd, status: None })
    }

    /// What started it, quoted for a shell.
    pub(crate) fn command_line(&self) -> &str {
        &self.command_line
    }

    /// The pipes given to it, if any.
    pub(crate) fn pipes(&mut self) -> (Option<process::ChildStdin>, Option<process::ChildStdout>) {
        (self.process.stdin.take(), self.process.stdout.take())
    }

    /// The pipe from its standard error, if it was given one.
    pub(crate) fn stderr(&mut self) -> Option<process::ChildStderr> {
        self.process.stderr.take()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Something that can be waited on for its end, by another thread.
    pub(crate) fn end(&self) -> Result<ChildEnd> {
        let pidfd = self.pidfd.try_clone().map_err(Error::io(format!("watch {}", self.name)))?;
        Ok(ChildEnd(pidfd))
    }

    /// The exit status, if it has ended.
    pub(crate) fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.process.try_wait().map_err(Error::io(format!("watch {}", self.name)))?;
        }
        Ok(self.status)
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, limit: &Limit) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            poll_until(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], limit)?;
        }
    }

    /// Waits until `ready` can be read; the child's end before that is an error.
    pub(crate) fn wait_readable(&mut self, ready: BorrowedFd<'_>, limit: &Limit) -> Result<()> {
        loop {
            let mut fds = [PollFd::new(&ready, PollFlags::IN), PollFd::new(&self.pidfd, PollFlags::IN)];
            poll_until(&mut fds, limit)?;
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
            self.check_alive()?;
        }
    }

    /// An error if it has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        match self.try_wait()? {
            None => Ok(()),
            Some(status) => Err(Error::EndedEarly { name: self.name.clone(), status: status.to_string() }),
        }
    }

    /// Asks it to end.
    pub(crate) fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Ends it and collects its status.
    pub(crate) fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        let status = self.process.wait().map_err(Error::io(format!("collect {}", self.name)))?;
        self.status = Some(status);
        Ok(status)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.try_wait()?.is_some() {
            return Ok(());
        }
        match rustix::process::pidfd_send_signal(self.pidfd.as_fd(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(Error::io(format!("signal {}", self.name))(e.into())),
        }
    }
}

/// The end of a child process, to be waited for.
#[derive(Debug)]
pub(crate) struct ChildEnd(OwnedFd);

impl ChildEnd {
    /// Waits until the process has ended.
    pub(crate) fn wait(&self, limit: &Limit) -> Result<()> {
        poll_until(&mut [PollFd::new(&self.0, PollFlags::IN)], limit)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            log::warn!("{error}");
        }
    }
}

/// Polls until something is ready or the limit has passed.
fn poll_until(fds: &mut [PollFd<'_>], limit: &Limit) -> Result<()> {
    loop {
        let left = limit.remaining()?;
        let timeout = Timespec::try_from(left).ok();
        match poll(fds, timeout.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => return Err(Error::io("poll")(e.into())),
        }
    }
}

/// Runs in the child before exec.
fn die_with(parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the line above.
    if rustix::process::getppid() != Some(parent) {
        return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
    }
    Ok(())
}

type Job = Box<dyn FnOnce() + Send>;

/// The death signal is bound to the thread that forked, not to the process: so one thread forks and never ends.
static SPAWNER: LazyLock<Mutex<Sender<Job>>> = LazyLock::new(|| {
    let (sender, jobs) = mpsc::channel::<Job>();
    std::thread::spawn(move || jobs.iter().for_each(|job| job()));
    Mutex::new(sender)
});

fn on_spawner_thread<T: Send + 'static>(
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (answer, result) = mpsc::sync_channel(1);
    let job: Job = Box::new(move || {
        // The receiver waits below, so the send succeeds.
        let _ = answer.send(job());
    });
    let gone = |_| io::Error::other("the thread that starts processes has ended");
    SPAWNER.lock().unwrap_or_else(PoisonError::into_inner).send(job).map_err(|e| gone(e.to_string()))?;
    result.recv().map_err(|e| gone(e.to_string()))?
}

#[cfg(test)]
mod tests {
    use rustix::thread::CpuSet;

    use super::*;
    use std::time::Duration;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn limit() -> Limit {
        Limit::new("the test's child", Duration::from_secs(20))
    }

    #[test]
    fn exit_status_and_log_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut child = Child::spawn_logged("sh", shell("echo out; echo err >&2; exit 7"), &log).unwrap();
        assert_eq!(child.wait(&limit()).unwrap().code(), Some(7));
        assert_eq!(std::fs::read_to_string(log).unwrap(), "out\nerr\n");
    }

    #[test]
    fn an_early_end_interrupts_a_wait() {
        let (_keep, never) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut child = Child::spawn("sh", shell("exit 3")).unwrap();
        let error = child.wait_readable(never.as_fd(), &limit()).unwrap_err();
        assert!(matches!(error, Error::EndedEarly { .. }), "{error}");
    }

    #[test]
    fn survives_the_thread_that_started_it() {
        let mut child =
            std::thread::spawn(|| Child::spawn("sleep", shell("exec sleep 1000")).unwrap()).join().unwrap();
        let short = Limit::new("an end that must not come", Duration::from_millis(50));
        assert!(matches!(child.wait(&short), Err(Error::TimedOut(_))));
        assert!(!child.kill().unwrap().success());
    }

    #[test]
    fn runs_where_the_thread_that_started_it_may() {
        let allowed = |child: &Child| {
            let pid = Pid::from_child(&child.process);
            rustix::thread::sched_getaffinity(Some(pid)).unwrap()
        };
        let start = || Child::spawn("sleep", shell("exec sleep 1000")).unwrap();
        let all = rustix::thread::sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)).unwrap();
        let one = std::thread::spawn(move || {
            let mut one = CpuSet::new();
            one.set(first);
            rustix::thread::sched_setaffinity(None, &one).unwrap();
            let child = start();
            assert_eq!(allowed(&child), one);
            child
        });
        drop(one.join().unwrap());
        assert_eq!(allowed(&start()), all);
    }
}
