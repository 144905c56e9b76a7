//! Which stretches of the guest-physical address space are free.

use std::collections::BTreeMap;

/// Free stretches: start to end, never adjacent.
#[derive(Debug)]
pub(super) struct Extents {
    free: BTreeMap<u64, u64>,
}

impl Extents {
    pub(super) fn new(start: u64, end: u64) -> Self {
        Self { free: BTreeMap::from([(start, end)]) }
    }

    /// Takes the first free `length` bytes whose address is `phase` modulo `alignment`, a power of two.
    pub(super) fn take(&mut self, length: u64, alignment: u64, phase: u64) -> Option<u64> {
        let (start, end, at) = self.free.iter().find_map(|(&start, &end)| {
            let to_phase = phase.wrapping_sub(start) & (alignment - 1);
            let at = start.checked_add(to_phase)?;
            (at.checked_add(length)? <= end).then_some((start, end, at))
        })?;
        self.free.remove(&start);
        if start < at {
            self.free.insert(start, at);
        }
        if at + length < end {
            self.free.insert(at + length, end);
        }
        Some(at)
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&mut self, mut start: u64, length: u64) {
        let mut end = start + length;
        if let Some((&before, &before_end)) = self.free.range(..start).next_back()
            && before_end == start
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(after_end) = self.free.remove(&end) {
            end = after_end;
        }
        self.free.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn alignment_and_phase_are_kept() {
        let mut extents = Extents::new(0x1000, 0x100_0000);
        assert_eq!(extents.take(0x1000, 0x1000, 0), Some(0x1000));
        assert_eq!(extents.take(0x2000, 0x10_0000, 0x3000), Some(0x3000));
        assert_eq!(extents.take(0x1000, 0x1000, 0), Some(0x2000));
        assert_eq!(extents.take(0x1000, 0x1000, 0), Some(0x5000));
        assert_eq!(extents.take(0x100_0000, 0x1000, 0), None);
    }

    proptest! {
        #[test]
        fn what_is_given_back_can_be_taken_whole(lengths in prop::collection::vec(1_u64..9, 1..40), order: prop::sample::Index) {
            let total: u64 = lengths.iter().sum();
            let mut extents = Extents::new(0x1000, 0x1000 + total * 0x1000);
            let mut taken: Vec<(u64, u64)> = lengths
                .iter()
                .map(|pages| (extents.take(pages * 0x1000, 0x1000, 0).expect("there is room"), pages * 0x1000))
                .collect();
            prop_assert_eq!(extents.take(0x1000, 0x1000, 0), None);
            let first = order.index(taken.len());
            taken.rotate_left(first);
            taken.swap(0, lengths.len() / 2);
            for (start, length) in taken {
                extents.give_back(start, length);
            }
            prop_assert_eq!(extents.take(total * 0x1000, 0x1000, 0), Some(0x1000));
        }
    }
}
