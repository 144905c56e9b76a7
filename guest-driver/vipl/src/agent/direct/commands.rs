//! Control commands: posted to context 0's Token Table, completed through the notice board.

use std::time::{Duration, Instant};

use vianic_abi::command::{Cancel, ConnectBlock, Opcode};
use vianic_abi::status::Status;
use vianic_abi::token::{Token, TokenKind};
use vianic_abi::token_table::Doorbell;
use zerocopy::{Immutable, IntoBytes};

use super::notice_board::{NoticeBoard, Progress, Ticket};
use super::ram::Ram;
use crate::mapping::ContextMemory;

/// A command that waits for nobody completes within this time, or the card is taken to be dead.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// Context 0, and where its completions are announced.
#[derive(Debug)]
pub(super) struct Commands {
    pub(super) ram: &'static Ram,
    pub(super) kernel: ContextMemory,
    pub(super) board: NoticeBoard,
}

/// What became of a command that waits for somebody.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It completed.
    Done(Status, Box<ConnectBlock>),
    /// It was taken back because the time was up.
    TimedOut,
    /// It was taken back because the wait was interrupted.
    Interrupted,
}

impl Commands {
    /// Runs a command and waits until it has completed.
    ///
    /// # Errors
    /// The command's status, if it is not success.
    pub(super) fn run<B: IntoBytes + Immutable>(&self, opcode: Opcode, body: B) -> Result<(), Status> {
        let mut ticket = self.take_ticket()?;
        ticket = self.post(ticket, opcode, body)?;
        match self.finish(&mut ticket) {
            Status::SUCCESS => Ok(()),
            refusal => Err(refusal),
        }
    }

    /// Runs a command that waits for somebody, until it has completed, `deadline` comes or somebody interrupts the ticket.
    /// `started` hears the ticket's tag once the command runs.
    ///
    /// # Errors
    /// If it could not be posted.
    pub(super) fn run_until<B: IntoBytes + Immutable>(
        &self,
        opcode: Opcode,
        block: &ConnectBlock,
        body: impl FnOnce(u64) -> B,
        deadline: Option<Instant>,
        started: impl FnOnce(u64),
    ) -> Result<Outcome, Status> {
        let mut ticket = self.start(opcode, block, body)?;
        started(ticket.tag());
        let given_up = match ticket.wait(deadline) {
            Progress::Done(status) => return Ok(Outcome::Done(status, Box::new(ticket.read_block()))),
            Progress::TimedOut => Outcome::TimedOut,
            Progress::Interrupted => Outcome::Interrupted,
        };
        // Both complete: the cancelled command with CANCELLED, or with its outcome if that came first.
        self.cancel(ticket.tag())?;
        match self.finish(&mut ticket) {
            Status::CANCELLED => Ok(given_up),
            status => Ok(Outcome::Done(status, Box::new(ticket.read_block()))),
        }
    }

    /// Starts a command that waits for somebody.
    ///
    /// # Errors
    /// If it could not be posted.
    pub(super) fn start<B: IntoBytes + Immutable>(
        &self,
        opcode: Opcode,
        block: &ConnectBlock,
        body: impl FnOnce(u64) -> B,
    ) -> Result<Ticket<'_>, Status> {
        let ticket = self.take_ticket()?;
        ticket.write_block(block);
        let body = body(ticket.block_address());
        self.post(ticket, opcode, body)
    }

    /// Takes a command that waits for somebody back; both complete.
    ///
    /// # Errors
    /// If the cancel could not be posted.
    pub(super) fn cancel(&self, tag: u64) -> Result<(), Status> {
        self.run(Opcode::CANCEL, Cancel { tag, ..Cancel::default() })
    }

    fn take_ticket(&self) -> Result<Ticket<'_>, Status> {
        // To a child after fork, its parent's card is gone.
        if self.board.nic_has_failed() || !self.ram.is_of_this_process() {
            return Err(Status::NIC_FAILED);
        }
        self.board.take_ticket().ok_or(Status::ERROR_RESOURCE)
    }

    fn post<'a, B: IntoBytes + Immutable>(
        &self,
        ticket: Ticket<'a>,
        opcode: Opcode,
        body: B,
    ) -> Result<Ticket<'a>, Status> {
        let token = Token::new(TokenKind::COMMAND, opcode.0, 0, ticket.tag(), body);
        let deadline = Instant::now() + COMMAND_LIMIT;
        let table_is_full = || {
            std::thread::yield_now();
            !self.board.nic_has_failed() && Instant::now() < deadline
        };
        match self.kernel.post(&token, table_is_full) {
            Ok(doorbell) => {
                if doorbell == Doorbell::Ring {
                    self.kernel.ring();
                }
                Ok(ticket)
            }
            Err(_) => {
                // An entry that was reserved and not filled stops the table for good.
                ticket.not_posted();
                self.board.fail_nic();
                Err(Status::NIC_FAILED)
            }
        }
    }

    /// Waits for a command that waits for nobody.
    fn finish(&self, ticket: &mut Ticket<'_>) -> Status {
        let deadline = Instant::now() + COMMAND_LIMIT;
        loop {
            match ticket.wait(Some(deadline)) {
                Progress::Done(status) => return status,
                Progress::Interrupted => {}
                Progress::TimedOut => {
                    log::error!("the card has not answered a command for {COMMAND_LIMIT:?}: it is given up");
                    self.board.fail_nic();
                    return Status::NIC_FAILED;
                }
            }
        }
    }
}
