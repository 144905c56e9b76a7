//! NIC memory as virtio shared memory: two regions, each mapped with one request.
//!
//! QEMU gives a vhost-user device eight memory regions in all, and each mapping takes one; and it answers the request
//! only when it is out of `vhost_dev_start`, so that whoever asks must wait in a thread of its own.

use std::io;
use std::os::unix::fs::MetadataExt as _;

use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags, VhostUserShMemConfig};
use vhost::vhost_user::{Backend as BackChannel, VhostUserFrontendReqHandler as _};
use vianic_abi::nic_memory::{REGISTERS_SIZE, REQUESTS_SIZE, SHM_REGISTERS, SHM_REQUESTS};
use vm_memory::{GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _};

use crate::nic::memory::NicMemory;

/// The regions and their sizes.
pub(super) fn config() -> VhostUserShMemConfig {
    VhostUserShMemConfig::new(2, &[REGISTERS_SIZE, REQUESTS_SIZE])
}

/// Asks the front end to show NIC memory to the guest, and waits for its answer.
pub(super) fn map(front_end: &BackChannel, memory: &NicMemory) -> io::Result<()> {
    let map = |shmid, fd_offset, len, flags: VhostUserMMapFlags| {
        let request =
            VhostUserMMap { shmid, padding: [0; 7], fd_offset, shm_offset: 0, len, flags: flags.bits() };
        front_end.shmem_map(&request, memory.file())
    };
    map(SHM_REGISTERS, 0, REGISTERS_SIZE, VhostUserMMapFlags::empty())?;
    map(SHM_REQUESTS, REGISTERS_SIZE, REQUESTS_SIZE, VhostUserMMapFlags::WRITABLE)?;
    Ok(())
}

/// Whether the guest sees NIC memory already, to judge by its memory table: a mapping survives a pause of the guest
/// and must not be made twice. QEMU lists writable mappings only, so the second region stands for both.
pub(super) fn is_mapped(guest: &GuestMemoryMmap, memory: &NicMemory) -> bool {
    let Ok(ours) = memory.file().metadata() else { return false };
    guest.iter().filter_map(|region| region.file_offset()).any(|mapped| {
        mapped.start() == REGISTERS_SIZE
            && mapped.file().metadata().is_ok_and(|file| file.dev() == ours.dev() && file.ino() == ours.ino())
    })
}
