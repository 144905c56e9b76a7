//! Guest memory whose file is cut off behind the card's back.
//!
//! An access to a page that the file no longer has raises SIGBUS, which would end the process and with it the cards of
//! all other guests. A page of zeros takes its place instead: the guest has lost its memory, nobody else notices.
#![expect(unsafe_code, reason = "a signal handler mends a mapping")]

use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use libc::{MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE, SIGBUS, siginfo_t};
use vmm_sys_util::signal::register_signal_handler;

/// The signal that tells the process of a page that was replaced.
pub(crate) const TELL: c_int = libc::SIGUSR1;

/// `si_code` of an access that the file behind a mapping does not serve.
const BUS_ADRERR: c_int = 2;

const PAGE: usize = 4096;

static REPLACED: AtomicU64 = AtomicU64::new(0);

/// From here on, truncated memory is survived.
pub(crate) fn survive() -> anyhow::Result<()> {
    register_signal_handler(SIGBUS, replace_page)
        .map_err(io::Error::from)
        .context("cannot install a handler for truncated guest memory")
}

/// Pages replaced since this was asked last.
pub(crate) fn take_replaced() -> u64 {
    REPLACED.swap(0, Ordering::Relaxed)
}

extern "C" fn replace_page(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel calls a handler that was installed with SA_SIGINFO with a valid `info`, and `errno` is the
    // thread's own. All that is called here is safe in a signal handler. The mapping is made over one page that cannot be
    // accessed as it is; a page that is part of something larger (huge pages) is refused by the kernel.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let mended = (*info).si_code == BUS_ADRERR && {
            let address = (*info).si_addr();
            let page = address.map_addr(|address| address & !(PAGE - 1));
            let protection = PROT_READ | PROT_WRITE;
            libc::mmap(page, PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED
        };
        if mended {
            REPLACED.fetch_add(1, Ordering::Relaxed);
            libc::kill(libc::getpid(), TELL);
        } else {
            // The access is tried again, and ends the process.
            libc::sigaction(
                SIGBUS,
                &libc::sigaction { sa_sigaction: libc::SIG_DFL, ..std::mem::zeroed() },
                ptr::null_mut(),
            );
        }
        *errno = before;
    }
}
