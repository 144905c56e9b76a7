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
use std::sync::atomic::{AtomicU32, AtomicU64};

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

impl<T: AllAtomic> Deref for View<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `new` checked length and alignment; the guard keeps the mapping; all of `T` is atomic, so others may
        // write meanwhile.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: AllAtomic> std::fmt::Debug for View<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({:p}, {})", self.start, self.len)
    }
}
