//! Changing the attributes of VIs and of registered memory.

use crate::harness::{Buffer, DELIVERY, Descriptor, Fabric, NONE, OK_RECEIVE, PTAG, Process, pair};
use vianic_abi::command::{Opcode, SetVi, VI_RDMA_READ, VI_RDMA_WRITE, ViAttributes};
use vianic_abi::descriptor::{DescriptorStatus, Operation};
use vianic_abi::mrt::{ACCESS_RDMA_READ, ACCESS_RDMA_WRITE, DEFAULT_PTAG};
use vianic_abi::status::{ReliabilityLevel, Status};

const WRITTEN: DescriptorStatus = DescriptorStatus::DONE.union(DescriptorStatus::OP_RDMA_WRITE);
const OTHER_TAG: u32 = PTAG + 1;
const OPEN: ViAttributes = ViAttributes {
    reliability_level: DELIVERY.0,
    flags: VI_RDMA_WRITE | VI_RDMA_READ,
    max_transfer_size: 1 << 20,
};

fn set_vi(fabric: &mut Fabric, process: &Process, ptag: u32, attributes: ViAttributes) -> Status {
    let set = SetVi { context: process.context, vi: 0, ptag, attributes, ..SetVi::default() };
    fabric.command(process.port, Opcode::SET_VI, set)
}

/// Has guest 0 write 100 bytes to guest 1 by RDMA; how that ended.
fn write(fabric: &mut Fabric, a: &Process, target: &Buffer) -> DescriptorStatus {
    let source = fabric.guests[0].register(1, PTAG, 3, 100);
    let segments = vec![target.segment(), source.segment()];
    let descriptor =
        Descriptor { control: Operation::RDMA_WRITE.0, ..fabric.guests[0].descriptor(1, segments) };
    fabric.post_descriptor(a, 0, false, &descriptor);
    fabric.run();
    fabric.status(0, &descriptor).0
}

#[test]
fn a_region_goes_by_its_new_permissions_once_the_mdl_is_drained() {
    let (mut fabric, a, b) = pair(DELIVERY);
    let target = fabric.guests[1].register(1, PTAG, 0, 100);
    fabric.guests[1].change(&target, PTAG, ACCESS_RDMA_WRITE);
    assert_eq!(fabric.command(1, Opcode::DRAIN_MDL, [0_u64; 6]), Status::SUCCESS);
    assert_eq!(write(&mut fabric, &a, &target), WRITTEN);
    assert_eq!(write(&mut fabric, &a, &target), WRITTEN, "from the shadow MRT");
    fabric.guests[1].change(&target, PTAG, ACCESS_RDMA_READ);
    assert_eq!(fabric.command(1, Opcode::DRAIN_MDL, [0_u64; 6]), Status::SUCCESS);
    let refused = write(&mut fabric, &a, &target);
    assert!(refused.contains(DescriptorStatus::RDMA_PROTECTION_ERROR), "{refused:?}");
    assert!(b.queues.reap().is_some(), "the target is told");
}

#[test]
fn a_region_goes_by_its_new_tag() {
    let (mut fabric, a, b) = pair(DELIVERY);
    let source = fabric.guests[0].register(1, PTAG, 0, 100);
    for (tag, good) in [(PTAG, true), (DEFAULT_PTAG, true), (OTHER_TAG, false)] {
        fabric.guests[0].change(&source, tag, 0);
        assert_eq!(fabric.command(0, Opcode::DRAIN_MDL, [0_u64; 6]), Status::SUCCESS);
        let target = fabric.guests[1].register(1, PTAG, 0, 100);
        let receive = fabric.guests[1].descriptor(1, vec![target.segment()]);
        let send = fabric.guests[0].descriptor(1, vec![source.segment()]);
        fabric.post_descriptor(&b, 0, true, &receive);
        fabric.post_descriptor(&a, 0, false, &send);
        fabric.run();
        let status = fabric.status(0, &send).0;
        assert_eq!(!status.contains(DescriptorStatus::PROTECTION_ERROR), good, "{tag}: {status:?}");
    }
}

#[test]
fn only_an_idle_vi_takes_other_attributes() {
    let (mut fabric, a, _b) = pair(DELIVERY);
    assert_eq!(set_vi(&mut fabric, &a, PTAG, OPEN), Status::INVALID_STATE);
    assert_eq!(fabric.target(&a, Opcode::DISCONNECT, 0), Status::SUCCESS);
    assert_eq!(set_vi(&mut fabric, &a, PTAG, OPEN), Status::SUCCESS);
    let (waiting, _) = fabric.request(&a, 0, None, "nobody");
    assert_eq!(fabric.outcome(0, waiting), Some(Status::NO_MATCH));
    let (_, _) = fabric.listen(&a, "here");
    let (_, _) = fabric.request(&a, 0, None, "here");
    fabric.run();
    assert_eq!(set_vi(&mut fabric, &a, PTAG, OPEN), Status::INVALID_STATE, "a connection is being made");
    let set = SetVi { context: 1, vi: 7, ptag: PTAG, attributes: OPEN, ..SetVi::default() };
    assert_eq!(fabric.command(0, Opcode::SET_VI, set), Status::INVALID_PARAMETER, "no such VI");
}

#[test]
fn bad_attributes_leave_the_vi_as_it_was() {
    let mut fabric = Fabric::new(2);
    let (a, b) = (fabric.open(0, 1), fabric.open(1, 1));
    fabric.create_vi(&a, 0, DELIVERY, NONE);
    fabric.create_vi(&b, 0, DELIVERY, NONE);
    let unreliable = ReliabilityLevel::UNRELIABLE.0;
    let bad = [
        (ViAttributes { reliability_level: 0, ..OPEN }, Status::INVALID_RELIABILITY_LEVEL),
        (ViAttributes { reliability_level: 6, ..OPEN }, Status::INVALID_RELIABILITY_LEVEL),
        (ViAttributes { max_transfer_size: (1 << 20) + 1, ..OPEN }, Status::INVALID_MTU),
        (ViAttributes { reliability_level: unreliable, ..OPEN }, Status::INVALID_RDMAREAD),
        (ViAttributes { flags: 8, ..OPEN }, Status::INVALID_PARAMETER),
    ];
    for (attributes, status) in bad {
        assert_eq!(set_vi(&mut fabric, &a, OTHER_TAG, attributes), status, "{attributes:?}");
    }
    // It still has its level, its size and its tag.
    fabric.connect((&a, 0), (&b, 0));
    let target = fabric.guests[0].register(1, PTAG, 0, 100);
    let receive = fabric.guests[0].descriptor(1, vec![target.segment()]);
    let send = fabric.guests[1].descriptor(1, vec![]);
    fabric.post_descriptor(&a, 0, true, &receive);
    fabric.post_descriptor(&b, 0, false, &send);
    fabric.run();
    assert_eq!(fabric.status(0, &receive), (OK_RECEIVE, 0));
}

#[test]
fn a_vi_connects_with_its_new_attributes_and_receives_stay() {
    let mut fabric = Fabric::new(2);
    let (a, b) = (fabric.open(0, 1), fabric.open(1, 1));
    fabric.create_vi(&a, 0, DELIVERY, NONE);
    fabric.create_vi(&b, 0, ReliabilityLevel::RELIABLE_RECEPTION, NONE);
    let descriptor = fabric.guests[0].descriptor(1, vec![]);
    fabric.post_descriptor(&a, 0, true, &descriptor);
    let level = ReliabilityLevel::RELIABLE_RECEPTION.0;
    let attributes = ViAttributes { reliability_level: level, flags: 0, ..OPEN };
    assert_eq!(set_vi(&mut fabric, &a, PTAG, attributes), Status::SUCCESS);
    fabric.connect((&b, 0), (&a, 0));
    let send = fabric.guests[1].descriptor(1, vec![]);
    fabric.post_descriptor(&b, 0, false, &send);
    fabric.run();
    assert_eq!(fabric.status(0, &descriptor), (OK_RECEIVE, 0));
    let target = fabric.guests[0].register(1, PTAG, 0, 100);
    fabric.guests[0].allow(&target, ACCESS_RDMA_WRITE);
    let source = fabric.guests[1].register(1, PTAG, 0, 100);
    let segments = vec![target.segment(), source.segment()];
    let write = Descriptor { control: Operation::RDMA_WRITE.0, ..fabric.guests[1].descriptor(1, segments) };
    fabric.post_descriptor(&b, 0, false, &write);
    fabric.run();
    let status = fabric.status(1, &write).0;
    assert!(status.contains(DescriptorStatus::RDMA_PROTECTION_ERROR), "RDMA writes are off: {status:?}");
}
