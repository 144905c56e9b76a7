//! The limit of any exchange between two cores: a cache line that goes there and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context as _, bail};
use rustix::thread::CpuSet;

#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

#[derive(Default)]
struct Shared {
    there: Line,
    back: Line,
    stop: AtomicBool,
}

/// A thread on another core that sends a cache line back as often as it is told to, and sleeps between.
pub struct Bouncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    next: u64,
}

/// Pins the calling thread to one core, and gives another one.
///
/// # Errors
/// If the process may use one core only.
pub fn take_a_core() -> anyhow::Result<usize> {
    let allowed = rustix::thread::sched_getaffinity(None).context("cannot ask for the cores")?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let (Some(own), Some(other)) = (cores.next(), cores.next()) else {
        bail!("latency between cores takes two cores; this process may use one");
    };
    pin(own)?;
    Ok(other)
}

fn pin(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).context("cannot choose a core")
}

impl Bouncer {
    /// Starts the thread on `core`.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(core: usize) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("bounce".into())
            .spawn(move || {
                if let Err(error) = pin(core) {
                    log::warn!("the bouncing thread may run anywhere: {error:#}");
                }
                theirs.serve();
            })
            .context("cannot start a thread")?;
        Ok(Self { shared, thread: Some(thread), next: 1 })
    }

    /// Nanoseconds of one round trip, the mean of `rounds`.
    pub fn measure(&mut self, rounds: u64) -> u64 {
        // The first one wakes the thread: it parks again unless it finds the line changed.
        self.send();
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
        self.receive();
        let begin = Instant::now();
        for _ in 0..rounds {
            self.round_trip();
        }
        let elapsed = begin.elapsed().as_nanos();
        self.shared.there.0.store(SLEEP, Ordering::Release);
        u64::try_from(elapsed / u128::from(rounds.max(1))).unwrap_or(u64::MAX)
    }

    fn round_trip(&mut self) {
        self.send();
        self.receive();
    }

    fn send(&self) {
        self.shared.there.0.store(self.next, Ordering::Release);
    }

    fn receive(&mut self) {
        while self.shared.back.0.load(Ordering::Acquire) != self.next {
            std::hint::spin_loop();
        }
        self.next += 1;
    }
}

/// Tells the thread to sleep.
const SLEEP: u64 = u64::MAX;

impl Shared {
    fn serve(&self) {
        let mut seen = 0;
        while !self.stop.load(Ordering::Relaxed) {
            match self.there.0.load(Ordering::Acquire) {
                SLEEP | 0 => std::thread::park(),
                there if there != seen => {
                    self.back.0.store(there, Ordering::Release);
                    seen = there;
                }
                _ => std::hint::spin_loop(),
            }
        }
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.there.0.store(SLEEP, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                log::error!("the bouncing thread has panicked");
            }
        }
    }
}
