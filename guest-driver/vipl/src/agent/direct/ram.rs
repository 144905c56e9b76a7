//! Guest RAM: one sparse memfd for the whole process, mapped once. A guest-physical address is an offset in it.
//!
//! All cards that a process opens share it, so that one buffer can be registered with several of them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::process::Pid;

use super::extents::Extents;
use super::maps::Maps;
use super::moved::MovedExtents;
use super::shared_memory::{SharedMemory, Word};

/// Bytes of guest RAM: far more than any process registers, as only what is used costs memory. Only a process whose address
/// space is limited has reason to want less.
fn ram_size() -> u64 {
    const GIB: u64 = 1 << 30;
    const DEFAULT: u64 = 64 * GIB;
    match std::env::var("VIANIC_RAM_GIB") {
        Err(_) => DEFAULT,
        Ok(text) => match text.parse() {
            Ok(gibibytes @ 1..=1024) => gibibytes * GIB,
            _ => {
                log::warn!("VIANIC_RAM_GIB is not a number from 1 to 1024: {text:?}");
                DEFAULT
            }
        },
    }
}

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;

/// The memfd's name as it appears in `/proc/PID/maps`.
pub(super) const RAM_NAME: &str = "vianic-guest-ram";

static RAM: Mutex<Option<&'static Ram>> = Mutex::new(None);

#[derive(Debug)]
pub(super) struct Ram {
    file: OwnedFd,
    size: u64,
    memory: SharedMemory,
    file_id: FileId,
    /// A child after fork gets guest RAM of its own: two allocators cannot share one.
    process: Pid,
    maps: Maps,
    free: Mutex<Extents>,
    /// Held while pages move.
    pub(super) moved: Mutex<MovedExtents>,
}

/// A file as `/proc/PID/maps` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) inode: u64,
}

impl Ram {
    /// This process's guest RAM. It lives until the process ends.
    pub(super) fn of_this_process() -> rustix::io::Result<&'static Ram> {
        let mut ram = RAM.lock();
        let process = rustix::process::getpid();
        match *ram {
            Some(ram) if ram.is_of_this_process() => Ok(ram),
            _ => {
                let new: &'static Ram = Box::leak(Box::new(Self::new(process)?));
                *ram = Some(new);
                Ok(new)
            }
        }
    }

    fn new(process: Pid) -> rustix::io::Result<Self> {
        let file = rustix::fs::memfd_create(RAM_NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let size = ram_size();
        rustix::fs::ftruncate(&file, size)?;
        // The card has the file too: if it could shrink it, every access here would end in SIGBUS.
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let memory = SharedMemory::map(file.as_fd(), in_memory(size))?;
        memory.hide_from_core_dumps();
        let stat = rustix::fs::fstat(&file)?;
        let file_id = FileId {
            major: rustix::fs::major(stat.st_dev),
            minor: rustix::fs::minor(stat.st_dev),
            inode: stat.st_ino,
        };
        // Address 0 stands for "none" in the Memory Region Table.
        let free = Mutex::new(Extents::new(PAGE, size));
        let maps = Maps::of_this_process();
        Ok(Self { file, size, memory, file_id, process, maps, free, moved: Mutex::default() })
    }

    /// `false` in a child after fork: the guest RAM is its parent's.
    pub(super) fn is_of_this_process(&self) -> bool {
        self.process == rustix::process::getpid()
    }

    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(super) fn file_id(&self) -> FileId {
        self.file_id
    }

    /// What is mapped where in this process.
    pub(super) fn maps(&self) -> &Maps {
        &self.maps
    }

    pub(super) fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// Zeroed pages for `bytes` bytes.
    pub(super) fn allocate(&'static self, bytes: u64) -> Option<Extent> {
        self.allocate_in_phase(bytes, PAGE, 0)
    }

    /// Zeroed pages whose address is `phase` modulo `alignment`.
    pub(super) fn allocate_in_phase(&'static self, bytes: u64, alignment: u64, phase: u64) -> Option<Extent> {
        let length = bytes.checked_next_multiple_of(PAGE)?;
        let address = self.free.lock().take(length, alignment, phase)?;
        Some(Extent { ram: self, address, length })
    }
}

/// An offset or a length as it is used in this process's memory.
pub(super) fn in_memory(bytes: u64) -> usize {
    const { assert!(size_of::<usize>() == size_of::<u64>()) };
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Pages of guest RAM, zeroed when taken; given back when dropped.
#[derive(Debug)]
pub(super) struct Extent {
    ram: &'static Ram,
    address: u64,
    length: u64,
}

impl Extent {
    /// Guest-physical address.
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    /// Bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// `count` words at `offset`.
    ///
    /// # Panics
    /// If they are not within the extent, or not aligned.
    pub(super) fn words<T: Word>(&self, offset: u64, count: usize) -> &[T] {
        let bytes = (count as u64).checked_mul(size_of::<T>() as u64);
        let end = bytes.and_then(|bytes| bytes.checked_add(offset));
        assert!(end.is_some_and(|end| end <= self.length), "out of the extent");
        self.ram.memory.words(in_memory(self.address + offset), count)
    }

    /// A copy of `N` 64-bit words at `offset`, each whole.
    pub(super) fn load<const N: usize>(&self, offset: u64) -> [u64; N] {
        let words = self.words::<AtomicU64>(offset, N);
        std::array::from_fn(|index| words[index].load(std::sync::atomic::Ordering::Relaxed))
    }

    /// Stores `words` at `offset`.
    pub(super) fn store(&self, offset: u64, words: &[u64]) {
        for (shared, word) in self.words::<AtomicU64>(offset, words.len()).iter().zip(words) {
            shared.store(*word, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Never gives the pages back: somebody else still uses them, or may.
    pub(super) fn keep_for_ever(self) {
        std::mem::forget(self);
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        // A child after fork must not give back what its parent uses.
        if !self.ram.is_of_this_process() {
            return;
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.ram.file, hole, self.address, self.length) {
            Ok(()) => self.ram.free.lock().give_back(self.address, self.length),
            // Pages that are not zeroed cannot be used again; the address space is large enough to do without.
            Err(error) => log::warn!("{} bytes of guest RAM are lost: {error}", self.length),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn pages_are_zeroed_when_taken_again() {
        let ram = Ram::of_this_process().expect("guest RAM");
        let extent = ram.allocate(3 * PAGE).expect("there is room");
        let address = extent.address();
        extent.words::<AtomicU32>(2 * PAGE, 1)[0].store(7, Ordering::Relaxed);
        drop(extent);
        // Other tests allocate too; look at the memory itself.
        let word: &[AtomicU64] = ram.memory().words(in_memory(address + 2 * PAGE), 1);
        assert_eq!(word[0].load(Ordering::Relaxed), 0);
    }

    #[test]
    #[should_panic(expected = "out of the extent")]
    fn words_outside_are_refused() {
        let ram = Ram::of_this_process().expect("guest RAM");
        let extent = ram.allocate(1).expect("there is room");
        extent.words::<AtomicU32>(PAGE, 1);
    }
}
