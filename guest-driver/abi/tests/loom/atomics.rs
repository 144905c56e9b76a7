//! The model checker's atomics.

use std::sync::atomic::Ordering;

use loom::sync::atomic::{AtomicU32, AtomicU64};
use vianic_abi::sync::{Atomic, Atomics};

macro_rules! word {
    ($name:ident, $atomic:ty, $int:ty) => {
        #[derive(Debug)]
        pub(crate) struct $name($atomic);

        impl Default for $name {
            fn default() -> Self {
                Self(<$atomic>::new(0))
            }
        }

        impl Atomic<$int> for $name {
            fn load(&self, order: Ordering) -> $int {
                self.0.load(order)
            }
            fn store(&self, value: $int, order: Ordering) {
                self.0.store(value, order);
            }
            fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                self.0.fetch_add(value, order)
            }
            fn swap(&self, value: $int, order: Ordering) -> $int {
                self.0.swap(value, order)
            }
            fn replace(&self, current: $int, value: $int) -> bool {
                self.0.compare_exchange(current, value, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            }
        }
    };
}
word!(Word32, AtomicU32, u32);
word!(Word64, AtomicU64, u64);

/// As the protocols are meant.
#[derive(Debug)]
pub(crate) enum Fenced {}

impl Atomics for Fenced {
    type U32 = Word32;
    type U64 = Word64;

    fn fence() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// With every fence taken away.
#[derive(Debug)]
pub(crate) enum Unfenced {}

impl Atomics for Unfenced {
    type U32 = Word32;
    type U64 = Word64;

    fn fence() {}
}
