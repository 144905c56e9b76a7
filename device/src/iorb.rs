//! The I/O Resource Block (claim 9): one descriptor in the card's own terms, checked for form. What the Message Unit
//! builds from a token and hands to Vito.

use smallvec::SmallVec;
use vianic_abi::descriptor::{Control, ControlSegment, DescriptorStatus, Operation, Segment};
use vianic_abi::token::{INLINE_SEGMENTS, InlineBody};
use vianic_abi::{MAX_SEGMENTS, descriptor};

/// Which work queue of a VI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkQueue {
    /// The send queue.
    Send,
    /// The receive queue.
    Receive,
}

/// What a descriptor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A message to the peer's next receive descriptor.
    Send,
    /// Room for a message.
    Receive,
    /// An RDMA write: bytes to a place in the peer's memory.
    RdmaWrite(RemoteAddress),
    /// An RDMA read: bytes from a place in the peer's memory.
    RdmaRead(RemoteAddress),
}

/// A place in the peer's memory, in the peer's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteAddress {
    /// Virtual address in the peer's address space.
    pub address: u64,
    /// Memory handle of the peer's region.
    pub handle: u32,
}

/// Where a descriptor lies in its owner's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorAddress {
    /// Virtual address.
    pub address: u64,
    /// Memory handle.
    pub handle: u32,
}

/// Where a descriptor was found in guest memory, and when: valid as long as the card has let go of no registration since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// Guest-physical address.
    pub address: u64,
    /// The card's count of registrations let go of ([`ShadowMrt::epoch`](crate::nic::shadow_mrt::ShadowMrt::epoch)).
    pub epoch: u64,
}

/// Data segments; those of an inline descriptor need no memory of their own.
pub type Segments = SmallVec<[Segment; INLINE_SEGMENTS as usize]>;

/// A descriptor in the card's own terms.
#[derive(Clone, Debug)]
pub struct Iorb {
    /// What it asks for.
    pub work: Work,
    /// Where its completion goes.
    pub descriptor: DescriptorAddress,
    /// The same, as it was found when the descriptor was accepted.
    pub location: Location,
    /// Data segments.
    pub segments: Segments,
    /// Bytes of all segments: to send, or room for what comes.
    pub length: u32,
    /// Immediate data to send.
    pub immediate: Option<u32>,
    /// What is wrong with the descriptor's form; reported when its turn comes, as completions keep the order
    /// of posts.
    pub fault: Option<DescriptorStatus>,
}

impl Iorb {
    /// Its only data segment, if it is a well-formed send or receive that has just one.
    #[inline]
    #[must_use]
    pub fn only_segment(&self) -> Option<&Segment> {
        match (&self.segments[..], self.work, self.fault) {
            ([segment], Work::Send | Work::Receive, None) => Some(segment),
            _ => None,
        }
    }

    /// The IORB of an inline descriptor that is a send or a receive with one segment, and nothing else. `None`: it is
    /// something for [`from_inline`](Self::from_inline).
    #[must_use]
    #[inline(always)]
    pub fn plain(queue: WorkQueue, address: u64, location: Location, body: &InlineBody) -> Option<Self> {
        if body.control & !Control::IMMEDIATE.bits() != Operation::SEND_RECEIVE.0 || body.segment_count != 1 {
            return None;
        }
        let (work, has_immediate) = match queue {
            WorkQueue::Send => (Work::Send, body.control != Operation::SEND_RECEIVE.0),
            WorkQueue::Receive => (Work::Receive, false),
        };
        Some(Self {
            work,
            descriptor: DescriptorAddress { address, handle: body.descriptor_handle },
            location,
            segments: SmallVec::from_buf_and_len(body.segments, 1),
            length: body.segments[0].length,
            immediate: has_immediate.then_some(body.immediate),
            fault: None,
        })
    }

    /// The IORB of an inline descriptor.
    #[must_use]
    pub fn from_inline(queue: WorkQueue, address: u64, location: Location, body: &InlineBody) -> Self {
        let descriptor = DescriptorAddress { address, handle: body.descriptor_handle };
        let segments =
            SmallVec::from_buf_and_len(body.segments, body.segment_count.min(INLINE_SEGMENTS).into());
        let form = Form {
            control: body.control,
            immediate: body.immediate,
            too_many_segments: body.segment_count > INLINE_SEGMENTS,
        };
        Self::new(queue, (descriptor, location), form, segments)
    }

    /// The IORB of an indirect descriptor, from a copy of its control segment and as many segments as
    /// [`indirect_segments`] asked for.
    #[must_use]
    pub fn from_indirect(
        queue: WorkQueue,
        place: (DescriptorAddress, Location),
        control: &ControlSegment,
        segments: Segments,
    ) -> Self {
        let form = Form {
            control: control.control,
            immediate: control.immediate,
            too_many_segments: control.segment_count > MAX_SEGMENTS,
        };
        Self::new(queue, place, form, segments)
    }

    #[inline(always)]
    fn new(
        queue: WorkQueue,
        (descriptor, location): (DescriptorAddress, Location),
        form: Form,
        mut segments: Segments,
    ) -> Self {
        let plain = match queue {
            WorkQueue::Send => Work::Send,
            WorkQueue::Receive => Work::Receive,
        };
        let work = match Operation(form.control & Control::OPERATION_MASK) {
            Operation::SEND_RECEIVE => Some(plain),
            operation if queue == WorkQueue::Send => rdma(operation, &mut segments),
            _ => None,
        };
        let length = match segments[..] {
            [] => Some(0),
            [only] => Some(only.length),
            _ => total(&segments),
        };
        let malformed =
            work.is_none() || form.too_many_segments || form.control & Control::RESERVED_MASK != 0;
        let fault = match length {
            _ if malformed => Some(DescriptorStatus::FORMAT_ERROR),
            None => Some(DescriptorStatus::LENGTH_ERROR),
            Some(_) => None,
        };
        let has_immediate = queue == WorkQueue::Send && form.control & Control::IMMEDIATE.bits() != 0;
        Self {
            work: work.unwrap_or(plain),
            descriptor,
            location,
            segments,
            length: length.unwrap_or(u32::MAX),
            immediate: has_immediate.then_some(form.immediate),
            fault,
        }
    }

    /// The work queue it was posted to.
    #[inline]
    #[must_use]
    pub fn queue(&self) -> WorkQueue {
        match self.work {
            Work::Receive => WorkQueue::Receive,
            Work::Send | Work::RdmaWrite(_) | Work::RdmaRead(_) => WorkQueue::Send,
        }
    }
}

/// What a control segment says of a descriptor's form.
struct Form {
    control: u16,
    immediate: u32,
    too_many_segments: bool,
}

/// An RDMA operation. Its address segment, which is the first, is no data segment.
#[cold]
fn rdma(operation: Operation, segments: &mut Segments) -> Option<Work> {
    let work = match operation {
        Operation::RDMA_WRITE => Work::RdmaWrite,
        Operation::RDMA_READ => Work::RdmaRead,
        _ => return None,
    };
    let Segment { address, handle, .. } = *segments.first()?;
    segments.remove(0);
    Some(work(RemoteAddress { address, handle }))
}

/// Bytes of all segments, if a message can have so many.
fn total(segments: &[Segment]) -> Option<u32> {
    u32::try_from(segments.iter().map(|segment| u64::from(segment.length)).sum::<u64>()).ok()
}

/// How many segments of an indirect descriptor are worth copying: none of one whose count is beyond the limit.
#[must_use]
pub fn indirect_segments(control: &ControlSegment) -> usize {
    if control.segment_count <= MAX_SEGMENTS { usize::from(control.segment_count) } else { 0 }
}

/// Whether a descriptor may lie at `address`.
#[must_use]
pub fn is_aligned(address: u64) -> bool {
    address.is_multiple_of(descriptor::ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inline(control: u16, segment_count: u16, lengths: [u32; 2]) -> Iorb {
        let segments = lengths.map(|length| Segment { address: 0x1000, handle: 1, length });
        let body = InlineBody { control, segment_count, immediate: 7, segments, ..InlineBody::default() };
        Iorb::from_inline(WorkQueue::Send, 0x40, Location::default(), &body)
    }

    #[test]
    fn segments_add_up() {
        let iorb = inline(Control::IMMEDIATE.bits(), 2, [3, 4]);
        assert_eq!((iorb.length, iorb.immediate, iorb.fault), (7, Some(7), None));
        assert_eq!(inline(0, 1, [3, 4]).length, 3);
        assert_eq!(inline(0, 0, [3, 4]).immediate, None);
    }

    #[test]
    fn the_address_segment_of_an_rdma_operation_holds_no_data() {
        let remote = RemoteAddress { address: 0x1000, handle: 1 };
        for (operation, work) in
            [(Operation::RDMA_WRITE, Work::RdmaWrite(remote)), (Operation::RDMA_READ, Work::RdmaRead(remote))]
        {
            let iorb = inline(operation.0, 2, [99, 4]);
            assert_eq!((iorb.work, iorb.length, iorb.fault), (work, 4, None));
        }
    }

    #[test]
    fn malformed_descriptors_are_found() {
        for (control, segments) in [(0x0010, 1), (0x8000, 1), (3, 1), (1, 0), (2, 0), (0, 3), (0, u16::MAX)] {
            let fault = inline(control, segments, [1, 1]).fault;
            assert_eq!(fault, Some(DescriptorStatus::FORMAT_ERROR), "{control:#x} {segments}");
        }
        assert_eq!(inline(0, 2, [u32::MAX, 1]).fault, Some(DescriptorStatus::LENGTH_ERROR));
    }
}
