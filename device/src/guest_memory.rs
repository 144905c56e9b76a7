//! Guest RAM as the card sees it: by guest-physical address, checked, shared with a guest that may write at any
//! time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

use thiserror::Error;
use vianic_abi::sync::{Atomics as _, Native};
use vm_memory::{
    Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _, VolatileSlice,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::shared::{AllAtomic, Single, View};

/// A range of guest-physical addresses that is not (whole) guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{length} bytes at guest-physical address {address:#x} are not guest memory")]
pub struct NotMemory {
    /// First byte.
    pub address: u64,
    /// Bytes.
    pub length: usize,
}

/// A range of guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub address: u64,
    /// Bytes.
    pub length: usize,
}

/// Guest RAM. Clones share the mapping and keep it alive.
#[derive(Clone, Debug)]
pub struct GuestMemory {
    map: Arc<GuestMemoryMmap>,
    /// The map's regions, so that an address costs a few instructions: guests have very few of them.
    regions: Arc<[Region]>,
}

/// A piece of guest RAM.
#[derive(Debug)]
struct Region {
    start: u64,
    bytes: View<AtomicU8>,
}

impl GuestMemory {
    /// Guest RAM as mapped in `map`.
    #[must_use]
    pub fn new(map: Arc<GuestMemoryMmap>) -> Self {
        let regions = map.iter().filter_map(|region| {
            let length = usize::try_from(region.len()).ok()?;
            let slice = map.get_slice(region.start_addr(), length).ok()?;
            let bytes = View::new(&slice, length, map.clone())?;
            Some(Region { start: region.start_addr().0, bytes })
        });
        Self { regions: regions.collect(), map }
    }

    #[inline]
    fn slice(&self, range: Range) -> Result<VolatileSlice<'_>, NotMemory> {
        let Range { address, length } = range;
        self.regions
            .iter()
            .find_map(|region| region.bytes.bytes(address.wrapping_sub(region.start), length))
            .ok_or(NotMemory { address, length })
    }

    /// All of it, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.map.iter().map(|region| region.len()).sum()
    }

    /// Whether a range is all in one piece of guest RAM.
    #[inline]
    #[must_use]
    pub fn holds(&self, range: Range) -> bool {
        self.slice(range).is_ok()
    }

    /// A view of `len` elements of `T` at `address`.
    ///
    /// # Errors
    /// If they are not all in one piece of guest RAM, or not aligned.
    pub fn view<T: AllAtomic>(&self, address: u64, len: usize) -> Result<View<T>, NotMemory> {
        let bytes = len.saturating_mul(size_of::<T>());
        let slice = self.slice(Range { address, length: bytes })?;
        View::new(&slice, len, self.map.clone()).ok_or(NotMemory { address, length: bytes })
    }

    /// A view of a single `T` at `address`.
    ///
    /// # Errors
    /// As [`view`](Self::view).
    pub fn single<T: AllAtomic>(&self, address: u64) -> Result<Single<T>, NotMemory> {
        let length = size_of::<T>();
        let slice = self.slice(Range { address, length })?;
        Single::new(&slice, self.map.clone()).ok_or(NotMemory { address, length })
    }

    /// Copies a `T` out.
    ///
    /// # Errors
    /// If it is not all in guest RAM.
    pub fn read<T: FromBytes + IntoBytes>(&self, address: u64) -> Result<T, NotMemory> {
        let mut value = T::new_zeroed();
        self.map
            .read_slice(value.as_mut_bytes(), GuestAddress(address))
            .map_err(|_| NotMemory { address, length: size_of::<T>() })?;
        Ok(value)
    }

    /// Copies bytes out, to the end of `bytes`.
    ///
    /// # Errors
    /// If they are not all in guest RAM.
    pub fn read_bytes(&self, address: u64, bytes: &mut [u8]) -> Result<(), NotMemory> {
        let length = bytes.len();
        self.map.read_slice(bytes, GuestAddress(address)).map_err(|_| NotMemory { address, length })
    }

    /// Copies a `T` in.
    ///
    /// # Errors
    /// If it is not all in guest RAM.
    pub fn write<T: IntoBytes + Immutable>(&self, address: u64, value: &T) -> Result<(), NotMemory> {
        self.map
            .write_slice(value.as_bytes(), GuestAddress(address))
            .map_err(|_| NotMemory { address, length: size_of::<T>() })
    }

    /// The byte at `address` will be written soon: its cache line is fetched meanwhile.
    #[inline]
    pub fn prefetch_for_write(&self, address: u64) {
        fn byte(region: &Region, address: u64) -> Option<&AtomicU8> {
            region.bytes.get(usize::try_from(address.wrapping_sub(region.start)).ok()?)
        }
        if let Some(byte) = self.regions.iter().find_map(|region| byte(region, address)) {
            Native::prefetch_for_write(byte);
        }
    }

    /// Reads an aligned 64-bit word in one piece.
    ///
    /// # Errors
    /// If it is not in guest RAM, or not aligned.
    #[inline]
    pub fn load_u64(&self, address: u64) -> Result<u64, NotMemory> {
        self.word(address).map(|word| word.load(Ordering::Relaxed))
    }

    /// Stores an aligned 64-bit word in one piece, after everything that was written before.
    ///
    /// # Errors
    /// If it is not in guest RAM, or not aligned.
    #[inline]
    pub fn store_u64_release(&self, address: u64, value: u64) -> Result<(), NotMemory> {
        self.word(address).map(|word| word.store(value, Ordering::Release))
    }

    #[inline]
    fn word(&self, address: u64) -> Result<&AtomicU64, NotMemory> {
        let no_word = NotMemory { address, length: 8 };
        self.regions
            .iter()
            .find_map(|region| region.bytes.word(address.wrapping_sub(region.start)))
            .ok_or(no_word)
    }
}

/// Copies the bytes of `from` to `to`, in ascending order: once, from one guest's memory to another's (or the same
/// one's). The lengths must be equal.
///
/// # Errors
/// If a range is not all in guest RAM; bytes before it may have been copied.
#[inline]
pub fn copy(from: &GuestMemory, source: Range, to: &GuestMemory, target: Range) -> Result<(), NotMemory> {
    let source = from.slice(source)?;
    let target = to.slice(target)?;
    source.copy_to_volatile_slice(target);
    Ok(())
}

/// As [`copy`], but the last bytes, up to an aligned word of eight, are written after all others and in one piece where they
/// are aligned: a program that watches them knows from them that the others have come.
///
/// # Errors
/// As [`copy`].
pub fn copy_last_bytes_last(
    from: &GuestMemory,
    source: Range,
    to: &GuestMemory,
    target: Range,
) -> Result<(), NotMemory> {
    const WORD: u64 = 8;
    let end = target.address.saturating_add(target.length as u64);
    let last = usize::try_from((end - 1) % WORD + 1).unwrap_or(1).min(target.length);
    let part =
        |range: Range, skip: usize, length: usize| Range { address: range.address + skip as u64, length };
    let first = target.length - last;
    copy(from, part(source, 0, first), to, part(target, 0, first))?;
    fence(Ordering::Release);
    copy(from, part(source, first, last), to, part(target, first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemory {
        let ranges = [(GuestAddress(0), 0x1000), (GuestAddress(0x8000), 0x1000)];
        GuestMemory::new(Arc::new(GuestMemoryMmap::from_ranges(&ranges).expect("map")))
    }

    #[test]
    fn fault_07_a_range_in_a_hole_or_over_a_region_end_is_refused() {
        let memory = memory();
        for address in [0xff9, 0x1000, 0x7fff, 0x8ff9, u64::MAX - 3] {
            assert!(memory.read::<u64>(address).is_err(), "{address:#x}");
            assert!(memory.view::<AtomicU64>(address, 1).is_err(), "{address:#x}");
        }
        assert!(memory.view::<AtomicU64>(0, usize::MAX).is_err());
        assert!(memory.view::<AtomicU64>(4, 1).is_err(), "unaligned");
    }

    #[test]
    fn a_copy_moves_the_bytes() {
        let memory = memory();
        memory.write(0x10, &0x0123_4567_89ab_cdef_u64).expect("write");
        let range = |address| Range { address, length: 8 };
        copy(&memory, range(0x10), &memory, range(0x8003)).expect("copy");
        assert_eq!(memory.read::<u64>(0x8003), Ok(0x0123_4567_89ab_cdef));
        assert!(copy(&memory, range(0x10), &memory, range(0x8ffc)).is_err());
    }

    #[test]
    fn the_last_bytes_are_copied_too_whatever_the_alignment() {
        let memory = memory();
        for (target, length) in [(0x8000, 1), (0x8003, 3), (0x8005, 11), (0x8000, 64), (0x8001, 64)] {
            memory.write(0x100, &[7_u8; 64]).expect("write");
            memory.write(0x8000, &[0_u8; 128]).expect("write");
            let source = Range { address: 0x100, length };
            copy_last_bytes_last(&memory, source, &memory, Range { address: target, length }).expect("copy");
            let copied: [u8; 128] = memory.read(0x8000).expect("read");
            let start = usize::try_from(target - 0x8000).expect("small");
            assert!(
                copied
                    .iter()
                    .enumerate()
                    .all(|(i, byte)| (*byte == 7) == (start..start + length).contains(&i))
            );
        }
    }

    #[test]
    fn a_view_outlives_the_memory_it_came_from() {
        let memory = memory();
        let view = memory.view::<AtomicU64>(0x8000, 4).expect("view");
        drop(memory);
        view[3].store(7, Ordering::Relaxed);
        assert_eq!(view[3].load(Ordering::Relaxed), 7);
    }
}
