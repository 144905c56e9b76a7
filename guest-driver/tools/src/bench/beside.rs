//! Two cores: the application's, and another one for whatever answers it.

use anyhow::{Context as _, bail};
use rustix::thread::CpuSet;

/// A processor of this machine, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core(usize);

/// The cores of a benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// Where the application runs.
    pub application: Core,
    /// Where the card runs, or whatever takes its place.
    pub device: Core,
    /// All that this process may use.
    allowed: CpuSet,
}

impl Cores {
    /// The first two that this process may use.
    ///
    /// # Errors
    /// If there is one only.
    pub fn take() -> anyhow::Result<Self> {
        let allowed = rustix::thread::sched_getaffinity(None).context("cannot ask for the cores")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).map(Core);
        let (Some(application), Some(device)) = (cores.next(), cores.next()) else {
            bail!("measuring between cores takes two of them; this process may use one");
        };
        Ok(Self { application, device, allowed })
    }

    /// Lets the calling thread run wherever it might run before it was pinned, and what it starts from now on.
    ///
    /// # Errors
    /// If this process may no longer use the cores.
    pub fn unpin(&self) -> anyhow::Result<()> {
        rustix::thread::sched_setaffinity(None, &self.allowed).context("cannot use all cores again")
    }

    /// Runs `device` on the device's core and `application` on this thread, at the same time.
    ///
    /// # Panics
    /// If `device` does.
    pub fn beside<T>(&self, device: impl FnOnce() + Send, application: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if let Err(error) = self.device.pin() {
                    log::warn!("the other thread may run anywhere: {error:#}");
                }
                device();
            });
            application()
        })
    }
}

impl Core {
    /// The number by which the system knows it.
    #[must_use]
    pub fn number(self) -> usize {
        self.0
    }

    /// Keeps the calling thread on this core, and what it starts from now on.
    ///
    /// # Errors
    /// If this process may not use it.
    pub fn pin(self) -> anyhow::Result<()> {
        let mut set = CpuSet::new();
        set.set(self.0);
        rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("cannot use core {}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_pinned_may_run_everywhere_again() -> anyhow::Result<()> {
        let Ok(cores) = Cores::take() else { return Ok(()) };
        cores.application.pin()?;
        assert!(Cores::take().is_err(), "one core is left");
        cores.unpin()?;
        assert_eq!(Cores::take()?.device, cores.device);
        Ok(())
    }
}
