//! Addresses of NICs as text.

use std::fmt;
use std::str::FromStr;

/// A NIC's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NicAddress(pub [u8; 6]);

impl fmt::Display for NicAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Whom a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The NIC that the client has itself.
    This,
    /// Another one.
    Nic(NicAddress),
}

impl Peer {
    /// The address; none for the client's own NIC.
    #[must_use]
    pub fn host(self) -> Option<[u8; 6]> {
        match self {
            Self::This => None,
            Self::Nic(address) => Some(address.0),
        }
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "self" {
            return Ok(Self::This);
        }
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let address = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
        address.map(|address| Self::Nic(NicAddress(address))).ok_or_else(|| {
            "expected six bytes in hexadecimal, as 02:56:49:41:00:01, or \"self\"; vip-info shows a NIC's address".into()
        })
    }
}

fn byte(text: &str) -> Option<u8> {
    let is_hex = matches!(text.len(), 1 | 2) && text.bytes().all(|c| c.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_print() {
        let address = NicAddress([2, 0x56, 0x49, 0x41, 0, 0xff]);
        assert_eq!(address.to_string(), "02:56:49:41:00:ff");
        assert_eq!("02:56:49:41:00:ff".parse(), Ok(Peer::Nic(address)));
        assert_eq!("2:56:49:41:0:FF".parse(), Ok(Peer::Nic(address)));
        assert_eq!("self".parse(), Ok(Peer::This));
        assert_eq!(Peer::This.host(), None);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "02:56:49:41:00",
            "02:56:49:41:00:01:02",
            "02:56:49:41:00:+1",
            "g:0:0:0:0:0",
            "127.0.0.1",
            "::::::",
        ] {
            assert!(text.parse::<Peer>().is_err(), "{text}");
        }
    }
}
