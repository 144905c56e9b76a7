//! Messages in one piece, which is how most messages come: from the head of a send queue to the receive descriptor that waits for
//! it, with every thing looked up once.
//!
//! It is the short way for what [`transfer`](crate::nic::transfer) does too. Whatever is out of the ordinary here is left as it is, for that
//! to deal with: every step says `None` before it has changed anything. `tests/card/two_ways.rs` compares the two ways.

use vianic_abi::nic_memory::Counter;

use crate::guest_memory::{GuestMemory, Range, copy};
use crate::iorb::{Iorb, WorkQueue};
use crate::nic::completion::{Outcome, ViNumber};
use crate::nic::memory::usize_of;
use crate::nic::shadow_mrt::Rights;
use crate::nic::vi::Vi;
use crate::nic::{Card, Core};
use crate::vito::connection::SLICE;
use crate::vito::frame::Parcel;

impl Card {
    /// The message at the head of a VI's send queue, if it is one in one piece.
    #[inline]
    pub fn next_parcel(&mut self, number: ViNumber) -> Option<Parcel> {
        let vi = self.contexts[usize::from(number.context)].as_mut()?.vi(number.vi)?;
        self.core.parcel(number, vi)
    }

    /// Places a message where its VI waits for it, and completes the receive. `source` is the memory of the sending card's guest;
    /// none: it is this card's own.
    #[inline]
    pub fn place_parcel(&mut self, parcel: &Parcel, source: Option<&GuestMemory>) -> Option<()> {
        let number = ViNumber { context: parcel.to.context, vi: parcel.to.vi };
        let context = self.contexts.get_mut(usize::from(number.context))?.as_mut()?;
        let vi = context.vi(number.vi)?;
        let rights = Rights::local(number.context, vi.ptag);
        vi.connection().filter(|connection| connection.is_idle_at(parcel.to))?;
        let length = u32::try_from(parcel.bytes.length).ok()?;
        let iorb = vi.receive.front()?;
        let segment = *iorb.only_segment().filter(|segment| length <= segment.length)?;
        self.core.fetch_descriptor(vi.receive.get(1).unwrap_or(iorb));
        let address = self.core.resolve_piece(rights, (segment.address, segment.handle, length)).ok()??;
        let memory = self.core.host.memory();
        let place = Range { address, length: parcel.bytes.length };
        copy(source.unwrap_or(memory), parcel.bytes, memory, place).ok()?;
        self.core.memory.count(Counter::messages_received, 1);
        self.core.memory.count(Counter::bytes_received, length.into());
        let outcome = Outcome { immediate: parcel.immediate, ..Outcome::success(length) };
        if let Some(iorb) = self.core.complete_first(number, vi, WorkQueue::Receive, outcome) {
            self.core.complete(context, number, &iorb, outcome);
        }
        Some(())
    }

    /// The message at the head of a VI's send queue has been placed: completes the send. The next one, if it is in one piece.
    #[inline]
    pub fn parcel_placed(&mut self, number: ViNumber, parcel: &Parcel) -> Option<Parcel> {
        let context = self.contexts[usize::from(number.context)].as_mut()?;
        let vi = context.vi(number.vi)?;
        let length = u32::try_from(parcel.bytes.length).ok()?;
        self.core.memory.count(Counter::messages_sent, 1);
        self.core.memory.count(Counter::bytes_sent, length.into());
        let outcome = Outcome::success(length);
        if let Some(iorb) = self.core.complete_first(number, vi, WorkQueue::Send, outcome) {
            self.core.complete(context, number, &iorb, outcome);
            return self.next_parcel(number);
        }
        self.core.parcel(number, vi)
    }
}

impl Core {
    /// The message at the head of the send queue of `vi`, as [`Card::next_parcel`] gives it.
    #[inline(always)]
    fn parcel(&mut self, number: ViNumber, vi: &mut Vi) -> Option<Parcel> {
        let rights = Rights::local(number.context, vi.ptag);
        let longest = vi.attributes.max_transfer_size.min(SLICE);
        let connection = vi.connection().filter(|connection| connection.is_at_its_beginning())?;
        let to = connection.peer;
        let iorb = vi.send.front()?;
        let segment = iorb.only_segment().filter(|segment| (1..=longest).contains(&segment.length))?;
        self.fetch_descriptor(vi.send.get(1).unwrap_or(iorb));
        let what = (segment.address, segment.handle, segment.length);
        let address = self.resolve_piece(rights, what).ok()??;
        let bytes = Range { address, length: usize_of(segment.length) };
        Some(Parcel { to, bytes, immediate: iorb.immediate })
    }

    /// A completion goes to the descriptor of `iorb` soon: its cache line comes from the application's core meanwhile. That of the
    /// next message, if there is one; not sooner, as an application that looks at it would only take it back.
    #[inline(always)]
    fn fetch_descriptor(&self, iorb: &Iorb) {
        self.host.memory().prefetch_for_write(iorb.location.address);
    }

    /// Takes the first descriptor off a work queue and completes it where it lies, as an IORB is large. One that has more to it is
    /// returned, for [`complete`](Self::complete).
    #[inline(always)]
    fn complete_first(
        &mut self,
        number: ViNumber,
        vi: &mut Vi,
        queue: WorkQueue,
        outcome: Outcome,
    ) -> Option<Iorb> {
        let rights = Rights::local(number.context, vi.ptag);
        let (iorbs, cq) = match queue {
            WorkQueue::Send => (&mut vi.send, vi.send_cq),
            WorkQueue::Receive => (&mut vi.receive, vi.receive_cq),
        };
        if cq.is_some() || self.write_descriptor(rights, iorbs.front()?, outcome).is_err() {
            return iorbs.pop_front();
        }
        iorbs.pop_front();
        self.ask_work_queue(number, queue);
        None
    }
}
