//! A memory table that loses a module of memory under traffic, as when memory is unplugged: who uses it gets an error, others
//! notice nothing, and the card does not touch it again.

use crate::harness::{
    Buffer, DELIVERY, Descriptor, Fabric, MODULE, MODULE_SIZE, NONE, OK_RECEIVE, PTAG, Process, Queues, pair,
};
use vianic_abi::command::{MrtChunk, Opcode};
use vianic_abi::descriptor::DescriptorStatus;
use vianic_abi::event::EventKind;
use vianic_abi::nic_memory::Counters;
use vianic_abi::status::{ErrorCode, Status};

/// The bytes of a message that takes several turns.
const SIZE: u32 = 1 << 20;
/// The bytes of one that is beside it.
const BESIDE: u32 = 200_000;

/// A pair of connected processes beside those of [`pair`].
struct Bystanders {
    processes: [Process; 2],
    buffers: [Buffer; 2],
}

impl Bystanders {
    fn new(fabric: &mut Fabric) -> Self {
        let processes = [fabric.open(0, 2), fabric.open(1, 2)];
        for process in &processes {
            fabric.create_vi(process, 0, DELIVERY, NONE);
        }
        fabric.connect((&processes[0], 0), (&processes[1], 0));
        let buffers = [0, 1].map(|port| fabric.guests[port].register(2, PTAG, 0, BESIDE));
        Self { processes, buffers }
    }

    /// Posts a message from a card to the other one; its two descriptors.
    fn post(&self, fabric: &mut Fabric, from: usize) -> [Descriptor; 2] {
        let [sender, receiver] = [&self.processes[from], &self.processes[1 - from]];
        let [source, target] = [self.buffers[from], self.buffers[1 - from]];
        fabric.guests[from].fill(&source, 3);
        fabric.guests[1 - from].fill(&target, 4);
        message(fabric, (sender, source), (receiver, target))
    }

    fn check(&self, fabric: &Fabric, from: usize, [send, receive]: &[Descriptor; 2]) {
        assert_eq!(fabric.status(from, send).0, DescriptorStatus::DONE);
        assert_eq!(fabric.status(1 - from, receive).0, OK_RECEIVE);
        assert!(fabric.guests[1 - from].holds(&self.buffers[1 - from], BESIDE, 3));
    }
}

fn message(
    fabric: &mut Fabric,
    (sender, source): (&Process, Buffer),
    (receiver, target): (&Process, Buffer),
) -> [Descriptor; 2] {
    let receive = fabric.guests[receiver.port].descriptor(receiver.context, vec![target.segment()]);
    let send = fabric.guests[sender.port].descriptor(sender.context, vec![source.segment()]);
    fabric.post_descriptor(receiver, 0, true, &receive);
    fabric.post_descriptor(sender, 0, false, &send);
    [send, receive]
}

/// Takes the module from guest 0.
fn unplug(fabric: &mut Fabric) {
    let memory = fabric.guests[0].without_module();
    fabric.switch.running(0).expect("running").remap(&memory);
}

/// What is in the module, also when the guest no longer has it.
fn module(fabric: &Fabric) -> Vec<u8> {
    let mut bytes = vec![0; MODULE_SIZE];
    fabric.guests[0].memory.read_bytes(MODULE, &mut bytes).expect("kept by the test");
    bytes
}

fn counters(fabric: &Fabric) -> Counters {
    fabric.guests[0].nic_memory.counters()
}

/// A descriptor of context 1 in guest 0's module.
fn descriptor(fabric: &Fabric, data: &Buffer) -> Descriptor {
    let Buffer { address, physical, handle, .. } = fabric.guests[0].register_at(1, PTAG, MODULE, 64);
    let elsewhere = fabric.guests[0].descriptor(1, vec![data.segment()]);
    Descriptor { address, physical, handle, ..elsewhere }
}

/// Moves the page table of a region to the module.
fn move_page_table(fabric: &Fabric, buffer: &Buffer) {
    let guest = &fabric.guests[0];
    let mut entry = guest.mrt_entry(buffer);
    let leaf: u64 = guest.memory.read(entry.page_directory).expect("in RAM");
    let pages: [u64; 512] = guest.memory.read(leaf).expect("in RAM");
    entry.page_directory = MODULE;
    guest.memory.write(MODULE, &(MODULE + 4096)).expect("in the module");
    guest.memory.write(MODULE + 4096, &pages).expect("in the module");
    guest.write_mrt(vianic_abi::mrt::handle_index(buffer.handle), &entry);
}

/// Fault 47: what a message needs of memory that is unplugged while it is under way, and how its two descriptors end.
#[test]
fn fault_47_a_message_in_unplugged_memory_breaks_its_own_connection() {
    const DONE: DescriptorStatus = DescriptorStatus::DONE;
    /// Whether it is the sender whose memory is unplugged, and whether it is his page table; how send and receive end.
    type Case = (&'static str, bool, bool, [DescriptorStatus; 2]);
    let flushed = OK_RECEIVE.union(DescriptorStatus::FLUSHED_ERROR);
    let cases: [Case; 3] = [
        ("what is sent", true, false, [DONE.union(DescriptorStatus::PROTECTION_ERROR), flushed]),
        ("its page table", true, true, [DONE.union(DescriptorStatus::PROTECTION_ERROR), flushed]),
        (
            "where it is received",
            false,
            false,
            [
                DONE.union(DescriptorStatus::TRANSPORT_ERROR),
                OK_RECEIVE.union(DescriptorStatus::PROTECTION_ERROR),
            ],
        ),
    ];
    for (what, sends, page_table, expected) in cases {
        let (mut fabric, a, b) = pair(DELIVERY);
        let bystanders = Bystanders::new(&mut fabric);
        let far = fabric.guests[1].register(1, PTAG, 0, SIZE);
        let near = if page_table {
            let near = fabric.guests[0].register(1, PTAG, 0, SIZE);
            move_page_table(&fabric, &near);
            near
        } else {
            fabric.guests[0].register_at(1, PTAG, MODULE, SIZE)
        };
        let [send, receive] = if sends {
            message(&mut fabric, (&a, near), (&b, far))
        } else {
            message(&mut fabric, (&b, far), (&a, near))
        };
        let beside = bystanders.post(&mut fabric, 0);
        assert!(fabric.step());
        let (sender, receiver) = if sends { (0, 1) } else { (1, 0) };
        assert_eq!(fabric.status(sender, &send).0, DescriptorStatus::empty(), "{what}: in the middle");
        let before = module(&fabric);
        unplug(&mut fabric);
        fabric.run();
        assert_eq!([fabric.status(sender, &send).0, fabric.status(receiver, &receive).0], expected, "{what}");
        assert!(module(&fabric) == before, "{what}: memory is written to that the guest does not have");
        // Others, of the same guest too, notice nothing, and there is no end of it.
        bystanders.check(&fabric, 0, &beside);
        for from in [1, 0] {
            let later = bystanders.post(&mut fabric, from);
            fabric.run();
            bystanders.check(&fabric, from, &later);
        }
        for guest in &fabric.guests {
            assert!(guest.events.borrow().is_empty(), "{what}: no context has failed");
        }
        assert!(bystanders.processes.iter().all(|process| process.queues.reap().is_none()), "{what}");
        let counters = counters(&fabric);
        assert_eq!((counters.memory_added, counters.memory_removed), (0, MODULE_SIZE as u64));
    }
}

/// A descriptor that is unplugged cannot be completed: its program is told so.
#[test]
fn fault_47_a_descriptor_in_unplugged_memory_is_an_error_of_its_program() {
    let (mut fabric, a, b) = pair(DELIVERY);
    let bystanders = Bystanders::new(&mut fabric);
    let [source, target] = [0, 1].map(|port| fabric.guests[port].register(1, PTAG, 0, SIZE));
    let send = descriptor(&fabric, &source);
    let receive = fabric.guests[1].descriptor(1, vec![target.segment()]);
    fabric.post_descriptor(&b, 0, true, &receive);
    fabric.post_descriptor(&a, 0, false, &send);
    let beside = bystanders.post(&mut fabric, 1);
    assert!(fabric.step());
    let before = module(&fabric);
    unplug(&mut fabric);
    fabric.run();
    assert!(module(&fabric) == before, "the status is written to memory that the guest does not have");
    let (error, _) = a.queues.reap().expect("the program hears of it");
    assert_eq!(error.status, ErrorCode::COMP_PROT.0);
    bystanders.check(&fabric, 1, &beside);
    assert!(fabric.guests[0].events.borrow().is_empty(), "the context has not failed");
}

#[test]
fn fault_47_a_context_whose_queues_are_unplugged_fails_alone() {
    let (mut fabric, a, b) = pair(DELIVERY);
    let bystanders = Bystanders::new(&mut fabric);
    let queues = Queues::new(&fabric.guests[0].memory, MODULE, MODULE + 0x10_0000);
    let loser = fabric.open_with(0, 3, queues);
    fabric.create_vi(&loser, 0, DELIVERY, NONE);
    fabric.create_vi(&b, 1, DELIVERY, NONE);
    fabric.connect((&loser, 0), (&b, 1));
    let [source, target] = [0, 1].map(|port| fabric.guests[port].register(1, PTAG, 0, SIZE));
    let under_way = [message(&mut fabric, (&a, source), (&b, target)), bystanders.post(&mut fabric, 0)];
    assert!(fabric.step());
    unplug(&mut fabric);
    fabric.run();
    let failed: Vec<_> =
        fabric.guests[0].events.take().iter().map(|event| (event.kind, event.context)).collect();
    assert_eq!(failed, [(EventKind::CONTEXT_FAILED.0, 3)]);
    assert_eq!(counters(&fabric).contexts_broken, 1);
    for [send, receive] in &under_way {
        assert_eq!(fabric.status(0, send).0, DescriptorStatus::DONE);
        assert_eq!(fabric.status(1, receive).0, OK_RECEIVE);
    }
    // Its peer's program has another VI, which goes on.
    let (error, _) = b.queues.reap().expect("the peer hears of it");
    assert_eq!((error.status, error.vi), (ErrorCode::CONN_LOST.0, 1));
    assert_eq!(fabric.target(&loser, Opcode::DESTROY_CONTEXT, 0), Status::SUCCESS);
}

/// Without its MRT a card can serve nobody: its driver has broken it. The other cards go on.
#[test]
fn fault_47_a_card_whose_mrt_is_unplugged_fails_alone() {
    let (mut fabric, a, b) = pair(DELIVERY);
    let target = fabric.guests[0].register(1, PTAG, 0, SIZE);
    let receive = descriptor(&fabric, &target);
    fabric.post_descriptor(&a, 0, true, &receive);
    let chunk = MrtChunk { chunk: 1, address: MODULE + 0x10_0000, ..MrtChunk::default() };
    assert_eq!(fabric.command(0, Opcode::ADD_MRT_CHUNK, chunk), Status::SUCCESS);
    let before = module(&fabric);
    unplug(&mut fabric);
    fabric.run();
    let failed: Vec<_> = fabric.guests[0].events.take().iter().map(|event| event.context).collect();
    assert_eq!(failed, [0, 1], "all of them");
    assert!(module(&fabric) == before, "the receive is flushed to memory that the guest does not have");
    let (error, _) = b.queues.reap().expect("the peer hears of it");
    assert_eq!(error.status, ErrorCode::CONN_LOST.0);
    for vi in [1, 2] {
        fabric.create_vi(&b, vi, DELIVERY, NONE);
    }
    fabric.connect((&b, 1), (&b, 2));
}

#[test]
fn memory_that_is_plugged_in_is_as_good_as_any() {
    let (mut fabric, a, b) = pair(DELIVERY);
    unplug(&mut fabric);
    let whole = fabric.guests[0].memory.clone();
    fabric.switch.running(0).expect("running").remap(&whole);
    let source = fabric.guests[0].register_at(1, PTAG, MODULE + 100, SIZE);
    let target = fabric.guests[1].register(1, PTAG, 0, SIZE);
    fabric.guests[0].fill(&source, 7);
    let [send, receive] = message(&mut fabric, (&a, source), (&b, target));
    fabric.run();
    assert_eq!(fabric.status(0, &send).0, DescriptorStatus::DONE);
    assert_eq!(fabric.status(1, &receive).0, OK_RECEIVE);
    assert!(fabric.guests[1].holds(&target, SIZE, 7));
    let counters = counters(&fabric);
    let module = MODULE_SIZE as u64;
    assert_eq!((counters.memory_added, counters.memory_removed), (module, module));
}
