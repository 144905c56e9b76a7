//! `vip-bench`: a card beside the machine's own limits.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use vianic_tools::bench::latency::{LatencyOptions, latency};
use vianic_tools::cli;

/// Measure a VIA NIC beside the limits of the machine, in the same run.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// From the post of a message to its completion, busily polled, beside a cache line's way to another core and back
    Latency(Latency),
}

#[derive(Debug, Args)]
struct Latency {
    /// NIC: `direct:SOCKET` for a card without a VM, or `nic0`, `/dev/vianicN`
    #[arg(short = 'd', long, value_name = "NAME", default_value = "nic0")]
    nic: String,

    /// Bytes of a message
    #[arg(short = 's', long, value_name = "BYTES", default_value_t = 64)]
    size: u32,

    /// Rounds; each measures both
    #[arg(long, value_name = "NUMBER", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Messages of a round, one after the other
    #[arg(long, value_name = "NUMBER", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let Benchmark::Latency(options) = Options::parse().benchmark;
    cli::run("vip-bench", || {
        let Latency { nic, size, rounds, batch, json } = options;
        let report = latency(&LatencyOptions { nic, size, rounds, batch })?;
        let text = if json { serde_json::to_string(&report)? } else { report.to_string() };
        Ok(cli::print_line(&text)?)
    })
}
