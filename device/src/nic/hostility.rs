//! A card that is as hard on its Kernel Agent as the rules allow, for tests: registrations leave the shadow MRT at random, the MDL is
//! drained only when it must be, and letting go takes its time.

use vianic_abi::nic_memory::SHADOW_MRT_ENTRIES;

use crate::nic::memory::usize_of;

/// One in so many look-ups finds its registration gone, and another one with it.
const EVICTION: u32 = 4;
/// One in so many chances to let go is taken.
const PROMPTNESS: u32 = 16;

/// Where the card's whims come from. The same seed gives the same ones.
#[derive(Clone, Debug)]
pub struct Hostility {
    random: fastrand::Rng,
}

impl Hostility {
    /// Whims by `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed) }
    }

    /// Slots of the shadow MRT to be emptied before `slot` is looked at.
    pub(super) fn evicted(&mut self, slot: usize) -> Option<[usize; 2]> {
        (self.random.u32(..EVICTION) == 0).then(|| [slot, usize_of(self.random.u32(..SHADOW_MRT_ENTRIES))])
    }

    /// Whether the card does not yet do what it may do later.
    pub(super) fn delays(&mut self) -> bool {
        self.random.u32(..PROMPTNESS) != 0
    }
}
