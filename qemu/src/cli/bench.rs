//! `vianic bench`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use vianic::address::Address;
use vianic::card::{Card, CardConfig};
use vianic::run_dir::RunDir;
use vianic::workspace;
use vianic_tools::bench::latency::{LatencyOptions, latency};

use super::output;

/// Measures the card beside the limits of this machine, in the same run, over the direct link: no guest is booted.
#[derive(Debug, Args)]
pub(super) struct Bench {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// From the post of a message to its completion, polled, beside a cache line's way to another core and back.
    Latency(Latency),
}

/// How the latency is measured.
#[derive(Debug, Args)]
struct Latency {
    /// Bytes of a message.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: u32,
    /// Rounds; each measures both.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Messages of a round, one after the other.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Print one JSON document instead of a table.
    #[arg(long)]
    json: bool,
    /// The vianic-device to measure.
    #[arg(long, value_name = "PATH")]
    device: Option<PathBuf>,
}

impl Bench {
    pub(super) fn execute(self) -> Result<u8> {
        let Benchmark::Latency(options) = self.benchmark;
        let Latency { size, rounds, batch, json, device } = options;
        let run_dir = RunDir::new()?;
        let program = workspace::device(device.as_deref())?;
        let config = CardConfig { program, addresses: vec![Address::nth(0)], arguments: vec![] };
        let card = Card::launch(&config, &run_dir)?;
        let socket = card.sockets().first().context("the card has no socket")?;
        let nic = format!("direct:{}", socket.display());
        let report = latency(&LatencyOptions { nic, size, rounds, batch })?;
        let text = if json { serde_json::to_string(&report)? } else { report.to_string() };
        output::print(format!("{text}\n").as_bytes())?;
        card.stop()?;
        Ok(0)
    }
}
