//! The card alone: its guests are memory and a few lines that post what a Kernel Agent and its processes would.

mod attributes;
mod behaviour;
mod discovery;
mod faults;
mod harness;
mod hostile;
mod link_faults;
mod memory;
mod memory_table;
mod peers;
mod rdma;
mod rdma_read;
mod two_ways;
