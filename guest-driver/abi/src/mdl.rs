//! The Memory Deregistration List (claims 2, 16 and 19): how a registration ends without anybody waiting for it.
//!
//! The Kernel Agent takes the handle out of the MRT ([`MrtSlot::retire`](crate::mrt::MrtSlot::retire)), puts it into the list
//! ([`Inserter::insert`]) and goes on. The card forgets what it knows of the handles in the list before it trusts anything that it
//! knows ([`Drainer::forget`]), and says so when nothing that it found earlier is in use any more ([`Drainer::let_go`]).
//! Only then ([`Inserter::has_let_go`]) may the Kernel Agent unpin the pages, free the page table and use the MRT index again.
//!
//! The two steps of the card are two on purpose. A message may take several regions: while the second one is looked up, the pages
//! of the first are about to be copied to.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sync::{Atomic, Atomics, Native};

/// The list in shared memory.
#[derive(Debug)]
pub struct Mdl<'a, A: Atomics = Native> {
    entries: &'a [A::U32],
    insert: &'a A::U32,
    drained: &'a A::U32,
}

impl<A: Atomics> Clone for Mdl<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: Atomics> Copy for Mdl<'_, A> {}

impl<'a, A: Atomics> Mdl<'a, A> {
    /// The list over its ring of handles (NIC memory), MDL_Insert (host memory) and `mdl_drained` (NIC memory).
    ///
    /// # Panics
    /// If the number of entries is not a power of two.
    #[must_use]
    pub fn new(entries: &'a [A::U32], insert: &'a A::U32, drained: &'a A::U32) -> Self {
        assert!(entries.len().is_power_of_two());
        Self { entries, insert, drained }
    }

    /// Number of entries.
    #[must_use]
    pub fn entries(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    fn entry(&self, insertion: u32) -> &'a A::U32 {
        &self.entries[insertion as usize & (self.entries.len() - 1)]
    }
}

/// What MDL_Insert was after a handle had been put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insertion(u32);

/// The list has no room: have the card drain it (DRAIN_MDL).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The Kernel Agent's end. One thread at a time; the Kernel Agent holds a lock around it.
#[derive(Debug, Default)]
pub struct Inserter {
    inserted: u32,
}

impl Inserter {
    /// The Kernel Agent's end of a fresh list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts in `handle`, which is out of the MRT already.
    ///
    /// # Errors
    /// [`Full`]; nothing was put in.
    pub fn insert<A: Atomics>(&mut self, mdl: Mdl<'_, A>, handle: u32) -> Result<Insertion, Full> {
        if self.inserted.wrapping_sub(mdl.drained.load(Acquire)) >= mdl.entries() {
            return Err(Full);
        }
        mdl.entry(self.inserted).store(handle, Relaxed);
        self.inserted = self.inserted.wrapping_add(1);
        // The handle is in the list, and out of the MRT, before it counts.
        mdl.insert.store(self.inserted, Release);
        Ok(Insertion(self.inserted))
    }

    /// Whether the card has let go of what `insertion` put in: it will never touch that memory again.
    #[must_use]
    pub fn has_let_go<A: Atomics>(&self, mdl: Mdl<'_, A>, insertion: Insertion) -> bool {
        // Counts wrap around; no two that are compared are further apart than the list is long.
        mdl.drained.load(Acquire).wrapping_sub(insertion.0) < 1 << 31
    }
}

/// What the card has to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forget {
    /// The registration with this handle.
    Handle(u32),
    /// All registrations: MDL_Insert says that handles were overwritten before they were read.
    Everything,
}

/// The card's end. Its place in the list is its own and never read back from the guest.
#[derive(Debug, Default)]
pub struct Drainer {
    forgotten: u32,
    let_go: u32,
}

impl Drainer {
    /// The card's end of a fresh list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether handles wait in the list whose MDL_Insert counter is `insert`.
    #[inline(always)]
    #[must_use]
    pub fn is_behind<W: Atomic<u32>>(&self, insert: &W) -> bool {
        insert.load(Acquire) != self.forgotten
    }

    /// Calls `forget` for everything that has been put in until now, and gives how many handles that were, no more than the list
    /// holds. Registrations may be trusted after it, until the next one is to be trusted.
    pub fn forget<A: Atomics>(&mut self, mdl: Mdl<'_, A>, mut forget: impl FnMut(Forget)) -> u32 {
        let insert = mdl.insert.load(Acquire);
        let waiting = insert.wrapping_sub(self.forgotten);
        if waiting > mdl.entries() {
            forget(Forget::Everything);
        } else {
            for number in 0..waiting {
                forget(Forget::Handle(mdl.entry(self.forgotten.wrapping_add(number)).load(Relaxed)));
            }
        }
        self.forgotten = insert;
        waiting.min(mdl.entries())
    }

    /// Tells the Kernel Agent that what has been forgotten is let go of. The caller has finished with everything that it looked up
    /// before the last [`forget`](Self::forget).
    #[inline]
    pub fn let_go<A: Atomics>(&mut self, mdl: Mdl<'_, A>) {
        if self.let_go != self.forgotten {
            self.let_go = self.forgotten;
            mdl.drained.store(self.let_go, Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU32;

    use super::*;

    #[derive(Default)]
    struct List {
        entries: [AtomicU32; 4],
        insert: AtomicU32,
        drained: AtomicU32,
    }

    impl List {
        fn mdl(&self) -> Mdl<'_> {
            Mdl::new(&self.entries, &self.insert, &self.drained)
        }

        fn starting_at(count: u32) -> (Self, Inserter, Drainer) {
            let list = Self { insert: count.into(), drained: count.into(), ..Self::default() };
            (list, Inserter { inserted: count }, Drainer { forgotten: count, let_go: count })
        }
    }

    fn forget(drainer: &mut Drainer, list: &List) -> Vec<Forget> {
        let mut forgotten = Vec::new();
        drainer.forget(list.mdl(), |what| forgotten.push(what));
        forgotten
    }

    /// Also where the counts wrap around.
    #[test]
    fn handles_are_forgotten_in_order_and_let_go_of_afterwards() {
        for start in [0, u32::MAX - 1] {
            let (list, mut inserter, mut drainer) = List::starting_at(start);
            let first = inserter.insert(list.mdl(), 10).expect("room");
            let second = inserter.insert(list.mdl(), 11).expect("room");
            assert!(drainer.is_behind(&list.insert));
            assert_eq!(forget(&mut drainer, &list), [Forget::Handle(10), Forget::Handle(11)]);
            assert!(!drainer.is_behind(&list.insert));
            let third = inserter.insert(list.mdl(), 12).expect("room");
            assert!(!inserter.has_let_go(list.mdl(), first), "forgotten, but not let go of");
            drainer.let_go(list.mdl());
            assert!([first, second].iter().all(|insertion| inserter.has_let_go(list.mdl(), *insertion)));
            assert!(!inserter.has_let_go(list.mdl(), third));
        }
    }

    #[test]
    fn a_full_list_takes_nothing_until_the_card_has_let_go() {
        let (list, mut inserter, mut drainer) = List::starting_at(u32::MAX - 2);
        for handle in 1..5 {
            inserter.insert(list.mdl(), handle).expect("room");
        }
        assert_eq!(inserter.insert(list.mdl(), 5), Err(Full));
        assert_eq!(forget(&mut drainer, &list).len(), 4);
        assert_eq!(inserter.insert(list.mdl(), 5), Err(Full), "forgotten, but not let go of");
        drainer.let_go(list.mdl());
        inserter.insert(list.mdl(), 5).expect("room");
        assert_eq!(forget(&mut drainer, &list), [Forget::Handle(5)]);
    }

    /// A Kernel Agent that breaks the rules harms nobody but its own guest.
    #[test]
    fn a_count_that_ran_too_far_or_backwards_makes_the_card_forget_everything() {
        for insert in [5, 0x8000_0000, u32::MAX] {
            let (list, _, mut drainer) = List::starting_at(0);
            list.insert.store(insert, Relaxed);
            assert_eq!(forget(&mut drainer, &list), [Forget::Everything]);
            assert!(forget(&mut drainer, &list).is_empty());
        }
    }
}
