//! Registered memory: the shadow MRT and the page cache, the MDL, and Kernel Agents that write nonsense.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::harness::{
    Buffer, DELIVERY, Descriptor, Fabric, Guest, NONE, OK_RECEIVE, PTAG, Process, RAM, pair,
};
use proptest::prelude::*;
use vianic_abi::command::Opcode;
use vianic_abi::descriptor::DescriptorStatus;
use vianic_abi::mdl::{Full, Insertion};
use vianic_abi::mrt::{MrtEntry, handle_index};
use vianic_abi::nic_memory::{Counters, MDL_ENTRIES, SHADOW_MRT_ENTRIES};
use vianic_abi::status::{ReliabilityLevel, Status};
use vianic_device::nic::hostility::Hostility;
use vianic_device::nic::pacing::Patience;
use vianic_device::shared::View;

const PAGE: u64 = 4096;

/// A card whose VIs 0 and 1 are connected with each other.
fn loopback() -> (Fabric, Process) {
    let mut fabric = Fabric::new(1);
    let process = fabric.open(0, 1);
    for vi in [0, 1] {
        fabric.create_vi(&process, vi, DELIVERY, NONE);
    }
    fabric.connect((&process, 0), (&process, 1));
    (fabric, process)
}

/// Posts a message from `source` to `target` of a [`loopback`] card; its two descriptors.
fn post(fabric: &mut Fabric, process: &Process, source: Buffer, target: Buffer) -> [Descriptor; 2] {
    let receive = fabric.guests[0].descriptor(1, vec![target.segment()]);
    let send = fabric.guests[0].descriptor(1, vec![source.segment()]);
    fabric.post_descriptor(process, 1, true, &receive);
    fabric.post_descriptor(process, 0, false, &send);
    [send, receive]
}

/// Whether a message from `source` to `target` arrives.
fn arrives(fabric: &mut Fabric, process: &Process, source: Buffer, target: Buffer, seed: u8) -> bool {
    fabric.guests[0].fill(&source, seed);
    let [send, receive] = post(fabric, process, source, target);
    fabric.run();
    fabric.status(0, &send).0 == DescriptorStatus::DONE
        && fabric.status(0, &receive).0 == OK_RECEIVE
        && fabric.guests[0].holds(&target, source.length, seed)
}

fn counted(fabric: &Fabric, of: impl Fn(&Counters) -> u64) -> u64 {
    of(&fabric.guests[0].nic_memory.counters())
}

#[test]
fn regions_that_share_a_slot_take_turns_in_it() {
    let (mut fabric, process) = loopback();
    let rights = (1, PTAG);
    let [source, target, other] = [2, 2, 2].map(|pages| fabric.guests[0].allocate(pages * 4096));
    let source = fabric.guests[0].register_as((100, 1), rights, source, 5000);
    let target = fabric.guests[0].register_as((100 + SHADOW_MRT_ENTRIES, 1), rights, target, 5000);
    let evictions = counted(&fabric, |counters| counters.shadow_evictions);
    for seed in 0..10 {
        assert!(arrives(&mut fabric, &process, source, target, seed));
    }
    assert_eq!(counted(&fabric, |counters| counters.shadow_evictions), evictions + 2 * 10 - 1);
    // Regions side by side leave each other alone.
    let other = fabric.guests[0].register_as((101, 1), rights, other, 5000);
    assert!(arrives(&mut fabric, &process, source, other, 11));
    let misses = counted(&fabric, |counters| counters.shadow_misses);
    let [send, receive] = post(&mut fabric, &process, source, other);
    fabric.run();
    assert_eq!((fabric.status(0, &send).1, fabric.status(0, &receive).1), (5000, 5000));
    // The descriptors' own.
    assert_eq!(counted(&fabric, |counters| counters.shadow_misses), misses + 2);
}

#[test]
fn page_tables_are_read_once() {
    let (mut fabric, process) = loopback();
    let [source, target] = [0, 0].map(|_| fabric.guests[0].register(1, PTAG, 100, 100 << 12));
    assert!(arrives(&mut fabric, &process, source, target, 1));
    // Eight pages at a time.
    let first = counted(&fabric, |counters| counters.page_table_reads);
    assert_eq!(first, 2 * 101_u64.div_ceil(8));
    assert!(arrives(&mut fabric, &process, source, target, 2));
    assert_eq!(counted(&fabric, |counters| counters.page_table_reads), first);
}

/// A handle comes round again after all generations of its index, for another region.
#[test]
fn a_handle_that_comes_round_again_means_the_new_region() {
    let (mut fabric, process) = loopback();
    let target = fabric.guests[0].register(1, PTAG, 0, 100 << 12);
    let memory = [0; 3].map(|_| fabric.guests[0].allocate(100 << 12));
    for (seed, physical) in (0..).zip(memory) {
        let source = fabric.guests[0].register_as((77, 4094), (1, PTAG), physical, 100 << 12);
        assert!(arrives(&mut fabric, &process, source, target, seed));
        fabric.guests[0].deregister(&source);
    }
}

/// While a message is under way, the card forgets and does not let go: what it has looked up for that message is in use.
#[test]
fn what_is_forgotten_in_mid_message_is_let_go_of_after_it() {
    let (mut fabric, process) = loopback();
    let [source, target, third] = [0; 3].map(|_| fabric.guests[0].register(1, PTAG, 0, 5000));
    assert!(arrives(&mut fabric, &process, third, target, 1));
    let [send, _] = post(&mut fabric, &process, source, target);
    // Accepts it.
    let turn = |fabric: &mut Fabric| {
        let card = fabric.switch.running(0).expect("running");
        card.turn(0, Patience::Full);
    };
    turn(&mut fabric);
    turn(&mut fabric);
    let insertion = fabric.guests[0].try_deregister(&third).expect("room");
    let drained = counted(&fabric, |counters| counters.mdl_drained_validation);
    assert!(fabric.switch.exchange());
    assert_eq!(fabric.status(0, &send).0, DescriptorStatus::DONE);
    assert_eq!(counted(&fabric, |counters| counters.mdl_drained_validation), drained + 1, "it is forgotten");
    assert!(!fabric.guests[0].has_let_go(insertion), "and not let go of");
    turn(&mut fabric);
    assert!(fabric.guests[0].has_let_go(insertion));
}

#[test]
fn a_full_mdl_is_drained_when_the_kernel_agent_asks() {
    let (mut fabric, _) = loopback();
    let region = fabric.guests[0].register(1, PTAG, 0, 10);
    let mut last = fabric.guests[0].try_deregister(&region).expect("room");
    for _ in 1..MDL_ENTRIES {
        last = fabric.guests[0].try_deregister(&region).expect("room for as many as there are entries");
    }
    assert_eq!(fabric.guests[0].try_deregister(&region), Err(Full));
    // The card has been asleep until now.
    assert!(!fabric.guests[0].has_let_go(last));
    assert_eq!(fabric.command(0, Opcode::DRAIN_MDL, [0_u64; 6]), Status::SUCCESS);
    assert!(fabric.guests[0].has_let_go(last));
    let counters = fabric.guests[0].nic_memory.counters();
    let all = u64::from(MDL_ENTRIES);
    assert_eq!((counters.mdl_high_water, counters.mdl_drained_full), (all, all));
    assert_eq!(counters.mdl_drained_command, 0);
}

/// What a Kernel Agent may write into its MRT and its page tables. The entry is that of a region of 20 pages.
type Corruption = fn(&Guest, &mut MrtEntry);

const CORRUPTIONS: [(&str, Corruption); 14] = [
    ("no bytes", |_, entry| entry.length = 0),
    ("a length that wraps", |_, entry| entry.length = u64::MAX),
    ("pages of a byte", |_, entry| entry.page_shift = 0),
    ("pages beyond the address space", |_, entry| entry.page_shift = 63),
    ("a page too few", |_, entry| entry.page_count -= 1),
    ("more pages in the entry than it has room for", |_, entry| entry.page_directory = 0),
    ("pages so large that few are enough", |_, entry| {
        (entry.page_shift, entry.page_count, entry.page_directory) = (30, 1, 0);
        entry.pages[0] = (RAM as u64).wrapping_sub(PAGE);
    }),
    ("a page directory beyond RAM", |_, entry| entry.page_directory = RAM as u64),
    ("a page directory at the end of the address space", |_, entry| entry.page_directory = u64::MAX - 7),
    ("a page directory that is not aligned", |_, entry| entry.page_directory += 1),
    // A loop: what should be leaves is the directory again, and the pages are leaves.
    ("a page directory that is its own leaf and its own page", |guest, entry| {
        guest.memory.write(entry.page_directory, &[entry.page_directory; 512]).expect("in RAM");
        entry.virtual_address += RAM as u64;
    }),
    ("a leaf beyond RAM", |guest, entry| {
        guest.memory.write(entry.page_directory, &(1_u64 << 40)).expect("in RAM");
    }),
    ("a leaf that is not aligned", |guest, entry| {
        let leaf: u64 = guest.memory.read(entry.page_directory).expect("in RAM");
        guest.memory.write(entry.page_directory, &(leaf + 8)).expect("in RAM");
    }),
    ("pages beyond RAM", |guest, entry| {
        let leaf: u64 = guest.memory.read(entry.page_directory).expect("in RAM");
        guest.memory.write(leaf, &[!0xfff_u64; 512]).expect("in RAM");
    }),
];

/// Fault 43: the VI that uses such a region gets an error, and nobody else notices.
#[test]
fn fault_43_nonsense_in_the_mrt_is_an_error_of_who_uses_it() {
    for (what, corrupt) in CORRUPTIONS {
        let (mut fabric, a, b) = pair(DELIVERY);
        let bystanders = [fabric.open(0, 2), fabric.open(1, 2)];
        for process in &bystanders {
            fabric.create_vi(process, 0, DELIVERY, NONE);
        }
        fabric.connect((&bystanders[0], 0), (&bystanders[1], 0));
        let source = fabric.guests[0].register(1, PTAG, 0, 20 << 12);
        let mut entry = fabric.guests[0].mrt_entry(&source);
        corrupt(&fabric.guests[0], &mut entry);
        fabric.guests[0].write_mrt(handle_index(source.handle), &entry);
        let send = fabric.guests[0].descriptor(1, vec![source.segment()]);
        let target = fabric.guests[1].register(1, PTAG, 0, 20 << 12);
        let receive = fabric.guests[1].descriptor(1, vec![target.segment()]);
        fabric.post_descriptor(&b, 0, true, &receive);
        fabric.post_descriptor(&a, 0, false, &send);
        fabric.run();
        let status = fabric.status(0, &send).0;
        assert!(status.contains(DescriptorStatus::PROTECTION_ERROR), "{what}: {status:?}");
        assert!(fabric.status(1, &receive).0.contains(DescriptorStatus::FLUSHED_ERROR), "{what}");

        let source = fabric.guests[0].register(2, PTAG, 0, 20 << 12);
        let target = fabric.guests[1].register(2, PTAG, 0, 20 << 12);
        fabric.guests[0].fill(&source, 3);
        let send = fabric.guests[0].descriptor(2, vec![source.segment()]);
        let receive = fabric.guests[1].descriptor(2, vec![target.segment()]);
        fabric.post_descriptor(&bystanders[1], 0, true, &receive);
        fabric.post_descriptor(&bystanders[0], 0, false, &send);
        fabric.run();
        assert_eq!(fabric.status(0, &send).0, DescriptorStatus::DONE, "{what}");
        assert!(fabric.guests[1].holds(&target, 20 << 12, 3), "{what}");
    }
}

/// A guest that writes to its page tables while the card reads them harms itself at most.
#[test]
fn fault_43_page_tables_that_change_under_the_cards_feet_harm_nobody_else() {
    let (mut fabric, a, b) = pair(ReliabilityLevel::UNRELIABLE);
    let tame = [fabric.open(0, 2), fabric.open(1, 2)];
    for process in &tame {
        fabric.create_vi(process, 0, DELIVERY, NONE);
    }
    fabric.connect((&tame[0], 0), (&tame[1], 0));
    // Every other look-up reads the tables anew.
    fabric.switch.running(0).expect("running").set_hostility(Hostility::new(1));
    let buffers =
        [1, 2].map(|context| [0, 1].map(|port| fabric.guests[port].register(context, PTAG, 0, 20 << 12)));
    let canary = fabric.guests[1].register(1, PTAG, 0, 20 << 12);
    fabric.guests[1].fill(&canary, 9);
    let directory = fabric.guests[0].mrt_entry(&buffers[0][0]).page_directory;
    let leaf: u64 = fabric.guests[0].memory.read(directory).expect("in RAM");
    let words: Vec<View<AtomicU64>> = [directory, leaf, leaf + 64]
        .map(|address| fabric.guests[0].memory.view(address, 1).expect("in RAM"))
        .into();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = fastrand::Rng::with_seed(5);
            let honest: Vec<u64> = words.iter().map(|word| word[0].load(Ordering::Relaxed)).collect();
            while !stop.load(Ordering::Relaxed) {
                for (word, honest) in words.iter().zip(&honest) {
                    let somewhere = random.u64(..RAM as u64) & !0xfff;
                    let values = [*honest, *honest, somewhere, random.u64(..), u64::MAX];
                    word[0].store(values[random.usize(..values.len())], Ordering::Relaxed);
                }
            }
        });
        let mut outcomes = [0; 2];
        for round in 0..60 {
            let processes = [[&a, &b], [&tame[0], &tame[1]]];
            let sends = [0, 1].map(|pair| {
                let [source, target] = buffers[pair];
                fabric.guests[0].fill(&source, round);
                let [from, to] = processes[pair];
                let receive = fabric.guests[1].descriptor(to.context, vec![target.segment()]);
                let send = fabric.guests[0].descriptor(from.context, vec![source.segment()]);
                fabric.post_descriptor(to, 0, true, &receive);
                fabric.post_descriptor(from, 0, false, &send);
                send
            });
            fabric.run();
            let [wild, tame] = sends.map(|send| fabric.status(0, &send).0);
            outcomes[usize::from(wild == DescriptorStatus::DONE)] += 1;
            assert_eq!(tame, DescriptorStatus::DONE);
            assert!(fabric.guests[1].holds(&buffers[1][1], 20 << 12, round));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(outcomes.iter().all(|outcome| *outcome > 0), "messages failed and went: {outcomes:?}");
    });
    assert!(fabric.guests[1].holds(&canary, 20 << 12, 9));
}

/// What a program, its Kernel Agent and its card do to memory.
#[derive(Clone, Copy, Debug)]
enum Step {
    Register { offset: u64, length: u32 },
    Deregister(prop::sample::Index),
    Message(prop::sample::Index, prop::sample::Index),
    Turn,
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..PAGE, 1..(12_u32 << 12)).prop_map(|(offset, length)| Step::Register { offset, length }),
        2 => any::<prop::sample::Index>().prop_map(Step::Deregister),
        4 => any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(from, to)| Step::Message(from, to)),
        4 => Just(Step::Turn),
        1 => Just(Step::Drain),
    ]
}

/// A byte that no program writes: the mark of memory that has another owner.
const FOREIGN: u8 = 255;

/// Regions of one program. What the card has let go of gets another owner at once.
#[derive(Default)]
struct Regions {
    live: Vec<Buffer>,
    retired: Vec<(Buffer, Insertion)>,
    foreign: Vec<Buffer>,
}

impl Regions {
    fn hand_over(&mut self, guest: &Guest) {
        let let_go = self.retired.extract_if(.., |(_, insertion)| guest.has_let_go(*insertion));
        for (buffer, _) in let_go {
            let (first, end) = (buffer.physical & !(PAGE - 1), buffer.physical + u64::from(buffer.length));
            for page in (first..end).step_by(4096) {
                guest.memory.write(page, &[FOREIGN; 4096]).expect("in RAM");
            }
            self.foreign.push(buffer);
        }
    }
}

fn bytes(guest: &Guest, buffer: &Buffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.length as usize];
    guest.memory.read_bytes(buffer.physical, &mut bytes).expect("in RAM");
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// No byte of a region that the card has let go of is read or written, and it lets go of all, however hard it is.
    #[test]
    fn memory_with_another_owner_is_left_alone(
        hostility in proptest::option::of(any::<u64>()),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut fabric = Fabric::new(1);
        let process = fabric.open(0, 1);
        for vi in [0, 1] {
            fabric.create_vi(&process, vi, ReliabilityLevel::UNRELIABLE, NONE);
        }
        fabric.connect((&process, 0), (&process, 1));
        if let Some(seed) = hostility {
            fabric.switch.running(0).expect("running").set_hostility(Hostility::new(seed));
        }
        let mut regions = Regions::default();
        let (mut seed, mut messages) = (0_u8, 0);
        for step in steps {
            match step {
                Step::Register { offset, length } => {
                    let buffer = fabric.guests[0].register(1, PTAG, offset, length);
                    seed = seed.wrapping_add(1);
                    fabric.guests[0].fill(&buffer, seed);
                    regions.live.push(buffer);
                }
                Step::Deregister(which) if !regions.live.is_empty() => {
                    let buffer = regions.live.swap_remove(which.index(regions.live.len()));
                    let insertion = fabric.guests[0].try_deregister(&buffer).expect("room");
                    regions.retired.push((buffer, insertion));
                }
                // The Token Table of the test takes no more without a turn.
                Step::Message(from, to) if !regions.live.is_empty() && messages < 20 => {
                    let [from, to] = [from, to].map(|which| regions.live[which.index(regions.live.len())]);
                    post(&mut fabric, &process, from, to);
                    messages += 1;
                }
                Step::Turn => {
                    fabric.step();
                    messages = 0;
                }
                Step::Drain => {
                    fabric.submit(0, Opcode::DRAIN_MDL, [0_u64; 6]);
                    fabric.run();
                    messages = 0;
                }
                Step::Deregister(_) | Step::Message(..) => {}
            }
            regions.hand_over(&fabric.guests[0]);
        }
        fabric.run();
        prop_assert_eq!(fabric.command(0, Opcode::DRAIN_MDL, [0_u64; 6]), Status::SUCCESS);
        regions.hand_over(&fabric.guests[0]);
        prop_assert!(regions.retired.is_empty(), "a pin lives for ever");
        for buffer in &regions.foreign {
            prop_assert!(bytes(&fabric.guests[0], buffer).iter().all(|byte| *byte == FOREIGN), "written to");
        }
        for buffer in &regions.live {
            prop_assert!(!bytes(&fabric.guests[0], buffer).contains(&FOREIGN), "read from");
        }
    }
}
