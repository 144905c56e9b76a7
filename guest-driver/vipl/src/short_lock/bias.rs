//! Whose a lock is. A thread that has taken it twice in a row owns it, and from then on takes it without a locked instruction, until another
//! thread wants it too: then it is everybody's, for good.
//!
//! All others, and the owner-to-be, take a lock that is everybody's first, the shared one. Behind it
//!
//! * nobody owns the lock: who had it last becomes the owner;
//! * somebody does: the ownership is revoked, and the owner waited for if it is inside.
//!
//! The owner says that it is inside, passes the light half of a barrier, and looks whether the lock is still its own; who revokes says so,
//! passes the heavy half, and looks whether the owner is inside. One of the two sees the other. Leaving is the same with "outside", so that
//! an owner that is waited for knows it.
//!
//! A lock that has been revoked is never owned again: its owner may be about to say that it is inside, and take it back, at any time later.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use vianic_abi::sync::{Atomic as _, Atomics};

/// A memory barrier in two halves, as in [`process_barrier`](crate::process_barrier).
pub(super) trait Barrier {
    type Atomics: Atomics;
    /// Whether the light half is lighter than a locked instruction; for good, once it is.
    fn is_light() -> bool;
    /// The light half, where it is.
    fn light();
    fn heavy();
}

/// Who the lock belongs to, as a word says it: the numbers of threads are multiples of 8.
enum Owner {
    /// Nobody. The thread with this number has had it last, if it is not 0.
    Nobody(u64),
    /// A thread, by its number.
    Thread,
    /// Nobody any more; the owner may be inside still.
    Revoked,
    /// Everybody.
    Shared,
}

/// Bits of a word that is not a thread's number.
const KIND: u64 = 7;
const LAST: u64 = 1;
const REVOKED: u64 = 2;
const SHARED: u64 = 3;

/// The word of a lock that nobody has had.
pub(super) const FRESH: u64 = LAST;

impl Owner {
    #[inline(always)]
    const fn of(word: u64) -> Self {
        match word & KIND {
            0 => Self::Thread,
            LAST => Self::Nobody(word & !KIND),
            REVOKED => Self::Revoked,
            _ => Self::Shared,
        }
    }
}

/// What whoever has the shared lock has of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// All of it, while it keeps the shared lock.
    Inside,
    /// All of it, as its owner: the shared lock is to be unlocked.
    Owned,
    /// Nothing while the owner is inside: wait for that, and ask again.
    OwnerIsInside,
}

/// What was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing: who called is inside by the shared lock.
    Nothing,
    /// The lock, as its owner.
    Owned,
    /// The lock, and somebody waits for that.
    Awaited,
}

pub(super) struct Bias<B: Barrier> {
    owner: <B::Atomics as Atomics>::U64,
    /// 1 while the owner is inside, or about to find out that it is the owner no more.
    inside: <B::Atomics as Atomics>::U32,
}

impl<B: Barrier> Bias<B> {
    /// A lock over a word that is [`FRESH`] and one that is 0.
    pub(super) const fn new(
        owner: <B::Atomics as Atomics>::U64,
        inside: <B::Atomics as Atomics>::U32,
    ) -> Self {
        Self { owner, inside }
    }

    /// 1 while whoever is to be waited for is inside.
    pub(super) fn inside(&self) -> &<B::Atomics as Atomics>::U32 {
        &self.inside
    }

    /// Takes the lock if it is thread `me`'s own, which is not inside yet.
    #[inline(always)]
    pub(super) fn enter(&self, me: u64) -> Result<(), Left> {
        if self.owner.load(Relaxed) != me || self.inside.load(Relaxed) != 0 {
            return Err(Left::Nothing);
        }
        self.inside.store(1, Relaxed);
        B::light();
        if self.owner.load(Relaxed) == me {
            return Ok(());
        }
        self.inside.store(0, Release);
        Err(Left::Awaited)
    }

    /// Leaves the lock, if it was taken by its owner.
    #[inline(always)]
    pub(super) fn leave(&self) -> Left {
        match Owner::of(self.owner.load(Relaxed)) {
            Owner::Nobody(_) | Owner::Shared => return Left::Nothing,
            Owner::Thread | Owner::Revoked => {}
        }
        self.inside.store(0, Release);
        B::light();
        match Owner::of(self.owner.load(Relaxed)) {
            Owner::Thread => Left::Owned,
            _ => Left::Awaited,
        }
    }

    /// Thread `me` has the shared lock.
    #[cold]
    pub(super) fn turn(&self, me: u64) -> Turn {
        match Owner::of(self.owner.load(Relaxed)) {
            Owner::Shared => return Turn::Inside,
            Owner::Nobody(last) if last == me && B::is_light() => {
                self.inside.store(1, Relaxed);
                self.owner.store(me, Relaxed);
                return Turn::Owned;
            }
            Owner::Nobody(_) => {
                self.owner.store(me | LAST, Relaxed);
                return Turn::Inside;
            }
            Owner::Thread => {
                self.owner.store(REVOKED, Relaxed);
                B::heavy();
            }
            Owner::Revoked => {}
        }
        if self.inside.load(Acquire) != 0 {
            return Turn::OwnerIsInside;
        }
        self.owner.store(SHARED, Relaxed);
        Turn::Inside
    }
}
