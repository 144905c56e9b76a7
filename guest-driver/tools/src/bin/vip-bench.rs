//! `vip-bench`: a card beside the machine's own limits.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use vianic_tools::bench::beside::Cores;
use vianic_tools::bench::cases::{self, Effort};
use vianic_tools::bench::rounds::Rounds;
use vianic_tools::bench::table;
use vianic_tools::cli;

/// Measure a VIA NIC beside the limits of the machine, in turns.
///
/// This process takes one core; the card should have another one to itself.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// One message at a time: from its post until it is complete, busily polled
    Latency {
        /// Bytes of a message; may be repeated
        #[arg(short = 's', long, value_name = "BYTES", default_value = "64")]
        size: Vec<u32>,
        #[command(flatten)]
        common: Common,
    },
    /// Messages per second, with many under way
    Rate {
        /// Bytes of a message
        #[arg(short = 's', long, value_name = "BYTES", default_value_t = 64)]
        size: u32,
        /// Messages under way; may be repeated
        #[arg(short = 'w', long, value_name = "NUMBER", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=512))]
        window: Vec<u32>,
        #[command(flatten)]
        common: Common,
    },
    /// Bytes per second
    Bandwidth {
        /// Bytes of a message; may be repeated
        #[arg(short = 's', long, value_name = "BYTES", default_values = ["65536", "1048576"])]
        size: Vec<u32>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// NIC: `direct:SOCKET` for a card without a VM, or `nic0`, `/dev/vianicN`
    #[arg(short = 'd', long, value_name = "NAME", default_value = "nic0")]
    nic: String,

    #[command(flatten)]
    effort: Effort,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let benchmark = Options::parse().benchmark;
    cli::run("vip-bench", || benchmark.execute())
}

impl Benchmark {
    fn execute(self) -> anyhow::Result<()> {
        let (Self::Latency { common, .. } | Self::Rate { common, .. } | Self::Bandwidth { common, .. }) =
            &self;
        let nic = cli::open_nic(&common.nic)?;
        let cores = Cores::take()?;
        cores.application.pin()?;
        let cases: anyhow::Result<Vec<_>> = match &self {
            Self::Latency { size, .. } => {
                size.iter().map(|size| cases::latency(&nic, cores, *size)).collect()
            }
            Self::Rate { size, window, .. } => {
                window.iter().map(|window| cases::rate(&nic, cores, *size, *window)).collect()
            }
            Self::Bandwidth { size, .. } => {
                size.iter().map(|size| cases::bandwidth(&nic, cores, *size)).collect()
            }
        };
        let results = Rounds::from(common.effort).run(cores, cases?, |_| {})?;
        let text = if common.json { serde_json::to_string(&results)? } else { table::text(&results) };
        Ok(cli::print_line(text.trim_end())?)
    }
}
