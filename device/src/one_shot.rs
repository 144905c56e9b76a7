//! An event that happens once and that threads wait for beside file descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// An event that happens once. Clones are the same one. As a file descriptor it is readable from then on.
#[derive(Clone, Debug)]
pub struct OneShot(Arc<OwnedFd>);

impl OneShot {
    /// An event that has not happened yet.
    ///
    /// # Errors
    /// If the system is out of descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// It happens.
    pub fn raise(&self) {
        // It can fail only if the counter is full, and then it has happened already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl AsFd for OneShot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
