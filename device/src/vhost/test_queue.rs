//! A virtqueue with the driver's side of it, for tests.

use vhost_user_backend::VringT as _;
use virtio_bindings::bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Bytes as _, GuestAddress, GuestAddressSpace as _, GuestMemoryMmap};

use super::Memory;
use super::vring::Vring;

/// Entries of the queue.
pub(super) const SIZE: u16 = 16;
/// Bytes of guest RAM, from address 0. The rings are in its first 0x4000 bytes.
pub(super) const RAM: u64 = 0x1_0000;

const TABLE: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;

/// A part of a chain.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// For the device to read.
    Out(u64, u32),
    /// For the device to write.
    In(u64, u32),
}

pub(super) struct TestQueue {
    pub(super) memory: Memory,
    pub(super) ring: Vring,
    next_descriptor: u16,
}

impl TestQueue {
    pub(super) fn new() -> Self {
        let ram = usize::try_from(RAM).expect("fits");
        let memory = Memory::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), ram)]).expect("guest RAM"));
        let ring = Vring::new(memory.clone(), 1024).expect("queue");
        ring.set_queue_size(SIZE);
        ring.set_queue_info(TABLE, AVAIL, USED).expect("rings");
        ring.set_queue_ready(true);
        ring.set_enabled(true);
        Self { memory, ring, next_descriptor: 0 }
    }

    pub(super) fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.memory().write_slice(bytes, GuestAddress(address)).expect("in RAM");
    }

    pub(super) fn read<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.memory().read_slice(&mut bytes, GuestAddress(address)).expect("in RAM");
        bytes
    }

    fn word(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.read(address))
    }

    /// Writes descriptor `index` as it is.
    pub(super) fn describe(&self, index: u16, part: Part, flags: u32, next: u16) {
        let (address, length, own) = match part {
            Part::Out(address, length) => (address, length, 0),
            Part::In(address, length) => (address, length, VRING_DESC_F_WRITE),
        };
        let flags = u16::try_from(own | flags).expect("16 bits");
        let at = TABLE + u64::from(index) * 16;
        self.write(at, &address.to_le_bytes());
        self.write(at + 8, &length.to_le_bytes());
        self.write(at + 12, &flags.to_le_bytes());
        self.write(at + 14, &next.to_le_bytes());
    }

    /// Makes the chain that starts at descriptor `head` available.
    pub(super) fn make_available(&self, head: u16) {
        let index = self.word(AVAIL + 2);
        self.write(AVAIL + 4 + u64::from(index % SIZE) * 2, &head.to_le_bytes());
        self.set_avail_index(index.wrapping_add(1));
    }

    pub(super) fn set_avail_index(&self, index: u16) {
        self.write(AVAIL + 2, &index.to_le_bytes());
    }

    pub(super) fn set_avail_flags(&self, flags: u16) {
        self.write(AVAIL, &flags.to_le_bytes());
    }

    /// Offers a chain of these parts and returns its head.
    pub(super) fn offer(&mut self, parts: &[Part]) -> u16 {
        let head = self.next_descriptor;
        for (number, part) in parts.iter().enumerate() {
            let index = self.next_descriptor;
            self.next_descriptor += 1;
            let more = if number + 1 < parts.len() { VRING_DESC_F_NEXT } else { 0 };
            self.describe(index, *part, more, index + 1);
        }
        self.make_available(head);
        head
    }

    /// The used ring so far: heads and lengths.
    pub(super) fn used(&self) -> Vec<(u32, u32)> {
        let element = |index: u16| {
            let at = USED + 4 + u64::from(index % SIZE) * 8;
            (u32::from_le_bytes(self.read(at)), u32::from_le_bytes(self.read(at + 4)))
        };
        (0..self.word(USED + 2)).map(element).collect()
    }
}
