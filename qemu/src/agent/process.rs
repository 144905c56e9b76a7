//! A command that runs in the guest.

use std::io::{self, Read};
use std::sync::Arc;

use vianic_guest_agent::{ExitStatus, MAX_CHUNK, Reply, Request, Stream, Window, WindowSize};

use super::connection::{PendingRequest, Shared};
use super::{Output, unexpected};
use crate::error::{Error, Result};
use crate::limit::Limit;

/// A running command. Dropping it before its end kills it.
#[derive(Debug)]
pub struct Process {
    request: PendingRequest,
    name: String,
}

/// What a command does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEvent {
    /// It runs, with this process id in the guest.
    Started(i32),
    /// It wrote something.
    Output(Stream, Vec<u8>),
    /// It has ended, and nothing more comes.
    Exited(ExitStatus),
}

impl Process {
    pub(super) fn new(request: PendingRequest, name: String) -> Self {
        Self { request, name }
    }

    /// The command, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for its next event.
    pub fn next(&self, limit: &Limit) -> Result<ProcessEvent> {
        match self.request.next(limit)? {
            Reply::Started { pid } => Ok(ProcessEvent::Started(pid)),
            Reply::Output(stream, bytes) => Ok(ProcessEvent::Output(stream, bytes)),
            Reply::Exited(status) => Ok(ProcessEvent::Exited(status)),
            other => Err(unexpected(&format!("run {:?}", self.name), other)),
        }
    }

    /// Waits until it has written `text`, to whichever output; returns all that it wrote so far.
    pub fn wait_for(&self, text: &str, limit: &Limit) -> Result<String> {
        let mut seen = Vec::new();
        loop {
            match self.next(limit)? {
                ProcessEvent::Started(_) => {}
                ProcessEvent::Output(_, bytes) => seen.extend(bytes),
                ProcessEvent::Exited(status) => {
                    let seen = String::from_utf8_lossy(&seen);
                    let message = format!("it ended ({status}) after {seen:?}");
                    let doing = format!("see {:?} write {text:?}", self.name);
                    return Err(Error::AgentRefused { doing, errno: None, message });
                }
            }
            let so_far = String::from_utf8_lossy(&seen);
            if so_far.contains(text) {
                return Ok(so_far.into_owned());
            }
        }
    }

    /// Waits for its end and returns everything it wrote from now on.
    pub fn collect(&self, limit: &Limit) -> Result<Output> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.next(limit)? {
                ProcessEvent::Started(_) => {}
                ProcessEvent::Output(Stream::Stdout, bytes) => stdout.extend(bytes),
                ProcessEvent::Output(Stream::Stderr, bytes) => stderr.extend(bytes),
                ProcessEvent::Exited(status) => return Ok(Output { status, stdout, stderr }),
            }
        }
    }

    /// A handle with which another thread can feed and steer it.
    pub fn handle(&self) -> ProcessHandle {
        self.request.handle().clone()
    }

    /// Sends a signal to its process group.
    pub fn signal(&self, signal: i32) {
        self.request.handle().signal(signal);
    }
}

/// Feeds and steers a running command, from any thread. Does nothing once the command has ended.
#[derive(Debug, Clone)]
pub struct ProcessHandle {
    id: u32,
    window: Arc<Window>,
    shared: Arc<Shared>,
}

impl ProcessHandle {
    pub(super) fn new(id: u32, window: Arc<Window>, shared: Arc<Shared>) -> Self {
        Self { id, window, shared }
    }

    /// Sends a signal to its process group.
    pub fn signal(&self, signal: i32) {
        self.shared.call(self.id, Request::Signal(signal));
    }

    /// Tells its terminal that the window has another size.
    pub fn resize(&self, size: WindowSize) {
        self.shared.call(self.id, Request::Resize(size));
    }

    /// Sends bytes, waiting while the guest is behind. False once the command has ended.
    pub fn send(&self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let Some(length) = self.window.take(bytes.len().min(MAX_CHUNK)) else {
                return false;
            };
            let (now, later) = bytes.split_at(length);
            self.shared.call(self.id, Request::Data(now.to_vec()));
            bytes = later;
        }
        true
    }

    /// Sends everything that `from` gives, then the end of the input.
    pub fn send_all(&self, from: &mut dyn Read) -> io::Result<()> {
        let mut chunk = vec![0; MAX_CHUNK];
        loop {
            match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => {
                    if !self.send(&chunk[..length]) {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.end();
        Ok(())
    }

    /// Ends the input.
    pub fn end(&self) {
        self.shared.call(self.id, Request::End);
    }

    /// Wakes whoever waits to send more, and lets nobody send again.
    pub(super) fn close(&self) {
        self.window.close();
    }
}
