//! The thread that serves one card: its requests to map NIC memory, its events, the completions of commands, and its end.
//!
//! While it runs it allocates nothing and takes no lock on account of events: see [`notice_board`](super::notice_board).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use vhost::VringConfigData;
use vhost::vhost_user::FrontendReqHandler;
use vianic_abi::completion::{CompletionKind, Consumer, arm};
use vianic_abi::event::{Event, EventKind};
use vianic_abi::nic_memory::NRA_MCQ;
use vianic_abi::status::Status;
use vianic_abi::sync::Native;
use vianic_abi::{EVENT_QUEUE, KERNEL_CONTEXT};
use vmm_sys_util::eventfd::EventFd;

use super::commands::Commands;
use super::nic_memory::NicMemory;
use super::ram::{Extent, Ram};
use super::vring::{Buffer, Vring};

/// Buffers on the event queue.
const EVENT_QUEUE_SIZE: u16 = 256;

const EVENT_SIZE: u32 = 8;
const _: () = assert!(size_of::<Event>() == EVENT_SIZE as usize);

/// What the thread works with.
pub(super) struct EventThread {
    pub(super) commands: Arc<Commands>,
    pub(super) channel: FrontendReqHandler<NicMemory>,
    pub(super) queue: EventQueue,
    pub(super) call: EventFd,
    pub(super) socket: OwnedFd,
    /// Readable when the thread is to end.
    pub(super) stop: EventFd,
}

impl EventThread {
    /// Serves the card until it hangs up or the link is closed.
    pub(super) fn run(mut self) {
        let mut consumer = Consumer::new();
        loop {
            let mut fds = [
                // Answers on this socket are for the threads that asked; here it only hangs up.
                PollFd::new(&self.socket, PollFlags::RDHUP),
                PollFd::from_borrowed_fd(borrow(&self.stop), PollFlags::IN),
                PollFd::from_borrowed_fd(borrow(&self.channel), PollFlags::IN),
                PollFd::from_borrowed_fd(borrow(&self.call), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => unreachable!("polling our own descriptors: {error}"),
            }
            let [hung_up, stop, request, call] = fds.map(|fd| !fd.revents().is_empty());
            if stop {
                return;
            }
            if hung_up {
                log::error!("the card has gone");
                self.commands.board.fail_nic();
                return;
            }
            if request && let Err(error) = self.channel.handle_request() {
                log::error!("the card asked for NIC memory to be mapped in a way that cannot be: {error}");
                if !matches!(error, vhost::vhost_user::Error::ReqHandlerError(_)) {
                    self.commands.board.fail_nic();
                    return;
                }
            }
            if call {
                // Nonblocking; whether it still was readable does not matter.
                let _ = self.call.read();
                self.queue.drain(&self.commands, &mut consumer);
            }
        }
    }
}

/// Borrows a descriptor of a type that does not lend it.
#[expect(unsafe_code, reason = "the types only know raw descriptors")]
pub(super) fn borrow(owner: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the owner, borrowed for as long, keeps it open.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

/// The event queue, driver's side.
pub(super) struct EventQueue {
    ram: &'static Ram,
    ring: Vring,
    buffers: Extent,
    kicks: Arc<Vec<EventFd>>,
}

impl EventQueue {
    /// Fills the queue with buffers. They are the card's once it is started.
    pub(super) fn new(ram: &'static Ram, kicks: Arc<Vec<EventFd>>) -> Option<Self> {
        let mut ring = Vring::new(ram, EVENT_QUEUE_SIZE)?;
        let buffers = ram.allocate(u64::from(EVENT_QUEUE_SIZE) * u64::from(EVENT_SIZE))?;
        for head in 0..EVENT_QUEUE_SIZE {
            let address = buffers.address() + u64::from(head) * u64::from(EVENT_SIZE);
            ring.describe(head, &[Buffer { address, length: EVENT_SIZE, writable: true }]);
            ring.make_available(head);
        }
        Some(Self { ram, ring, buffers, kicks })
    }

    /// Where the queue is.
    pub(super) fn config(&self) -> VringConfigData {
        self.ring.config(self.ram)
    }

    /// Takes all events, tells of them, and gives their buffers back.
    fn drain(&mut self, commands: &Commands, consumer: &mut Consumer) {
        let mut taken = false;
        while let Some(head) = self.ring.take_used() {
            taken = true;
            let address = self.buffers.address() + u64::from(head) * u64::from(EVENT_SIZE);
            let event: Event = zerocopy::transmute!(Vring::word(self.ram, address));
            self.ring.make_available(head);
            match (EventKind(event.kind), event.context) {
                (EventKind::NOTIFY, KERNEL_CONTEXT) if event.nra_word == NRA_MCQ => reap(commands, consumer),
                (EventKind::NOTIFY, context) => commands.board.fire(context, event.nra_word),
                (EventKind::CONTEXT_FAILED, context) => commands.board.fail_context(context),
                _ => {}
            }
        }
        if taken && self.ring.wants_kick() {
            kick(&self.kicks[usize::from(EVENT_QUEUE)]);
        }
    }
}

/// Takes the completions of commands, until there is none and the next one will notify.
fn reap(commands: &Commands, consumer: &mut Consumer) {
    let kernel = &commands.kernel;
    loop {
        while let Some(completion) = consumer.pop(kernel.mcq()) {
            if completion.kind == CompletionKind::COMMAND.0 {
                commands.board.complete(completion.descriptor, Status(completion.status));
            }
            if consumer.publish(kernel.mcq()) {
                kernel.ring();
            }
        }
        arm::<Native>(kernel.nra_word(NRA_MCQ));
        if !consumer.is_ready(kernel.mcq()) {
            return;
        }
    }
}

/// Kicks a queue. An eventfd whose counter is full is readable, which is all that matters.
pub(super) fn kick(queue: &EventFd) {
    let _ = queue.write(1);
}
