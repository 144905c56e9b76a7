//! `vianic bench`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use vianic::address::Address;
use vianic::card::{Card, CardConfig};
use vianic::run_dir::RunDir;
use vianic::workspace;
use vianic_tools::bench::beside::Cores;
use vianic_tools::bench::cases::{self, Effort};
use vianic_tools::bench::rounds::{Case, Rounds};
use vianic_tools::bench::table;
use vianic_tools::cli::open_nic;
use vipl::Nic;

use super::output;

/// Measures the card beside the limits of this machine.
///
/// The application runs on one core, the card on another, and both poll. What is compared takes turns, some
/// milliseconds each, and every figure is given as a ratio to the limit that was measured in the same round, because a machine's
/// absolute figures change with whatever else it does. Before each sample a cache line is bounced between the two
/// cores; samples taken while they were two threads of one core are dropped.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vianic bench                       Everything, over the direct link
  vianic bench latency rate          Two of the benchmarks
  vianic bench rate --rounds 3 --json | jq .

Exit status: 0 if everything was measured.")]
pub(super) struct Bench {
    /// What to measure; everything if nothing is named.
    #[arg(value_enum)]
    benchmarks: Vec<Benchmark>,
    #[command(flatten)]
    effort: Effort,
    /// Print one JSON document instead of tables.
    #[arg(long)]
    json: bool,
    /// The vianic-device to measure.
    #[arg(long, value_name = "PATH")]
    device: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Benchmark {
    /// One message at a time: from its post until it is complete.
    Latency,
    /// Messages of 64 bytes per second, with 1 to 256 under way.
    Rate,
    /// Bytes per second in messages of 4 KiB to 1 MiB.
    Bandwidth,
}

impl Benchmark {
    fn cases(self, nic: &Nic, cores: Cores) -> Result<Vec<Case<'_>>> {
        match self {
            Self::Latency => [64, 4096].into_iter().map(|size| cases::latency(nic, cores, size)).collect(),
            Self::Rate => {
                [1, 16, 64, 256].into_iter().map(|window| cases::rate(nic, cores, 64, window)).collect()
            }
            Self::Bandwidth => {
                [4096, 65536, 1 << 20].into_iter().map(|size| cases::bandwidth(nic, cores, size)).collect()
            }
        }
    }
}

impl Bench {
    pub(super) fn execute(self) -> Result<u8> {
        let cores = Cores::take()?;
        let run_dir = RunDir::new()?;
        let program = workspace::device(self.device.as_deref())?;
        let config = CardConfig { program, addresses: vec![Address::nth(0)], arguments: vec![] };
        // Whatever is started from here stays where it is started.
        cores.device.pin()?;
        let card = Card::launch(&config, &run_dir)?;
        cores.application.pin()?;
        let socket = card.sockets().first().context("the card has no socket")?;
        let nic = open_nic(&format!("direct:{}", socket.display()))?;
        let wanted = match self.benchmarks.as_slice() {
            [] => Benchmark::value_variants(),
            benchmarks => benchmarks,
        };
        let mut cases = Vec::new();
        for benchmark in wanted {
            cases.extend(benchmark.cases(&nic, cores)?);
        }
        let rounds = self.effort.rounds;
        let results = Rounds::from(self.effort)
            .run(cores, cases, |round| log::info!("measured round {round} of {rounds}"))?;
        let text =
            if self.json { format!("{}\n", serde_json::to_string(&results)?) } else { table::text(&results) };
        output::print(text.as_bytes())?;
        drop(nic);
        card.stop()?;
        Ok(0)
    }
}
