//! Descriptors in application memory: what VIPL checks before it links one to a work queue, and how it reads and writes
//! one.
//!
//! VIPL checks a descriptor's form (claim 6); whether its memory is registered only the card can know.
#![expect(unsafe_code, reason = "descriptors are the application's memory")]

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use vianic_abi::descriptor::{ALIGNMENT, COMPLETION_OFFSET, Control, DescriptorStatus, Operation};
use vianic_abi::token::{INLINE_SEGMENTS, IndirectBody, InlineBody, TOKEN_RECEIVE, Token, TokenKind};

pub(crate) use vianic_abi::descriptor::{ControlSegment, Segment};

/// Which of a VI's work queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Queue {
    /// The send queue.
    Send,
    /// The receive queue.
    Receive,
}

/// What is wrong with a descriptor's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The address is 0.
    #[error("its address is 0")]
    Null,
    /// The address is not on a 64-byte boundary.
    #[error("its address is not a multiple of 64")]
    Misaligned,
    /// A reserved bit of the control field is set.
    #[error("a reserved bit of its control field is set")]
    ReservedControl,
    /// The operation does not exist, or not on this queue.
    #[error("its operation does not exist on this queue")]
    Operation,
    /// More segments than the NIC takes.
    #[error("it has too many segments")]
    TooManySegments,
    /// An RDMA operation without address segment.
    #[error("it is an RDMA operation and has no address segment")]
    NoAddressSegment,
    /// The segments' lengths add up to more than any message can have.
    #[error("its segments are too long together")]
    TooLong,
}

impl Malformed {
    /// The status that tells an application that looks at the descriptor.
    #[must_use]
    pub fn status(self) -> DescriptorStatus {
        match self {
            Self::TooLong => DescriptorStatus::LENGTH_ERROR,
            _ => DescriptorStatus::FORMAT_ERROR,
        }
    }
}

/// Checks a descriptor's form. `segments` are as many as its control segment says, or none if it says too many.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn check(
    control: &ControlSegment,
    segments: impl Iterator<Item = Segment>,
    queue: Queue,
    max_segments: u16,
) -> Result<(), Malformed> {
    if control.control & Control::RESERVED_MASK != 0 {
        return Err(Malformed::ReservedControl);
    }
    let rdma = match (Operation(control.control & Control::OPERATION_MASK), queue) {
        (Operation::SEND_RECEIVE, _) => false,
        (Operation::RDMA_WRITE | Operation::RDMA_READ, Queue::Send) => true,
        _ => return Err(Malformed::Operation),
    };
    if control.segment_count > max_segments {
        return Err(Malformed::TooManySegments);
    }
    if rdma && control.segment_count == 0 {
        return Err(Malformed::NoAddressSegment);
    }
    let total: u64 = segments.skip(usize::from(rdma)).map(|segment| u64::from(segment.length)).sum();
    if total > u64::from(u32::MAX) { Err(Malformed::TooLong) } else { Ok(()) }
}

/// What becomes of a descriptor's link field, which is VIPL's while it is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkField {
    /// It says nothing.
    Free,
    /// It says whose the descriptor is, to VIPL itself.
    Kept,
}

/// A descriptor in the application's memory, as the application and C know it: an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawDescriptor(NonNull<ControlSegment>);

// SAFETY: an address; what may be done with it by whom is the promise of `RawDescriptor::new`.
unsafe impl Send for RawDescriptor {}
// SAFETY: as above.
unsafe impl Sync for RawDescriptor {}

impl RawDescriptor {
    /// The descriptor at `address`.
    ///
    /// # Safety
    /// If `address` is aligned, there is a descriptor with all the segments that it says it has, and it stays there,
    /// VIPL's and the card's to read and write, until it is dequeued or its VI destroyed, or at once if the post fails.
    pub(crate) unsafe fn new(address: *mut ControlSegment) -> Result<Self, Malformed> {
        let address = NonNull::new(address).ok_or(Malformed::Null)?;
        if !(address.addr().get() as u64).is_multiple_of(ALIGNMENT) {
            return Err(Malformed::Misaligned);
        }
        Ok(Self(address))
    }

    /// The descriptor at `address`, which is aligned.
    ///
    /// # Safety
    /// As [`new`](Self::new).
    #[inline]
    pub(crate) unsafe fn aligned(address: NonNull<ControlSegment>) -> Self {
        debug_assert!((address.addr().get() as u64).is_multiple_of(ALIGNMENT));
        Self(address)
    }

    /// The descriptor that [`as_ptr`](Self::as_ptr) gave.
    ///
    /// # Safety
    /// `address` came from `as_ptr`, and the promise to `new` holds still.
    #[inline]
    pub(crate) unsafe fn from_ptr(address: *mut ControlSegment) -> Option<Self> {
        NonNull::new(address).map(Self)
    }

    #[inline]
    pub(crate) fn as_non_null(self) -> NonNull<ControlSegment> {
        self.0
    }

    #[inline]
    pub(crate) fn as_ptr(self) -> *mut ControlSegment {
        self.0.as_ptr()
    }

    #[inline]
    pub(crate) fn address(self) -> u64 {
        self.0.addr().get() as u64
    }

    #[inline]
    fn control(self) -> ControlSegment {
        // SAFETY: a descriptor begins with its control segment, and it is ours (see `new`).
        unsafe { ptr::read(self.0.as_ptr()) }
    }

    /// Segment `index`, which the control segment must cover.
    #[inline]
    fn segment(self, index: u16) -> Segment {
        // SAFETY: as many segments as the control segment says follow it (see `new`).
        unsafe { ptr::read(self.0.add(1).cast::<Segment>().add(usize::from(index)).as_ptr()) }
    }

    /// Checks the descriptor and gives the token to post. One that is malformed is told so in its status.
    #[inline(always)]
    pub(crate) fn token(
        self,
        vi: u16,
        queue: Queue,
        handle: u32,
        max_segments: u16,
    ) -> Result<Token, Malformed> {
        let control = self.control();
        let flags = if queue == Queue::Receive { TOKEN_RECEIVE } else { 0 };
        // What most descriptors are needs no closer look.
        let plain = control.control & !Control::IMMEDIATE.bits() == Operation::SEND_RECEIVE.0
            && control.segment_count <= 1;
        if !plain {
            self.check(&control, queue, max_segments)?;
        }
        if control.segment_count > INLINE_SEGMENTS {
            let body = IndirectBody { descriptor_handle: handle, ..Default::default() };
            return Ok(Token::new(TokenKind::INDIRECT_DESCRIPTOR, vi, flags, self.address(), body));
        }
        let segment =
            |index| if index < control.segment_count { self.segment(index) } else { Segment::default() };
        let body = InlineBody {
            descriptor_handle: handle,
            control: control.control,
            segment_count: control.segment_count,
            immediate: control.immediate,
            length: control.length,
            segments: [segment(0), segment(1)],
        };
        Ok(Token::new(TokenKind::INLINE_DESCRIPTOR, vi, flags, self.address(), body))
    }

    /// As [`check`], and tells the application that looks at the descriptor.
    #[cold]
    fn check(self, control: &ControlSegment, queue: Queue, max_segments: u16) -> Result<(), Malformed> {
        let readable = if control.segment_count <= max_segments { control.segment_count } else { 0 };
        let segments = (0..readable).map(|index| self.segment(index));
        check(control, segments, queue, max_segments).inspect_err(|malformed| {
            self.finish(malformed.status() | DescriptorStatus::DONE);
        })
    }

    /// Makes it ready for being posted: the link and the status are VIPL's until it is dequeued.
    #[inline(always)]
    pub(crate) fn clear(self, link: LinkField) {
        let control = self.0.as_ptr();
        if link == LinkField::Free {
            // SAFETY: the control segment is ours (see `new`).
            unsafe {
                (&raw mut (*control).next).write(0);
                (&raw mut (*control).next_handle).write(0);
            }
        }
        self.completion().store(self.length_and(DescriptorStatus::empty()), Ordering::Relaxed);
    }

    /// Length and status: one aligned word, which the card writes as one.
    #[inline]
    fn completion(self) -> &'static AtomicU64 {
        const { assert!(std::mem::offset_of!(ControlSegment, length) as u64 == COMPLETION_OFFSET) };
        // SAFETY: aligned, and ours until the descriptor is dequeued (see `new`); no caller keeps the reference.
        unsafe { AtomicU64::from_ptr((&raw mut (*self.0.as_ptr()).length).cast()) }
    }

    /// The completion word with its length as it is and another status.
    #[inline]
    fn length_and(self, status: DescriptorStatus) -> u64 {
        let [length, _status]: [u32; 2] = zerocopy::transmute!(self.completion().load(Ordering::Relaxed));
        zerocopy::transmute!([length, status.bits()])
    }

    /// The status, if the card has completed the descriptor: everything else that it wrote is then visible.
    #[inline]
    pub(crate) fn completed(self) -> Option<DescriptorStatus> {
        let [_length, status]: [u32; 2] = zerocopy::transmute!(self.completion().load(Ordering::Acquire));
        let status = DescriptorStatus::from_bits_retain(status);
        status.contains(DescriptorStatus::DONE).then_some(status)
    }

    /// Completes the descriptor in the card's place.
    pub(crate) fn finish(self, status: DescriptorStatus) {
        self.completion().store(self.length_and(status), Ordering::Release);
    }
}

/// Whether a status says that the operation failed.
#[inline]
#[must_use]
pub(crate) fn failed(status: DescriptorStatus) -> bool {
    status.bits() & DescriptorStatus::ERROR_MASK != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vianic_abi::MAX_SEGMENTS;

    use super::*;

    /// What VIA says, rule by rule.
    fn is_well_formed(control: &ControlSegment, lengths: &[u32], queue: Queue) -> bool {
        let operation = control.control & 3;
        let rdma = operation == 1 || operation == 2;
        let data = lengths.get(usize::from(rdma)..).unwrap_or_default();
        control.control & 0xfff0 == 0
            && operation != 3
            && !(rdma && queue == Queue::Receive)
            && control.segment_count <= 252
            && !(rdma && control.segment_count == 0)
            && data.iter().map(|length| u64::from(*length)).sum::<u64>() <= 0xffff_ffff
    }

    fn any_queue() -> impl Strategy<Value = Queue> {
        prop_oneof![Just(Queue::Send), Just(Queue::Receive)]
    }

    /// Mostly sensible, so that every rule decides something.
    fn any_control() -> impl Strategy<Value = ControlSegment> {
        let control = prop_oneof![4 => 0u16..16, 1 => any::<u16>()];
        let count = prop_oneof![4 => 0u16..4, 1 => 250u16..256, 1 => any::<u16>()];
        (control, count, any::<[u32; 4]>()).prop_map(
            |(control, segment_count, [reserved, immediate, length, status])| ControlSegment {
                control,
                segment_count,
                reserved,
                immediate,
                length,
                status,
                ..Default::default()
            },
        )
    }

    proptest! {
        #[test]
        fn exactly_the_well_formed_pass(
            control in any_control(),
            queue in any_queue(),
            lengths in prop::collection::vec(prop_oneof![0u32..4096, any::<u32>()], 256),
        ) {
            let lengths = &lengths[..usize::from(control.segment_count).min(256)];
            let segments = lengths.iter().map(|length| Segment { length: *length, ..Default::default() });
            let checked = check(&control, segments, queue, MAX_SEGMENTS);
            prop_assert_eq!(checked.is_ok(), is_well_formed(&control, lengths, queue), "{:?}", checked);
        }

        #[test]
        fn a_token_is_what_the_descriptor_says(
            control in any_control(),
            queue in any_queue(),
            segments in any::<[(u64, u32, u16); 3]>(),
        ) {
            #[repr(C, align(64))]
            struct Memory(ControlSegment, [Segment; 255]);
            let count = control.segment_count.min(255);
            let control = ControlSegment { segment_count: count, ..control };
            let mut memory = Memory(control, [Segment::default(); 255]);
            for (place, (address, handle, length)) in memory.1.iter_mut().zip(segments) {
                *place = Segment { address, handle, length: length.into() };
            }
            // SAFETY: the memory has room for 255 segments and is nobody else's.
            let raw = unsafe { RawDescriptor::new((&raw mut memory).cast()) }.unwrap();
            match raw.token(9, queue, 77, MAX_SEGMENTS).inspect(|_| raw.clear(LinkField::Free)) {
                Err(malformed) => {
                    let told = malformed.status() | DescriptorStatus::DONE;
                    prop_assert_eq!(memory.0, ControlSegment { status: told.bits(), ..control });
                }
                Ok(token) => {
                    prop_assert_eq!(memory.0, ControlSegment { status: 0, ..control });
                    prop_assert_eq!((token.vi, token.descriptor), (9, (&raw const memory).addr() as u64));
                    prop_assert_eq!(token.flags == TOKEN_RECEIVE, queue == Queue::Receive);
                    if count > 2 {
                        prop_assert_eq!(token.kind, TokenKind::INDIRECT_DESCRIPTOR.0);
                        prop_assert_eq!(token.body::<IndirectBody>().descriptor_handle, 77);
                    } else {
                        let body: InlineBody = token.body();
                        prop_assert_eq!(token.kind, TokenKind::INLINE_DESCRIPTOR.0);
                        prop_assert_eq!(
                            (body.descriptor_handle, body.control, body.segment_count, body.immediate, body.length),
                            (77, control.control, count, control.immediate, control.length)
                        );
                        let used = usize::from(count);
                        prop_assert_eq!(&body.segments[..used], &memory.1[..used]);
                        prop_assert!(body.segments[used..].iter().all(|unused| *unused == Segment::default()));
                    }
                }
            }
        }
    }
}
