//! Attempts to connect with a peer: commands that go on while nobody waits for them, until their time is over.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};
use vianic_abi::command::{Connect, ConnectBlock, Opcode, ViAttributes};
use vianic_abi::status::Status;

use super::commands::Commands;
use super::notice_board::{KeptTicket, Progress};
use crate::agent::AgentError;

/// The attempts of one context, and the thread that ends those whose time is over.
#[derive(Debug)]
pub(super) struct Peers {
    shared: Arc<Shared>,
    /// Runs from the first attempt on.
    timer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    commands: Arc<Commands>,
    attempts: Mutex<Attempts>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Attempts {
    /// By VI number; each until somebody is told what became of it.
    by_vi: HashMap<u16, Arc<Attempt>>,
    closed: bool,
}

#[derive(Debug)]
struct Attempt {
    commands: Arc<Commands>,
    ticket: KeptTicket,
    deadline: Option<Instant>,
    expired: AtomicBool,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.ticket.give_back(&self.commands.board);
    }
}

impl Attempt {
    fn wait(&self, deadline: Option<Instant>) -> Progress {
        self.ticket.wait(&self.commands.board, deadline)
    }

    fn is_over(&self) -> bool {
        matches!(self.wait(Some(Instant::now())), Progress::Done(_))
    }

    /// What became of it, as its command has completed with `status`.
    fn outcome(&self, status: Status) -> Result<ViAttributes, AgentError> {
        match status {
            Status::SUCCESS => Ok(self.ticket.read_block(&self.commands.board).attributes),
            Status::CANCELLED if self.expired.load(Ordering::SeqCst) => Err(Status::TIMEOUT.into()),
            status => Err(status.into()),
        }
    }
}

impl Peers {
    pub(super) fn new(commands: Arc<Commands>) -> Self {
        let shared = Shared { commands, attempts: Mutex::default(), changed: Condvar::new() };
        Self { shared: Arc::new(shared), timer: Mutex::default() }
    }

    /// Begins an attempt of a VI.
    ///
    /// # Errors
    /// `INVALID_STATE` if it has one; `ERROR_RESOURCE` if there are too many, or if there can be no thread.
    pub(super) fn begin(
        &self,
        (context, vi): (u16, u16),
        block: &ConnectBlock,
        deadline: Option<Instant>,
    ) -> Result<(), AgentError> {
        if deadline.is_some() {
            self.start_timer()?;
        }
        let commands = &self.shared.commands;
        let mut attempts = self.shared.attempts.lock();
        if attempts.by_vi.contains_key(&vi) {
            return Err(Status::INVALID_STATE.into());
        }
        let connect = |block| Connect { context, vi, block, ..Connect::default() };
        let ticket = commands.start(Opcode::CONNECT_PEER, block, connect)?.keep();
        let commands = Arc::clone(commands);
        let attempt = Attempt { commands, ticket, deadline, expired: AtomicBool::new(false) };
        attempts.by_vi.insert(vi, Arc::new(attempt));
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Waits for what becomes of a VI's attempt. `None`: `deadline` has come.
    ///
    /// # Errors
    /// `INVALID_STATE` if it has none; why it has failed; [`AgentError::ShutDown`].
    pub(super) fn wait(
        &self,
        vi: u16,
        deadline: Option<Instant>,
    ) -> Result<Option<ViAttributes>, AgentError> {
        let attempt = self.shared.attempts.lock().by_vi.get(&vi).cloned();
        let attempt = attempt.ok_or(Status::INVALID_STATE)?;
        match attempt.wait(deadline) {
            Progress::Done(status) => {
                let mut attempts = self.shared.attempts.lock();
                // Somebody else may have been told, or the VI has given it up.
                if !attempts.by_vi.get(&vi).is_some_and(|known| Arc::ptr_eq(known, &attempt)) {
                    return Err(Status::INVALID_STATE.into());
                }
                attempts.by_vi.remove(&vi);
                attempt.outcome(status).map(Some)
            }
            Progress::TimedOut => Ok(None),
            Progress::Interrupted => {
                // For the others that wait, and for those to come.
                self.shared.commands.board.interrupt(attempt.ticket.tag());
                Err(AgentError::ShutDown)
            }
        }
    }

    /// The VI has been disconnected or destroyed: nobody will ask what became of an attempt that this has ended.
    pub(super) fn forget(&self, vi: u16) {
        let mut attempts = self.shared.attempts.lock();
        if attempts.by_vi.get(&vi).is_some_and(|attempt| attempt.is_over()) {
            attempts.by_vi.remove(&vi);
        }
    }

    /// Ends all waits, those under way and those to come.
    pub(super) fn interrupt(&self) {
        for attempt in self.shared.attempts.lock().by_vi.values() {
            self.shared.commands.board.interrupt(attempt.ticket.tag());
        }
    }

    fn start_timer(&self) -> Result<(), AgentError> {
        let mut timer = self.timer.lock();
        if timer.is_none() {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("vipl-peers".into()).spawn(move || shared.expire());
            *timer = Some(thread.map_err(|source| AgentError::Io { call: "start a thread", source })?);
        }
        Ok(())
    }
}

impl Shared {
    /// Ends attempts whose time is over, until the context is closed.
    fn expire(&self) {
        let mut attempts = self.attempts.lock();
        while !attempts.closed {
            let running = attempts.by_vi.values().filter(|attempt| !attempt.expired.load(Ordering::SeqCst));
            let next =
                running.filter_map(|attempt| Some((attempt.deadline?, attempt))).min_by_key(|next| next.0);
            match next {
                None => self.changed.wait(&mut attempts),
                Some((deadline, _)) if deadline > Instant::now() => {
                    self.changed.wait_until(&mut attempts, deadline);
                }
                Some((_, attempt)) => {
                    attempt.expired.store(true, Ordering::SeqCst);
                    let tag = attempt.ticket.tag();
                    let ended = MutexGuard::unlocked(&mut attempts, || self.commands.cancel(tag));
                    if let Err(status) = ended {
                        log::warn!("an attempt to connect with a peer cannot be ended: {status:?}");
                    }
                }
            }
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let Some(timer) = self.timer.get_mut().take() else { return };
        // A child after fork has neither the thread nor a say about the lock, which the thread may have held.
        if !self.shared.commands.ram.is_of_this_process() {
            std::mem::forget(timer);
            return;
        }
        self.shared.attempts.lock().closed = true;
        self.shared.changed.notify_all();
        if timer.join().is_err() {
            log::error!("the thread that ends attempts with peers has panicked");
        }
    }
}
