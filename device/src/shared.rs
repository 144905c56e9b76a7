//! Typed views of memory that somebody else writes too: guest RAM and NIC memory.
//!
//! A view is a slice of atomics, so that no reference to plain data ever points into shared memory; it keeps the
//! mapping that it looks into alive.
#![expect(
    unsafe_code,
    reason = "shared memory is reached through typed views made from raw mappings, here only"
)]

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use vianic_abi::completion::{McqHeader, McqSlot};
use vianic_abi::token_table::{Header, Slot};
use vm_memory::VolatileSlice;

/// Types that consist of atomics alone.
///
/// # Safety
/// Every byte of the type must be part of an atomic (or of alignment filling that nobody reads), and every bit
/// pattern must be valid.
pub unsafe trait AllAtomic {}

// SAFETY: atomics of integers.
unsafe impl AllAtomic for AtomicU8 {}
// SAFETY: atomics of integers.
unsafe impl AllAtomic for AtomicU32 {}
// SAFETY: atomics of integers.
unsafe impl AllAtomic for AtomicU64 {}
// SAFETY: an array of atomics.
unsafe impl<T: AllAtomic, const N: usize> AllAtomic for [T; N] {}
// SAFETY: atomics on cache lines of their own.
unsafe impl AllAtomic for Header {}
// SAFETY: an array of atomics.
unsafe impl AllAtomic for Slot {}
// SAFETY: atomics on cache lines of their own.
unsafe impl AllAtomic for McqHeader {}
// SAFETY: an array of atomics.
unsafe impl AllAtomic for McqSlot {}

/// What keeps a mapping alive.
pub type Guard = Arc<dyn Send + Sync>;

/// A slice of `T` in shared memory.
pub struct View<T: AllAtomic> {
    start: NonNull<T>,
    len: usize,
    _mapping: Guard,
}

// SAFETY: a view is a reference to atomics plus a guard that is itself Send and Sync.
unsafe impl<T: AllAtomic> Send for View<T> {}
// SAFETY: as above.
unsafe impl<T: AllAtomic> Sync for View<T> {}

impl<T: AllAtomic> View<T> {
    /// A view of `len` elements at the start of `slice`, which lies in a mapping that `mapping` keeps alive. `None`
    /// if the slice is too short or not aligned.
    #[must_use]
    pub fn new(slice: &VolatileSlice<'_>, len: usize, mapping: Guard) -> Option<Self> {
        let guard = slice.ptr_guard_mut();
        let start = NonNull::new(guard.as_ptr())?.cast::<T>();
        (start.is_aligned() && len.checked_mul(size_of::<T>())? <= slice.len()).then_some(Self {
            start,
            len,
            _mapping: mapping,
        })
    }
}

impl View<AtomicU8> {
    /// The `length` bytes at `offset`, as memory to copy from and to. `None` if they are not all in the view.
    #[inline]
    #[must_use]
    pub fn bytes(&self, offset: u64, length: usize) -> Option<VolatileSlice<'_>> {
        let start = self.bytes_from(usize::try_from(offset).ok()?, length)?;
        // SAFETY: so many bytes are mapped there, and stay so as long as `self` lives. A volatile slice is read and written by
        // copying only, so others may write meanwhile.
        Some(unsafe { VolatileSlice::new(start.as_ptr().cast(), length) })
    }

    /// The aligned 64-bit word at `offset`. `None` if it is not all in the view, or not aligned.
    #[inline]
    #[must_use]
    pub fn word(&self, offset: u64) -> Option<&AtomicU64> {
        let offset = usize::try_from(offset).ok()?;
        let word = self.bytes_from(offset, size_of::<AtomicU64>())?.cast::<AtomicU64>();
        // SAFETY: in the view, as `bytes_from` checked, and aligned; an atomic, so others may write meanwhile.
        if word.is_aligned() { Some(unsafe { word.as_ref() }) } else { None }
    }

    #[inline]
    fn bytes_from(&self, offset: usize, length: usize) -> Option<NonNull<AtomicU8>> {
        let within = offset.checked_add(length).is_some_and(|end| end <= self.len);
        // SAFETY: not beyond the end of the view.
        within.then(|| unsafe { self.start.add(offset) })
    }
}

impl<T: AllAtomic> Deref for View<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `new` checked length and alignment; the guard keeps the mapping; all of `T` is atomic, so others may
        // write meanwhile.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

/// A single `T` in shared memory.
#[derive(Debug)]
pub struct Single<T: AllAtomic>(View<T>);

impl<T: AllAtomic> Single<T> {
    /// As [`View::new`], of one element.
    #[must_use]
    pub fn new(slice: &VolatileSlice<'_>, mapping: Guard) -> Option<Self> {
        View::new(slice, 1, mapping).map(Self)
    }
}

impl<T: AllAtomic> Deref for Single<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: as for a view, which this is one of, with one element.
        unsafe { self.0.start.as_ref() }
    }
}

impl<T: AllAtomic> std::fmt::Debug for View<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({:p}, {})", self.start, self.len)
    }
}
