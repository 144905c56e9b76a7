//! The real process.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::front_end::FrontEnd;
use super::{LIMIT, wait_until};

/// A `vianic-device` process, which is killed at the end.
pub(crate) struct Device {
    child: Child,
    log: Receiver<String>,
    pub(crate) directory: TempDir,
    pub(crate) sockets: Vec<PathBuf>,
}

impl Device {
    /// A process with so many cards, which listens.
    pub(crate) fn start(cards: usize) -> Self {
        Self::start_with(cards, &[])
    }

    pub(crate) fn start_with(cards: usize, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vianic-device"));
        command.args(arguments);
        let directory = tempfile::tempdir().expect("temporary directory");
        let sockets: Vec<_> =
            (0..cards).map(|number| directory.path().join(format!("nic{number}.sock"))).collect();
        command.env_remove("RUST_LOG").current_dir(directory.path());
        let (child, log) = listen(&mut command, &sockets);
        Self { child, log, directory, sockets }
    }

    /// Starts a process that has ended once more, at the same sockets.
    pub(crate) fn start_again(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vianic-device"));
        (self.child, self.log) = listen(&mut command, &self.sockets);
    }

    /// Closes the reading end of the process's log.
    pub(crate) fn close_log(&mut self) {
        self.log = channel().1;
        // The reader sees it at the next line.
        drop(FrontEnd::connect(&self.sockets[0]));
    }

    /// Waits for a log line that contains `text`; lines before it are forgotten.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        wait_for_line(&self.log, text)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn count(&self, what: &str) -> usize {
        let directory = format!("/proc/{}/{what}", self.child.id());
        fs::read_dir(directory).expect("the process lives").count()
    }

    /// What the process holds: open descriptors, threads, mappings of memfds.
    pub(crate) fn holdings(&self) -> (usize, usize, usize) {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.child.id())).expect("the process lives");
        (self.count("fd"), self.count("task"), maps.lines().filter(|line| line.contains("memfd:")).count())
    }

    /// Waits until the process holds what it held before.
    #[track_caller]
    pub(crate) fn wait_for_holdings(&self, before: (usize, usize, usize)) {
        let mut now = before;
        wait_until(&format!("{now:?} descriptors, threads, mappings instead of {before:?}"), || {
            now = self.holdings();
            now == before
        });
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process lives");
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the process ends", || {
            status = self.child.try_wait().expect("waits");
            status.is_some()
        });
        status.expect("ended")
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("waits").is_none()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the process and waits until it listens.
fn listen(command: &mut Command, sockets: &[PathBuf]) -> (Child, Receiver<String>) {
    for socket in sockets {
        command.arg("--socket-path").arg(socket);
    }
    let mut child = command.stderr(Stdio::piped()).spawn().expect("starts");
    let stderr = BufReader::new(child.stderr.take().expect("piped"));
    let (lines, log) = channel();
    thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            eprintln!("{line}");
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    for _ in sockets {
        wait_for_line(&log, "listening on ");
    }
    (child, log)
}

#[track_caller]
fn wait_for_line(log: &Receiver<String>, text: &str) -> String {
    loop {
        let line = log.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("no log line has {text:?}"));
        if line.contains(text) {
            return line;
        }
    }
}
