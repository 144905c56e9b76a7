//! The stream to an agent: sessions, and which answer belongs to whom.

use std::collections::HashMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use vianic_guest_agent::{
    Answer, Call, FrameError, FrameReader, FrameWriter, GreetError, INPUT_WINDOW, PROTOCOL_VERSION, Reply,
    Request, Window,
};

use super::Boots;
use super::process::ProcessHandle;
use crate::error::{Error, Result};
use crate::limit::Limit;

/// A connection; its two threads end with it.
#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    stream: UnixStream,
}

#[derive(Debug)]
pub(super) struct Shared {
    calls: Sender<Call>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    next_id: u32,
    requests: HashMap<u32, Entry>,
    session: u64,
    phase: Phase,
    boots: u64,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Greeting,
    Ready,
    Closed(String),
}

#[derive(Debug)]
struct Entry {
    answers: Sender<Reply>,
    window: Arc<Window>,
}

/// A request under way. Dropping it before its last answer cancels it.
#[derive(Debug)]
pub(super) struct PendingRequest {
    id: u32,
    answers: Receiver<Reply>,
    handle: ProcessHandle,
    shared: Arc<Shared>,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        let clone = || stream.try_clone().map_err(Error::io("clone the agent's socket"));
        let (reader, writer) = (FrameReader::new(clone()?), FrameWriter::new(clone()?));
        let (calls, outgoing) = mpsc::channel();
        let state =
            State { next_id: 0, requests: HashMap::new(), session: 0, phase: Phase::Greeting, boots: 0 };
        let shared = Arc::new(Shared { calls, state: Mutex::new(state), changed: Condvar::new() });
        shared.greet(&mut shared.lock());
        let for_reader = Arc::clone(&shared);
        std::thread::spawn(move || for_reader.read_all(reader));
        std::thread::spawn(move || write_all(writer, &outgoing));
        Ok(Self { shared, stream })
    }

    pub(super) fn boots(&self) -> Boots {
        Boots(self.shared.lock().boots)
    }

    pub(super) fn hang_up(&self, reason: &str) {
        self.shared.close(reason.to_owned());
        // Fails only if the guest was faster. Ends both threads.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    pub(super) fn wait_ready(&self, boots: Boots, limit: &Limit) -> Result<()> {
        let mut state = self.shared.lock();
        loop {
            match &state.phase {
                Phase::Ready if state.boots >= boots.0 => return Ok(()),
                Phase::Closed(reason) => return Err(Error::AgentGone(reason.clone())),
                Phase::Ready | Phase::Greeting => {}
            }
            let left = limit.remaining()?;
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn request(&self, body: Request) -> Result<PendingRequest> {
        let (sender, answers) = mpsc::channel();
        let mut state = self.shared.lock();
        match &state.phase {
            Phase::Ready => {}
            Phase::Greeting => return Err(Error::AgentGone("the guest is booting".to_owned())),
            Phase::Closed(reason) => return Err(Error::AgentGone(reason.clone())),
        }
        let id = state.free_id();
        let window = Arc::new(Window::new(INPUT_WINDOW));
        state.requests.insert(id, Entry { answers: sender, window: Arc::clone(&window) });
        // Under the lock, so that a request never overtakes the greeting of a later session.
        self.shared.send(id, body);
        drop(state);
        let handle = ProcessHandle::new(id, window, Arc::clone(&self.shared));
        Ok(PendingRequest { id, answers, handle, shared: Arc::clone(&self.shared) })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.hang_up("this side has closed it");
    }
}

impl State {
    fn free_id(&mut self) -> u32 {
        loop {
            self.next_id = self.next_id.wrapping_add(1);
            if self.next_id != 0 && !self.requests.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }

    /// Every request is lost; whoever waits learns it from its closed channel.
    fn forget_requests(&mut self) {
        for (_, entry) in self.requests.drain() {
            entry.window.close();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, id: u32, body: Request) {
        // The writer ends only with the stream, which the reader reports.
        let _ = self.calls.send(Call { id, body });
    }

    /// Sends more for a request, unless that is over: its id may belong to somebody else then.
    pub(super) fn call(&self, id: u32, body: Request) {
        let state = self.lock();
        if state.requests.contains_key(&id) {
            // Under the lock, so that it never gets into a later session.
            self.send(id, body);
        }
    }

    /// Begins a session.
    fn greet(&self, state: &mut State) {
        state.session += 1;
        state.phase = Phase::Greeting;
        self.send(0, Request::Hello { version: PROTOCOL_VERSION, session: state.session });
    }

    fn read_all(&self, mut reader: FrameReader<UnixStream>) {
        let reason = loop {
            match reader.read::<Answer>() {
                Ok(Some(answer)) => {
                    if let Err(reason) = self.accept(answer) {
                        break reason;
                    }
                }
                Ok(None) => break "the guest is gone".to_owned(),
                Err(FrameError::Io(error)) => break error.to_string(),
                Err(error) => log::warn!("from the guest agent: {error}"),
            }
        };
        self.close(reason);
    }

    /// Ends everything; the first reason counts.
    fn close(&self, reason: String) {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Closed(_)) {
            state.phase = Phase::Closed(reason);
        }
        state.forget_requests();
        drop(state);
        self.changed.notify_all();
    }

    fn accept(&self, Answer { id, body }: Answer) -> Result<(), String> {
        let mut state = self.lock();
        match body {
            _ if matches!(state.phase, Phase::Closed(_)) => {}
            Reply::Booted => {
                state.boots += 1;
                state.forget_requests();
                self.greet(&mut state);
            }
            Reply::Hello { session, .. } if session != state.session => {}
            Reply::Hello { version, .. } if version != PROTOCOL_VERSION => {
                return Err(GreetError::Version { guest: version }.to_string());
            }
            Reply::Hello { .. } => state.phase = Phase::Ready,
            // Left from an earlier session: its ids mean nothing in this one.
            _ if state.phase != Phase::Ready => {}
            Reply::Credit(bytes) => {
                if let Some(entry) = state.requests.get(&id) {
                    entry.window.grant(bytes);
                }
            }
            reply => {
                let last = reply.is_final();
                if let Some(entry) = state.requests.get(&id) {
                    // Nobody listens any more if the request was cancelled.
                    let _ = entry.answers.send(reply);
                }
                if last && let Some(entry) = state.requests.remove(&id) {
                    entry.window.close();
                }
            }
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    fn end_reason(&self) -> String {
        match &self.lock().phase {
            Phase::Closed(reason) => reason.clone(),
            Phase::Greeting | Phase::Ready => "the guest has booted again".to_owned(),
        }
    }
}

fn write_all(mut writer: FrameWriter<UnixStream>, calls: &Receiver<Call>) {
    for call in calls {
        // A greeting ends whatever an earlier session left in mid-frame.
        let boundary = match call.body {
            Request::Hello { .. } => writer.boundary(),
            _ => Ok(()),
        };
        if boundary.and_then(|()| writer.write(&call)).is_err() {
            // The reader sees the same and says why.
            return;
        }
    }
}

impl PendingRequest {
    /// The next answer. Output is acknowledged as it is taken.
    pub(super) fn next(&self, limit: &Limit) -> Result<Reply> {
        match self.answers.recv_timeout(limit.remaining()?) {
            Ok(reply) => {
                if let Reply::Output(_, bytes) = &reply {
                    let credit = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    self.shared.call(self.id, Request::Credit(credit));
                }
                Ok(reply)
            }
            Err(RecvTimeoutError::Timeout) => Err(limit.timed_out().into()),
            Err(RecvTimeoutError::Disconnected) => Err(Error::AgentGone(self.shared.end_reason())),
        }
    }

    pub(super) fn handle(&self) -> &ProcessHandle {
        &self.handle
    }
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        self.shared.call(self.id, Request::Cancel);
        self.handle.close();
    }
}
