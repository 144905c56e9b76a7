//! The Memory Region Table (claims 2, 12 and 13): host-resident, written by the Kernel Agent alone, read by the
//! card.
//!
//! The table is made of chunks of [`MRT_CHUNK_ENTRIES`] entries, given to the card one by one. An entry holds the
//! region's page addresses itself, up to [`INLINE_PAGES`]; a larger region's entry holds the guest-physical
//! address of a page directory: an array of guest-physical addresses of leaves, each leaf 512 page addresses
//! of 64 bits (4096 bytes).
//!
//! Tag and permissions of a live entry may change ([`MrtSlot::change`]) while the card reads it ([`MrtSlot::copy`]). Whatever the
//! card reads, it never finds permissions that the tag beside them did not have. A copy of the entry is good
//! until the handle is drained from the MDL, and the changer waits for that. `tests/loom.rs` explores all interleavings.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::shared_layout;
use crate::sync::{Atomic, Atomics, Native};

/// Bytes of an entry.
pub const MRT_ENTRY_SIZE: usize = 128;
/// 64-bit words of an entry.
pub const MRT_ENTRY_WORDS: usize = MRT_ENTRY_SIZE / 8;
/// Entries of a chunk.
pub const MRT_CHUNK_ENTRIES: u32 = 8192;
/// Chunks that a table may have.
pub const MRT_MAX_CHUNKS: u32 = 16;
/// Entries that a table may have.
pub const MRT_MAX_ENTRIES: u32 = MRT_CHUNK_ENTRIES * MRT_MAX_CHUNKS;
/// Page addresses that fit into an entry: the "maximum area for local data" of claim 13.
pub const INLINE_PAGES: usize = 10;
/// Page addresses in a leaf of a page table.
pub const LEAF_PAGES: u64 = 512;

/// Bits of a memory handle that are the MRT index; the others are the generation.
pub const HANDLE_INDEX_BITS: u32 = 20;
/// Generations run from 1 to this and start again, so that handles 0 and 0xFFFFFFFF never occur.
pub const MAX_GENERATION: u32 = (1 << (32 - HANDLE_INDEX_BITS)) - 2;

/// Access: the region may be the target of RDMA writes.
pub const ACCESS_RDMA_WRITE: u16 = 0x0001;
/// Access: the region may be the source of RDMA reads.
pub const ACCESS_RDMA_READ: u16 = 0x0002;

/// The protection tag of VIs and regions that were given none. It goes with every tag of its context.
pub const DEFAULT_PTAG: u32 = 0;

/// The MRT index of a memory handle (claim 15).
#[must_use]
pub const fn handle_index(handle: u32) -> u32 {
    handle & ((1 << HANDLE_INDEX_BITS) - 1)
}

/// The memory handle of `index` in its `generation`.
#[must_use]
pub const fn handle(index: u32, generation: u32) -> u32 {
    generation << HANDLE_INDEX_BITS | index
}

/// A registered region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct MrtEntry {
    /// The region's memory handle; 0 while the entry is free. The Kernel Agent stores it last.
    pub handle: u32,
    /// Protection tag.
    pub ptag: u32,
    /// Context that the region belongs to.
    pub context: u16,
    /// `ACCESS_*`.
    pub access: u16,
    /// Pages are 2^`page_shift` bytes; 12 to 30.
    pub page_shift: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// First byte, a virtual address of the owner.
    pub virtual_address: u64,
    /// Bytes; more than 0.
    pub length: u64,
    /// Pages that the region touches.
    pub page_count: u64,
    /// Guest-physical address of the page directory, or 0 if the addresses are in `pages`.
    pub page_directory: u64,
    /// Page addresses, if there are no more than [`INLINE_PAGES`].
    pub pages: [u64; INLINE_PAGES],
}
shared_layout!(MrtEntry, MRT_ENTRY_SIZE, {
    handle @ 0, ptag @ 4, context @ 8, access @ 10, page_shift @ 12, reserved @ 13, virtual_address @ 16, length @ 24, page_count @ 32, page_directory @ 40, pages @ 48,
});

/// Where `access` is among the words of an entry.
const ACCESS_WORD: usize = core::mem::offset_of!(MrtEntry, access) / 8;
const _: () = assert!(core::mem::offset_of!(MrtEntry, ptag) < 8 && ACCESS_WORD > 0);

/// Times that an entry is read before it is taken for none.
const MRT_READS: u32 = 4;

/// An entry in shared memory: its first word holds the handle, which makes it valid.
///
/// The Kernel Agent enters a region only after the card has let go of the one before
/// ([`mdl`](crate::mdl)), so the card never reads an entry that is half one region and half another.
#[derive(Clone, Copy, Debug)]
pub struct MrtSlot<'a, A: Atomics = Native> {
    words: &'a [A::U64; MRT_ENTRY_WORDS],
}

impl<'a, A: Atomics> MrtSlot<'a, A> {
    /// The entry that consists of these words.
    #[must_use]
    pub fn new(words: &'a [A::U64; MRT_ENTRY_WORDS]) -> Self {
        Self { words }
    }

    /// Enters a region. From here on its handle works.
    pub fn enter(&self, entry: &MrtEntry) {
        let words: &[u64; MRT_ENTRY_WORDS] = zerocopy::transmute_ref!(entry);
        for (shared, word) in self.words.iter().zip(words).skip(1) {
            shared.store(*word, Relaxed);
        }
        self.words[0].store(words[0], Release);
    }

    /// Takes the region out. The card may know it still: the handle goes into the MDL next.
    pub fn retire(&self) {
        self.words[0].store(0, Relaxed);
    }

    /// Gives the region another tag and other permissions. One change of an entry at a time, and no other before the card has let
    /// go of the handle, which goes into the MDL next.
    pub fn change(&self, ptag: u32, access: u16) {
        let load = |i: usize| self.words[i].load(Relaxed);
        let [handle, _]: [u32; 2] = zerocopy::transmute!(load(0));
        let [context, old_access, page, reserved]: [u16; 4] = zerocopy::transmute!(load(ACCESS_WORD));
        let with_access = |access: u16| zerocopy::transmute!([context, access, page, reserved]);
        // What both allow, before the tag; what the new ones allow, after it.
        self.words[ACCESS_WORD].store(with_access(old_access & access), Release);
        self.words[0].store(zerocopy::transmute!([handle, ptag]), Release);
        self.words[ACCESS_WORD].store(with_access(access), Release);
    }

    /// Copies the region of `handle` if it is here: once, so that what is validated later is what is used. `None` also if its
    /// tag never stays the same meanwhile: a Kernel Agent that keeps the rules changes it no more than once.
    #[must_use]
    pub fn copy(&self, handle: u32) -> Option<MrtEntry> {
        for _ in 0..MRT_READS {
            let first = self.words[0].load(Acquire);
            let [held, _ptag]: [u32; 2] = zerocopy::transmute!(first);
            if held != handle || handle == 0 {
                return None;
            }
            let mut words = [first; MRT_ENTRY_WORDS];
            for (word, shared) in words.iter_mut().zip(self.words).skip(1) {
                // Each before the last look at the first word.
                *word = shared.load(Acquire);
            }
            if self.words[0].load(Relaxed) == first {
                return Some(zerocopy::transmute!(words));
            }
        }
        None
    }
}
