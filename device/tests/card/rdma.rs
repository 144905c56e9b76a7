//! RDMA writes.

use crate::harness::{Buffer, DELIVERY, Descriptor, Fabric, NONE, OK_RECEIVE, PTAG, pair};
use vianic_abi::command::{Opcode, VI_RDMA_READ};
use vianic_abi::completion::CompletionKind;
use vianic_abi::descriptor::{Control, DescriptorStatus, Operation, Segment};
use vianic_abi::mrt::{ACCESS_RDMA_READ, ACCESS_RDMA_WRITE};
use vianic_abi::status::{ErrorCode, ReliabilityLevel, Status};

const WRITTEN: DescriptorStatus = DescriptorStatus::DONE.union(DescriptorStatus::OP_RDMA_WRITE);

/// A descriptor that writes `source` to `target`, which is the peer's.
fn write(fabric: &Fabric, source: &Buffer, target: &Buffer, immediate: Option<u32>) -> Descriptor {
    let mut descriptor = fabric.guests[0].descriptor(1, vec![target.segment(), source.segment()]);
    descriptor.control = Operation::RDMA_WRITE.0;
    if let Some(immediate) = immediate {
        descriptor.control |= Control::IMMEDIATE.bits();
        descriptor.immediate = immediate;
    }
    descriptor
}

fn buffers(fabric: &Fabric, size: u32) -> (Buffer, Buffer) {
    let source = Buffer { length: size, ..fabric.guests[0].register(1, PTAG, 3, size.max(1)) };
    let target = Buffer { length: size, ..fabric.guests[1].register(1, PTAG, 1000, size.max(1)) };
    fabric.guests[1].allow(&target, ACCESS_RDMA_WRITE);
    fabric.guests[0].fill(&source, 1);
    (source, target)
}

#[test]
fn bytes_are_written_and_no_receive_descriptor_is_taken() {
    let (mut fabric, a, b) = pair(DELIVERY);
    for size in [0, 1, 7, 4096, 50_000, 131_073, 1 << 20] {
        let (source, target) = buffers(&fabric, size);
        let receive = fabric.guests[1].descriptor(1, vec![]);
        let write = write(&fabric, &source, &target, None);
        fabric.post_descriptor(&b, 0, true, &receive);
        fabric.post_descriptor(&a, 0, false, &write);
        fabric.run();
        assert_eq!(fabric.status(0, &write), (WRITTEN, size), "{size}");
        assert!(fabric.guests[1].holds(&target, size, 1), "{size}");
        assert_eq!(fabric.status(1, &receive).0, DescriptorStatus::empty(), "{size}");
    }
}

#[test]
fn immediate_data_takes_a_receive_descriptor_in_order_with_sends() {
    let (mut fabric, a, b) = pair(DELIVERY);
    let (source, target) = buffers(&fabric, 300_000);
    let receives: Vec<_> = (0..3).map(|_| fabric.guests[1].descriptor(1, vec![])).collect();
    for receive in &receives {
        fabric.post_descriptor(&b, 0, true, receive);
    }
    let write = write(&fabric, &source, &target, Some(77));
    let sends = [fabric.guests[0].descriptor(1, vec![]), fabric.guests[0].descriptor(1, vec![])];
    for descriptor in [&sends[0], &write, &sends[1]] {
        fabric.post_descriptor(&a, 0, false, descriptor);
    }
    fabric.run();
    let by_write =
        DescriptorStatus::DONE | DescriptorStatus::OP_REMOTE_RDMA_WRITE | DescriptorStatus::IMMEDIATE;
    let statuses: Vec<_> = receives.iter().map(|receive| fabric.status(1, receive).0).collect();
    assert_eq!(statuses, [OK_RECEIVE, by_write, OK_RECEIVE]);
    assert_eq!(fabric.guests[1].memory.read::<u32>(receives[1].physical + 20), Ok(77));
    assert!(fabric.guests[1].holds(&target, 300_000, 1));
}

#[test]
fn immediate_data_without_a_receive_descriptor_breaks_the_connection_and_writes_nothing() {
    let (mut fabric, a, b) = pair(ReliabilityLevel::RELIABLE_RECEPTION);
    let (source, target) = buffers(&fabric, 100);
    let write = write(&fabric, &source, &target, Some(1));
    fabric.post_descriptor(&a, 0, false, &write);
    fabric.run();
    assert_eq!(fabric.status(0, &write).0, WRITTEN | DescriptorStatus::REMOTE_DESCRIPTOR_ERROR);
    assert!(!fabric.guests[1].holds(&target, 100, 1));
    let (error, _) = b.queues.reap().expect("an error");
    assert_eq!((error.kind, error.status), (CompletionKind::ERROR.0, ErrorCode::RECVQ_EMPTY.0));
}

/// Faults 14 and 15: memory that the peer may not write, for writes of no bytes as well.
#[test]
fn fault_14_15_memory_that_is_not_the_peers_to_write() {
    type Spoil = fn(&Fabric, &mut Buffer);
    let spoil: [(&str, Spoil); 6] = [
        ("without the enable bit", |fabric, target| fabric.guests[1].allow(target, ACCESS_RDMA_READ)),
        ("one byte too long", |_, target| target.length += 1),
        ("below the start", |_, target| target.address -= 1),
        ("never registered", |_, target| target.handle += 100),
        ("deregistered", |fabric, target| fabric.guests[1].deregister(target)),
        ("another tag", |fabric, target| {
            *target = fabric.guests[1].register(1, PTAG + 1, 0, target.length.max(1));
            fabric.guests[1].allow(target, ACCESS_RDMA_WRITE);
        }),
    ];
    for (what, spoil) in spoil {
        for size in [200_000, 0] {
            if size == 0 && what == "one byte too long" {
                continue;
            }
            let (mut fabric, a, b) = pair(DELIVERY);
            let (source, mut target) = buffers(&fabric, size);
            spoil(&fabric, &mut target);
            let source = if what == "one byte too long" {
                fabric.guests[0].register(1, PTAG, 0, size + 1)
            } else {
                source
            };
            let write = write(&fabric, &source, &Buffer { length: size, ..target }, None);
            fabric.post_descriptor(&a, 0, false, &write);
            fabric.run();
            let expected = WRITTEN | DescriptorStatus::RDMA_PROTECTION_ERROR;
            assert_eq!(fabric.status(0, &write).0, expected, "{what}, {size} bytes");
            let (error, _) = b.queues.reap().expect("an error");
            assert_eq!(error.status, ErrorCode::RDMAW_PROT.0, "{what}, {size} bytes");
            assert!(size == 0 || !fabric.guests[1].holds(&target, 1000, 1), "{what}: something was written");
        }
    }
}

/// Fault 15: the VI itself does not allow it; with immediate data the receive descriptor tells.
#[test]
fn fault_15_a_vi_that_does_not_allow_rdma_writes() {
    for immediate in [None, Some(5)] {
        let mut fabric = Fabric::new(2);
        let (a, b) = (fabric.open(0, 1), fabric.open(1, 1));
        for process in [&a, &b] {
            let created = fabric.try_create_vi(process, 0, DELIVERY, NONE, VI_RDMA_READ);
            assert_eq!(created, Status::SUCCESS);
        }
        fabric.connect((&a, 0), (&b, 0));
        let (source, target) = buffers(&fabric, 10);
        let receive = fabric.guests[1].descriptor(1, vec![]);
        fabric.post_descriptor(&b, 0, true, &receive);
        let write = write(&fabric, &source, &target, immediate);
        fabric.post_descriptor(&a, 0, false, &write);
        fabric.run();
        assert_eq!(fabric.status(0, &write).0, WRITTEN | DescriptorStatus::RDMA_PROTECTION_ERROR);
        let told = fabric.status(1, &receive).0.contains(DescriptorStatus::PROTECTION_ERROR);
        assert_eq!(told, immediate.is_some());
    }
}

#[test]
fn a_write_without_address_segment_is_malformed() {
    let (mut fabric, a, _b) = pair(DELIVERY);
    let mut write = fabric.guests[0].descriptor(1, Vec::<Segment>::new());
    write.control = Operation::RDMA_WRITE.0;
    fabric.post_descriptor(&a, 0, false, &write);
    fabric.run();
    assert!(fabric.status(0, &write).0.contains(DescriptorStatus::FORMAT_ERROR));
}

/// A part of a write came, and the rest never will: because the writer's memory is not all its own, or it has gone.
#[test]
fn a_write_that_ends_halfway_is_told_to_its_target() {
    for level in [DELIVERY, ReliabilityLevel::UNRELIABLE] {
        for disconnects in [false, true] {
            let (mut fabric, a, b) = pair(level);
            let (source, target) = buffers(&fabric, 600_000);
            let mut halfway = write(&fabric, &source, &target, None);
            if !disconnects {
                // The last slice cannot be read.
                let good = Segment { length: 500_000, ..source.segment() };
                let lost = Segment { handle: source.handle + 1000, length: 100_000, ..source.segment() };
                let three = fabric.guests[0].descriptor(1, vec![target.segment(), good, lost]);
                halfway = Descriptor { control: halfway.control, ..three };
            }
            fabric.post_descriptor(&a, 0, false, &halfway);
            if disconnects {
                assert!(fabric.step());
                assert_eq!(fabric.status(0, &halfway).0, DescriptorStatus::empty(), "in the middle");
                assert_eq!(fabric.target(&a, Opcode::DISCONNECT, 0), Status::SUCCESS);
            } else {
                // On an unreliable connection, where the next message shows that there will be no more.
                let next = write(&fabric, &Buffer { length: 8, ..source }, &target, None);
                fabric.post_descriptor(&a, 0, false, &next);
            }
            fabric.run();
            let codes: Vec<_> =
                std::iter::from_fn(|| b.queues.reap()).map(|(error, _)| ErrorCode(error.status)).collect();
            let lost = disconnects || level == DELIVERY;
            let expected = [ErrorCode::RDMAW_ABORT, ErrorCode::CONN_LOST];
            assert_eq!(codes, expected[..if lost { 2 } else { 1 }], "{level:?}, {disconnects}");
        }
    }
}
