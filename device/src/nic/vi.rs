//! A VI: two work queues and a state machine.

use std::collections::VecDeque;

use vianic_abi::MAX_DESCRIPTORS_PER_QUEUE;
use vianic_abi::command::{CreateVi, ViAttributes};
use vianic_abi::nic_memory::nra_work_queue;
use vianic_abi::status::ReliabilityLevel;

use crate::iorb::{Iorb, WorkQueue};
use crate::nic::memory::usize_of;
use crate::vito::connection::Connection;
use crate::vito::frame::{Endpoint, NicAddress, PeerRequest};

/// The state of a VI (VIA specification, VI states).
#[derive(Debug)]
pub enum ViState {
    /// Not connected. Receives are kept, sends are flushed.
    Idle,
    /// Its CONNECT command waits for an answer, or its CONNECT_PEER command for a partner.
    Connecting(Connecting),
    /// Its CONNECT_PEER command has found a partner at another card and waits for that side's word.
    Meeting {
        /// The request, which goes on if the partner has gone.
        connecting: Connecting,
        /// The connection that is being made.
        connection: Connection,
        /// The attributes of the partner's VI.
        attributes: ViAttributes,
    },
    /// Its ACCEPT command waits for the asking side's word.
    Accepting {
        /// The ACCEPT command's tag.
        tag: u64,
        /// The connection that is being made.
        connection: Connection,
    },
    /// Connected.
    Connected(Connection),
    /// Broken. Everything is flushed, until a DISCONNECT.
    Error,
}

/// Why a descriptor that is posted does not go to its work queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It completes at once as flushed.
    Flushed,
    /// Its work queue is full.
    Overrun,
}

/// A connection request under way.
#[derive(Clone, Copy, Debug)]
pub struct Connecting {
    /// The command's tag.
    pub tag: u64,
    /// Guest-physical address of its block.
    pub block: u64,
    /// This end.
    pub local: Endpoint,
    /// The card that was asked.
    pub asked: NicAddress,
    /// The request, if it is for a peer that asks for this end.
    pub peer: Option<PeerRequest>,
}

/// A VI.
#[derive(Debug)]
pub struct Vi {
    /// Attributes.
    pub attributes: ViAttributes,
    /// Protection tag.
    pub ptag: u32,
    /// Completion queue of the send queue.
    pub send_cq: Option<u16>,
    /// Completion queue of the receive queue.
    pub receive_cq: Option<u16>,
    /// State.
    pub state: ViState,
    /// Descriptors to send.
    pub send: VecDeque<Iorb>,
    /// Descriptors to receive into.
    pub receive: VecDeque<Iorb>,
    /// Whether it stands in the card's list of VIs with something to send.
    pub ready: bool,
}

impl Vi {
    /// A fresh VI, Idle.
    #[must_use]
    pub fn new(parameters: &CreateVi) -> Self {
        let cq = |number| (number != vianic_abi::NO_CQ).then_some(number);
        Self {
            attributes: parameters.attributes,
            ptag: parameters.ptag,
            send_cq: cq(parameters.send_cq),
            receive_cq: cq(parameters.receive_cq),
            state: ViState::Idle,
            send: VecDeque::new(),
            receive: VecDeque::new(),
            ready: false,
        }
    }

    /// Its reliability level.
    #[must_use]
    pub fn reliability(&self) -> ReliabilityLevel {
        ReliabilityLevel(self.attributes.reliability_level)
    }

    /// Whether errors break its connection (all levels but Unreliable Delivery).
    #[must_use]
    pub fn is_reliable(&self) -> bool {
        self.reliability() != ReliabilityLevel::UNRELIABLE
    }

    /// The completion queue of a work queue.
    #[must_use]
    pub fn cq(&self, queue: WorkQueue) -> Option<u16> {
        match queue {
            WorkQueue::Send => self.send_cq,
            WorkQueue::Receive => self.receive_cq,
        }
    }

    /// Where a descriptor that is posted goes, if the VI's state and the queue's room allow.
    #[inline(always)]
    pub fn admit(&mut self, queue: WorkQueue) -> Result<&mut VecDeque<Iorb>, Refusal> {
        let (queue, kept) = match queue {
            WorkQueue::Send => (&mut self.send, matches!(self.state, ViState::Connected(_))),
            WorkQueue::Receive => (&mut self.receive, !matches!(self.state, ViState::Error)),
        };
        match kept {
            _ if queue.len() >= usize_of(MAX_DESCRIPTORS_PER_QUEUE) => Err(Refusal::Overrun),
            true => Ok(queue),
            false => Err(Refusal::Flushed),
        }
    }

    /// Its connection.
    pub fn connection(&mut self) -> Option<&mut Connection> {
        match &mut self.state {
            ViState::Connected(connection) => Some(connection),
            _ => None,
        }
    }

    /// Takes everything off its work queues, in order: the sends, then the receives.
    pub fn take_outstanding(&mut self) -> Vec<Iorb> {
        let incoming = self.connection().and_then(Connection::take_incoming);
        self.send.drain(..).chain(incoming).chain(self.receive.drain(..)).collect()
    }
}

/// The NRA word of a VI's work queue.
#[must_use]
pub fn nra_word(vi: u16, queue: WorkQueue) -> u32 {
    nra_work_queue(vi, queue == WorkQueue::Receive)
}
