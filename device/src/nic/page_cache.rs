//! Page addresses of large regions that the card has read from their page tables, so that a region in use costs one look into the
//! card's own memory for each page, and none into the host's.
//!
//! Direct-mapped: a line gives way to the next one that needs its place. Lines carry the number of the fetch that brought their
//! region into the shadow MRT. No number occurs twice, so what is left of a region that was forgotten never matches again, not even when
//! its handle comes round a second time.

use vianic_abi::mrt::LEAF_PAGES;
use vianic_abi::nic_memory::Counter;

use crate::nic::host::Host;
use crate::nic::memory::{NicMemory, usize_of};
use crate::nic::shadow_mrt::ProtectionFault;

/// Page addresses of a line: a cache line's worth.
type PageAddresses = [u64; 8];
const LINE_PAGES: u64 = size_of::<PageAddresses>() as u64 / 8;
/// Lines: 128 MiB of memory in pages of 4 KiB.
const LINES: u64 = 4096;
/// Bytes of a leaf, and what its address is a multiple of.
const LEAF_SIZE: u64 = LEAF_PAGES * 8;

/// Which fetch brought a region into the shadow MRT. They are counted in 64 bits, which never come to an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FetchNumber(u64);

impl FetchNumber {
    /// The next one. The first number of all, the default, is no fetch's.
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    fetch: FetchNumber,
    number: u64,
    pages: PageAddresses,
}

/// The cache.
#[derive(Debug)]
pub(super) struct PageCache {
    lines: Box<[Line]>,
}

impl PageCache {
    pub(super) fn new() -> Self {
        Self { lines: vec![Line::default(); usize_of(LINES)].into() }
    }

    /// The address of page number `page` of the region that `fetch` brought, whose page directory is at `directory`.
    ///
    /// # Errors
    /// If the page table is not in guest RAM.
    #[inline]
    pub(super) fn page(
        &mut self,
        (nic_memory, host): (&NicMemory, &Host),
        (fetch, directory): (FetchNumber, u64),
        page: u64,
    ) -> Result<u64, ProtectionFault> {
        let number = page / LINE_PAGES;
        let line = &mut self.lines[place(fetch, number)];
        if line.fetch != fetch || line.number != number {
            *line = Line { fetch, number, pages: read(host, directory, number)? };
            nic_memory.count(Counter::page_table_reads, 1);
        }
        Ok(line.pages[usize_of(page % LINE_PAGES)])
    }
}

/// Lines that follow each other have places that do; regions begin at places far apart.
#[inline]
fn place(fetch: FetchNumber, number: u64) -> usize {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let start = fetch.0.wrapping_mul(SPREAD) >> 32;
    usize_of(start.wrapping_add(number) % LINES)
}

/// Reads line number `number` of a page table.
#[cold]
fn read(host: &Host, directory: u64, number: u64) -> Result<PageAddresses, ProtectionFault> {
    const LINES_OF_LEAF: u64 = LEAF_PAGES / LINE_PAGES;
    let memory = host.memory();
    let slot = directory.checked_add(number / LINES_OF_LEAF * 8).ok_or(ProtectionFault)?;
    let leaf: u64 = memory.read(slot).map_err(|_| ProtectionFault)?;
    if !leaf.is_multiple_of(LEAF_SIZE) {
        return Err(ProtectionFault);
    }
    memory.read(leaf + number % LINES_OF_LEAF * LINE_PAGES * 8).map_err(|_| ProtectionFault)
}
