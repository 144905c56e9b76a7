//! Steps as the guests see them: three processes on two cards, and all that the cards tell them.

use std::sync::atomic::Ordering::Relaxed;

use vianic_abi::MAX_DESCRIPTORS_PER_QUEUE;
use vianic_abi::command::{CreateVi, Opcode, VI_RDMA_READ, VI_RDMA_WRITE, ViAttributes};
use vianic_abi::completion::Completion;
use vianic_abi::descriptor::{Control, ControlSegment, Operation, Segment};
use vianic_abi::event::Event;
use vianic_abi::mrt::{
    ACCESS_RDMA_READ, ACCESS_RDMA_WRITE, MRT_CHUNK_ENTRIES, MrtEntry, handle, handle_index,
};
use vianic_abi::nic_memory::{Counters, NRA_ERRORS, NRA_MCQ, nra_cq, nra_work_queue};
use vianic_abi::status::{ReliabilityLevel, Status};
use vianic_device::port::faults::Plan;

use crate::harness::{Buffer, Descriptor, Fabric, PTAG, Process, RAM, TOKEN_LOG2, VIRTUAL};
use crate::two_ways::step::{Between, End, Flaw, Pair, Piece, Post, Room, Step, Wait};

/// How messages go through the cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// As short as can be.
    Short,
    /// Over links that have plans without faults, for which every message is cut into frames.
    Frames,
    /// From descriptors that the card has to copy.
    Indirect,
}

/// What guests see after a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    /// What each process took from its MCQ.
    completions: [Vec<Completion>; 3],
    /// What each card put on its event queue.
    events: [Vec<Event>; 2],
    /// The control segments of each process's descriptors.
    descriptors: [Vec<ControlSegment>; 3],
    /// What each card has counted.
    counters: [Counted; 2],
}

/// What a card has counted of messages and completions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    descriptors: u64,
    refused: u64,
    messages_sent: u64,
    bytes_sent: u64,
    messages_received: u64,
    bytes_received: u64,
    completions: u64,
    completion_errors: u64,
    mcq_stalls: u64,
    notifications: u64,
    async_errors: u64,
    connections: u64,
}

/// A process and its memory.
struct User {
    process: Process,
    rooms: [Buffer; Room::REGISTERED.len()],
    descriptors: Vec<Descriptor>,
    /// Whether the last one of them is registered.
    is_registered: bool,
}

/// Three processes on two cards, and pairs of connected VIs.
pub(crate) struct Scene {
    way: Way,
    fabric: Fabric,
    users: [User; 3],
    pairs: Vec<Pair>,
    is_stopped: bool,
    posts: u32,
    moment: Moment,
}

/// The processes: the first card has two, the second one.
const PROCESSES: [(usize, u16); 3] = [(0, 1), (0, 2), (1, 1)];

/// Every process's completion queues.
const CQS: [u16; 2] = [0, 1];

/// The card whose guest is stopped at times.
const STOPPED: usize = 1;

/// Posts for which every Token Table has room, whoever posts them.
const AT_ONCE: u32 = 1 << (TOKEN_LOG2 - 1);

/// Index of a handle that is never given.
const NOBODYS: u32 = MRT_CHUNK_ENTRIES - 1;

impl Scene {
    pub(crate) fn new(way: Way, pairs: &[Pair]) -> Self {
        let mut fabric = Fabric::new(2);
        let users = PROCESSES.map(|(port, context)| User::new(&mut fabric, port, context));
        if way == Way::Frames {
            (0..2).for_each(|port| fabric.switch.set_faults(port, Some(Plan::default())));
        }
        let pairs = pairs.to_vec();
        let moment = Moment::default();
        let mut scene = Self { way, fabric, users, pairs, is_stopped: false, posts: 0, moment };
        for number in (0..scene.pairs.len()).map(|pair| End(u16::try_from(2 * pair).expect("few"))) {
            [number, number.peer()].into_iter().for_each(|end| scene.create_vi(end));
            scene.connect(number);
        }
        scene
    }

    fn create_vi(&mut self, end: End) {
        let (pair, user, vi) = self.vi(end);
        let [send_cq, receive_cq] = pair.cqs[usize::from(end.0 % 2)];
        let reads = if pair.level == ReliabilityLevel::UNRELIABLE { 0 } else { VI_RDMA_READ };
        let Process { port, context, .. } = self.users[user].process;
        let create = CreateVi {
            context,
            vi,
            send_cq,
            receive_cq,
            ptag: PTAG,
            attributes: ViAttributes {
                reliability_level: pair.level.0,
                flags: VI_RDMA_WRITE | reads,
                max_transfer_size: pair.max_transfer_size,
            },
            ..CreateVi::default()
        };
        assert_eq!(self.fabric.command(port, Opcode::CREATE_VI, create), Status::SUCCESS);
    }

    /// The pair that a VI is of, whose it is, and its number.
    fn vi(&self, End(number): End) -> (Pair, usize, u16) {
        let number = number % u16::try_from(2 * self.pairs.len()).expect("few");
        let pair = self.pairs[usize::from(number / 2)];
        let user = match pair.between {
            _ if number.is_multiple_of(2) => 0,
            Between::OneProcess => 0,
            Between::ProcessesOfOneCard => 1,
            Between::Cards => 2,
        };
        (pair, user, number)
    }

    fn connect(&mut self, end: End) {
        let ((_, from, vi), (_, to, peer)) = (self.vi(end), self.vi(end.peer()));
        self.fabric.connect((&self.users[from].process, vi), (&self.users[to].process, peer));
    }

    /// Does a step. What the guests see then.
    pub(crate) fn step(&mut self, step: &Step) -> Moment {
        match step {
            Step::Message { from, receive, send } => {
                receive.iter().for_each(|receive| self.post(1, from.peer(), true, receive));
                self.post(1, *from, false, send);
            }
            Step::Post { at, receive, post } => self.post(1, *at, *receive, post),
            Step::Flood { at, receive, post } => {
                self.post(MAX_DESCRIPTORS_PER_QUEUE + 10, *at, *receive, post);
            }
            Step::Deregister { at } => {
                let user = &mut self.users[self.vi(*at).1];
                let last = user.descriptors.last().filter(|_| std::mem::take(&mut user.is_registered));
                if let Some(descriptor) = last {
                    self.fabric.guests[user.process.port].deregister(&descriptor.region());
                }
            }
            Step::Arm(wait) => self.arm(*wait),
            Step::Disconnect { at } => self.disconnect(*at),
            Step::Reconnect { at } => {
                self.disconnect(*at);
                self.disconnect(at.peer());
                self.connect(*at);
            }
            Step::Stop => {
                self.fabric.switch.pause(STOPPED);
                self.is_stopped = true;
            }
            Step::GoOn => self.go_on(),
            Step::Run => self.fabric.run(),
            Step::Reap => {
                self.fabric.run();
                self.reap();
            }
        }
        self.look()
    }

    /// Lets all that is under way come to its end. What the guests see then.
    pub(crate) fn finish(&mut self) -> Moment {
        self.go_on();
        self.fabric.run();
        self.reap();
        self.look()
    }

    /// The bytes of every process's rooms.
    pub(crate) fn bytes(&self) -> Vec<Vec<u8>> {
        let room = |user: &User, room: &Buffer| {
            let (first, length) = pages(room);
            let mut bytes = vec![0; length];
            let memory = &self.fabric.guests[user.process.port].memory;
            memory.read_bytes(first, &mut bytes).expect("in RAM");
            bytes
        };
        self.users.iter().flat_map(|user| user.rooms.iter().map(move |buffer| room(user, buffer))).collect()
    }

    fn disconnect(&mut self, at: End) {
        self.go_on();
        let (_, user, vi) = self.vi(at);
        assert_eq!(self.fabric.target(&self.users[user].process, Opcode::DISCONNECT, vi), Status::SUCCESS);
    }

    fn go_on(&mut self) {
        if std::mem::take(&mut self.is_stopped) {
            self.fabric.switch.resume(STOPPED).expect("a card that is stopped").look_at_all();
        }
    }

    /// Posts a descriptor, so many times. A guest that is stopped posts nothing.
    fn post(&mut self, times: u32, at: End, receive: bool, post: &Post) {
        let (_, user, vi) = self.vi(at);
        if self.is_stopped && self.users[user].process.port == STOPPED {
            return;
        }
        let sound = self.descriptor(at, post);
        let mut descriptor = sound.clone();
        match post.flaw {
            Flaw::None | Flaw::ReservedControlBit => {}
            Flaw::WrongHandle => descriptor.handle = handle(NOBODYS, 1),
            Flaw::OtherTag => {
                let guest = &self.fabric.guests[self.users[user].process.port];
                let entry = MrtEntry { ptag: PTAG + 1, ..guest.mrt_entry(&descriptor.region()) };
                guest.write_mrt(handle_index(entry.handle), &entry);
            }
            Flaw::Misaligned => descriptor.address += 4,
        }
        let process = &self.users[user].process;
        for _ in 0..times {
            self.fabric.guests[process.port].write_descriptor(&descriptor);
            self.fabric.post_descriptor(process, vi, receive, &descriptor);
            self.posts += 1;
            if self.posts.is_multiple_of(AT_ONCE) {
                self.fabric.run();
            }
        }
        self.users[user].descriptors.push(sound);
        self.users[user].is_registered = true;
    }

    fn descriptor(&self, at: End, post: &Post) -> Descriptor {
        let ((_, user, _), (_, peer, _)) = (self.vi(at), self.vi(at.peer()));
        let user = &self.users[user];
        let mut segments: Vec<_> = post.pieces.iter().map(|piece| user.segment(piece)).collect();
        if post.operation != Operation::SEND_RECEIVE {
            segments.insert(0, self.users[peer].segment(&post.remote));
        }
        let Process { port, context, .. } = user.process;
        let mut descriptor = self.fabric.guests[port].descriptor(context, segments);
        descriptor.control = post.operation.0;
        if let Some(immediate) = post.immediate {
            descriptor.control |= Control::IMMEDIATE.bits();
            descriptor.immediate = immediate;
        }
        if post.flaw == Flaw::ReservedControlBit {
            descriptor.control |= 0x10;
        }
        descriptor.indirect = post.indirect || self.way == Way::Indirect;
        descriptor
    }

    fn arm(&mut self, wait: Wait) {
        let (Wait::SendQueue(end)
        | Wait::ReceiveQueue(end)
        | Wait::CompletionQueue(end)
        | Wait::Mcq(end)
        | Wait::Errors(end)) = wait;
        let (_, user, vi) = self.vi(end);
        let word = match wait {
            Wait::SendQueue(_) => nra_work_queue(vi, false),
            Wait::ReceiveQueue(_) => nra_work_queue(vi, true),
            Wait::CompletionQueue(_) => nra_cq(CQS[usize::from(end.0 / 2 % 2)]),
            Wait::Mcq(_) => NRA_MCQ,
            Wait::Errors(_) => NRA_ERRORS,
        };
        let Process { port, context, .. } = self.users[user].process;
        self.fabric.guests[port].nic_memory.nra_word(context, word).store(1, Relaxed);
    }

    /// Every process whose guest runs empties its MCQ.
    fn reap(&mut self) {
        for (user, taken) in self.users.iter().zip(&mut self.moment.completions) {
            let Process { port, context, queues } = &user.process;
            if self.is_stopped && *port == STOPPED {
                continue;
            }
            while let Some((completion, was_full)) = queues.reap() {
                taken.push(completion);
                if was_full {
                    self.fabric.switch.running(*port).expect("running").doorbell(*context);
                    self.fabric.run();
                }
            }
        }
    }

    /// What the guests see now, and have not seen before.
    fn look(&mut self) -> Moment {
        let mut moment = std::mem::take(&mut self.moment);
        for (port, guest) in self.fabric.guests.iter().enumerate() {
            moment.events[port] = guest.events.take();
            moment.counters[port] = Counted::new(&guest.nic_memory.counters());
        }
        for (user, seen) in self.users.iter().zip(&mut moment.descriptors) {
            let memory = &self.fabric.guests[user.process.port].memory;
            let read =
                |descriptor: &Descriptor| memory.read::<ControlSegment>(descriptor.physical).expect("in RAM");
            seen.extend(user.descriptors.iter().map(read));
        }
        moment
    }
}

impl User {
    fn new(fabric: &mut Fabric, port: usize, context: u16) -> Self {
        let process = fabric.open(port, context);
        for cq in CQS {
            assert_eq!(fabric.target(&process, Opcode::CREATE_CQ, cq), Status::SUCCESS);
        }
        let guest = &fabric.guests[port];
        let rooms = Room::REGISTERED.map(|room| {
            let context = if room == Room::OtherProcess { context + 10 } else { context };
            let ptag = if room == Room::OtherTag { PTAG + 1 } else { PTAG };
            let buffer = guest.register(context, ptag, 104, room.length());
            if room != Room::Closed {
                guest.allow(&buffer, ACCESS_RDMA_WRITE | ACCESS_RDMA_READ);
            }
            let mut entry = guest.mrt_entry(&buffer);
            match room {
                Room::Hole => entry.pages[1] = RAM as u64,
                Room::Pages => entry.pages[..3].reverse(),
                _ => {}
            }
            guest.write_mrt(handle_index(buffer.handle), &entry);
            let (first, length) = pages(&buffer);
            for word in (first..).step_by(8).take(length / 8) {
                guest.memory.write(word, &word.wrapping_mul(0x9e37_79b9_7f4a_7c15)).expect("in RAM");
            }
            buffer
        });
        Self { process, rooms, descriptors: Vec::new(), is_registered: false }
    }

    fn segment(&self, &Piece { room, offset, length }: &Piece) -> Segment {
        let registered = Room::REGISTERED.iter().position(|registered| *registered == room);
        match registered.map(|number| &self.rooms[number]) {
            Some(room) => Segment { address: room.address + u64::from(offset), handle: room.handle, length },
            None => Segment { address: VIRTUAL + u64::from(offset), handle: handle(NOBODYS, 1), length },
        }
    }
}

/// Where the pages of a buffer are, and how many bytes.
fn pages(buffer: &Buffer) -> (u64, usize) {
    let first = buffer.physical & !0xfff;
    let end = (buffer.physical + u64::from(buffer.length)).next_multiple_of(0x1000);
    (first, usize::try_from(end - first).expect("64 bit"))
}

impl Counted {
    fn new(counters: &Counters) -> Self {
        Self {
            descriptors: counters.tokens_inline + counters.tokens_indirect,
            refused: counters.tokens_refused,
            messages_sent: counters.messages_sent,
            bytes_sent: counters.bytes_sent,
            messages_received: counters.messages_received,
            bytes_received: counters.bytes_received,
            completions: counters.completions,
            completion_errors: counters.completion_errors,
            mcq_stalls: counters.mcq_stalls,
            notifications: counters.notifications,
            async_errors: counters.async_errors,
            connections: counters.connections,
        }
    }
}
