//! Objects that are only there.
#![expect(unsafe_code, reason = "one page is registered many times")]

use anyhow::Context as _;
use vianic_tools::cli::open_nic;
use vipl::{MemoryAttributes, Nic, RegisteredBuffer, ReliabilityLevel, Vi, ViAttributes};

use super::{Object, Target};

const PAGE: usize = 4096;

/// Objects beside those that are used; they go with this.
pub(super) struct Objects<'a> {
    object: Object,
    nic: &'a Nic,
    target: &'a Target,
    count: u32,
    vis: Vec<Vi>,
    nics: Vec<Nic>,
    regions: Vec<u32>,
    page: Option<RegisteredBuffer>,
}

impl<'a> Objects<'a> {
    /// None yet, where `used` are in use.
    pub(super) fn new(object: Object, nic: &'a Nic, target: &'a Target, used: u32) -> Self {
        let (vis, nics, regions, page) = (Vec::new(), Vec::new(), Vec::new(), None);
        Self { object, nic, target, count: used, vis, nics, regions, page }
    }

    /// How many there are, with those that are used.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Makes them `count` in all.
    pub(super) fn grow(&mut self, count: u32) -> anyhow::Result<()> {
        while self.count < count {
            self.add().with_context(|| {
                format!("cannot have {count} {}; there are {}", self.object.name(), self.count)
            })?;
            self.count += 1;
        }
        Ok(())
    }

    fn add(&mut self) -> anyhow::Result<()> {
        match self.object {
            Object::Vis => {
                let attributes = ViAttributes {
                    reliability: ReliabilityLevel::RELIABLE_DELIVERY,
                    max_transfer_size: 4096,
                    tag: None,
                    rdma_write: false,
                    rdma_read: false,
                };
                self.vis.push(self.nic.create_vi(&attributes, None, None)?);
            }
            Object::Contexts => self.nics.push(open_nic(self.target.nics.first().context("no NIC")?)?),
            Object::Nics => {
                let next = self.nics.len() + 1;
                self.nics.push(open_nic(self.target.nics.get(next).context("the card has no more NICs")?)?);
            }
            Object::Regions => {
                let attributes = MemoryAttributes::default();
                let page = match &self.page {
                    Some(page) => page,
                    None => self.page.insert(RegisteredBuffer::new(self.nic, PAGE, &attributes)?),
                };
                let address = page.as_ptr().addr();
                // SAFETY: the page is a registered buffer's, which lives as long as these registrations and is
                // only accessed by copying.
                let handle = unsafe { self.nic.id().register_memory(address, PAGE, &attributes) }?;
                self.regions.push(handle);
            }
        }
        Ok(())
    }
}

impl Drop for Objects<'_> {
    fn drop(&mut self) {
        let Some(page) = &self.page else { return };
        for handle in self.regions.drain(..) {
            if let Err(error) = self.nic.id().deregister_memory(page.as_ptr().addr(), handle) {
                log::warn!("a region stays registered until its NIC is closed: {error}");
            }
        }
    }
}
