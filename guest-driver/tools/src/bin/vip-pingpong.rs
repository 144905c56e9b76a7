//! `vip-pingpong`: latency of messages, and whether their bytes are right.

use std::process::ExitCode;

use clap::Parser;
use vianic_tools::cli::{self, Common, both_sides};
use vianic_tools::pingpong::{self, Plan, Rdma, Shown};
use vianic_tools::sizes::powers_of_two;
use vipl::Nic;

/// Measure the latency of messages between two VIA NICs, or on one.
///
/// Start it without an address as the server, then with the address of the server's NIC as the client. The client's options
/// hold for both. Times are one way: half a round trip; those of RDMA reads are of the whole read.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    common: Common,

    /// Be server and client in one process, on one NIC
    #[arg(long = "self", conflicts_with = "peer")]
    both: bool,

    /// Bytes of a message
    #[arg(short = 's', long, value_name = "BYTES", default_value_t = 64, conflicts_with = "all")]
    size: u32,

    /// Run 0 bytes and all powers of two up to the NIC's maximum
    #[arg(short = 'a', long)]
    all: bool,

    /// Write messages by RDMA, or have the client read them by RDMA, instead of sending them
    #[arg(long, value_enum, value_name = "OPERATION")]
    rdma: Option<Rdma>,

    /// Round trips for each size
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    iterations: u64,

    /// As --json, and print with each size how often each time was measured: pairs of nanoseconds there and back, to three
    /// digits, and a count (client)
    #[arg(long)]
    histogram: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    cli::run(pingpong::TOOL, || exchange(&options))
}

fn exchange(options: &Options) -> anyhow::Result<()> {
    let nic = cli::open_nic(&options.common.nic)?;
    if options.both {
        let plan = plan(options, &nic)?;
        return both_sides(
            &nic,
            || pingpong::serve(&nic, &options.common),
            || pingpong::run(&nic, &options.common, None, plan, shown(options)),
        );
    }
    match &options.common.peer {
        None => pingpong::serve(&nic, &options.common),
        Some(peer) => {
            let host = peer.host(&nic)?;
            pingpong::run(&nic, &options.common, host, plan(options, &nic)?, shown(options))
        }
    }
}

fn shown(options: &Options) -> Shown {
    match (options.histogram, options.common.json) {
        (true, _) => Shown::Histogram,
        (false, true) => Shown::Json,
        (false, false) => Shown::Table,
    }
}

fn plan(options: &Options, nic: &Nic) -> anyhow::Result<Plan> {
    let max = nic.registers()?.max_transfer_size;
    Ok(Plan {
        rdma: options.rdma,
        sizes: if options.all { powers_of_two(max, true) } else { vec![options.size] },
        iterations: options.iterations,
        warm_up: (options.iterations / 10).clamp(1, 1000),
        check: options.common.check,
        seed: options.common.seed,
    })
}
