//! The interface for Rust: owned objects and descriptors.

use vianic_abi::token::InlineBody;

use super::*;
use crate::descriptor_pool::{DescriptorPool, Work};
use crate::error::Error;
use crate::memory::{MemoryAttributes, RegisteredBuffer, RemoteMemory};
use crate::nic::Nic;
use crate::tests::card::inline_segments;

fn open_owned() -> (Nic, Arc<Card>) {
    let card = Card::new(Layout::default());
    (Nic::with_agent("card of a test", Arc::clone(&card) as _).unwrap(), card)
}

#[test]
fn descriptors_are_handed_over_and_back() {
    let (nic, card) = open_owned();
    let tag = nic.create_tag().unwrap();
    let attributes = MemoryAttributes { tag: Some(tag.id()), ..Default::default() };
    let buffer = RegisteredBuffer::new(&nic, 10_000, &attributes).unwrap();
    let pool = DescriptorPool::new(&nic, 2, 2, Some(tag.id())).unwrap();
    let vi = nic.create_vi(&ATTRIBUTES, None, None).unwrap();
    card.answer_connect(Ok(()));
    connect(vi.id()).unwrap();
    let number = vi.object().unwrap().number;

    let mut descriptor = pool.take().unwrap();
    let segments = [buffer.segment(100, 64).unwrap(), buffer.segment(9_999, 1).unwrap()];
    descriptor.fill(&Work::Send { segments: &segments, immediate: Some(5) }).unwrap();
    vi.post_send(descriptor).unwrap();
    assert!(matches!(vi.done(Queue::Send).unwrap(), Poll::NotDone));
    let other = pool.take().unwrap();
    assert!(pool.take().is_none(), "two there are");
    drop(other);
    card.complete(number, Queue::Send, DONE);
    assert_eq!(inline_segments(&card.accepted()[0]), segments.map(|segment| segment.0));
    let Poll::Done(descriptor) = vi.done(Queue::Send).unwrap() else { panic!() };
    assert_eq!(descriptor.outcome(), Ok(65));
    assert_eq!(descriptor.immediate(), None, "none came");
    // As it is, once more; and what is still on a queue goes back with the VI.
    vi.post_send(descriptor).unwrap();
    drop(vi);
    assert!(pool.take().is_some());
    drop((buffer, pool, tag));
    assert_eq!(card.objects(), (0, 0, 0));
}

#[test]
fn a_descriptor_that_is_not_posted_comes_back_with_the_reason() {
    let (nic, card) = open_owned();
    let pool = DescriptorPool::new(&nic, 1, 1, None).unwrap();
    let vi = nic.create_vi(&ATTRIBUTES, None, None).unwrap();
    let mut descriptor = pool.take().unwrap();
    let two =
        Work::RdmaWrite { target: RemoteMemory { address: 0, handle: 0 }, segments: &[], immediate: None };
    descriptor.fill(&two).unwrap();
    let failure = vi.post_receive(descriptor).unwrap_err();
    assert!(matches!(failure.error, Error::Malformed(crate::Malformed::Operation)));
    card.fail();
    let failure = vi.post_send(failure.descriptor).unwrap_err();
    assert!(matches!(failure.error, Error::NicFailed));
    drop(failure);
    assert!(pool.take().is_some());
}

#[test]
fn segments_lie_in_their_buffer() {
    let (nic, _card) = open_owned();
    let buffer = RegisteredBuffer::new(&nic, 100, &MemoryAttributes::default()).unwrap();
    assert!(buffer.segment(0, 100).is_ok() && buffer.segment(100, 0).is_ok());
    assert!(buffer.segment(1, 100).is_err() && buffer.segment(usize::MAX, 2).is_err());
    buffer.write(3, b"abc");
    let mut copy = [0; 3];
    buffer.read(3, &mut copy);
    assert_eq!(&copy, b"abc");
    let pool = DescriptorPool::new(&nic, 1, 1, None).unwrap();
    let segments = [buffer.segment(0, 1).unwrap(); 2];
    let filled = pool.take().unwrap().fill(&Work::Receive { segments: &segments });
    assert!(matches!(filled, Err(Error::Malformed(crate::Malformed::TooManySegments))));
}

#[test]
fn registered_memory_is_known_by_start_and_handle() {
    let (nic, card) = open_owned();
    let id = nic.id();
    let memory = Box::new([0u8; 100]);
    let (address, attributes) =
        (memory.as_ptr().addr(), MemoryAttributes { rdma_write: true, ..Default::default() });
    // SAFETY: the card of these tests touches no registered memory.
    let register = |length| unsafe { id.register_memory(address, length, &attributes) };
    assert!(matches!(register(0), Err(Error::InvalidParameter(_))));
    assert!(matches!(register(usize::MAX), Err(Error::InvalidParameter(_))));
    let (first, second) = (register(100).unwrap(), register(100).unwrap());
    assert_ne!(first, second, "the same range twice has two handles");
    assert_eq!(id.query_memory(address + 99, first).unwrap(), attributes);
    assert!(id.query_memory(address + 100, first).is_err());
    assert!(matches!(id.deregister_memory(address + 1, first), Err(Error::InvalidParameter(_))));
    id.deregister_memory(address, first).unwrap();
    assert!(matches!(id.deregister_memory(address, first), Err(Error::InvalidParameter(_))));
    assert_eq!(card.objects().2, 1);
    let readable = MemoryAttributes { rdma_read: true, ..attributes };
    // SAFETY: as above.
    let third = unsafe { id.register_memory(address, 1, &readable) }.unwrap();
    assert_eq!(id.query_memory(address, third).unwrap(), readable);
}

#[test]
fn an_rdma_read_says_where_from_and_where_to() {
    let (nic, card) = open_owned();
    let buffer = RegisteredBuffer::new(&nic, 1000, &MemoryAttributes::default()).unwrap();
    let pool = DescriptorPool::new(&nic, 1, 2, None).unwrap();
    let vi = nic.create_vi(&ATTRIBUTES, None, None).unwrap();
    card.answer_connect(Ok(()));
    connect(vi.id()).unwrap();
    let mut descriptor = pool.take().unwrap();
    let room = buffer.segment(10, 64).unwrap();
    let source = RemoteMemory { address: 0x7000, handle: 0x30_0001 };
    descriptor.fill(&Work::RdmaRead { source, segments: &[room] }).unwrap();
    descriptor.set_fence();
    vi.post_send(descriptor).unwrap();
    card.complete(vi.object().unwrap().number, Queue::Send, DONE | DescriptorStatus::OP_RDMA_READ);
    let token = card.accepted()[0];
    let body: InlineBody = token.body();
    assert_eq!((body.control, body.segment_count, body.length), (2 | 8, 2, 64));
    let remote = Segment { address: source.address, handle: source.handle, length: 0 };
    assert_eq!(inline_segments(&token), [remote, room.0]);
    let Poll::Done(descriptor) = vi.done(Queue::Send).unwrap() else { panic!() };
    assert_eq!(descriptor.outcome(), Ok(64));
    assert!(descriptor.status().contains(DescriptorStatus::OP_RDMA_READ));
}
