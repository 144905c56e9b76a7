//! A guest for a card without a guest: RAM, a Kernel Agent that posts commands, and processes that post descriptors.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vianic_abi::attach::AttachRequest;
use vianic_abi::command::{
    Answer, Cancel, Connect, ConnectBlock, CreateContext, CreateVi, MrtChunk, NetAddress, Opcode, Target,
    VI_RDMA_READ, VI_RDMA_WRITE, ViAttributes,
};
use vianic_abi::completion::{Completion, Consumer, Mcq, McqHeader, McqSlot, mcq_size};
use vianic_abi::descriptor::{ControlSegment, DescriptorStatus, Segment};
use vianic_abi::event::Event;
use vianic_abi::mdl::{Full, Inserter, Insertion};
use vianic_abi::mrt::{
    INLINE_PAGES, LEAF_PAGES, MRT_CHUNK_ENTRIES, MRT_ENTRY_SIZE, MrtEntry, MrtSlot, handle,
};
use vianic_abi::status::{ReliabilityLevel, Status};
use vianic_abi::sync::Native;
use vianic_abi::token::{IndirectBody, InlineBody, TOKEN_RECEIVE, Token, TokenKind};
use vianic_abi::token_table::{
    Doorbell, HEADER_SIZE, Header, PostError, Poster, Slot, TokenTable, table_size,
};
use vianic_abi::{ABI_VERSION, NO_CQ};
use vianic_device::guest_memory::GuestMemory;
use vianic_device::nic::Card;
use vianic_device::nic::memory::{NicMemory, ShadowSlot};
use vianic_device::nic::pacing::{Patience, Poll};
use vianic_device::port::switch::Switch;
use vianic_device::shared::View;
use vianic_device::vito::frame::NicAddress;
use vm_memory::{GuestAddress, GuestMemoryMmap};
use zerocopy::{Immutable, IntoBytes};

pub(crate) const RAM: usize = 64 << 20;
/// A module of memory that can be unplugged: its guest-physical address, and its bytes.
pub(crate) const MODULE: u64 = 1 << 32;
pub(crate) const MODULE_SIZE: usize = 8 << 20;
pub(crate) const TOKEN_LOG2: u8 = 6;
pub(crate) const MCQ_LOG2: u8 = 6;
pub(crate) const PTAG: u32 = 7;

/// A fabric: a switch with one card in each port, and the cards' guests.
pub(crate) struct Fabric {
    pub(crate) switch: Switch,
    pub(crate) guests: Vec<Guest>,
    time: Cell<u64>,
}

/// A guest with its card's memory.
pub(crate) struct Guest {
    pub(crate) port: usize,
    /// All memory that it has had, the module that is unplugged included.
    pub(crate) memory: GuestMemory,
    map: GuestMemoryMmap,
    pub(crate) nic_memory: Arc<NicMemory>,
    pub(crate) address: NicAddress,
    pub(crate) kernel: Queues,
    next_free: Cell<u64>,
    next_handle: Cell<u32>,
    next_tag: Cell<u64>,
    mrt: u64,
    mdl_insert: View<AtomicU32>,
    inserter: std::cell::RefCell<Inserter>,
    completed: std::cell::RefCell<Vec<Completion>>,
    pub(crate) events: std::cell::RefCell<Vec<Event>>,
}

/// One context's Token Table and MCQ as their owner sees them.
pub(crate) struct Queues {
    pub(crate) token_table: u64,
    pub(crate) mcq: u64,
    header: View<Header>,
    slots: View<Slot>,
    poster: Poster,
    mcq_header: View<McqHeader>,
    mcq_slots: View<McqSlot>,
    consumer: std::cell::RefCell<Consumer>,
}

impl Queues {
    pub(crate) fn new(guest: &GuestMemory, token_table: u64, mcq: u64) -> Self {
        Self {
            token_table,
            mcq,
            header: guest.view(token_table, 1).expect("in RAM"),
            slots: guest.view(token_table + HEADER_SIZE as u64, 1 << TOKEN_LOG2).expect("in RAM"),
            poster: Poster::default(),
            mcq_header: guest.view(mcq, 1).expect("in RAM"),
            mcq_slots: guest.view(mcq + 256, 1 << MCQ_LOG2).expect("in RAM"),
            consumer: std::cell::RefCell::default(),
        }
    }

    pub(crate) fn table(&self) -> TokenTable<'_> {
        TokenTable::new(&self.header[0], &self.slots)
    }

    /// Posts without waiting for room.
    pub(crate) fn post(&self, token: &Token) -> Result<Doorbell, PostError> {
        self.poster.post(self.table(), token, || false)
    }

    pub(crate) fn mcq(&self) -> Mcq<'_> {
        Mcq::new(&self.mcq_header[0], &self.mcq_slots)
    }

    /// Takes an MCQ entry. The flag: the card was stalled and must be rung.
    pub(crate) fn reap(&self) -> Option<(Completion, bool)> {
        let mut consumer = self.consumer.borrow_mut();
        let completion = consumer.pop(self.mcq())?;
        Some((completion, consumer.publish(self.mcq())))
    }
}

pub(crate) fn address(n: u8) -> NicAddress {
    NicAddress([2, 0x56, 0x49, 0x41, 0, n])
}

pub(crate) fn net_address(host: Option<NicAddress>, name: &str) -> NetAddress {
    let mut address =
        NetAddress { discriminator_len: u16::try_from(name.len()).expect("short"), ..NetAddress::default() };
    if let Some(host) = host {
        (address.host_len, address.host) = (6, host.0);
    }
    address.discriminator[..name.len()].copy_from_slice(name.as_bytes());
    address
}

impl Fabric {
    /// A fabric of `n` cards, attached.
    pub(crate) fn new(n: u8) -> Self {
        let mut switch = Switch::new((1..=n).map(address));
        let guests = (0..usize::from(n)).map(|port| {
            let (guest, card) = Guest::attach(port, address(u8::try_from(port).expect("few") + 1));
            switch.insert(port, card);
            guest
        });
        let guests = guests.collect();
        let fabric = Self { switch, guests, time: Cell::new(0) };
        let mut fabric = fabric;
        for port in 0..fabric.guests.len() {
            let chunk = MrtChunk { chunk: 0, address: fabric.guests[port].mrt, ..MrtChunk::default() };
            assert_eq!(fabric.command(port, Opcode::ADD_MRT_CHUNK, chunk), Status::SUCCESS);
        }
        fabric
    }

    /// Runs all cards until none has anything to do, as the engine would.
    pub(crate) fn run(&mut self) {
        for _ in 0..1_000_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the cards never come to rest");
    }

    /// Gives every card one turn. Whether there is more to do.
    pub(crate) fn step(&mut self) -> bool {
        let mut next = Poll::Asleep;
        for port in 0..self.switch.len() {
            let time = &self.time;
            if let Some(card) = self.switch.running(port) {
                let now = time.get() + 10_000;
                time.set(now);
                next = next.max(card.turn(now, Patience::Full));
            }
        }
        let moved = self.switch.exchange();
        for guest in &self.guests {
            if let Some(card) = self.switch.running(guest.port) {
                card.events().deliver(|event| {
                    guest.events.borrow_mut().push(event);
                    true
                });
            }
        }
        next != Poll::Asleep || moved
    }

    /// Posts a token for a context and rings if due.
    pub(crate) fn post(&mut self, port: usize, queues: &Queues, context: u16, token: &Token) {
        if queues.post(token) == Ok(Doorbell::Ring) {
            self.switch.running(port).expect("running").doorbell(context);
        }
    }

    /// Posts a command; its tag.
    pub(crate) fn submit<P: IntoBytes + Immutable>(
        &mut self,
        port: usize,
        opcode: Opcode,
        parameters: P,
    ) -> u64 {
        let tag = self.guests[port].next_tag.get();
        self.guests[port].next_tag.set(tag + 1);
        let token = Token::new(TokenKind::COMMAND, opcode.0, 0, tag, parameters);
        if self.guests[port].kernel.post(&token) == Ok(Doorbell::Ring) {
            self.switch.running(port).expect("running").doorbell(0);
        }
        tag
    }

    /// The outcome of a command, once it has completed.
    pub(crate) fn outcome(&mut self, port: usize, tag: u64) -> Option<Status> {
        self.run();
        self.guests[port].outcome(tag)
    }

    /// Posts a command and runs until it completes.
    pub(crate) fn command<P: IntoBytes + Immutable>(
        &mut self,
        port: usize,
        opcode: Opcode,
        parameters: P,
    ) -> Status {
        let tag = self.submit(port, opcode, parameters);
        self.outcome(port, tag).unwrap_or_else(|| panic!("{opcode:?} did not complete"))
    }

    /// A process opens the NIC: a context.
    pub(crate) fn open(&mut self, port: usize, context: u16) -> Process {
        let guest = &self.guests[port];
        let queues = guest.queues();
        self.open_with(port, context, queues)
    }

    /// As [`open`](Self::open), with queues of the caller's choice.
    pub(crate) fn open_with(&mut self, port: usize, context: u16, queues: Queues) -> Process {
        let create = CreateContext {
            context,
            token_table_log2: TOKEN_LOG2,
            mcq_log2: MCQ_LOG2,
            token_table: queues.token_table,
            mcq: queues.mcq,
            ..CreateContext::default()
        };
        assert_eq!(self.command(port, Opcode::CREATE_CONTEXT, create), Status::SUCCESS);
        Process { port, context, queues }
    }

    /// A VI that lets its peer do all that its level does.
    pub(crate) fn create_vi(&mut self, process: &Process, vi: u16, level: ReliabilityLevel, cq: u16) {
        let reads = if level == ReliabilityLevel::UNRELIABLE { 0 } else { VI_RDMA_READ };
        let flags = VI_RDMA_WRITE | reads;
        assert_eq!(self.try_create_vi(process, vi, level, cq, flags), Status::SUCCESS);
    }

    pub(crate) fn try_create_vi(
        &mut self,
        process: &Process,
        vi: u16,
        level: ReliabilityLevel,
        cq: u16,
        flags: u16,
    ) -> Status {
        let attributes = ViAttributes { reliability_level: level.0, flags, max_transfer_size: 1 << 20 };
        let create = CreateVi {
            context: process.context,
            vi,
            send_cq: cq,
            receive_cq: cq,
            ptag: PTAG,
            attributes,
            ..CreateVi::default()
        };
        self.command(process.port, Opcode::CREATE_VI, create)
    }

    /// Connects VI `from` to VI `to`.
    pub(crate) fn connect(&mut self, from: (&Process, u16), to: (&Process, u16)) {
        let (server, server_vi) = to;
        let (client, client_vi) = from;
        let (listen, listen_block) = self.listen(server, "meet");
        let (connect, _) = self.request(client, client_vi, Some(self.guests[server.port].address), "meet");
        assert_eq!(self.outcome(server.port, listen), Some(Status::SUCCESS));
        let block: ConnectBlock = self.guests[server.port].memory.read(listen_block).expect("in RAM");
        let answer = Answer {
            context: server.context,
            vi: server_vi,
            connection: block.connection,
            ..Answer::default()
        };
        assert_eq!(self.command(server.port, Opcode::ACCEPT, answer), Status::SUCCESS);
        assert_eq!(self.outcome(client.port, connect), Some(Status::SUCCESS));
    }

    /// Posts a LISTEN; its tag and its block.
    pub(crate) fn listen(&mut self, process: &Process, name: &str) -> (u64, u64) {
        let guest = &self.guests[process.port];
        let block = guest.allocate(size_of::<ConnectBlock>());
        let local = ConnectBlock { local: net_address(None, name), ..ConnectBlock::default() };
        guest.memory.write(block, &local).expect("in RAM");
        let listen = Connect { context: process.context, block, ..Connect::default() };
        (self.submit(process.port, Opcode::LISTEN, listen), block)
    }

    /// Posts a CONNECT; its tag and its block.
    pub(crate) fn request(
        &mut self,
        process: &Process,
        vi: u16,
        host: Option<NicAddress>,
        name: &str,
    ) -> (u64, u64) {
        let guest = &self.guests[process.port];
        let block = guest.allocate(size_of::<ConnectBlock>());
        let asked = ConnectBlock {
            local: net_address(None, "me"),
            remote: net_address(host, name),
            ..ConnectBlock::default()
        };
        guest.memory.write(block, &asked).expect("in RAM");
        let connect = Connect { context: process.context, vi, block, ..Connect::default() };
        (self.submit(process.port, Opcode::CONNECT, connect), block)
    }

    /// Posts a CONNECT_PEER for `host`; its tag and its block.
    pub(crate) fn ask_peer(
        &mut self,
        process: &Process,
        vi: u16,
        host: Option<NicAddress>,
        (local, remote): (&str, &str),
    ) -> (u64, u64) {
        let guest = &self.guests[process.port];
        let block = guest.allocate(size_of::<ConnectBlock>());
        let asked = ConnectBlock {
            local: net_address(None, local),
            remote: net_address(host, remote),
            ..ConnectBlock::default()
        };
        guest.memory.write(block, &asked).expect("in RAM");
        let connect = Connect { context: process.context, vi, block, ..Connect::default() };
        (self.submit(process.port, Opcode::CONNECT_PEER, connect), block)
    }

    pub(crate) fn cancel(&mut self, port: usize, tag: u64) {
        assert_eq!(self.command(port, Opcode::CANCEL, Cancel { tag, ..Cancel::default() }), Status::SUCCESS);
    }

    pub(crate) fn target(&mut self, process: &Process, opcode: Opcode, object: u16) -> Status {
        let target = Target { context: process.context, object, ..Target::default() };
        self.command(process.port, opcode, target)
    }

    /// Posts a descriptor of one segment to a work queue.
    pub(crate) fn post_descriptor(
        &mut self,
        process: &Process,
        vi: u16,
        receive: bool,
        descriptor: &Descriptor,
    ) {
        let flags = if receive { TOKEN_RECEIVE } else { 0 };
        let guest = &self.guests[process.port];
        let token = if descriptor.segments.len() <= 2 && !descriptor.indirect {
            let mut body = InlineBody {
                descriptor_handle: descriptor.handle,
                control: descriptor.control,
                segment_count: u16::try_from(descriptor.segments.len()).expect("few"),
                immediate: descriptor.immediate,
                ..InlineBody::default()
            };
            body.segments[..descriptor.segments.len()].copy_from_slice(&descriptor.segments);
            Token::new(TokenKind::INLINE_DESCRIPTOR, vi, flags, descriptor.address, body)
        } else {
            guest.write_descriptor(descriptor);
            let body = IndirectBody { descriptor_handle: descriptor.handle, reserved: [0; 11] };
            Token::new(TokenKind::INDIRECT_DESCRIPTOR, vi, flags, descriptor.address, body)
        };
        self.post(process.port, &process.queues, process.context, &token);
    }

    /// The status of a descriptor.
    pub(crate) fn status(&self, port: usize, descriptor: &Descriptor) -> (DescriptorStatus, u32) {
        let control: ControlSegment = self.guests[port].memory.read(descriptor.physical).expect("in RAM");
        (DescriptorStatus::from_bits_retain(control.status), control.length)
    }
}

/// A process with the NIC open.
pub(crate) struct Process {
    pub(crate) port: usize,
    pub(crate) context: u16,
    pub(crate) queues: Queues,
}

/// A descriptor in a region of its own.
#[derive(Clone, Debug)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) physical: u64,
    pub(crate) handle: u32,
    pub(crate) control: u16,
    pub(crate) immediate: u32,
    pub(crate) segments: Vec<Segment>,
    pub(crate) indirect: bool,
}

/// A registered buffer. Virtual addresses are physical ones plus [`VIRTUAL`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffer {
    pub(crate) address: u64,
    pub(crate) physical: u64,
    pub(crate) handle: u32,
    pub(crate) length: u32,
}

/// What virtual addresses are ahead of physical ones in these guests.
pub(crate) const VIRTUAL: u64 = 0x7f00_0000_0000;

impl Guest {
    fn attach(port: usize, address: NicAddress) -> (Self, Card) {
        let ranges = [(GuestAddress(0), RAM), (GuestAddress(MODULE), MODULE_SIZE)];
        let map = GuestMemoryMmap::from_ranges(&ranges).expect("RAM");
        let memory = GuestMemory::new(Arc::new(map.clone()));
        let nic_memory = Arc::new(NicMemory::new().expect("NIC memory"));
        let mut next_free = 0x1000;
        let mut allocate = |size: usize| {
            let start = next_free;
            next_free = (start + size as u64).next_multiple_of(0x1000);
            start
        };
        let (token_table, mcq) = (allocate(table_size(TOKEN_LOG2)), allocate(mcq_size(MCQ_LOG2)));
        let mdl_insert = allocate(4);
        let mrt = allocate(MRT_ENTRY_SIZE * MRT_CHUNK_ENTRIES as usize);
        let request = AttachRequest {
            abi_version: ABI_VERSION,
            token_table_log2: TOKEN_LOG2,
            mcq_log2: MCQ_LOG2,
            reserved: 0,
            token_table,
            mcq,
            mdl_insert,
        };
        let card = Card::attach(address, nic_memory.clone(), memory.clone(), &request).expect("attach");
        let guest = Self {
            port,
            kernel: Queues::new(&memory, token_table, mcq),
            mdl_insert: memory.view(mdl_insert, 1).expect("in RAM"),
            memory,
            map,
            nic_memory,
            address,
            next_free: Cell::new(next_free),
            next_handle: Cell::new(1),
            next_tag: Cell::new(1),
            mrt,
            inserter: Default::default(),
            completed: Default::default(),
            events: Default::default(),
        };
        (guest, card)
    }

    pub(crate) fn allocate(&self, size: usize) -> u64 {
        let start = self.next_free.get();
        self.next_free.set((start + size as u64).next_multiple_of(0x1000));
        assert!(self.next_free.get() <= RAM as u64, "the guest's RAM is used up");
        start
    }

    fn queues(&self) -> Queues {
        let token_table = self.allocate(table_size(TOKEN_LOG2));
        let mcq = self.allocate(mcq_size(MCQ_LOG2));
        Queues::new(&self.memory, token_table, mcq)
    }

    /// The memory table without the module.
    pub(crate) fn without_module(&self) -> GuestMemory {
        let (map, _module) =
            self.map.remove_region(GuestAddress(MODULE), MODULE_SIZE as u64).expect("the module");
        GuestMemory::new(Arc::new(map))
    }

    fn outcome(&self, tag: u64) -> Option<Status> {
        while let Some((completion, stalled)) = self.kernel.reap() {
            assert!(!stalled, "these tests keep the kernel's MCQ empty");
            self.completed.borrow_mut().push(completion);
        }
        let mut completed = self.completed.borrow_mut();
        let i = completed.iter().position(|completion| completion.descriptor == tag)?;
        Some(Status(completed.remove(i).status))
    }

    /// Registers `length` bytes at `offset` into a page, on pages that do not follow each other.
    pub(crate) fn register(&self, context: u16, ptag: u32, offset: u64, length: u32) -> Buffer {
        let pages = (offset + u64::from(length)).div_ceil(0x1000).max(1);
        let physical = self.allocate(usize::try_from(pages * 0x1000).expect("64 bit"));
        self.register_at(context, ptag, physical + offset, length)
    }

    pub(crate) fn register_at(&self, context: u16, ptag: u32, physical: u64, length: u32) -> Buffer {
        let index = self.next_handle.get();
        self.next_handle.set(index + 1);
        self.register_as((index, 1), (context, ptag), physical, length)
    }

    /// As [`register_at`](Self::register_at), at an index of the MRT and in a generation of the caller's choice.
    pub(crate) fn register_as(
        &self,
        (index, generation): (u32, u32),
        (context, ptag): (u16, u32),
        physical: u64,
        length: u32,
    ) -> Buffer {
        let first = physical & !0xfff;
        let pages = (physical + u64::from(length) - first).div_ceil(0x1000);
        let count = usize::try_from(pages).expect("64 bit");
        let mut entry = MrtEntry {
            handle: handle(index, generation),
            ptag,
            context,
            page_shift: 12,
            virtual_address: VIRTUAL + physical,
            length: length.into(),
            page_count: pages,
            ..MrtEntry::default()
        };
        if pages <= INLINE_PAGES as u64 {
            for (page, address) in entry.pages.iter_mut().zip((first..).step_by(0x1000).take(count)) {
                *page = address;
            }
        } else {
            entry.page_directory = self.allocate(8 * count);
            for (number, address) in (0..pages).zip((first..).step_by(0x1000)) {
                if number % LEAF_PAGES == 0 {
                    let leaf = self.allocate(0x1000);
                    self.memory.write(entry.page_directory + number / LEAF_PAGES * 8, &leaf).expect("in RAM");
                }
                let leaf: u64 =
                    self.memory.read(entry.page_directory + number / LEAF_PAGES * 8).expect("in RAM");
                self.memory.write(leaf + number % LEAF_PAGES * 8, &address).expect("in RAM");
            }
        }
        self.write_mrt(index, &entry);
        Buffer { address: entry.virtual_address, physical, handle: entry.handle, length }
    }

    /// The MRT entry of a region.
    pub(crate) fn mrt_entry(&self, buffer: &Buffer) -> MrtEntry {
        let index = u64::from(vianic_abi::mrt::handle_index(buffer.handle));
        self.memory.read(self.mrt + index * MRT_ENTRY_SIZE as u64).expect("in RAM")
    }

    pub(crate) fn write_mrt(&self, index: u32, entry: &MrtEntry) {
        self.memory.write(self.mrt + u64::from(index) * MRT_ENTRY_SIZE as u64, entry).expect("in RAM");
    }

    /// Lets peers do to a region by RDMA what `access` says, and nothing else.
    pub(crate) fn allow(&self, buffer: &Buffer, allowed: u16) {
        let entry =
            self.mrt + u64::from(vianic_abi::mrt::handle_index(buffer.handle)) * MRT_ENTRY_SIZE as u64;
        let access = entry + std::mem::offset_of!(MrtEntry, access) as u64;
        self.memory.write(access, &allowed).expect("in RAM");
    }

    /// Gives a live region another tag and other permissions as the Kernel Agent does, up to DRAIN_MDL.
    pub(crate) fn change(&self, buffer: &Buffer, ptag: u32, access: u16) {
        let index = vianic_abi::mrt::handle_index(buffer.handle);
        let entry = self.mrt + u64::from(index) * MRT_ENTRY_SIZE as u64;
        let words: View<ShadowSlot> = self.memory.view(entry, 1).expect("in RAM");
        MrtSlot::<Native>::new(&words[0]).change(ptag, access);
        let list = self.nic_memory.mdl(&self.mdl_insert[0]);
        self.inserter.borrow_mut().insert(list, buffer.handle).expect("the MDL has room");
    }

    /// Deregisters as the Kernel Agent does.
    pub(crate) fn deregister(&self, buffer: &Buffer) {
        self.try_deregister(buffer).expect("the MDL has room");
    }

    /// As [`deregister`](Self::deregister).
    pub(crate) fn try_deregister(&self, buffer: &Buffer) -> Result<Insertion, Full> {
        let index = vianic_abi::mrt::handle_index(buffer.handle);
        self.memory.write(self.mrt + u64::from(index) * MRT_ENTRY_SIZE as u64, &0_u32).expect("in RAM");
        let list = self.nic_memory.mdl(&self.mdl_insert[0]);
        self.inserter.borrow_mut().insert(list, buffer.handle)
    }

    /// Whether the card has let go of what was deregistered.
    pub(crate) fn has_let_go(&self, insertion: Insertion) -> bool {
        self.inserter.borrow().has_let_go(self.nic_memory.mdl(&self.mdl_insert[0]), insertion)
    }

    pub(crate) fn set_mdl_insert(&self, value: u32) {
        self.mdl_insert[0].store(value, Ordering::Release);
    }

    /// A descriptor in its own region.
    pub(crate) fn descriptor(&self, context: u16, segments: Vec<Segment>) -> Descriptor {
        let size = u32::try_from(32 + 16 * segments.len()).expect("small");
        let region = self.register(context, PTAG, 64, size.max(64));
        let Buffer { address, physical, handle, .. } = region;
        Descriptor { address, physical, handle, control: 0, immediate: 0, segments, indirect: false }
    }

    pub(crate) fn write_descriptor(&self, descriptor: &Descriptor) {
        let control = ControlSegment {
            segment_count: u16::try_from(descriptor.segments.len()).expect("few"),
            control: descriptor.control,
            immediate: descriptor.immediate,
            ..ControlSegment::default()
        };
        self.memory.write(descriptor.physical, &control).expect("in RAM");
        for (i, segment) in descriptor.segments.iter().enumerate() {
            self.memory.write(descriptor.physical + 32 + 16 * i as u64, segment).expect("in RAM");
        }
    }

    pub(crate) fn fill(&self, buffer: &Buffer, seed: u8) {
        for i in 0..u64::from(buffer.length) {
            self.memory.write(buffer.physical + i, &pattern(seed, i)).expect("in RAM");
        }
    }

    pub(crate) fn holds(&self, buffer: &Buffer, length: u32, seed: u8) -> bool {
        (0..u64::from(length)).all(|i| self.memory.read::<u8>(buffer.physical + i) == Ok(pattern(seed, i)))
    }
}

impl Descriptor {
    /// The region that it is in.
    pub(crate) fn region(&self) -> Buffer {
        let length = u32::try_from(32 + 16 * self.segments.len()).expect("small").max(64);
        Buffer { address: self.address, physical: self.physical, handle: self.handle, length }
    }
}

pub(crate) fn pattern(seed: u8, i: u64) -> u8 {
    u8::try_from((i * 31 + i / 256 + u64::from(seed)) % 251).expect("below 251")
}

impl Buffer {
    /// The whole buffer as a segment.
    pub(crate) fn segment(&self) -> Segment {
        Segment { address: self.address, handle: self.handle, length: self.length }
    }
}

/// "No completion queue".
pub(crate) const NONE: u16 = NO_CQ;

pub(crate) const DELIVERY: ReliabilityLevel = ReliabilityLevel::RELIABLE_DELIVERY;
pub(crate) const OK_RECEIVE: DescriptorStatus = DescriptorStatus::DONE.union(DescriptorStatus::OP_RECEIVE);

/// Two processes on two cards with connected VIs 0, without completion queues.
pub(crate) fn pair(level: ReliabilityLevel) -> (Fabric, Process, Process) {
    let mut fabric = Fabric::new(2);
    let (a, b) = (fabric.open(0, 1), fabric.open(1, 1));
    fabric.create_vi(&a, 0, level, NONE);
    fabric.create_vi(&b, 0, level, NONE);
    fabric.connect((&a, 0), (&b, 0));
    (fabric, a, b)
}
