//! Vito, the protocol between cards (claim 9): connections, and messages cut into slices. It does no I/O: it says what
//! goes to the peer and takes what came from it; a [`port`](crate::port) carries it.

pub mod connection;
pub mod frame;
