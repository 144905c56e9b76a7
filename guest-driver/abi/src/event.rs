//! Events: what the card puts on the event queue (virtqueue 0), one in each buffer the Kernel Agent offers.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{open_enum, shared_layout};

open_enum! {
    /// What happened.
    EventKind: u16 {
        /// An armed NRA word fired: `context`, `nra_word`. The word is disarmed.
        NOTIFY = 1,
        /// The context has failed: its Token Table is closed, its VIs are in the Error state.
        CONTEXT_FAILED = 2,
    }
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// [`EventKind`].
    pub kind: u16,
    /// The context it is about.
    pub context: u16,
    /// The NRA word that fired.
    pub nra_word: u32,
}
shared_layout!(Event, 8, {
    kind @ 0, context @ 2, nra_word @ 4,
});
