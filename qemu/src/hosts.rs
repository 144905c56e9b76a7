//! The names of a run's NICs, for VIPL's name service in the guests.

use std::fmt::Write as _;

use crate::address::Address;
use crate::vm::VmFile;

const PATH: &str = "/etc/vianic/hosts";

/// The name of a run's guest, counted from 0. It is its host name and the name of its NICs too.
pub(crate) fn name(vm: usize) -> String {
    format!("vm{}", vm + 1)
}

/// The hosts file of every guest: each guest's name for each of its NICs.
pub(crate) fn file(addresses: &[Vec<Address>]) -> VmFile {
    let mut text = String::from("# NICs of this run: address, name.\n");
    for (vm, addresses) in addresses.iter().enumerate() {
        for address in addresses {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{address}\t{}", name(vm));
        }
    }
    VmFile { path: PATH.to_owned(), mode: 0o644, contents: text.into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_has_its_name_once_for_each_nic() {
        let addresses = [vec![Address::nth(0), Address::nth(1)], vec![], vec![Address::nth(2)]];
        let text = String::from_utf8(file(&addresses).contents).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines, ["02:56:49:41:00:01\tvm1", "02:56:49:41:00:02\tvm1", "02:56:49:41:00:03\tvm3"]);
    }
}
