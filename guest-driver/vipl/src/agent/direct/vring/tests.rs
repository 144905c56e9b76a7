//! The queue against a device that reads the same memory.

use super::*;

struct Device<'a> {
    ring: &'a Vring,
    next: u16,
    used: u16,
}

impl<'a> Device<'a> {
    fn available(&mut self) -> Option<u16> {
        let ring = self
            .ring
            .memory
            .words::<AtomicU16>(available_offset(self.ring.size), 2 + usize::from(self.ring.size));
        let head = ring[2 + usize::from(self.next % self.ring.size)].load(Ordering::Relaxed);
        (ring[1].load(Ordering::Acquire) != self.next).then(|| {
            self.next = self.next.wrapping_add(1);
            head
        })
    }

    fn push_used(&mut self, id: u32) {
        let words = 2 + 4 * usize::from(self.ring.size);
        let ring = self.ring.memory.words::<AtomicU16>(used_offset(self.ring.size), words);
        let element = 2 + 4 * usize::from(self.used % self.ring.size);
        ring[element].store((id & 0xffff) as u16, Ordering::Relaxed);
        ring[element + 1].store((id >> 16) as u16, Ordering::Relaxed);
        self.used = self.used.wrapping_add(1);
        ring[1].store(self.used, Ordering::Release);
    }
}

fn ram() -> &'static Ram {
    Ram::of_this_process().expect("guest RAM")
}

/// Takes what the device used, as the device's next borrow of the ring follows.
fn round(ring: &mut Vring, next: u16, id: Option<u32>) -> (Option<u16>, Option<u16>) {
    let mut device = Device { ring, next, used: next };
    let available = device.available();
    if let Some(id) = id.or_else(|| available.map(u32::from)) {
        device.push_used(id);
    }
    (available, ring.take_used())
}

#[test]
fn buffers_go_round() {
    let mut ring = Vring::new(ram(), 4).expect("guest RAM");
    for turn in 0..u16::MAX {
        let head = turn % 4;
        ring.make_available(head);
        assert_eq!(round(&mut ring, turn, None), (Some(head), Some(head)));
        assert_eq!(ring.take_used(), None);
    }
}

#[test]
fn a_head_that_cannot_be_is_skipped() {
    let mut ring = Vring::new(ram(), 4).expect("guest RAM");
    for (turn, head) in (0..).zip([4, 0x1_0000, u32::MAX]) {
        ring.make_available(0);
        assert_eq!(round(&mut ring, turn, Some(head)), (Some(0), None));
    }
}

#[test]
fn chains_are_linked() {
    let ring = Vring::new(ram(), 4).expect("guest RAM");
    let out = Buffer { address: 0x1000, length: 32, writable: false };
    let reply = Buffer { address: 0x1020, length: 8, writable: true };
    ring.describe(1, &[out, reply]);
    let words: [u64; 4] = ring.memory.load(DESCRIPTOR_SIZE);
    assert_eq!(words, [0x1000, 32 | 1 << 32 | 2 << 48, 0x1020, 8 | 2 << 32]);
}

#[test]
fn the_parts_of_the_queue_do_not_overlap() {
    for size in [2_u16, 16, 256] {
        let ring = Vring::new(ram(), size).expect("guest RAM");
        let config = ring.config(ram());
        assert_eq!(config.avail_ring_addr - config.desc_table_addr, 16 * u64::from(size));
        assert!(config.used_ring_addr >= config.avail_ring_addr + 6 + 2 * u64::from(size));
        assert!(config.used_ring_addr.is_multiple_of(4));
        assert!(ring.memory.length() >= used_offset(size) + 6 + 8 * u64::from(size));
    }
}

#[test]
fn a_device_that_polls_is_not_kicked() {
    let ring = Vring::new(ram(), 4).expect("guest RAM");
    assert!(ring.wants_kick());
    ring.memory.words::<AtomicU16>(used_offset(4), 1)[0].store(USED_NO_NOTIFY, Ordering::Relaxed);
    assert!(!ring.wants_kick());
}
