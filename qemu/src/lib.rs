//! Boots QEMU guests with emulated VIA NICs: finds a QEMU, runs the card process, talks to guests.

pub mod accel;
pub mod address;
pub mod agent;
pub mod card;
mod child;
mod command_line;
mod drivers;
pub mod error;
pub mod fabric;
mod hosts;
pub mod image;
pub mod limit;
mod log_tail;
pub mod network;
pub mod probe;
mod progress;
mod provision;
pub mod qmp;
pub mod quote;
pub mod run_dir;
pub mod vm;
pub mod workspace;

pub use error::{Error, Result};
pub use limit::Limit;
