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
    #[inline]
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

    /// `length` bytes at `address`, which have been checked, page by page.
    #[inline]
    pub(super) fn pieces(&self, mut address: u64, length: u32) -> impl Iterator<Item = Piece> + use<> {
        let [_, _, page_shift, _]: [u16; 4] = zerocopy::transmute!(word!(self, context));
        let page_shift = page_shift & 0x3f;
        let first = word!(self, virtual_address) >> page_shift;
        let page_size = 1_u64 << page_shift;
        let mut left = u64::from(length);
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let offset = address & (page_size - 1);
            let piece =
                Piece { page: (address >> page_shift) - first, offset, length: left.min(page_size - offset) };
            address += piece.length;
            left -= piece.length;
            Some(piece)
        })
    }

    /// Guest-physical address of the page directory, if the page addresses are not in the entry.
    #[inline]
    pub(super) fn page_directory(&self) -> Option<u64> {
        Some(word!(self, page_directory)).filter(|directory| *directory != 0)
    }

    /// Guest-physical address of a page, from the entry.
    #[inline]
    pub(super) fn inline_page(&self, page: u64) -> Result<u64, ProtectionFault> {
        let first = offset_of!(MrtEntry, pages) / 8;
        let pages = &self.slot[first..first + INLINE_PAGES];
        pages.get(usize_of(page)).map(|word| word.load(Relaxed)).ok_or(ProtectionFault)
    }
}
