//! The vhost-user-backend crate's view of a connection.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserShMemConfig};
use vhost::vhost_user::{Backend as BackChannel, VhostUserVirtioFeatures};
use vhost_user_backend::VhostUserBackend;
use vianic_abi::{ATTACH_QUEUE, EVENT_QUEUE, QUEUE_COUNT};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventNotifier};

use super::connection::Connection;
use super::raw_fd::ExitEvent;
use super::vring::Vring;
use super::{Memory, config_space, shared_memory};

/// Entries that a virtqueue may have.
const MAX_QUEUE_SIZE: usize = 1024;

/// The queues whose kicks the crate's worker reads. The others are doorbells, which the engine reads itself.
const WORKER_QUEUES: u64 = 1 << EVENT_QUEUE | 1 << ATTACH_QUEUE;

/// A connection, as a `VhostUserDaemon` uses it.
#[derive(Clone)]
pub(super) struct Backend {
    connection: Arc<Connection>,
    exit: Arc<Mutex<Exit>>,
}

struct Exit {
    event: Option<ExitEvent>,
    /// Until the daemon asks for them.
    ends: Option<(EventConsumer, EventNotifier)>,
}

impl Backend {
    pub(super) fn new(connection: Arc<Connection>) -> io::Result<Self> {
        let (event, ends) = ExitEvent::new()?;
        let exit = Exit { event: Some(event), ends: Some(ends) };
        Ok(Self { connection, exit: Arc::new(Mutex::new(exit)) })
    }

    fn exit(&self) -> MutexGuard<'_, Exit> {
        self.exit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The exit event, if the daemon has taken its ends.
    pub(super) fn take_exit_event(&self) -> Option<ExitEvent> {
        let mut exit = self.exit();
        if exit.ends.is_some() { None } else { exit.event.take() }
    }
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        usize::from(QUEUE_COUNT)
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn acked_features(&self, _features: u64) {
        self.connection.features_acked();
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        // Not CONFIGURE_MEM_SLOTS and not STATUS: with them QEMU 11.1 ends in a crash.
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::BACKEND_SEND_FD
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::SHMEM
    }

    fn reset_device(&self) {
        self.connection.reset();
    }

    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        config_space::read(offset, size)
    }

    fn set_config(&self, _offset: u32, _buf: &[u8]) -> io::Result<()> {
        // Read-only; but a guest's write must not cost it the connection.
        Ok(())
    }

    fn update_memory(&self, _memory: Memory) -> io::Result<()> {
        self.connection.memory_changed();
        Ok(())
    }

    fn set_backend_req_fd(&self, back_channel: BackChannel) {
        self.connection.set_back_channel(back_channel);
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        vec![WORKER_QUEUES]
    }

    fn exit_event(&self, _thread_index: usize) -> Option<(EventConsumer, EventNotifier)> {
        self.exit().ends.take()
    }

    fn stop_vring(&self, _queue: u32) -> io::Result<()> {
        self.connection.queue_stopped();
        Ok(())
    }

    fn handle_event(&self, event: u16, _set: EventSet, _vrings: &[Vring], _thread: usize) -> io::Result<()> {
        match event {
            EVENT_QUEUE => self.connection.event_queue_event(),
            ATTACH_QUEUE => self.connection.attach_queue_event(),
            _ => {}
        }
        Ok(())
    }

    fn get_shmem_config(&self) -> io::Result<VhostUserShMemConfig> {
        Ok(shared_memory::config())
    }
}
