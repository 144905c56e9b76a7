//! This process's context on a NIC: what all VIs and completion queues of one NIC handle share.
//!
//! Locks are taken in this order: a work queue's producer, its consumer, the [`Reaper`], and then any one of a completion
//! queue, a VI's state, the asynchronous errors. The [`notify`](crate::notify) registrations' comes before all of them. None is
//! held across a call that sleeps.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use vianic_abi::completion::{self, COMPLETION_RECEIVE, Completion, CompletionKind, Consumer};
use vianic_abi::nic_memory::NRA_WORDS;
use vianic_abi::status::{ErrorCode, Status};
use vianic_abi::sync::{CacheLine, Native};
use vianic_abi::token::Token;
use vianic_abi::token_table::{Doorbell, Reservation};
use vianic_abi::{MAX_CQ, MAX_DESCRIPTORS_PER_QUEUE, MAX_VI};

use crate::agent::{Agent, AgentError, NicInfo};
use crate::async_error::{AsyncError, AsyncErrors};
use crate::connect::RequestId;
use crate::cq::CqObject;
use crate::descriptor::Queue;
use crate::error::{Error, Result};
use crate::handle::Key;
use crate::mapping::ContextMemory;
use crate::memory::{RegisteredRegion, TagId};
use crate::nic::NicId;
use crate::notify::Notifications;
use crate::settings::Settings;
use crate::spins::Spins;
use crate::vi::ViObject;
use crate::work_queue::Refusal;

/// How long a poster waits for a full Token Table in which nothing moves.
const FULL_TABLE_LIMIT: Duration = Duration::from_secs(10);

/// Looks at a full Token Table before the processor is given away between them.
const FULL_TABLE_SPINS: u32 = 100;

pub(crate) struct Context {
    /// The NIC handle.
    pub(crate) nic: NicId,
    pub(crate) agent: Arc<dyn Agent>,
    pub(crate) memory: ContextMemory,
    pub(crate) info: NicInfo,
    pub(crate) settings: Settings,
    pub(crate) errors: AsyncErrors,
    pub(crate) notifications: Notifications,
    /// Registered regions by handle.
    pub(crate) regions: Mutex<HashMap<u32, RegisteredRegion>>,
    /// Held while attributes of a region are being changed.
    pub(crate) changing_memory: Mutex<()>,
    pub(crate) belongings: Belongings,
    max_descriptors: u32,
    max_segments: u16,
    /// How often each NRA word has fired, as far as known.
    fired: Box<[AtomicU32]>,
    spins: Spins,
    reaper: Mutex<Reaper>,
    /// Descriptors posted to work queues with a completion queue since the MCQ was last emptied.
    posts_since_drain: CacheLine<AtomicU32>,
    failed: AtomicBool,
    closed: AtomicBool,
}

/// Whoever empties the MCQ.
pub(crate) struct Reaper {
    consumer: Consumer,
    /// By VI number.
    vis: Vec<Option<Arc<ViObject>>>,
    /// By CQ number.
    cqs: Vec<Option<Arc<CqObject>>>,
}

impl Context {
    pub(crate) fn open(nic: NicId, agent: Arc<dyn Agent>, settings: Settings) -> Result<Arc<Self>> {
        let info = agent.query_nic()?;
        let memory = agent.open_context()?;
        Ok(Arc::new(Self {
            max_descriptors: info.registers.max_descriptors.min(MAX_DESCRIPTORS_PER_QUEUE),
            max_segments: info.registers.max_segments,
            fired: (0..NRA_WORDS).map(|_| AtomicU32::new(0)).collect(),
            spins: Spins::new(settings.spin),
            reaper: Mutex::new(Reaper {
                consumer: Consumer::new(),
                vis: vec![None; MAX_VI.into()],
                cqs: vec![None; MAX_CQ.into()],
            }),
            posts_since_drain: CacheLine(AtomicU32::new(0)),
            failed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            errors: AsyncErrors::default(),
            notifications: Notifications::default(),
            regions: Mutex::default(),
            changing_memory: Mutex::default(),
            belongings: Belongings::default(),
            nic,
            agent,
            memory,
            info,
            settings,
        }))
    }

    #[inline]
    pub(crate) fn max_descriptors(&self) -> u32 {
        self.max_descriptors
    }

    #[inline]
    pub(crate) fn max_segments(&self) -> u16 {
        self.max_segments
    }

    // Posting

    /// Takes an entry of the Token Table, to be published.
    #[inline]
    pub(crate) fn reserve(&self) -> Result<Reservation, Refusal> {
        let mut patience = Patience::default();
        self.memory.reserve(|| self.wait_for_acceptance(&mut patience)).map_err(|_| {
            self.fail();
            Refusal::NicFailed
        })
    }

    /// Posts a token.
    #[inline]
    pub(crate) fn publish(&self, reservation: Reservation, token: &Token) {
        match self.memory.publish(reservation, token) {
            Doorbell::Ring => self.memory.ring(),
            Doorbell::NotNeeded => {}
        }
    }

    /// The Token Table is full: backs off. `false`: nothing has moved for so long that nothing will.
    #[cold]
    fn wait_for_acceptance(&self, patience: &mut Patience) -> bool {
        patience.spins = patience.spins.saturating_add(1);
        if patience.spins < FULL_TABLE_SPINS {
            std::hint::spin_loop();
            return true;
        }
        let accepted = self.memory.last_accepted_entry();
        match patience.since {
            Some((since, then)) if then == accepted => {
                if since.elapsed() >= FULL_TABLE_LIMIT {
                    log::error!(
                        "the NIC has accepted nothing for {FULL_TABLE_LIMIT:?}; it is taken for failed"
                    );
                    return false;
                }
            }
            _ => patience.since = Some((Instant::now(), accepted)),
        }
        // The card may be waiting for room in the MCQ.
        if let Some(mut reaper) = self.reaper.try_lock() {
            self.drain_with(&mut reaper);
        }
        std::thread::yield_now();
        !self.closed.load(Ordering::Relaxed)
    }

    /// Keeps the MCQ from filling up while a program only posts; called once for each post with a completion queue.
    #[inline]
    pub(crate) fn make_room_in_mcq(&self) {
        let posts = self.posts_since_drain.0.fetch_add(1, Ordering::Relaxed);
        if posts >= self.memory.mcq().entries() / 2
            && let Some(mut reaper) = self.reaper.try_lock()
        {
            self.drain_with(&mut reaper);
        }
    }

    // Completing

    /// Empties the MCQ into the completion queues, the VIs' states and the asynchronous errors.
    pub(crate) fn drain(&self) {
        self.drain_with(&mut self.reaper.lock());
    }

    /// Whether there is nothing to take out of the MCQ, and nobody taking. Waits for no lock, so that it may be asked
    /// under any.
    pub(crate) fn is_quiet(&self) -> bool {
        let ready = |reaper: MutexGuard<'_, Reaper>| reaper.consumer.is_ready(self.memory.mcq());
        self.reaper.try_lock().is_some_and(|reaper| !ready(reaper))
            && !self.failed.load(Ordering::Relaxed)
            && !self.memory.is_closed()
    }

    /// Empties the MCQ, and lets `then` change the tables before anybody else takes entries.
    pub(crate) fn drain_then<T>(&self, then: impl FnOnce(&mut Reaper) -> T) -> T {
        let mut reaper = self.reaper.lock();
        self.drain_with(&mut reaper);
        then(&mut reaper)
    }

    fn drain_with(&self, reaper: &mut Reaper) {
        self.posts_since_drain.0.store(0, Ordering::Relaxed);
        let mcq = self.memory.mcq();
        let mut taken = 0;
        while taken < mcq.entries()
            && let Some(completion) = reaper.consumer.pop(mcq)
        {
            taken += 1;
            self.dispatch(reaper, &completion);
        }
        if taken != 0 && reaper.consumer.publish(mcq) {
            self.memory.ring();
        }
    }

    fn dispatch(&self, reaper: &Reaper, completion: &Completion) {
        let vi = reaper.vis.get(usize::from(completion.vi)).and_then(Option::as_ref);
        match CompletionKind(completion.kind) {
            CompletionKind::DESCRIPTOR => {
                let cq = reaper.cqs.get(usize::from(completion.cq)).and_then(Option::as_ref);
                if let (Some(vi), Some(cq)) = (vi, cq) {
                    let receive = completion.flags & COMPLETION_RECEIVE != 0;
                    cq.push(vi.key, if receive { Queue::Receive } else { Queue::Send });
                }
            }
            CompletionKind::ERROR => {
                let code = ErrorCode(completion.status);
                if code == ErrorCode::CATASTROPHIC {
                    self.fail_with(reaper);
                } else if let Some(vi) = vi
                    && vi.state.lock().error(code, vi.reliability())
                {
                    self.errors.push(AsyncError {
                        code,
                        vi: Some(vi.key),
                        descriptor: completion.descriptor,
                    });
                }
            }
            other => log::warn!("the NIC reports a completion of unknown kind {other:?}"),
        }
    }

    // Sleeping

    /// Looks until `look` finds something: a little while busily, then asleep on the NRA word. `None`: the time ran out.
    pub(crate) fn wait_for<T>(
        &self,
        nra_word: u32,
        timeout: Option<Duration>,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if timeout == Some(Duration::ZERO) {
            return Ok(None);
        }
        let start = Instant::now();
        let spin = self.spins.before_sleep(nra_word);
        let spin = timeout.map_or(spin, |timeout| timeout.min(spin));
        let mut found = None;
        while found.is_none() && start.elapsed() < spin {
            std::hint::spin_loop();
            found = look()?;
        }
        if found.is_none() {
            found = self.sleep_for(nra_word, timeout, start, look)?;
        }
        let took = start.elapsed();
        // A short time that ran out tells nothing.
        if found.is_some() || took > self.settings.spin {
            self.spins.learn(nra_word, took);
        }
        Ok(found)
    }

    /// As [`wait_for`](Self::wait_for), asleep; `start` is when the wait began.
    fn sleep_for<T>(
        &self,
        nra_word: u32,
        timeout: Option<Duration>,
        start: Instant,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let fired = &self.fired[nra_word as usize];
        loop {
            let seen = fired.load(Ordering::Acquire);
            completion::arm::<Native>(self.memory.nra_word(nra_word));
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            if self.closed.load(Ordering::Acquire) {
                return Err(Error::Closed);
            }
            let left = timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
            match self.agent.wait(nra_word, seen, left) {
                Ok(now) => fired.store(now, Ordering::Release),
                Err(AgentError::Refused(Status::TIMEOUT)) => return look(),
                Err(AgentError::Refused(Status::NIC_FAILED)) => {
                    self.fail();
                    return look()?.map_or(Err(Error::NicFailed), |found| Ok(Some(found)));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    // Failing and closing

    /// Whether the card has given this context up.
    #[inline]
    pub(crate) fn has_failed(&self) -> bool {
        if self.failed.load(Ordering::Relaxed) {
            return true;
        }
        let closed = self.memory.is_closed();
        if closed {
            self.fail();
        }
        closed
    }

    /// The context has failed for good.
    #[cold]
    pub(crate) fn fail(&self) {
        if !self.failed.load(Ordering::Relaxed) {
            self.fail_with(&self.reaper.lock());
        }
    }

    fn fail_with(&self, reaper: &Reaper) {
        if self.failed.swap(true, Ordering::Relaxed) || self.is_closed() {
            return;
        }
        for vi in reaper.vis.iter().flatten() {
            vi.state.lock().context_failed();
        }
        self.errors.push(AsyncError { code: ErrorCode::CATASTROPHIC, vi: None, descriptor: 0 });
        self.notifications.look_again();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends everything in the context, and every wait.
    pub(crate) fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.agent.shut_down();
        let (vis, cqs) = {
            let mut reaper = self.reaper.lock();
            (std::mem::take(&mut reaper.vis), std::mem::take(&mut reaper.cqs))
        };
        vis.into_iter().flatten().for_each(|vi| vi.release());
        cqs.into_iter().flatten().for_each(|cq| cq.release());
        self.belongings.release();
        self.errors.close();
        self.notifications.close();
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("agent", &self.agent).finish_non_exhaustive()
    }
}

/// Something that goes with the NIC handle and that the card does not report about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Belonging {
    Request(Key),
    Tag(Key),
}

/// What goes with the NIC handle; `None` once it is closed.
#[derive(Debug)]
pub(crate) struct Belongings(Mutex<Option<HashSet<Belonging>>>);

impl Default for Belongings {
    fn default() -> Self {
        Self(Mutex::new(Some(HashSet::new())))
    }
}

impl Belongings {
    /// `false`: the NIC handle is closed.
    pub(crate) fn add(&self, belonging: Belonging) -> bool {
        self.0.lock().as_mut().map(|all| all.insert(belonging)).is_some()
    }

    pub(crate) fn remove(&self, belonging: Belonging) {
        if let Some(all) = self.0.lock().as_mut() {
            all.remove(&belonging);
        }
    }

    fn release(&self) {
        let all = self.0.lock().take();
        for belonging in all.into_iter().flatten() {
            match belonging {
                Belonging::Request(key) => RequestId(key).forget(),
                Belonging::Tag(key) => TagId(key).forget(),
            }
        }
    }
}

impl Reaper {
    /// Enters a VI. `false`: the NIC handle is being closed.
    pub(crate) fn add_vi(&mut self, vi: &Arc<ViObject>) -> bool {
        let Some(entry) = self.vis.get_mut(usize::from(vi.number)) else { return false };
        *entry = Some(Arc::clone(vi));
        true
    }

    /// Removes a VI and what the completion queues have of it.
    pub(crate) fn remove_vi(&mut self, vi: &Arc<ViObject>) {
        self.cqs.iter().flatten().for_each(|cq| cq.purge(vi.key));
        if let Some(entry) = self.vis.get_mut(usize::from(vi.number)) {
            entry.take_if(|owner| Arc::ptr_eq(owner, vi));
        }
    }

    /// Enters a completion queue. `false`: the NIC handle is being closed.
    pub(crate) fn add_cq(&mut self, cq: &Arc<CqObject>) -> bool {
        let Some(entry) = self.cqs.get_mut(usize::from(cq.number)) else { return false };
        *entry = Some(Arc::clone(cq));
        true
    }

    pub(crate) fn remove_cq(&mut self, cq: &Arc<CqObject>) {
        if let Some(entry) = self.cqs.get_mut(usize::from(cq.number)) {
            entry.take_if(|owner| Arc::ptr_eq(owner, cq));
        }
    }
}

/// How long a poster has been waiting for a full Token Table.
#[derive(Default)]
struct Patience {
    spins: u32,
    /// Since when the last entry accepted has been that one.
    since: Option<(Instant, u32)>,
}
