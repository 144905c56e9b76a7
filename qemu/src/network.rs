//! An ordinary network between two guests: what a card is compared with.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::run_dir::RunDir;

/// One guest's network card.
#[derive(Debug, Clone)]
pub struct Network {
    /// The socket at which its frames arrive.
    pub local: PathBuf,
    /// The other guest's.
    pub remote: PathBuf,
    /// Its address.
    pub mac: String,
}

impl Network {
    /// The card of guest `vm`.
    ///
    /// # Errors
    /// If there are not two guests.
    pub(crate) fn of(vm: usize, vms: usize, run_dir: &RunDir) -> Result<Self> {
        if vms != 2 {
            return Err(Error::NotTwoGuests { vms });
        }
        let socket = |vm: usize| run_dir.socket(&format!("lan{vm}.sock"));
        Ok(Self {
            local: socket(vm)?,
            remote: socket(1 - vm)?,
            mac: format!("52:54:00:00:00:{:02x}", vm + 1),
        })
    }
}

/// The address of a guest in the network, once [`commands`] have run in it.
#[must_use]
pub fn address(vm: usize) -> String {
    format!("10.86.0.{}", vm + 1)
}

/// What a shell in guest `vm` runs to use the network.
#[must_use]
pub fn commands(vm: usize) -> String {
    format!("modprobe virtio_net && ip link set eth0 up && ip addr add {}/24 dev eth0", address(vm))
}
