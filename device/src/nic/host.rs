//! The host that the card sits in (the guest): its memory, and what the Kernel Agent keeps there for the card.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use vianic_abi::attach::AttachRequest;
use vianic_abi::mrt::{MRT_CHUNK_ENTRIES, MRT_MAX_CHUNKS, MrtEntry, MrtSlot, handle_index};
use vianic_abi::sync::Native;

use crate::guest_memory::{GuestMemory, NotMemory};
use crate::nic::memory::{ShadowSlot, usize_of};
use crate::shared::{Single, View};

/// A chunk of the MRT in guest RAM.
#[derive(Debug)]
struct MrtChunk {
    address: u64,
    entries: View<ShadowSlot>,
}

impl MrtChunk {
    fn new(memory: &GuestMemory, address: u64) -> Result<Self, NotMemory> {
        Ok(Self { address, entries: memory.view(address, usize_of(MRT_CHUNK_ENTRIES))? })
    }
}

/// The host side of an attached card.
#[derive(Debug)]
pub struct Host {
    memory: GuestMemory,
    mdl_insert_address: u64,
    mdl_insert: Single<AtomicU32>,
    mrt: Vec<Option<MrtChunk>>,
}

impl Host {
    /// The host of a driver that attaches.
    ///
    /// # Errors
    /// If the MDL_Insert counter is not in guest RAM.
    pub fn new(memory: GuestMemory, request: &AttachRequest) -> Result<Self, NotMemory> {
        Ok(Self {
            mdl_insert: memory.single(request.mdl_insert)?,
            mdl_insert_address: request.mdl_insert,
            mrt: (0..MRT_MAX_CHUNKS).map(|_| None).collect(),
            memory,
        })
    }

    /// Guest RAM.
    #[inline]
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// The guest's memory is mapped anew: everything is looked up again.
    ///
    /// # Errors
    /// If something that the Kernel Agent keeps for the card is no longer in guest RAM.
    pub fn remap(&mut self, memory: GuestMemory) -> Result<(), NotMemory> {
        // Whatever else is missing, nothing is written to memory that the guest no longer has.
        self.memory = memory;
        self.mdl_insert = self.memory.single(self.mdl_insert_address)?;
        for chunk in self.mrt.iter_mut().flatten() {
            *chunk = MrtChunk::new(&self.memory, chunk.address)?;
        }
        Ok(())
    }

    /// The MDL_Insert counter: handles that have been put into the MDL so far.
    #[inline]
    #[must_use]
    pub fn mdl_insert(&self) -> &AtomicU32 {
        &self.mdl_insert
    }

    /// Takes a chunk of the MRT. `false`: it is not whole in guest RAM, there already, or beyond the table.
    pub fn add_mrt_chunk(&mut self, chunk: u32, address: u64) -> bool {
        match (self.mrt.get_mut(usize_of(chunk)), MrtChunk::new(&self.memory, address)) {
            (Some(slot @ None), Ok(entries)) => {
                *slot = Some(entries);
                true
            }
            _ => false,
        }
    }

    /// Copies the MRT entry of `handle`, if it is that handle's. `None` also if its tag never stays the same while it is
    /// read: a Kernel Agent that keeps the rules changes it no more than once before it waits for this card.
    #[must_use]
    pub fn mrt_entry(&self, handle: u32) -> Option<MrtEntry> {
        let index = handle_index(handle);
        let chunk = self.mrt.get(usize_of(index / MRT_CHUNK_ENTRIES))?.as_ref()?;
        MrtSlot::<Native>::new(&chunk.entries[usize_of(index % MRT_CHUNK_ENTRIES)]).copy(handle)
    }
}

/// Whether the handle in a shadow slot is `handle`.
#[inline]
pub(super) fn slot_holds(slot: &ShadowSlot, handle: u32) -> bool {
    let [held, _ptag]: [u32; 2] = zerocopy::transmute!(slot[0].load(Relaxed));
    held == handle
}
