//! RDMA reads, and what starts before and after them.

use crate::harness::{
    Buffer, DELIVERY, Descriptor, Fabric, NONE, OK_RECEIVE, PTAG, Process, VIRTUAL, pair, pattern,
};
use proptest::prelude::*;
use vianic_abi::command::{Opcode, VI_RDMA_READ, VI_RDMA_WRITE};
use vianic_abi::completion::CompletionKind;
use vianic_abi::descriptor::{Control, DescriptorStatus, Operation, Segment};
use vianic_abi::mrt::{ACCESS_RDMA_READ, ACCESS_RDMA_WRITE};
use vianic_abi::status::{ErrorCode, ReliabilityLevel, Status};

const READ: DescriptorStatus = DescriptorStatus::DONE.union(DescriptorStatus::OP_RDMA_READ);
const RELIABLE: [ReliabilityLevel; 2] = [DELIVERY, ReliabilityLevel::RELIABLE_RECEPTION];

/// A descriptor of the first guest that reads from `source`, which is its peer's.
fn read(fabric: &Fabric, source: Segment, room: &[Segment]) -> Descriptor {
    let mut descriptor = fabric.guests[0].descriptor(1, [&[source], room].concat());
    descriptor.control = Operation::RDMA_READ.0;
    descriptor
}

/// Filled memory of the second guest that may be read, and room for it at the first guest.
fn buffers(fabric: &Fabric, size: u32) -> (Buffer, Buffer) {
    let source = Buffer { length: size, ..fabric.guests[1].register(1, PTAG, 1000, size.max(1)) };
    let room = Buffer { length: size, ..fabric.guests[0].register(1, PTAG, 3, size.max(1)) };
    fabric.guests[1].allow(&source, ACCESS_RDMA_READ);
    fabric.guests[1].fill(&source, 1);
    (source, room)
}

/// The asynchronous errors that a process has got.
fn errors(process: &Process) -> Vec<ErrorCode> {
    std::iter::from_fn(|| process.queues.reap())
        .filter(|(completion, _)| completion.kind == CompletionKind::ERROR.0)
        .map(|(completion, _)| ErrorCode(completion.status))
        .collect()
}

#[test]
fn bytes_are_read_and_no_receive_descriptor_is_taken() {
    for level in RELIABLE {
        let (mut fabric, a, b) = pair(level);
        for size in [0, 1, 7, 4096, 50_000, 131_073, 1 << 20] {
            let (source, room) = buffers(&fabric, size);
            let receive = fabric.guests[1].descriptor(1, vec![]);
            let mut read = read(&fabric, source.segment(), &[room.segment()]);
            // Means nothing for a read.
            read.control |= Control::IMMEDIATE.bits();
            fabric.post_descriptor(&b, 0, true, &receive);
            fabric.post_descriptor(&a, 0, false, &read);
            fabric.run();
            assert_eq!(fabric.status(0, &read), (READ, size), "{size}");
            assert!(fabric.guests[0].holds(&room, size, 1), "{size}");
            assert_eq!(fabric.status(1, &receive).0, DescriptorStatus::empty(), "{size}");
            assert_eq!(fabric.target(&b, Opcode::DISCONNECT, 0), Status::SUCCESS);
            fabric.run();
            assert_eq!(fabric.target(&a, Opcode::DISCONNECT, 0), Status::SUCCESS);
            fabric.connect((&a, 0), (&b, 0));
        }
        let read_bytes = fabric.guests[0].nic_memory.counters().bytes_received;
        assert_eq!(read_bytes, fabric.guests[1].nic_memory.counters().bytes_sent);
        assert_eq!(read_bytes, 1 + 7 + 4096 + 50_000 + 131_073 + (1 << 20));
    }
}

#[test]
fn bytes_are_scattered_over_the_segments() {
    let (mut fabric, a, _b) = pair(DELIVERY);
    let (source, room) = buffers(&fabric, 300_000);
    let mut at = 0;
    let segments: Vec<_> = [1, 0, 131_071, 5, 160_000, 8923]
        .map(|length| {
            let segment = Segment { address: room.address + at, length, ..room.segment() };
            at += u64::from(length);
            segment
        })
        .into();
    let read = read(&fabric, source.segment(), &segments);
    fabric.post_descriptor(&a, 0, false, &read);
    fabric.run();
    assert_eq!(fabric.status(0, &read), (READ, 300_000));
    assert!(fabric.guests[0].holds(&room, 300_000, 1));
}

#[test]
fn a_nic_reads_from_itself() {
    let mut fabric = Fabric::new(1);
    let process = fabric.open(0, 1);
    fabric.create_vi(&process, 0, DELIVERY, NONE);
    fabric.create_vi(&process, 1, DELIVERY, NONE);
    fabric.connect((&process, 0), (&process, 1));
    let source = fabric.guests[0].register(1, PTAG, 9, 200_000);
    let room = fabric.guests[0].register(1, PTAG, 0, 200_000);
    fabric.guests[0].allow(&source, ACCESS_RDMA_READ);
    fabric.guests[0].fill(&source, 7);
    let read = read(&fabric, source.segment(), &[room.segment()]);
    fabric.post_descriptor(&process, 0, false, &read);
    fabric.run();
    assert_eq!(fabric.status(0, &read), (READ, 200_000));
    assert!(fabric.guests[0].holds(&room, 200_000, 7));
}

/// Memory that the peer may not read, for reads of no bytes as well: nothing moves, both ends hear of it.
#[test]
fn fault_14_15_memory_that_is_not_the_peers_to_read() {
    type Spoil = fn(&Fabric, &mut Segment);
    let spoil: [(&str, Spoil); 7] = [
        ("without the enable bit", |fabric, source| {
            let plain = fabric.guests[1].register(1, PTAG, 0, source.length.max(1));
            (source.address, source.handle) = (plain.address, plain.handle);
        }),
        ("for writing only", |fabric, source| {
            let plain = fabric.guests[1].register(1, PTAG, 0, source.length.max(1));
            fabric.guests[1].allow(&plain, ACCESS_RDMA_WRITE);
            (source.address, source.handle) = (plain.address, plain.handle);
        }),
        ("beyond the end", |_, source| source.address += 2),
        ("below the start", |_, source| source.address -= 1),
        ("never registered", |_, source| source.handle += 100),
        ("address wraps", |_, source| source.address = u64::MAX - 2),
        ("another tag", |fabric, source| {
            let other = fabric.guests[1].register(1, PTAG + 1, 0, source.length.max(1));
            fabric.guests[1].allow(&other, ACCESS_RDMA_READ);
            (source.address, source.handle) = (other.address, other.handle);
        }),
    ];
    for level in RELIABLE {
        for (what, spoil) in spoil {
            for size in [200_000, 0] {
                let (mut fabric, a, b) = pair(level);
                let (source, room) = buffers(&fabric, size);
                let mut source = source.segment();
                spoil(&fabric, &mut source);
                let read = read(&fabric, source, &[room.segment()]);
                let behind = fabric.guests[0].descriptor(1, vec![]);
                fabric.post_descriptor(&a, 0, false, &read);
                fabric.post_descriptor(&a, 0, false, &behind);
                fabric.run();
                let expected = READ | DescriptorStatus::RDMA_PROTECTION_ERROR;
                assert_eq!(fabric.status(0, &read).0, expected, "{what}, {size} bytes");
                assert!(fabric.status(0, &behind).0.contains(DescriptorStatus::FLUSHED_ERROR), "{what}");
                assert_eq!(errors(&b), [ErrorCode::RDMAR_PROT, ErrorCode::CONN_LOST], "{what}, {size} bytes");
                assert_eq!(errors(&a), [ErrorCode::CONN_LOST], "{what}, {size} bytes");
                assert!(is_blank(&fabric, &room), "{what}: something was read");
            }
        }
    }
}

fn is_blank(fabric: &Fabric, room: &Buffer) -> bool {
    (0..u64::from(room.length)).all(|i| fabric.guests[0].memory.read::<u8>(room.physical + i) == Ok(0))
}

#[test]
fn fault_15_a_vi_that_does_not_allow_rdma_reads() {
    for size in [10, 0] {
        let mut fabric = Fabric::new(2);
        let (a, b) = (fabric.open(0, 1), fabric.open(1, 1));
        // What the reader's own VI allows does not matter.
        for (process, flags) in [(&a, VI_RDMA_READ), (&b, VI_RDMA_WRITE)] {
            assert_eq!(fabric.try_create_vi(process, 0, DELIVERY, NONE, flags), Status::SUCCESS);
        }
        fabric.connect((&a, 0), (&b, 0));
        let (source, room) = buffers(&fabric, size);
        let read = read(&fabric, source.segment(), &[room.segment()]);
        fabric.post_descriptor(&a, 0, false, &read);
        fabric.run();
        assert_eq!(fabric.status(0, &read).0, READ | DescriptorStatus::RDMA_PROTECTION_ERROR);
        assert_eq!(errors(&b), [ErrorCode::RDMAR_PROT, ErrorCode::CONN_LOST]);
    }
}

#[test]
fn room_that_is_not_the_readers_to_fill_is_its_own_error() {
    for size in [200_000, 0] {
        let (mut fabric, a, b) = pair(DELIVERY);
        let (source, room) = buffers(&fabric, size);
        let alien = Segment { handle: room.handle + 100, length: 4, ..room.segment() };
        let length = size.saturating_sub(4);
        let read = read(&fabric, source.segment(), &[Segment { length, ..room.segment() }, alien]);
        fabric.post_descriptor(&a, 0, false, &read);
        fabric.run();
        assert_eq!(fabric.status(0, &read).0, READ | DescriptorStatus::PROTECTION_ERROR);
        assert!(is_blank(&fabric, &room), "nothing is read into the good part either");
        assert_eq!(errors(&b), [ErrorCode::CONN_LOST]);
        assert_eq!(errors(&a), [ErrorCode::CONN_LOST]);
    }
}

#[test]
fn an_unreliable_vi_does_not_read() {
    let mut fabric = Fabric::new(2);
    let (a, b) = (fabric.open(0, 1), fabric.open(1, 1));
    let level = ReliabilityLevel::UNRELIABLE;
    let refused = fabric.try_create_vi(&a, 0, level, NONE, VI_RDMA_READ);
    assert_eq!(refused, Status::INVALID_RDMAREAD);
    fabric.create_vi(&a, 0, level, NONE);
    fabric.create_vi(&b, 0, level, NONE);
    fabric.connect((&a, 0), (&b, 0));
    let (source, room) = buffers(&fabric, 100);
    let read = read(&fabric, source.segment(), &[room.segment()]);
    let send = fabric.guests[0].descriptor(1, vec![]);
    let receive = fabric.guests[1].descriptor(1, vec![]);
    fabric.post_descriptor(&b, 0, true, &receive);
    fabric.post_descriptor(&a, 0, false, &read);
    fabric.post_descriptor(&a, 0, false, &send);
    fabric.run();
    assert_eq!(fabric.status(0, &read).0, READ | DescriptorStatus::FORMAT_ERROR);
    assert_eq!(fabric.status(1, &receive).0, OK_RECEIVE, "the connection stands");
    assert!(errors(&b).is_empty());
}

#[test]
fn fault_12_a_read_longer_than_the_vi_allows() {
    let (mut fabric, a, _b) = pair(DELIVERY);
    let (source, room) = buffers(&fabric, 1 << 20);
    let more = Segment { length: 1, ..room.segment() };
    let read = read(&fabric, source.segment(), &[room.segment(), more]);
    fabric.post_descriptor(&a, 0, false, &read);
    fabric.run();
    assert_eq!(fabric.status(0, &read).0, READ | DescriptorStatus::LENGTH_ERROR);
}

/// The queue fence: what comes behind a read starts when the read is whole. This card keeps that order for every descriptor,
/// fence or not.
#[test]
fn nothing_overtakes_a_read() {
    let size = 600_000;
    for fence in [Control::QUEUE_FENCE.bits(), 0] {
        let (mut fabric, a, b) = pair(DELIVERY);
        let (source, room) = buffers(&fabric, size);
        fabric.guests[1].allow(&source, ACCESS_RDMA_READ | ACCESS_RDMA_WRITE);
        let news = fabric.guests[0].register(1, PTAG, 0, size);
        fabric.guests[0].fill(&news, 2);
        let again = fabric.guests[0].register(1, PTAG, 0, size);
        let receive = fabric.guests[1].descriptor(1, vec![]);
        fabric.post_descriptor(&b, 0, true, &receive);

        let first = read(&fabric, source.segment(), &[room.segment()]);
        let mut write = fabric.guests[0].descriptor(1, vec![source.segment(), news.segment()]);
        write.control = Operation::RDMA_WRITE.0;
        let mut second = read(&fabric, source.segment(), &[again.segment()]);
        let mut send = fabric.guests[0].descriptor(1, vec![]);
        for behind in [&mut write, &mut second, &mut send] {
            behind.control |= fence;
        }
        let posted = [&first, &write, &second, &send];
        for descriptor in posted {
            fabric.post_descriptor(&a, 0, false, descriptor);
        }
        loop {
            let more = fabric.step();
            let done = posted.map(|descriptor| !fabric.status(0, descriptor).0.is_empty());
            assert!(done.is_sorted_by(|before, after| before >= after), "{done:?}");
            let received = !fabric.status(1, &receive).0.is_empty();
            assert!(!received || done[2], "the send arrived before the reads were whole");
            if !more {
                break;
            }
        }
        assert_eq!(fabric.status(0, &send).0, DescriptorStatus::DONE);
        assert_eq!(fabric.status(1, &receive).0, OK_RECEIVE);
        assert!(fabric.guests[0].holds(&room, size, 1), "the first read saw the write behind it");
        assert!(fabric.guests[0].holds(&again, size, 2), "the second read did not see the write before it");
    }
}

#[test]
fn a_long_read_keeps_nobody_waiting() {
    let (mut fabric, a, b) = pair(DELIVERY);
    fabric.create_vi(&a, 1, DELIVERY, NONE);
    fabric.create_vi(&b, 1, DELIVERY, NONE);
    fabric.connect((&a, 1), (&b, 1));
    let (source, room) = buffers(&fabric, 1 << 20);
    let read = read(&fabric, source.segment(), &[room.segment()]);
    let receive = fabric.guests[1].descriptor(1, vec![]);
    let send = fabric.guests[0].descriptor(1, vec![]);
    fabric.post_descriptor(&b, 1, true, &receive);
    fabric.run();
    fabric.post_descriptor(&a, 0, false, &read);
    fabric.post_descriptor(&a, 1, false, &send);
    assert!(fabric.step());
    assert_eq!(fabric.status(0, &send).0, DescriptorStatus::DONE);
    assert_eq!(fabric.status(0, &read).0, DescriptorStatus::empty(), "in the middle");
    fabric.run();
    assert_eq!(fabric.status(0, &read), (READ, 1 << 20));
}

#[test]
fn fault_50_a_read_waits_for_a_paused_card_and_fails_with_one_that_is_gone() {
    let (mut fabric, a, _b) = pair(DELIVERY);
    let (source, room) = buffers(&fabric, 1 << 20);
    let first = read(&fabric, source.segment(), &[room.segment()]);
    fabric.post_descriptor(&a, 0, false, &first);
    assert!(fabric.step());
    fabric.switch.pause(1);
    fabric.run();
    assert_eq!(fabric.status(0, &first).0, DescriptorStatus::empty(), "it waits");
    fabric.switch.resume(1).expect("a paused card").look_at_all();
    fabric.run();
    assert_eq!(fabric.status(0, &first).0, READ);
    assert!(fabric.guests[0].holds(&room, 1 << 20, 1));

    let second = read(&fabric, source.segment(), &[room.segment()]);
    fabric.post_descriptor(&a, 0, false, &second);
    assert!(fabric.step());
    fabric.switch.remove(1);
    fabric.run();
    assert_eq!(fabric.status(0, &second).0, READ | DescriptorStatus::FLUSHED_ERROR);
    assert_eq!(errors(&a), [ErrorCode::CONN_LOST]);
}

/// The region is deregistered while it is read.
#[test]
fn a_read_ends_when_its_source_does() {
    let (mut fabric, a, b) = pair(DELIVERY);
    let (source, room) = buffers(&fabric, 1 << 20);
    let read = read(&fabric, source.segment(), &[room.segment()]);
    fabric.post_descriptor(&a, 0, false, &read);
    assert!(fabric.step());
    assert_eq!(fabric.status(0, &read).0, DescriptorStatus::empty(), "in the middle");
    fabric.guests[1].deregister(&source);
    fabric.run();
    assert_eq!(fabric.status(0, &read).0, READ | DescriptorStatus::RDMA_PROTECTION_ERROR);
    assert_eq!(errors(&b), [ErrorCode::RDMAR_PROT, ErrorCode::CONN_LOST]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever RDMA is asked for, bytes move where both sides allow it, all of them or none.
    #[test]
    fn rdma_moves_what_is_allowed_and_nothing_else(
        operation in prop_oneof![Just(Operation::RDMA_READ), Just(Operation::RDMA_WRITE)],
        allowed in 0..4_u16,
        flags in 0..4_u16,
        start in 0..9000_u64,
        length in prop_oneof![Just(0_u32), 1..6000_u32],
    ) {
        const REGION: std::ops::Range<u64> = 2000..7000;
        const AROUND: u32 = 16_000;
        let mut fabric = Fabric::new(2);
        let (a, b) = (fabric.open(0, 1), fabric.open(1, 1));
        for process in [&a, &b] {
            prop_assert_eq!(fabric.try_create_vi(process, 0, DELIVERY, NONE, flags), Status::SUCCESS);
        }
        fabric.connect((&a, 0), (&b, 0));
        let around = fabric.guests[1].register(1, PTAG, 0, AROUND);
        fabric.guests[1].fill(&around, 1);
        let size = u32::try_from(REGION.end - REGION.start).expect("small");
        let region = fabric.guests[1].register_at(1, PTAG, around.physical + REGION.start, size);
        fabric.guests[1].allow(&region, allowed);
        let mine = fabric.guests[0].register(1, PTAG, 50, AROUND);
        fabric.guests[0].fill(&mine, 77);

        let remote = Segment { address: VIRTUAL + around.physical + start, ..region.segment() };
        let local = Segment { length, ..mine.segment() };
        let mut descriptor = fabric.guests[0].descriptor(1, vec![remote, local]);
        descriptor.control = operation.0;
        fabric.post_descriptor(&a, 0, false, &descriptor);
        fabric.run();

        let reads = operation == Operation::RDMA_READ;
        let (access, flag) =
            if reads { (ACCESS_RDMA_READ, VI_RDMA_READ) } else { (ACCESS_RDMA_WRITE, VI_RDMA_WRITE) };
        let end = start + u64::from(length);
        let may = allowed & access != 0 && flags & flag != 0 && REGION.start <= start && end <= REGION.end;
        let status = fabric.status(0, &descriptor).0;
        prop_assert_eq!(status.contains(DescriptorStatus::RDMA_PROTECTION_ERROR), !may, "{:?}", status);
        let byte = |guest: usize, address: u64| fabric.guests[guest].memory.read::<u8>(address).expect("in RAM");
        for i in 0..u64::from(AROUND) {
            let written = may && !reads && (start..end).contains(&i);
            let expected = if written { pattern(77, i - start) } else { pattern(1, i) };
            prop_assert_eq!(byte(1, around.physical + i), expected, "theirs at {}", i);
            let read = may && reads && i < u64::from(length);
            let expected = if read { pattern(1, start + i) } else { pattern(77, i) };
            prop_assert_eq!(byte(0, mine.physical + i), expected, "mine at {}", i);
        }
    }
}
