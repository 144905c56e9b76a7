//! One card's socket: front ends come and go, one at a time.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::{Error as ProtocolError, Listener};
use vhost_user_backend::{Error as DaemonError, VhostUserDaemon};
use vm_memory::GuestMemoryMmap;

use super::backend::Backend;
use super::connection::Connection;
use super::{Card, Memory, vring};
use crate::nic::memory::NicMemory;
use crate::one_shot::OneShot;
use crate::rate_limit::warn_limited;
use crate::socket::SocketFile;

/// How long a front end that finds the card in use waits for the one before it to leave: a VM that is started again
/// may be faster than the clean-up after its first run.
const LEAVING_LIMIT: Duration = Duration::from_secs(1);

/// How long a front end that is gone may keep its back channel open.
const BACK_CHANNEL_LIMIT: Duration = Duration::from_secs(5);

/// How long to wait before trying again when the system is out of something.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Serves one card at one socket.
#[derive(Debug)]
pub struct Server {
    stop: OneShot,
    thread: JoinHandle<()>,
}

impl Server {
    /// Serves `card`, whose memory is `nic_memory`, at the socket.
    ///
    /// # Errors
    /// If the system is out of descriptors or threads.
    pub fn start(
        (file, listener): (SocketFile, UnixListener),
        card: Arc<dyn Card>,
        nic_memory: Arc<NicMemory>,
    ) -> io::Result<Self> {
        let stop = OneShot::new()?;
        let name = file.path().display().to_string();
        let door = listener.try_clone()?;
        let mut worker =
            Worker { name, door, listener: Listener::from(listener), stop: stop.clone(), card, nic_memory };
        let thread = thread::Builder::new().name("vhost-user".to_owned()).spawn(move || {
            worker.run();
            drop(file);
        })?;
        Ok(Self { stop, thread })
    }

    /// Sends the front end away and ends; the socket file is removed.
    pub fn stop(self) {
        self.stop.raise();
        if self.thread.join().is_err() {
            log::error!("a vhost-user server had panicked");
        }
    }
}

struct Worker {
    name: String,
    /// The listening socket, to wait for front ends and to refuse them.
    door: UnixListener,
    /// The same socket, for the crate to accept from.
    listener: Listener,
    stop: OneShot,
    card: Arc<dyn Card>,
    nic_memory: Arc<NicMemory>,
}

/// Which of the events that were waited for has come.
#[derive(Debug, PartialEq, Eq)]
enum Wake {
    Stop,
    Ended,
    FrontEnd,
    TimedOut,
}

impl Worker {
    fn run(&mut self) {
        log::info!("listening on {}", self.name);
        loop {
            match self.wait(None, true, None) {
                Wake::Stop => return,
                Wake::FrontEnd => {
                    if let Err(error) = self.serve() {
                        log::error!("{}: cannot serve a front end: {error}", self.name);
                        if self.wait(None, false, Some(RETRY_AFTER)) == Wake::Stop {
                            return;
                        }
                    }
                }
                Wake::Ended | Wake::TimedOut => {}
            }
        }
    }

    /// Waits for what is asked for; the first in the order of [`Wake`] counts.
    fn wait(&self, ended: Option<&OneShot>, front_end: bool, limit: Option<Duration>) -> Wake {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let ended = ended.unwrap_or(&self.stop);
        loop {
            let mut events = [
                PollFd::new(&self.stop, PollFlags::IN),
                PollFd::new(ended, PollFlags::IN),
                PollFd::new(&self.door, if front_end { PollFlags::IN } else { PollFlags::empty() }),
            ];
            match poll(&mut events, limit.as_ref()) {
                Ok(0) => return Wake::TimedOut,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    log::error!("{}: cannot wait for front ends: {error}", self.name);
                    return Wake::Stop;
                }
            }
            let [stop, ended, _] = events.map(|event| !event.revents().is_empty());
            return match (stop, ended) {
                (true, _) => Wake::Stop,
                (_, true) => Wake::Ended,
                _ => Wake::FrontEnd,
            };
        }
    }

    /// Serves the front end that is at the door until it leaves.
    fn serve(&mut self) -> Result<(), ServeError> {
        let memory = Memory::new(GuestMemoryMmap::new());
        let (mapper_token, mappers) = mpsc::channel();
        let connection = Arc::new(Connection::new(
            self.name.clone(),
            self.card.clone(),
            self.nic_memory.clone(),
            memory.clone(),
            mapper_token,
        )?);
        let backend = Backend::new(connection.clone())?;
        let (daemon, vrings) =
            vring::collect(|| VhostUserDaemon::new("vhost-user-req".to_owned(), backend.clone(), memory));
        connection.set_vrings(vrings);
        let served = match daemon {
            Ok(mut daemon) => {
                let served = self.serve_with(&mut daemon);
                // Ends the crate's worker, so that nobody calls the connection any more.
                drop(daemon);
                served
            }
            Err(error) => {
                // Out of descriptors or threads: send the front end away rather than let it wait.
                self.refuse("the system is out of descriptors or threads");
                Err(error.into())
            }
        };
        if let Some(exit) = backend.take_exit_event() {
            close_exit_event(exit);
        }
        connection.close();
        if mappers.recv_timeout(BACK_CHANNEL_LIMIT) == Err(RecvTimeoutError::Timeout) {
            log::warn!("{}: the front end left without closing its back channel", self.name);
        }
        served
    }

    fn serve_with(&mut self, daemon: &mut VhostUserDaemon<Backend>) -> Result<(), ServeError> {
        daemon.start(&mut self.listener)?;
        log::info!("{}: a front end has connected", self.name);
        let ended = OneShot::new()?;
        let shutdown = daemon.shutdown_handle();
        let result = thread::scope(|scope| {
            let connection = scope.spawn(|| {
                let result = daemon.wait();
                ended.raise();
                result
            });
            if self.watch(&ended) == Wake::Stop
                && let Some(shutdown) = shutdown
            {
                shutdown.shutdown();
            }
            connection.join()
        });
        match result {
            Ok(Ok(())) => log::info!("{}: the front end has left", self.name),
            Ok(Err(DaemonError::HandleRequest(ProtocolError::Disconnected))) => {
                log::info!("{}: the front end has left", self.name);
            }
            Ok(Err(error)) => log::warn!("{}: the front end was sent away: {error}", self.name),
            Err(_) => log::error!("{}: serving the front end panicked", self.name),
        }
        Ok(())
    }

    /// Sends other front ends away until this one ends or the server stops.
    fn watch(&self, ended: &OneShot) -> Wake {
        loop {
            match self.wait(Some(ended), true, None) {
                Wake::FrontEnd => match self.wait(Some(ended), false, Some(LEAVING_LIMIT)) {
                    Wake::TimedOut => self.refuse("another one uses the card"),
                    wake => return wake,
                },
                Wake::TimedOut => {}
                wake => return wake,
            }
        }
    }

    /// Sends the front end at the door away.
    fn refuse(&self, why: &str) {
        match self.door.accept() {
            Ok(_) => warn_limited!("{}: a front end was refused: {why}", self.name),
            Err(error) => warn_limited!("{}: a front end cannot even be refused: {error}", self.name),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Daemon(DaemonError),
}

impl From<DaemonError> for ServeError {
    fn from(error: DaemonError) -> Self {
        Self::Daemon(error)
    }
}

#[expect(unsafe_code, reason = "the crate leaves a descriptor open")]
fn close_exit_event(exit: super::raw_fd::ExitEvent) {
    // SAFETY: called when the daemon has been dropped.
    unsafe { exit.close() }
}
