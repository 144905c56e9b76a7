//! A virtqueue of the back end: the vhost-user-backend crate's, made safe against the file descriptors that a front
//! end may send.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::{RwLockReadGuard, RwLockWriteGuard};

use vhost_user_backend::{VringRwLock, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::{Error as QueueError, QueueT as _};
use vmm_sys_util::event::EventConsumer;

use super::Memory;

thread_local! {
    static MADE: RefCell<Vec<Vring>> = const { RefCell::new(Vec::new()) };
}

/// Runs `make`, which makes a `VhostUserDaemon`, and returns with it the daemon's virtqueues by number.
///
/// The crate shows a back end only those virtqueues whose kicks its worker reads; the doorbells' are not among
/// them.
pub(super) fn collect<T>(make: impl FnOnce() -> T) -> (T, Vec<Vring>) {
    MADE.take();
    let made = make();
    (made, MADE.take())
}

/// A virtqueue. Clones are the same one.
#[derive(Clone)]
pub(super) struct Vring(VringRwLock<Memory>);

impl Vring {
    /// Whether the front end lets it run.
    pub(super) fn is_running(&self) -> bool {
        let state = self.0.get_ref();
        state.is_enabled() && state.get_queue().ready()
    }

    /// A duplicate of the descriptor that kicks it, if there is one.
    pub(super) fn kick(&self) -> io::Result<Option<EventConsumer>> {
        self.0.get_ref().get_kick().as_ref().map(EventConsumer::try_clone).transpose()
    }
}

/// The file, if it is an eventfd; made non-blocking, so that a front end that plays with the counter cannot stop the
/// thread that reads or writes it.
fn event_fd(file: File, what: &str) -> Option<File> {
    let is_event_fd = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .map_or(true, |target| target.as_os_str() == "anon_inode:[eventfd]");
    if !is_event_fd {
        log::warn!("the front end sent a {what} descriptor that is not an eventfd; it is not used");
        return None;
    }
    let nonblocking = rustix::fs::fcntl_getfl(&file)
        .and_then(|flags| rustix::fs::fcntl_setfl(&file, flags | rustix::fs::OFlags::NONBLOCK));
    match nonblocking {
        Ok(()) => Some(file),
        Err(error) => {
            log::warn!("cannot use the {what} descriptor that the front end sent: {error}");
            None
        }
    }
}

impl<'a> VringStateGuard<'a, Memory> for Vring {
    type G = RwLockReadGuard<'a, VringState<Memory>>;
}

impl<'a> VringStateMutGuard<'a, Memory> for Vring {
    type G = RwLockWriteGuard<'a, VringState<Memory>>;
}

impl VringT<Memory> for Vring {
    fn new(memory: Memory, max_queue_size: u16) -> Result<Self, QueueError> {
        let vring = Self(VringRwLock::new(memory, max_queue_size)?);
        MADE.with_borrow_mut(|made| made.push(vring.clone()));
        Ok(vring)
    }

    fn set_kick(&self, file: Option<File>) {
        self.0.set_kick(file.and_then(|file| event_fd(file, "kick")));
    }

    fn set_call(&self, file: Option<File>) {
        self.0.set_call(file.and_then(|file| event_fd(file, "call")));
    }

    fn set_err(&self, _file: Option<File>) {
        // Nothing is ever reported through it.
    }

    fn read_kick(&self) -> io::Result<bool> {
        match self.0.read_kick() {
            Ok(enabled) => Ok(enabled),
            // Somebody else who has the eventfd was faster. Any error would end the crate's worker.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(self.0.get_ref().is_enabled()),
            Err(error) => {
                log::error!(
                    "cannot read a kick: {error}; the card is deaf until the front end connects again"
                );
                Err(error)
            }
        }
    }

    fn get_ref(&self) -> RwLockReadGuard<'_, VringState<Memory>> {
        self.0.get_ref()
    }

    fn get_mut(&self) -> RwLockWriteGuard<'_, VringState<Memory>> {
        self.0.get_mut()
    }

    fn add_used(&self, head: u16, length: u32) -> Result<(), QueueError> {
        self.0.add_used(head, length)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.0.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, QueueError> {
        self.0.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), QueueError> {
        self.0.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, QueueError> {
        self.0.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.0.set_enabled(enabled);
    }

    fn set_queue_info(&self, table: u64, avail: u64, used: u64) -> Result<(), QueueError> {
        self.0.set_queue_info(table, avail, used)
    }

    fn queue_next_avail(&self) -> u16 {
        self.0.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.0.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, index: u16) {
        self.0.set_queue_next_used(index);
    }

    fn queue_used_idx(&self) -> Result<u16, QueueError> {
        self.0.queue_used_idx()
    }

    fn set_queue_size(&self, size: u16) {
        self.0.set_queue_size(size);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.0.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.0.set_queue_ready(ready);
    }
}
