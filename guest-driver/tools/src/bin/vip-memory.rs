//! `vip-memory`: what registered memory costs.

use std::process::ExitCode;

use clap::Parser;
use vianic_tools::cli::{self, open_nic, print_line};
use vianic_tools::memory::{MemoryReport, measure};

/// Measure what it costs to register and deregister memory, and to post work whose region the NIC knows already or has to look up.
///
/// Times are the medians, in nanoseconds. That of a hit ought not to depend on how many other regions there are.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// NIC: `nic0`, `/dev/vianicN`, or `direct:SOCKET` for a card without a VM
    #[arg(short = 'd', long, value_name = "NAME", default_value = "nic0")]
    nic: String,

    /// Other regions that are registered meanwhile: numbers in ascending order
    #[arg(long, value_name = "NUMBER", value_delimiter = ',', default_value = "1,1000,100000")]
    live: Vec<usize>,

    /// Samples for each
    #[arg(long, value_name = "NUMBER", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,

    /// Print one JSON object for each number of regions
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    cli::run("vip-memory", || {
        let nic = open_nic(&options.nic)?;
        if !options.json {
            print_line(MemoryReport::HEAD)?;
        }
        measure(&nic, &options.live, options.samples, |report| {
            let text = if options.json { serde_json::to_string(report)? } else { report.to_string() };
            Ok(print_line(&text)?)
        })
    })
}
