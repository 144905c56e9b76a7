//! A card whose turns are given by hand, in the thread of the application that uses it: so that instructions can be counted,
//! which is exact and repeatable, where time is not.
//!
//! Everything but the engine's loop is the real thing: VIPL, its direct link, the vhost-user back end and the card.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use vianic_abi::attach::AttachRequest;
use vianic_abi::status::Status;
use vianic_device::engine::HostSide;
use vianic_device::guest_memory::GuestMemory;
use vianic_device::nic;
use vianic_device::nic::memory::NicMemory;
use vianic_device::nic::pacing::Patience;
use vianic_device::port::switch::Switch;
use vianic_device::socket::SocketFile;
use vianic_device::vhost::{Card, Server};
use vianic_device::vito::frame::NicAddress;
use vianic_tools::bench::loopback::{Loopback, done, post};
use vipl::{Descriptor, Nic, Queue};

/// More turns than a window of messages takes.
const TURNS: u32 = 10_000;

const ADDRESS: NicAddress = NicAddress([2, 0, 0, 0, 0, 1]);

/// One card on its switch, and its guest's side.
struct Crank {
    state: Mutex<State>,
    nic_memory: Arc<NicMemory>,
}

struct State {
    switch: Switch,
    host: Option<HostSide>,
}

impl Crank {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives the card a turn and takes what it sends, as the engine does. Time stands still: the card polls eagerly for ever.
    fn turn(&mut self) {
        if let Some(card) = self.switch.running(0) {
            card.turn(1, Patience::Full);
        }
        self.switch.exchange();
    }

    /// Looks at doorbells and delivers events, as the engine does between turns.
    fn serve_host(&mut self) {
        let Self { switch, host: Some(host) } = self else { return };
        let Some(card) = switch.running(0) else { return };
        for (context, doorbell) in (0..).zip(&host.doorbells) {
            if doorbell.read().is_ok() {
                card.doorbell(context);
            }
        }
        if !card.events().is_empty() && card.events().deliver(|event| host.events.push(event)) {
            host.events.notify();
        }
    }
}

impl Card for Crank {
    fn attach(&self, request: AttachRequest, host: HostSide) -> Status {
        let mut state = self.state();
        match nic::Card::attach(ADDRESS, Arc::clone(&self.nic_memory), host.memory.clone(), &request) {
            Ok(card) => {
                state.switch.insert(0, card);
                state.host = Some(host);
                Status::SUCCESS
            }
            Err(status) => status,
        }
    }

    fn pause(&self) {
        let mut state = self.state();
        state.switch.pause(0);
        state.host = None;
    }

    fn resume(&self, host: HostSide) {
        let mut state = self.state();
        if let Some(card) = state.switch.resume(0) {
            card.remap(&host.memory);
            card.look_at_all();
        }
        state.host = Some(host);
    }

    fn reset(&self) {
        let mut state = self.state();
        state.switch.remove(0);
        state.host = None;
    }

    fn update_memory(&self, memory: GuestMemory) {
        let mut state = self.state();
        if let Some(card) = state.switch.running(0) {
            card.remap(&memory);
        }
        if let Some(host) = &mut state.host {
            host.events.memory_changed(memory);
        }
    }

    fn event_buffers(&self) {
        self.state().serve_host();
    }
}

/// An application with two VIs, and the card that they are of.
pub struct ByHand {
    // Dropped in this order, with somebody at the crank.
    loopback: Option<(Loopback, Nic)>,
    crank: Arc<Crank>,
    server: Option<Server>,
    receives: Vec<Descriptor>,
    window: u32,
}

impl ByHand {
    /// Connects two VIs, for messages of `size` bytes, `window` at a time. The card's socket is in `directory`.
    ///
    /// # Errors
    /// If something does not work.
    pub fn new(directory: &Path, size: u32, window: u32) -> anyhow::Result<Self> {
        ensure!(window > 0, "a window has at least one message");
        let socket = directory.join("nic.sock");
        let nic_memory = Arc::new(NicMemory::new()?);
        nic_memory.write_registers(&nic::registers(ADDRESS));
        let state = Mutex::new(State { switch: Switch::new([ADDRESS]), host: None });
        let crank = Arc::new(Crank { state, nic_memory: Arc::clone(&nic_memory) });
        let card = Arc::clone(&crank) as Arc<dyn Card>;
        let server = Some(Server::start(SocketFile::bind(&socket)?, card, nic_memory)?);
        let name = format!("direct:{}", socket.display());
        let loopback = turning(&crank, || {
            let nic = Nic::open(&name)?;
            Ok::<_, anyhow::Error>(Some((Loopback::new(&nic, size, window, window)?, nic)))
        })?;
        let receives = Vec::with_capacity(window as usize);
        Ok(Self { loopback, crank, server, receives, window })
    }

    /// The application's end and the card's, which may be two threads'.
    pub fn ends(&mut self) -> anyhow::Result<(ApplicationEnd<'_>, CardEnd<'_>)> {
        let (loopback, _) = self.loopback.as_mut().context("it is being taken down")?;
        let window = self.window;
        Ok((
            ApplicationEnd { loopback, receives: &mut self.receives, window },
            CardEnd { crank: &self.crank, window },
        ))
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        turning(&self.crank, || drop(self.loopback.take()));
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

/// The application's end.
pub struct ApplicationEnd<'a> {
    loopback: &'a mut Loopback,
    receives: &'a mut Vec<Descriptor>,
    window: u32,
}

impl ApplicationEnd<'_> {
    /// Posts the receives that were taken, and all sends.
    ///
    /// # Errors
    /// As posting.
    pub fn post(&mut self) -> anyhow::Result<()> {
        application_posts(self.loopback, self.receives)
    }

    /// Takes everything, which must be complete.
    ///
    /// # Errors
    /// If something is not complete.
    pub fn take(&mut self) -> anyhow::Result<()> {
        application_takes(self.loopback, self.receives)?;
        let (taken, window) = ((self.receives.len(), self.loopback.sends.len()), self.window as usize);
        ensure!(taken == (window, window), "{taken:?} of {window} messages were complete");
        Ok(())
    }
}

/// The card's end.
pub struct CardEnd<'a> {
    crank: &'a Crank,
    window: u32,
}

impl CardEnd<'_> {
    /// Gives the card turns until the messages that were posted are complete. How long that took.
    ///
    /// # Errors
    /// If they never are.
    pub fn turn(&mut self) -> anyhow::Result<Duration> {
        let mut state = self.crank.state();
        state.serve_host();
        let complete = || self.crank.nic_memory.counters().completions;
        let wanted = complete() + 2 * u64::from(self.window);
        let begin = Instant::now();
        let mut turns = (0..TURNS).map(|_| card_turns(&mut state));
        ensure!(turns.any(|()| complete() >= wanted), "messages are not complete after {TURNS} turns");
        Ok(begin.elapsed())
    }
}

/// Sends `messages` messages of `size` bytes, `window` at a time: posts them, has the card do them, and takes them.
///
/// # Errors
/// If something does not work.
pub fn exchange(directory: &Path, size: u32, window: u32, messages: u32) -> anyhow::Result<()> {
    let mut by_hand = ByHand::new(directory, size, window)?;
    let (mut application, mut card) = by_hand.ends()?;
    for _ in 0..messages / window {
        application.post()?;
        card.turn()?;
        application.take()?;
    }
    Ok(())
}

/// Runs something that the card has to answer, with another thread at the crank.
fn turning<T>(crank: &Crank, work: impl FnOnce() -> T) -> T {
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !finished.load(Ordering::Acquire) {
                let mut state = crank.state();
                state.serve_host();
                state.turn();
                drop(state);
                std::thread::yield_now();
            }
        });
        let result = work();
        finished.store(true, Ordering::Release);
        result
    })
}

/// Posts the receives that were taken, and all sends.
#[inline(never)]
fn application_posts(loopback: &mut Loopback, receives: &mut Vec<Descriptor>) -> anyhow::Result<()> {
    for receive in receives.drain(..) {
        post(&loopback.to, Queue::Receive, receive)?;
    }
    for send in loopback.sends.drain(..) {
        post(&loopback.from, Queue::Send, send)?;
    }
    Ok(())
}

/// The card's turn.
#[inline(never)]
fn card_turns(state: &mut State) {
    state.turn();
}

/// Takes what is complete.
#[inline(never)]
fn application_takes(loopback: &mut Loopback, receives: &mut Vec<Descriptor>) -> anyhow::Result<()> {
    while let Some(receive) = done(&loopback.to, Queue::Receive)? {
        receives.push(receive);
    }
    while let Some(send) = done(&loopback.from, Queue::Send)? {
        loopback.sends.push(send);
    }
    Ok(())
}

/// The functions whose instructions are counted; what they call is counted with them.
pub const COUNTED: [&str; 3] = ["application_posts", "card_turns", "application_takes"];

#[cfg(test)]
mod tests {
    #[test]
    fn messages_are_exchanged_by_hand() -> anyhow::Result<()> {
        for window in [1, 16] {
            super::exchange(tempfile::tempdir()?.path(), 64, window, 64)?;
        }
        Ok(())
    }
}
