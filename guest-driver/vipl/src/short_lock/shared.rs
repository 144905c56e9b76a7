//! A lock for everybody.
//!
//! Whoever unlocks pays for a plain store, where other locks need a second atomic exchange to find out whether somebody sleeps:
//! whoever is about to sleep pays for both, with the heavy half of a [barrier](process_barrier).
//!
//! * Unlock: `held = 0` *release*, light barrier, look at `sleepers`; wake one if there are any.
//! * Sleep: add one to `sleepers`, heavy barrier, try to lock again, sleep while `held` is 1 (the kernel looks once more).
//!
//! Of a store before a light barrier and a store before a heavy one, one is seen behind the other barrier: either the sleeper finds the
//! lock free, or the holder finds the sleeper.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use rustix::thread::futex;

use super::SPINS;
use crate::process_barrier;

/// The lock itself.
pub(super) struct SharedLock {
    /// 1 while somebody holds it.
    held: AtomicU32,
    /// Threads that sleep, or are about to.
    sleepers: AtomicU32,
}

impl SharedLock {
    pub(super) const fn new() -> Self {
        Self { held: AtomicU32::new(0), sleepers: AtomicU32::new(0) }
    }

    #[inline(always)]
    pub(super) fn lock(&self) {
        if !self.try_lock() {
            self.lock_contended();
        }
    }

    #[inline(always)]
    pub(super) fn try_lock(&self) -> bool {
        self.held.compare_exchange(0, 1, Acquire, Relaxed).is_ok()
    }

    /// For who holds it.
    #[inline(always)]
    pub(super) fn unlock(&self) {
        self.held.store(0, Release);
        process_barrier::light();
        if self.sleepers.load(Relaxed) != 0 {
            self.wake_one();
        }
    }

    #[cold]
    fn lock_contended(&self) {
        for _ in 0..SPINS {
            std::hint::spin_loop();
            if self.held.load(Relaxed) == 0 && self.try_lock() {
                return;
            }
        }
        self.sleepers.fetch_add(1, Relaxed);
        process_barrier::heavy();
        while !self.try_lock() {
            // However it ends, the lock is tried again.
            let _ = futex::wait(&self.held, futex::Flags::PRIVATE, 1, None);
        }
        self.sleepers.fetch_sub(1, Relaxed);
    }

    #[cold]
    fn wake_one(&self) {
        // It fails for addresses that are not mapped only.
        let _ = futex::wake(&self.held, futex::Flags::PRIVATE, 1);
    }
}
