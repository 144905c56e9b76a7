//! The name service: names of NICs.
//!
//! A name is looked up as
//!
//! 1. a NIC's address in text, which means itself,
//! 2. a name in the hosts file ([`hosts`]), which is read when the service is started,
//! 3. this machine's host name, with or without its domain, or `localhost`: this NIC.
//!
//! The hosts file is [`HOSTS_FILE`], which need not be there, or the one that the environment variable `VIANIC_HOSTS` names.

mod hosts;

use std::io;
use std::path::{Path, PathBuf};

pub use hosts::MalformedHosts;

use crate::nic_address::NicAddress;
use hosts::Hosts;

/// The hosts file of the machine.
pub const HOSTS_FILE: &str = "/etc/vianic/hosts";

const HOSTS_VARIABLE: &str = "VIANIC_HOSTS";

const LOCAL_HOST: &str = "localhost";

/// Why the name service has no answer.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// The program has not started the name service of the NIC, or has ended it.
    #[error("the name service is not initialised")]
    NotStarted,
    /// The hosts file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The hosts file is malformed.
    #[error("{}: {error}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and how.
        #[source]
        error: MalformedHosts,
    },
    /// Nobody has the name, or not so many addresses.
    #[error("no NIC has that name, or not so many addresses")]
    UnknownName,
    /// The address has no name.
    #[error("the NIC {0} has no name")]
    UnknownAddress(NicAddress),
}

/// The names that one NIC knows.
#[derive(Debug)]
pub struct NameService {
    hosts: Hosts,
    own_address: NicAddress,
    own_name: String,
}

impl NameService {
    /// Reads the hosts file on behalf of the NIC `own_address`.
    pub(crate) fn start(own_address: NicAddress) -> Result<Self, NameError> {
        let own_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let hosts = match std::env::var_os(HOSTS_VARIABLE) {
            Some(path) => read(Path::new(&path))?,
            None => match read(Path::new(HOSTS_FILE)) {
                Err(NameError::Unreadable { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                    Hosts::default()
                }
                outcome => outcome?,
            },
        };
        Ok(Self { hosts, own_address, own_name })
    }

    /// Address number `index`, from 0, of the NICs of that name.
    ///
    /// # Errors
    /// [`NameError::UnknownName`].
    pub fn address(&self, name: &str, index: usize) -> Result<NicAddress, NameError> {
        if let Ok(address) = name.parse() {
            return [address].get(index).copied().ok_or(NameError::UnknownName);
        }
        let mut listed = self.hosts.addresses(name).peekable();
        let own = (listed.peek().is_none() && self.is_own(name)).then_some(self.own_address);
        listed.chain(own).nth(index).ok_or(NameError::UnknownName)
    }

    /// The name of a NIC.
    ///
    /// # Errors
    /// [`NameError::UnknownAddress`].
    pub fn name(&self, address: NicAddress) -> Result<&str, NameError> {
        let own = (address == self.own_address).then_some(self.own_name.as_str());
        self.hosts.name(address).or(own).ok_or(NameError::UnknownAddress(address))
    }

    /// The NIC that the names are looked up for.
    #[must_use]
    pub fn own_address(&self) -> NicAddress {
        self.own_address
    }

    fn is_own(&self, name: &str) -> bool {
        let without_domain = self.own_name.split('.').next().unwrap_or_default();
        [LOCAL_HOST, &self.own_name, without_domain].iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

fn read(path: &Path) -> Result<Hosts, NameError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| NameError::Unreadable { path: path.to_owned(), error })?;
    text.parse().map_err(|error| NameError::Malformed { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: NicAddress = NicAddress([2, 0, 0, 0, 0, 1]);
    const OTHER: NicAddress = NicAddress([2, 0, 0, 0, 0, 9]);

    fn service(hosts: &str) -> NameService {
        NameService { hosts: hosts.parse().unwrap(), own_address: OWN, own_name: "vm1.example".into() }
    }

    #[test]
    fn names_are_looked_up_in_order() {
        let service = service("02:00:00:00:00:09 vm2\n02:00:00:00:00:01 vm2");
        assert_eq!(service.address("02:00:00:00:00:07", 0).unwrap(), NicAddress([2, 0, 0, 0, 0, 7]));
        assert_eq!(service.address("vm2", 0).unwrap(), OTHER);
        assert_eq!(service.address("vm2", 1).unwrap(), OWN);
        for own in ["localhost", "vm1", "VM1.example"] {
            assert_eq!(service.address(own, 0).unwrap(), OWN, "{own}");
            assert!(matches!(service.address(own, 1), Err(NameError::UnknownName)));
        }
        for (name, index) in [("vm2", 2), ("vm3", 0), ("", 0), ("02:00:00:00:00:07", 1), ("vm1.other", 0)] {
            assert!(matches!(service.address(name, index), Err(NameError::UnknownName)), "{name} {index}");
        }
    }

    #[test]
    fn the_file_comes_before_the_host_name() {
        let service = service("02:00:00:00:00:09 localhost vm1");
        assert_eq!(service.address("localhost", 0).unwrap(), OTHER);
        assert!(service.address("localhost", 1).is_err());
        assert_eq!(service.name(OTHER).unwrap(), "localhost");
    }

    #[test]
    fn a_nic_has_its_name_in_the_file_or_its_machines() {
        assert_eq!(service("02:00:00:00:00:01 front").name(OWN).unwrap(), "front");
        assert_eq!(service("").name(OWN).unwrap(), "vm1.example");
        assert!(matches!(service("").name(OTHER), Err(NameError::UnknownAddress(OTHER))));
    }

    #[test]
    fn files_that_cannot_be_used_say_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        assert!(matches!(read(&path), Err(NameError::Unreadable { .. })));
        std::fs::write(&path, b"\xff").unwrap();
        assert!(matches!(read(&path), Err(NameError::Unreadable { .. })));
        std::fs::write(&path, "what").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("hosts: line 1: \"what\" is not six bytes"), "{error}");
    }
}
