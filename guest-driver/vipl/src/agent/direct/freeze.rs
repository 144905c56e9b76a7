//! Holding back other threads' writes to pages while the pages move: userfaultfd in write-protect mode. A thread that
//! writes meanwhile waits, and its write goes to the page's new place.
#![expect(unsafe_code, reason = "ioctls")]

use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::ptr;

use rustix::io::{self, Errno};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::mm::UserfaultfdFlags;

/// Pages that nobody writes to, but threads that wait to. Dropping it lets them go on.
pub(super) struct Frozen {
    // Dropped in this order.
    _userfaultfd: OwnedFd,
    _signals: BlockedSignals,
}

/// The calling thread takes no signals while this lives: a handler that writes to a frozen page would wait for ever.
struct BlockedSignals {
    before: libc::sigset_t,
}

impl BlockedSignals {
    fn new() -> io::Result<Self> {
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: the first call fills in the set that the second one reads; that one fills in `before`.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            match libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) {
                0 => Ok(Self { before: before.assume_init() }),
                error => Err(Errno::from_raw_os_error(error)),
            }
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set is one that the C library filled in.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct WriteProtect {
    start: u64,
    len: u64,
    mode: u64,
}

// <linux/userfaultfd.h>
const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_PAGEFAULT_FLAG_WP: u64 = 1 << 0;
const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1 << 0;
const UFFDIO_API: Opcode = opcode::read_write::<Api>(0xaa, 0x3f);
const UFFDIO_REGISTER: Opcode = opcode::read_write::<Register>(0xaa, 0x00);
const UFFDIO_WRITEPROTECT: Opcode = opcode::read_write::<WriteProtect>(0xaa, 0x06);
/// User mode only: what a process without privileges may have. Not in rustix.
const UFFD_USER_MODE_ONLY: UserfaultfdFlags = UserfaultfdFlags::from_bits_retain(1);

impl Frozen {
    /// Holds back writes to `pages`, which are populated and private.
    ///
    /// # Errors
    /// Where the kernel or its configuration does not offer it (containers often forbid it), and for pages of a file.
    pub(super) fn new(pages: &Range<usize>) -> io::Result<Self> {
        let (start, len) = (pages.start as u64, pages.len() as u64);
        let userfaultfd = open(UserfaultfdFlags::CLOEXEC).or_else(|error| match error {
            // Without the privilege, system calls of other threads that write to the pages fail with EFAULT.
            Errno::PERM => open(UserfaultfdFlags::CLOEXEC | UFFD_USER_MODE_ONLY),
            error => Err(error),
        })?;
        let signals = BlockedSignals::new()?;
        let mut api = Api { api: UFFD_API, features: UFFD_FEATURE_PAGEFAULT_FLAG_WP, ioctls: 0 };
        let mut register = Register { start, len, mode: UFFDIO_REGISTER_MODE_WP, ioctls: 0 };
        let mut protect = WriteProtect { start, len, mode: UFFDIO_WRITEPROTECT_MODE_WP };
        // SAFETY: each request reads and writes exactly its structure, and changes no memory.
        unsafe {
            ioctl(&userfaultfd, Updater::<UFFDIO_API, _>::new(&mut api))?;
            ioctl(&userfaultfd, Updater::<UFFDIO_REGISTER, _>::new(&mut register))?;
            ioctl(&userfaultfd, Updater::<UFFDIO_WRITEPROTECT, _>::new(&mut protect))?;
        }
        Ok(Self { _userfaultfd: userfaultfd, _signals: signals })
    }
}

fn open(flags: UserfaultfdFlags) -> io::Result<OwnedFd> {
    // SAFETY: a userfaultfd does nothing until memory is registered with it.
    unsafe { rustix::mm::userfaultfd(flags) }
}
