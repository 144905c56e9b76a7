//! Addresses of NICs.

use std::fmt;

/// A NIC's six-byte address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address([u8; 6]);

impl Address {
    /// The address that a run gives to its NIC number `index`, from 0: locally administered, "VIA", number.
    pub fn nth(index: u16) -> Self {
        let [high, low] = index.wrapping_add(1).to_be_bytes();
        Self([0x02, 0x56, 0x49, 0x41, high, low])
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_start_at_one() {
        assert_eq!(Address::nth(0).to_string(), "02:56:49:41:00:01");
        assert_eq!(Address::nth(255).to_string(), "02:56:49:41:01:00");
    }
}
