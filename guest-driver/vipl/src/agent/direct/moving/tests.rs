//! Pages on the move.
#![expect(clippy::undocumented_unsafe_blocks, reason = "all of them are the test's own memory")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::mm::mmap_anonymous;

use super::*;
use crate::agent::direct::ram::in_memory;

const PAGE_BYTES: usize = 4096;
const _: () = assert!(PAGE_BYTES as u64 == PAGE);

/// Anonymous pages, each filled with its number.
struct Pages {
    base: *mut u8,
    count: usize,
}

impl Pages {
    fn new(count: usize) -> Self {
        Self::at(ptr::null_mut(), count, MapFlags::PRIVATE)
    }

    fn at(place: *mut u8, count: usize, flags: MapFlags) -> Self {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let base =
            unsafe { mmap_anonymous(place.cast(), count * PAGE_BYTES, protection, flags) }.expect("memory");
        let mut pages = Self { base: base.cast(), count };
        for (number, page) in pages.bytes().chunks_mut(PAGE_BYTES).enumerate() {
            page.fill(u8::try_from(number % 251).expect("small"));
        }
        pages
    }

    fn bytes(&mut self) -> &mut [u8] {
        unsafe { std::slice::from_raw_parts_mut(self.base, self.count * PAGE_BYTES) }
    }

    fn range(&self) -> Range<usize> {
        let start = self.base.expose_provenance();
        start..start + self.count * PAGE_BYTES
    }

    /// Part of the range, in pages.
    fn part(&self, pages: Range<usize>) -> Range<usize> {
        let start = self.range().start;
        start + pages.start * PAGE_BYTES..start + pages.end * PAGE_BYTES
    }

    fn protect(&self, pages: Range<usize>, rights: mm::MprotectFlags) {
        let base = unsafe { self.base.add(pages.start * PAGE_BYTES) };
        unsafe { mm::mprotect(base.cast(), pages.len() * PAGE_BYTES, rights) }.expect("mprotect");
    }

    fn unmap(&self) {
        unsafe { mm::munmap(self.base.cast(), self.count * PAGE_BYTES) }.expect("munmap");
    }
}

fn ram() -> &'static Ram {
    Ram::of_this_process().expect("guest RAM")
}

fn adopt(range: Range<usize>) -> Result<Vec<Run>, Status> {
    unsafe { ram().adopt(range) }.map(|adopted| adopted.runs)
}

/// What the card sees at a guest-physical address.
fn seen_by_card(address: u64) -> u8 {
    let words: &[AtomicU64] = ram().memory().words(in_memory(address & !7), 1);
    words[0].load(Ordering::Relaxed).to_le_bytes()[in_memory(address & 7)]
}

#[test]
fn bytes_stay_and_both_sides_see_writes() {
    let mut pages = Pages::new(5);
    let runs = adopt(pages.range()).expect("they can move");
    let [run] = runs[..] else { panic!("one run: {runs:?}") };
    assert_eq!(run.length, 5 * PAGE);
    for (number, page) in pages.bytes().chunks(PAGE_BYTES).enumerate() {
        assert!(page.iter().all(|byte| usize::from(*byte) == number));
        assert_eq!(usize::from(seen_by_card(run.address + (number * PAGE_BYTES) as u64)), number);
    }
    pages.bytes()[PAGE_BYTES] = 77;
    assert_eq!(seen_by_card(run.address + PAGE), 77);
}

#[test]
fn unaligned_ranges_take_the_pages_they_touch() {
    let pages = Pages::new(3);
    let start = pages.range().start;
    let runs = adopt(start + PAGE_BYTES - 1..start + PAGE_BYTES + 1).expect("they can move");
    assert_eq!(runs.iter().map(|run| run.length).sum::<u64>(), 2 * PAGE);
    assert_eq!(runs[0].virtual_address, start as u64);
}

#[test]
fn the_same_pages_move_once() {
    let mut pages = Pages::new(4);
    let first = adopt(pages.part(1..3)).expect("they can move");
    assert_eq!(adopt(pages.part(1..3)).expect("they are there"), first);
    assert_eq!(adopt(pages.part(2..3)).expect("they are there")[0].address, first[0].address + PAGE);
    // Around what is there already.
    let all = adopt(pages.range()).expect("the others can move");
    assert_eq!(all.iter().map(|run| run.length).sum::<u64>(), 4 * PAGE);
    let middle = all.iter().find(|run| {
        (run.virtual_address..run.virtual_address + run.length).contains(&(pages.part(1..2).start as u64))
    });
    let middle = middle.expect("all pages are in the runs");
    let offset = pages.part(1..2).start as u64 - middle.virtual_address;
    assert_eq!(middle.address + offset, first[0].address);
    assert_eq!(adopt(pages.range()).expect("they are there"), all);
    assert!((0..4).all(|number| usize::from(pages.bytes()[number * PAGE_BYTES]) == number));
}

#[test]
fn memory_mapped_anew_at_the_same_place_moves_anew() {
    let pages = Pages::new(2);
    let before = adopt(pages.range()).expect("they can move");
    let place = pages.base;
    pages.unmap();
    let mut again = Pages::at(place, 2, MapFlags::PRIVATE | MapFlags::FIXED);
    again.bytes().fill(9);
    let after = adopt(again.range()).expect("they can move");
    assert_ne!(after[0].address, before[0].address);
    assert_eq!(seen_by_card(after[0].address), 9);
    assert_eq!(seen_by_card(before[0].address + PAGE), 1);
}

#[test]
fn memory_that_is_not_there_or_not_writable_is_refused() {
    let pages = Pages::new(4);
    pages.protect(2..3, mm::MprotectFlags::READ);
    assert_eq!(adopt(pages.range()), Err(Status::INVALID_PARAMETER));
    pages.protect(2..3, mm::MprotectFlags::empty());
    assert_eq!(adopt(pages.range()), Err(Status::INVALID_PARAMETER));
    pages.unmap();
    assert_eq!(adopt(pages.part(0..1)), Err(Status::INVALID_PARAMETER));
    assert_eq!(adopt(0..1), Err(Status::INVALID_PARAMETER));
    assert_eq!(adopt(usize::MAX - 10..usize::MAX), Err(Status::INVALID_PARAMETER));
    let start = pages.range().start;
    assert_eq!(adopt(start..start), Err(Status::INVALID_PARAMETER));
}

#[test]
fn stacks_and_shared_mappings_of_files_are_refused() {
    let local = 0_u8;
    let here = ptr::from_ref(&local).addr();
    assert_eq!(adopt(here..here + 1), Err(Status::ERROR_RESOURCE));
    let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
    rustix::fs::ftruncate(&file, PAGE).expect("a page");
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let base = unsafe { mm::mmap(ptr::null_mut(), PAGE_BYTES, protection, MapFlags::SHARED, &file, 0) };
    let start = base.expect("a mapping").expose_provenance();
    assert_eq!(adopt(start..start + PAGE_BYTES), Err(Status::ERROR_RESOURCE));
}

#[test]
fn shared_anonymous_memory_can_move() {
    let mut pages = Pages::at(ptr::null_mut(), 2, MapFlags::SHARED);
    let runs = adopt(pages.range()).expect("they can move");
    pages.bytes()[PAGE_BYTES] = 33;
    assert_eq!(seen_by_card(runs[0].address + PAGE), 33);
}

#[test]
fn large_ranges_are_aligned_for_large_pages() {
    let count = 3 * in_memory(LARGE_PAGE) / PAGE_BYTES;
    let pages = Pages::new(count);
    let runs = adopt(pages.part(1..count)).expect("they can move");
    let [run] = runs[..] else { panic!("one run: {runs:?}") };
    assert_eq!(run.address % LARGE_PAGE, run.virtual_address % LARGE_PAGE);
}

/// Where the kernel lets this process hold writers back. Elsewhere writes may be lost, as documented.
#[test]
fn writes_of_other_threads_are_not_lost() {
    let pages = Pages::new(64);
    if Frozen::new(&pages.range()).is_err() {
        return;
    }
    let counters: &[AtomicU64] =
        unsafe { std::slice::from_raw_parts(pages.base.cast(), 64 * PAGE_BYTES / 8) };
    for counter in counters {
        counter.store(0, Ordering::Relaxed);
    }
    let (stop, started) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                for counter in counters.iter().step_by(512) {
                    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                }
                rounds += 1;
                started.store(rounds, Ordering::Relaxed);
            }
            rounds
        });
        for part in 0..64 {
            // Let the writer pass between two moves.
            let before = started.load(Ordering::Relaxed);
            while started.load(Ordering::Relaxed) == before {
                std::thread::yield_now();
            }
            adopt(pages.part(part..part + 1)).expect("it can move");
        }
        stop.store(true, Ordering::Relaxed);
        let rounds = writer.join().expect("the writer ends");
        assert!(counters.iter().step_by(512).all(|counter| counter.load(Ordering::Relaxed) == rounds));
    });
}
