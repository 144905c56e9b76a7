//! `vip-bw`: bandwidth and message rate, and whether all bytes are right.

use std::process::ExitCode;

use clap::Parser;
use vianic_tools::bandwidth::{self, Plan};
use vianic_tools::cli::{self, Common, both_sides};
use vianic_tools::sizes::{Sizes, powers_of_two};

/// Measure bandwidth and message rate between two VIA NICs, or on one.
///
/// Start it without an address as the server, then with the address of the server's NIC as the client, which sends. The
/// client's options hold for both. A receive is posted for every message before it is sent. MB are 10^6 bytes.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    common: Common,

    /// Be server and client in one process, on one NIC
    #[arg(long = "self", conflicts_with = "peer")]
    both: bool,

    /// Bytes of a message
    #[arg(short = 's', long, value_name = "BYTES", default_value_t = 65_536, conflicts_with_all = ["all", "mixed"])]
    size: u32,

    /// Run all powers of two from 1 byte up to the NIC's maximum
    #[arg(short = 'a', long, conflicts_with = "mixed")]
    all: bool,

    /// Messages for each size and direction
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 5000, conflicts_with = "mixed", value_parser = clap::value_parser!(u64).range(1..))]
    iterations: u64,

    /// Messages of random sizes, from 0 bytes up to the NIC's maximum, in each direction; every byte is checked
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    mixed: Option<u64>,

    /// Most messages under way in one direction; less for long ones
    #[arg(short = 'w', long, value_name = "NUMBER", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=256))]
    window: u32,

    /// Send in both directions; figures are the sum
    #[arg(short = 'b', long)]
    bidirectional: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    cli::run(bandwidth::TOOL, || exchange(&options))
}

fn exchange(options: &Options) -> anyhow::Result<()> {
    let nic = cli::open_nic(&options.common.nic)?;
    let plans = plans(options, nic.registers()?.max_transfer_size);
    match &options.common.peer {
        Some(peer) => bandwidth::run(&nic, &options.common, peer.host(&nic)?, plans),
        None if options.both => both_sides(
            &nic,
            || bandwidth::serve(&nic, &options.common),
            || bandwidth::run(&nic, &options.common, None, plans),
        ),
        None => bandwidth::serve(&nic, &options.common),
    }
}

fn plans(options: &Options, max: u32) -> Vec<Plan> {
    let (sizes, messages) = match options.mixed {
        Some(messages) => (vec![Sizes::Mixed { max }], messages),
        None if options.all => {
            (powers_of_two(max, false).into_iter().map(Sizes::Fixed).collect(), options.iterations)
        }
        None => (vec![Sizes::Fixed(options.size)], options.iterations),
    };
    let last = sizes.len() - 1;
    let mixed = options.mixed.is_some();
    let plan = |(index, sizes)| Plan {
        sizes,
        messages,
        both_ways: options.bidirectional || mixed,
        window: options.window,
        check: options.common.check || mixed,
        seed: options.common.seed,
        more: index < last,
    };
    sizes.into_iter().enumerate().map(plan).collect()
}
