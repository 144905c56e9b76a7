//! The engine: one thread that runs all cards of a process. It turns eventfds into doorbells, gives the cards their turns
//! and the time, and carries out what the vhost-user side asks.

mod crowding;
mod inbox;
mod poll_times;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use event_manager::{EventManager, SubscriberOps as _};
use thiserror::Error;
use vianic_abi::attach::AttachRequest;
use vianic_abi::event::Event;
use vianic_abi::status::Status;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::engine::crowding::Crowding;
use crate::engine::inbox::Inbox;
use crate::engine::poll_times::PollTimes;
use crate::guest_memory::GuestMemory;
use crate::nic::hostility::Hostility;
use crate::nic::memory::NicMemory;
use crate::nic::pacing::{Limits, Poll};
use crate::nic::{Card, registers};
use crate::port::faults::{Counts, Plan};
use crate::port::switch::Switch;
use crate::rate_limit::info_limited;
use crate::vito::frame::NicAddress;

/// Which card of the process.
pub type NicId = usize;

/// A card to be.
#[derive(Clone, Debug)]
pub struct NicConfig {
    /// Its address on the fabric.
    pub address: NicAddress,
    /// Its memory.
    pub memory: Arc<NicMemory>,
    /// Of its copying and polling.
    pub limits: Limits,
    /// For tests: how hard it is on its Kernel Agent.
    pub hostility: Option<Hostility>,
}

/// What the vhost-user side gives a card to reach its guest with.
pub struct HostSide {
    /// Guest RAM.
    pub memory: GuestMemory,
    /// Doorbells, by context.
    pub doorbells: Vec<EventFd>,
    /// The event queue.
    pub events: Box<dyn EventSink>,
}

impl fmt::Debug for HostSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostSide").field("doorbells", &self.doorbells.len()).finish_non_exhaustive()
    }
}

/// The event queue, as the engine's thread uses it.
pub trait EventSink: Send {
    /// Puts an event into the queue. `false`: the guest offers no buffer now.
    fn push(&mut self, event: Event) -> bool;
    /// Interrupts the guest for what was put in, if it wants to be.
    fn notify(&mut self);
    /// The guest's memory is mapped anew.
    fn memory_changed(&mut self, memory: GuestMemory);
}

/// Why the engine did not start.
#[derive(Debug, Error)]
pub enum EngineError {
    /// An eventfd, epoll or the thread could not be made.
    #[error("cannot start the engine: {0}")]
    Start(#[from] io::Error),
    /// The event manager failed.
    #[error("cannot watch for events: {0}")]
    Watch(#[from] event_manager::Error),
}

/// What the engine is asked.
enum Request {
    Attach(NicId, AttachRequest, HostSide, Sender<Status>),
    Pause(NicId, Sender<()>),
    Resume(NicId, HostSide, Sender<()>),
    Reset(NicId, Sender<()>),
    UpdateMemory(NicId, GuestMemory, Sender<()>),
    EventBuffers(NicId),
    SettleTimes(Sender<()>),
    Faults(Sender<Vec<Option<(Plan, Counts)>>>),
    SetFaults(NicId, Option<Plan>, Sender<()>),
    Stop,
}

/// The running engine.
#[derive(Debug)]
pub struct Engine {
    handle: EngineHandle,
    thread: JoinHandle<()>,
}

/// What the vhost-user side holds of the engine.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    requests: Sender<Request>,
    wake: Arc<EventFd>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Request")
    }
}

impl Engine {
    /// Starts the thread. The cards' registers can be read from here on.
    ///
    /// # Errors
    /// If an eventfd, epoll or the thread cannot be made.
    pub fn start(nics: Vec<NicConfig>) -> Result<Self, EngineError> {
        let (requests, inbox) = channel();
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        for nic in &nics {
            nic.memory.write_registers(&registers(nic.address));
        }
        let (ready, started) = channel();
        let waker = wake.clone();
        let thread =
            thread::Builder::new().name("vianic-engine".into()).spawn(move || {
                match Runner::new(nics, inbox, waker) {
                    Ok(mut runner) => {
                        let _ = ready.send(Ok(()));
                        runner.run();
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            })?;
        started.recv().map_err(io::Error::other)??;
        Ok(Self { handle: EngineHandle { requests, wake }, thread })
    }

    /// What the vhost-user side holds.
    #[must_use]
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Ends the thread.
    pub fn stop(self) {
        self.handle.send(Request::Stop);
        if self.thread.join().is_err() {
            log::error!("the engine's thread panicked");
        }
    }
}

impl EngineHandle {
    fn send(&self, request: Request) {
        // An engine that is gone answers nothing: the reply channel is dropped, which every caller sees.
        if self.requests.send(request).is_ok()
            && let Err(error) = self.wake.write(1)
        {
            log::error!("cannot wake the engine: {error}");
        }
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = channel();
        self.send(request(reply));
        answer.recv().ok()
    }

    /// A driver attaches: context 0 comes alive. Returns the status to answer it with.
    #[must_use]
    pub fn attach(&self, nic: NicId, request: AttachRequest, host: HostSide) -> Status {
        self.ask(|reply| Request::Attach(nic, request, host, reply)).unwrap_or(Status::NIC_FAILED)
    }

    /// The queues stopped. When this returns, the engine touches no guest memory and no event queue of this card until
    /// [`resume`](Self::resume) or [`attach`](Self::attach). The card's state is kept.
    pub fn pause(&self, nic: NicId) {
        let _ = self.ask(|reply| Request::Pause(nic, reply));
    }

    /// The queues run again after a pause.
    pub fn resume(&self, nic: NicId, host: HostSide) {
        let _ = self.ask(|reply| Request::Resume(nic, host, reply));
    }

    /// The driver is gone: its card is as new, its peers lose their connections.
    pub fn reset(&self, nic: NicId) {
        let _ = self.ask(|reply| Request::Reset(nic, reply));
    }

    /// The guest's memory is mapped anew. When this returns, the old mapping is no longer used.
    pub fn update_memory(&self, nic: NicId, memory: GuestMemory) {
        let _ = self.ask(|reply| Request::UpdateMemory(nic, memory, reply));
    }

    /// Brings the cards' counters of time up to now.
    pub fn settle_times(&self) {
        let _ = self.ask(Request::SettleTimes);
    }

    /// The faults of the cards' links, card by card: what is still to come of the plan, and what was done.
    #[must_use]
    pub fn faults(&self) -> Vec<Option<(Plan, Counts)>> {
        self.ask(Request::Faults).unwrap_or_default()
    }

    /// Gives a card's link a plan of faults from its beginning, or makes it sound. It holds from when this returns.
    pub fn set_faults(&self, nic: NicId, plan: Option<Plan>) {
        let _ = self.ask(|reply| Request::SetFaults(nic, plan, reply));
    }

    /// The guest offered buffers for events.
    pub fn event_buffers(&self, nic: NicId) {
        self.send(Request::EventBuffers(nic));
    }
}

/// Nanoseconds between looks at the eventfds while some card keeps the engine busy: what a doorbell of another card may have
/// to wait.
const LOOK_INTERVAL: u64 = 20_000;

/// Turns between looks at the clock.
const TURNS_PER_TICK: u32 = 8;

/// The engine's thread.
struct Runner {
    nics: Vec<NicConfig>,
    switch: Switch,
    sinks: Vec<Option<Box<dyn EventSink>>>,
    times: Vec<PollTimes>,
    requests: Receiver<Request>,
    manager: EventManager<Inbox>,
    inbox: event_manager::SubscriberId,
    start: Instant,
    crowding: Crowding,
    stop: bool,
}

impl Runner {
    fn new(
        nics: Vec<NicConfig>,
        requests: Receiver<Request>,
        wake: Arc<EventFd>,
    ) -> Result<Self, EngineError> {
        let mut manager = EventManager::new()?;
        let inbox = manager.add_subscriber(Inbox::new(wake));
        Ok(Self {
            switch: Switch::new(nics.iter().map(|nic| nic.address)),
            sinks: nics.iter().map(|_| None).collect(),
            times: vec![PollTimes::asleep(0); nics.len()],
            nics,
            requests,
            manager,
            inbox,
            start: Instant::now(),
            crowding: Crowding::default(),
            stop: false,
        })
    }

    fn run(&mut self) {
        while !self.stop {
            let poll = self.turns();
            let timeout = if poll == Poll::Asleep {
                self.crowding.worked();
                -1
            } else {
                0
            };
            if poll == Poll::Spaced {
                // Somebody else may have better use of the processor: a guest that shares it, above all.
                thread::yield_now();
            }
            if let Err(error) = self.manager.run_with_timeout(timeout) {
                log::error!("the engine cannot wait for events: {error}");
                return;
            }
            self.take_doorbells();
            while let Ok(request) = self.requests.try_recv() {
                self.serve(request);
            }
        }
    }

    /// Gives the cards turns until it is time to look at the eventfds.
    fn turns(&mut self) -> Poll {
        let begin = self.now();
        let mut now = begin;
        let mut turns = 0_u32;
        let mut worked = false;
        loop {
            let (next, moved) = self.turn(now);
            worked |= moved;
            turns += 1;
            if next < Poll::Busy || turns.is_multiple_of(TURNS_PER_TICK) {
                now = self.now();
                // Work takes its time; between turns without any, time passes only while somebody else has the processor.
                if std::mem::take(&mut worked) {
                    self.crowding.worked();
                } else {
                    self.crowding.idle(now);
                }
                if next < Poll::Busy || now.saturating_sub(begin) >= LOOK_INTERVAL {
                    return next;
                }
            }
            if !moved {
                std::hint::spin_loop();
            }
        }
    }

    /// Gives each card that may have something to do a turn, and carries what they have to say to each other. How soon the next
    /// turn is due, and whether anything moved.
    fn turn(&mut self, now: u64) -> (Poll, bool) {
        let mut next = Poll::Asleep;
        let patience = self.crowding.patience();
        let mut n = 0;
        while let Some(nic) = self.switch.awake(n) {
            n += 1;
            if let Some(card) = self.switch.running(nic) {
                let poll = card.turn(now, patience);
                self.times[nic].enter(poll, now, &self.nics[nic].memory);
                next = next.max(poll);
            }
        }
        let moved = self.switch.exchange();
        let mut n = 0;
        while let Some(nic) = self.switch.awake(n) {
            n += 1;
            self.deliver_events(nic);
        }
        if moved {
            return (Poll::Busy, true);
        }
        if next == Poll::Asleep {
            self.switch.put_to_rest();
        }
        (next, false)
    }

    /// Nanoseconds since the engine started.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn deliver_events(&mut self, nic: NicId) {
        if let Some(card) = self.switch.running(nic)
            && !card.events().is_empty()
            && let Some(sink) = &mut self.sinks[nic]
            && card.events().deliver(|event| sink.push(event))
        {
            sink.notify();
        }
    }

    fn take_doorbells(&mut self) {
        let Ok(inbox) = self.manager.subscriber_mut(self.inbox) else {
            return;
        };
        for (nic, context) in inbox.take_rung() {
            if let Some(card) = self.switch.running(nic) {
                card.doorbell(context);
            }
        }
    }

    fn watch(&mut self, nic: NicId, doorbells: Vec<EventFd>) {
        for doorbell in &doorbells {
            // Front ends signal every queue when they start it: that is no doorbell. A real one that goes with it is
            // not missed, as a card that attaches or resumes looks at its contexts anyway.
            let _ = doorbell.read();
        }
        let watched =
            self.manager.event_ops(self.inbox).map(|mut ops| Inbox::watch(&mut ops, nic, &doorbells));
        match watched {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => {
                log::error!("NIC {nic}: cannot watch its doorbells: {error}")
            }
        }
        if let Ok(inbox) = self.manager.subscriber_mut(self.inbox) {
            inbox.keep(nic, doorbells);
        }
    }

    fn unwatch(&mut self, nic: NicId) {
        let doorbells =
            self.manager.subscriber_mut(self.inbox).map(|inbox| inbox.release(nic)).unwrap_or_default();
        if let Ok(mut ops) = self.manager.event_ops(self.inbox) {
            Inbox::unwatch(&mut ops, nic, &doorbells);
        }
        self.sinks[nic] = None;
    }

    fn serve(&mut self, request: Request) {
        // A caller that has gone away does not miss its answer.
        match request {
            Request::Attach(nic, request, host, reply) => {
                let _ = reply.send(self.attach(nic, &request, host));
            }
            Request::Pause(nic, reply) => {
                self.unwatch(nic);
                self.switch.pause(nic);
                let now = self.now();
                self.times[nic].enter(Poll::Asleep, now, &self.nics[nic].memory);
                let _ = reply.send(());
            }
            Request::Resume(nic, host, reply) => {
                self.resume(nic, host);
                let _ = reply.send(());
            }
            Request::Reset(nic, reply) => {
                self.unwatch(nic);
                self.switch.remove(nic);
                let _ = reply.send(());
            }
            Request::UpdateMemory(nic, memory, reply) => {
                if let Some(card) = self.switch.running(nic) {
                    card.remap(&memory);
                }
                if let Some(sink) = &mut self.sinks[nic] {
                    sink.memory_changed(memory);
                }
                let _ = reply.send(());
            }
            Request::EventBuffers(nic) => self.deliver_events(nic),
            Request::SettleTimes(reply) => {
                let now = self.now();
                for (times, nic) in self.times.iter_mut().zip(&self.nics) {
                    times.settle(now, &nic.memory);
                }
                let _ = reply.send(());
            }
            Request::Faults(reply) => {
                let faults = |nic| self.switch.faults(nic).map(|faults| (faults.plan(), faults.counts()));
                let _ = reply.send((0..self.switch.len()).map(faults).collect());
            }
            Request::SetFaults(nic, plan, reply) => {
                self.switch.set_faults(nic, plan);
                let _ = reply.send(());
            }
            Request::Stop => self.stop = true,
        }
    }

    fn attach(&mut self, nic: NicId, request: &AttachRequest, host: HostSide) -> Status {
        if !self.switch.is_vacant(nic) {
            return Status::INVALID_STATE;
        }
        let NicConfig { address, memory, limits, hostility } = self.nics[nic].clone();
        match Card::attach(address, memory, host.memory, request) {
            Ok(mut card) => {
                if let Some(hostility) = hostility {
                    card.set_hostility(hostility);
                }
                card.set_limits(limits);
                self.times[nic] = PollTimes::asleep(self.now());
                self.switch.insert(nic, card);
                self.sinks[nic] = Some(host.events);
                self.watch(nic, host.doorbells);
                info_limited!("NIC {address}: a driver has attached");
                Status::SUCCESS
            }
            Err(status) => status,
        }
    }

    fn resume(&mut self, nic: NicId, host: HostSide) {
        let Some(card) = self.switch.resume(nic) else {
            return;
        };
        card.remap(&host.memory);
        card.look_at_all();
        self.sinks[nic] = Some(host.events);
        self.watch(nic, host.doorbells);
    }
}
