//! `vip-bench`: a card beside the machine's own limits.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde_json::json;
use vianic_tools::bench::beside::Cores;
use vianic_tools::bench::cases::{self, Effort};
use vianic_tools::bench::contestant::Quantity;
use vianic_tools::bench::rounds::Rounds;
use vianic_tools::bench::socket::{self, Protocol, Request};
use vianic_tools::bench::table;
use vianic_tools::cli;

/// Measure a VIA NIC beside the limits of the machine, in turns.
///
/// This process takes one core; the card should have another one to itself.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Benchmark(Benchmark),
    #[command(flatten)]
    Peer(Peer),
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

#[derive(Debug, Subcommand)]
enum Peer {
    /// Serve `vip-bench sockets`, until killed
    ServeSockets {
        /// TCP and UDP port; 0 is any
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        port: u16,
    },
    /// Exchange messages with `vip-bench serve-sockets`: what a card is compared with. Prints one JSON object
    Sockets {
        /// Where the server listens
        #[arg(value_name = "ADDRESS:PORT")]
        server: SocketAddr,
        /// Protocol
        #[arg(value_enum)]
        protocol: Protocol,
        /// What to measure
        #[arg(value_enum)]
        quantity: Quantity,
        /// Bytes of a message
        #[arg(short = 's', long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
        size: u32,
        /// Messages, at least
        #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
        messages: u32,
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
    let command = Options::parse().command;
    cli::run("vip-bench", || match command {
        Command::Benchmark(benchmark) => benchmark.execute(),
        Command::Peer(peer) => peer.execute(),
    })
}

impl Peer {
    fn execute(self) -> anyhow::Result<()> {
        match self {
            Self::ServeSockets { port } => {
                socket::serve(port, |address| Ok(cli::print_line(&format!("listening at {address}"))?))
            }
            Self::Sockets { server, protocol, quantity, size, messages } => {
                let sample = socket::client(server, protocol, Request { quantity, size, messages })?;
                let round_trips: Vec<_> = sample.singles.iter().map(|single| (single, 1)).collect();
                let result = json!({
                    "messages": sample.messages, "seconds": sample.time.as_secs_f64(),
                    "round_trips_ns": round_trips,
                });
                Ok(cli::print_line(&result.to_string())?)
            }
        }
    }
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
