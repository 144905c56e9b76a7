//! Command-line tools for a VIA NIC, as perftest and ibv_devinfo are for RDMA: `vip-info`, `vip-pingpong`, `vip-bw`,
//! `vip-bench`, `vip-memory`. The tools are thin; what they do is here.

pub mod address;
pub mod bandwidth;
pub mod bench;
pub mod channel;
pub mod cli;
pub mod flow;
pub mod info;
pub mod memory;
pub mod pattern;
pub mod pingpong;
pub mod session;
pub mod sizes;
