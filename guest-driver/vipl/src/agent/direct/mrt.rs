//! The Memory Region Table and the Memory Deregistration List, Kernel Agent's side.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use vianic_abi::command::{MrtChunk, Opcode};
use vianic_abi::mdl::{Full, Inserter, Insertion, Mdl};
use vianic_abi::mrt::{
    HANDLE_INDEX_BITS, INLINE_PAGES, LEAF_PAGES, MAX_GENERATION, MRT_CHUNK_ENTRIES, MRT_ENTRY_SIZE,
    MRT_ENTRY_WORDS, MRT_MAX_CHUNKS, MrtEntry, MrtSlot, handle, handle_index,
};
use vianic_abi::status::Status;

use super::moved::Moved;
use super::moving::{Adopted, LARGE_PAGE, Run};
use super::nic_memory::NicMemory;
use super::ram::{Extent, PAGE, Ram};

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
    /// The card is made to let go of each region at once, and waited for: what deregistration costs without an MDL.
    eager: bool,
}

#[derive(Debug, Default)]
struct State {
    chunks: Vec<Extent>,
    inserter: Inserter,
    /// Free entries with the generation of their next handle. First in, first out, so that a handle comes again late.
    free: VecDeque<(u32, u32)>,
    /// What the registered regions use, by MRT index.
    in_use: Vec<InUse>,
    /// Regions that the card may still know, oldest first.
    retired: VecDeque<Retired>,
}

/// A region in the MDL. The card's word that it has let go frees all of it, the index too.
#[derive(Debug)]
struct Retired {
    insertion: Insertion,
    handle: u32,
    _in_use: InUse,
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
        let eager = std::env::var("VIANIC_EAGER_DEREGISTRATION").is_ok_and(|value| value == "1");
        Some(Self { ram, nic_memory, mdl_insert: ram.allocate(PAGE)?, state: Mutex::default(), eager })
    }

    /// Guest-physical address of the MDL_Insert counter.
    pub(super) fn mdl_insert_address(&self) -> u64 {
        self.mdl_insert.address()
    }

    fn mdl(&self) -> Mdl<'_> {
        self.nic_memory.mdl(&self.mdl_insert.words(0, 1)[0])
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
        let (index, generation) = self.free_index(&mut state, card)?;
        entry.handle = handle(index, generation);
        slot(&state.chunks, index).enter(&entry);
        state.in_use[index as usize] = InUse { _page_table: page_table, _pages: adopted.pins };
        Ok(entry.handle)
    }

    /// Gives a region another tag and other permissions. When it returns, the card goes by the new ones.
    ///
    /// # Errors
    /// What the card answers.
    pub(super) fn change(
        &self,
        region: u32,
        ptag: u32,
        access: u16,
        card: &impl RunCommand,
    ) -> Result<(), Status> {
        let mut state = self.state.lock();
        slot(&state.chunks, handle_index(region)).change(ptag, access);
        self.insert_into_mdl(&mut state, region, card)?;
        card.drain_mdl()
    }

    fn insert_into_mdl(
        &self,
        state: &mut State,
        region: u32,
        card: &impl RunCommand,
    ) -> Result<Insertion, Status> {
        match state.inserter.insert(self.mdl(), region) {
            Ok(insertion) => Ok(insertion),
            Err(Full) => {
                card.drain_mdl()?;
                state.inserter.insert(self.mdl(), region).map_err(|Full| Status::NIC_FAILED)
            }
        }
    }

    /// Takes a region out. The card forgets it before it trusts a copy of the entry again; nobody waits for that, unless the list
    /// is full.
    ///
    /// # Errors
    /// What the card answers when it has to make room in the MDL.
    pub(super) fn deregister(&self, region: u32, card: &impl RunCommand) -> Result<(), Status> {
        let mut state = self.state.lock();
        let index = handle_index(region);
        slot(&state.chunks, index).retire();
        let insertion = self.insert_into_mdl(&mut state, region, card)?;
        let in_use = std::mem::take(&mut state.in_use[index as usize]);
        state.retired.push_back(Retired { insertion, handle: region, _in_use: in_use });
        if self.eager {
            card.drain_mdl()?;
        }
        self.collect(&mut state);
        Ok(())
    }

    /// Frees what the card has let go of.
    fn collect(&self, state: &mut State) {
        while let Some(first) = state.retired.front()
            && state.inserter.has_let_go(self.mdl(), first.insertion)
        {
            let generation = first.handle >> HANDLE_INDEX_BITS;
            state.free.push_back((handle_index(first.handle), generation % MAX_GENERATION + 1));
            state.retired.pop_front();
        }
    }

    /// An entry that nobody uses, the card included, with the generation of its next handle.
    fn free_index(&self, state: &mut State, card: &impl RunCommand) -> Result<(u32, u32), Status> {
        self.collect(state);
        if state.free.is_empty() {
            match self.add_chunk(state, card) {
                Err(Status::ERROR_RESOURCE) if !state.retired.is_empty() => {
                    card.drain_mdl()?;
                    self.collect(state);
                }
                added => added?,
            }
        }
        state.free.pop_front().ok_or(Status::ERROR_RESOURCE)
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

fn slot(chunks: &[Extent], index: u32) -> MrtSlot<'_> {
    let chunk = &chunks[(index / MRT_CHUNK_ENTRIES) as usize];
    let offset = u64::from(index % MRT_CHUNK_ENTRIES) * MRT_ENTRY_SIZE as u64;
    let words = chunk.words::<AtomicU64>(offset, MRT_ENTRY_WORDS);
    MrtSlot::new(words.first_chunk().expect("as many words as were asked for"))
}

#[cfg(test)]
mod tests;
