//! The Master Completion Queue and the Notification Request Area (claims 1, 17, 18, 20 and 21).
//!
//! * **Complete.** The NIC writes a completion into the next MCQ entry and makes it valid by storing its
//!   sequence word, *release*. An entry is valid when its sequence word equals its index; indices start at
//!   1. Then it fences and looks at the NRA word: if it is armed, it disarms it and notifies, once.
//! * **Reap.** The consumer takes entries in order while they are valid and publishes how many it has taken
//!   in the `consumed` word, *release*.
//! * **Arm.** To wait, the consumer stores 1 in the NRA word, fences, and looks at the queue once more; only
//!   if it is still empty does it sleep. With a fence on both sides one of the two sees the other: no
//!   wake-up is lost.
//! * **Full.** The NIC never overwrites an entry that was not taken. It keeps the completion, sets the
//!   `stalled` word, fences and looks at `consumed` once more. The consumer, after publishing `consumed`,
//!   fences and looks at `stalled`: if set, it clears it and rings its context's doorbell.
//!
//! The same NRA rule serves work queues without a completion queue: there the "entry" is the descriptor's
//! status word. `tests/loom.rs` explores all interleavings.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::sync::{Atomic, Atomics, CacheLine, Native};
use crate::{open_enum, shared_layout, slot};

/// Bytes of the header, before the entries.
pub const MCQ_HEADER_SIZE: usize = 256;
/// Bytes of an entry.
pub const MCQ_ENTRY_SIZE: usize = 32;
/// Smallest and largest number of entries, as powers of two.
pub const MCQ_ENTRIES_LOG2: core::ops::RangeInclusive<u8> = 4..=16;
/// The number of entries that the Kernel Agent gives a context, as a power of two.
pub const DEFAULT_MCQ_ENTRIES_LOG2: u8 = 12;

open_enum! {
    /// What an MCQ entry reports.
    CompletionKind: u8 {
        /// A descriptor of a work queue with a completion queue.
        DESCRIPTOR = 1,
        /// A control command; in context 0's MCQ only. `descriptor` is the command's tag.
        COMMAND = 2,
        /// An asynchronous error: `status` is an [`ErrorCode`](crate::status::ErrorCode), `vi` the VI.
        ERROR = 3,
    }
}

/// Flag of an MCQ entry: the work queue is the VI's receive queue.
pub const COMPLETION_RECEIVE: u8 = 0x01;

/// An MCQ entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Completion {
    /// The entry's index in the queue's endless sequence; makes the entry valid.
    pub sequence: u32,
    /// Completion queue that the work queue reports to.
    pub cq: u16,
    /// [`CompletionKind`].
    pub kind: u8,
    /// [`COMPLETION_RECEIVE`] or 0.
    pub flags: u8,
    /// Virtual address of the descriptor, or the command's tag.
    pub descriptor: u64,
    /// The descriptor's status word, or a command's [`Status`](crate::status::Status).
    pub status: u32,
    /// Bytes transferred.
    pub length: u32,
    /// VI number.
    pub vi: u16,
    /// Zero.
    pub reserved: u16,
    /// Immediate data; valid if the status says so.
    pub immediate: u32,
}
shared_layout!(Completion, MCQ_ENTRY_SIZE, {
    sequence @ 0, cq @ 4, kind @ 6, flags @ 7, descriptor @ 8, status @ 16, length @ 20, vi @ 24, reserved @ 26, immediate @ 28,
});

/// The header: each word alone on its cache line, as each has its own writer.
#[derive(Debug)]
#[repr(C)]
pub struct McqHeader<A: Atomics = Native> {
    /// Entries taken so far; the consumer writes it.
    pub consumed: CacheLine<A::U32>,
    /// 1 while the NIC holds completions back for want of room; the consumer clears it.
    pub stalled: CacheLine<A::U32>,
    /// Unused.
    pub reserved: [CacheLine<A::U32>; 2],
}

/// One entry.
pub type McqSlot<A = Native> = slot::Slot<{ MCQ_ENTRY_SIZE / 8 }, A>;

const _: () = {
    assert!(size_of::<McqHeader>() == MCQ_HEADER_SIZE);
    assert!(core::mem::offset_of!(McqHeader, stalled) == 64);
    assert!(size_of::<McqSlot>() == MCQ_ENTRY_SIZE);
};

/// Bytes of a Master Completion Queue with 2^`entries_log2` entries.
#[must_use]
pub const fn mcq_size(entries_log2: u8) -> usize {
    MCQ_HEADER_SIZE + (MCQ_ENTRY_SIZE << entries_log2)
}

/// A Master Completion Queue in shared memory.
#[derive(Debug)]
pub struct Mcq<'a, A: Atomics = Native> {
    header: &'a McqHeader<A>,
    slots: &'a [McqSlot<A>],
}

impl<A: Atomics> Clone for Mcq<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: Atomics> Copy for Mcq<'_, A> {}

impl<'a, A: Atomics> Mcq<'a, A> {
    /// A queue over its header and its entries.
    ///
    /// # Panics
    /// If the number of slots is not a power of two.
    #[must_use]
    pub fn new(header: &'a McqHeader<A>, slots: &'a [McqSlot<A>]) -> Self {
        assert!(slots.len().is_power_of_two());
        Self { header, slots }
    }

    /// Number of entries.
    #[must_use]
    pub fn entries(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    #[inline]
    fn slot(&self, index: u32) -> &'a McqSlot<A> {
        &self.slots[index as usize & (self.slots.len() - 1)]
    }
}

/// Why a completion could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// No room; the consumer will ring when there is.
    Full,
    /// The consumer claims to have taken entries that were never written: the queue is corrupt.
    Corrupt,
}

/// The NIC's end of an MCQ. Its place in the sequence is its own and never read back from the guest.
#[derive(Debug, Default)]
pub struct Producer {
    produced: u32,
}

impl Producer {
    /// The NIC's end of a fresh queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn has_room<A: Atomics>(&self, mcq: Mcq<'_, A>) -> Result<bool, PushError> {
        let waiting = self.produced.wrapping_sub(mcq.header.consumed.0.load(Acquire));
        match waiting.cmp(&mcq.entries()) {
            core::cmp::Ordering::Less => Ok(true),
            core::cmp::Ordering::Equal => Ok(false),
            core::cmp::Ordering::Greater => Err(PushError::Corrupt),
        }
    }

    /// Writes `completion` as the next entry. The caller then asks the NRA ([`take_armed`]).
    ///
    /// # Errors
    /// [`PushError::Full`] leaves the `stalled` word set; try again when the doorbell rings.
    #[inline]
    pub fn push<A: Atomics>(&mut self, mcq: Mcq<'_, A>, completion: &Completion) -> Result<(), PushError> {
        if !self.has_room(mcq)? {
            mcq.header.stalled.0.store(1, Relaxed);
            A::fence();
            if !self.has_room(mcq)? {
                return Err(PushError::Full);
            }
            mcq.header.stalled.0.store(0, Relaxed);
        }
        let index = self.produced.wrapping_add(1);
        mcq.slot(index).publish(index, zerocopy::transmute_ref!(completion));
        self.produced = index;
        Ok(())
    }
}

/// The consumer's end of an MCQ. One thread at a time; VIPL holds a lock around it.
#[derive(Debug, Default)]
pub struct Consumer {
    consumed: u32,
}

impl Consumer {
    /// The consumer's end of a fresh queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether an entry is there to take.
    #[inline]
    #[must_use]
    pub fn is_ready<A: Atomics>(&self, mcq: Mcq<'_, A>) -> bool {
        let index = self.consumed.wrapping_add(1);
        mcq.slot(index).is_valid(index)
    }

    /// Takes the next entry if there is one. Its slot goes back to the NIC with
    /// [`publish`](Self::publish).
    #[inline]
    pub fn pop<A: Atomics>(&mut self, mcq: Mcq<'_, A>) -> Option<Completion> {
        let index = self.consumed.wrapping_add(1);
        let words = mcq.slot(index).copy(index)?;
        self.consumed = index;
        Some(zerocopy::transmute!(words))
    }

    /// Hands the slots of all entries taken so far back to the NIC. `true`: the NIC was waiting for room,
    /// ring the context's doorbell.
    #[must_use = "a stalled NIC waits for the doorbell"]
    pub fn publish<A: Atomics>(&self, mcq: Mcq<'_, A>) -> bool {
        mcq.header.consumed.0.store(self.consumed, Release);
        A::fence();
        mcq.header.stalled.0.load(Relaxed) != 0 && mcq.header.stalled.0.swap(0, Relaxed) != 0
    }
}

/// The consumer arms an NRA word: the next completion notifies. After it, look at the queue once more
/// before sleeping.
#[inline]
pub fn arm<A: Atomics>(nra_word: &A::U32) {
    nra_word.store(1, Relaxed);
    A::fence();
}

/// The NIC, having completed something, asks whether to notify; disarms the word if so. `true` once for
/// each arming.
///
/// The caller fences ([`Atomics::fence`]) between the completion and this call; one fence serves all words
/// that one completion, or one batch of completions, concerns.
#[inline]
#[must_use = "an armed word asks for a notification"]
pub fn take_armed<A: Atomics>(nra_word: &A::U32) -> bool {
    nra_word.load(Relaxed) != 0 && nra_word.swap(0, Relaxed) != 0
}
