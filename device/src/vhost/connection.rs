//! What happens between a front end's arrival and its leaving: the life of a driver, as far as the queues show it.

use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use vhost::vhost_user::Backend as BackChannel;
use vhost_user_backend::VringT as _;
use vianic_abi::attach::AttachRequest;
use vianic_abi::status::Status;
use vianic_abi::{ATTACH_QUEUE, EVENT_QUEUE, MAX_CONTEXTS, doorbell_queue};
use vm_memory::GuestAddressSpace as _;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::event_queue::EventQueue;
use super::vring::Vring;
use super::{Card, Memory, attach, raw_fd, shared_memory};
use crate::engine::HostSide;
use crate::guest_memory::GuestMemory;
use crate::nic::memory::NicMemory;
use crate::rate_limit::info_limited;

/// A front end's connection.
pub(super) struct Connection {
    name: String,
    card: Arc<dyn Card>,
    nic_memory: Arc<NicMemory>,
    memory: Memory,
    vrings: OnceLock<Vec<Vring>>,
    /// Context 0's doorbell: its queue's kicks arrive here, for they are read by the crate's worker.
    doorbell: EventFd,
    state: Mutex<State>,
}

struct State {
    driver: Driver,
    mapping: Mapping,
    mappings_asked: u64,
    back_channel: Option<BackChannel>,
    /// Held by this connection and its mappers; whoever waits for the mappers sees it go.
    mapper_token: Option<Sender<()>>,
    features_acked: bool,
    memory_told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    /// None has attached.
    None,
    /// One has, and the queues run.
    Attached,
    /// One has, and the queues stopped.
    Paused,
}

/// Whether the guest sees NIC memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mapping {
    Unknown,
    /// Request number so and so is on its way.
    Asked(u64),
    Mapped,
    Failed,
}

impl Connection {
    pub(super) fn new(
        name: String,
        card: Arc<dyn Card>,
        nic_memory: Arc<NicMemory>,
        memory: Memory,
        mapper_token: Sender<()>,
    ) -> io::Result<Self> {
        Ok(Self {
            name,
            card,
            nic_memory,
            memory,
            vrings: OnceLock::new(),
            doorbell: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            state: Mutex::new(State {
                driver: Driver::None,
                mapping: Mapping::Unknown,
                mappings_asked: 0,
                back_channel: None,
                mapper_token: Some(mapper_token),
                features_acked: false,
                memory_told: false,
            }),
        })
    }

    /// Hands over the virtqueues, by number.
    pub(super) fn set_vrings(&self, vrings: Vec<Vring>) {
        // Set once, by the server, before the front end can send anything.
        let _ = self.vrings.set(vrings);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vring(&self, queue: u16) -> Option<&Vring> {
        self.vrings.get()?.get(usize::from(queue))
    }

    /// The front end is about to start the queues.
    pub(super) fn features_acked(&self) {
        let mut state = self.lock();
        self.expect_memory(&state);
        state.features_acked = true;
    }

    pub(super) fn set_back_channel(&self, back_channel: BackChannel) {
        self.lock().back_channel = Some(back_channel);
    }

    /// The guest's memory table changed.
    pub(super) fn memory_changed(&self) {
        // Under the lock, so that an attach does not hand the card a table older than this one.
        let mut state = self.lock();
        state.memory_told = true;
        self.card.update_memory(self.guest_memory());
    }

    /// The event queue was kicked or enabled.
    pub(super) fn event_queue_event(&self) {
        if self.lock().driver == Driver::Attached {
            self.card.event_buffers();
        }
    }

    /// The attach queue, whose kicks are context 0's doorbell too, was kicked or enabled.
    pub(super) fn attach_queue_event(self: &Arc<Self>) {
        let mut state = self.lock();
        self.run_attach_queue(&mut state);
        if state.driver == Driver::Attached
            && let Err(error) = self.doorbell.write(1)
            && error.kind() != io::ErrorKind::WouldBlock
        {
            log::error!("{}: cannot ring the doorbell of context 0: {error}", self.name);
        }
    }

    /// A queue stopped. The front end stops them all, for a pause and for a reset alike.
    pub(super) fn queue_stopped(&self) {
        let mut state = self.lock();
        if state.driver == Driver::Attached {
            self.card.pause();
            state.driver = Driver::Paused;
        }
        state.mapping = Mapping::Unknown;
    }

    /// Drops everything of the driver before.
    pub(super) fn reset(&self) {
        let mut state = self.lock();
        self.card.reset();
        state.driver = Driver::None;
        state.mapping = Mapping::Unknown;
    }

    /// The front end is gone and the crate's threads have ended. Lets go of the back channel; the token goes when the
    /// last mapper has ended.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.back_channel = None;
        state.mapper_token = None;
        state.mapping = Mapping::Unknown;
        self.card.reset();
        state.driver = Driver::None;
        self.expect_memory(&state);
    }

    /// A front end that would have started the queues and has told no memory had none to tell.
    fn expect_memory(&self, state: &State) {
        if state.features_acked && !state.memory_told {
            log::warn!(
                "{}: the front end told no guest memory. The VM's memory must be shared with the card: start QEMU with \
                 `-object memory-backend-memfd,id=m,size=SIZE,share=on -machine q35,memory-backend=m -m SIZE`",
                self.name
            );
        }
    }

    fn run_attach_queue(self: &Arc<Self>, state: &mut State) {
        let Some(ring) = self.vring(ATTACH_QUEUE).filter(|ring| ring.is_running()) else { return };
        if state.driver == Driver::Paused {
            self.restart(state, ring);
        }
        match state.mapping {
            Mapping::Unknown => self.find_mapping(state),
            Mapping::Asked(_) | Mapping::Mapped | Mapping::Failed => {}
        }
        // Until NIC memory is mapped, a request stays on the queue.
        if !matches!(state.mapping, Mapping::Mapped | Mapping::Failed) {
            return;
        }
        attach::serve(ring, &self.memory, |request| self.attach(state, request));
    }

    fn attach(&self, state: &mut State, request: AttachRequest) -> Status {
        if state.mapping == Mapping::Failed {
            return Status::ERROR_RESOURCE;
        }
        if state.driver != Driver::None {
            return Status::INVALID_STATE;
        }
        let status = match self.host_side() {
            Ok(host) => self.card.attach(request, host),
            Err(error) => {
                log::error!("{}: cannot attach the driver: {error}", self.name);
                Status::ERROR_RESOURCE
            }
        };
        if status == Status::SUCCESS {
            state.driver = Driver::Attached;
        } else {
            info_limited!("{}: a driver was not attached: {status:?}", self.name);
        }
        status
    }

    /// The queues run again after a stop, for the same driver or for another one.
    fn restart(&self, state: &mut State, ring: &Vring) {
        if ring.queue_next_avail() == 0 {
            info_limited!("{}: the driver is gone", self.name);
            self.card.reset();
            state.driver = Driver::None;
            return;
        }
        match self.host_side() {
            Ok(host) => {
                self.card.resume(host);
                state.driver = Driver::Attached;
                info_limited!("{}: the driver goes on", self.name);
            }
            Err(error) => {
                log::error!("{}: cannot go on after the pause, so the card is reset: {error}", self.name);
                self.card.reset();
                state.driver = Driver::None;
            }
        }
    }

    fn guest_memory(&self) -> GuestMemory {
        GuestMemory::new(self.memory.memory().into_inner())
    }

    fn host_side(&self) -> io::Result<HostSide> {
        let ring = self.vring(EVENT_QUEUE).ok_or_else(|| io::Error::other("no event queue"))?;
        Ok(HostSide {
            memory: self.guest_memory(),
            doorbells: (0..MAX_CONTEXTS).map(|context| self.doorbell(context)).collect::<io::Result<_>>()?,
            events: Box::new(EventQueue::new(ring.clone(), self.memory.clone())),
        })
    }

    fn doorbell(&self, context: u16) -> io::Result<EventFd> {
        let queue = doorbell_queue(context);
        if queue == ATTACH_QUEUE {
            return self.doorbell.try_clone();
        }
        match self.vring(queue).map(Vring::kick).transpose()?.flatten() {
            Some(kick) => Ok(raw_fd::event_fd(kick)),
            // A driver that did not set this queue up has nothing to ring.
            None => EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC),
        }
    }

    /// Has NIC memory mapped unless it is.
    fn find_mapping(self: &Arc<Self>, state: &mut State) {
        if shared_memory::is_mapped(&self.memory.memory(), &self.nic_memory) {
            log::debug!("{}: the guest sees the NIC's memory already", self.name);
            state.mapping = Mapping::Mapped;
            return;
        }
        let (Some(front_end), Some(token)) = (state.back_channel.clone(), state.mapper_token.clone()) else {
            state.mapping = self.mapping_failed("it gave no back channel");
            return;
        };
        state.mappings_asked += 1;
        let request = state.mappings_asked;
        let this = self.clone();
        let mapper = move || {
            let result = shared_memory::map(&front_end, &this.nic_memory);
            drop(front_end);
            this.mapping_answered(request, result);
            drop(this);
            drop(token);
        };
        state.mapping = match thread::Builder::new().name("map-nic-memory".to_owned()).spawn(mapper) {
            Ok(_) => Mapping::Asked(request),
            Err(error) => self.mapping_failed(&error.to_string()),
        };
    }

    fn mapping_answered(self: &Arc<Self>, request: u64, result: io::Result<()>) {
        let mut state = self.lock();
        if state.mapping != Mapping::Asked(request) {
            return; // The queues stopped meanwhile, or the front end is gone.
        }
        log::debug!("{}: the front end was asked to map the NIC's memory: {result:?}", self.name);
        state.mapping = match result {
            Ok(()) => Mapping::Mapped,
            Err(_) if shared_memory::is_mapped(&self.memory.memory(), &self.nic_memory) => Mapping::Mapped,
            Err(error) => self.mapping_failed(&error.to_string()),
        };
        self.run_attach_queue(&mut state);
    }

    fn mapping_failed(&self, why: &str) -> Mapping {
        log::error!(
            "{}: the front end did not map the NIC's memory: {why}. The card needs QEMU 11.1 or later and its device \
             vhost-user-test-device-pci",
            self.name
        );
        Mapping::Failed
    }
}
