//! Which process this is: a child after fork has a copy of everything that its parent has here, and a right to none of it.
#![expect(unsafe_code, reason = "pthread_atfork")]

use std::sync::Once;
use std::sync::atomic::{AtomicU8, Ordering};

/// How many forks lie between the process that loaded the library and this one.
static GENERATION: AtomicU8 = AtomicU8::new(0);

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// The generation of this process. What another generation has made is its ancestors'.
///
/// It wraps: the two hundred and fifty-sixth descendant takes its ancestor's for its own.
#[inline]
pub(crate) fn generation() -> u8 {
    GENERATION.load(Ordering::Relaxed)
}

/// Has forks counted from now on.
pub(crate) fn watch() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        // SAFETY: the handler only adds to a counter.
        if unsafe { libc::pthread_atfork(None, None, Some(in_child)) } != 0 {
            log::warn!("forks go unnoticed: a child process that uses handles of its parent does damage");
        }
    });
}
