//! Protection tags and registered memory.
#![expect(unsafe_code, reason = "registered memory is the card's to write")]

use std::collections::HashMap;
use std::sync::Arc;

use vianic_abi::mrt::{ACCESS_RDMA_READ, ACCESS_RDMA_WRITE, DEFAULT_PTAG};

use crate::agent::{AgentError, Region, RegionChange};
use crate::context::{Belonging, Context};
use crate::descriptor::Segment;
use crate::error::{Error, Result};
use crate::handle::{Key, Kind, Pool, Shared};
use crate::mapping::Mapping;
use crate::nic::{Nic, NicId};

static TAGS: Pool<Shared<TagObject>> = Pool::new(Kind::ProtectionTag);

struct TagObject {
    context: Arc<Context>,
    number: u32,
}

/// Names a protection tag. It may outlive it: then every call says [`Error::InvalidProtectionTag`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TagId(pub(crate) Key);

impl TagId {
    pub(crate) fn from_value(value: u64) -> Result<Self> {
        TAGS.key(value).map(Self).ok_or(Error::InvalidProtectionTag)
    }

    pub(crate) fn create(context: &Arc<Context>) -> Result<Self> {
        let number = context.agent.create_ptag()?;
        let key = TAGS.insert(Arc::new(TagObject { context: Arc::clone(context), number }));
        let key = key.ok_or_else(|| {
            let _ = context.agent.destroy_ptag(number);
            Error::OutOfResources("no more protection tags")
        })?;
        if !context.belongings.add(Belonging::Tag(key)) {
            TAGS.remove(key);
            return Err(Error::Closed);
        }
        Ok(Self(key))
    }

    /// The tag's number, if it is one of that NIC handle.
    pub(crate) fn number_in(self, context: &Arc<Context>) -> Result<u32> {
        let tag = TAGS.get(self.0).filter(|tag| Arc::ptr_eq(&tag.context, context));
        tag.map(|tag| tag.number).ok_or(Error::InvalidProtectionTag)
    }

    /// Takes the tag away from its name.
    pub(crate) fn forget(self) {
        if let Some(tag) = TAGS.remove(self.0) {
            tag.context.belongings.remove(Belonging::Tag(self.0));
        }
    }

    /// Ends the tag, which must be one of that NIC handle.
    pub(crate) fn destroy_in(self, context: &Arc<Context>) -> Result<()> {
        context.agent.destroy_ptag(self.number_in(context)?)?;
        self.forget();
        Ok(())
    }
}

/// A protection tag; destroyed when dropped, or later with its NIC if something still has it.
#[derive(Debug)]
pub struct ProtectionTag(TagId);

impl ProtectionTag {
    pub(crate) fn new(id: TagId) -> Self {
        Self(id)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> TagId {
        self.0
    }
}

impl Drop for ProtectionTag {
    fn drop(&mut self) {
        if let Some(tag) = TAGS.get(self.0.0)
            && let Err(error) = self.0.destroy_in(&tag.context)
        {
            log::warn!("a protection tag stays until its NIC is closed: {error}");
        }
    }
}

/// What may be done with registered memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryAttributes {
    /// Protection tag; none goes with every tag of the process.
    pub tag: Option<TagId>,
    /// Peers may write by RDMA.
    pub rdma_write: bool,
    /// Peers may read by RDMA.
    pub rdma_read: bool,
}

impl MemoryAttributes {
    /// As the card knows them: tag and `ACCESS_*`.
    fn in_mrt(&self, context: &Arc<Context>) -> Result<(u32, u16)> {
        if self.rdma_read && context.info.registers.rdma_read_levels == 0 {
            return Err(Error::InvalidRdmaRead);
        }
        let ptag = self.tag.map_or(Ok(DEFAULT_PTAG), |tag| tag.number_in(context))?;
        let access = if self.rdma_write { ACCESS_RDMA_WRITE } else { 0 }
            | if self.rdma_read { ACCESS_RDMA_READ } else { 0 };
        Ok((ptag, access))
    }
}

/// A region as it was registered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegisteredRegion {
    region: Region,
    attributes: MemoryAttributes,
}

impl NicId {
    /// Registers memory of the process and gives its handle.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for no bytes; [`Error::InvalidProtectionTag`]; [`Error::InvalidRdmaRead`];
    /// [`Error::OutOfResources`] when it cannot be locked in memory.
    ///
    /// # Safety
    /// Until the handle is deregistered the card reads and writes these bytes at any time: the range must stay mapped, and
    /// no Rust reference may exclude this.
    pub unsafe fn register_memory(
        self,
        address: usize,
        length: usize,
        attributes: &MemoryAttributes,
    ) -> Result<u32> {
        let context = self.context()?;
        if address == 0 || length == 0 || address.checked_add(length).is_none() {
            return Err(Error::InvalidParameter("a region begins somewhere and has at least one byte"));
        }
        let (ptag, access) = attributes.in_mrt(&context)?;
        let region = Region { address, length, ptag, access };
        // SAFETY: the caller promises the same.
        let handle = unsafe { context.agent.register_memory(&region)? };
        if handle == 0 || handle == u32::MAX {
            return Err(Error::Agent(AgentError::Unusable(format!("memory handle {handle:#x}"))));
        }
        context.regions.lock().insert(handle, RegisteredRegion { region, attributes: *attributes });
        Ok(handle)
    }

    /// Deregisters the region that starts at `address`.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if `handle` is no region of this NIC handle that starts there.
    pub fn deregister_memory(self, address: usize, handle: u32) -> Result<()> {
        let context = self.context()?;
        let known = |region: &RegisteredRegion| region.region.address == address;
        if !context.regions.lock().get(&handle).is_some_and(known) {
            return Err(Error::InvalidParameter("no region with that handle starts there"));
        }
        context.agent.deregister_memory(address, handle)?;
        context.regions.lock().remove(&handle);
        Ok(())
    }

    /// The attributes of the region with `handle` around `address`.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if there is none.
    pub fn query_memory(self, address: usize, handle: u32) -> Result<MemoryAttributes> {
        let context = self.context()?;
        let regions = context.regions.lock();
        Ok(region_around(&regions, address, handle)?.attributes)
    }

    /// Gives the region with `handle` around `address` other attributes. Accesses that begin when it has returned go by them;
    /// one that is under way may go by either. After any failure the region is as it was.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if there is none; [`Error::InvalidProtectionTag`]; [`Error::InvalidRdmaRead`].
    pub fn set_memory_attributes(
        self,
        address: usize,
        handle: u32,
        attributes: &MemoryAttributes,
    ) -> Result<()> {
        let context = self.context()?;
        region_around(&context.regions.lock(), address, handle)?;
        let (ptag, access) = attributes.in_mrt(&context)?;
        // One change at a time, so that what is known here is what the card was told last.
        let _alone = context.changing_memory.lock();
        context.agent.set_memory_attributes(&RegionChange { address, handle, ptag, access })?;
        if let Some(known) = context.regions.lock().get_mut(&handle) {
            known.attributes = *attributes;
        }
        Ok(())
    }
}

fn region_around(
    regions: &HashMap<u32, RegisteredRegion>,
    address: usize,
    handle: u32,
) -> Result<&RegisteredRegion> {
    let around = |known: &&RegisteredRegion| {
        (known.region.address..known.region.address + known.region.length).contains(&address)
    };
    regions
        .get(&handle)
        .filter(around)
        .ok_or(Error::InvalidParameter("no region with that handle is around the address"))
}

/// A part of a [`RegisteredBuffer`], as a descriptor names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalSegment(pub(crate) Segment);

/// Memory of a peer, as its owner has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteMemory {
    /// Virtual address at the owner.
    pub address: u64,
    /// The owner's memory handle.
    pub handle: u32,
}

/// Zeroed memory that is registered for as long as it lives. The card may write it at any time, so it is read and
/// written by copying.
#[derive(Debug)]
pub struct RegisteredBuffer {
    memory: Mapping,
    length: usize,
    nic: NicId,
    handle: u32,
}

impl RegisteredBuffer {
    /// Allocates and registers `length` bytes, aligned to a page.
    ///
    /// # Errors
    /// As [`NicId::register_memory`].
    pub fn new(nic: &Nic, length: usize, attributes: &MemoryAttributes) -> Result<Self> {
        let memory = Mapping::anonymous(length.next_multiple_of(rustix::param::page_size()))?;
        let nic = nic.id();
        // SAFETY: the mapping is only accessed through atomics, and deregistered before it is unmapped. A transfer that is
        // still under way then goes to pages that this process no longer sees.
        let handle = unsafe { nic.register_memory(memory.base().addr().get(), length, attributes)? };
        Ok(Self { memory, length, nic, handle })
    }

    /// Gives it other attributes, as [`NicId::set_memory_attributes`].
    ///
    /// # Errors
    /// [`Error::InvalidProtectionTag`]; [`Error::InvalidRdmaRead`].
    pub fn set_attributes(&self, attributes: &MemoryAttributes) -> Result<()> {
        self.nic.set_memory_attributes(self.memory.base().addr().get(), self.handle, attributes)
    }

    /// Bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Its memory, as a peer names it.
    #[must_use]
    pub fn as_remote(&self) -> RemoteMemory {
        RemoteMemory { address: self.memory.base().addr().get() as u64, handle: self.handle }
    }

    /// First byte.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.memory.base().as_ptr()
    }

    /// `length` bytes at `offset`, for a descriptor.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if they are not all in the buffer.
    pub fn segment(&self, offset: usize, length: usize) -> Result<LocalSegment> {
        let out = Error::InvalidParameter("the segment is not in the buffer");
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(out);
        }
        let Ok(bytes) = u32::try_from(length) else { return Err(out) };
        let address = (self.memory.base().addr().get() + offset) as u64;
        Ok(LocalSegment(Segment { address, handle: self.handle, length: bytes }))
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// If they are not all in the buffer.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        self.memory.read(offset, into);
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// If they are not all in the buffer.
    pub fn write(&self, offset: usize, from: &[u8]) {
        self.memory.write(offset, from);
    }

    /// The 64-bit word at `offset`, with everything that the card wrote before it.
    ///
    /// # Panics
    /// If it is not in the buffer or `offset` is not a multiple of 8.
    #[must_use]
    pub fn load_u64(&self, offset: usize) -> u64 {
        self.memory.load_u64(offset)
    }

    /// Registers `length` bytes at `offset` once more, as a region of their own.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if they are not all in the buffer, and as [`NicId::register_memory`].
    pub fn register_part(
        &self,
        offset: usize,
        length: usize,
        attributes: &MemoryAttributes,
    ) -> Result<RegisteredPart<'_>> {
        let LocalSegment(mut segment) = self.segment(offset, length)?;
        let address = self.memory.base().addr().get() + offset;
        // SAFETY: as for the whole buffer, which the part borrows.
        segment.handle = unsafe { self.nic.register_memory(address, length, attributes)? };
        Ok(RegisteredPart { buffer: self, segment })
    }

    pub(crate) fn handle(&self) -> u32 {
        self.handle
    }
}

/// A part of a [`RegisteredBuffer`] that is a region of its own for as long as it lives.
#[derive(Debug)]
pub struct RegisteredPart<'a> {
    buffer: &'a RegisteredBuffer,
    segment: Segment,
}

impl RegisteredPart<'_> {
    /// The part, for a descriptor.
    #[must_use]
    pub fn segment(&self) -> LocalSegment {
        LocalSegment(self.segment)
    }
}

impl Drop for RegisteredPart<'_> {
    fn drop(&mut self) {
        let address = usize::try_from(self.segment.address).unwrap_or_default();
        deregister_at_drop(self.buffer.nic, address, self.segment.handle);
    }
}

impl Drop for RegisteredBuffer {
    fn drop(&mut self) {
        deregister_at_drop(self.nic, self.memory.base().addr().get(), self.handle);
    }
}

fn deregister_at_drop(nic: NicId, address: usize, handle: u32) {
    match nic.deregister_memory(address, handle) {
        // The NIC handle is closed, and its regions with it.
        Ok(()) | Err(Error::InvalidHandle(_)) => {}
        Err(error) => log::warn!("memory stays registered until its NIC is closed: {error}"),
    }
}
