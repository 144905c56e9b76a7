//! The Token Table and its posting protocol (claims 5, 7 and 9).
//!
//! Many posters, one NIC, no lock and no system call:
//!
//! * **Post.** A poster adds one to Last_Inserted_Entry; the result is its Local_Insert_Index, the entry's
//!   place in an endless sequence. If the table is full it waits until the NIC has accepted enough (posters share what they
//!   know of it, [`Poster`], and look at the NIC's word only when that is not enough). It then
//!   fills the entry and publishes it by storing the entry's sequence word, *release*, as the last thing.
//! * **Validity.** An entry is valid when its sequence word equals its index. Indices start at 1 and the
//!   table at zero, so this holds from the first lap, across wrap-around, and for a poster that has
//!   reserved an entry but not filled it yet.
//! * **Doorbell.** After publishing, the poster fences and looks: if the NIC sleeps and this is the first
//!   unaccepted entry, it rings. Before sleeping the NIC says so, fences, and looks at its next entry once
//!   more. With a fence on both sides between "my write" and "my look at yours", one of the two sees the
//!   other: no wake-up is lost.
//! * **Accept.** The NIC copies entries in order while they are valid, then publishes how far it came in
//!   Last_Accepted_Entry, *release*: entries up to it may be overwritten.
//!
//! The orderings needed: add to Last_Inserted_Entry *relaxed* (it only hands out numbers); sequence word
//! *release*/*acquire*; Last_Accepted_Entry *release*/*acquire*, as it hands memory back; the state word
//! *relaxed* with sequentially consistent fences around. `tests/loom.rs` explores all interleavings.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sync::{Atomic, Atomics, CacheLine, Native};
use crate::token::{TOKEN_SIZE, Token};
use crate::{open_enum, slot};

/// Bytes of the header, before the Post_Array.
pub const HEADER_SIZE: usize = 256;
/// Smallest and largest number of entries, as powers of two.
pub const ENTRIES_LOG2: core::ops::RangeInclusive<u8> = 4..=14;
/// The number of entries that the Kernel Agent gives a context, as a power of two.
pub const DEFAULT_ENTRIES_LOG2: u8 = 10;

open_enum! {
    /// What the NIC is doing about a Token Table.
    NicState: u32 {
        /// It does not look: the poster of the first unaccepted entry rings the doorbell.
        ASLEEP = 0,
        /// It polls: nobody rings.
        POLLING = 1,
        /// It will accept nothing more: the context is broken or gone, posters give up.
        CLOSED = 2,
    }
}

/// The header: each word alone on its cache line, as each has its own writer.
#[derive(Debug)]
#[repr(C)]
pub struct Header<A: Atomics = Native> {
    /// The last entry handed out; posters add to it.
    pub last_inserted_entry: CacheLine<A::U32>,
    /// The last entry accepted; the NIC writes it.
    pub last_accepted_entry: CacheLine<A::U32>,
    /// [`NicState`]; the NIC writes it.
    pub nic_state: CacheLine<A::U32>,
    /// Unused.
    pub reserved: CacheLine<A::U32>,
}

/// One entry of the Post_Array.
pub type Slot<A = Native> = slot::Slot<{ TOKEN_SIZE / 8 }, A>;

const _: () = {
    assert!(size_of::<Header>() == HEADER_SIZE);
    assert!(core::mem::offset_of!(Header, last_accepted_entry) == 64);
    assert!(core::mem::offset_of!(Header, nic_state) == 128);
    assert!(size_of::<Slot>() == TOKEN_SIZE);
};

/// Bytes of a Token Table with 2^`entries_log2` entries.
#[must_use]
pub const fn table_size(entries_log2: u8) -> usize {
    HEADER_SIZE + (TOKEN_SIZE << entries_log2)
}

/// A Token Table in shared memory.
#[derive(Debug)]
pub struct TokenTable<'a, A: Atomics = Native> {
    header: &'a Header<A>,
    slots: &'a [Slot<A>],
}

impl<A: Atomics> Clone for TokenTable<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: Atomics> Copy for TokenTable<'_, A> {}

/// Why an entry could not be posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostError {
    /// The NIC has closed the table.
    Closed,
    /// The table stayed full and the caller's wait gave up. The table is unusable from here on, as a
    /// reserved entry will never be filled.
    GaveUp,
}

impl<'a, A: Atomics> TokenTable<'a, A> {
    /// A table over its header and its Post_Array.
    ///
    /// # Panics
    /// If the number of slots is not a power of two.
    #[must_use]
    pub fn new(header: &'a Header<A>, slots: &'a [Slot<A>]) -> Self {
        assert!(slots.len().is_power_of_two());
        Self { header, slots }
    }

    /// Number of entries.
    #[must_use]
    pub fn entries(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    #[inline]
    fn slot(&self, index: u32) -> &'a Slot<A> {
        &self.slots[index as usize & (self.slots.len() - 1)]
    }

    fn nic_state(&self) -> NicState {
        NicState(self.header.nic_state.0.load(Relaxed))
    }
}

/// The posters' end of a Token Table, one for all posters of a process: how far they know the NIC to have come. The
/// NIC's own word for it moves between processors with each batch that the NIC accepts; posters look at it only when the
/// table is full as far as they know.
#[derive(Debug, Default)]
pub struct Poster<W = core::sync::atomic::AtomicU32> {
    accepted: W,
}

impl<W> Poster<W> {
    /// The posters' end of a fresh table, over a word that is zero.
    #[must_use]
    pub const fn new(accepted: W) -> Self {
        Self { accepted }
    }

    /// Posts `token` and says whether the doorbell must be rung: [`reserve`](Self::reserve) and [`publish`](Self::publish) in one.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    #[inline]
    pub fn post<A: Atomics<U32 = W>>(
        &self,
        table: TokenTable<'_, A>,
        token: &Token,
        wait: impl FnMut() -> bool,
    ) -> Result<Doorbell, PostError>
    where
        W: Atomic<u32>,
    {
        let reservation = self.reserve(table, wait)?;
        Ok(self.publish(table, reservation, token))
    }

    /// Takes the next entry, which must then be [published](Self::publish): the NIC waits for it.
    ///
    /// `wait` is called each time the table is found full; it backs off, and ends the wait by returning
    /// `false` when there is no more hope.
    ///
    /// # Errors
    /// [`PostError::Closed`] when the NIC has closed the table, [`PostError::GaveUp`] when `wait` gave up.
    #[inline]
    pub fn reserve<A: Atomics<U32 = W>>(
        &self,
        table: TokenTable<'_, A>,
        mut wait: impl FnMut() -> bool,
    ) -> Result<Reservation, PostError>
    where
        W: Atomic<u32>,
    {
        if table.nic_state() == NicState::CLOSED {
            return Err(PostError::Closed);
        }
        let local_insert_index = table.header.last_inserted_entry.0.fetch_add(1, Relaxed).wrapping_add(1);
        // Ours to fill once the entry that lies there now, one lap back, has been accepted.
        while !self.has_room(table, local_insert_index) {
            if table.nic_state() == NicState::CLOSED {
                return Err(PostError::Closed);
            }
            if !wait() {
                return Err(PostError::GaveUp);
            }
        }
        Ok(Reservation { local_insert_index })
    }

    /// Fills the entry that was reserved in `table`, makes it valid, and says whether the doorbell must be rung.
    #[inline]
    pub fn publish<A: Atomics<U32 = W>>(
        &self,
        table: TokenTable<'_, A>,
        reservation: Reservation,
        token: &Token,
    ) -> Doorbell
    where
        W: Atomic<u32>,
    {
        let Reservation { local_insert_index } = reservation;
        table.slot(local_insert_index).publish_and_fence(local_insert_index, zerocopy::transmute_ref!(token));
        // The slot of the next entry but one is still in the NIC's cache from a lap ago. The very next one may be what the
        // NIC looks at.
        A::prefetch_for_write(table.slot(local_insert_index.wrapping_add(2)));
        if table.nic_state() == NicState::POLLING {
            return Doorbell::NotNeeded;
        }
        let last_accepted = table.header.last_accepted_entry.0.load(Relaxed);
        if last_accepted.wrapping_add(1) == local_insert_index { Doorbell::Ring } else { Doorbell::NotNeeded }
    }

    /// Whether the slot of entry `index` is free to fill.
    #[inline]
    fn has_room<A: Atomics<U32 = W>>(&self, table: TokenTable<'_, A>, index: u32) -> bool
    where
        W: Atomic<u32>,
    {
        let known = self.accepted.load(Acquire);
        let is_free = |accepted: u32| index.wrapping_sub(accepted) <= table.entries();
        is_free(known) || {
            let now = table.header.last_accepted_entry.0.load(Acquire);
            // Another poster may know better by now: what it knows is never put back.
            self.accepted.replace(known, now);
            is_free(now)
        }
    }
}

/// An entry of a Token Table that is a poster's to fill.
#[derive(Debug)]
#[must_use = "the NIC accepts no later entry before this one is published"]
pub struct Reservation {
    local_insert_index: u32,
}

/// Whether a poster must ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a doorbell that is due and not rung leaves the NIC asleep"]
pub enum Doorbell {
    /// Write the new-entry-posted notification to the Out Post FIFO.
    Ring,
    /// The NIC sees the entry without it, or the poster of an earlier entry rings.
    NotNeeded,
}

/// The NIC's end of a Token Table. Its place in the sequence is its own and never read back from the guest.
#[derive(Debug)]
pub struct Acceptor {
    last_accepted: u32,
}

impl Acceptor {
    /// The NIC's end of a fresh table.
    #[must_use]
    pub fn new() -> Self {
        Self { last_accepted: 0 }
    }

    /// The last entry accepted.
    #[must_use]
    pub fn last_accepted(&self) -> u32 {
        self.last_accepted
    }

    /// Copies the next entry if it is valid. The slot stays the NIC's until [`publish`](Self::publish).
    #[inline]
    pub fn next<A: Atomics>(&mut self, table: TokenTable<'_, A>) -> Option<Token> {
        let mut token = Token::default();
        (self.copy(table, core::slice::from_mut(&mut token)) == 1).then_some(token)
    }

    /// Copies the next entries that are valid, as far as there is room for them. How many. Their slots stay the NIC's until
    /// [`publish`](Self::publish).
    #[inline]
    pub fn copy<A: Atomics>(&mut self, table: TokenTable<'_, A>, tokens: &mut [Token]) -> usize {
        let mut index = self.last_accepted;
        let mut copied = 0;
        for token in tokens {
            let next = index.wrapping_add(1);
            if !table.slot(next).copy_to(next, zerocopy::transmute_mut!(token)) {
                break;
            }
            index = next;
            copied += 1;
        }
        self.last_accepted = index;
        copied
    }

    /// Whether the next entry is there.
    #[inline]
    pub fn is_pending<A: Atomics>(&self, table: TokenTable<'_, A>) -> bool {
        let index = self.last_accepted.wrapping_add(1);
        table.slot(index).is_valid(index)
    }

    /// Publishes Last_Accepted_Entry: hands the slots of all entries taken so far back to the posters.
    #[inline]
    pub fn publish<A: Atomics>(&self, table: TokenTable<'_, A>) {
        table.header.last_accepted_entry.0.store(self.last_accepted, Release);
    }

    /// Says that the NIC polls this table, so that posters need not ring.
    pub fn start_polling<A: Atomics>(&self, table: TokenTable<'_, A>) {
        table.header.nic_state.0.store(NicState::POLLING.0, Relaxed);
    }

    /// Says that the NIC no longer polls, and looks once more. `false`: an entry has come meanwhile; the
    /// NIC says that it polls again, and must go on. Call it with everything taken published.
    #[must_use]
    pub fn fall_asleep<A: Atomics>(&self, table: TokenTable<'_, A>) -> bool {
        table.header.nic_state.0.store(NicState::ASLEEP.0, Relaxed);
        A::fence();
        if self.is_pending(table) {
            self.start_polling(table);
            return false;
        }
        true
    }

    /// Closes the table: posters that wait and posters to come give up.
    pub fn close<A: Atomics>(&self, table: TokenTable<'_, A>) {
        table.header.nic_state.0.store(NicState::CLOSED.0, Relaxed);
    }
}

impl Default for Acceptor {
    fn default() -> Self {
        Self::new()
    }
}
