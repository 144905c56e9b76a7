//! An entry of the shadow MRT, read word by word where it stands.

use std::mem::offset_of;
use std::sync::atomic::Ordering::Relaxed;

use vianic_abi::mrt::{DEFAULT_PTAG, INLINE_PAGES, MrtEntry};

use crate::nic::memory::{ShadowSlot, usize_of};
use crate::nic::shadow_mrt::{ProtectionFault, Rights};

/// A registered region, as the card knows it.
#[derive(Clone, Copy)]
pub(super) struct Registration<'a> {
    slot: &'a ShadowSlot,
}

/// A part of a region that lies in one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The page's number in the region.
    pub(super) page: u64,
    /// Where it begins in the page.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) length: u64,
}

macro_rules! word {
    ($registration:expr, $field:ident) => {
        $registration.slot[offset_of!(MrtEntry, $field) / 8].load(Relaxed)
    };
}

impl<'a> Registration<'a> {
    #[inline]
    pub(super) fn new(slot: &'a ShadowSlot) -> Self {
        Self { slot }
    }

    /// Whether `rights` reach `length` bytes at `address` of the region.
    #[inline(always)]
    pub(super) fn check(&self, rights: Rights, address: u64, length: u32) -> Result<(), ProtectionFault> {
        let [_handle, ptag]: [u32; 2] = zerocopy::transmute!(word!(self, handle));
        let [context, access, _page_shift, _]: [u16; 4] = zerocopy::transmute!(word!(self, context));
        let tags_go_together = ptag == rights.ptag || ptag == DEFAULT_PTAG || rights.ptag == DEFAULT_PTAG;
        if context != rights.context || !tags_go_together || access & rights.access != rights.access {
            return Err(ProtectionFault);
        }
        let offset = address.checked_sub(word!(self, virtual_address)).ok_or(ProtectionFault)?;
        let end = offset.checked_add(u64::from(length)).ok_or(ProtectionFault)?;
        if end > word!(self, length) { Err(ProtectionFault) } else { Ok(()) }
    }

    /// What of `length` bytes at `address`, which have been checked, lies in the page of the first one.
    #[inline]
    pub(super) fn first_piece(&self, address: u64, length: u32) -> Piece {
        let [_, _, page_shift, _]: [u16; 4] = zerocopy::transmute!(word!(self, context));
        let page_shift = page_shift & 0x3f;
        let page_size = 1_u64 << page_shift;
        let offset = address & (page_size - 1);
        Piece {
            page: (address >> page_shift).wrapping_sub(word!(self, virtual_address) >> page_shift),
            offset,
            length: u64::from(length).min(page_size - offset),
        }
    }

    /// `length` bytes at `address`, which have been checked, page by page.
    pub(super) fn pieces(self, mut address: u64, mut length: u32) -> impl Iterator<Item = Piece> + 'a {
        std::iter::from_fn(move || {
            let piece = (length > 0).then(|| self.first_piece(address, length))?;
            address += piece.length;
            length -= u32::try_from(piece.length).unwrap_or(length);
            Some(piece)
        })
    }

    /// Guest-physical address of the page directory, if the page addresses are not in the entry.
    #[inline]
    pub(super) fn page_directory(&self) -> Option<u64> {
        Some(word!(self, page_directory)).filter(|directory| *directory != 0)
    }

    /// Guest-physical address of a page, if the entry has it.
    #[inline]
    pub(super) fn inline_page(&self, page: u64) -> Option<u64> {
        let first = offset_of!(MrtEntry, pages) / 8;
        let pages = &self.slot[first..first + INLINE_PAGES];
        let page = pages.get(usize_of(page))?.load(Relaxed);
        self.page_directory().is_none().then_some(page)
    }
}
