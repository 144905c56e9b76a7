//! What links cards: the ports, and the switch that joins the cards of one process.

pub mod switch;
