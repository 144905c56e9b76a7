//! Descriptors that Rust programs own: in registered memory, handed over when they are posted, and handed back when
//! they are dequeued.
#![expect(unsafe_code, reason = "descriptors lie in memory that the card writes")]

use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;
use vianic_abi::descriptor::{ALIGNMENT, Control, Operation};

pub use vianic_abi::descriptor::DescriptorStatus;

use crate::descriptor::{ControlSegment, Malformed, RawDescriptor, Segment, failed};
use crate::error::{Error, Result};
use crate::memory::{LocalSegment, MemoryAttributes, RegisteredBuffer, RemoteMemory, TagId};
use crate::nic::Nic;

/// Descriptors take multiples of so many bytes.
const STRIDE: usize = 64;
const _: () = assert!((STRIDE as u64).is_multiple_of(ALIGNMENT));

/// Descriptors of one size in one piece of registered memory.
#[derive(Clone, Debug)]
pub struct DescriptorPool(Arc<PoolMemory>);

#[derive(Debug)]
struct PoolMemory {
    buffer: RegisteredBuffer,
    max_segments: u16,
    /// Where in the buffer the descriptors are that nobody has.
    free: Mutex<Vec<usize>>,
}

impl DescriptorPool {
    /// `count` descriptors with room for `max_segments` segments each, an address segment counted.
    ///
    /// # Errors
    /// As [`RegisteredBuffer::new`].
    pub fn new(nic: &Nic, count: usize, max_segments: u16, tag: Option<TagId>) -> Result<Self> {
        let size = size_of::<ControlSegment>() + size_of::<Segment>() * usize::from(max_segments);
        let stride = size.next_multiple_of(STRIDE);
        let length = stride.checked_mul(count).ok_or(Error::OutOfResources("too many descriptors"))?;
        let attributes = MemoryAttributes { tag, ..Default::default() };
        let buffer = RegisteredBuffer::new(nic, length, &attributes)?;
        Ok(Self(Arc::new(PoolMemory {
            buffer,
            max_segments,
            free: Mutex::new(apart(count).rev().map(|index| index * stride).collect()),
        })))
    }

    /// A descriptor, unless all are taken. It goes back when it is dropped.
    #[must_use]
    pub fn take(&self) -> Option<Descriptor> {
        let offset = self.0.free.lock().pop()?;
        let descriptor = Descriptor { offset, pool: Arc::clone(&self.0) };
        // SAFETY: the descriptor is not posted, so it is ours.
        unsafe { descriptor.link().write(Arc::as_ptr(&self.0)) };
        Some(descriptor)
    }
}

/// All numbers below `count`, but not both of a pair one after the other: processors fetch cache lines in pairs, and the card writes to one
/// descriptor while the program fills the next.
fn apart(count: usize) -> impl DoubleEndedIterator<Item = usize> {
    (0..count).step_by(2).chain((1..count).step_by(2))
}

/// What a descriptor asks the NIC to do.
#[derive(Clone, Copy, Debug)]
pub enum Work<'a> {
    /// Send a message.
    Send {
        /// Its bytes.
        segments: &'a [LocalSegment],
        /// Immediate data.
        immediate: Option<u32>,
    },
    /// Receive a message.
    Receive {
        /// Room for it.
        segments: &'a [LocalSegment],
    },
    /// Write into a peer's memory.
    RdmaWrite {
        /// Where.
        target: RemoteMemory,
        /// What.
        segments: &'a [LocalSegment],
        /// Immediate data; uses up a receive descriptor of the peer.
        immediate: Option<u32>,
    },
    /// Read a peer's memory.
    RdmaRead {
        /// From where.
        source: RemoteMemory,
        /// Room for it.
        segments: &'a [LocalSegment],
    },
}

/// A descriptor that is not posted.
// Its link field names its pool, which is how its address becomes a descriptor again.
#[derive(Debug)]
pub struct Descriptor {
    /// Where it is in the pool's buffer.
    offset: usize,
    pool: Arc<PoolMemory>,
}

impl Descriptor {
    #[inline]
    fn control(&self) -> NonNull<ControlSegment> {
        // SAFETY: descriptors of the pool lie within the buffer, which starts somewhere.
        unsafe { NonNull::new_unchecked(self.pool.buffer.as_ptr().add(self.offset)).cast() }
    }

    #[inline]
    fn link(&self) -> NonNull<*const PoolMemory> {
        link(self.control())
    }

    /// Says what the descriptor is for. It stays so when it comes back.
    ///
    /// # Errors
    /// [`Malformed::TooManySegments`], [`Malformed::TooLong`].
    pub fn fill(&mut self, work: &Work<'_>) -> Result<()> {
        let (operation, remote, segments, immediate) = match *work {
            Work::Send { segments, immediate } => (Operation::SEND_RECEIVE, None, segments, immediate),
            Work::Receive { segments } => (Operation::SEND_RECEIVE, None, segments, None),
            Work::RdmaWrite { target, segments, immediate } => {
                (Operation::RDMA_WRITE, Some(target), segments, immediate)
            }
            Work::RdmaRead { source, segments } => (Operation::RDMA_READ, Some(source), segments, None),
        };
        let total: u64 = segments.iter().map(|segment| u64::from(segment.0.length)).sum();
        let length = u32::try_from(total).map_err(|_| Malformed::TooLong)?;
        let count = u16::try_from(segments.len() + usize::from(remote.is_some()))
            .ok()
            .filter(|count| *count <= self.pool.max_segments)
            .ok_or(Malformed::TooManySegments)?;
        let flags = if immediate.is_some() { Control::IMMEDIATE.bits() } else { 0 };
        let control = ControlSegment {
            segment_count: count,
            control: operation.0 | flags,
            immediate: immediate.unwrap_or_default(),
            length,
            ..Default::default()
        };
        let remote = remote.map(|RemoteMemory { address, handle }| Segment { address, handle, length: 0 });
        let all = remote.into_iter().chain(segments.iter().map(|segment| segment.0));
        // SAFETY: the descriptor is not posted, so it is ours; it has room for as many segments as the pool says.
        unsafe {
            self.control().write(control);
            self.link().write(Arc::as_ptr(&self.pool));
            let first = self.control().add(1).cast::<Segment>();
            for (index, segment) in all.enumerate() {
                first.add(index).write(segment);
            }
        }
        Ok(())
    }

    /// Makes the NIC start only when all earlier RDMA reads of the queue have finished.
    pub fn set_fence(&mut self) {
        // SAFETY: the descriptor is not posted, so it is ours.
        unsafe { self.control().as_mut() }.control |= Control::QUEUE_FENCE.bits();
    }

    #[inline]
    fn completed_control(&self) -> ControlSegment {
        // SAFETY: the descriptor is not posted, so it is ours.
        unsafe { self.control().read() }
    }

    /// How it completed.
    #[inline]
    #[must_use]
    pub fn status(&self) -> DescriptorStatus {
        DescriptorStatus::from_bits_retain(self.completed_control().status)
    }

    /// Bytes sent or received, or the status if it failed.
    ///
    /// # Errors
    /// The status.
    #[inline]
    pub fn outcome(&self) -> std::result::Result<u32, DescriptorStatus> {
        let control = self.completed_control();
        let status = DescriptorStatus::from_bits_retain(control.status);
        if failed(status) { Err(status) } else { Ok(control.length) }
    }

    /// The immediate data that came with a message.
    #[must_use]
    pub fn immediate(&self) -> Option<u32> {
        let control = self.completed_control();
        let status = DescriptorStatus::from_bits_retain(control.status);
        status.contains(DescriptorStatus::IMMEDIATE).then_some(control.immediate)
    }

    #[inline]
    pub(crate) fn handle(&self) -> u32 {
        self.pool.buffer.handle()
    }

    /// Gives the descriptor away: from now on its address stands for it.
    #[inline]
    pub(crate) fn give_away(self) -> RawDescriptor {
        // It is never dropped: its reference to the pool is what the link stands for now.
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `fill` (or zeroed memory) makes the segment count true, and the descriptor is whose it is given to.
        unsafe { RawDescriptor::aligned(this.control()) }
    }

    /// Takes a descriptor back.
    ///
    /// # Safety
    /// It was given away, is not posted any more, and is taken back once.
    #[inline]
    pub(crate) unsafe fn take_back(raw: RawDescriptor) -> Self {
        // SAFETY: `take` and `fill` wrote the link, posting keeps it, and `give_away` left the reference to the pool that it stands for.
        let pool = unsafe { Arc::from_raw(link(raw.as_non_null()).read()) };
        Self { offset: raw.as_ptr().addr() - pool.buffer.as_ptr().addr(), pool }
    }
}

/// A descriptor's link field, as the pool uses it: for a pointer.
#[inline]
fn link(control: NonNull<ControlSegment>) -> NonNull<*const PoolMemory> {
    const { assert!(std::mem::offset_of!(ControlSegment, next) == 0 && size_of::<usize>() <= 8) };
    control.cast()
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.pool.free.lock().push(self.offset);
    }
}

#[cfg(test)]
mod tests {
    use super::apart;

    #[test]
    fn pairs_are_taken_apart() {
        for count in 0..20 {
            let order: Vec<usize> = apart(count).collect();
            assert!(order.windows(2).all(|two| count == 2 || two[0] / 2 != two[1] / 2), "{order:?}");
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..count), "{order:?}");
        }
    }
}
