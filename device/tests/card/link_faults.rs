//! Links that lose, corrupt and break off messages: what both ends see of it.

use crate::harness::{Buffer, DELIVERY, Descriptor, Fabric, OK_RECEIVE, PTAG, Process, pair};
use vianic_abi::completion::CompletionKind;
use vianic_abi::descriptor::{Control, DescriptorStatus, Operation};
use vianic_abi::mrt::{ACCESS_RDMA_READ, ACCESS_RDMA_WRITE};
use vianic_abi::status::{ErrorCode, ReliabilityLevel};
use vianic_device::port::faults::Counts;

const DONE: DescriptorStatus = DescriptorStatus::DONE;
const TRANSPORT: DescriptorStatus = DescriptorStatus::TRANSPORT_ERROR;
const FLUSHED: DescriptorStatus = DescriptorStatus::FLUSHED_ERROR;
const PARTIAL: DescriptorStatus = DescriptorStatus::PARTIAL_ERROR;
const NONE: DescriptorStatus = DescriptorStatus::empty();
const UNRELIABLE: ReliabilityLevel = ReliabilityLevel::UNRELIABLE;
const RELIABLE: [ReliabilityLevel; 2] = [DELIVERY, ReliabilityLevel::RELIABLE_RECEPTION];

/// Sizes of one slice and of several.
const SIZES: [u32; 3] = [100, 131_072, 300_001];

/// Two connected VIs with a filled buffer at the first and a target at the second.
struct Scene {
    fabric: Fabric,
    a: Process,
    b: Process,
    source: Buffer,
    target: Buffer,
}

impl Scene {
    fn new(level: ReliabilityLevel, size: u32) -> Self {
        let (fabric, a, b) = pair(level);
        let source = fabric.guests[0].register(1, PTAG, 3, size);
        let target = fabric.guests[1].register(1, PTAG, 1000, size);
        fabric.guests[0].fill(&source, 1);
        fabric.guests[1].allow(&target, ACCESS_RDMA_WRITE | ACCESS_RDMA_READ);
        Self { fabric, a, b, source, target }
    }

    /// The link of card `port` gets a plan.
    fn faults(&mut self, port: usize, plan: &str) {
        self.fabric.switch.set_faults(port, Some(plan.parse().expect("a plan")));
    }

    fn receive(&mut self) -> Descriptor {
        let receive = self.fabric.guests[1].descriptor(1, vec![self.target.segment()]);
        self.fabric.post_descriptor(&self.b, 0, true, &receive);
        receive
    }

    fn post(&mut self, operation: Operation, immediate: bool) -> Descriptor {
        let segments = match operation {
            Operation::SEND_RECEIVE => vec![self.source.segment()],
            _ => vec![self.target.segment(), self.source.segment()],
        };
        let mut descriptor = self.fabric.guests[0].descriptor(1, segments);
        descriptor.control = operation.0 | if immediate { Control::IMMEDIATE.bits() } else { 0 };
        self.fabric.post_descriptor(&self.a, 0, false, &descriptor);
        descriptor
    }

    /// What a descriptor ended with besides its operation; nothing while it waits.
    fn end(&self, port: usize, descriptor: &Descriptor) -> DescriptorStatus {
        let operations = DescriptorStatus::OP_REMOTE_RDMA_WRITE | DescriptorStatus::OP_RDMA_READ;
        self.fabric.status(port, descriptor).0 - operations
    }

    /// The asynchronous errors of both ends.
    fn errors(&self) -> (Vec<ErrorCode>, Vec<ErrorCode>) {
        let of = |process: &Process| {
            std::iter::from_fn(|| process.queues.reap())
                .filter(|(completion, _)| completion.kind == CompletionKind::ERROR.0)
                .map(|(completion, _)| ErrorCode(completion.status))
                .collect()
        };
        (of(&self.a), of(&self.b))
    }

    /// Whether the second guest's target holds the first half of what was sent, and nothing of the second.
    fn holds_half(&self, size: u32) -> bool {
        let half = u64::from(size / 2);
        let byte = |i| self.fabric.guests[1].memory.read::<u8>(self.target.physical + i).expect("in RAM");
        self.fabric.guests[1].holds(&self.target, size / 2, 1)
            && (half..u64::from(size)).all(|i| byte(i) == 0)
    }

    fn is_blank(&self) -> bool {
        let byte = |i| self.fabric.guests[1].memory.read::<u8>(self.target.physical + i).expect("in RAM");
        (0..u64::from(self.target.length)).all(|i| byte(i) == 0)
    }
}

const LOST: (Vec<ErrorCode>, Vec<ErrorCode>) = (Vec::new(), Vec::new());

fn broken(at_target: &[ErrorCode]) -> (Vec<ErrorCode>, Vec<ErrorCode>) {
    (vec![ErrorCode::CONN_LOST], [at_target, &[ErrorCode::CONN_LOST]].concat())
}

#[test]
fn an_unreliable_message_that_is_lost_or_corrupted_never_arrives() {
    for size in SIZES {
        for plan in ["drop=next:1", "corrupt=next:1"] {
            for immediate in [false, true] {
                let mut scene = Scene::new(UNRELIABLE, size);
                scene.faults(0, plan);
                let receive = scene.receive();
                let lost = scene.post(Operation::SEND_RECEIVE, immediate);
                scene.fabric.run();
                assert_eq!(scene.end(0, &lost), DONE, "{plan}, {size}");
                assert_eq!(scene.end(1, &receive), NONE, "{plan}, {size}");
                assert!(scene.is_blank());
                // The next one takes its place.
                let next = scene.post(Operation::SEND_RECEIVE, false);
                scene.fabric.run();
                assert_eq!(scene.end(0, &next), DONE);
                assert_eq!(scene.fabric.status(1, &receive), (OK_RECEIVE, size));
                assert!(scene.fabric.guests[1].holds(&scene.target, size, 1));
                assert_eq!(scene.errors(), LOST);
            }
        }
    }
}

#[test]
fn an_unreliable_message_that_breaks_off_ends_its_receive_descriptor() {
    for size in SIZES {
        let mut scene = Scene::new(UNRELIABLE, size);
        scene.faults(0, "break=next:1");
        let receives = [scene.receive(), scene.receive()];
        let sends = [(); 2].map(|()| scene.post(Operation::SEND_RECEIVE, false));
        scene.fabric.run();
        assert_eq!(sends.each_ref().map(|send| scene.end(0, send)), [DONE; 2]);
        assert_eq!(scene.end(1, &receives[0]), DONE | PARTIAL, "{size}");
        assert_eq!(scene.fabric.status(1, &receives[1]), (OK_RECEIVE, size), "{size}");
        assert!(scene.fabric.guests[1].holds(&scene.target, size, 1));
        assert_eq!(scene.errors(), LOST);
    }
}

#[test]
fn an_unreliable_rdma_write_that_is_damaged_is_told_to_its_target() {
    let cases: [(&str, &[ErrorCode], DescriptorStatus); 3] = [
        ("drop=next:1", &[], NONE),
        ("corrupt=next:1", &[ErrorCode::RDMAW_DATA], DONE.union(TRANSPORT)),
        ("break=next:1", &[ErrorCode::RDMAW_ABORT], DONE.union(PARTIAL)),
    ];
    for size in SIZES {
        for (plan, code, in_descriptor) in cases {
            for immediate in [false, true] {
                let mut scene = Scene::new(UNRELIABLE, size);
                scene.faults(0, plan);
                let receive = scene.receive();
                let write = scene.post(Operation::RDMA_WRITE, immediate);
                scene.fabric.run();
                assert_eq!(scene.end(0, &write), DONE, "{plan}");
                let half = plan.starts_with("break");
                assert!(if half { scene.holds_half(size) } else { scene.is_blank() }, "{plan}, {size}");
                // With immediate data the receive descriptor tells, without it the error callback.
                let (code, told) = if immediate { (&[][..], in_descriptor) } else { (code, NONE) };
                assert_eq!(scene.end(1, &receive), told, "{plan}, {immediate}");
                assert_eq!(scene.errors(), (vec![], code.to_vec()), "{plan}, {immediate}");
                // The connection stands.
                let (next, receive) = (scene.post(Operation::SEND_RECEIVE, false), scene.receive());
                scene.fabric.run();
                assert_eq!(scene.end(0, &next), DONE);
                assert!(told.is_empty() || scene.end(1, &receive) == DONE);
            }
        }
    }
}

#[test]
fn a_reliable_connection_breaks_with_its_message() {
    type Case = (&'static str, Operation, bool, DescriptorStatus, &'static [ErrorCode]);
    let send = Operation::SEND_RECEIVE;
    let write = Operation::RDMA_WRITE;
    // How the receive descriptor ends, and what the target hears besides CONN_LOST.
    let cases: [Case; 9] = [
        ("drop=next:1", send, false, FLUSHED, &[]),
        ("corrupt=next:1", send, false, FLUSHED, &[]),
        ("break=next:1", send, false, PARTIAL, &[]),
        ("drop=next:1", write, false, FLUSHED, &[]),
        ("corrupt=next:1", write, false, FLUSHED, &[ErrorCode::RDMAW_DATA]),
        ("break=next:1", write, false, FLUSHED, &[ErrorCode::RDMAW_ABORT]),
        ("drop=next:1", write, true, FLUSHED, &[]),
        ("corrupt=next:1", write, true, TRANSPORT, &[]),
        ("break=next:1", write, true, PARTIAL, &[]),
    ];
    for level in RELIABLE {
        for size in SIZES {
            for (plan, operation, immediate, receive_end, codes) in cases {
                let what = format!("{plan}, {operation:?}, {immediate}, {level:?}, {size}");
                let mut scene = Scene::new(level, size);
                scene.faults(0, plan);
                let receive = scene.receive();
                let posted = scene.post(operation, immediate);
                let behind = scene.post(Operation::SEND_RECEIVE, false);
                scene.fabric.run();
                assert_eq!(scene.end(0, &posted), DONE | TRANSPORT, "{what}");
                assert_eq!(scene.end(0, &behind), DONE | FLUSHED, "{what}");
                assert_eq!(scene.end(1, &receive), DONE | receive_end, "{what}");
                assert_eq!(scene.errors(), broken(codes), "{what}");
                let half = plan.starts_with("break");
                assert!(if half { scene.holds_half(size) } else { scene.is_blank() }, "{what}");
            }
        }
    }
}

/// A read goes over two links: the request over the reader's, the bytes over that of the card that is read from.
#[test]
fn an_rdma_read_breaks_the_connection_whichever_way_it_is_lost() {
    for level in RELIABLE {
        for size in SIZES {
            for plan in ["drop=next:1", "corrupt=next:1", "break=next:1"] {
                for (link, codes) in [(0, &[][..]), (1, &[ErrorCode::RDMA_TRANSPORT])] {
                    let mut scene = Scene::new(level, size);
                    let (room, theirs) = (scene.source, scene.target);
                    scene.fabric.guests[1].fill(&theirs, 9);
                    scene.faults(link, plan);
                    let read = scene.post(Operation::RDMA_READ, false);
                    scene.fabric.run();
                    let what = format!("{plan}, link {link}, {size}");
                    assert_eq!(scene.end(0, &read), DONE | TRANSPORT, "{what}");
                    assert_eq!(scene.errors(), broken(codes), "{what}");
                    let breaks_off = plan.starts_with("break") && (link == 1 || size > 200_000);
                    assert!(breaks_off || scene.fabric.guests[0].holds(&room, size, 1), "{what}");
                    assert!(!breaks_off || scene.fabric.guests[0].holds(&room, 1, 9), "{what}");
                    assert!(!scene.fabric.guests[0].holds(&room, size, 9), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_link_without_a_plan_or_with_an_empty_one_is_sound() {
    let mut scene = Scene::new(DELIVERY, 1000);
    scene.faults(0, "seed=1,drop=1");
    scene.fabric.switch.set_faults(0, None);
    scene.faults(1, "seed=1");
    for _ in 0..50 {
        let (receive, send) = (scene.receive(), scene.post(Operation::SEND_RECEIVE, true));
        let read = scene.post(Operation::RDMA_READ, false);
        scene.fabric.run();
        assert_eq!(scene.end(0, &send) | scene.end(0, &read), DONE);
        assert!(scene.end(1, &receive).contains(DONE | DescriptorStatus::IMMEDIATE));
    }
    assert_eq!(scene.fabric.switch.faults(1).expect("a plan").counts(), Counts::default());
}

/// What arrives of many unreliable messages is whole and in order, and the same seed loses the same ones.
#[test]
fn the_same_seed_loses_the_same_messages() {
    let run = |seed: u32| {
        let mut scene = Scene::new(UNRELIABLE, 8);
        scene.faults(0, &format!("seed={seed},drop=0.2,corrupt=0.2"));
        let mut arrived = Vec::new();
        let mut receive = scene.receive();
        for number in 0..200_u32 {
            scene.fabric.guests[0].memory.write(scene.source.physical, &number).expect("in RAM");
            let send = scene.post(Operation::SEND_RECEIVE, false);
            scene.fabric.run();
            assert_eq!(scene.end(0, &send), DONE);
            if !scene.end(1, &receive).is_empty() {
                assert_eq!(scene.fabric.status(1, &receive), (OK_RECEIVE, 8));
                arrived
                    .push(scene.fabric.guests[1].memory.read::<u32>(scene.target.physical).expect("in RAM"));
                receive = scene.receive();
            }
        }
        let counts = scene.fabric.switch.faults(0).expect("a plan").counts();
        assert_eq!(counts.dropped + counts.corrupted + arrived.len() as u64, 200);
        assert!(counts.dropped > 0 && counts.corrupted > 0);
        arrived
    };
    let arrived = run(5);
    assert!(arrived.is_sorted());
    assert_eq!(arrived, run(5));
    assert_ne!(arrived, run(6));
}
