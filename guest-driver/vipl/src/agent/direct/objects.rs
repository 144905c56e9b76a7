//! The objects of one context, by number: what the Kernel Agent must know to say no.

use std::collections::HashMap;

use vianic_abi::mrt::DEFAULT_PTAG;
use vianic_abi::status::Status;
use vianic_abi::{MAX_CQ, MAX_VI, NO_CQ};

use crate::agent::NewVi;

#[derive(Debug, Default)]
pub(super) struct Objects {
    /// Protection tags, with how many VIs and regions have each.
    ptags: HashMap<u32, u32>,
    last_ptag: u32,
    /// Completion queues, with how many work queues report to each.
    cqs: HashMap<u16, u32>,
    vis: HashMap<u16, NewVi>,
    /// Regions by handle.
    regions: HashMap<u32, Registered>,
}

/// A registered region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registered {
    pub(super) address: usize,
    pub(super) length: usize,
    pub(super) ptag: u32,
}

impl Objects {
    pub(super) fn create_ptag(&mut self) -> Result<u32, Status> {
        // A number comes again after 2^32 others only, so that no stale tag matches.
        let ptag = self.last_ptag.checked_add(1).ok_or(Status::ERROR_RESOURCE)?;
        self.last_ptag = ptag;
        self.ptags.insert(ptag, 0);
        Ok(ptag)
    }

    pub(super) fn destroy_ptag(&mut self, ptag: u32) -> Result<(), Status> {
        match self.ptags.get(&ptag) {
            None => Err(Status::INVALID_PARAMETER),
            Some(0) => {
                self.ptags.remove(&ptag);
                Ok(())
            }
            Some(_) => Err(Status::ERROR_RESOURCE),
        }
    }

    /// Whether a VI or a region may have `ptag`.
    pub(super) fn check_ptag(&self, ptag: u32) -> Result<(), Status> {
        let known = ptag == DEFAULT_PTAG || self.ptags.contains_key(&ptag);
        known.then_some(()).ok_or(Status::INVALID_PTAG)
    }

    fn use_ptag(&mut self, ptag: u32, change: i32) {
        if let Some(users) = self.ptags.get_mut(&ptag) {
            *users = users.saturating_add_signed(change);
        }
    }

    /// A number for a new completion queue; it exists with [`add_cq`](Self::add_cq).
    pub(super) fn free_cq(&self) -> Result<u16, Status> {
        (0..MAX_CQ).find(|cq| !self.cqs.contains_key(cq)).ok_or(Status::ERROR_RESOURCE)
    }

    pub(super) fn add_cq(&mut self, cq: u16) {
        self.cqs.insert(cq, 0);
    }

    /// Whether a completion queue may end.
    pub(super) fn check_idle_cq(&self, cq: u16) -> Result<(), Status> {
        match self.cqs.get(&cq) {
            None => Err(Status::INVALID_PARAMETER),
            Some(0) => Ok(()),
            Some(_) => Err(Status::ERROR_RESOURCE),
        }
    }

    pub(super) fn remove_cq(&mut self, cq: u16) {
        self.cqs.remove(&cq);
    }

    /// A number for a new VI, if what it refers to exists; it exists with [`add_vi`](Self::add_vi).
    pub(super) fn free_vi(&self, new: &NewVi) -> Result<u16, Status> {
        self.check_ptag(new.ptag)?;
        if [new.send_cq, new.receive_cq].iter().any(|cq| *cq != NO_CQ && !self.cqs.contains_key(cq)) {
            return Err(Status::INVALID_PARAMETER);
        }
        (0..MAX_VI).find(|vi| !self.vis.contains_key(vi)).ok_or(Status::ERROR_RESOURCE)
    }

    pub(super) fn add_vi(&mut self, vi: u16, new: NewVi) {
        self.use_vi(&new, 1);
        self.vis.insert(vi, new);
    }

    pub(super) fn check_vi(&self, vi: u16) -> Result<(), Status> {
        self.vis.contains_key(&vi).then_some(()).ok_or(Status::INVALID_PARAMETER)
    }

    pub(super) fn remove_vi(&mut self, vi: u16) {
        if let Some(old) = self.vis.remove(&vi) {
            self.use_vi(&old, -1);
        }
    }

    fn use_vi(&mut self, vi: &NewVi, change: i32) {
        self.use_ptag(vi.ptag, change);
        for cq in [vi.send_cq, vi.receive_cq] {
            if let Some(users) = self.cqs.get_mut(&cq) {
                *users = users.saturating_add_signed(change);
            }
        }
    }

    pub(super) fn add_region(&mut self, handle: u32, region: Registered) {
        self.use_ptag(region.ptag, 1);
        self.regions.insert(handle, region);
    }

    pub(super) fn remove_region(&mut self, address: usize, handle: u32) -> Result<(), Status> {
        match self.regions.get(&handle) {
            Some(region) if region.address == address => {
                let ptag = region.ptag;
                self.regions.remove(&handle);
                self.use_ptag(ptag, -1);
                Ok(())
            }
            _ => Err(Status::INVALID_PARAMETER),
        }
    }

    /// Whether the region with `handle` is around `address`.
    pub(super) fn check_region(&self, address: usize, handle: u32) -> Result<(), Status> {
        let around =
            |region: &Registered| (region.address..region.address + region.length).contains(&address);
        self.regions.get(&handle).is_some_and(around).then_some(()).ok_or(Status::INVALID_PARAMETER)
    }

    /// A region has another tag now.
    pub(super) fn set_region_ptag(&mut self, handle: u32, ptag: u32) {
        if let Some(region) = self.regions.get_mut(&handle) {
            let old = std::mem::replace(&mut region.ptag, ptag);
            self.use_ptag(old, -1);
            self.use_ptag(ptag, 1);
        }
    }

    /// A VI has another tag now.
    pub(super) fn set_vi_ptag(&mut self, vi: u16, ptag: u32) {
        if let Some(vi) = self.vis.get_mut(&vi) {
            let old = std::mem::replace(&mut vi.ptag, ptag);
            self.use_ptag(old, -1);
            self.use_ptag(ptag, 1);
        }
    }

    /// The handles of all regions.
    pub(super) fn regions(&self) -> Vec<u32> {
        self.regions.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use vianic_abi::command::ViAttributes;

    use super::*;

    fn vi(ptag: u32, send_cq: u16, receive_cq: u16) -> NewVi {
        NewVi { attributes: ViAttributes::default(), ptag, send_cq, receive_cq }
    }

    #[test]
    fn a_ptag_in_use_stays() {
        let mut objects = Objects::default();
        let ptag = objects.create_ptag().expect("a tag");
        assert_ne!(ptag, DEFAULT_PTAG);
        objects.add_vi(0, vi(ptag, NO_CQ, NO_CQ));
        objects.add_region(7, Registered { address: 0x1000, length: 0x10, ptag });
        assert_eq!(objects.destroy_ptag(ptag), Err(Status::ERROR_RESOURCE));
        objects.remove_vi(0);
        assert_eq!(objects.destroy_ptag(ptag), Err(Status::ERROR_RESOURCE));
        assert_eq!(objects.remove_region(0x1000, 7), Ok(()));
        assert_eq!(objects.destroy_ptag(ptag), Ok(()));
        assert_eq!(objects.destroy_ptag(ptag), Err(Status::INVALID_PARAMETER));
        assert_eq!(objects.check_ptag(ptag), Err(Status::INVALID_PTAG));
        assert_eq!(objects.check_ptag(DEFAULT_PTAG), Ok(()));
    }

    #[test]
    fn a_cq_in_use_stays() {
        let mut objects = Objects::default();
        assert_eq!(objects.free_vi(&vi(DEFAULT_PTAG, 0, NO_CQ)), Err(Status::INVALID_PARAMETER));
        let cq = objects.free_cq().expect("a number");
        objects.add_cq(cq);
        assert_ne!(objects.free_cq(), Ok(cq));
        let new = vi(DEFAULT_PTAG, cq, cq);
        let number = objects.free_vi(&new).expect("a number");
        objects.add_vi(number, new);
        assert_eq!(objects.check_idle_cq(cq), Err(Status::ERROR_RESOURCE));
        objects.remove_vi(number);
        assert_eq!(objects.check_idle_cq(cq), Ok(()));
        assert_eq!(objects.check_idle_cq(cq + 1), Err(Status::INVALID_PARAMETER));
    }

    #[test]
    fn a_region_is_known_by_address_and_handle() {
        let mut objects = Objects::default();
        objects.add_region(7, Registered { address: 0x1000, length: 0x10, ptag: DEFAULT_PTAG });
        assert_eq!(objects.remove_region(0x2000, 7), Err(Status::INVALID_PARAMETER));
        assert_eq!(objects.remove_region(0x1000, 8), Err(Status::INVALID_PARAMETER));
        assert_eq!(objects.remove_region(0x1000, 7), Ok(()));
        assert_eq!(objects.remove_region(0x1000, 7), Err(Status::INVALID_PARAMETER));
    }

    #[test]
    fn a_change_of_tag_changes_what_is_in_use() {
        let mut objects = Objects::default();
        let (old, new) = (objects.create_ptag().expect("a tag"), objects.create_ptag().expect("a tag"));
        objects.add_vi(0, vi(old, NO_CQ, NO_CQ));
        objects.add_region(7, Registered { address: 0x1000, length: 0x10, ptag: old });
        assert_eq!(objects.check_region(0x100f, 7), Ok(()));
        for (address, handle) in [(0xfff, 7), (0x1010, 7), (0x1000, 8)] {
            assert_eq!(objects.check_region(address, handle), Err(Status::INVALID_PARAMETER));
        }
        objects.set_region_ptag(7, new);
        assert_eq!(objects.destroy_ptag(old), Err(Status::ERROR_RESOURCE), "the VI has it");
        objects.set_vi_ptag(0, DEFAULT_PTAG);
        assert_eq!(objects.destroy_ptag(old), Ok(()));
        assert_eq!(objects.destroy_ptag(new), Err(Status::ERROR_RESOURCE));
        assert_eq!(objects.remove_region(0x1000, 7), Ok(()));
        assert_eq!(objects.destroy_ptag(new), Ok(()));
    }

    #[test]
    fn numbers_run_out() {
        let mut objects = Objects::default();
        for _ in 0..MAX_VI {
            let number = objects.free_vi(&vi(0, NO_CQ, NO_CQ)).expect("a number");
            objects.add_vi(number, vi(0, NO_CQ, NO_CQ));
        }
        assert_eq!(objects.free_vi(&vi(0, NO_CQ, NO_CQ)), Err(Status::ERROR_RESOURCE));
        objects.remove_vi(17);
        assert_eq!(objects.free_vi(&vi(0, NO_CQ, NO_CQ)), Ok(17));
    }
}
