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
}

/// A word alone on its cache line, so that its writer disturbs nobody else.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct CacheLine<T>(pub T);
