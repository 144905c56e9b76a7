//! Benchmarks of a card, each beside the machine's own limits.
//!
//! What is compared is measured in turns: a *round* takes one *sample* of every [`Contestant`](contestant::Contestant) of a [`Case`](rounds::Case), so that a
//! machine that is slower for a while is slower for all of them. Results are ratios to the limit of the same round.

pub mod beside;
pub mod bounce;
pub mod cases;
pub mod contestant;
pub mod copies;
pub mod loopback;
pub mod placement;
pub mod result;
pub mod ring;
pub mod rounds;
pub mod socket;
pub mod statistics;
pub mod table;
