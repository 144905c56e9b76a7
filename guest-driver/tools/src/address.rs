//! Whom a client connects to.

use std::convert::Infallible;
use std::str::FromStr;

use anyhow::Context as _;
use vipl::{Nic, NicAddress};

/// Whom a client connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The NIC that the client has itself.
    This,
    /// The NIC with that address.
    Nic(NicAddress),
    /// The NIC with that name.
    Named(String),
}

impl Peer {
    /// The address; none for the client's own NIC.
    ///
    /// # Errors
    /// If the name service of `nic` does not know the name.
    pub fn host(&self, nic: &Nic) -> anyhow::Result<Option<[u8; 6]>> {
        match self {
            Self::This => Ok(None),
            Self::Nic(address) => Ok(Some(address.0)),
            Self::Named(name) => {
                let address = nic.start_name_service()?.address(name, 0).with_context(|| {
                    format!("{name} is neither an address, as vip-info shows it, nor a name that the hosts file has")
                })?;
                Ok(Some(address.0))
            }
        }
    }
}

impl FromStr for Peer {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.parse() {
            Ok(address) => Self::Nic(address),
            Err(_) if text == "self" => Self::This,
            Err(_) => Self::Named(text.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_an_address_or_a_name() {
        let address = NicAddress([2, 0x56, 0x49, 0x41, 0, 0xff]);
        assert_eq!("2:56:49:41:0:FF".parse(), Ok(Peer::Nic(address)));
        assert_eq!("self".parse(), Ok(Peer::This));
        assert_eq!("vm1".parse(), Ok(Peer::Named("vm1".into())));
    }
}
