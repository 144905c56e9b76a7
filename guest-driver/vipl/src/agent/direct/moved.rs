//! The extents of guest RAM that pages of the process have moved to. They are given back when the program has unmapped
//! them and no registration has them any more.
#![expect(unsafe_code, reason = "pthread_atfork")]

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};

use super::maps;
use super::ram::{Extent, Ram};

/// Looking for extents to give back takes time: it is worth it when at least so many bytes have moved since the last time.
const RECLAIM_AFTER: u64 = 64 << 20;

/// How often this process has forked. A child shares the extents of that time, and may still have them mapped.
static FORKS: AtomicU32 = AtomicU32::new(0);

extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

fn watch_forks() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        // SAFETY: the handler only adds to a counter.
        if unsafe { libc::pthread_atfork(None, Some(forked), None) } != 0 {
            log::warn!(
                "forks go unnoticed: memory of the direct link that is unmapped may change in a child process"
            );
        }
    });
}

/// An extent with pages of the process. A registration keeps a reference to it.
#[derive(Debug)]
pub(super) struct Moved {
    extent: Extent,
    forks: u32,
}

#[derive(Debug, Default)]
pub(super) struct MovedExtents {
    by_address: BTreeMap<u64, Arc<Moved>>,
    /// Bytes of them after the last look for what can be given back.
    kept: u64,
    /// Bytes moved since then.
    since: u64,
}

impl MovedExtents {
    pub(super) fn add(&mut self, extent: Extent) {
        watch_forks();
        self.since += extent.length();
        let moved = Moved { extent, forks: FORKS.load(Ordering::Relaxed) };
        self.by_address.insert(moved.extent.address(), Arc::new(moved));
    }

    /// The extents with any of these guest-physical addresses.
    pub(super) fn overlapping(&self, addresses: &Range<u64>) -> impl Iterator<Item = Arc<Moved>> {
        let before = self.by_address.range(..addresses.start).next_back();
        let within = self.by_address.range(addresses.clone());
        let start = addresses.start;
        before
            .into_iter()
            .filter(move |(address, moved)| *address + moved.extent.length() > start)
            .chain(within)
            .map(|(_, moved)| Arc::clone(moved))
    }

    /// Gives back what nobody uses, if enough has moved since the last time.
    ///
    /// # Errors
    /// If `/proc/self/maps` cannot be read.
    pub(super) fn reclaim_sometimes(&mut self, ram: &Ram) -> io::Result<()> {
        if self.since >= RECLAIM_AFTER.max(self.kept / 2) { self.reclaim(ram) } else { Ok(()) }
    }

    pub(super) fn reclaim(&mut self, ram: &Ram) -> io::Result<()> {
        self.since = 0;
        let forks = FORKS.load(Ordering::Relaxed);
        let mapped = mapped_by_program(ram)?;
        let is_mapped = |start: u64, end: u64| {
            let before = mapped.range(..end).next_back();
            before.is_some_and(|(_, mapped_end)| *mapped_end > start)
        };
        self.by_address.retain(|address, moved| {
            Arc::strong_count(moved) > 1
                || moved.forks != forks
                || is_mapped(*address, *address + moved.extent.length())
        });
        self.kept = self.by_address.values().map(|moved| moved.extent.length()).sum();
        Ok(())
    }
}

/// What of guest RAM is mapped besides the one mapping of all of it: start to end. Mappings that overlap count as one.
fn mapped_by_program(ram: &Ram) -> io::Result<BTreeMap<u64, u64>> {
    let base = ram.memory().base().addr().get();
    let whole = base..base + ram.memory().length();
    let mut mapped: BTreeMap<u64, u64> = BTreeMap::new();
    for area in maps::all()? {
        if area.file != ram.file_id() || whole.contains(&area.range.start) {
            continue;
        }
        let (mut start, mut end) = (area.offset, area.offset + area.range.len() as u64);
        while let Some((&other, &other_end)) = mapped.range(..end).next_back()
            && other_end > start
        {
            mapped.remove(&other);
            (start, end) = (start.min(other), end.max(other_end));
        }
        mapped.insert(start, end);
    }
    Ok(mapped)
}

#[cfg(test)]
mod tests {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

    use super::*;
    use crate::agent::direct::ram::{PAGE, in_memory};

    fn ram() -> &'static Ram {
        Ram::of_this_process().expect("guest RAM")
    }

    #[test]
    fn extents_are_given_back_when_nobody_uses_them() {
        let mut extents = MovedExtents::default();
        let [pinned, mapped, free] = [2, 3, 4].map(|pages| {
            let extent = ram().allocate(pages * PAGE).expect("guest RAM");
            let address = extent.address();
            extents.add(extent);
            address
        });
        let pin = extents.overlapping(&(pinned + PAGE..pinned + PAGE + 1)).next();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a mapping of the test's own.
        let place = unsafe {
            mmap(
                std::ptr::null_mut(),
                in_memory(PAGE),
                protection,
                MapFlags::SHARED,
                ram().file(),
                mapped + PAGE,
            )
        }
        .expect("a mapping");
        let left = |extents: &MovedExtents| extents.by_address.keys().copied().collect::<Vec<_>>();
        let mut all = vec![pinned, mapped, free];
        all.sort_unstable();
        assert_eq!(left(&extents), all);
        extents.reclaim(ram()).expect("/proc is mounted");
        all.retain(|address| *address != free);
        assert_eq!(left(&extents), all);
        drop(pin);
        extents.reclaim(ram()).expect("/proc is mounted");
        assert_eq!(left(&extents), [mapped]);
        // SAFETY: as above.
        unsafe { munmap(place, in_memory(PAGE)) }.expect("it was mapped");
        extents.reclaim(ram()).expect("/proc is mounted");
        assert!(left(&extents).is_empty());
    }

    #[test]
    fn extents_are_found_by_address() {
        let mut extents = MovedExtents::default();
        let extent = ram().allocate(4 * PAGE).expect("guest RAM");
        let start = extent.address();
        extents.add(extent);
        let found = |range: Range<u64>| extents.overlapping(&range).count();
        assert_eq!(found(start..start + 1), 1);
        assert_eq!(found(start + 4 * PAGE - 1..start + 5 * PAGE), 1);
        assert_eq!(found(start - PAGE..start + 5 * PAGE), 1);
        assert_eq!(found(start - PAGE..start), 0);
        assert_eq!(found(start + 4 * PAGE..start + 5 * PAGE), 0);
    }

    #[test]
    fn what_a_child_may_share_stays() {
        let mut extents = MovedExtents::default();
        let extent = ram().allocate(PAGE).expect("guest RAM");
        // Moved before the last fork.
        let forks = FORKS.load(Ordering::Relaxed).wrapping_sub(1);
        extents.by_address.insert(extent.address(), Arc::new(Moved { extent, forks }));
        extents.reclaim(ram()).expect("/proc is mounted");
        assert_eq!(extents.by_address.len(), 1);
    }
}
