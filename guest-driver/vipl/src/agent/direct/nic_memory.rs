//! NIC memory: the two shared-memory regions that the card maps into this process over the back-end channel.
#![expect(unsafe_code, reason = "borrows the file that the vhost crate lends")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::io::Errno;
use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags};
use vhost::vhost_user::{HandlerResult, VhostUserFrontendReqHandler};
use vianic_abi::mdl::Mdl;
use vianic_abi::nic_memory::{
    MDL_ENTRIES, MDL_OFFSET, NRA_WORDS, REGISTERS_SIZE, REQUESTS_SIZE, Registers, SHM_REGISTERS,
    SHM_REQUESTS, nra_offset,
};

use super::ram::in_memory;
use super::shared_memory::SharedMemory;

/// NIC memory. Until the card has mapped it, it reads as zeroes.
#[derive(Debug)]
pub(super) struct NicMemory {
    registers: SharedMemory,
    requests: SharedMemory,
}

impl NicMemory {
    pub(super) fn new() -> rustix::io::Result<Self> {
        Ok(Self {
            registers: SharedMemory::anonymous(in_memory(REGISTERS_SIZE))?,
            requests: SharedMemory::anonymous(in_memory(REQUESTS_SIZE))?,
        })
    }

    fn region(&self, request: &VhostUserMMap) -> std::io::Result<(&SharedMemory, usize, usize)> {
        let region = match request.shmid {
            SHM_REGISTERS => &self.registers,
            SHM_REQUESTS => &self.requests,
            _ => return Err(Errno::INVAL.into()),
        };
        Ok((region, in_memory(request.shm_offset), in_memory(request.len)))
    }

    /// Registers and counters.
    pub(super) fn registers_area(&self) -> &SharedMemory {
        &self.registers
    }

    /// The Notification Request Areas and the MDL.
    pub(super) fn requests_area(&self) -> &SharedMemory {
        &self.requests
    }

    /// The registers now; each 64-bit word of them is whole.
    pub(super) fn registers(&self) -> Registers {
        const WORDS: usize = size_of::<Registers>() / 8;
        let shared = self.registers.words::<AtomicU64>(0, WORDS);
        let words: [u64; WORDS] = std::array::from_fn(|index| shared[index].load(Ordering::Acquire));
        zerocopy::transmute!(words)
    }

    /// The Memory Deregistration List; `insert` is the MDL_Insert counter in host memory.
    pub(super) fn mdl<'a>(&'a self, insert: &'a AtomicU32) -> Mdl<'a> {
        let entries = self.requests.words(in_memory(MDL_OFFSET), MDL_ENTRIES as usize);
        let drained = self.registers.words::<AtomicU32>(std::mem::offset_of!(Registers, mdl_drained), 1);
        Mdl::new(entries, insert, &drained[0])
    }

    /// A context's Notification Request Area.
    pub(super) fn nra(&self, context: u16) -> &[AtomicU32] {
        self.requests.words(in_memory(nra_offset(context)), NRA_WORDS as usize)
    }
}

impl VhostUserFrontendReqHandler for NicMemory {
    fn shmem_map(&self, request: &VhostUserMMap, file: &dyn AsRawFd) -> HandlerResult<u64> {
        let (region, offset, length) = self.region(request)?;
        // SAFETY: the caller keeps the file open during this call.
        let file = unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) };
        let writable = request.flags & VhostUserMMapFlags::WRITABLE.bits() != 0;
        region.replace(offset, length, file, request.fd_offset, writable)?;
        Ok(0)
    }

    fn shmem_unmap(&self, request: &VhostUserMMap) -> HandlerResult<u64> {
        let (region, offset, length) = self.region(request)?;
        region.clear(offset, length)?;
        Ok(0)
    }
}
