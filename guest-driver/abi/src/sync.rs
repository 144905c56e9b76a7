//! The atomics that the shared-memory protocols are written over.
//!
//! [`token_table`](crate::token_table) and [`completion`](crate::completion) are generic over [`Atomics`], so
//! that VIPL and the card run them on real shared memory ([`Native`]) and the model checker runs the very
//! same code on its own atomics.

use core::fmt::Debug;
use core::sync::atomic::Ordering;

/// An atomic integer in shared memory.
pub trait Atomic<T>: Debug {
    /// As [`core::sync::atomic::AtomicU32::load`].
    fn load(&self, order: Ordering) -> T;
    /// As [`core::sync::atomic::AtomicU32::store`].
    fn store(&self, value: T, order: Ordering);
    /// As [`core::sync::atomic::AtomicU32::fetch_add`].
    fn fetch_add(&self, value: T, order: Ordering) -> T;
    /// As [`core::sync::atomic::AtomicU32::swap`].
    fn swap(&self, value: T, order: Ordering) -> T;
    /// As [`core::sync::atomic::AtomicU32::compare_exchange`], *acquire* and *release*. Whether the value was `current`.
    fn replace(&self, current: T, value: T) -> bool;
}

/// A family of atomics, and the fence that goes with it.
pub trait Atomics: 'static {
    /// 32-bit words: counters, states.
    type U32: Atomic<u32>;
    /// 64-bit words: what entries are made of.
    type U64: Atomic<u64>;

    /// A sequentially consistent fence: what each side puts between its own store and its look at the other
    /// side's word, so that at least one of the two sees the other.
    fn fence();

    /// Stores `value`, *release*, and [fences](Self::fence).
    #[inline(always)]
    fn store_and_fence(word: &Self::U64, value: u64) {
        word.store(value, Ordering::Release);
        Self::fence();
    }

    /// `place` will be written soon: its cache line is fetched meanwhile, if there is a way to say so.
    #[inline(always)]
    fn prefetch_for_write<T>(_place: *const T) {}
}

/// The processor's own atomics.
#[derive(Debug)]
pub enum Native {}

macro_rules! native {
    ($atomic:ident, $int:ty) => {
        impl Atomic<$int> for core::sync::atomic::$atomic {
            #[inline(always)]
            fn load(&self, order: Ordering) -> $int {
                core::sync::atomic::$atomic::load(self, order)
            }
            #[inline(always)]
            fn store(&self, value: $int, order: Ordering) {
                core::sync::atomic::$atomic::store(self, value, order);
            }
            #[inline(always)]
            fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                core::sync::atomic::$atomic::fetch_add(self, value, order)
            }
            #[inline(always)]
            fn swap(&self, value: $int, order: Ordering) -> $int {
                core::sync::atomic::$atomic::swap(self, value, order)
            }
            #[inline(always)]
            fn replace(&self, current: $int, value: $int) -> bool {
                self.compare_exchange(current, value, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            }
        }
    };
}
native!(AtomicU32, u32);
native!(AtomicU64, u64);

impl Atomics for Native {
    type U32 = core::sync::atomic::AtomicU32;
    type U64 = core::sync::atomic::AtomicU64;

    #[inline(always)]
    fn fence() {
        core::sync::atomic::fence(Ordering::SeqCst);
    }

    // An exchange is store and full fence in one instruction, at half the price of the two.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn store_and_fence(word: &Self::U64, value: u64) {
        word.swap(value, Ordering::SeqCst);
        // The processor orders what follows; this has the compiler do so too.
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline(always)]
    #[expect(unsafe_code, reason = "there is no safe way to name the instruction")]
    fn prefetch_for_write<T>(place: *const T) {
        // SAFETY: a hint: it faults at no address, and changes nothing that a program can see.
        unsafe {
            core::arch::asm!("prefetchw [{}]", in(reg) place, options(nostack, preserves_flags, readonly));
        }
    }
}

/// A word alone on its cache line, so that its writer disturbs nobody else.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct CacheLine<T>(pub T);
