//! The vhost-user front end: what QEMU and the driver's virtio bus do for the kernel module.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vhost::VhostBackend as _;
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, FrontendReqHandler, VhostUserFrontend as _};
use vhost::{VhostUserMemoryRegionInfo, VringConfigData};
use vianic_abi::nic_memory::{CONFIG_MAGIC, ConfigSpace};
use vianic_abi::{ABI_VERSION, MAX_CONTEXTS, QUEUE_COUNT};
use vmm_sys_util::eventfd::EventFd;
use zerocopy::FromBytes;

use super::link::no_such_nic;
use super::nic_memory::NicMemory;
use super::ram::Ram;
use crate::agent::AgentError;

/// The card answers each message within this time, or it is taken to be dead.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

const VIRTIO_F_VERSION_1: u64 = 1 << 32;

const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::BACKEND_REQ)
    .union(VhostUserProtocolFeatures::BACKEND_SEND_FD)
    .union(VhostUserProtocolFeatures::CONFIG)
    .union(VhostUserProtocolFeatures::SHMEM);

/// The connection to the card.
pub(super) struct FrontEnd {
    connection: Frontend,
    socket: UnixStream,
    /// Contexts that the card has.
    pub(super) contexts: u16,
}

/// A virtqueue as the card is started with it.
pub(super) struct Queue<'a> {
    pub(super) config: VringConfigData,
    /// Written to kick it.
    pub(super) kick: &'a EventFd,
    /// Written by the card when it has used a buffer.
    pub(super) call: &'a EventFd,
}

impl FrontEnd {
    /// Connects to the card at `path` and sees whether it is one of ours.
    pub(super) fn connect(path: &Path) -> Result<Self, AgentError> {
        let socket = UnixStream::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => no_such_nic(path, &error),
            _ => AgentError::Io { call: "connect to the card", source: error },
        })?;
        let prepare = || {
            socket.set_read_timeout(Some(ANSWER_LIMIT))?;
            socket.set_write_timeout(Some(ANSWER_LIMIT))?;
            socket.try_clone()
        };
        let clone =
            prepare().map_err(|source| AgentError::Io { call: "prepare the card's socket", source })?;
        let mut connection = Frontend::from_stream(clone, u64::from(QUEUE_COUNT));
        let contexts = negotiate(&mut connection)?;
        Ok(Self { connection, socket, contexts })
    }

    /// The channel on which the card asks for NIC memory to be mapped. Somebody must serve it before [`start`](Self::start).
    pub(super) fn open_back_end_channel(
        &mut self,
        nic_memory: Arc<NicMemory>,
    ) -> Result<FrontendReqHandler<NicMemory>, AgentError> {
        let mut channel = FrontendReqHandler::new(nic_memory).map_err(|error| unusable("SHMEM", &error))?;
        channel.set_reply_ack_flag(true);
        step("SET_BACKEND_REQ_FD", self.connection.set_backend_request_fd(&RawFd(channel.get_tx_raw_fd())))?;
        Ok(channel)
    }

    /// Gives the card guest RAM and the queues, and lets it work.
    pub(super) fn start(&mut self, ram: &Ram, queues: &[Queue<'_>]) -> Result<(), AgentError> {
        let features = VIRTIO_F_VERSION_1 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        step("SET_FEATURES", self.connection.set_features(features))?;
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: ram.size(),
            userspace_addr: ram.memory().base().addr().get() as u64,
            mmap_offset: 0,
            mmap_handle: ram.file().as_raw_fd(),
        };
        step("SET_MEM_TABLE", self.connection.set_mem_table(&[region]))?;
        for (index, queue) in queues.iter().enumerate() {
            step("SET_VRING_NUM", self.connection.set_vring_num(index, queue.config.queue_size))?;
            step("SET_VRING_BASE", self.connection.set_vring_base(index, 0))?;
            step("SET_VRING_ADDR", self.connection.set_vring_addr(index, &queue.config))?;
            step("SET_VRING_CALL", self.connection.set_vring_call(index, queue.call))?;
            step("SET_VRING_KICK", self.connection.set_vring_kick(index, queue.kick))?;
        }
        for index in 0..queues.len() {
            step("SET_VRING_ENABLE", self.connection.set_vring_enable(index, true))?;
        }
        Ok(())
    }

    /// Stops the queues: when it returns, the card touches guest RAM no more. A card that is gone does not either.
    pub(super) fn stop(&self) {
        for index in 0..usize::from(QUEUE_COUNT) {
            if let Err(error) = self.connection.get_vring_base(index) {
                log::debug!("the card went before it was stopped: {error}");
                return;
            }
        }
    }

    /// The socket, to see it hang up.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

struct RawFd(std::os::fd::RawFd);

impl AsRawFd for RawFd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0
    }
}

/// Agrees on features and reads the configuration space. Gives the number of contexts.
fn negotiate(connection: &mut Frontend) -> Result<u16, AgentError> {
    step("SET_OWNER", connection.set_owner())?;
    let features = step("GET_FEATURES", connection.get_features()).map_err(|error| {
        AgentError::Unusable(format!(
            "{error}; perhaps another program or a VM has this card: a card serves one at a time"
        ))
    })?;
    let needed = VIRTIO_F_VERSION_1 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
    if features & needed != needed {
        return Err(AgentError::Unusable(format!("the card offers the virtio features {features:#x} only")));
    }
    let offered = step("GET_PROTOCOL_FEATURES", connection.get_protocol_features())?;
    if !offered.contains(PROTOCOL_FEATURES) {
        return Err(AgentError::Unusable(format!("the card offers the protocol features {offered:?} only")));
    }
    step("SET_PROTOCOL_FEATURES", connection.set_protocol_features(PROTOCOL_FEATURES))?;
    connection.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    let queues = step("GET_QUEUE_NUM", connection.get_queue_num())?;
    if queues < u64::from(QUEUE_COUNT) {
        return Err(AgentError::Unusable(format!("the card has {queues} queues only")));
    }
    let buffer = [0; size_of::<ConfigSpace>()];
    let size = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
    let (_, bytes) =
        step("GET_CONFIG", connection.get_config(0, size, VhostUserConfigFlags::WRITABLE, &buffer))?;
    let config = ConfigSpace::read_from_bytes(&bytes)
        .map_err(|_| AgentError::Unusable("the card's configuration space is too short".into()))?;
    if config.magic != CONFIG_MAGIC {
        return Err(AgentError::Unusable("the device behind the socket is not a VIA NIC".into()));
    }
    if config.abi_version != ABI_VERSION {
        return Err(AgentError::Unusable(format!(
            "the card is of version {}, this library of version {ABI_VERSION}; install the same release of both",
            config.abi_version
        )));
    }
    Ok(u16::try_from(config.contexts).unwrap_or(MAX_CONTEXTS).min(MAX_CONTEXTS))
}

fn step<T>(name: &'static str, result: vhost::Result<T>) -> Result<T, AgentError> {
    result.map_err(|error| unusable(name, &error))
}

fn unusable(step: &str, error: &dyn std::fmt::Display) -> AgentError {
    AgentError::Unusable(format!("the card failed at {step}: {error}"))
}
