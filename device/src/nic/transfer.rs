//! Messages between VIs: cutting the next slice of what a VI sends, placing a slice in what the other VI receives into, and
//! what comes of it at either end.

use vianic_abi::command::VI_RDMA_WRITE;
use vianic_abi::descriptor::{DescriptorStatus, Segment};
use vianic_abi::mrt::ACCESS_RDMA_WRITE;
use vianic_abi::nic_memory::Counter;
use vianic_abi::status::{ErrorCode, ReliabilityLevel};

use crate::guest_memory::{GuestMemory, NotMemory, Range, copy, copy_last_bytes_last};
use crate::iorb::{Iorb, RemoteAddress, Work};
use crate::nic::completion::{Outcome, ViNumber};
use crate::nic::context::Context;
use crate::nic::memory::usize_of;
use crate::nic::shadow_mrt::{ProtectionFault, Rights};
use crate::nic::vi::{Vi, ViState};
use crate::nic::{Card, Core};
use crate::vito::connection::{Arrival, Connection, Incoming};
use crate::vito::frame::{
    Condition, ControlFrame, DataFrame, Delivery, Endpoint, Frame, Payload, Ranges, ReadRequest, Slice,
    Target,
};

impl Card {
    /// The next frame of what VI `number` has to send, or `None` if it has nothing (any more).
    pub fn next_frame(&mut self, number: ViNumber) -> Option<Frame> {
        loop {
            let context = self.contexts[usize::from(number.context)].as_mut()?;
            match self.core.cut_frame(number, context.vi(number.vi)?)? {
                Ok(frame) => return Some(frame),
                Err(error) => self.finish_send(number, Outcome::error(error), Some(ErrorCode::CONN_LOST)),
            }
        }
    }

    /// What became of the slice that [`next_frame`](Self::next_frame) gave.
    pub fn delivered(&mut self, number: ViNumber, frame: &DataFrame, delivery: Delivery) {
        let Some(vi) = self.vi(number) else { return };
        let reception = vi.reliability() == ReliabilityLevel::RELIABLE_RECEPTION;
        let reliable = vi.is_reliable();
        let Some(connection) = vi.connection().filter(|connection| connection.peer == frame.to) else {
            return;
        };
        let error = match delivery {
            Delivery::Placed | Delivery::Dropped if !connection.moved(frame.slice) => return,
            Delivery::Lost if reliable => DescriptorStatus::TRANSPORT_ERROR,
            Delivery::Placed | Delivery::Dropped | Delivery::Lost => {
                self.core.memory.count(Counter::messages_sent, 1);
                self.core.memory.count(Counter::bytes_sent, u64::from(frame.slice.total));
                return self.finish_send(number, Outcome::success(frame.slice.total), None);
            }
            Delivery::NoDescriptor | Delivery::DescriptorFault if reception => {
                DescriptorStatus::REMOTE_DESCRIPTOR_ERROR
            }
            Delivery::NotPermitted => DescriptorStatus::RDMA_PROTECTION_ERROR,
            Delivery::NoDescriptor | Delivery::DescriptorFault | Delivery::NotConnected => {
                DescriptorStatus::TRANSPORT_ERROR
            }
        };
        self.finish_send(number, Outcome::error(error), Some(ErrorCode::CONN_LOST));
    }

    /// Completes the first descriptor of a send queue; an error breaks a reliable connection.
    pub(super) fn finish_send(&mut self, number: ViNumber, outcome: Outcome, breaks: Option<ErrorCode>) {
        let Some(context) = &mut self.contexts[usize::from(number.context)] else {
            return;
        };
        let Some(vi) = context.vi(number.vi) else {
            return;
        };
        let reliable = vi.is_reliable();
        if let Some(connection) = vi.connection() {
            connection.next_message();
        }
        if let Some(iorb) = vi.send.pop_front() {
            self.core.complete(context, number, &iorb, outcome);
        }
        if let Some(code) = breaks.filter(|_| reliable) {
            self.fail_vi(number, code);
        }
    }

    /// Places a slice that came from a peer, whose guest's memory is `source`; none: it is this card's own guest.
    pub fn place(
        &mut self,
        frame: &DataFrame,
        condition: Condition,
        source: Option<&GuestMemory>,
    ) -> Delivery {
        let number = ViNumber { context: frame.to.context, vi: frame.to.vi };
        match self.try_place(number, frame, condition, source) {
            Ok(delivery) => delivery,
            Err(Refusal { delivery, receive, code }) => {
                let Some(context) = &mut self.contexts[usize::from(number.context)] else {
                    return delivery;
                };
                if let Some((iorb, error)) = receive {
                    let by_rdma_write = frame.target != Target::Receive;
                    let outcome = Outcome { by_rdma_write, ..Outcome::error(error) };
                    self.core.complete(context, number, &iorb, outcome);
                }
                if context.vi(number.vi).is_some_and(|vi| vi.is_reliable()) {
                    self.fail_vi(number, code);
                    delivery
                } else {
                    // The connection stands: the loss of a message is not the loss of a connection.
                    if code != ErrorCode::CONN_LOST {
                        self.core.report_error(context, number, code, 0);
                    }
                    Delivery::Dropped
                }
            }
        }
    }

    fn try_place(
        &mut self,
        number: ViNumber,
        frame: &DataFrame,
        condition: Condition,
        source: Option<&GuestMemory>,
    ) -> Result<Delivery, Refusal> {
        if frame.slice.is_first() {
            self.give_up_incoming(number, frame.to);
        }
        let Some(connection) = self.connection(number).filter(|connection| connection.local == frame.to)
        else {
            return Ok(Delivery::NotConnected);
        };
        match connection.arrival(frame.slice) {
            Arrival::Next => {}
            // As if it had never come.
            Arrival::First if condition == Condition::Corrupt && frame.target == Target::Receive => {
                return Err(Refusal { delivery: Delivery::Lost, receive: None, code: ErrorCode::CONN_LOST });
            }
            Arrival::First => self.begin(number, frame)?,
            Arrival::OutOfSequence => {
                let written = connection.is_being_written();
                let receive =
                    connection.take_incoming().map(|iorb| (Box::new(iorb), DescriptorStatus::PARTIAL_ERROR));
                let code = if written { ErrorCode::RDMAW_ABORT } else { ErrorCode::CONN_LOST };
                return Err(Refusal { delivery: Delivery::NotConnected, receive, code });
            }
        }
        let Some(context) = &mut self.contexts[usize::from(number.context)] else {
            return Ok(Delivery::NotConnected);
        };
        let Some(vi) = context.vi(number.vi) else { return Ok(Delivery::NotConnected) };
        let ptag = vi.ptag;
        let may_write = vi.attributes.flags & VI_RDMA_WRITE != 0;
        let Some(connection) = vi.connection() else { return Ok(Delivery::NotConnected) };
        if condition == Condition::Corrupt {
            return Err(refuse_damaged(connection.take_incoming(), condition));
        }
        let Some(incoming) = connection.incoming() else { return Ok(Delivery::NotConnected) };
        let mut ranges = Ranges::new();
        let found = match frame.target {
            Target::Receive => {
                let segments = incoming.iorb.as_ref().map_or(&[][..], |iorb| &iorb.segments);
                self.core.gather(Rights::local(number.context, ptag), segments, frame.slice, &mut ranges)
            }
            Target::Memory(remote) if may_write => {
                let rights = Rights { context: number.context, ptag, access: ACCESS_RDMA_WRITE };
                self.core.find_remote(rights, remote, frame.slice, &mut ranges)
            }
            Target::Memory(_) => Err(ProtectionFault),
        };
        let whole = condition == Condition::Whole;
        let watched = frame.target != Target::Receive && frame.slice.is_last() && whole;
        let memory = self.core.host.memory();
        let source = source.unwrap_or(memory);
        if found.and_then(|()| scatter((source, &frame.payload), (memory, &ranges), watched)).is_err() {
            return Err(refuse_memory(connection.take_incoming(), frame));
        }
        if !whole {
            return Err(refuse_damaged(connection.take_incoming(), condition));
        }
        if let Some(incoming) = connection.received(frame.slice) {
            match incoming.iorb {
                Some(iorb) => self.core.complete_receive(context, number, frame, &iorb),
                None => self.core.count_received(frame),
            }
        }
        Ok(Delivery::Placed)
    }

    /// A new message begins on an unreliable connection: one that was coming in will never be whole.
    fn give_up_incoming(&mut self, number: ViNumber, to: Endpoint) {
        let Some(context) = self.contexts.get_mut(usize::from(number.context)).and_then(Option::as_mut)
        else {
            return;
        };
        let Some(vi) = context.vi(number.vi).filter(|vi| !vi.is_reliable()) else { return };
        let connection = vi.connection().filter(|connection| connection.local == to);
        match connection.and_then(Connection::give_up_incoming) {
            Some(Incoming { iorb: Some(iorb), .. }) => {
                let outcome = Outcome::error(DescriptorStatus::PARTIAL_ERROR);
                self.core.complete(context, number, &iorb, outcome);
            }
            Some(Incoming { iorb: None, .. }) => {
                self.core.report_error(context, number, ErrorCode::RDMAW_ABORT, 0);
            }
            None => {}
        }
    }

    /// A message begins: takes its receive descriptor.
    fn begin(&mut self, number: ViNumber, frame: &DataFrame) -> Result<(), Refusal> {
        let is_send = frame.target == Target::Receive;
        if !is_send && frame.immediate.is_none() {
            if let Some(connection) = self.connection(number) {
                connection.begin(None, frame.slice.total);
            }
            return Ok(());
        }
        if self.receive_queue_is_empty(number) {
            // The descriptor may have been posted and not looked at yet.
            self.accept_posted(number.context);
        }
        let vi =
            self.contexts[usize::from(number.context)].as_mut().and_then(|context| context.vi(number.vi));
        let Some(iorb) = vi.and_then(|vi| vi.receive.pop_front()) else {
            let code = ErrorCode::RECVQ_EMPTY;
            return Err(Refusal { delivery: Delivery::NoDescriptor, receive: None, code });
        };
        let error = match iorb.fault {
            Some(fault) => fault,
            None if is_send && iorb.length < frame.slice.total => DescriptorStatus::LENGTH_ERROR,
            None => {
                if let Some(connection) = self.connection(number) {
                    connection.begin(Some(iorb), frame.slice.total);
                }
                return Ok(());
            }
        };
        let code = ErrorCode::CONN_LOST;
        Err(Refusal { delivery: Delivery::DescriptorFault, receive: Some((Box::new(iorb), error)), code })
    }

    pub(super) fn connection(&mut self, number: ViNumber) -> Option<&mut Connection> {
        self.contexts.get_mut(usize::from(number.context))?.as_mut()?.vi(number.vi)?.connection()
    }

    fn receive_queue_is_empty(&mut self, number: ViNumber) -> bool {
        let vi =
            self.contexts[usize::from(number.context)].as_mut().and_then(|context| context.vi(number.vi));
        vi.is_none_or(|vi| vi.receive.is_empty())
    }

    /// Breaks a VI: it goes to Error, its peer is told, its queues are flushed. Its owner gets `code`, and CONN_LOST, if it
    /// was connected.
    pub(super) fn fail_vi(&mut self, number: ViNumber, code: ErrorCode) {
        let connected = self.connection(number).is_some();
        let Some(context) = &mut self.contexts[usize::from(number.context)] else { return };
        self.core.end_connection(context, number, ViState::Error, Peer::Tell);
        if connected {
            if code != ErrorCode::CONN_LOST {
                self.core.report_error(context, number, code, 0);
            }
            self.core.report_error(context, number, ErrorCode::CONN_LOST, 0);
        }
    }
}

/// Whether the other end of a connection must be told that it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// It does not know.
    Tell,
    /// It has said so itself.
    Knows,
}

/// A slice's memory is not the receiver's VI's to use, or not its peer's to write.
fn refuse_memory(receive: Option<Iorb>, frame: &DataFrame) -> Refusal {
    let receive = receive.map(|iorb| (Box::new(iorb), DescriptorStatus::PROTECTION_ERROR));
    match frame.target {
        Target::Receive => {
            Refusal { delivery: Delivery::DescriptorFault, receive, code: ErrorCode::CONN_LOST }
        }
        // With immediate data the receive descriptor tells of it.
        Target::Memory(_) if receive.is_some() => {
            Refusal { delivery: Delivery::NotPermitted, receive, code: ErrorCode::CONN_LOST }
        }
        Target::Memory(_) => {
            Refusal { delivery: Delivery::NotPermitted, receive, code: ErrorCode::RDMAW_PROT }
        }
    }
}

/// The link damaged a message that has begun to come in.
fn refuse_damaged(receive: Option<Iorb>, condition: Condition) -> Refusal {
    let (error, code) = match condition {
        Condition::Corrupt => (DescriptorStatus::TRANSPORT_ERROR, ErrorCode::RDMAW_DATA),
        Condition::Whole | Condition::Cut => (DescriptorStatus::PARTIAL_ERROR, ErrorCode::RDMAW_ABORT),
    };
    // What took a receive descriptor tells of it there.
    let code = if receive.is_some() { ErrorCode::CONN_LOST } else { code };
    Refusal { delivery: Delivery::Lost, receive: receive.map(|iorb| (Box::new(iorb), error)), code }
}

/// Why a slice was not placed.
struct Refusal {
    delivery: Delivery,
    /// The receive descriptor that it cost, and the error it ends with.
    receive: Option<(Box<Iorb>, DescriptorStatus)>,
    /// The asynchronous error that the receiver gets.
    code: ErrorCode,
}

impl Core {
    /// A message is in its place: completes the receive descriptor that it took.
    #[inline]
    fn complete_receive(&mut self, context: &mut Context, number: ViNumber, frame: &DataFrame, iorb: &Iorb) {
        self.count_received(frame);
        let by_rdma_write = frame.target != Target::Receive;
        // The bytes of an RDMA write are not in the receive descriptor's segments.
        let length = if by_rdma_write { 0 } else { frame.slice.total };
        let outcome = Outcome { immediate: frame.immediate, by_rdma_write, ..Outcome::success(length) };
        self.complete(context, number, iorb, outcome);
    }

    #[inline]
    fn count_received(&self, frame: &DataFrame) {
        self.memory.count(Counter::messages_received, 1);
        self.memory.count(Counter::bytes_received, u64::from(frame.slice.total));
    }

    /// Leaves a VI in `state`: ends its connection if it has one, and flushes its queues.
    pub(super) fn end_connection(
        &mut self,
        context: &mut Context,
        number: ViNumber,
        state: ViState,
        peer: Peer,
    ) {
        let Some(vi) = context.vi(number.vi) else {
            return;
        };
        let outstanding = vi.take_outstanding();
        if let ViState::Connected(connection) = std::mem::replace(&mut vi.state, state)
            && peer == Peer::Tell
        {
            self.outbox.push_back(ControlFrame::Disconnect { to: connection.peer });
        }
        for iorb in outstanding {
            self.complete(context, number, &iorb, Outcome::error(DescriptorStatus::FLUSHED_ERROR));
        }
    }

    /// Cuts the next frame of what `vi` has to send. `None`: nothing. An error is that of the descriptor it is about.
    fn cut_frame(&mut self, number: ViNumber, vi: &Vi) -> Option<Result<Frame, DescriptorStatus>> {
        let ViState::Connected(connection) = &vi.state else {
            return None;
        };
        let iorb = vi.send.front()?;
        if let Some(fault) = iorb.fault {
            return Some(Err(fault));
        }
        if iorb.length > vi.attributes.max_transfer_size {
            return Some(Err(DescriptorStatus::LENGTH_ERROR));
        }
        let rights = Rights::local(number.context, vi.ptag);
        let (to, slice) = (connection.peer, connection.next_slice(iorb));
        let target = match iorb.work {
            Work::RdmaRead(source) => {
                return Some(self.cut_read_request(rights, vi, iorb, ReadRequest { to, source, slice }));
            }
            Work::RdmaWrite(remote) => Target::Memory(remote),
            Work::Send | Work::Receive => Target::Receive,
        };
        let mut ranges = Ranges::new();
        let payload = self
            .gather(rights, &iorb.segments, slice, &mut ranges)
            .and_then(|()| self.payload(ranges))
            .map_err(|ProtectionFault| DescriptorStatus::PROTECTION_ERROR);
        let immediate = iorb.immediate;
        Some(payload.map(|payload| Frame::Data(DataFrame { to, target, slice, immediate, payload })))
    }

    /// Bytes for the peer, which are in guest memory for certain.
    pub(super) fn payload(&self, ranges: Ranges) -> Result<Payload, ProtectionFault> {
        let memory = self.host.memory();
        if !ranges.iter().all(|range| memory.holds(*range)) {
            return Err(ProtectionFault);
        }
        Ok(Payload { ranges })
    }

    /// Finds where a slice of what the peer writes or reads by RDMA is. The first slice asks for the whole range, so that
    /// nothing moves if not all of it may.
    pub(super) fn find_remote(
        &mut self,
        rights: Rights,
        remote: RemoteAddress,
        slice: Slice,
        ranges: &mut Ranges,
    ) -> Result<(), ProtectionFault> {
        if slice.is_first() && !slice.is_last() {
            let mut whole = Ranges::new();
            self.resolve(rights, (remote.address, remote.handle, slice.total), &mut whole)?;
        }
        let address = remote.address.checked_add(u64::from(slice.offset)).ok_or(ProtectionFault)?;
        self.resolve(rights, (address, remote.handle, slice.length), ranges)
    }

    /// Finds where the bytes of a slice of `segments` are.
    pub(super) fn gather(
        &mut self,
        rights: Rights,
        segments: &[Segment],
        slice: Slice,
        ranges: &mut Ranges,
    ) -> Result<(), ProtectionFault> {
        if let [segment] = segments
            && slice.is_first()
            && (1..=segment.length).contains(&slice.length)
        {
            return self.resolve(rights, (segment.address, segment.handle, slice.length), ranges);
        }
        let mut skip = slice.offset;
        let mut left = slice.length;
        for segment in segments {
            if segment.length == 0 && slice.offset == 0 {
                // No byte of it moves, but it must be the VI's to use.
                self.resolve(rights, (segment.address, segment.handle, 0), ranges)?;
            }
            if left == 0 || segment.length <= skip {
                skip -= skip.min(segment.length);
                continue;
            }
            let length = left.min(segment.length - skip);
            let address = segment.address.checked_add(u64::from(skip)).ok_or(ProtectionFault)?;
            self.resolve(rights, (address, segment.handle, length), ranges)?;
            left -= length;
            skip = 0;
        }
        if left == 0 { Ok(()) } else { Err(ProtectionFault) }
    }
}

/// Copies a payload into its target, in ascending order. Where it is `watched`, the last bytes come last, so that a program
/// which looks at them sees all others.
pub(super) fn scatter(
    (source, payload): (&GuestMemory, &Payload),
    (memory, target): (&GuestMemory, &[Range]),
    watched: bool,
) -> Result<(), ProtectionFault> {
    if let ([from], [to]) = (&payload.ranges[..], target)
        && from.length <= to.length
        && !watched
    {
        let to = Range { length: from.length, ..*to };
        return copy(source, *from, memory, to).map_err(|NotMemory { .. }| ProtectionFault);
    }
    let mut left: usize = payload.ranges.iter().map(|range| range.length).sum();
    let mut target = target.iter().copied();
    let mut to = Range { address: 0, length: 0 };
    for range in &payload.ranges {
        let mut from = *range;
        while from.length > 0 {
            if to.length == 0 {
                to = target.next().ok_or(ProtectionFault)?;
            }
            let length = from.length.min(to.length);
            left -= length;
            let copy = if watched && left == 0 { copy_last_bytes_last } else { copy };
            copy(source, Range { length, ..from }, memory, Range { length, ..to })
                .map_err(|NotMemory { .. }| ProtectionFault)?;
            for range in [&mut from, &mut to] {
                range.address += length as u64;
                range.length -= length;
            }
        }
    }
    Ok(())
}

/// How many bytes one VI may move in a turn before others get theirs.
#[must_use]
pub fn turn_budget() -> usize {
    4 * usize_of(crate::vito::connection::SLICE)
}
