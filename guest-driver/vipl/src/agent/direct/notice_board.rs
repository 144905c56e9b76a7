//! Where the event thread writes what has happened, and where callers wait for it: counts of notifications, failures,
//! outcomes of commands. All of it lies in guest RAM and is waited for as a futex, so that the event thread touches no
//! heap and no lock: their pages may be moving just then.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::Timespec;
use vianic_abi::command::ConnectBlock;
use vianic_abi::nic_memory::{NRA_ANY, NRA_WORDS};
use vianic_abi::status::Status;
use vianic_abi::token_table::{Header, NicState};
use vianic_abi::{KERNEL_CONTEXT, MAX_CONTEXTS};

use super::ram::{Extent, PAGE, Ram, in_memory};

/// Commands that may be under way at once.
const TICKETS: u32 = 1024;
/// Words of a ticket: generation, state, status, and one to fill up.
const TICKET_WORDS: usize = 4;

const FAILURES_OFFSET: u64 = 0;
const TABLES_OFFSET: u64 = 0x800;
const TICKETS_OFFSET: u64 = PAGE;
const FIRED_OFFSET: u64 = TICKETS_OFFSET + TICKETS as u64 * TICKET_WORDS as u64 * 4;
const BOARD_SIZE: u64 = FIRED_OFFSET + MAX_CONTEXTS as u64 * NRA_WORDS as u64 * 4;

/// A ticket's states.
const RUNNING: u32 = 0;
const DONE: u32 = 1;
const INTERRUPTED: u32 = 2;

/// Bytes of a ticket's [`ConnectBlock`].
const BLOCK_SIZE: u64 = 128;
const _: () = assert!(size_of::<ConnectBlock>() as u64 <= BLOCK_SIZE);

#[derive(Debug)]
pub(super) struct NoticeBoard {
    ram: &'static Ram,
    memory: Extent,
    blocks: Extent,
    free_tickets: Mutex<Vec<u32>>,
}

/// Why a wait for an NRA word is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// The count is another one now.
    Fired(u32),
    /// The context, or the whole card, has failed.
    Failed,
    /// The time is up.
    TimedOut,
}

/// How far a command has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It has completed.
    Done(Status),
    /// It runs, and the time is up.
    TimedOut,
    /// It runs, and somebody wants the wait to end.
    Interrupted,
}

impl NoticeBoard {
    pub(super) fn new(ram: &'static Ram) -> Option<Self> {
        Some(Self {
            ram,
            memory: ram.allocate(BOARD_SIZE)?,
            blocks: ram.allocate(u64::from(TICKETS) * BLOCK_SIZE)?,
            free_tickets: Mutex::new((0..TICKETS).rev().collect()),
        })
    }

    fn failures(&self) -> &[AtomicU32] {
        self.memory.words(FAILURES_OFFSET, usize::from(MAX_CONTEXTS))
    }

    /// Guest-physical addresses of the contexts' Token Tables, 0 without a context.
    fn tables(&self) -> &[AtomicU64] {
        self.memory.words(TABLES_OFFSET, usize::from(MAX_CONTEXTS))
    }

    fn ticket_words(&self, number: u32) -> &[AtomicU32] {
        self.memory.words(TICKETS_OFFSET + u64::from(number) * TICKET_WORDS as u64 * 4, TICKET_WORDS)
    }

    fn fired(&self, context: u16) -> &[AtomicU32] {
        let offset = FIRED_OFFSET + u64::from(context) * u64::from(NRA_WORDS) * 4;
        self.memory.words(offset, NRA_WORDS as usize)
    }

    /// Whether the whole card has failed.
    pub(super) fn nic_has_failed(&self) -> bool {
        self.has_failed(KERNEL_CONTEXT)
    }

    fn has_failed(&self, context: u16) -> bool {
        self.failures()[usize::from(context)].load(Ordering::SeqCst) != 0
    }

    fn fail(&self, context: u16) {
        self.failures()[usize::from(context)].store(1, Ordering::SeqCst);
        let table = self.tables()[usize::from(context)].load(Ordering::SeqCst);
        if table != 0 {
            // Posters that wait for room look here. A card that is alive has done it; a dead one cannot.
            let state = in_memory(table) + std::mem::offset_of!(Header, nic_state);
            self.ram.memory().words::<AtomicU32>(state, 1)[0].store(NicState::CLOSED.0, Ordering::SeqCst);
        }
        self.wake_context(context);
    }

    /// An NRA word has fired. A context or word that does not exist is the card's mistake, and ignored.
    pub(super) fn fire(&self, context: u16, nra_word: u32) {
        if context < MAX_CONTEXTS && nra_word < NRA_WORDS {
            for word in [nra_word, NRA_ANY] {
                let count = &self.fired(context)[word as usize];
                count.fetch_add(1, Ordering::SeqCst);
                wake(count);
            }
        }
    }

    /// Makes every wait in the context look again.
    pub(super) fn wake_context(&self, context: u16) {
        for count in self.fired(context) {
            count.fetch_add(1, Ordering::SeqCst);
            wake(count);
        }
    }

    /// The context has failed for good.
    pub(super) fn fail_context(&self, context: u16) {
        if context == KERNEL_CONTEXT {
            self.fail_nic();
        } else if context < MAX_CONTEXTS {
            self.fail(context);
        }
    }

    /// The card has failed for good: all waits end, all commands complete.
    pub(super) fn fail_nic(&self) {
        for context in 0..MAX_CONTEXTS {
            self.fail(context);
        }
        for number in 0..TICKETS {
            finish(self.ticket_words(number), Status::NIC_FAILED);
        }
    }

    /// A context begins, with its Token Table at `token_table`: nothing has happened in it yet.
    pub(super) fn open_context(&self, context: u16, token_table: u64) {
        for count in self.fired(context) {
            count.store(0, Ordering::SeqCst);
        }
        self.failures()[usize::from(context)].store(0, Ordering::SeqCst);
        self.tables()[usize::from(context)].store(token_table, Ordering::SeqCst);
        // The card may have failed just before its Token Table was known.
        if self.nic_has_failed() {
            self.fail(context);
        }
    }

    /// A context ends.
    pub(super) fn close_context(&self, context: u16) {
        self.tables()[usize::from(context)].store(0, Ordering::SeqCst);
    }

    /// Waits until the count of an NRA word is not `seen`, or `deadline`.
    pub(super) fn wait_for_word(
        &self,
        context: u16,
        nra_word: u32,
        seen: u32,
        deadline: Option<Instant>,
    ) -> Woken {
        let Some(count) = self.fired(context).get(nra_word as usize) else { return Woken::TimedOut };
        loop {
            if self.has_failed(context) {
                return Woken::Failed;
            }
            let now = count.load(Ordering::SeqCst);
            if now != seen {
                return Woken::Fired(now);
            }
            if !sleep(count, seen, deadline) {
                return Woken::TimedOut;
            }
        }
    }

    /// A ticket for a command, or nothing if there are too many under way.
    pub(super) fn take_ticket(&self) -> Option<Ticket<'_>> {
        let number = self.free_tickets.lock().pop()?;
        let words = self.ticket_words(number);
        let generation = words[0].load(Ordering::SeqCst).wrapping_add(1);
        words[1].store(RUNNING, Ordering::SeqCst);
        words[0].store(generation, Ordering::SeqCst);
        Some(Ticket { board: self, number, generation, over: false })
    }

    /// Waits until the command of a ticket has completed or `deadline`.
    fn wait(&self, number: u32, deadline: Option<Instant>) -> Progress {
        let words = self.ticket_words(number);
        loop {
            // A card that failed before the ticket was taken completes nothing any more.
            if self.nic_has_failed() {
                finish(words, Status::NIC_FAILED);
            }
            match words[1].load(Ordering::SeqCst) {
                DONE => return Progress::Done(Status(words[2].load(Ordering::SeqCst))),
                INTERRUPTED => {
                    let running =
                        words[1].compare_exchange(INTERRUPTED, RUNNING, Ordering::SeqCst, Ordering::SeqCst);
                    if running.is_ok() {
                        return Progress::Interrupted;
                    }
                }
                _ if sleep(&words[1], RUNNING, deadline) => {}
                _ => return Progress::TimedOut,
            }
        }
    }

    fn read_block(&self, number: u32) -> ConnectBlock {
        let words: [u64; 12] = self.blocks.load(u64::from(number) * BLOCK_SIZE);
        zerocopy::transmute!(words)
    }

    /// A command has completed. A tag that is not under way is the card's mistake, and ignored.
    pub(super) fn complete(&self, tag: u64, status: Status) {
        let [number, generation]: [u32; 2] = zerocopy::transmute!(tag);
        if number < TICKETS && self.ticket_words(number)[0].load(Ordering::SeqCst) == generation {
            finish(self.ticket_words(number), status);
        }
    }

    /// Ends the wait for a command, if it still runs.
    pub(super) fn interrupt(&self, tag: u64) {
        let [number, generation]: [u32; 2] = zerocopy::transmute!(tag);
        let words = self.ticket_words(number);
        if words[0].load(Ordering::SeqCst) == generation {
            let interrupted =
                words[1].compare_exchange(RUNNING, INTERRUPTED, Ordering::SeqCst, Ordering::SeqCst);
            if interrupted.is_ok() {
                wake(&words[1]);
            }
        }
    }
}

fn finish(ticket: &[AtomicU32], status: Status) {
    if ticket[1].load(Ordering::SeqCst) != DONE {
        ticket[2].store(status.0, Ordering::SeqCst);
        ticket[1].store(DONE, Ordering::SeqCst);
        wake(&ticket[1]);
    }
}

fn wake(word: &AtomicU32) {
    let woken = futex::wake(word, futex::Flags::PRIVATE, i32::MAX.unsigned_abs());
    debug_assert!(woken.is_ok(), "waking {woken:?}");
}

/// Sleeps while `word` is `value`. `false`: `deadline` has come.
fn sleep(word: &AtomicU32, value: u32, deadline: Option<Instant>) -> bool {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    if left.is_some_and(|left| left.is_zero()) {
        return false;
    }
    let left = left.and_then(|left: Duration| Timespec::try_from(left).ok());
    match futex::wait(word, futex::Flags::PRIVATE, value, left.as_ref()) {
        // The loop around looks at the clock and at the word.
        Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => true,
        Err(error) => unreachable!("waiting for a word of our own memory: {error}"),
    }
}

/// A command under way.
#[derive(Debug)]
pub(super) struct Ticket<'a> {
    board: &'a NoticeBoard,
    number: u32,
    generation: u32,
    over: bool,
}

impl Ticket<'_> {
    /// What the command carries, and its completion returns.
    pub(super) fn tag(&self) -> u64 {
        zerocopy::transmute!([self.number, self.generation])
    }

    /// The command was never posted.
    pub(super) fn not_posted(mut self) {
        self.over = true;
    }

    /// Waits until the command has completed or `deadline`.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Progress {
        let progress = self.board.wait(self.number, deadline);
        self.over |= matches!(progress, Progress::Done(_));
        progress
    }

    /// Keeps the ticket beyond its borrow of the board, which must get it back.
    pub(super) fn keep(self) -> KeptTicket {
        let kept = KeptTicket { number: self.number, generation: self.generation };
        // It is not given back here.
        std::mem::forget(self);
        kept
    }

    /// Guest-physical address of the ticket's [`ConnectBlock`].
    pub(super) fn block_address(&self) -> u64 {
        self.board.blocks.address() + u64::from(self.number) * BLOCK_SIZE
    }

    pub(super) fn write_block(&self, block: &ConnectBlock) {
        let words: [u64; 12] = zerocopy::transmute!(*block);
        self.board.blocks.store(u64::from(self.number) * BLOCK_SIZE, &words);
    }

    pub(super) fn read_block(&self) -> ConnectBlock {
        self.board.read_block(self.number)
    }
}

/// The ticket of a command under way that nobody may be waiting for.
#[derive(Debug)]
pub(super) struct KeptTicket {
    number: u32,
    generation: u32,
}

impl KeptTicket {
    /// What the command carries.
    pub(super) fn tag(&self) -> u64 {
        zerocopy::transmute!([self.number, self.generation])
    }

    /// Waits until the command has completed or `deadline`. Any number of threads may.
    pub(super) fn wait(&self, board: &NoticeBoard, deadline: Option<Instant>) -> Progress {
        board.wait(self.number, deadline)
    }

    pub(super) fn read_block(&self, board: &NoticeBoard) -> ConnectBlock {
        board.read_block(self.number)
    }

    /// The last look at the ticket: gives it back if its command has completed.
    pub(super) fn give_back(&self, board: &NoticeBoard) {
        if matches!(board.wait(self.number, Some(Instant::now())), Progress::Done(_)) {
            board.free_tickets.lock().push(self.number);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        // A command that has not completed may still write to its block: the ticket is never used again.
        if self.over {
            self.board.free_tickets.lock().push(self.number);
        }
    }
}

#[cfg(test)]
mod tests;
