//! The control socket: a line asks, a line of JSON answers.
//!
//! * `stats` → `{"nics":[{"address":"02:56:49:41:00:01","counters":{"doorbells":3,...}}]}`

mod client;
mod server;
mod stats;

pub use server::Server;
pub use stats::Nic;
