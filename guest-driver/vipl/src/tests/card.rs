//! A card and its Kernel Agent, as small as can be: it accepts tokens and completes them when the test says so.

use std::collections::{HashMap, VecDeque};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use vianic_abi::command::{NIC_LIST_ENTRIES, NetAddress, NicList, ViAttributes};
use vianic_abi::completion::{
    COMPLETION_RECEIVE, Completion, CompletionKind, Producer, PushError, mcq_size, take_armed,
};
use vianic_abi::descriptor::{ControlSegment, DescriptorStatus, Segment};
use vianic_abi::nic_memory::{
    NRA_ANY, NRA_ERRORS, NRA_MCQ, NRA_SIZE, REGISTERS_MAGIC, Registers, nra_cq, nra_work_queue,
};
use vianic_abi::status::{ErrorCode, Status};
use vianic_abi::sync::{Atomics, Native};
use vianic_abi::token::{TOKEN_RECEIVE, Token};
use vianic_abi::token_table::{Acceptor, table_size};
use vianic_abi::{MAX_CQ, MAX_SEGMENTS, MAX_VI, NO_CQ};
use zerocopy::FromZeros;

use crate::agent::{
    Agent, AgentError, IncomingRequest, NewVi, NicInfo, OutgoingRequest, Region, RegionChange,
};
use crate::descriptor::{Queue, RawDescriptor};
use crate::mapping::{ContextMemory, ContextParts, Doorbell, Mapping, REGISTERS_MAP_SIZE};

/// How large the shared tables are, as powers of two.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) token_table_log2: u8,
    pub(crate) mcq_log2: u8,
}

impl Default for Layout {
    fn default() -> Self {
        Self { token_table_log2: 10, mcq_log2: 12 }
    }
}

#[derive(Debug)]
pub(crate) struct Card {
    memory: ContextMemory,
    /// VIPL's view of the same memory, until it takes it.
    given: Mutex<Option<ContextMemory>>,
    state: Mutex<State>,
    /// NRA words fired, waits to end, requests come in.
    changed: Condvar,
    doorbells: Arc<Mutex<usize>>,
}

#[derive(Debug, Default)]
struct State {
    acceptor: Acceptor,
    producer: Producer,
    vis: HashMap<u16, CardVi>,
    cqs: Vec<u16>,
    tags: u32,
    regions: HashMap<u32, Region>,
    accepted: Vec<Token>,
    fired: HashMap<u32, u32>,
    waiting: usize,
    connect_answers: VecDeque<Result<(), Status>>,
    accept_answers: VecDeque<Result<(), Status>>,
    rejected: Vec<u32>,
    /// NICs on the fabric.
    fabric: u8,
    /// Attempts with peers: what became of each, if it has ended.
    attempts: HashMap<u16, Option<Result<(), Status>>>,
    incoming: VecDeque<IncomingRequest>,
    disconnects: usize,
    shut_down: bool,
    failed: bool,
}

#[derive(Debug)]
struct CardVi {
    new: NewVi,
    connected: bool,
    outstanding: [VecDeque<Token>; 2],
}

impl Card {
    pub(crate) fn new(layout: Layout) -> Arc<Self> {
        let whole = |bytes: usize| Arc::new(Mapping::anonymous(bytes).unwrap());
        let nra_bytes = usize::try_from(NRA_SIZE).unwrap();
        let table = whole(table_size(layout.token_table_log2));
        let mcq = whole(mcq_size(layout.mcq_log2));
        let (nra, registers) = (whole(nra_bytes), whole(REGISTERS_MAP_SIZE));
        let doorbells = Arc::new(Mutex::new(0));
        let view = || {
            // SAFETY: the views keep the mapping alive, and only atomics are used on it.
            let part = |whole: &Arc<Mapping>| unsafe {
                Mapping::part_of(
                    NonNull::new(whole.base().as_ptr()).unwrap(),
                    whole.length(),
                    Arc::clone(whole) as _,
                )
            };
            let doorbells = Arc::clone(&doorbells);
            ContextMemory::new(ContextParts {
                context: 1,
                token_table: part(&table),
                token_table_log2: layout.token_table_log2,
                mcq: part(&mcq),
                mcq_log2: layout.mcq_log2,
                nra: part(&nra),
                registers: part(&registers),
                doorbell: Doorbell::Call(Box::new(move || *doorbells.lock() += 1)),
            })
            .unwrap()
        };
        Arc::new(Self {
            given: Mutex::new(Some(view())),
            memory: view(),
            state: Mutex::default(),
            changed: Condvar::new(),
            doorbells,
        })
    }

    /// What is done about the next connection requests of this side; without, nobody listens.
    pub(crate) fn answer_connect(&self, answer: Result<(), Status>) {
        self.state.lock().connect_answers.push_back(answer);
    }

    /// How the next requests are accepted; without, they are.
    pub(crate) fn answer_accept(&self, answer: Result<(), Status>) {
        self.state.lock().accept_answers.push_back(answer);
    }

    /// An attempt with a peer ends.
    pub(crate) fn end_attempt(&self, vi: u16, outcome: Result<(), Status>) {
        let mut state = self.state.lock();
        *state.attempts.get_mut(&vi).expect("an attempt") = Some(outcome);
        state.vis.get_mut(&vi).expect("a VI").connected = outcome.is_ok();
        self.changed.notify_all();
    }

    /// So many NICs are on the fabric.
    pub(crate) fn set_fabric(&self, nics: u8) {
        self.state.lock().fabric = nics;
    }

    /// Attempts with peers that nobody was told of.
    pub(crate) fn attempts(&self) -> usize {
        self.state.lock().attempts.len()
    }

    /// A peer asks for a connection.
    pub(crate) fn request_comes(&self, connection: u32) {
        let attributes = crate::tests::ATTRIBUTES;
        self.state.lock().incoming.push_back(IncomingRequest {
            connection,
            remote: crate::net_address(Some([2, 0, 0, 0, 0, 9]), b"them").unwrap(),
            attributes: ViAttributes {
                reliability_level: attributes.reliability.0,
                flags: 0,
                max_transfer_size: attributes.max_transfer_size,
            },
        });
        self.changed.notify_all();
    }

    /// Accepts what has been posted.
    pub(crate) fn accept(&self) -> usize {
        self.accept_with(&mut self.state.lock())
    }

    fn accept_with(&self, state: &mut State) -> usize {
        let table = self.memory.token_table();
        let mut count = 0;
        while let Some(token) = state.acceptor.next(table) {
            count += 1;
            state.accepted.push(token);
            if let Some(vi) = state.vis.get_mut(&token.vi) {
                vi.outstanding[usize::from(token.flags & TOKEN_RECEIVE)].push_back(token);
            }
        }
        state.acceptor.publish(table);
        count
    }

    /// Everything that was ever accepted.
    pub(crate) fn accepted(&self) -> Vec<Token> {
        self.state.lock().accepted.clone()
    }

    /// Completes the oldest descriptor that was accepted. `false`: the MCQ is full.
    pub(crate) fn complete(&self, vi: u16, queue: Queue, status: DescriptorStatus) -> bool {
        let mut state = self.state.lock();
        self.accept_with(&mut state);
        self.complete_with(&mut state, vi, queue, status)
    }

    fn complete_with(&self, state: &mut State, number: u16, queue: Queue, status: DescriptorStatus) -> bool {
        let receive = queue == Queue::Receive;
        let vi = state.vis.get_mut(&number).expect("a VI");
        let cq = if receive { vi.new.receive_cq } else { vi.new.send_cq };
        let token = *vi.outstanding[usize::from(receive)].front().expect("an outstanding descriptor");
        if cq != NO_CQ {
            // The entry is made certain first, as the descriptor may be complete only if it is not held back.
            let mut trial = Producer::new();
            std::mem::swap(&mut trial, &mut state.producer);
            let completion = Completion {
                cq,
                kind: CompletionKind::DESCRIPTOR.0,
                flags: if receive { COMPLETION_RECEIVE } else { 0 },
                descriptor: token.descriptor,
                status: status.bits(),
                vi: number,
                ..Default::default()
            };
            finish(&token, status);
            let pushed = trial.push(self.memory.mcq(), &completion);
            state.producer = trial;
            if pushed == Err(PushError::Full) {
                return false;
            }
        } else {
            finish(&token, status);
        }
        let vi = state.vis.get_mut(&number).expect("a VI");
        vi.outstanding[usize::from(receive)].pop_front();
        let words: &[u32] =
            if cq == NO_CQ { &[nra_work_queue(number, receive)] } else { &[nra_cq(cq), NRA_MCQ] };
        self.fire(state, words);
        true
    }

    /// Reports an asynchronous error.
    pub(crate) fn report(&self, vi: u16, code: ErrorCode) {
        let mut state = self.state.lock();
        let kind = CompletionKind::ERROR.0;
        let completion = Completion { kind, status: code.0, vi, descriptor: 0x40, ..Default::default() };
        state.producer.push(self.memory.mcq(), &completion).expect("room in the MCQ");
        if code == ErrorCode::CONN_LOST {
            self.accept_with(&mut state);
            self.flush(&mut state, vi);
        }
        self.fire(&mut state, &[NRA_MCQ, NRA_ERRORS]);
    }

    fn fire(&self, state: &mut State, words: &[u32]) {
        Native::fence();
        for word in words {
            if take_armed::<Native>(self.memory.nra_word(*word)) {
                *state.fired.entry(*word).or_default() += 1;
                *state.fired.entry(NRA_ANY).or_default() += 1;
            }
        }
        self.changed.notify_all();
    }

    fn flush(&self, state: &mut State, vi: u16) {
        for queue in [Queue::Send, Queue::Receive] {
            while state
                .vis
                .get(&vi)
                .is_some_and(|vi| !vi.outstanding[usize::from(queue == Queue::Receive)].is_empty())
            {
                assert!(self.complete_with(state, vi, queue, crate::tests::FLUSHED), "the MCQ is full");
            }
        }
        if let Some(vi) = state.vis.get_mut(&vi) {
            vi.connected = false;
        }
    }

    /// Forgets descriptors that were posted, as if their memory could not be written.
    pub(crate) fn lose(&self, vi: u16, queue: Queue) {
        let mut state = self.state.lock();
        self.accept_with(&mut state);
        state.vis.get_mut(&vi).expect("a VI").outstanding[usize::from(queue == Queue::Receive)].clear();
    }

    /// The context fails.
    pub(crate) fn fail(&self) {
        let mut state = self.state.lock();
        state.failed = true;
        state.acceptor.close(self.memory.token_table());
        self.changed.notify_all();
    }

    pub(crate) fn start_polling(&self) {
        self.state.lock().acceptor.start_polling(self.memory.token_table());
    }

    pub(crate) fn doorbells(&self) -> usize {
        *self.doorbells.lock()
    }

    /// Returns when so many threads sleep in the Kernel Agent.
    pub(crate) fn until_waiting(&self, count: usize) {
        let mut state = self.state.lock();
        while state.waiting < count {
            let timed_out = self.changed.wait_for(&mut state, crate::tests::LIMIT.unwrap()).timed_out();
            assert!(!timed_out, "nobody waits");
        }
    }

    pub(crate) fn disconnects(&self) -> usize {
        self.state.lock().disconnects
    }

    pub(crate) fn rejected(&self) -> Vec<u32> {
        self.state.lock().rejected.clone()
    }

    /// A region as the card knows it.
    pub(crate) fn region(&self, handle: u32) -> Option<Region> {
        self.state.lock().regions.get(&handle).copied()
    }

    /// A VI as the card knows it.
    pub(crate) fn vi(&self, number: u16) -> Option<NewVi> {
        self.state.lock().vis.get(&number).map(|vi| vi.new)
    }

    /// VIs, CQs, regions that exist.
    pub(crate) fn objects(&self) -> (usize, usize, usize) {
        let state = self.state.lock();
        (state.vis.len(), state.cqs.len(), state.regions.len())
    }

    /// Sleeps until `found` finds something.
    fn sleep<T>(
        &self,
        timeout: Option<Duration>,
        mut found: impl FnMut(&mut State) -> Option<Result<T, AgentError>>,
    ) -> Result<T, AgentError> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.notify_all();
        let answer = loop {
            if let Some(answer) = found(&mut state) {
                break answer;
            }
            if state.shut_down {
                break Err(AgentError::ShutDown);
            }
            match deadline {
                None => self.changed.wait(&mut state),
                Some(deadline) => {
                    if self.changed.wait_until(&mut state, deadline).timed_out() {
                        break Err(Status::TIMEOUT.into());
                    }
                }
            }
        };
        state.waiting -= 1;
        answer
    }
}

/// Writes a completion into the application's descriptor.
fn finish(token: &Token, status: DescriptorStatus) {
    let address =
        std::ptr::with_exposed_provenance_mut::<ControlSegment>(usize::try_from(token.descriptor).unwrap());
    // SAFETY: the tests keep descriptors in place while they are posted.
    unsafe { RawDescriptor::from_ptr(address) }.unwrap().finish(status);
}

fn free_number(taken: impl Fn(u16) -> bool, max: u16) -> Result<u16, AgentError> {
    (0..max).find(|number| !taken(*number)).ok_or(Status::ERROR_RESOURCE.into())
}

impl Agent for Card {
    fn query_nic(&self) -> Result<NicInfo, AgentError> {
        let registers = Registers {
            magic: REGISTERS_MAGIC,
            nic_address: [2, 0, 0, 0, 0, 1],
            reliability_levels: 7,
            rdma_read_levels: 6,
            max_segments: MAX_SEGMENTS,
            max_vi: MAX_VI.into(),
            max_cq: MAX_CQ.into(),
            max_descriptors: 1024,
            max_transfer_size: 1 << 20,
            native_mtu: 65536,
            ..Registers::new_zeroed()
        };
        Ok(NicInfo { registers, max_register_bytes: u64::MAX })
    }

    fn open_context(&self) -> Result<ContextMemory, AgentError> {
        self.given.lock().take().ok_or(Status::ERROR_RESOURCE.into())
    }

    fn create_ptag(&self) -> Result<u32, AgentError> {
        let mut state = self.state.lock();
        state.tags += 1;
        Ok(state.tags)
    }

    fn destroy_ptag(&self, ptag: u32) -> Result<(), AgentError> {
        let state = self.state.lock();
        let used = state.regions.values().any(|region| region.ptag == ptag)
            || state.vis.values().any(|vi| vi.new.ptag == ptag);
        if used { Err(Status::ERROR_RESOURCE.into()) } else { Ok(()) }
    }

    unsafe fn register_memory(&self, region: &Region) -> Result<u32, AgentError> {
        let mut state = self.state.lock();
        let handle = (1..).map(|n| n << 20 | 1).find(|handle| !state.regions.contains_key(handle)).unwrap();
        state.regions.insert(handle, *region);
        Ok(handle)
    }

    fn deregister_memory(&self, address: usize, handle: u32) -> Result<(), AgentError> {
        let removed = self.state.lock().regions.remove(&handle);
        match removed.filter(|region| region.address == address) {
            Some(_) => Ok(()),
            None => Err(Status::INVALID_PARAMETER.into()),
        }
    }

    fn set_memory_attributes(&self, change: &RegionChange) -> Result<(), AgentError> {
        let mut state = self.state.lock();
        let region = state.regions.get_mut(&change.handle).ok_or(Status::INVALID_PARAMETER)?;
        (region.ptag, region.access) = (change.ptag, change.access);
        Ok(())
    }

    fn create_cq(&self) -> Result<u16, AgentError> {
        let mut state = self.state.lock();
        let number = free_number(|number| state.cqs.contains(&number), MAX_CQ)?;
        state.cqs.push(number);
        Ok(number)
    }

    fn destroy_cq(&self, cq: u16) -> Result<(), AgentError> {
        let mut state = self.state.lock();
        if state.vis.values().any(|vi| [vi.new.send_cq, vi.new.receive_cq].contains(&cq)) {
            return Err(Status::ERROR_RESOURCE.into());
        }
        state.cqs.retain(|number| *number != cq);
        Ok(())
    }

    fn create_vi(&self, new: &NewVi) -> Result<u16, AgentError> {
        let mut state = self.state.lock();
        let number = free_number(|number| state.vis.contains_key(&number), MAX_VI)?;
        state.vis.insert(number, CardVi { new: *new, connected: false, outstanding: Default::default() });
        Ok(number)
    }

    fn set_vi_attributes(&self, vi: u16, attributes: ViAttributes, ptag: u32) -> Result<(), AgentError> {
        let mut state = self.state.lock();
        let vi = state.vis.get_mut(&vi).ok_or(Status::INVALID_PARAMETER)?;
        if vi.connected {
            return Err(Status::INVALID_STATE.into());
        }
        (vi.new.attributes, vi.new.ptag) = (attributes, ptag);
        Ok(())
    }

    fn destroy_vi(&self, vi: u16) -> Result<(), AgentError> {
        let mut state = self.state.lock();
        self.accept_with(&mut state);
        state.vis.remove(&vi).map(drop).ok_or(Status::INVALID_PARAMETER.into())
    }

    fn connect_wait(&self, _: &NetAddress, timeout: Option<Duration>) -> Result<IncomingRequest, AgentError> {
        self.sleep(timeout, |state| state.incoming.pop_front().map(Ok))
    }

    fn connect_accept(&self, _: u32, vi: u16) -> Result<(), AgentError> {
        let mut state = self.state.lock();
        state.accept_answers.pop_front().unwrap_or(Ok(()))?;
        state.vis.get_mut(&vi).expect("a VI").connected = true;
        Ok(())
    }

    fn connect_reject(&self, connection: u32) -> Result<(), AgentError> {
        self.state.lock().rejected.push(connection);
        Ok(())
    }

    fn connect_request(
        &self,
        request: &OutgoingRequest,
        _: Option<Duration>,
    ) -> Result<ViAttributes, AgentError> {
        let mut state = self.state.lock();
        state.connect_answers.pop_front().unwrap_or(Err(Status::NO_MATCH))?;
        let vi = state.vis.get_mut(&request.vi).expect("a VI");
        vi.connected = true;
        Ok(vi.new.attributes)
    }

    fn connect_peer_request(&self, request: &OutgoingRequest, _: Option<Duration>) -> Result<(), AgentError> {
        let mut state = self.state.lock();
        state.connect_answers.pop_front().unwrap_or(Ok(()))?;
        assert!(state.attempts.insert(request.vi, None).is_none(), "one attempt at a time");
        Ok(())
    }

    fn connect_peer_wait(
        &self,
        vi: u16,
        timeout: Option<Duration>,
    ) -> Result<Option<ViAttributes>, AgentError> {
        let answer = self.sleep(timeout, |state| match state.attempts.get(&vi).copied() {
            None => Some(Err(Status::INVALID_STATE.into())),
            Some(None) => None,
            Some(Some(outcome)) => {
                state.attempts.remove(&vi);
                let attributes = state.vis.get(&vi).expect("a VI").new.attributes;
                Some(outcome.map(|()| Some(attributes)).map_err(AgentError::from))
            }
        });
        match answer {
            Err(AgentError::Refused(Status::TIMEOUT))
                if timeout.is_some() && self.state.lock().attempts.contains_key(&vi) =>
            {
                Ok(None)
            }
            answer => answer,
        }
    }

    fn discover(&self, first: u32) -> Result<NicList, AgentError> {
        let state = self.state.lock();
        let mut list = NicList { total: u32::from(state.fabric), ..NicList::new_zeroed() };
        let nics = (0..state.fabric).skip(usize::try_from(first).unwrap()).take(NIC_LIST_ENTRIES);
        for (entry, n) in list.nics.iter_mut().zip(nics) {
            entry.address = [2, 0, 0, 0, 0, n];
            list.count += 1;
        }
        Ok(list)
    }

    fn disconnect(&self, vi: u16) -> Result<(), AgentError> {
        let mut state = self.state.lock();
        if state.attempts.remove(&vi).is_some() {
            self.changed.notify_all();
        }
        if state.failed {
            return Err(Status::NIC_FAILED.into());
        }
        state.disconnects += 1;
        self.accept_with(&mut state);
        self.flush(&mut state, vi);
        Ok(())
    }

    fn wait(&self, nra_word: u32, seen: u32, timeout: Option<Duration>) -> Result<u32, AgentError> {
        self.sleep(timeout, |state| {
            if state.failed {
                return Some(Err(Status::NIC_FAILED.into()));
            }
            let now = state.fired.get(&nra_word).copied().unwrap_or(0);
            (now != seen).then_some(Ok(now))
        })
    }

    fn shut_down(&self) {
        self.state.lock().shut_down = true;
        self.changed.notify_all();
    }
}

/// The segments of an inline token.
pub(crate) fn inline_segments(token: &Token) -> Vec<Segment> {
    let body: vianic_abi::token::InlineBody = token.body();
    body.segments[..usize::from(body.segment_count)].to_vec()
}
