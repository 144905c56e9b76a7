//! Addresses of NICs as text.

use std::fmt;
use std::str::FromStr;

use vianic_abi::NIC_ADDRESS_LEN;

/// A NIC's address. As text it is six bytes in hexadecimal with colons, `02:56:49:41:00:01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NicAddress(pub [u8; NIC_ADDRESS_LEN]);

impl fmt::Display for NicAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is not the address of a NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not six bytes in hexadecimal, as 02:56:49:41:00:01")]
pub struct NotAnAddress;

impl FromStr for NicAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(NotAnAddress)
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
        assert_eq!("02:56:49:41:00:ff".parse(), Ok(address));
        assert_eq!("2:56:49:41:0:FF".parse(), Ok(address));
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
            "vm1",
        ] {
            assert_eq!(text.parse::<NicAddress>(), Err(NotAnAddress), "{text}");
        }
    }
}
