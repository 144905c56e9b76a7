//! What links cards: the ports, the switch that joins the cards of one process, and the faults that links can have.

pub mod faults;
pub mod switch;
