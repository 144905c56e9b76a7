//! Collects dead processes: those that were started here, and, as init, every orphan.

use std::{
    collections::HashMap,
    io,
    process::{Child, Command},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{
        Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, kill_process_group, wait, waitid,
    },
};
use vianic_guest_agent::ExitStatus;

/// Who is told when a command ends.
pub(crate) trait Parent: Send + Sync {
    fn exited(&self, status: ExitStatus);
}

/// Starts commands and learns of their ends.
#[derive(Clone)]
pub(crate) struct Reaper {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Commands that run. Held while one is started, so that nothing is collected that the starter may still
    /// want to wait for itself (a child that failed to exec).
    commands: Mutex<Commands>,
    changed: Condvar,
}

#[derive(Default)]
struct Commands {
    running: HashMap<Pid, Arc<dyn Parent>>,
    /// Whether there may be children.
    any: bool,
}

impl Reaper {
    /// Starts the thread that collects.
    pub(crate) fn start() -> io::Result<Self> {
        let reaper = Self { shared: Arc::default() };
        let thread = reaper.clone();
        std::thread::Builder::new().name("reaper".into()).spawn(move || thread.collect())?;
        Ok(reaper)
    }

    /// Starts a command, which leads a process group of its own.
    pub(crate) fn spawn(&self, command: &mut Command, parent: Arc<dyn Parent>) -> io::Result<(Child, Pid)> {
        let mut commands = self.lock();
        let child = command.spawn();
        // Even a failed start may have made a child for a moment.
        commands.any = true;
        self.shared.changed.notify_all();
        let child = child?;
        let pid = Pid::from_child(&child);
        commands.running.insert(pid, parent);
        Ok((child, pid))
    }

    /// Sends a signal to the process group of a command, if the command still runs.
    pub(crate) fn signal(&self, pid: Pid, signal: Signal) -> bool {
        // The lock keeps the pid from being collected, and so from being used again.
        let commands = self.lock();
        commands.running.contains_key(&pid) && kill_process_group(pid, signal).is_ok()
    }

    /// Waits until no children are left, for at most `limit`.
    pub(crate) fn wait_for_all(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut commands = self.lock();
        while commands.any {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.changed.wait_timeout(commands, left);
            commands = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn collect(&self) {
        loop {
            // Only looks, so that the lock can be taken before anything is collected.
            match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Err(Errno::CHILD) => self.wait_for_child(),
                _ => self.collect_dead(),
            }
        }
    }

    fn wait_for_child(&self) {
        let mut commands = self.lock();
        // One may have been started since.
        if !matches!(
            waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG),
            Err(Errno::CHILD)
        ) {
            return;
        }
        commands.any = false;
        self.shared.changed.notify_all();
        while !commands.any {
            commands = self.shared.changed.wait(commands).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn collect_dead(&self) {
        let mut commands = self.lock();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(parent) = commands.running.remove(&pid) {
                parent.exited(exit_status(status));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Commands> {
        self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        // Not reached: only ends of processes were asked for.
        (None, None) => ExitStatus::Code(-1),
    }
}
