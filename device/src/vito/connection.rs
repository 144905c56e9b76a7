//! A connection's state at one end: how far the message that leaves is, and the one that comes.

use crate::iorb::Iorb;
use crate::vito::frame::{Endpoint, Slice};

/// Bytes of a slice: what one VI may move before another gets its turn.
pub const SLICE: u32 = 128 << 10;

/// A made connection.
#[derive(Debug)]
pub struct Connection {
    /// This end.
    pub local: Endpoint,
    /// The other end.
    pub peer: Endpoint,
    /// Bytes of the send queue's first message that have gone, or have been read.
    moved: u32,
    /// The message that is coming in.
    incoming: Option<Incoming>,
}

/// A message of which a part has come.
#[derive(Debug)]
pub struct Incoming {
    /// The receive descriptor it takes, if it takes one.
    pub iorb: Option<Iorb>,
    /// Bytes of the whole message.
    pub total: u32,
    /// Bytes that have come.
    pub received: u32,
}

/// What a data frame is for the receiving end.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The first slice of a message: it needs a receive descriptor.
    First,
    /// The next slice of the message that is coming in.
    Next,
    /// Out of sequence: a fault of the peer or of the link.
    OutOfSequence,
}

impl Connection {
    /// A fresh connection.
    #[must_use]
    pub fn new(local: Endpoint, peer: Endpoint) -> Self {
        Self { local, peer, moved: 0, incoming: None }
    }

    /// The next slice of the message `iorb`, the first of the send queue.
    #[must_use]
    pub fn next_slice(&self, iorb: &Iorb) -> Slice {
        let length = iorb.length.saturating_sub(self.moved).min(SLICE);
        Slice { total: iorb.length, offset: self.moved, length }
    }

    /// Whether all of that message is still here.
    #[inline]
    #[must_use]
    pub fn is_at_its_beginning(&self) -> bool {
        self.moved == 0
    }

    /// The slice of that message is where it belongs. `true`: it was the last.
    pub fn moved(&mut self, slice: Slice) -> bool {
        self.moved = slice.offset + slice.length;
        slice.is_last()
    }

    /// That message is over, whole or not: the next one starts at its beginning.
    pub fn next_message(&mut self) {
        self.moved = 0;
    }

    /// Whether it ends at `local` and no message is coming in.
    #[inline]
    #[must_use]
    pub fn is_idle_at(&self, local: Endpoint) -> bool {
        self.local == local && self.incoming.is_none()
    }

    /// Where the slice of a data frame stands in the sequence.
    #[must_use]
    pub fn arrival(&self, slice: Slice) -> Arrival {
        let fits = slice.offset.checked_add(slice.length).is_some_and(|end| end <= slice.total);
        match &self.incoming {
            None if slice.is_first() && fits => Arrival::First,
            Some(incoming) if incoming.received == slice.offset && incoming.total == slice.total && fits => {
                Arrival::Next
            }
            _ => Arrival::OutOfSequence,
        }
    }

    /// A message begins, which takes the receive descriptor `iorb`.
    pub fn begin(&mut self, iorb: Option<Iorb>, total: u32) {
        self.incoming = Some(Incoming { iorb, total, received: 0 });
    }

    /// The message that is coming in.
    #[must_use]
    pub fn incoming(&self) -> Option<&Incoming> {
        self.incoming.as_ref()
    }

    /// A slice has been placed. The message, if it is whole.
    pub fn received(&mut self, slice: Slice) -> Option<Incoming> {
        let incoming = self.incoming.as_mut()?;
        incoming.received += slice.length;
        if incoming.received < incoming.total { None } else { self.incoming.take() }
    }

    /// Gives up the message that is coming in; its receive descriptor.
    pub fn take_incoming(&mut self) -> Option<Iorb> {
        self.give_up_incoming()?.iorb
    }

    /// Gives up the message that is coming in.
    pub fn give_up_incoming(&mut self) -> Option<Incoming> {
        self.incoming.take()
    }

    /// Whether a part of an RDMA write has come that no receive descriptor tells of.
    #[must_use]
    pub fn is_being_written(&self) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| incoming.iorb.is_none())
    }
}
