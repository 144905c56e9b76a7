//! Names of NICs.
//!
//! | name | NIC |
//! |---|---|
//! | `direct:SOCKET` | the card of a device process, without a VM |
//! | `/dev/vianicN`, `vianicN` | card N of this machine |
//! | `nicN`, `VINICN`, `clanviN`, `via_ethN` | the same, or the N-th one that `VIANIC_NIC` lists |
//! | `via_lo` | as `nic0` |
//! | `\\.\VIN` | as `nic` with N - 1 |
//!
//! Only the last component of a path counts. Programs try names upwards until one does not exist, so anything else
//! is quietly no NIC.

use std::path::PathBuf;
use std::sync::Arc;

use crate::agent::{Agent, AgentError, direct, kernel};
use crate::error::{Error, Result};

const OWN_NAME: &str = "vianic";
const GENERIC_NAMES: [&str; 4] = ["nic", "VINIC", "clanvi", "via_eth"];
const LOOPBACK_NAME: &str = "via_lo";
/// Counted from 1. Programs that ran on Windows too try it as well.
const WINDOWS_NAME: &str = r"\\.\VI";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Direct(PathBuf),
    Device(PathBuf),
}

/// Opens the NIC of that name.
pub(super) fn open(name: &str) -> Result<Arc<dyn Agent>> {
    let listed = std::env::var("VIANIC_NIC").ok();
    let agent = match resolve(name, listed.as_deref()) {
        Some(Name::Direct(socket)) => direct::open(&socket),
        Some(Name::Device(path)) => kernel::open(&path),
        None => Err(AgentError::NoSuchNic(name.into())),
    };
    agent.map_err(|error| {
        match &error {
            AgentError::NoSuchNic(_) => log::debug!("{error}"),
            _ => log::error!("cannot open NIC {name}: {error}"),
        }
        Error::from(error)
    })
}

fn resolve(name: &str, listed: Option<&str>) -> Option<Name> {
    if let Some(own) = resolve_own(name) {
        return Some(own);
    }
    let number = match last_component(name) {
        LOOPBACK_NAME => 0,
        generic => match numbered(generic, WINDOWS_NAME) {
            Some(from_one) => from_one.checked_sub(1)?,
            None => GENERIC_NAMES.iter().find_map(|prefix| numbered(generic, prefix))?,
        },
    };
    match listed {
        Some(listed) => resolve_own(listed.split(',').nth(number)?.trim()),
        None => Some(device(number)),
    }
}

fn resolve_own(name: &str) -> Option<Name> {
    match name.strip_prefix("direct:") {
        Some(socket) => Some(Name::Direct(socket.into())),
        None => numbered(last_component(name), OWN_NAME).map(device),
    }
}

fn last_component(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The number behind a prefix, in plain decimal.
fn numbered(name: &str, prefix: &str) -> Option<usize> {
    let number = name.strip_prefix(prefix)?.parse().ok()?;
    (name == format!("{prefix}{number}")).then_some(number)
}

fn device(number: usize) -> Name {
    Name::Device(format!("/dev/{OWN_NAME}{number}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_programs_mean_cards() {
        for name in ["nic3", "VINIC3", "/dev/clanvi3", "/dev/via_eth3", "vianic3", "/dev/vianic3"] {
            assert_eq!(resolve(name, None), Some(device(3)), "{name}");
        }
        for name in ["via_lo", "/dev/via_lo", "/etc/via_lo"] {
            assert_eq!(resolve(name, None), Some(device(0)), "{name}");
        }
        for (name, number) in [(r"\\.\VI1", 0), (r"\\.\VI12", 11)] {
            assert_eq!(resolve(name, None), Some(device(number)), "{name}");
        }
        assert_eq!(resolve("direct:/run/a:b", None), Some(Name::Direct("/run/a:b".into())));
    }

    #[test]
    fn other_names_mean_nothing() {
        for name in [
            "", "/", "nic", "nic01", "nic+1", "nic-1", "NIC0", r"\\.\VI0", r"\\.\VI", "VI1", "eth0", "nic0x",
            "nic0/", "via_lo0",
        ] {
            assert_eq!(resolve(name, None), None, "{name}");
        }
    }

    #[test]
    fn the_environment_gives_generic_names_their_meaning() {
        let listed = Some("direct:/run/first, /dev/vianic7");
        assert_eq!(resolve("nic0", listed), Some(Name::Direct("/run/first".into())));
        assert_eq!(resolve("via_lo", listed), Some(Name::Direct("/run/first".into())));
        assert_eq!(resolve("VINIC1", listed), Some(device(7)));
        for name in ["VINIC2", "/dev/clanvi2", r"\\.\VI3", "VINIC18446744073709551616"] {
            assert_eq!(
                resolve(name, listed),
                None,
                "{name}: programs count upwards until a name does not exist"
            );
        }
        assert_eq!(resolve("vianic2", listed), Some(device(2)));
    }
}
