//! Tests of the library against a card that the test drives step by step.
#![expect(unsafe_code, reason = "descriptors and C's functions")]

pub(crate) mod card;
mod completion_queues;
mod connections;
mod errors;
mod handles;
mod notifications;
mod owned;
mod peers;
mod posting;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use vianic_abi::descriptor::{ControlSegment, DescriptorStatus, Segment};

use crate::cq::CqId;
use crate::descriptor::{LinkField, Queue, RawDescriptor};
use crate::error::Result;
use crate::nic::NicId;
use crate::settings::Settings;
use crate::tests::card::{Card, Layout};
use crate::vi::{ReliabilityLevel, ViAttributes, ViId};
use crate::work_queue::Poll;

/// Far beyond what any step takes: a test that reaches it has failed.
pub(crate) const LIMIT: Option<Duration> = Some(Duration::from_secs(30));

/// A memory handle; the card of these tests does not look at it.
const HANDLE: u32 = 0x10_0001;

const ATTRIBUTES: ViAttributes = ViAttributes {
    reliability: ReliabilityLevel::RELIABLE_DELIVERY,
    max_transfer_size: 4096,
    tag: None,
    rdma_write: false,
    rdma_read: false,
};

/// A NIC handle on a new card. Waits sleep at once, so that what is tested does not depend on time.
pub(crate) fn open() -> (NicId, Arc<Card>) {
    open_with(Layout::default(), Settings { spin: Duration::ZERO, strict: false })
}

pub(crate) fn open_with(layout: Layout, settings: Settings) -> (NicId, Arc<Card>) {
    let card = Card::new(layout);
    let nic = NicId::open_agent("card of a test", Arc::clone(&card) as _, settings).unwrap();
    (nic, card)
}

/// A connected VI.
pub(crate) fn connected(nic: NicId, card: &Card, send: Option<CqId>, receive: Option<CqId>) -> (ViId, u16) {
    let vi = ViId::create(&nic.context().unwrap(), &ATTRIBUTES, send, receive).unwrap();
    card.answer_connect(Ok(()));
    connect(vi).unwrap();
    (vi, vi.object().unwrap().number)
}

fn connect(vi: ViId) -> Result<ViAttributes> {
    let address = crate::net_address(None, b"there").unwrap();
    vi.connect_request(&address, &address, LIMIT)
}

/// A descriptor with room for four segments, in memory of its own.
#[repr(C, align(64))]
pub(crate) struct TestDescriptor {
    control: ControlSegment,
    segments: [Segment; 4],
}

impl TestDescriptor {
    pub(crate) fn new(segments: u16) -> Box<Self> {
        Box::new(Self {
            control: ControlSegment { segment_count: segments, ..Default::default() },
            segments: [Segment { address: 0x1000, handle: HANDLE, length: 8 }; 4],
        })
    }

    pub(crate) fn many(count: usize) -> Vec<Self> {
        std::iter::repeat_with(|| *Self::new(1)).take(count).collect()
    }

    pub(crate) fn pointer(&mut self) -> *mut ControlSegment {
        std::ptr::from_mut(self).cast()
    }
}

fn post(vi: ViId, queue: Queue, descriptor: &mut TestDescriptor) -> Result<()> {
    // SAFETY: the test keeps the descriptor for as long as it is posted.
    let raw = unsafe { RawDescriptor::new(descriptor.pointer())? };
    Ok(vi.post(queue, raw, (HANDLE, LinkField::Free))?)
}

/// Dequeues a descriptor that must be complete.
fn take(vi: ViId, queue: Queue) -> (*mut ControlSegment, DescriptorStatus) {
    match vi.done(queue).unwrap() {
        Poll::Done(completion) => (completion.descriptor.as_ptr(), completion.status),
        other => panic!("no completed descriptor: {other:?}"),
    }
}

pub(crate) const DONE: DescriptorStatus = DescriptorStatus::DONE;
const FLUSHED: DescriptorStatus = DescriptorStatus::DONE.union(DescriptorStatus::FLUSHED_ERROR);
