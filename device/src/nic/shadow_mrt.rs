//! The shadow MRT (claims 2 and 9): the card's copies of active MRT entries, in NIC memory, filled on demand.
//!
//! Direct-mapped by MRT index, so that a hit is one predictable load: an entry gives way when a region whose index is the same modulo
//! the number of slots is used. The Kernel Agent hands out indices that follow each other, so as many regions as there are slots
//! fit side by side.

use std::sync::atomic::Ordering::Relaxed;

use vianic_abi::mrt::{INLINE_PAGES, MrtEntry, handle_index};
use vianic_abi::nic_memory::{Counter, SHADOW_MRT_ENTRIES};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::guest_memory::Range;
use crate::nic::extent::Extent;
use crate::nic::host::{Host, slot_holds};
use crate::nic::hostility::Hostility;
use crate::nic::mdl::{DeregistrationList, Drain};
use crate::nic::memory::{NicMemory, SHADOW_SLOTS, ShadowSlot, usize_of};
use crate::nic::page_cache::{FetchNumber, PageCache};
use crate::nic::registration::Registration;
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

/// What the card knows of its host's registered memory. The entries themselves are in NIC memory.
#[derive(Debug)]
pub struct ShadowMrt {
    mdl: DeregistrationList,
    /// The fetch that filled each slot.
    filled_by: Box<[FetchNumber]>,
    /// What was fetched into each slot, if it is a region in one piece.
    extents: Box<[Extent; SHADOW_SLOTS]>,
    last_fetch: FetchNumber,
    pages: PageCache,
    hostility: Option<Box<Hostility>>,
}

impl ShadowMrt {
    /// An empty one.
    #[must_use]
    pub fn new(nic_memory: &NicMemory) -> Self {
        clear(nic_memory);
        Self {
            mdl: DeregistrationList::default(),
            filled_by: vec![FetchNumber::default(); SHADOW_SLOTS].into(),
            extents: Box::new([Extent::default(); SHADOW_SLOTS]),
            last_fetch: FetchNumber::default(),
            pages: PageCache::new(),
            hostility: None,
        }
    }

    /// Makes it as hard on its Kernel Agent as the rules allow.
    pub fn set_hostility(&mut self, hostility: Hostility) {
        self.hostility = Some(Box::new(hostility));
    }

    /// Finds where `length` bytes at virtual address `address` in the region of `handle` are, and adds their pieces to
    /// `ranges`. Forgets deregistered regions first, so that no stale registration is ever trusted. The pieces may be used until
    /// [`let_go`](Self::let_go).
    ///
    /// # Errors
    /// [`ProtectionFault`]; `ranges` may have grown.
    pub fn resolve(
        &mut self,
        (nic_memory, host): (&NicMemory, &Host),
        rights: Rights,
        what: (u64, u32, u32),
        ranges: &mut Ranges,
    ) -> Result<(), ProtectionFault> {
        let (address, _, length) = what;
        match self.find((nic_memory, host), rights, what)? {
            Place::Piece(_) if length == 0 => Ok(()),
            Place::Piece(piece) => {
                push(ranges, piece, usize_of(length));
                Ok(())
            }
            Place::Pages(index) => self.resolve_pages((nic_memory, host), index, (address, length), ranges),
        }
    }

    /// As [`resolve`](Self::resolve), for bytes of one page: their guest-physical address. `None`: they are in several pages, or
    /// the page's address is not in the registration.
    ///
    /// # Errors
    /// [`ProtectionFault`].
    #[inline]
    pub fn resolve_piece(
        &mut self,
        (nic_memory, host): (&NicMemory, &Host),
        rights: Rights,
        what: (u64, u32, u32),
    ) -> Result<Option<u64>, ProtectionFault> {
        match self.find((nic_memory, host), rights, what)? {
            Place::Piece(address) => Ok(Some(address)),
            Place::Pages(_) => Ok(None),
        }
    }

    /// Validates a registration, and what it says of `length` bytes at `address`.
    #[inline(always)]
    fn find(
        &mut self,
        (nic_memory, host): (&NicMemory, &Host),
        rights: Rights,
        (address, handle, length): (u64, u32, u32),
    ) -> Result<Place, ProtectionFault> {
        self.mdl.forget(nic_memory, host, Drain::Validation);
        let index = usize_of(handle_index(handle)) % SHADOW_SLOTS;
        if let Some(hostility) = &mut self.hostility {
            evict(nic_memory, hostility.evicted(index));
        }
        let slot = &nic_memory.shadow()[index];
        if slot_holds(slot, handle) && handle != 0 {
            nic_memory.count(Counter::shadow_hits, 1);
        } else {
            self.fetch((nic_memory, host), index, handle)?;
        }
        // The slot holds what was fetched last, or nothing.
        if let Some(address) = self.extents[index].find(rights, (address, handle, length)) {
            return Ok(Place::Piece(address));
        }
        Self::find_page(slot, index, rights, (address, length))
    }

    /// As [`find`](Self::find), in the region of a slot that need not be in one piece.
    #[inline(never)]
    fn find_page(
        slot: &ShadowSlot,
        index: usize,
        rights: Rights,
        (address, length): (u64, u32),
    ) -> Result<Place, ProtectionFault> {
        let registration = Registration::new(slot);
        registration.check(rights, address, length)?;
        let piece = registration.first_piece(address, length);
        // Most descriptors and many messages lie in one page.
        if piece.length == u64::from(length)
            && let Some(page) = registration.inline_page(piece.page)
        {
            return page.checked_add(piece.offset).map(Place::Piece).ok_or(ProtectionFault);
        }
        Ok(Place::Pages(index))
    }

    /// Finds where bytes are whose region and place in it have been checked, page by page.
    fn resolve_pages(
        &mut self,
        (nic_memory, host): (&NicMemory, &Host),
        index: usize,
        (address, length): (u64, u32),
        ranges: &mut Ranges,
    ) -> Result<(), ProtectionFault> {
        let registration = Registration::new(&nic_memory.shadow()[index]);
        let directory = registration.page_directory();
        for piece in registration.pieces(address, length) {
            let page = match directory {
                None => registration.inline_page(piece.page).ok_or(ProtectionFault)?,
                Some(directory) => {
                    let table = (self.filled_by[index], directory);
                    self.pages.page((nic_memory, host), table, piece.page)?
                }
            };
            push(ranges, page.checked_add(piece.offset).ok_or(ProtectionFault)?, usize_of(piece.length));
        }
        Ok(())
    }

    /// The epoch of what is found now.
    #[inline]
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.mdl.epoch()
    }

    /// Whether what was found in `epoch` may still be used: no registration has been deregistered since.
    #[inline]
    #[must_use]
    pub fn is_current(&self, host: &Host, epoch: u64) -> bool {
        self.mdl.is_current(host, epoch)
    }

    /// Copies the registration of `handle` from the MRT into its slot.
    #[cold]
    fn fetch(
        &mut self,
        (nic_memory, host): (&NicMemory, &Host),
        index: usize,
        handle: u32,
    ) -> Result<(), ProtectionFault> {
        nic_memory.count(Counter::shadow_misses, 1);
        let entry = host.mrt_entry(handle).filter(is_sound).ok_or(ProtectionFault)?;
        let slot = &nic_memory.shadow()[index];
        if slot[0].load(Relaxed) != 0 {
            nic_memory.count(Counter::shadow_evictions, 1);
        }
        for (word, bytes) in slot.iter().zip(entry.as_bytes().chunks_exact(8)) {
            word.store(u64::read_from_bytes(bytes).unwrap_or_default(), Relaxed);
        }
        self.last_fetch = self.last_fetch.next();
        self.filled_by[index] = self.last_fetch;
        self.extents[index] = Extent::of(&entry).unwrap_or_default();
        Ok(())
    }

    /// Forgets all registrations whose handles the Kernel Agent has put into the MDL, and lets go of them. As
    /// [`let_go`](Self::let_go), when no message is under way.
    #[inline]
    pub fn drain(&mut self, nic_memory: &NicMemory, host: &Host, why: Drain) {
        if why != Drain::Command && self.hostility.as_mut().is_some_and(|hostility| hostility.delays()) {
            return;
        }
        self.mdl.forget(nic_memory, host, why);
        self.mdl.let_go(nic_memory, host);
    }

    /// Tells the Kernel Agent that what has been forgotten is no longer used. What [`resolve`](Self::resolve) found before may no
    /// longer be used after it: the caller calls it between messages, never while it moves one.
    #[inline]
    pub fn let_go(&mut self, nic_memory: &NicMemory, host: &Host) {
        if self.hostility.as_mut().is_none_or(|hostility| !hostility.delays()) {
            self.mdl.let_go(nic_memory, host);
        }
    }
}

/// Where bytes of a region are.
enum Place {
    /// In one piece, from this guest-physical address.
    Piece(u64),
    /// In pages that must be looked up, of the region in this slot.
    Pages(usize),
}

/// Empties slots, as a hostile card does.
#[cold]
fn evict(nic_memory: &NicMemory, slots: Option<[usize; 2]>) {
    for slot in slots.into_iter().flatten() {
        nic_memory.shadow()[slot][0].store(0, Relaxed);
    }
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
