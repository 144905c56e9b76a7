//! The shadow MRT (claims 2 and 9): the card's copies of active MRT entries, in NIC memory. Direct-mapped by MRT index, so
//! that a hit is one predictable load.

use std::sync::atomic::Ordering::Relaxed;

use vianic_abi::mrt::{DEFAULT_PTAG, INLINE_PAGES, LEAF_PAGES, MrtEntry, handle_index};
use vianic_abi::nic_memory::{Counter, SHADOW_MRT_ENTRIES};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::guest_memory::Range;
use crate::nic::host::{Host, slot_holds};
use crate::nic::mdl::{Drain, Mdl};
use crate::nic::memory::{NicMemory, ShadowSlot, usize_of};
use crate::vito::frame::Ranges;

/// Who wants to reach memory, and how: a VI's context and protection tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Context.
    pub context: u16,
    /// Protection tag.
    pub ptag: u32,
    /// `ACCESS_*` that the region must allow: 0 for the VI's own descriptors, more for what its peer does.
    pub access: u16,
}

impl Rights {
    /// A VI's rights for its own descriptors.
    #[must_use]
    pub fn local(context: u16, ptag: u32) -> Self {
        Self { context, ptag, access: 0 }
    }
}

/// The memory is not this VI's to use: no such region, not its context's, another tag, or out of the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtectionFault;

/// Finds where `length` bytes at virtual address `address` in the region of `handle` are, and adds their pieces to
/// `ranges`. Lets go of deregistered regions first, so that no stale registration is ever trusted.
///
/// # Errors
/// [`ProtectionFault`]; `ranges` may have grown.
#[inline]
pub fn resolve(
    nic_memory: &NicMemory,
    mdl: &mut Mdl,
    host: &Host,
    rights: Rights,
    (address, handle, length): (u64, u32, u32),
    ranges: &mut Ranges,
) -> Result<(), ProtectionFault> {
    mdl.drain(nic_memory, host, Drain::Validation);
    let slot = &nic_memory.shadow()[usize_of(handle_index(handle) % SHADOW_MRT_ENTRIES)];
    if slot_holds(slot, handle) && handle != 0 {
        nic_memory.count(Counter::shadow_hits, 1);
    } else {
        fetch(nic_memory, host, slot, handle)?;
    }
    Registration { slot }.resolve(host, rights, address, length, ranges)
}

/// Copies the registration of `handle` from the MRT into its shadow slot.
#[cold]
fn fetch(nic_memory: &NicMemory, host: &Host, slot: &ShadowSlot, handle: u32) -> Result<(), ProtectionFault> {
    nic_memory.count(Counter::shadow_misses, 1);
    let entry = host.mrt_entry(handle).filter(is_sound).ok_or(ProtectionFault)?;
    if slot[0].load(Relaxed) != 0 {
        nic_memory.count(Counter::shadow_evictions, 1);
    }
    for (word, bytes) in slot.iter().zip(entry.as_bytes().chunks_exact(8)) {
        word.store(u64::read_from_bytes(bytes).unwrap_or_default(), Relaxed);
    }
    Ok(())
}

/// Whether the Kernel Agent's entry makes sense. What it says of page addresses is checked when they are used.
fn is_sound(entry: &MrtEntry) -> bool {
    let Some(last) = entry.length.checked_sub(1).and_then(|length| entry.virtual_address.checked_add(length))
    else {
        return false;
    };
    if !(12..=30).contains(&entry.page_shift) {
        return false;
    }
    let pages = (last >> entry.page_shift) - (entry.virtual_address >> entry.page_shift) + 1;
    pages == entry.page_count
        && if entry.page_directory == 0 {
            pages <= INLINE_PAGES as u64
        } else {
            entry.page_directory.is_multiple_of(8)
        }
}

/// Forgets the registration of `handle`.
pub(super) fn forget(nic_memory: &NicMemory, handle: u32) {
    let slot = &nic_memory.shadow()[usize_of(handle_index(handle) % SHADOW_MRT_ENTRIES)];
    if slot_holds(slot, handle) {
        slot[0].store(0, Relaxed);
    }
}

/// Forgets everything.
pub(super) fn clear(nic_memory: &NicMemory) {
    for slot in nic_memory.shadow() {
        slot[0].store(0, Relaxed);
    }
}

/// A shadow entry, read word by word where it stands.
struct Registration<'a> {
    slot: &'a ShadowSlot,
}

macro_rules! word_of {
    ($slot:expr, $field:ident) => {
        $slot[std::mem::offset_of!(MrtEntry, $field) / 8].load(Relaxed)
    };
}

impl Registration<'_> {
    fn resolve(
        &self,
        host: &Host,
        rights: Rights,
        address: u64,
        length: u32,
        ranges: &mut Ranges,
    ) -> Result<(), ProtectionFault> {
        let [_handle, ptag]: [u32; 2] = zerocopy::transmute!(word_of!(self.slot, handle));
        let [context, access, page_shift, _]: [u16; 4] = zerocopy::transmute!(word_of!(self.slot, context));
        let page_shift = page_shift & 0xff;
        let tags_go_together = ptag == rights.ptag || ptag == DEFAULT_PTAG || rights.ptag == DEFAULT_PTAG;
        if context != rights.context || !tags_go_together || access & rights.access != rights.access {
            return Err(ProtectionFault);
        }
        let start = word_of!(self.slot, virtual_address);
        let offset = address.checked_sub(start).ok_or(ProtectionFault)?;
        let end = offset.checked_add(u64::from(length)).ok_or(ProtectionFault)?;
        if end > word_of!(self.slot, length) {
            return Err(ProtectionFault);
        }
        let page_size = 1_u64 << page_shift;
        let mut address = address;
        let mut left = u64::from(length);
        while left > 0 {
            let page = self.page(host, (address >> page_shift) - (start >> page_shift))?;
            let in_page = address & (page_size - 1);
            let here = left.min(page_size - in_page);
            push(ranges, page.checked_add(in_page).ok_or(ProtectionFault)?, usize_of(here));
            address += here;
            left -= here;
        }
        Ok(())
    }

    /// Guest-physical address of the region's page number `page`.
    #[inline]
    fn page(&self, host: &Host, page: u64) -> Result<u64, ProtectionFault> {
        let directory = word_of!(self.slot, page_directory);
        if directory == 0 {
            let first = std::mem::offset_of!(MrtEntry, pages) / 8;
            return self
                .slot
                .get(first + usize_of(page))
                .map(|word| word.load(Relaxed))
                .ok_or(ProtectionFault);
        }
        let word = |table: u64, index: u64| {
            let address = table.checked_add(index * 8).ok_or(ProtectionFault)?;
            host.page_table_word(address).map_err(|_| ProtectionFault)
        };
        let leaf = word(directory, page / LEAF_PAGES)?;
        word(leaf, page % LEAF_PAGES)
    }
}

/// Adds a piece; one that follows the last without a gap extends it.
#[inline]
fn push(ranges: &mut Ranges, address: u64, length: usize) {
    if let Some(last) = ranges.last_mut()
        && last.address.checked_add(last.length as u64) == Some(address)
    {
        last.length += length;
        return;
    }
    ranges.push(Range { address, length });
}
