//! The vianic card: an emulated VIA NIC as a vhost-user device process.
//!
//! From the ground up, each room using only those below it: [`shared`] and [`guest_memory`]; [`iorb`]; [`vito`], the
//! protocol; [`nic`], the card; [`port`], what links cards; [`engine`], the thread that runs them;
//! [`monitor`] and [`vhost`], the world outside. `nic` and `vito` know no socket, no thread and no clock.

pub mod engine;
pub mod guest_memory;
pub mod iorb;
pub mod monitor;
pub mod nic;
pub mod one_shot;
pub mod port;
pub mod rate_limit;
pub mod shared;
pub mod socket;
pub mod vhost;
pub mod vito;
