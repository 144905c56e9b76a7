//! NIC memory: registers, counters, shadow MRT, Notification Request Areas and MDL, in a memfd that the card and
//! the guest map.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vianic_abi::MAX_CONTEXTS;
use vianic_abi::mdl::Mdl;
use vianic_abi::mrt::MRT_ENTRY_WORDS;
use vianic_abi::nic_memory::{
    COUNTERS_OFFSET, Counter, Counters, MDL_ENTRIES, MDL_OFFSET, NRA_WORDS, REGISTERS_SIZE, REQUESTS_SIZE,
    Registers, SHADOW_MRT_ENTRIES, SHADOW_MRT_OFFSET, nra_offset,
};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory as _};
use zerocopy::IntoBytes as _;

use crate::shared::{AllAtomic, Single, View};

/// A slot of the shadow MRT: an MRT entry as words.
pub type ShadowSlot = [AtomicU64; MRT_ENTRY_WORDS];

/// Slots of the shadow MRT.
pub const SHADOW_SLOTS: usize = SHADOW_MRT_ENTRIES as usize;

/// Counters, a word each.
const COUNTERS: usize = Counters::NAMES.len();

/// The card's memory. One memfd: region 0 (registers), then region 1 (requests).
#[derive(Debug)]
pub struct NicMemory {
    file: File,
    registers: View<AtomicU32>,
    counters: Single<[AtomicU64; COUNTERS]>,
    shadow: Single<[ShadowSlot; SHADOW_SLOTS]>,
    requests: Vec<View<AtomicU32>>,
    mdl: View<AtomicU32>,
}

impl NicMemory {
    /// Fresh NIC memory, all zero.
    ///
    /// # Errors
    /// If the memfd cannot be made or mapped.
    pub fn new() -> io::Result<Self> {
        let file =
            File::from(memfd_create("vianic-nic-memory", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        file.set_len(REGISTERS_SIZE + REQUESTS_SIZE)?;
        // Nobody who is given the memfd may shrink it under the card's feet.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let size = usize_of(REGISTERS_SIZE + REQUESTS_SIZE);
        let map: Arc<MmapRegion> = Arc::new(
            MmapRegion::from_file(FileOffset::new(file.try_clone()?, 0), size).map_err(io::Error::other)?,
        );
        Ok(Self {
            registers: view(&map, 0, size_of::<Registers>() / 4)?,
            counters: single(&map, COUNTERS_OFFSET)?,
            shadow: single(&map, SHADOW_MRT_OFFSET)?,
            requests: (0..MAX_CONTEXTS)
                .map(|context| view(&map, REGISTERS_SIZE + nra_offset(context), usize_of(NRA_WORDS)))
                .collect::<io::Result<_>>()?,
            mdl: view(&map, REGISTERS_SIZE + MDL_OFFSET, usize_of(MDL_ENTRIES))?,
            file,
        })
    }

    /// The memfd, to be shown to the guest.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes the registers, magic last, so that a guest that sees the magic sees the rest.
    pub fn write_registers(&self, registers: &Registers) {
        let words: &[u32; size_of::<Registers>() / 4] = zerocopy::transmute_ref!(registers);
        self.registers[0].store(0, Release);
        for (shared, word) in self.registers.iter().zip(words).skip(1) {
            shared.store(*word, Relaxed);
        }
        self.registers[0].store(words[0], Release);
    }

    /// The Memory Deregistration List; `insert` is the MDL_Insert counter in host memory.
    #[inline]
    #[must_use]
    pub fn mdl<'a>(&'a self, insert: &'a AtomicU32) -> Mdl<'a> {
        Mdl::new(&self.mdl, insert, &self.registers[std::mem::offset_of!(Registers, mdl_drained) / 4])
    }

    /// A word of a context's Notification Request Area.
    #[inline]
    #[must_use]
    pub fn nra_word(&self, context: u16, word: u32) -> &AtomicU32 {
        &self.requests[usize::from(context)][usize_of(word)]
    }

    /// Disarms all NRA words of a context.
    pub fn clear_nra(&self, context: u16) {
        for word in self.requests[usize::from(context)].iter() {
            word.store(0, Relaxed);
        }
    }

    /// The shadow MRT's slots.
    #[inline]
    #[must_use]
    pub fn shadow(&self) -> &[ShadowSlot; SHADOW_SLOTS] {
        &self.shadow
    }

    /// Adds to a counter. The engine's thread is the only writer.
    #[inline]
    pub fn count(&self, counter: Counter, more: u64) {
        let word = &self.counters[counter as usize];
        word.store(word.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// Raises a high-water mark.
    #[inline]
    pub fn count_max(&self, counter: Counter, value: u64) {
        let word = &self.counters[counter as usize];
        if word.load(Relaxed) < value {
            word.store(value, Relaxed);
        }
    }

    /// A copy of the counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        for (value, word) in counters.as_mut_bytes().chunks_exact_mut(8).zip(self.counters.iter()) {
            value.copy_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        counters
    }

    /// Zeroes the counters.
    pub fn clear_counters(&self) {
        for word in self.counters.iter() {
            word.store(0, Relaxed);
        }
    }
}

fn single<T: AllAtomic>(map: &Arc<MmapRegion>, offset: u64) -> io::Result<Single<T>> {
    let slice = map.get_slice(usize_of(offset), size_of::<T>()).map_err(io::Error::other)?;
    Single::new(&slice, map.clone()).ok_or_else(|| io::Error::other("NIC memory is not aligned"))
}

fn view<T: AllAtomic>(map: &Arc<MmapRegion>, offset: u64, len: usize) -> io::Result<View<T>> {
    let slice = map.get_slice(usize_of(offset), len * size_of::<T>()).map_err(io::Error::other)?;
    View::new(&slice, len, map.clone()).ok_or_else(|| io::Error::other("NIC memory is not aligned"))
}

/// An integer that the memory map bounds, as an index.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "64-bit machines only; vianic-abi asserts it")]
pub(crate) fn usize_of(value: impl Into<u64>) -> usize {
    value.into() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_have_request_areas_of_their_own() {
        let memory = NicMemory::new().expect("NIC memory");
        memory.nra_word(1, 0).store(1, Relaxed);
        memory.nra_word(1, NRA_WORDS - 1).store(1, Relaxed);
        memory.clear_nra(0);
        memory.clear_nra(2);
        assert_eq!(memory.nra_word(1, 0).load(Relaxed), 1);
        assert_eq!(memory.nra_word(1, NRA_WORDS - 1).load(Relaxed), 1);
    }

    #[test]
    fn counters_count() {
        let memory = NicMemory::new().expect("NIC memory");
        memory.count(Counter::doorbells, 2);
        memory.count(Counter::doorbells, 1);
        memory.count_max(Counter::connections, 5);
        memory.count_max(Counter::connections, 4);
        let counters = memory.counters();
        assert_eq!((counters.doorbells, counters.connections), (3, 5));
    }
}
