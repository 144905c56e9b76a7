//! Memory that another process reads and writes too, as atomics.
#![expect(unsafe_code, reason = "shared memory becomes references to atomics here")]

use std::ffi::c_void;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use rustix::io;
use rustix::mm::{self, MapFlags, ProtFlags};

/// An integer in shared memory.
///
/// # Safety
/// Implemented by atomic integers only.
pub(super) unsafe trait Word {}
// SAFETY: an atomic integer.
unsafe impl Word for AtomicU16 {}
// SAFETY: an atomic integer.
unsafe impl Word for AtomicU32 {}
// SAFETY: an atomic integer.
unsafe impl Word for AtomicU64 {}

/// A stretch of address space, mapped for as long as this lives. What lies there may change; all of it stays accessible.
pub(super) struct SharedMemory {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is accessed through atomics only.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps `length` bytes of `file`, shared, without asking how much memory there is.
    pub(super) fn map(file: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses a free place.
        let base =
            unsafe { mm::mmap(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, flags, file, 0) }?;
        Ok(Self::owned(base, length))
    }

    /// `length` zeroed bytes.
    pub(super) fn anonymous(length: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses a free place.
        let base = unsafe {
            mm::mmap_anonymous(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        Ok(Self::owned(base, length))
    }

    fn owned(base: *mut c_void, length: usize) -> Self {
        // The kernel maps address 0 for nobody who has not asked for it.
        Self { base: NonNull::new(base.cast()).unwrap_or(NonNull::dangling()), length }
    }

    /// Puts `length` bytes of `file` at `file_offset` in place of what is at `offset`.
    ///
    /// # Errors
    /// `EINVAL` if that is not whole pages within this memory, and as mmap(2).
    pub(super) fn replace(
        &self,
        offset: usize,
        length: usize,
        file: BorrowedFd<'_>,
        file_offset: u64,
        writable: bool,
    ) -> io::Result<()> {
        self.check(offset, length)?;
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: within our own memory, as just checked, and accessed through atomics only.
        unsafe {
            let place = self.base.add(offset).as_ptr().cast();
            mm::mmap(place, length, protection, MapFlags::SHARED | MapFlags::FIXED, file, file_offset)
        }?;
        Ok(())
    }

    /// Puts zeroes in place of what is at `offset`.
    ///
    /// # Errors
    /// As [`replace`](Self::replace).
    pub(super) fn clear(&self, offset: usize, length: usize) -> io::Result<()> {
        self.check(offset, length)?;
        // SAFETY: within our own memory, as just checked, and accessed through atomics only.
        unsafe {
            let place = self.base.add(offset).as_ptr().cast();
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            mm::mmap_anonymous(place, length, protection, MapFlags::PRIVATE | MapFlags::FIXED)
        }?;
        Ok(())
    }

    fn check(&self, offset: usize, length: usize) -> io::Result<()> {
        let fits = offset.checked_add(length).is_some_and(|end| end <= self.length);
        if fits && length > 0 && offset.is_multiple_of(rustix::param::page_size()) {
            Ok(())
        } else {
            Err(io::Errno::INVAL)
        }
    }

    /// Keeps the memory out of core dumps: it is sparse, and large.
    pub(super) fn hide_from_core_dumps(&self) {
        // SAFETY: this advice changes no memory. It is advice: nothing depends on it.
        let advised =
            unsafe { mm::madvise(self.base.as_ptr().cast(), self.length, mm::Advice::LinuxDontDump) };
        if let Err(error) = advised {
            log::debug!("guest RAM will be part of core dumps: {error}");
        }
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// `count` words at `offset`.
    ///
    /// # Panics
    /// If they are not within the memory, or not aligned.
    pub(super) fn words<T: Word>(&self, offset: usize, count: usize) -> &[T] {
        let end = size_of::<T>().checked_mul(count).and_then(|bytes| bytes.checked_add(offset));
        assert!(end.is_some_and(|end| end <= self.length), "out of the shared memory");
        // SAFETY: within the mapping.
        let first = unsafe { self.base.add(offset) }.cast::<T>();
        assert!(first.is_aligned(), "not aligned");
        // SAFETY: mapped and aligned; any bytes are an atomic integer, whoever writes them.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), count) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives self.
        let unmapped = unsafe { mm::munmap(self.base.as_ptr().cast(), self.length) };
        debug_assert_eq!(unmapped, Ok(()), "munmap of what was mapped");
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedMemory({:p}, {:#x} bytes)", self.base, self.length)
    }
}
