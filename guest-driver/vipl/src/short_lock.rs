//! A lock for sections of a few dozen instructions that every message passes through.
//!
//! Most work queues are one thread's. For it the lock costs plain loads and stores ([`bias`]): a locked instruction would wait for all
//! stores before it, those to cache lines that the card has included. With several threads it costs one ([`shared`]).
#![expect(unsafe_code, reason = "lock_api's trait promises mutual exclusion")]

mod bias;
#[cfg(test)]
mod model;
mod shared;
mod thread;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

use parking_lot::lock_api::{self, GuardNoSend, RawMutex};
use rustix::thread::futex;
use vianic_abi::sync::Native;

use crate::process_barrier;
use bias::{Barrier, Bias, FRESH, Left, Turn};
use shared::SharedLock;

/// A value under a short lock.
pub(crate) type ShortLock<T> = lock_api::Mutex<RawShortLock, T>;

/// Looks at a lock that somebody holds before sleeping.
const SPINS: u32 = 100;

/// The lock itself.
pub(crate) struct RawShortLock {
    bias: Bias<ProcessBarrier>,
    shared: SharedLock,
}

enum ProcessBarrier {}

impl Barrier for ProcessBarrier {
    type Atomics = Native;

    fn is_light() -> bool {
        process_barrier::is_light()
    }

    #[inline(always)]
    fn light() {
        compiler_fence(Ordering::SeqCst);
    }

    fn heavy() {
        process_barrier::heavy();
    }
}

// SAFETY: only one thread at a time is inside by the bias or has its turn with the shared lock, which it keeps until it unlocks: the
// model shows it.
unsafe impl RawMutex for RawShortLock {
    const INIT: Self =
        Self { bias: Bias::new(AtomicU64::new(FRESH), AtomicU32::new(0)), shared: SharedLock::new() };

    type GuardMarker = GuardNoSend;

    #[inline(always)]
    fn lock(&self) {
        let me = thread::current();
        if let Err(left) = self.bias.enter(me) {
            self.lock_shared(me, left);
        }
    }

    fn try_lock(&self) -> bool {
        let me = thread::current();
        match self.bias.enter(me) {
            Ok(()) => return true,
            Err(left) => self.tell(left),
        }
        if !self.shared.try_lock() {
            return false;
        }
        let turn = self.bias.turn(me);
        if turn != Turn::Inside {
            self.shared.unlock();
        }
        turn != Turn::OwnerIsInside
    }

    #[inline(always)]
    unsafe fn unlock(&self) {
        match self.bias.leave() {
            Left::Owned => {}
            Left::Nothing => self.shared.unlock(),
            Left::Awaited => self.tell(Left::Awaited),
        }
    }
}

impl RawShortLock {
    #[inline(never)]
    fn lock_shared(&self, me: u64, left: Left) {
        self.tell(left);
        self.shared.lock();
        loop {
            match self.bias.turn(me) {
                Turn::Inside => return,
                Turn::Owned => return self.shared.unlock(),
                Turn::OwnerIsInside => self.wait_for_owner(),
            }
        }
    }

    #[cold]
    fn wait_for_owner(&self) {
        let inside = self.bias.inside();
        for _ in 0..SPINS {
            std::hint::spin_loop();
            if inside.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
        // However it ends, the caller looks again.
        let _ = futex::wait(inside, futex::Flags::PRIVATE, 1, None);
    }

    /// Wakes who waits for the owner, if anybody does.
    #[cold]
    fn tell(&self, left: Left) {
        if left == Left::Awaited {
            // It fails for addresses that are not mapped only.
            let _ = futex::wake(self.bias.inside(), futex::Flags::PRIVATE, 1);
        }
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

    #[test]
    fn a_lock_is_taken_away_from_its_owner() {
        process_barrier::prepare();
        let (locks, rounds) = if cfg!(miri) { (2, 20) } else { (300, 2_000) };
        for _ in 0..locks {
            let count = ShortLock::new(0_u32);
            let add = || *count.lock() += 1;
            thread::scope(|scope| {
                scope.spawn(|| (0..rounds).for_each(|_| add()));
                (0..rounds / 100).for_each(|_| add());
            });
            assert_eq!(*count.lock(), rounds + rounds / 100);
        }
    }

    #[test]
    fn an_owner_that_holds_its_lock_does_not_get_it_again() {
        process_barrier::prepare();
        let lock = ShortLock::new(());
        (0..4).for_each(|_| drop(lock.lock()));
        let held = lock.lock();
        assert!(lock.try_lock().is_none());
        assert!(thread::scope(|scope| scope.spawn(|| lock.try_lock().is_none()).join().unwrap()));
        drop(held);
        assert!(lock.try_lock().is_some());
    }
}
