//! Other programs that the card is measured beside.

pub mod ucx;
