//! Completing (claims 1 and 2; NRA): descriptor, Master Completion Queue, notification, in this order.

use std::collections::{HashSet, VecDeque};

use vianic_abi::completion::{COMPLETION_RECEIVE, Completion, CompletionKind, take_armed};
use vianic_abi::descriptor::{COMPLETION_OFFSET, DescriptorStatus, IMMEDIATE_OFFSET};
use vianic_abi::event::{Event, EventKind};
use vianic_abi::nic_memory::{Counter, NRA_ERRORS, NRA_MCQ, nra_cq};
use vianic_abi::status::{ErrorCode, Status};
use vianic_abi::sync::{Atomics as _, Native};

use crate::iorb::{DescriptorAddress, Iorb, Work, WorkQueue};
use crate::nic::context::{Context, Reported};
use crate::nic::shadow_mrt::{ProtectionFault, Rights};
use crate::nic::{Core, vi};
use crate::vito::frame::Ranges;

/// Bytes of a control segment.
pub(super) const CONTROL_BYTES: u32 = 32;

/// How a descriptor ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Error bits; empty for success.
    pub error: DescriptorStatus,
    /// Bytes transferred.
    pub length: u32,
    /// Immediate data that came.
    pub immediate: Option<u32>,
    /// Whether a receive descriptor was taken by the peer's RDMA write with immediate data.
    pub by_rdma_write: bool,
}

impl Outcome {
    /// Done, all `length` bytes of it.
    #[must_use]
    pub fn success(length: u32) -> Self {
        Self { error: DescriptorStatus::empty(), length, immediate: None, by_rdma_write: false }
    }

    /// Failed for `error`.
    #[must_use]
    pub fn error(error: DescriptorStatus) -> Self {
        Self { error, length: 0, immediate: None, by_rdma_write: false }
    }

    fn status(&self, work: Work) -> DescriptorStatus {
        let operation = match work {
            Work::Send => DescriptorStatus::empty(),
            Work::Receive if self.by_rdma_write => DescriptorStatus::OP_REMOTE_RDMA_WRITE,
            Work::Receive => DescriptorStatus::OP_RECEIVE,
            Work::RdmaWrite(_) => DescriptorStatus::OP_RDMA_WRITE,
            Work::RdmaRead(_) => DescriptorStatus::OP_RDMA_READ,
        };
        let immediate = match self.immediate {
            Some(_) => DescriptorStatus::IMMEDIATE,
            None => DescriptorStatus::empty(),
        };
        DescriptorStatus::DONE | self.error | operation | immediate
    }
}

/// Which VI: its context and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViNumber {
    /// Context.
    pub context: u16,
    /// Number in the context.
    pub vi: u16,
}

impl Core {
    /// Completes the descriptor of `iorb`, which was posted to VI `number` of `context`.
    pub fn complete(&mut self, context: &mut Context, number: ViNumber, iorb: &Iorb, outcome: Outcome) {
        let Some(vi) = context.vi(number.vi) else {
            return;
        };
        let rights = Rights::local(number.context, vi.ptag);
        let cq = vi.cq(iorb.queue());
        if self.write_descriptor(rights, iorb, outcome).is_err() {
            self.report_error(context, number, ErrorCode::COMP_PROT, iorb.descriptor.address);
            return;
        }
        let Some(cq) = cq else {
            return self.ask_work_queue(number, iorb.queue());
        };
        let completion = Completion {
            cq,
            kind: CompletionKind::DESCRIPTOR.0,
            flags: if iorb.queue() == WorkQueue::Receive { COMPLETION_RECEIVE } else { 0 },
            descriptor: iorb.descriptor.address,
            status: outcome.status(iorb.work).bits(),
            length: outcome.length,
            vi: number.vi,
            immediate: outcome.immediate.unwrap_or_default(),
            ..Completion::default()
        };
        self.report(context, number.context, completion);
    }

    /// Whoever waits for a work queue that has no completion queue is to be asked for.
    #[inline]
    pub(super) fn ask_work_queue(&mut self, number: ViNumber, queue: WorkQueue) {
        self.waiters.ask(number.context, vi::nra_word(number.vi, queue));
    }

    /// Writes length, status and immediate data into a descriptor, and counts it.
    #[inline(always)]
    pub(super) fn write_descriptor(
        &mut self,
        rights: Rights,
        iorb: &Iorb,
        outcome: Outcome,
    ) -> Result<(), ProtectionFault> {
        let control_segment = if self.shadow.is_current(&self.host, iorb.location.epoch) {
            iorb.location.address
        } else {
            self.descriptor_address(rights, iorb.descriptor)?
        };
        let memory = self.host.memory();
        if let Some(immediate) = outcome.immediate {
            memory.write(control_segment + IMMEDIATE_OFFSET, &immediate).map_err(|_| ProtectionFault)?;
        }
        // A send descriptor's length is the sender's to keep.
        let length = match iorb.queue() {
            WorkQueue::Send => iorb.length,
            WorkQueue::Receive => outcome.length,
        };
        let word: u64 = zerocopy::transmute!([length, outcome.status(iorb.work).bits()]);
        memory.store_u64_release(control_segment + COMPLETION_OFFSET, word).map_err(|_| ProtectionFault)?;
        let counter =
            if outcome.error.is_empty() { Counter::completions } else { Counter::completion_errors };
        self.memory.count(counter, 1);
        Ok(())
    }

    /// Where a descriptor's control segment is in guest memory.
    ///
    /// # Errors
    /// If the descriptor is not in memory that `rights` may use.
    #[inline]
    pub fn descriptor_address(
        &mut self,
        rights: Rights,
        descriptor: DescriptorAddress,
    ) -> Result<u64, ProtectionFault> {
        let what = (descriptor.address, descriptor.handle, CONTROL_BYTES);
        let address = match self.resolve_piece(rights, what)? {
            Some(address) => address,
            None => self.look_up_descriptor(rights, what)?,
        };
        // The application wrote it last, and the completion goes there.
        self.host.memory().prefetch_for_write(address);
        Ok(address)
    }

    /// A control segment in a region with a page table.
    fn look_up_descriptor(&mut self, rights: Rights, what: (u64, u32, u32)) -> Result<u64, ProtectionFault> {
        let mut ranges = Ranges::new();
        self.resolve(rights, what, &mut ranges)?;
        // Aligned to 64 bytes, it lies in one page.
        match ranges[..] {
            [range] => Ok(range.address),
            _ => Err(ProtectionFault),
        }
    }

    /// Reports an asynchronous error of a VI to its owner.
    pub fn report_error(
        &mut self,
        context: &mut Context,
        number: ViNumber,
        code: ErrorCode,
        descriptor: u64,
    ) {
        self.memory.count(Counter::async_errors, 1);
        let completion = Completion {
            kind: CompletionKind::ERROR.0,
            status: code.0,
            vi: number.vi,
            descriptor,
            cq: vianic_abi::NO_CQ,
            ..Completion::default()
        };
        self.report(context, number.context, completion);
    }

    /// Completes a control command.
    pub fn complete_command(&mut self, kernel_context: &mut Context, tag: u64, status: Status) {
        let completion = Completion {
            kind: CompletionKind::COMMAND.0,
            descriptor: tag,
            status: status.0,
            cq: vianic_abi::NO_CQ,
            ..Completion::default()
        };
        self.report(kernel_context, vianic_abi::KERNEL_CONTEXT, completion);
    }

    fn report(&mut self, context: &mut Context, number: u16, completion: Completion) {
        if context.broken.is_some() {
            return;
        }
        match context.report(completion) {
            Ok(Reported::InQueue) => self.ask_waiters(number, &completion),
            Ok(Reported::HeldBack) => self.memory.count(Counter::mcq_stalls, 1),
            Err(reason) => self.broke_the_rules(context, reason),
        }
    }

    /// There may be room in a context's MCQ again: moves what was held back.
    pub fn flush_backlog(&mut self, context: &mut Context, number: u16) {
        match context.flush_backlog() {
            Ok(moved) => moved.iter().for_each(|completion| self.ask_waiters(number, completion)),
            Err(reason) => self.broke_the_rules(context, reason),
        }
    }

    /// Whoever waits for an entry that is in the MCQ now is to be asked for.
    fn ask_waiters(&mut self, context: u16, completion: &Completion) {
        match CompletionKind(completion.kind) {
            CompletionKind::DESCRIPTOR => self.waiters.ask(context, nra_cq(completion.cq)),
            CompletionKind::ERROR => self.waiters.ask(context, NRA_ERRORS),
            _ => {}
        }
        self.waiters.ask(context, NRA_MCQ);
    }

    /// Looks at the NRA words of all that was completed since the last time, behind one fence for all of it, and notifies
    /// whoever armed them.
    #[inline]
    pub fn notify_waiters(&mut self) {
        if !self.waiters.words.is_empty() {
            self.look_at_waiters();
        }
    }

    fn look_at_waiters(&mut self) {
        Native::fence();
        for Waiter { context, word } in self.waiters.words.drain(..) {
            if take_armed::<Native>(self.memory.nra_word(context, word)) {
                self.memory.count(Counter::notifications, 1);
                self.events.push(Event { kind: EventKind::NOTIFY.0, context, nra_word: word });
            }
        }
    }
}

/// NRA words to look at: of queues on which something was completed.
#[derive(Debug, Default)]
pub struct Waiters {
    words: Vec<Waiter>,
}

/// An NRA word of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiter {
    context: u16,
    word: u32,
}

impl Waiters {
    /// What is asked for again in a row is looked at once: a queue that much is completed on, or the two that messages of this
    /// card to itself go from and to.
    #[inline]
    fn ask(&mut self, context: u16, word: u32) {
        let waiter = Waiter { context, word };
        match self.words[..] {
            [.., last] if last == waiter => {}
            [.., before, _] if before == waiter => {}
            _ => self.words.push(waiter),
        }
    }
}

/// Events on their way to the event queue, each once.
#[derive(Debug, Default)]
pub struct Events {
    queue: VecDeque<Event>,
    waiting: HashSet<(u16, u16, u32)>,
}

impl Events {
    /// Adds an event that does not wait already.
    pub fn push(&mut self, event: Event) {
        if self.waiting.insert((event.kind, event.context, event.nra_word)) {
            self.queue.push_back(event);
        }
    }

    /// Hands events to `sink`, oldest first, until it takes no more. Whether it took any.
    pub fn deliver(&mut self, mut sink: impl FnMut(Event) -> bool) -> bool {
        let mut any = false;
        while let Some(event) = self.queue.front().copied() {
            if !sink(event) {
                break;
            }
            any = true;
            self.queue.pop_front();
            self.waiting.remove(&(event.kind, event.context, event.nra_word));
        }
        any
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
