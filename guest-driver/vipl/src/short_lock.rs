//! A lock for sections of a few dozen instructions that every message passes through.
//!
//! Whoever unlocks pays for a plain store, where other locks need a second atomic exchange to find out whether somebody sleeps:
//! whoever is about to sleep pays for both, with the heavy half of a [barrier](process_barrier).
//!
//! * Unlock: `held = 0` *release*, light barrier, look at `sleepers`; wake one if there are any.
//! * Sleep: add one to `sleepers`, heavy barrier, try to lock again, sleep while `held` is 1 (the kernel looks once more).
//!
//! Of a store before a light barrier and a store before a heavy one, one is seen behind the other barrier: either the sleeper finds the
//! lock free, or the holder finds the sleeper.
#![expect(unsafe_code, reason = "lock_api's trait promises mutual exclusion")]

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use parking_lot::lock_api::{self, GuardNoSend, RawMutex};
use rustix::thread::futex;

use crate::process_barrier;

/// A value under a short lock.
pub(crate) type ShortLock<T> = lock_api::Mutex<RawShortLock, T>;

/// Looks at a lock that somebody holds before sleeping.
const SPINS: u32 = 100;

/// The lock itself.
pub(crate) struct RawShortLock {
    /// 1 while somebody holds it.
    held: AtomicU32,
    /// Threads that sleep, or are about to.
    sleepers: AtomicU32,
}

// SAFETY: who changes `held` from 0 to 1 holds the lock, until it stores 0 itself.
unsafe impl RawMutex for RawShortLock {
    const INIT: Self = Self { held: AtomicU32::new(0), sleepers: AtomicU32::new(0) };

    type GuardMarker = GuardNoSend;

    #[inline(always)]
    fn lock(&self) {
        if !self.try_lock() {
            self.lock_contended();
        }
    }

    #[inline(always)]
    fn try_lock(&self) -> bool {
        self.held.compare_exchange(0, 1, Acquire, Relaxed).is_ok()
    }

    #[inline(always)]
    unsafe fn unlock(&self) {
        self.held.store(0, Release);
        process_barrier::light();
        if self.sleepers.load(Relaxed) != 0 {
            self.wake_one();
        }
    }
}

impl RawShortLock {
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

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn nobody_is_in_together_and_nobody_sleeps_for_ever() {
        process_barrier::prepare();
        const THREADS: u32 = 8;
        let rounds = if cfg!(miri) { 20 } else { 50_000 };
        let count = ShortLock::new(0_u32);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let count = &count;
                scope.spawn(move || {
                    for round in 0..rounds {
                        let mut held = count.lock();
                        let before = *held;
                        if (round + thread) % 64 == 0 {
                            // Long enough for the others to go to sleep.
                            thread::yield_now();
                        }
                        *held = before + 1;
                    }
                });
            }
        });
        assert_eq!(*count.lock(), THREADS * rounds);
    }

    #[test]
    fn a_lock_that_is_held_is_not_taken() {
        let lock = ShortLock::new(());
        let held = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(held);
        assert!(lock.try_lock().is_some());
    }
}
