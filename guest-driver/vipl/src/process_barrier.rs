//! A memory barrier in two halves: one that costs nothing, for what is done often, and one that has the kernel put a barrier into
//! every thread of the process (membarrier(2)), for what is done rarely.
//!
//! If one thread stores, passes the light half and loads, and another stores, passes the heavy half and loads, then at least one of the two
//! loads what the other has stored. On a kernel that does not have it both halves are a full fence.
#![expect(unsafe_code, reason = "membarrier(2), for which there is no wrapper")]

use std::sync::Once;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, compiler_fence, fence};

/// Whether the kernel puts barriers into this process's threads. It never does again what it once did not.
static KERNEL_HELPS: AtomicBool = AtomicBool::new(false);

// linux/membarrier.h
const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

/// Makes the light half light, if the kernel can. Children of this process inherit it.
pub(crate) fn prepare() {
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| KERNEL_HELPS.store(membarrier(REGISTER_PRIVATE_EXPEDITED), Relaxed));
}

/// Whether the light half costs nothing.
#[inline(always)]
pub(crate) fn is_light() -> bool {
    KERNEL_HELPS.load(Relaxed)
}

/// The half that costs nothing.
#[inline(always)]
pub(crate) fn light() {
    if is_light() {
        compiler_fence(SeqCst);
    } else {
        fence(SeqCst);
    }
}

/// The half that costs a system call.
pub(crate) fn heavy() {
    fence(SeqCst);
    if is_light() && !membarrier(PRIVATE_EXPEDITED) {
        unreachable!("the kernel registered the process");
    }
}

fn membarrier(command: libc::c_int) -> bool {
    // Miri has no such system call.
    // SAFETY: these commands touch no memory.
    !cfg!(miri) && unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } == 0
}
