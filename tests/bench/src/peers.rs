//! Other programs that the card is measured beside.

pub mod dpdk;
pub mod ucx;
mod unpacked;
