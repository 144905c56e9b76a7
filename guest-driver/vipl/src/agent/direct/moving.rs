//! Moving pages of the process into guest RAM, in place: their bytes are copied to fresh pages of the memfd, which is
//! then mapped over them. `/proc/self/maps` tells which pages are there already, so that memory that was unmapped and
//! mapped anew is never taken for what lay there before.
#![expect(unsafe_code, reason = "maps memory over the caller's pages")]

use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use vianic_abi::status::Status;

use super::freeze::Frozen;
use super::maps::Area;
use super::moved::Moved;
use super::ram::{Extent, PAGE, RAM_NAME, Ram, in_memory};
use super::stack;

/// Pages at least as large as this get guest-physical addresses of the same alignment.
pub(super) const LARGE_PAGE: u64 = 2 << 20;

/// Where pages are, and what keeps them there.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    pub(super) runs: Vec<Run>,
    pub(super) pins: Vec<Arc<Moved>>,
}

/// Pages whose virtual and guest-physical addresses are contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) virtual_address: u64,
    pub(super) address: u64,
    pub(super) length: u64,
}

impl Ram {
    /// Moves the pages of `range` that are not in guest RAM yet, and says where all of them are, in order.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` if a page is not mapped, readable and writable. `ERROR_RESOURCE` for memory that cannot be
    /// moved: a stack, a shared mapping of a file; and when guest RAM or the kernel is out of something.
    ///
    /// # Safety
    /// The range is the caller's to use with a card, and stays mapped meanwhile.
    pub(super) unsafe fn adopt(&'static self, range: Range<usize>) -> Result<Adopted, Status> {
        let page = in_memory(PAGE);
        let end = range.end.checked_next_multiple_of(page).ok_or(Status::INVALID_PARAMETER)?;
        let pages = (range.start & !(page - 1))..end;
        if range.is_empty() {
            return Err(Status::INVALID_PARAMETER);
        }
        let no_maps = |error| {
            log::error!("memory cannot be registered without /proc/self/maps: {error}");
            Status::ERROR_RESOURCE
        };
        let mut moved = self.moved.lock();
        moved.reclaim_sometimes(self).map_err(no_maps)?;
        let areas = self.maps().areas_of(&pages).map_err(no_maps)?;
        self.check(&pages, &areas)?;
        let mut adopted = Adopted::default();
        for stretch in stretches(&pages, &areas, self) {
            let address = match stretch.moved_to {
                Some(address) => address,
                None => {
                    // SAFETY: the caller vouches for the range, which was just checked.
                    let extent = unsafe { self.move_pages(&stretch) }?;
                    let address = extent.address();
                    moved.add(extent);
                    address
                }
            };
            append(&mut adopted.runs, &stretch.pages, address);
            adopted.pins.extend(moved.overlapping(&(address..address + stretch.pages.len() as u64)));
        }
        Ok(adopted)
    }

    fn check(&self, pages: &Range<usize>, areas: &[Area]) -> Result<(), Status> {
        let mut next = pages.start;
        for area in areas {
            if area.range.start > next || !area.readable || !area.writable {
                return Err(Status::INVALID_PARAMETER);
            }
            next = area.range.end;
        }
        if next < pages.end {
            return Err(Status::INVALID_PARAMETER);
        }
        let stack = stack::of_this_thread().unwrap_or_default();
        if overlap(pages, &stack) || areas.iter().any(|area| area.name == "[stack]") {
            log::error!(
                "a thread's stack cannot be registered over the direct link: use memory from the heap"
            );
            return Err(Status::ERROR_RESOURCE);
        }
        if let Some(area) = areas.iter().find(|area| !area.is_movable(self)) {
            log::error!(
                "{} is a shared mapping, which the direct link cannot move into guest RAM",
                area.name
            );
            return Err(Status::ERROR_RESOURCE);
        }
        Ok(())
    }

    /// # Safety
    /// The pages are mapped readable and writable, and the caller's to replace by a copy.
    unsafe fn move_pages(&'static self, stretch: &Stretch) -> Result<Extent, Status> {
        let pages = &stretch.pages;
        let length = pages.len() as u64;
        let extent = if length >= LARGE_PAGE {
            self.allocate_in_phase(length, LARGE_PAGE, pages.start as u64 & (LARGE_PAGE - 1))
        } else {
            self.allocate(length)
        };
        let extent = extent.ok_or_else(|| {
            log::error!("guest RAM has no room for {length} bytes more");
            Status::ERROR_RESOURCE
        })?;
        // SAFETY: as the caller promises.
        unsafe { self.copy_and_map_over(stretch, &extent) }.map_err(|error| match error {
            Errno::FAULT => Status::INVALID_PARAMETER,
            error => {
                log::error!("{length} bytes at {:#x} cannot be moved into guest RAM: {error}", pages.start);
                if error == Errno::NOMEM {
                    log::error!("the process may have too many mappings: see vm.max_map_count in sysctl(8)");
                }
                Status::ERROR_RESOURCE
            }
        })?;
        Ok(extent)
    }

    /// # Safety
    /// As [`move_pages`](Self::move_pages).
    unsafe fn copy_and_map_over(&self, stretch: &Stretch, extent: &Extent) -> Result<(), Errno> {
        let pages = &stretch.pages;
        let base = ptr::with_exposed_provenance_mut::<u8>(pages.start);
        // Every page must exist to be frozen. An old kernel does not know this advice; it then freezes what exists.
        // SAFETY: populating changes no bytes.
        match unsafe { mm::madvise(base.cast(), pages.len(), Advice::LinuxPopulateWrite) } {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
        let frozen = Frozen::new(pages);
        if let Err(error) = &frozen {
            log::debug!("other threads' writes are not held back while pages move: {error}");
        }
        let mut copied = 0;
        while copied < pages.len() {
            // The kernel reads the pages: one that cannot be read is an error here, not a signal. From the freeze on
            // this thread may write to nothing but its stack, not even to errno, or it would wait for itself.
            // SAFETY: the pages are mapped, and nothing but a system call looks at the bytes.
            let rest = unsafe { std::slice::from_raw_parts(base.add(copied), pages.len() - copied) };
            match rustix::io::pwrite(self.file(), rest, extent.address() + copied as u64) {
                Ok(0) => return Err(Errno::NOSPC),
                Ok(bytes) => copied += bytes,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        let mut protection = ProtFlags::READ | ProtFlags::WRITE;
        if stretch.executable {
            protection |= ProtFlags::EXEC;
        }
        // SAFETY: the new pages have the bytes and the rights of the old ones, which are the caller's to replace.
        unsafe {
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            mm::mmap(base.cast(), pages.len(), protection, flags, self.file(), extent.address())
        }?;
        Ok(())
    }
}

impl Area {
    fn is_movable(&self, ram: &Ram) -> bool {
        // Pages that a parent process moved before it forked may move again: the child's then are its own. So may
        // anonymous memory that is shared, with nobody but children.
        let is_own = self.name == "/dev/zero (deleted)"
            || self.name.strip_prefix("/memfd:").is_some_and(|name| name.starts_with(RAM_NAME));
        !self.shared || self.file == ram.file_id() || is_own
    }
}

/// Pages that are all in guest RAM, contiguously, or all not.
#[derive(Debug, PartialEq, Eq)]
struct Stretch {
    pages: Range<usize>,
    executable: bool,
    moved_to: Option<u64>,
}

/// `pages` as stretches. Neighbouring areas that have yet to move and have the same rights move together.
fn stretches(pages: &Range<usize>, areas: &[Area], ram: &Ram) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for area in areas {
        let part = area.range.start.max(pages.start)..area.range.end.min(pages.end);
        let moved_to = (area.shared && area.file == ram.file_id())
            .then(|| area.offset + (part.start - area.range.start) as u64);
        match stretches.last_mut() {
            Some(last)
                if last.moved_to.is_none() && moved_to.is_none() && last.executable == area.executable =>
            {
                last.pages.end = part.end;
            }
            _ => stretches.push(Stretch { pages: part, executable: area.executable, moved_to }),
        }
    }
    stretches
}

fn append(runs: &mut Vec<Run>, pages: &Range<usize>, address: u64) {
    let length = pages.len() as u64;
    match runs.last_mut() {
        Some(last) if last.address + last.length == address => last.length += length,
        _ => runs.push(Run { virtual_address: pages.start as u64, address, length }),
    }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests;
