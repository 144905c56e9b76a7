//! What wakes the thread that calls the handlers.

use parking_lot::{Condvar, Mutex};

/// Rung by anybody, heard by one. It keeps ringing until it is heard. Its lock is taken after all others.
#[derive(Default)]
pub(super) struct Bell {
    rings: Mutex<bool>,
    rung: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        *self.rings.lock() = true;
        self.rung.notify_one();
    }

    /// Returns when it has rung since this was last called.
    pub(super) fn wait(&self) {
        let mut rings = self.rings.lock();
        while !*rings {
            self.rung.wait(&mut rings);
        }
        *rings = false;
    }
}
