//! The Memory Region Table and the Memory Deregistration List, Kernel Agent's side.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use vianic_abi::command::{MrtChunk, Opcode};
use vianic_abi::mrt::{
    INLINE_PAGES, LEAF_PAGES, MAX_GENERATION, MRT_CHUNK_ENTRIES, MRT_ENTRY_SIZE, MRT_MAX_CHUNKS, MrtEntry,
    handle, handle_index,
};
use vianic_abi::nic_memory::MDL_ENTRIES;
use vianic_abi::status::Status;

use super::moved::Moved;
use super::moving::{Adopted, LARGE_PAGE, Run};
use super::nic_memory::NicMemory;
use super::ram::{Extent, PAGE, Ram};

const WORDS: usize = MRT_ENTRY_SIZE / 8;

/// What a region is, apart from where its pages are.
#[derive(Clone, Copy, Debug)]
pub(super) struct RegionAttributes {
    pub(super) context: u16,
    pub(super) ptag: u32,
    pub(super) access: u16,
    pub(super) virtual_address: u64,
    pub(super) length: u64,
}

#[derive(Debug)]
pub(super) struct Mrt {
    ram: &'static Ram,
    nic_memory: Arc<NicMemory>,
    /// The MDL_Insert counter, which the card reads.
    mdl_insert: Extent,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    chunks: Vec<Extent>,
    /// Free entries with the generation of their next handle. First in, first out, so that a handle comes again late.
    free: VecDeque<(u32, u32)>,
    /// What the registered regions use, by MRT index.
    in_use: Vec<InUse>,
    /// What the card may still use, with the count of insertions that lets go of it.
    limbo: VecDeque<(u32, InUse)>,
}

/// What must stay while the card knows a region.
#[derive(Debug, Default)]
struct InUse {
    _page_table: Option<Extent>,
    _pages: Vec<Arc<Moved>>,
}

/// What the table needs of the card: to run a command.
pub(super) trait RunCommand {
    /// Hands over a chunk of the table.
    fn add_chunk(&self, chunk: MrtChunk) -> Result<(), Status>;
    /// Makes the card let go of all handles in the MDL.
    fn drain_mdl(&self) -> Result<(), Status>;
}

impl RunCommand for super::commands::Commands {
    fn add_chunk(&self, chunk: MrtChunk) -> Result<(), Status> {
        self.run(Opcode::ADD_MRT_CHUNK, chunk)
    }

    fn drain_mdl(&self) -> Result<(), Status> {
        self.run(Opcode::DRAIN_MDL, [0_u64; 6])
    }
}

impl Mrt {
    pub(super) fn new(ram: &'static Ram, nic_memory: Arc<NicMemory>) -> Option<Self> {
        Some(Self { ram, nic_memory, mdl_insert: ram.allocate(PAGE)?, state: Mutex::default() })
    }

    /// Guest-physical address of the MDL_Insert counter.
    pub(super) fn mdl_insert_address(&self) -> u64 {
        self.mdl_insert.address()
    }

    fn mdl_insert(&self) -> &AtomicU32 {
        &self.mdl_insert.words(0, 1)[0]
    }

    /// Enters a region and gives its handle.
    ///
    /// # Errors
    /// `ERROR_RESOURCE` when the table or guest RAM is full, and what the card answers.
    pub(super) fn register(
        &self,
        region: &RegionAttributes,
        adopted: Adopted,
        card: &impl RunCommand,
    ) -> Result<u32, Status> {
        let mut entry = MrtEntry {
            ptag: region.ptag,
            context: region.context,
            access: region.access,
            virtual_address: region.virtual_address,
            length: region.length,
            ..MrtEntry::default()
        };
        let page_table = self.enter_pages(&mut entry, &adopted.runs).ok_or(Status::ERROR_RESOURCE)?;
        let mut state = self.state.lock();
        self.leave_limbo(&mut state);
        if state.free.is_empty() {
            self.add_chunk(&mut state, card)?;
        }
        let (index, generation) = state.free.pop_front().ok_or(Status::ERROR_RESOURCE)?;
        entry.handle = handle(index, generation);
        let words: &[u64; WORDS] = zerocopy::transmute_ref!(&entry);
        let shared = entry_words(&state.chunks, index);
        for (shared, word) in shared.iter().zip(words).skip(1) {
            shared.store(*word, Ordering::Relaxed);
        }
        // The first word holds the handle, which makes the entry valid.
        shared[0].store(words[0], Ordering::Release);
        state.in_use[index as usize] = InUse { _page_table: page_table, _pages: adopted.pins };
        Ok(entry.handle)
    }

    /// Takes a region out. The card lets go of it before it trusts a copy of the entry again.
    ///
    /// # Errors
    /// What the card answers when it has to make room in the MDL.
    pub(super) fn deregister(&self, region: u32, card: &impl RunCommand) -> Result<(), Status> {
        let mut state = self.state.lock();
        let inserted = self.mdl_insert().load(Ordering::Relaxed);
        if inserted.wrapping_sub(self.nic_memory.mdl_drained()) >= MDL_ENTRIES {
            card.drain_mdl()?;
        }
        let index = handle_index(region);
        entry_words(&state.chunks, index)[0].store(0, Ordering::Release);
        self.nic_memory.mdl()[(inserted % MDL_ENTRIES) as usize].store(region, Ordering::Relaxed);
        let insertions = inserted.wrapping_add(1);
        self.mdl_insert().store(insertions, Ordering::Release);
        let generation = region >> vianic_abi::mrt::HANDLE_INDEX_BITS;
        state.free.push_back((index, generation % MAX_GENERATION + 1));
        let in_use = std::mem::take(&mut state.in_use[index as usize]);
        state.limbo.push_back((insertions, in_use));
        self.leave_limbo(&mut state);
        Ok(())
    }

    /// Lets go of what the card has let go of.
    fn leave_limbo(&self, state: &mut State) {
        let drained = self.nic_memory.mdl_drained();
        // The counts wrap around: "drained has reached insertions".
        while state.limbo.front().is_some_and(|(insertions, _)| drained.wrapping_sub(*insertions) < 1 << 31) {
            state.limbo.pop_front();
        }
    }

    fn add_chunk(&self, state: &mut State, card: &impl RunCommand) -> Result<(), Status> {
        let number = u32::try_from(state.chunks.len()).unwrap_or(MRT_MAX_CHUNKS);
        if number >= MRT_MAX_CHUNKS {
            return Err(Status::ERROR_RESOURCE);
        }
        let bytes = u64::from(MRT_CHUNK_ENTRIES) * MRT_ENTRY_SIZE as u64;
        let chunk = self.ram.allocate(bytes).ok_or(Status::ERROR_RESOURCE)?;
        card.add_chunk(MrtChunk { chunk: number, address: chunk.address(), ..MrtChunk::default() })?;
        state.chunks.push(chunk);
        let first = number * MRT_CHUNK_ENTRIES;
        state.free.extend((first..first + MRT_CHUNK_ENTRIES).map(|index| (index, 1)));
        state.in_use.resize_with((first + MRT_CHUNK_ENTRIES) as usize, InUse::default);
        Ok(())
    }

    /// Fills in where the region's pages are; gives the page table if it needs one. `None`: guest RAM is full.
    fn enter_pages(&self, entry: &mut MrtEntry, runs: &[Run]) -> Option<Option<Extent>> {
        let page = page_size(runs);
        entry.page_shift = u8::try_from(page.trailing_zeros()).unwrap_or(u8::MAX);
        let mut pages = page_addresses(entry, runs, page);
        let first = entry.virtual_address & !(page - 1);
        entry.page_count = (entry.virtual_address + entry.length - first).div_ceil(page);
        if entry.page_count <= INLINE_PAGES as u64 {
            for (inline, page) in entry.pages.iter_mut().zip(&mut pages) {
                *inline = page;
            }
            return Some(None);
        }
        let leaves = entry.page_count.div_ceil(LEAF_PAGES);
        let directory = leaves * PAGE;
        let table = self.ram.allocate(directory + leaves * 8)?;
        for (page, slot) in pages.zip(table.words::<AtomicU64>(0, usize::try_from(entry.page_count).ok()?)) {
            slot.store(page, Ordering::Relaxed);
        }
        for leaf in 0..leaves {
            table.store(directory + leaf * 8, &[table.address() + leaf * PAGE]);
        }
        entry.page_directory = table.address() + directory;
        Some(Some(table))
    }
}

/// The largest page size that the region can be described with.
fn page_size(runs: &[Run]) -> u64 {
    match runs {
        [run]
            if run.length >= LARGE_PAGE
                && run.virtual_address.abs_diff(run.address).is_multiple_of(LARGE_PAGE) =>
        {
            LARGE_PAGE
        }
        _ => PAGE,
    }
}

/// The guest-physical addresses of the region's pages, in order.
fn page_addresses<'a>(entry: &MrtEntry, runs: &'a [Run], page: u64) -> impl Iterator<Item = u64> + use<'a> {
    let end = entry.virtual_address + entry.length;
    runs.iter().flat_map(move |run| {
        let first = run.virtual_address & !(page - 1);
        let last = (run.virtual_address + run.length).min(end);
        (first..last).step_by(super::ram::in_memory(page)).map(move |virtual_address| {
            // Wrapping: the first page may start before the run.
            run.address.wrapping_add(virtual_address.wrapping_sub(run.virtual_address))
        })
    })
}

fn entry_words(chunks: &[Extent], index: u32) -> &[AtomicU64] {
    let chunk = &chunks[(index / MRT_CHUNK_ENTRIES) as usize];
    chunk.words(u64::from(index % MRT_CHUNK_ENTRIES) * MRT_ENTRY_SIZE as u64, WORDS)
}

#[cfg(test)]
mod tests;
