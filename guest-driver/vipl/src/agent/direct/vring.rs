//! A split virtqueue, as its driver sees it.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use vhost::VringConfigData;

use super::ram::{Extent, Ram, in_memory};

/// Bytes of a descriptor: address (64), length (32), flags (16), next (16).
const DESCRIPTOR_SIZE: u64 = 16;
const FLAG_NEXT: u16 = 1;
const FLAG_WRITE: u16 = 2;
/// Flag in the used ring: the device does not want to be kicked.
const USED_NO_NOTIFY: u16 = 1;

/// A buffer for the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffer {
    pub(super) address: u64,
    pub(super) length: u32,
    /// The device writes it.
    pub(super) writable: bool,
}

/// The memory of a virtqueue, and the driver's place in it.
#[derive(Debug)]
pub(super) struct Vring {
    memory: Extent,
    size: u16,
    available: u16,
    used: u16,
}

impl Vring {
    /// An empty queue of `size` descriptors, a power of two.
    pub(super) fn new(ram: &'static Ram, size: u16) -> Option<Self> {
        let memory = ram.allocate(used_offset(size) + 6 + 8 * u64::from(size))?;
        Some(Self { memory, size, available: 0, used: 0 })
    }

    /// Where the queue is, as the vhost-user front end tells it.
    pub(super) fn config(&self, ram: &Ram) -> VringConfigData {
        let address = (ram.memory().base().addr().get() as u64) + self.memory.address();
        VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            flags: 0,
            desc_table_addr: address,
            avail_ring_addr: address + available_offset(self.size),
            used_ring_addr: address + used_offset(self.size),
            log_addr: None,
        }
    }

    /// Writes `chain` to the descriptors from `first` on.
    pub(super) fn describe(&self, first: u16, chain: &[Buffer]) {
        for (index, buffer) in (first..).zip(chain) {
            let last = usize::from(index - first) + 1 == chain.len();
            let mut flags = if last { 0 } else { FLAG_NEXT };
            flags |= if buffer.writable { FLAG_WRITE } else { 0 };
            let next = if last { 0 } else { index + 1 };
            let second = u64::from(buffer.length) | u64::from(flags) << 32 | u64::from(next) << 48;
            self.memory.store(u64::from(index) * DESCRIPTOR_SIZE, &[buffer.address, second]);
        }
    }

    /// Gives the chain that starts at descriptor `head` to the device. The caller then kicks if [`wants_kick`](Self::wants_kick).
    pub(super) fn make_available(&mut self, head: u16) {
        let ring = self.memory.words::<AtomicU16>(available_offset(self.size), 2 + usize::from(self.size));
        ring[2 + usize::from(self.available & (self.size - 1))].store(head, Ordering::Relaxed);
        self.available = self.available.wrapping_add(1);
        ring[1].store(self.available, Ordering::Release);
    }

    /// Whether the device wants to hear of what was made available.
    pub(super) fn wants_kick(&self) -> bool {
        std::sync::atomic::fence(Ordering::SeqCst);
        let flags = &self.memory.words::<AtomicU16>(used_offset(self.size), 1)[0];
        flags.load(Ordering::Relaxed) & USED_NO_NOTIFY == 0
    }

    /// The head of the next chain that the device has used. A head that cannot be is skipped.
    pub(super) fn take_used(&mut self) -> Option<u16> {
        let ring = used_offset(self.size);
        let index = &self.memory.words::<AtomicU16>(ring + 2, 1)[0];
        while self.used != index.load(Ordering::Acquire) {
            // Elements are 64 bits at an offset of 4: read as four words of 16.
            let element = ring + 4 + 8 * u64::from(self.used & (self.size - 1));
            let words = self.memory.words::<AtomicU16>(element, 2);
            self.used = self.used.wrapping_add(1);
            let head = words[0].load(Ordering::Relaxed);
            if words[1].load(Ordering::Relaxed) == 0 && head < self.size {
                return Some(head);
            }
        }
        None
    }

    /// The 64-bit word that the device wrote to `address`.
    pub(super) fn word(ram: &Ram, address: u64) -> u64 {
        ram.memory().words::<AtomicU64>(in_memory(address), 1)[0].load(Ordering::Relaxed)
    }
}

const fn available_offset(size: u16) -> u64 {
    DESCRIPTOR_SIZE * size as u64
}

const fn used_offset(size: u16) -> u64 {
    (available_offset(size) + 6 + 2 * size as u64).next_multiple_of(4)
}

#[cfg(test)]
mod tests;
