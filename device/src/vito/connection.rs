//! A connection's state at one end: how far the message that leaves is, and the one that comes.

use crate::iorb::Iorb;
use crate::vito::frame::{DataFrame, Endpoint};

/// Bytes of a slice: what one VI may move before another gets its turn.
pub const SLICE: u32 = 128 << 10;

/// A made connection.
#[derive(Debug)]
pub struct Connection {
    /// This end.
    pub local: Endpoint,
    /// The other end.
    pub peer: Endpoint,
    /// Bytes of the send queue's first message that have gone.
    sent: u32,
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

/// A slice to cut from a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Bytes before it.
    pub offset: u32,
    /// Its bytes.
    pub length: u32,
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
        Self { local, peer, sent: 0, incoming: None }
    }

    /// The next slice of the message `iorb`, the first of the send queue.
    #[must_use]
    pub fn next_slice(&self, iorb: &Iorb) -> Slice {
        Slice { offset: self.sent, length: iorb.length.saturating_sub(self.sent).min(SLICE) }
    }

    /// The slice has been placed. `true`: it was the message's last.
    pub fn sent(&mut self, frame: &DataFrame) -> bool {
        if frame.is_last() {
            self.sent = 0;
            return true;
        }
        self.sent = frame.offset + frame.length;
        false
    }

    /// The message that is going out is over, whole or not: the next one starts at its beginning.
    pub fn next_message(&mut self) {
        self.sent = 0;
    }

    /// Where a data frame stands in the sequence.
    #[must_use]
    pub fn arrival(&self, frame: &DataFrame) -> Arrival {
        let fits = frame.offset.checked_add(frame.length).is_some_and(|end| end <= frame.total);
        match &self.incoming {
            None if frame.offset == 0 && fits => Arrival::First,
            Some(incoming) if incoming.received == frame.offset && incoming.total == frame.total && fits => {
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
    pub fn received(&mut self, frame: &DataFrame) -> Option<Incoming> {
        let incoming = self.incoming.as_mut()?;
        incoming.received += frame.length;
        if incoming.received < incoming.total { None } else { self.incoming.take() }
    }

    /// Gives up the message that is coming in; its receive descriptor.
    pub fn take_incoming(&mut self) -> Option<Iorb> {
        self.incoming.take()?.iorb
    }
}
