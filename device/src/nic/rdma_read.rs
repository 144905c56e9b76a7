//! RDMA reads: asking the peer for a slice of its memory, answering such a request, and taking in what comes.
//!
//! A read is a message that the reader's card fetches slice by slice, so that a long one keeps nobody waiting. Nothing else of
//! its send queue starts before it is whole: that is all that the queue fence asks for.

use vianic_abi::command::VI_RDMA_READ;
use vianic_abi::descriptor::DescriptorStatus;
use vianic_abi::mrt::ACCESS_RDMA_READ;
use vianic_abi::nic_memory::Counter;
use vianic_abi::status::ErrorCode;

use crate::guest_memory::GuestMemory;
use crate::iorb::Iorb;
use crate::nic::completion::{Outcome, ViNumber};
use crate::nic::shadow_mrt::{ProtectionFault, Rights};
use crate::nic::transfer::scatter;
use crate::nic::vi::Vi;
use crate::nic::{Card, Core};
use crate::vito::frame::{Frame, Payload, Ranges, ReadRequest, ReadResponse, Slice};

impl Core {
    /// The frame of `request`, a slice of the read `iorb` of `vi`. The first one makes sure that the VI may use all the room for
    /// what comes, so that nothing moves if it may not. An error is that of the descriptor.
    pub(super) fn cut_read_request(
        &mut self,
        rights: Rights,
        vi: &Vi,
        iorb: &Iorb,
        request: ReadRequest,
    ) -> Result<Frame, DescriptorStatus> {
        if !vi.is_reliable() {
            return Err(DescriptorStatus::FORMAT_ERROR);
        }
        if request.slice.is_first() {
            let whole = Slice::whole(iorb.length);
            self.gather(rights, &iorb.segments, whole, &mut Ranges::new())
                .map_err(|ProtectionFault| DescriptorStatus::PROTECTION_ERROR)?;
        }
        Ok(Frame::ReadRequest(request))
    }
}

impl Card {
    /// Answers a peer that reads. It reads all that it asks for, or nothing.
    pub fn serve_read(&mut self, request: &ReadRequest) -> ReadResponse {
        let number = ViNumber { context: request.to.context, vi: request.to.vi };
        let Some(vi) = self.vi(number) else { return ReadResponse::NotConnected };
        let may_read = vi.attributes.flags & VI_RDMA_READ != 0;
        let rights = Rights { context: number.context, ptag: vi.ptag, access: ACCESS_RDMA_READ };
        if vi.connection().is_none_or(|connection| connection.local != request.to) {
            return ReadResponse::NotConnected;
        }
        let mut ranges = Ranges::new();
        let found = if may_read {
            self.core.find_remote(rights, request.source, request.slice, &mut ranges)
        } else {
            Err(ProtectionFault)
        };
        match found.and_then(|()| self.core.payload(ranges)) {
            Ok(payload) => {
                self.core.memory.count(Counter::bytes_sent, request.slice.length.into());
                ReadResponse::Data(payload)
            }
            Err(ProtectionFault) => {
                self.fail_vi(number, ErrorCode::RDMAR_PROT);
                ReadResponse::NotPermitted
            }
        }
    }

    /// The link lost what was to answer `request`, or a part of it.
    pub fn answer_lost(&mut self, request: &ReadRequest) {
        let number = ViNumber { context: request.to.context, vi: request.to.vi };
        if self.connection(number).is_some_and(|connection| connection.local == request.to) {
            self.fail_vi(number, ErrorCode::RDMA_TRANSPORT);
        }
    }

    /// Takes in the answer to the request that [`next_frame`](Self::next_frame) gave; `source` as in [`place`](Self::place).
    pub fn take_read(
        &mut self,
        number: ViNumber,
        request: &ReadRequest,
        response: ReadResponse,
        source: Option<&GuestMemory>,
    ) {
        let Some(vi) = self.vi(number) else { return };
        let Some(connection) = vi.connection().filter(|connection| connection.peer == request.to) else {
            return;
        };
        let error = match response {
            ReadResponse::Data(payload) => {
                let last = connection.moved(request.slice);
                match self.place_read(number, request.slice, (source, &payload), last) {
                    Ok(()) if last => {
                        self.core.memory.count(Counter::messages_sent, 1);
                        return self.finish_send(number, Outcome::success(request.slice.total), None);
                    }
                    Ok(()) => return,
                    Err(ProtectionFault) => DescriptorStatus::PROTECTION_ERROR,
                }
            }
            ReadResponse::Cut(payload) => {
                match self.place_read(number, request.slice, (source, &payload), false) {
                    Ok(()) => DescriptorStatus::TRANSPORT_ERROR,
                    Err(ProtectionFault) => DescriptorStatus::PROTECTION_ERROR,
                }
            }
            ReadResponse::NotPermitted => DescriptorStatus::RDMA_PROTECTION_ERROR,
            ReadResponse::Lost | ReadResponse::NotConnected => DescriptorStatus::TRANSPORT_ERROR,
        };
        self.finish_send(number, Outcome::error(error), Some(ErrorCode::CONN_LOST));
    }

    /// Scatters a slice of the read at the head of the send queue of VI `number`, or as much of it as came.
    fn place_read(
        &mut self,
        number: ViNumber,
        slice: Slice,
        (source, payload): (Option<&GuestMemory>, &Payload),
        last: bool,
    ) -> Result<(), ProtectionFault> {
        let context = self.contexts[usize::from(number.context)].as_mut().ok_or(ProtectionFault)?;
        let vi = context.vi(number.vi).ok_or(ProtectionFault)?;
        let iorb = vi.send.front().ok_or(ProtectionFault)?;
        let mut ranges = Ranges::new();
        self.core.gather(Rights::local(number.context, vi.ptag), &iorb.segments, slice, &mut ranges)?;
        self.core.memory.count(Counter::bytes_received, payload.length());
        let memory = self.core.host.memory();
        scatter((source.unwrap_or(memory), payload), (memory, &ranges), last)
    }
}
