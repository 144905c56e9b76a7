//! Regions in one piece: what the card makes of a registration when it fetches it, so that most look-ups are an addition.

use vianic_abi::mrt::{DEFAULT_PTAG, MrtEntry};

use crate::nic::shadow_mrt::Rights;

/// A region whose pages follow each other in guest memory. By default, one that nothing is found in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    handle: u32,
    ptag: u32,
    context: u16,
    access: u16,
    /// Its first virtual address.
    first: u64,
    /// Bytes.
    length: u64,
    /// Guest-physical address of the first byte.
    start: u64,
}

impl Extent {
    /// The region of an entry that makes sense, if it is in one piece.
    pub(super) fn of(entry: &MrtEntry) -> Option<Self> {
        let pages = entry.pages.get(..usize::try_from(entry.page_count).ok()?)?;
        if entry.page_directory != 0 {
            return None;
        }
        let page_size = 1_u64.checked_shl(entry.page_shift.into())?;
        let follow = |two: &[u64]| two[0].checked_add(page_size) == Some(two[1]);
        let start = pages.first()?.checked_add(entry.virtual_address & (page_size - 1))?;
        // No address in it overflows.
        start.checked_add(entry.length)?;
        pages.windows(2).all(follow).then_some(Self {
            handle: entry.handle,
            ptag: entry.ptag,
            context: entry.context,
            access: entry.access,
            first: entry.virtual_address,
            length: entry.length,
            start,
        })
    }

    /// Guest-physical address of `length` bytes at `address`, if this is the region of `handle` and `rights` reach them.
    #[inline(always)]
    pub(super) fn find(&self, rights: Rights, (address, handle, length): (u64, u32, u32)) -> Option<u64> {
        let tags_go_together =
            self.ptag == rights.ptag || self.ptag == DEFAULT_PTAG || rights.ptag == DEFAULT_PTAG;
        let offset = address.wrapping_sub(self.first);
        let left = self.length.wrapping_sub(offset);
        let found = self.handle == handle
            && self.context == rights.context
            && tags_go_together
            && self.access & rights.access == rights.access
            && offset <= self.length
            && u64::from(length) <= left;
        found.then(|| self.start.wrapping_add(offset))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::sync::atomic::AtomicU64;
    use vianic_abi::mrt::{ACCESS_RDMA_READ, ACCESS_RDMA_WRITE, INLINE_PAGES};
    use zerocopy::transmute;

    use super::*;
    use crate::nic::registration::Registration;

    const PAGE: u64 = 0x1000;

    /// A region that begins somewhere in its first page, in one piece unless page `gap` is elsewhere.
    fn entry(offset: u64, length: u64, (ptag, context, access): (u32, u16, u16), gap: usize) -> MrtEntry {
        let virtual_address = 0x7000_0000 + offset;
        let page_count = (offset + length).div_ceil(PAGE);
        let mut pages: [u64; INLINE_PAGES] = std::array::from_fn(|page| 0x10_0000 + page as u64 * PAGE);
        if let Some(page) = pages.get_mut(gap) {
            *page += 0x100_0000;
        }
        MrtEntry {
            handle: 7,
            ptag,
            context,
            access,
            page_shift: 12,
            virtual_address,
            length,
            page_count,
            pages,
            ..MrtEntry::default()
        }
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_the_registration_says(
            (offset, length) in (0..PAGE, 1..8 * PAGE),
            owner in (0..3_u32, 0..2_u16, 0..4_u16),
            gap in 0..INLINE_PAGES + 5,
            (ptag, context, access) in (0..3_u32, 0..2_u16, prop::sample::select(vec![0, ACCESS_RDMA_WRITE, ACCESS_RDMA_READ])),
            (from, bytes) in (0..10 * PAGE, 0..9 * u32::try_from(PAGE).unwrap()),
        ) {
            let entry = entry(offset, length, owner, gap);
            let rights = Rights { context, ptag, access };
            let address = 0x6fff_f000 + from;
            let words: [u64; 16] = transmute!(entry);
            let slot = words.map(AtomicU64::new);
            let registration = Registration::new(&slot);
            let permitted = registration.check(rights, address, bytes).is_ok();
            let in_one_piece = gap >= usize::try_from(entry.page_count).unwrap() || entry.page_count == 1;
            let found = Extent::of(&entry).and_then(|extent| extent.find(rights, (address, 7, bytes)));
            prop_assert_eq!(found.is_some(), permitted && in_one_piece);
            if let Some(mut place) = found {
                for piece in registration.pieces(address, bytes) {
                    prop_assert_eq!(registration.inline_page(piece.page).unwrap() + piece.offset, place);
                    place += piece.length;
                }
            }
            prop_assert_eq!(Extent::of(&entry).and_then(|extent| extent.find(rights, (address, 8, bytes))), None);
        }
    }

    #[test]
    fn a_region_with_a_page_directory_or_at_the_end_of_the_world_is_none() {
        let sound = entry(0, PAGE, (1, 1, 0), INLINE_PAGES);
        assert!(Extent::of(&sound).is_some());
        assert!(Extent::of(&MrtEntry { page_directory: 0x4000, ..sound }).is_none());
        assert!(Extent::of(&MrtEntry { pages: [u64::MAX - 0xfff; INLINE_PAGES], ..sound }).is_none());
        assert!(Extent::of(&MrtEntry { page_count: u64::MAX, ..sound }).is_none());
    }
}
