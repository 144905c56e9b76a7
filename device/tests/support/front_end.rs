//! A front end with a guest in it: what QEMU and the driver do.
#![expect(unsafe_code, reason = "a raw descriptor of the vhost crate is duplicated")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::fs::{MemfdFlags, memfd_create};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserMMap, VhostUserProtocolFeatures};
use vhost::vhost_user::{
    Frontend, FrontendReqHandler, VhostUserFrontend as _, VhostUserFrontendReqHandlerMut,
};
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData};
use vianic_abi::attach::{AttachReply, AttachRequest};
use vianic_abi::{ABI_VERSION, ATTACH_QUEUE, EVENT_QUEUE, QUEUE_COUNT};
use vm_memory::{
    Bytes as _, FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestRegionMmap,
    MmapRegion,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{LIMIT, wait_until};

/// Entries of each queue.
pub(crate) const QUEUE_SIZE: u16 = 16;
/// Bytes of guest RAM.
const RAM: usize = 4 << 20;
/// Where the rings of queue 0 are; those of the next are one page further.
const RINGS: u64 = 0x1_0000;
const AVAIL: u64 = 0x400;
const USED: u64 = 0x800;

/// Where the driver has its things.
pub(crate) const TOKEN_TABLE: u64 = 0x10_0000;
/// Bytes from there to the end of guest RAM.
const DRIVER_SIZE: usize = 3 << 20;
const MCQ: u64 = 0x20_0000;
const REQUEST: u64 = 0x30_0000;
const REPLY: u64 = 0x30_1000;
const MDL_INSERT: u64 = 0x30_2000;
const EVENTS: u64 = 0x30_3000;

/// A request to show NIC memory to the guest.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub(crate) request: VhostUserMMap,
    pub(crate) file: File,
}

/// What the front end does about a request to map NIC memory.
pub(crate) enum MapAnswer {
    Yes,
    No,
    /// Yes, but each only after a word.
    After(Receiver<()>),
}

struct BackChannel {
    mapped: Sender<Mapped>,
    answer: MapAnswer,
}

impl VhostUserFrontendReqHandlerMut for BackChannel {
    fn shmem_map(&mut self, request: &VhostUserMMap, file: &dyn AsRawFd) -> io::Result<u64> {
        // SAFETY: the crate owns the descriptor and keeps it open during the call.
        let file = unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) };
        let mapped = Mapped { request: *request, file: File::from(file.try_clone_to_owned()?) };
        let _ = self.mapped.send(mapped);
        match &self.answer {
            MapAnswer::Yes => Ok(0),
            MapAnswer::No => Err(io::ErrorKind::OutOfMemory.into()),
            MapAnswer::After(word) => word.recv().map(|()| 0).map_err(io::Error::other),
        }
    }
}

pub(crate) struct FrontEnd {
    pub(crate) frontend: Frontend,
    pub(crate) ram: GuestMemoryMmap,
    pub(crate) ram_file: Arc<File>,
    pub(crate) kicks: Vec<EventFd>,
    pub(crate) calls: Vec<EventFd>,
    pub(crate) mapped: Receiver<Mapped>,
    /// The card's end of the back channel.
    back_channel: UnixStream,
}

impl FrontEnd {
    /// Connects and agrees on the features.
    pub(crate) fn connect(socket: &Path) -> Self {
        Self::connect_with(socket, MapAnswer::Yes)
    }

    /// As [`Self::connect`], with another answer to requests to map NIC memory.
    pub(crate) fn connect_with(socket: &Path, answer: MapAnswer) -> Self {
        let mut frontend = Frontend::connect(socket, QUEUE_COUNT.into()).expect("connects");
        frontend.set_owner().expect("owner");
        assert_eq!(frontend.get_features().expect("features"), 0x1_4000_0000);
        // The crate of this front end takes protocol features for granted when it has acknowledged them here.
        frontend.set_features(0x1_4000_0000).expect("features");
        let features = frontend.get_protocol_features().expect("protocol features");
        assert_eq!(features.bits(), 0x40_2629);
        frontend.set_protocol_features(features).expect("protocol features");
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);

        let (mapped, receiver) = channel();
        let handler = Arc::new(Mutex::new(BackChannel { mapped, answer }));
        let mut handler = FrontendReqHandler::new(handler).expect("back channel");
        handler.set_reply_ack_flag(features.contains(VhostUserProtocolFeatures::REPLY_ACK));
        // SAFETY: the handler owns the descriptor and lives.
        let back_channel = unsafe { BorrowedFd::borrow_raw(handler.get_tx_raw_fd()) };
        let back_channel = UnixStream::from(back_channel.try_clone_to_owned().expect("duplicate"));
        frontend.set_backend_request_fd(&back_channel).expect("back channel");
        thread::spawn(move || {
            // A refusal comes back as an error of the handler, after it was sent.
            while !matches!(
                handler.handle_request(),
                Err(vhost::vhost_user::Error::Disconnected | vhost::vhost_user::Error::SocketBroken(_))
            ) {}
        });

        let ram_file = File::from(memfd_create("guest-ram", MemfdFlags::CLOEXEC).expect("memfd"));
        ram_file.set_len(RAM as u64).expect("length");
        let ram_file = Arc::new(ram_file);
        let region = MmapRegion::from_file(FileOffset::from_arc(ram_file.clone(), 0), RAM).expect("maps");
        let region = GuestRegionMmap::new(region, GuestAddress(0)).expect("region");
        let ram = GuestMemoryMmap::from_regions(vec![region]).expect("RAM");
        let event_fds = || (0..QUEUE_COUNT).map(|_| EventFd::new(EFD_NONBLOCK).expect("eventfd")).collect();
        Self {
            frontend,
            ram,
            ram_file,
            kicks: event_fds(),
            calls: event_fds(),
            mapped: receiver,
            back_channel,
        }
    }

    /// Tells where guest RAM is.
    pub(crate) fn set_memory(&self) {
        let regions: Vec<_> = self
            .ram
            .iter()
            .map(|region| VhostUserMemoryRegionInfo::from_guest_region(region).expect("has a file"))
            .collect();
        self.frontend.set_mem_table(&regions).expect("memory table");
    }

    /// Starts all queues, each at its base.
    pub(crate) fn start_queues(&mut self, bases: &[u16]) {
        self.set_memory();
        let ram = self.ram.iter().next().expect("RAM").as_ptr() as u64;
        for (queue, base) in bases.iter().enumerate() {
            let rings = ram + RINGS + queue as u64 * 0x1000;
            let addresses = VringConfigData {
                queue_max_size: QUEUE_SIZE,
                queue_size: QUEUE_SIZE,
                flags: 0,
                desc_table_addr: rings,
                avail_ring_addr: rings + AVAIL,
                used_ring_addr: rings + USED,
                log_addr: None,
            };
            self.frontend.set_vring_num(queue, QUEUE_SIZE).expect("size");
            self.frontend.set_vring_base(queue, *base).expect("base");
            self.frontend.set_vring_addr(queue, &addresses).expect("addresses");
            self.frontend.set_vring_kick(queue, &self.kicks[queue]).expect("kick");
            self.frontend.set_vring_call(queue, &self.calls[queue]).expect("call");
        }
        for queue in 0..bases.len() {
            self.frontend.set_vring_enable(queue, true).expect("enable");
        }
    }

    /// Starts all queues for a driver that is new: its rings are empty.
    pub(crate) fn start_driver(&mut self) {
        let rings = vec![0; usize::from(QUEUE_COUNT) * 0x1000];
        self.ram.write_slice(&rings, GuestAddress(RINGS)).expect("in RAM");
        let driver = vec![0; DRIVER_SIZE];
        self.ram.write_slice(&driver, GuestAddress(TOKEN_TABLE)).expect("in RAM");
        self.start_queues(&[0; QUEUE_COUNT as usize]);
    }

    /// Stops all queues and returns their bases.
    pub(crate) fn stop_queues(&mut self) -> Vec<u16> {
        for queue in 0..usize::from(QUEUE_COUNT) {
            self.frontend.set_vring_enable(queue, false).expect("disable");
        }
        let stop = |queue| {
            let base = self.frontend.get_vring_base(usize::from(queue)).expect("base");
            u16::try_from(base).expect("16 bits")
        };
        (0..QUEUE_COUNT).map(stop).collect()
    }

    /// The two mappings of NIC memory that the card asks for.
    #[track_caller]
    pub(crate) fn nic_memory(&self) -> [Mapped; 2] {
        let mapping = || self.mapped.recv_timeout(LIMIT).expect("the card has its memory mapped");
        [mapping(), mapping()]
    }

    pub(crate) fn kick(&self, queue: u16) {
        self.kicks[usize::from(queue)].write(1).expect("kick");
    }

    fn word(&self, address: u64) -> u16 {
        self.ram.read_obj(GuestAddress(address)).expect("in RAM")
    }

    /// Makes a chain of (address, length, for the device to write) available on `queue`.
    pub(crate) fn offer(&self, queue: u16, chain: &[(u64, u32, bool)]) {
        let rings = RINGS + u64::from(queue) * 0x1000;
        let index = self.word(rings + AVAIL + 2);
        let first = index.wrapping_mul(4) % QUEUE_SIZE;
        for (number, (address, length, write)) in (0..).zip(chain) {
            let more = usize::from(number) + 1 < chain.len();
            let descriptor = rings + u64::from(first + number) * 16;
            let flags = u16::from(more) | u16::from(*write) << 1;
            let write = |offset, bytes: &[u8]| {
                self.ram.write_slice(bytes, GuestAddress(descriptor + offset)).expect("in RAM");
            };
            write(0, &address.to_le_bytes());
            write(8, &length.to_le_bytes());
            write(12, &flags.to_le_bytes());
            write(14, &(first + number + 1).to_le_bytes());
        }
        let entry = rings + AVAIL + 4 + u64::from(index % QUEUE_SIZE) * 2;
        self.ram.write_obj(first, GuestAddress(entry)).expect("in RAM");
        self.ram.write_obj(index.wrapping_add(1), GuestAddress(rings + AVAIL + 2)).expect("in RAM");
    }

    /// Chains that came back on `queue`.
    pub(crate) fn used(&self, queue: u16) -> u16 {
        self.word(RINGS + u64::from(queue) * 0x1000 + USED + 2)
    }

    /// A request that the card can accept.
    pub(crate) fn attach_request() -> AttachRequest {
        AttachRequest {
            abi_version: ABI_VERSION,
            token_table_log2: 6,
            mcq_log2: 6,
            reserved: 0,
            token_table: TOKEN_TABLE,
            mcq: MCQ,
            mdl_insert: MDL_INSERT,
        }
    }

    /// Puts an attach request on its queue.
    pub(crate) fn request_attach(&self, request: &AttachRequest) {
        self.ram.write_slice(request.as_bytes(), GuestAddress(REQUEST)).expect("in RAM");
        self.offer(ATTACH_QUEUE, &[(REQUEST, 32, false), (REPLY, 8, true)]);
        self.kick(ATTACH_QUEUE);
    }

    /// Attaches and returns the answer.
    #[track_caller]
    pub(crate) fn attach(&self) -> AttachReply {
        let answered = self.used(ATTACH_QUEUE);
        self.request_attach(&Self::attach_request());
        self.attach_reply(answered)
    }

    /// The answer to an attach request, when so many were `answered` before.
    #[track_caller]
    pub(crate) fn attach_reply(&self, answered: u16) -> AttachReply {
        wait_until("the attach request is answered", || self.used(ATTACH_QUEUE) != answered);
        let mut reply = [0; 8];
        self.ram.read_slice(&mut reply, GuestAddress(REPLY)).expect("in RAM");
        AttachReply::read_from_bytes(&reply).expect("reply")
    }

    /// Offers buffers for events.
    pub(crate) fn offer_event_buffers(&self, count: u16) {
        for number in 0..count {
            self.offer(EVENT_QUEUE, &[(EVENTS + u64::from(number) * 8, 8, true)]);
        }
        self.kick(EVENT_QUEUE);
    }
}

impl Drop for FrontEnd {
    fn drop(&mut self) {
        let _ = self.back_channel.shutdown(std::net::Shutdown::Both);
    }
}
