//! The hosts file: which names NICs have.
//!
//! Each line is a NIC's address, its name and further names, separated by blanks; `#` starts a comment. A name on several lines
//! has several addresses, in their order. Capital and small letters are the same.

use std::str::FromStr;

use crate::nic_address::NicAddress;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hosts {
    lines: Vec<Line>,
}

#[derive(Debug, PartialEq, Eq)]
struct Line {
    address: NicAddress,
    /// At least one.
    names: Vec<String>,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct MalformedHosts {
    /// Its number, from 1.
    pub line: usize,
    /// What.
    pub what: String,
}

impl Hosts {
    pub(super) fn addresses(&self, name: &str) -> impl Iterator<Item = NicAddress> {
        let has_name = move |line: &&Line| line.names.iter().any(|other| other.eq_ignore_ascii_case(name));
        self.lines.iter().filter(has_name).map(|line| line.address)
    }

    /// The first name of a NIC.
    pub(super) fn name(&self, address: NicAddress) -> Option<&str> {
        self.lines.iter().find(|line| line.address == address)?.names.first().map(String::as_str)
    }
}

impl FromStr for Hosts {
    type Err = MalformedHosts;

    fn from_str(text: &str) -> Result<Self, MalformedHosts> {
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let malformed = |what: String| MalformedHosts { line: index + 1, what };
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(address) = words.next() else { continue };
            let address = address.parse().map_err(|error| malformed(format!("{address:?} is {error}")))?;
            let names: Vec<String> = words.map(str::to_owned).collect();
            if names.is_empty() {
                return Err(malformed(format!("{address} has no name")));
            }
            lines.push(Line { address, names });
        }
        Ok(Self { lines })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: NicAddress = NicAddress([2, 0, 0, 0, 0, 1]);
    const SECOND: NicAddress = NicAddress([2, 0, 0, 0, 0, 2]);

    #[test]
    fn names_have_addresses_and_addresses_names() {
        let text = "# all NICs\n\n02:00:00:00:00:01\tvm1  one # first\n 2:0:0:0:0:2 vm1 two\r\n";
        let hosts: Hosts = text.parse().unwrap();
        assert_eq!(hosts.addresses("vm1").collect::<Vec<_>>(), [FIRST, SECOND]);
        assert_eq!(hosts.addresses("TWO").collect::<Vec<_>>(), [SECOND]);
        assert_eq!(hosts.addresses("first").count(), 0, "a comment");
        assert_eq!((hosts.name(FIRST), hosts.name(SECOND)), (Some("vm1"), Some("vm1")));
        assert_eq!(hosts.name(NicAddress([0; 6])), None);
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        let line = |text: &str| text.parse::<Hosts>().unwrap_err();
        assert_eq!(line("# no\n\n127.0.0.1 localhost").line, 3);
        assert!(line("02:00:00:00:00:01 # vm1").what.contains("no name"));
    }

    proptest! {
        /// Whatever is in the file, it is read or a line of it is named.
        #[test]
        fn any_text_has_an_answer(text in "([0-9a-f:# \n]|vm1)*") {
            let lines = text.lines().count();
            match text.parse::<Hosts>() {
                Ok(hosts) => prop_assert!(hosts.lines.len() <= lines),
                Err(malformed) => prop_assert!((1..=lines).contains(&malformed.line)),
            }
        }
    }
}
