//! Guest images for vianic: Debian packages, kernels, the kernel module, initramfs.
//!
//! Nothing here needs root, and nothing is installed: packages are unpacked into a [`cache::Cache`], where
//! everything is made once and found again until what it was made from changes.

pub mod apt;
pub mod binaries;
pub mod cache;
mod command;
mod error;
pub mod guest;
mod initramfs;
pub mod kernel;
mod kernel_modules;
mod mirror;
pub mod module;
mod stamp;
mod vmlinux;

pub use error::{Error, Result};
pub use stamp::Stamp;

/// Takes a line for a person to read about what is going on.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);
