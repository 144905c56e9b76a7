//! The Message Unit: takes what was posted and sets it going (claims 8 and 9).

use vianic_abi::KERNEL_CONTEXT;
use vianic_abi::descriptor::{ControlSegment, Segment};
use vianic_abi::nic_memory::Counter;
use vianic_abi::status::ErrorCode;
use vianic_abi::token::{IndirectBody, InlineBody, TOKEN_RECEIVE, Token, TokenKind};
use zerocopy::IntoBytes as _;

use crate::guest_memory::NotMemory;
use crate::iorb::{DescriptorAddress, Iorb, Location, Segments, WorkQueue, indirect_segments, is_aligned};
use crate::nic::completion::{CONTROL_BYTES, Outcome, ViNumber};
use crate::nic::context::Context;
use crate::nic::mdl::Drain;
use crate::nic::memory::usize_of;
use crate::nic::pacing::{Pacing, Patience, Poll};
use crate::nic::shadow_mrt::{ProtectionFault, Rights};
use crate::nic::vi::{Refusal, Vi, ViState};
use crate::nic::{Card, Core};
use crate::vito::frame::Ranges;
use vianic_abi::descriptor::DescriptorStatus;

impl Card {
    /// One turn: takes the contexts that rang from the Out Post FIFO and gives each context that is polled one copy
    /// operation. Says how soon the next turn is due; `now` is in nanoseconds.
    pub fn turn(&mut self, now: u64, patience: Patience) -> Poll {
        // No message is under way between two turns.
        self.core.shadow.let_go(&self.core.memory, &self.core.host);
        while let Some(context) = self.fifo.pop() {
            self.wake(context);
        }
        let mut next = Poll::Asleep;
        for _ in 0..self.polled.len() {
            // Taken from the front and put back behind: a command in between may end any context.
            let Some(number) = self.polled.pop_front() else {
                break;
            };
            let poll =
                if self.primary_loop(number) > 0 { Poll::Busy } else { self.rest(number, now, patience) };
            let polled = |context: &Context| context.polled;
            if self.contexts[usize::from(number)].as_ref().is_some_and(polled) {
                self.polled.push_back(number);
            }
            next = next.max(poll);
        }
        self.fail_broken_contexts();
        if next < Poll::Busy {
            self.core.shadow.drain(&self.core.memory, &self.core.host, Drain::Idle);
        }
        if self.core.ready.is_empty() && self.core.outbox.is_empty() { next } else { Poll::Busy }
    }

    /// A doorbell of `context` came through the FIFO.
    fn wake(&mut self, number: u16) {
        let Some(context) =
            self.contexts[usize::from(number)].as_mut().filter(|context| context.broken.is_none())
        else {
            return;
        };
        self.core.flush_backlog(context, number);
        context.pacing.woken();
        if !context.polled {
            context.polled = true;
            self.polled.push_back(number);
            let (table, acceptor) = context.token_table();
            acceptor.start_polling(table);
        }
    }

    /// A table was found empty.
    fn rest(&mut self, number: u16, now: u64, patience: Patience) -> Poll {
        let Some(context) =
            self.contexts[usize::from(number)].as_mut().filter(|context| context.broken.is_none())
        else {
            return Poll::Asleep;
        };
        match context.pacing.empty(now, patience) {
            Poll::Asleep => {}
            poll => return poll,
        }
        let (table, acceptor) = context.token_table();
        if !acceptor.fall_asleep(table) {
            return Poll::Busy;
        }
        context.polled = false;
        self.core.memory.count(Counter::sleeps, 1);
        Poll::Asleep
    }

    /// The primary loop over one batch of a context's entries. Returns how many there were.
    #[inline(always)]
    fn primary_loop(&mut self, number: u16) -> u32 {
        let Some(context) =
            self.contexts[usize::from(number)].as_mut().filter(|context| context.broken.is_none())
        else {
            return 0;
        };
        let (table, acceptor) = context.token_table();
        // What a card that waits for work does most of the time.
        if !acceptor.is_pending(table) {
            self.core.memory.count(Counter::polls, 1);
            context.pacing.copied(0);
            return 0;
        }
        self.handle_batch(number)
    }

    /// Copies a batch of a context's entries and handles them. Returns how many there were.
    #[inline(never)]
    fn handle_batch(&mut self, number: u16) -> u32 {
        let Some(context) = self.contexts[usize::from(number)].as_mut() else { return 0 };
        let mut batch = std::mem::take(&mut self.batch);
        let asked = context.pacing.batch();
        let mut tokens = self.core.copy_entries(context, asked, &mut batch);
        let found = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        context.pacing.copied(found);
        while !tokens.is_empty() {
            let accepted = self.accept_plain(number, tokens);
            tokens = &tokens[accepted..];
            if let Some((token, rest)) = tokens.split_first() {
                self.handle(number, token);
                tokens = rest;
            }
        }
        self.batch = batch;
        if let Some(context) = &mut self.contexts[usize::from(number)] {
            let (table, acceptor) = context.token_table();
            acceptor.publish(table);
        }
        found
    }

    /// Accepts entries as long as they are what most are, with every thing looked up once. How many.
    #[inline]
    fn accept_plain(&mut self, number: u16, tokens: &[Token]) -> usize {
        // The Kernel Agent's context has no descriptors.
        let usable = |context: &&mut Context| context.broken.is_none() && number != KERNEL_CONTEXT;
        let Some(context) = self.contexts[usize::from(number)].as_mut().filter(usable) else {
            return 0;
        };
        let accept = |token: &&Token| self.core.accept_plain(context, number, token).is_some();
        tokens.iter().take_while(accept).count()
    }

    /// Accepts everything that `context` has posted until now, so that what comes next comes after it.
    pub(super) fn accept_posted(&mut self, number: u16) {
        let Some(context) = self.contexts[usize::from(number)].as_mut() else {
            return;
        };
        let entries = context.token_table().0.entries();
        let mut accepted = 0;
        while accepted < entries {
            match self.primary_loop(number) {
                0 => break,
                found => accepted += found,
            }
        }
    }

    /// Handles one copied entry.
    fn handle(&mut self, number: u16, token: &Token) {
        let counter = match TokenKind(token.kind) {
            TokenKind::INLINE_DESCRIPTOR | TokenKind::INDIRECT_DESCRIPTOR if number != KERNEL_CONTEXT => {
                // Does this new entry contain a descriptor?
                self.descriptor(number, token);
                if token.kind == TokenKind::INLINE_DESCRIPTOR.0 {
                    Counter::tokens_inline
                } else {
                    Counter::tokens_indirect
                }
            }
            TokenKind::COMMAND if number == KERNEL_CONTEXT => {
                self.command(token);
                Counter::tokens_command
            }
            _ => {
                if let Some(context) = &mut self.contexts[usize::from(number)] {
                    self.core.broke_the_rules(context, "it posted an entry that it must not post");
                }
                Counter::tokens_refused
            }
        };
        self.core.memory.count(counter, 1);
    }

    /// An entry with a descriptor.
    fn descriptor(&mut self, number: u16, token: &Token) {
        let Some(context) =
            self.contexts[usize::from(number)].as_mut().filter(|context| context.broken.is_none())
        else {
            return;
        };
        let vi_number = ViNumber { context: number, vi: token.vi };
        let queue = queue_of(token);
        let Some(vi) = context.vi(token.vi) else {
            return self.core.report_error(context, vi_number, ErrorCode::POST_DESC, token.descriptor);
        };
        let Ok(iorb) = self.core.build_iorb(Rights::local(number, vi.ptag), queue, token) else {
            // It cannot even be completed: there is nowhere to write to.
            let connected = matches!(vi.state, ViState::Connected(_));
            self.core.report_error(context, vi_number, ErrorCode::POST_DESC, token.descriptor);
            if connected {
                self.fail_vi(vi_number, ErrorCode::CONN_LOST);
            }
            return;
        };
        match vi.admit(queue) {
            Ok(work_queue) => {
                work_queue.push_back(iorb);
                if queue == WorkQueue::Send {
                    self.core.has_something_to_send(vi, vi_number);
                }
            }
            Err(Refusal::Flushed) => {
                let flushed = Outcome::error(DescriptorStatus::FLUSHED_ERROR);
                self.core.complete(context, vi_number, &iorb, flushed);
            }
            Err(Refusal::Overrun) => {
                self.core.report_error(context, vi_number, ErrorCode::VI_OVERRUN, token.descriptor);
                self.fail_vi(vi_number, ErrorCode::CONN_LOST);
            }
        }
    }
}

/// The work queue that a token is for.
#[inline]
fn queue_of(token: &Token) -> WorkQueue {
    if token.flags & TOKEN_RECEIVE != 0 { WorkQueue::Receive } else { WorkQueue::Send }
}

impl Core {
    /// Copies up to `limit` entries from the Post_Array.
    #[inline]
    fn copy_entries<'a>(&self, context: &mut Context, limit: u32, batch: &'a mut Vec<Token>) -> &'a [Token] {
        self.memory.count(Counter::polls, 1);
        let limit = usize_of(limit);
        if batch.len() < limit {
            batch.resize(limit, Token::default());
        }
        let (table, acceptor) = context.token_table();
        let found = acceptor.copy(table, &mut batch[..limit]);
        let tokens = &batch[..found];
        // A poster that breaks the rules may have taken its entry back.
        if found > 0 {
            self.memory.count(Counter::batches, 1);
            self.memory.count_max(Counter::batch_high_water, found as u64);
            self.memory.count(Pacing::batches_counter(found), 1);
        }
        tokens
    }

    /// Accepts an entry with an inline descriptor that is a send or a receive with one segment. `None`: it is something else, or
    /// something is in the way, and nothing has been changed.
    #[inline(always)]
    fn accept_plain(&mut self, context: &mut Context, number: u16, token: &Token) -> Option<()> {
        if token.kind != TokenKind::INLINE_DESCRIPTOR.0 || !is_aligned(token.descriptor) {
            return None;
        }
        let vi = context.vi(token.vi)?;
        let queue = queue_of(token);
        let rights = Rights::local(number, vi.ptag);
        let body: &InlineBody = token.body_ref();
        let what = (token.descriptor, body.descriptor_handle, CONTROL_BYTES);
        let address = self.resolve_piece(rights, what).ok()??;
        let location = Location { address, epoch: self.shadow.epoch() };
        let iorb = Iorb::plain(queue, token.descriptor, location, body)?;
        vi.admit(queue).ok()?.push_back(iorb);
        if queue == WorkQueue::Send {
            self.has_something_to_send(vi, ViNumber { context: number, vi: token.vi });
        }
        self.memory.count(Counter::tokens_inline, 1);
        Some(())
    }

    /// Vito takes it from there.
    #[inline]
    fn has_something_to_send(&mut self, vi: &mut Vi, number: ViNumber) {
        if !std::mem::replace(&mut vi.ready, true) {
            self.ready.push_back(number);
        }
    }

    /// Builds the IORB that represents the descriptor of `token`.
    fn build_iorb(
        &mut self,
        rights: Rights,
        queue: WorkQueue,
        token: &Token,
    ) -> Result<Iorb, ProtectionFault> {
        if token.kind == TokenKind::INLINE_DESCRIPTOR.0 {
            let body: &InlineBody = token.body_ref();
            // The registration of the descriptor's region is fetched now: the completion goes there.
            let location = self.locate(rights, token.descriptor, body.descriptor_handle)?;
            return Ok(Iorb::from_inline(queue, token.descriptor, location, body));
        }
        let body: IndirectBody = token.body();
        let descriptor = DescriptorAddress { address: token.descriptor, handle: body.descriptor_handle };
        let location = self.locate(rights, descriptor.address, descriptor.handle)?;
        let (control, segments) = self.copy_descriptor(rights, descriptor, location)?;
        Ok(Iorb::from_indirect(queue, (descriptor, location), &control, segments))
    }

    /// Finds a descriptor that is posted.
    fn locate(&mut self, rights: Rights, address: u64, handle: u32) -> Result<Location, ProtectionFault> {
        if !is_aligned(address) {
            return Err(ProtectionFault);
        }
        let address = self.descriptor_address(rights, DescriptorAddress { address, handle })?;
        Ok(Location { address, epoch: self.shadow.epoch() })
    }

    /// Copies an indirect descriptor from the application's memory, once.
    fn copy_descriptor(
        &mut self,
        rights: Rights,
        descriptor: DescriptorAddress,
        location: Location,
    ) -> Result<(ControlSegment, Segments), ProtectionFault> {
        let control: ControlSegment =
            self.host.memory().read(location.address).map_err(|NotMemory { .. }| ProtectionFault)?;
        let mut segments: Segments = smallvec::smallvec![Segment::default(); indirect_segments(&control)];
        let bytes = segments.as_mut_slice().as_mut_bytes();
        let start = descriptor.address.checked_add(u64::from(CONTROL_BYTES)).ok_or(ProtectionFault)?;
        let length = u32::try_from(bytes.len()).map_err(|_| ProtectionFault)?;
        let mut ranges = Ranges::new();
        self.resolve(rights, (start, descriptor.handle, length), &mut ranges)?;
        let mut rest = bytes;
        for range in ranges {
            let (piece, tail) = rest.split_at_mut(range.length);
            self.host
                .memory()
                .read_bytes(range.address, piece)
                .map_err(|NotMemory { .. }| ProtectionFault)?;
            rest = tail;
        }
        Ok((control, segments))
    }
}
