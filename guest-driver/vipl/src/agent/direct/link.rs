//! One card: the connection to it, context 0, and the thread that serves it. All NIC handles of the process that were
//! opened with the same socket share it, as a card serves one front end.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use vianic_abi::attach::{AttachReply, AttachRequest};
use vianic_abi::completion::{DEFAULT_MCQ_ENTRIES_LOG2, arm};
use vianic_abi::nic_memory::{NRA_MCQ, REGISTERS_MAGIC};
use vianic_abi::status::Status;
use vianic_abi::sync::Native;
use vianic_abi::token_table::DEFAULT_ENTRIES_LOG2;
use vianic_abi::{ABI_VERSION, ATTACH_QUEUE, KERNEL_CONTEXT, MAX_CONTEXTS};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::commands::Commands;
use super::context_memory::{TableMemory, context_memory};
use super::events::{EventQueue, EventThread, borrow, kick};
use super::front_end::{FrontEnd, Queue};
use super::mrt::Mrt;
use super::nic_memory::NicMemory;
use super::notice_board::NoticeBoard;
use super::ram::Ram;
use super::vring::{Buffer, Vring};
use crate::agent::AgentError;

/// The card maps its NIC memory and answers the attach request within this time, or it is taken to be dead.
const ATTACH_LIMIT: Duration = Duration::from_secs(10);

/// Descriptors of the doorbell queues, which carry no buffers but for the attach chain.
const DOORBELL_QUEUE_SIZE: u16 = 16;

static LINKS: Mutex<Option<HashMap<PathBuf, Weak<Link>>>> = Mutex::new(None);

pub(super) struct Link {
    pub(super) ram: &'static Ram,
    pub(super) commands: Arc<Commands>,
    pub(super) nic_memory: Arc<NicMemory>,
    pub(super) mrt: Mrt,
    /// One for each virtqueue.
    pub(super) kicks: Arc<Vec<EventFd>>,
    /// Numbers of contexts that nobody has.
    pub(super) free_contexts: Mutex<Vec<u16>>,
    front_end: FrontEnd,
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
    /// The card uses them as long as it is connected.
    doorbell_rings: Vec<Vring>,
    _kernel_tables: TableMemory,
}

impl Link {
    /// The process's link to the card at `socket`; connects if there is none.
    pub(super) fn to(socket: &Path) -> Result<Arc<Self>, AgentError> {
        let path = socket.canonicalize().map_err(|error| no_such_nic(socket, &error))?;
        let mut links = LINKS.lock();
        let links = links.get_or_insert_default();
        if let Some(link) = links.get(&path).and_then(Weak::upgrade)
            && link.is_usable()
        {
            return Ok(link);
        }
        let link = Arc::new(Self::connect(&path)?);
        links.retain(|_, link| link.strong_count() > 0);
        links.insert(path, Arc::downgrade(&link));
        Ok(link)
    }

    /// Whether the card lives, and this is the process that has it: a child after fork has the link's memory, but neither its
    /// thread nor a right to the card.
    pub(super) fn is_usable(&self) -> bool {
        self.ram.is_of_this_process() && !self.commands.board.nic_has_failed()
    }

    fn connect(path: &Path) -> Result<Self, AgentError> {
        let ram = Ram::of_this_process().map_err(|error| failed("set up guest RAM")(error.into()))?;
        let nic_memory = NicMemory::new().map_err(|error| failed("reserve NIC memory")(error.into()))?;
        let nic_memory = Arc::new(nic_memory);
        let mut front_end = FrontEnd::connect(path)?;
        let channel = front_end.open_back_end_channel(Arc::clone(&nic_memory))?;

        let kicks = (0..=MAX_CONTEXTS).map(|_| eventfd()).collect::<Result<_, _>>()?;
        let kicks = Arc::new(kicks);
        let (event_call, doorbell_call, stop) = (eventfd()?, eventfd()?, eventfd()?);
        let mrt = Mrt::new(ram, Arc::clone(&nic_memory)).ok_or_else(ram_is_full)?;
        let tables = TableMemory::new(ram).ok_or_else(ram_is_full)?;
        let kernel = context_memory(KERNEL_CONTEXT, &tables, ram, &nic_memory, &kicks)?;
        let board = NoticeBoard::new(ram).ok_or_else(ram_is_full)?;
        board.open_context(KERNEL_CONTEXT, tables.token_table.address());
        let commands = Arc::new(Commands { ram, kernel, board });

        let event_queue = EventQueue::new(ram, Arc::clone(&kicks)).ok_or_else(ram_is_full)?;
        let doorbell_rings: Vec<Vring> = (0..MAX_CONTEXTS)
            .map(|_| Vring::new(ram, DOORBELL_QUEUE_SIZE).ok_or_else(ram_is_full))
            .collect::<Result<_, _>>()?;
        let event_config = event_queue.config();
        let thread = EventThread {
            commands: Arc::clone(&commands),
            channel,
            queue: event_queue,
            call: event_call.try_clone().map_err(failed("duplicate an eventfd"))?,
            socket: front_end.socket().try_clone_to_owned().map_err(failed("duplicate the socket"))?,
            stop: stop.try_clone().map_err(failed("duplicate an eventfd"))?,
        };
        let thread = std::thread::Builder::new()
            .name("vipl-direct".into())
            .spawn(move || thread.run())
            .map_err(failed("start a thread"))?;
        // From here on, dropping the link stops the card and the thread.
        let mut link = Self {
            ram,
            commands,
            nic_memory,
            mrt,
            kicks: Arc::clone(&kicks),
            free_contexts: Mutex::new((KERNEL_CONTEXT + 1..front_end.contexts).rev().collect()),
            front_end,
            stop,
            thread: Some(thread),
            doorbell_rings,
            _kernel_tables: tables,
        };
        let doorbells = link.doorbell_rings.iter().map(|ring| (ring.config(ram), &doorbell_call));
        let queues: Vec<Queue<'_>> = std::iter::once((event_config, &event_call))
            .chain(doorbells)
            .zip(&*kicks)
            .map(|((config, call), kick)| Queue { config, call, kick })
            .collect();
        link.front_end.start(ram, &queues)?;
        link.attach(&doorbell_call)?;
        Ok(link)
    }

    /// Tells the card where context 0 is, and waits until it works.
    fn attach(&mut self, call: &EventFd) -> Result<(), AgentError> {
        let request = AttachRequest {
            abi_version: ABI_VERSION,
            token_table_log2: DEFAULT_ENTRIES_LOG2,
            mcq_log2: DEFAULT_MCQ_ENTRIES_LOG2,
            reserved: 0,
            token_table: self._kernel_tables.token_table.address(),
            mcq: self._kernel_tables.mcq.address(),
            mdl_insert: self.mrt.mdl_insert_address(),
        };
        let chain = self.ram.allocate(1).ok_or_else(ram_is_full)?;
        let words: [u64; 4] = zerocopy::transmute!(request);
        chain.store(0, &words);
        let reply = chain.address() + 32;
        let ring = &mut self.doorbell_rings[usize::from(ATTACH_QUEUE) - 1];
        ring.describe(
            0,
            &[
                Buffer { address: chain.address(), length: 32, writable: false },
                Buffer { address: reply, length: 8, writable: true },
            ],
        );
        ring.make_available(0);
        kick(&self.kicks[usize::from(ATTACH_QUEUE)]);

        let limit = Timespec::try_from(ATTACH_LIMIT).map_err(|_| AgentError::Unusable("time-out".into()))?;
        while ring.take_used().is_none() {
            let mut fds = [
                PollFd::from_borrowed_fd(borrow(call), PollFlags::IN),
                PollFd::from_borrowed_fd(self.front_end.socket(), PollFlags::RDHUP),
            ];
            let ready = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&limit)));
            let hung_up = !fds[1].revents().is_empty();
            if ready.map_err(|error| failed("wait for the card")(error.into()))? == 0 || hung_up {
                // The chain is the card's until it is answered.
                chain.keep_for_ever();
                return Err(AgentError::Unusable("the card does not answer the attach request".into()));
            }
            // Nonblocking: only makes it unreadable again.
            let _ = call.read();
        }
        let reply: AttachReply = zerocopy::transmute!(Vring::word(self.ram, reply));
        if Status(reply.status) != Status::SUCCESS {
            return Err(AgentError::Unusable(format!(
                "the card, of version {}, refused to be attached: {:?}",
                reply.abi_version,
                Status(reply.status)
            )));
        }
        if self.nic_memory.registers().magic != REGISTERS_MAGIC {
            return Err(AgentError::Unusable("the card has not mapped its NIC memory".into()));
        }
        // Nothing has completed yet: the first command will notify.
        arm::<Native>(self.commands.kernel.nra_word(NRA_MCQ));
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A child after fork must not stop its parent's card; nor touch the thread, whose place in memory may be another
        // thread's by now.
        if !self.ram.is_of_this_process() {
            std::mem::forget(self.thread.take());
            return;
        }
        if !self.commands.board.nic_has_failed() {
            self.front_end.stop();
        }
        kick(&self.stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that served the card has panicked");
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

fn eventfd() -> Result<EventFd, AgentError> {
    EventFd::new(EFD_NONBLOCK).map_err(failed("eventfd"))
}

pub(super) fn no_such_nic(socket: &Path, error: &io::Error) -> AgentError {
    AgentError::NoSuchNic(format!("direct:{} ({error})", socket.display()))
}

fn failed(call: &'static str) -> impl Fn(io::Error) -> AgentError {
    move |source| AgentError::Io { call, source }
}

fn ram_is_full() -> AgentError {
    AgentError::Unusable("guest RAM is full".into())
}
