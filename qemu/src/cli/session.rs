//! A run seen from the command line: boots, keeps the logs, and ends in order when the user interrupts.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;
use vianic::accel::Accelerator;
use vianic::agent::ProcessEvent;
use vianic::fabric::{Fabric, FabricConfig};
use vianic::run_dir::RunDir;
use vianic::{Error, Limit};

use super::exit_code::Interrupted;

/// What a session waits for.
pub(super) enum Event {
    /// The guests have booted, or not.
    Launched(Box<Result<Fabric, (Error, RunDir)>>),
    /// The command in the guest did something, or was lost.
    Process(Result<ProcessEvent, Error>),
    /// The user's system sent a signal.
    Signal(i32),
    /// The work of [`Session::unless_interrupted`] is over.
    Done,
}

/// Tells that work is over, even if it panics.
struct Done(Sender<Event>);

impl Drop for Done {
    fn drop(&mut self) {
        // The session outlives its work.
        let _ = self.0.send(Event::Done);
    }
}

/// Events from all sides, in one queue.
pub(super) struct Session {
    sender: Sender<Event>,
    events: Receiver<Event>,
    keep_logs: Option<PathBuf>,
}

impl Session {
    /// Begins to take signals.
    pub(super) fn new(keep_logs: Option<PathBuf>) -> Result<Self> {
        let (sender, events) = mpsc::channel();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGWINCH]).context("cannot take signals")?;
        let for_signals = sender.clone();
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if for_signals.send(Event::Signal(signal)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { sender, events, keep_logs })
    }

    /// Boots everything.
    pub(super) fn launch(&self, config: FabricConfig) -> Result<Fabric> {
        let run_dir = RunDir::new()?;
        let path = run_dir.path().to_owned();
        let (vms, cards) = (config.vms, config.cards);
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            let launched = Fabric::launch_in(run_dir, &config);
            // The receiver is gone only if the user has interrupted, and the process with it.
            let _ = sender.send(Event::Launched(Box::new(launched)));
        });
        log::info!("booting {} with {} each", count(vms, "guest"), count(cards, "NIC"));
        loop {
            match self.next(None)? {
                Event::Launched(launched) => match *launched {
                    Ok(fabric) => {
                        let decision = fabric.decision();
                        let name = match decision.accelerator {
                            Accelerator::Kvm => "KVM",
                            Accelerator::Tcg => "TCG",
                        };
                        log::info!("running under {name} ({})", decision.reason);
                        return Ok(fabric);
                    }
                    Err((error, run_dir)) => {
                        self.keep(|to| run_dir.keep_logs(to));
                        return Err(error.into());
                    }
                },
                Event::Signal(SIGWINCH) | Event::Process(_) | Event::Done => {}
                Event::Signal(signal) => {
                    // The guests die with this process; its directory would stay.
                    if let Err(error) = std::fs::remove_dir_all(&path) {
                        log::warn!("removing {}: {error}", path.display());
                    }
                    return Err(Interrupted(signal).into());
                }
            }
        }
    }

    /// Does something that knows no signals: a signal takes the guests from it, which ends all its waits.
    pub(super) fn unless_interrupted<T: Send>(
        &self,
        fabric: &Fabric,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        let done = Done(self.sender.clone());
        std::thread::scope(|scope| {
            let worker = scope.spawn(move || {
                let _done = done;
                work()
            });
            let mut interrupted = None;
            loop {
                match self.next(None)? {
                    Event::Done => break,
                    Event::Signal(SIGWINCH) | Event::Launched(_) | Event::Process(_) => {}
                    Event::Signal(signal) => {
                        interrupted = Some(signal);
                        fabric.vms().iter().for_each(|vm| vm.agent().hang_up("the user has interrupted"));
                    }
                }
            }
            let result = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            interrupted.map_or(result, |signal| Err(Interrupted(signal).into()))
        })
    }

    /// Where other threads put their events.
    pub(super) fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// The next event, or an error once the limit has passed.
    pub(super) fn next(&self, limit: Option<&Limit>) -> Result<Event, Error> {
        let Some(limit) = limit else {
            // We hold a sender ourselves, so that this cannot fail; the waits behind it have limits.
            return self.events.recv().map_err(|_| Error::AgentGone("nobody is left".to_owned()));
        };
        self.events.recv_timeout(limit.remaining()?).map_err(|error| match error {
            RecvTimeoutError::Timeout => limit.timed_out().into(),
            RecvTimeoutError::Disconnected => Error::AgentGone("nobody is left".to_owned()),
        })
    }

    /// Ends everything in order and keeps the logs. A failure of the end itself counts, if nothing else failed.
    pub(super) fn finish<T>(&self, fabric: Fabric, outcome: Result<T>) -> Result<T> {
        let stats = self.keep_logs.as_ref().and_then(|_| match fabric.stats() {
            Ok(stats) => Some(stats),
            Err(error) => {
                log::warn!("{error}");
                None
            }
        });
        self.keep(|to| {
            fabric.keep_logs(to)?;
            if let Some(stats) = stats {
                let path = to.join("stats.json");
                std::fs::write(&path, format!("{stats:#}\n"))
                    .map_err(|source| Error::Io { doing: format!("write {}", path.display()), source })?;
            }
            Ok(())
        });
        let stopped = fabric.stop();
        match (outcome, stopped) {
            (Ok(value), Ok(())) => Ok(value),
            (Ok(_), Err(error)) => Err(error.into()),
            (Err(error), stopped) => {
                if let Err(also) = stopped {
                    log::error!("{also}");
                }
                Err(error)
            }
        }
    }

    fn keep(&self, logs: impl FnOnce(&Path) -> vianic::Result<()>) {
        if let Some(to) = &self.keep_logs {
            match logs(to) {
                Ok(()) => log::info!("the logs are in {}", to.display()),
                // Worth a word, and not worth the run's result.
                Err(error) => log::warn!("{error}"),
            }
        }
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
