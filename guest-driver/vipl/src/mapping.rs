//! The memory that VIPL and the card share: one context's Token Table, MCQ, Notification Request Area and doorbell, and
//! the card's registers, as references to atomics.
#![expect(unsafe_code, reason = "the one place where shared memory becomes typed references")]

use std::any::Any;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};
use vianic_abi::completion::{MCQ_ENTRIES_LOG2, MCQ_HEADER_SIZE, Mcq, McqHeader, McqSlot, mcq_size};
use vianic_abi::nic_memory::{COUNTERS_OFFSET, Counters, LinkState, NRA_SIZE, NRA_WORDS, Registers};
use vianic_abi::sync::CacheLine;
use vianic_abi::token::Token;
use vianic_abi::token_table::{
    Doorbell as Due, ENTRIES_LOG2, HEADER_SIZE, Header, NicState, PostError, Poster, Reservation, Slot,
    TokenTable, table_size,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::agent::AgentError;

/// Bytes of the register mapping: the registers' page and the counters'.
pub const REGISTERS_MAP_SIZE: usize = 0x2000;

const NRA_BYTES: usize = 0x4000;
const _: () = assert!(NRA_BYTES as u64 == NRA_SIZE);

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Both sides write.
    ReadWrite,
    /// Only the card writes.
    ReadOnly,
}

/// A stretch of shared memory, mapped for as long as this lives.
pub struct Mapping {
    base: NonNull<u8>,
    length: usize,
    owner: Owner,
}

enum Owner {
    /// Unmapped when the mapping is dropped.
    Mapping,
    /// Part of something that lives elsewhere.
    Other { _keep_alive: Arc<dyn Any + Send + Sync> },
}

// SAFETY: a mapping is only ever read and written through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of `file` at `offset`, shared.
    ///
    /// # Errors
    /// As mmap(2).
    pub fn map(file: BorrowedFd<'_>, offset: u64, length: usize, access: Access) -> Result<Self, AgentError> {
        let protection = match access {
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
            Access::ReadOnly => ProtFlags::READ,
        };
        // SAFETY: the kernel chooses a free place, so that no other memory is touched.
        let base =
            unsafe { rustix::mm::mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, file, offset) };
        Self::owned(base, length)
    }

    /// Maps `length` zeroed bytes that belong to nobody else.
    ///
    /// # Errors
    /// As mmap(2).
    pub fn anonymous(length: usize) -> Result<Self, AgentError> {
        // SAFETY: the kernel chooses a free place, so that no other memory is touched.
        let base = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap_anonymous(ptr::null_mut(), length, protection, MapFlags::PRIVATE)
        };
        Self::owned(base, length)
    }

    fn owned(base: rustix::io::Result<*mut core::ffi::c_void>, length: usize) -> Result<Self, AgentError> {
        let base = base.map_err(|errno| AgentError::Io { call: "mmap", source: errno.into() })?;
        let base = NonNull::new(base.cast())
            .ok_or_else(|| AgentError::Unusable("mmap returned address 0".into()))?;
        Ok(Self { base, length, owner: Owner::Mapping })
    }

    /// A part of memory that something else has mapped, and keeps mapped until `keep_alive` is dropped.
    ///
    /// # Safety
    /// `length` bytes at `base` are mapped, readable and (but for registers) writable, as long as `keep_alive` lives;
    /// and in this process nobody accesses them but through atomics.
    #[must_use]
    pub unsafe fn part_of(base: NonNull<u8>, length: usize, keep_alive: Arc<dyn Any + Send + Sync>) -> Self {
        Self { base, length, owner: Owner::Other { _keep_alive: keep_alive } }
    }

    /// Bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// First byte.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// If they are not all in the mapping.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let (head, words, tail) = self.pieces(offset, into.len());
        let (head_into, rest) = into.split_at_mut(head.len());
        let (words_into, tail_into) = rest.split_at_mut(words.len() * 8);
        for (byte, shared) in head_into.iter_mut().zip(head).chain(tail_into.iter_mut().zip(tail)) {
            *byte = shared.load(Ordering::Relaxed);
        }
        for (bytes, shared) in words_into.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&shared.load(Ordering::Relaxed).to_ne_bytes());
        }
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// If they are not all in the mapping.
    pub fn write(&self, offset: usize, from: &[u8]) {
        let (head, words, tail) = self.pieces(offset, from.len());
        let (head_from, rest) = from.split_at(head.len());
        let (words_from, tail_from) = rest.split_at(words.len() * 8);
        for (byte, shared) in head_from.iter().zip(head).chain(tail_from.iter().zip(tail)) {
            shared.store(*byte, Ordering::Relaxed);
        }
        for (bytes, shared) in words_from.chunks_exact(8).zip(words) {
            let word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
            shared.store(word, Ordering::Relaxed);
        }
    }

    /// The 64-bit word at `offset`, with everything that was written before it.
    ///
    /// # Panics
    /// If it is not in the mapping or `offset` is not a multiple of 8.
    #[must_use]
    pub fn load_u64(&self, offset: usize) -> u64 {
        self.at::<AtomicU64>(offset).load(Ordering::Acquire)
    }

    /// `length` bytes at `offset`: those before the first whole word, the words, and those after the last.
    fn pieces(&self, offset: usize, length: usize) -> (&[AtomicU8], &[AtomicU64], &[AtomicU8]) {
        assert!(offset.checked_add(length).is_some_and(|end| end <= self.length), "out of the mapping");
        // SAFETY: within the mapping, as just asserted.
        let misalignment = unsafe { self.base.add(offset) }.align_offset(8);
        let head = misalignment.min(length);
        let words = (length - head) / 8;
        let tail = length - head - words * 8;
        (
            self.slice(offset, head),
            if words == 0 { &[] } else { self.slice(offset + head, words) },
            self.slice(offset + head + words * 8, tail),
        )
    }

    /// `count` values of `T` at `offset`.
    fn slice<T: Shareable>(&self, offset: usize, count: usize) -> &[T] {
        let bytes = size_of::<T>().checked_mul(count).and_then(|bytes| bytes.checked_add(offset));
        assert!(bytes.is_some_and(|end| end <= self.length), "out of the mapping");
        // SAFETY: within the mapping, as just asserted.
        let first = unsafe { self.base.add(offset) }.cast::<T>();
        assert!(first.is_aligned(), "not aligned");
        // SAFETY: mapped, aligned and, as T is Shareable, valid whatever its bytes are and whoever writes them.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), count) }
    }

    fn at<T: Shareable>(&self, offset: usize) -> &T {
        &self.slice(offset, 1)[0]
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Owner::Mapping = self.owner {
            // SAFETY: the mapping is ours, and no reference into it outlives self.
            let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length) };
            debug_assert_eq!(unmapped, Ok(()), "munmap of what was mapped");
        }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({:p}, {:#x} bytes)", self.base, self.length)
    }
}

/// A type of which any bytes are a value, and which another party may write at any time.
///
/// # Safety
/// It consists of atomics alone.
unsafe trait Shareable {}
// SAFETY: atomics.
unsafe impl Shareable for AtomicU8 {}
// SAFETY: atomics.
unsafe impl Shareable for AtomicU16 {}
// SAFETY: atomics.
unsafe impl Shareable for AtomicU32 {}
// SAFETY: atomics.
unsafe impl Shareable for AtomicU64 {}
// SAFETY: atomics.
unsafe impl Shareable for Header {}
// SAFETY: atomics.
unsafe impl Shareable for Slot {}
// SAFETY: atomics.
unsafe impl Shareable for McqHeader {}
// SAFETY: atomics.
unsafe impl Shareable for McqSlot {}

/// How a context's doorbell is rung.
pub enum Doorbell {
    /// A store to the doorbell page.
    Store {
        /// The page.
        page: Mapping,
        /// Offset of the 16-bit doorbell word.
        offset: u16,
        /// What to store.
        value: u16,
    },
    /// A call.
    Call(Box<dyn Fn() + Send + Sync>),
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store { page, offset, value } => write!(f, "Store({page:?} + {offset:#x}, {value})"),
            Self::Call(_) => f.write_str("Call"),
        }
    }
}

/// What [`ContextMemory`] is made of.
#[derive(Debug)]
pub struct ContextParts {
    /// Context number.
    pub context: u16,
    /// The Token Table, zeroed.
    pub token_table: Mapping,
    /// Its entries, as a power of two.
    pub token_table_log2: u8,
    /// The MCQ, zeroed.
    pub mcq: Mapping,
    /// Its entries, as a power of two.
    pub mcq_log2: u8,
    /// The Notification Request Area.
    pub nra: Mapping,
    /// The registers and counters.
    pub registers: Mapping,
    /// The doorbell.
    pub doorbell: Doorbell,
}

/// The Token Table in its mapping, checked once: every message is posted to it.
#[derive(Debug)]
struct CheckedTable {
    header: NonNull<Header>,
    slots: NonNull<[Slot]>,
}

// SAFETY: what they point to are atomics.
unsafe impl Send for CheckedTable {}
// SAFETY: as above.
unsafe impl Sync for CheckedTable {}

impl CheckedTable {
    fn new(mapping: &Mapping, entries_log2: u8) -> Self {
        let slots: &[Slot] = mapping.slice(HEADER_SIZE, 1 << entries_log2);
        Self { header: NonNull::from(mapping.at(0)), slots: NonNull::from(slots) }
    }
}

/// A context's memory. Also the card's side of it in tests.
#[derive(Debug)]
pub struct ContextMemory {
    /// Points into `parts`.
    token_table: CheckedTable,
    parts: ContextParts,
    mcq_entries: usize,
    poster: CacheLine<Poster>,
}

impl ContextMemory {
    /// A context's memory out of its parts.
    ///
    /// # Errors
    /// [`AgentError::Unusable`] if a part is smaller than it must be, or a number of entries is not allowed.
    pub fn new(parts: ContextParts) -> Result<Self, AgentError> {
        let unusable = |what: &str| Err(AgentError::Unusable(format!("{what}: {parts:?}")));
        if !ENTRIES_LOG2.contains(&parts.token_table_log2) || !MCQ_ENTRIES_LOG2.contains(&parts.mcq_log2) {
            return unusable("number of entries");
        }
        if parts.token_table.length() < table_size(parts.token_table_log2)
            || parts.mcq.length() < mcq_size(parts.mcq_log2)
            || parts.nra.length() < NRA_BYTES
            || parts.registers.length() < REGISTERS_MAP_SIZE
        {
            return unusable("size of a mapping");
        }
        if let Doorbell::Store { page, offset, .. } = &parts.doorbell
            && (usize::from(*offset) + 2 > page.length() || offset % 2 != 0)
        {
            return unusable("doorbell");
        }
        Ok(Self {
            token_table: CheckedTable::new(&parts.token_table, parts.token_table_log2),
            mcq_entries: 1 << parts.mcq_log2,
            parts,
            poster: CacheLine::default(),
        })
    }

    /// Context number.
    #[must_use]
    pub fn context(&self) -> u16 {
        self.parts.context
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: into a mapping that `parts` keeps as long as self; atomics, so others may write meanwhile.
        unsafe { self.token_table.header.as_ref() }
    }

    /// The Token Table.
    #[inline]
    #[must_use]
    pub fn token_table(&self) -> TokenTable<'_> {
        // SAFETY: as in `header`.
        TokenTable::new(self.header(), unsafe { self.token_table.slots.as_ref() })
    }

    /// Posts a token, as [`Poster::post`].
    ///
    /// # Errors
    /// When the card has closed the table, or `wait` gave up.
    #[inline]
    pub fn post(&self, token: &Token, wait: impl FnMut() -> bool) -> Result<Due, PostError> {
        self.poster.0.post(self.token_table(), token, wait)
    }

    /// Takes an entry of the Token Table, as [`Poster::reserve`].
    ///
    /// # Errors
    /// When the card has closed the table, or `wait` gave up.
    #[inline]
    pub fn reserve(&self, wait: impl FnMut() -> bool) -> Result<Reservation, PostError> {
        self.poster.0.reserve(self.token_table(), wait)
    }

    /// Fills an entry of the Token Table that was reserved, as [`Poster::publish`].
    #[inline]
    pub fn publish(&self, reservation: Reservation, token: &Token) -> Due {
        self.poster.0.publish(self.token_table(), reservation, token)
    }

    /// The last entry that the card has accepted.
    #[must_use]
    pub fn last_accepted_entry(&self) -> u32 {
        self.header().last_accepted_entry.0.load(Ordering::Relaxed)
    }

    /// Whether the card has closed the Token Table: the context has failed.
    #[inline]
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.header().nic_state.0.load(Ordering::Relaxed) == NicState::CLOSED.0
    }

    /// The MCQ.
    #[inline]
    #[must_use]
    pub fn mcq(&self) -> Mcq<'_> {
        let slots: &[McqSlot] = self.parts.mcq.slice(MCQ_HEADER_SIZE, self.mcq_entries);
        Mcq::new(self.parts.mcq.at(0), slots)
    }

    /// A word of the Notification Request Area.
    ///
    /// # Panics
    /// If there is no such word.
    #[must_use]
    pub fn nra_word(&self, word: u32) -> &AtomicU32 {
        assert!(word < NRA_WORDS, "there is no NRA word {word}");
        self.parts.nra.at(word as usize * size_of::<u32>())
    }

    /// Rings the doorbell.
    pub fn ring(&self) {
        match &self.parts.doorbell {
            Doorbell::Store { page, offset, value } => {
                page.at::<AtomicU16>(usize::from(*offset)).store(*value, Ordering::Release);
            }
            Doorbell::Call(call) => call(),
        }
    }

    /// The port's link.
    #[must_use]
    pub fn link_state(&self) -> LinkState {
        let word: &AtomicU32 = self.parts.registers.at(std::mem::offset_of!(Registers, link_state));
        LinkState(word.load(Ordering::Relaxed))
    }

    /// The card's registers now.
    #[must_use]
    pub fn registers(&self) -> Registers {
        self.copy(0)
    }

    /// The card's counters now.
    #[must_use]
    pub fn counters(&self) -> Counters {
        const OFFSET: usize = 0x1000;
        const { assert!(OFFSET as u64 == COUNTERS_OFFSET) };
        self.copy(OFFSET)
    }

    /// A copy of a structure of 64-bit words among the registers; each word is whole.
    fn copy<T: FromBytes + IntoBytes>(&self, offset: usize) -> T {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let words: &[AtomicU64] = self.parts.registers.slice(offset, size_of::<T>() / 8);
        let mut copy = T::new_zeroed();
        for (bytes, word) in copy.as_mut_bytes().chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        copy
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(offset in 0usize..64, bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mapping = Mapping::anonymous(128).unwrap();
            mapping.write(offset, &bytes);
            let mut all = [0; 128];
            mapping.read(0, &mut all);
            let mut expected = [0; 128];
            expected[offset..][..bytes.len()].copy_from_slice(&bytes);
            prop_assert_eq!(all, expected);
            let mut some = vec![0; bytes.len()];
            mapping.read(offset, &mut some);
            prop_assert_eq!(some, bytes);
        }
    }

    #[test]
    #[should_panic(expected = "out of the mapping")]
    fn nothing_is_read_beyond_the_mapping() {
        Mapping::anonymous(64).unwrap().read(60, &mut [0; 8]);
    }
}
