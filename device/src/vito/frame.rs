//! What one card says to another.

use std::fmt;
use std::str::FromStr;

use smallvec::SmallVec;
use thiserror::Error;
use vianic_abi::NIC_ADDRESS_LEN;
use vianic_abi::command::{NetAddress, ViAttributes};
use vianic_abi::status::Status;

use crate::guest_memory::Range;
use crate::iorb::RemoteAddress;

/// A NIC's address on the fabric.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NicAddress(pub [u8; NIC_ADDRESS_LEN]);

/// Text that is not a NIC address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a NIC address: write six bytes in hexadecimal, as 02:56:49:41:00:01")]
pub struct BadNicAddress(String);

impl FromStr for NicAddress {
    type Err = BadNicAddress;

    fn from_str(text: &str) -> Result<Self, BadNicAddress> {
        let bad = || BadNicAddress(text.to_owned());
        let mut address = [0; NIC_ADDRESS_LEN];
        let mut parts = text.split(':');
        for byte in &mut address {
            let is_byte =
                |part: &&str| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            let part = parts.next().filter(is_byte).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(address)) }
    }
}

impl fmt::Display for NicAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for NicAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One end of a connection, made or asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The card.
    pub nic: NicAddress,
    /// The VI's context.
    pub context: u16,
    /// The VI.
    pub vi: u16,
    /// Which of the VI's connections, so that what is said of one is never taken for the next.
    pub serial: u32,
}

/// How a connection request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectOutcome {
    /// Accepted by this end.
    Accepted {
        /// The accepting end.
        by: Endpoint,
        /// Its VI's attributes.
        attributes: ViAttributes,
    },
    /// Refused.
    Rejected,
    /// A peer's request fits, but its VI does not go with this one. It is told the same.
    Mismatch {
        /// The peer's end.
        by: Endpoint,
        /// What differs.
        status: Status,
    },
    /// The card cannot take another request in.
    NoRoom,
    /// Nobody waits at the discriminator, or the card has no driver.
    NoMatch,
    /// No such card on the fabric.
    NotReachable,
}

/// A request for a connection between equals.
#[derive(Clone, Copy, Debug)]
pub struct PeerRequest {
    /// Who asks.
    pub from: Endpoint,
    /// The asking VI's attributes.
    pub attributes: ViAttributes,
    /// The asking side's own address: what its partner asks for.
    pub local: NetAddress,
    /// Whom: what its partner is.
    pub remote: NetAddress,
}

/// A frame that sets up or ends a connection. Frames between two cards arrive in order, once.
#[derive(Clone, Debug)]
pub enum ControlFrame {
    /// "May this VI connect?"
    Request {
        /// Who asks.
        from: Endpoint,
        /// The asking VI's attributes.
        attributes: ViAttributes,
        /// The asking side's own address, for the listener to see.
        local: NetAddress,
        /// Whom.
        remote: NetAddress,
    },
    /// "May this VI connect with one that asks for it?" It waits at the card that it is for until its partner comes.
    PeerRequest(PeerRequest),
    /// The answer to a request.
    Reply {
        /// Who asked.
        to: Endpoint,
        /// What came of it.
        outcome: ConnectOutcome,
    },
    /// The third step: the asking side took the acceptance, or had gone away before.
    Confirm {
        /// The accepting end.
        to: Endpoint,
        /// Whether the connection stands.
        connected: bool,
    },
    /// The asking side takes its request back.
    Withdraw {
        /// Who asked whom.
        from: Endpoint,
        /// The card that was asked.
        nic: NicAddress,
    },
    /// "Which cards of the fabric have drivers?" It goes to nobody: the fabric answers.
    Discover {
        /// Who asks.
        by: NicAddress,
        /// Which of its questions.
        number: u32,
    },
    /// The fabric's answer.
    Discovered {
        /// Who asked.
        to: NicAddress,
        /// Which of its questions.
        number: u32,
        /// The cards, in the order of their addresses.
        nics: Vec<NicAddress>,
    },
    /// The connection is over.
    Disconnect {
        /// The end that is told.
        to: Endpoint,
    },
}

impl ControlFrame {
    /// The card it goes to. `None`: it is for the fabric.
    #[must_use]
    pub fn destination(&self) -> Option<NicAddress> {
        Some(match self {
            Self::Request { remote, .. } | Self::PeerRequest(PeerRequest { remote, .. }) => {
                NicAddress(remote.host)
            }
            Self::Reply { to, .. } | Self::Confirm { to, .. } | Self::Disconnect { to } => to.nic,
            Self::Withdraw { nic, .. } => *nic,
            Self::Discovered { to, .. } => *to,
            Self::Discover { .. } => return None,
        })
    }
}

/// A slice of a message: which of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Bytes of the whole message.
    pub total: u32,
    /// Bytes before the slice.
    pub offset: u32,
    /// Bytes of the slice.
    pub length: u32,
}

impl Slice {
    /// A message of `total` bytes, uncut.
    #[must_use]
    pub fn whole(total: u32) -> Self {
        Self { total, offset: 0, length: total }
    }

    /// Whether the message begins with it.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.offset == 0
    }

    /// Whether the message ends with it.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.offset.checked_add(self.length) == Some(self.total)
    }
}

/// A frame of a VI's send queue: what the descriptor at its head asks for, slice by slice.
#[derive(Clone, Debug)]
pub enum Frame {
    /// Bytes for the peer: of a send or of an RDMA write.
    Data(DataFrame),
    /// A request for bytes of the peer: of an RDMA read.
    ReadRequest(ReadRequest),
}

impl Frame {
    /// The end it goes to.
    #[must_use]
    pub fn to(&self) -> Endpoint {
        match self {
            Self::Data(frame) => frame.to,
            Self::ReadRequest(request) => request.to,
        }
    }

    /// The slice it is about.
    #[must_use]
    pub fn slice(&self) -> Slice {
        match self {
            Self::Data(frame) => frame.slice,
            Self::ReadRequest(request) => request.slice,
        }
    }
}

/// A slice of a message that is sent, or written by RDMA.
#[derive(Clone, Debug)]
pub struct DataFrame {
    /// The receiving end.
    pub to: Endpoint,
    /// Where it goes at the receiving end.
    pub target: Target,
    /// Which bytes of the message.
    pub slice: Slice,
    /// Immediate data of the message.
    pub immediate: Option<u32>,
    /// The bytes, still where the sending application has them: between cards of one process they are copied
    /// once.
    pub payload: Payload,
}

/// A message for a receive descriptor that is a single slice in a single piece, as most are: what a [`DataFrame`] would say of
/// it, without what others need.
#[derive(Clone, Copy, Debug)]
pub struct Parcel {
    /// The receiving end.
    pub to: Endpoint,
    /// The message, still where the sending application has it.
    pub bytes: Range,
    /// Its immediate data.
    pub immediate: Option<u32>,
}

/// "Let me have these bytes": a slice of an RDMA read. The end that answers keeps nothing between slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// The end whose memory is read.
    pub to: Endpoint,
    /// Where the whole message lies there.
    pub source: RemoteAddress,
    /// Which bytes of it. The first slice asks for leave to read all of them.
    pub slice: Slice,
}

/// The answer to a [`ReadRequest`].
#[derive(Clone, Debug)]
pub enum ReadResponse {
    /// The bytes, still where the application that is read from has them.
    Data(Payload),
    /// The first of the bytes. The link lost the others; the connection is broken.
    Cut(Payload),
    /// The link lost the request or the bytes; the connection is broken.
    Lost,
    /// The memory is not the peer's to read; the connection is broken.
    NotPermitted,
    /// The connection does not exist.
    NotConnected,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the next receive descriptor.
    Receive,
    /// To a place in memory: an RDMA write. It takes a receive descriptor only if it carries immediate data.
    Memory(RemoteAddress),
}

/// Bytes in the memory of the guest whose card the frame comes from. Whoever carries the frame knows that guest.
#[derive(Clone, Debug)]
pub struct Payload {
    /// Where, in order.
    pub ranges: Ranges,
}

impl Payload {
    /// Bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.ranges.iter().map(|range| range.length as u64).sum()
    }

    /// Keeps the first `length` bytes.
    pub fn truncate(&mut self, length: u32) {
        let mut left = usize::try_from(length).unwrap_or(usize::MAX);
        for range in &mut self.ranges {
            range.length = range.length.min(left);
            left -= range.length;
        }
        self.ranges.retain(|range| range.length > 0);
    }
}

/// How a data frame comes off the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// As it was sent.
    Whole,
    /// Its check failed: whom and what it is for can be read, its bytes cannot.
    Corrupt,
    /// Without its last bytes: the payload has those that came. The rest of the message is lost.
    Cut,
}

/// Pieces of guest memory that together are a piece of a message.
pub type Ranges = SmallVec<[Range; 2]>;

/// What became of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is in the receiver's memory.
    Placed,
    /// Dropped, on an unreliable connection.
    Dropped,
    /// The link lost the message or damaged it. A reliable connection is broken.
    Lost,
    /// No receive descriptor was posted; the connection is broken.
    NoDescriptor,
    /// The receive descriptor was too small or faulty; the connection is broken.
    DescriptorFault,
    /// The memory is not the peer's to write; the connection is broken.
    NotPermitted,
    /// The connection does not exist.
    NotConnected,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        let address: NicAddress = "02:56:49:41:00:0a".parse().expect("an address");
        assert_eq!(address, NicAddress([2, 0x56, 0x49, 0x41, 0, 10]));
        assert_eq!(address.to_string(), "02:56:49:41:00:0a");
        for bad in
            ["", "02:56:49:41:00", "02:56:49:41:00:01:02", "02:56:49:41:00:+1", "2:56:49:41:00:01", "self"]
        {
            assert!(bad.parse::<NicAddress>().is_err(), "{bad}");
        }
    }
}
