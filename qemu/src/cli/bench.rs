//! `vianic bench`.

mod between_guests;
mod direct;
mod peers;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use vianic_bench::document::{Document, Machine};
use vianic_bench::report;
use vianic_tools::bench::cases::Effort;
use vianic_tools::bench::table;

use self::peers::Peer;
use super::guests::Guests;
use super::output;

/// Measures the card beside the limits of this machine, and beside what else one could use.
///
/// Over the direct link the application runs on one core and the card on another, and both poll. What is compared takes
/// turns, some milliseconds each, and every figure is given as a ratio to the limit that was measured in the same round,
/// because a machine's absolute figures change with whatever else it does. Before each sample a cache line is bounced
/// between the two cores; samples taken while they were two threads of one core are dropped. Measure on a quiet machine.
///
/// The limits: a cache line that goes to the other core and back; 64-byte tokens in one ring and 64-byte completions in
/// another, with 1 to 256 under way, as a card that costs nothing would have them; memcpy; and a core that copies messages
/// for such tokens, between pools as large as those of the card's messages.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vianic bench                                 Everything over the direct link
  vianic bench latency rate                    Two of the benchmarks
  vianic bench latency --peers                 Beside sockets and UCX
  vianic bench latency rate --peers=dpdk       Beside DPDK's vhost-user
  vianic bench rate --rounds 3 --json | jq .
  vianic bench --guests --cpus 1               In two guests, beside TCP and UDP over virtio-net
  vianic bench --all --peers --report /tmp/r   Also between guests; also writes report.html, plots and results.json

Exit status: 0 if everything was measured.")]
pub(super) struct Bench {
    /// What to measure; everything if nothing is named.
    #[arg(value_enum)]
    benchmarks: Vec<Benchmark>,
    #[command(flatten)]
    effort: Effort,
    /// Measure peers too, in the same rounds: those that are named, with commas between them, or sockets and ucx. Programs of
    /// Debian's packages are unpacked into the cache.
    #[arg(
        long,
        value_enum,
        value_name = "PEER,...",
        value_delimiter = ',',
        num_args = 0..=1,
        require_equals = true,
        default_missing_values = ["sockets", "ucx"]
    )]
    peers: Vec<Peer>,
    /// Measure latency and bandwidth with messages of this size only (repeatable).
    #[arg(long = "size", value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    sizes: Vec<u32>,
    /// Most objects of a kind, for scale.
    #[arg(long, value_name = "N", default_value_t = u32::MAX, hide_default_value = true)]
    most: u32,
    /// Print one JSON document instead of tables.
    #[arg(long)]
    json: bool,
    /// Write a report to this directory: report.html, the plots as SVG files, and results.json.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Measure between two guests instead, over their NICs and over a virtio network between them: latency and bandwidth.
    #[arg(long = "guests", conflicts_with = "peers")]
    between_guests: bool,
    /// Measure over the direct link, and between two guests too.
    #[arg(long, conflicts_with = "between_guests")]
    all: bool,
    #[command(flatten)]
    guests: Guests,
}

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Benchmark {
    /// One message at a time: from its post until it is complete.
    Latency,
    /// Messages of 64 bytes per second, with 1 to 256 under way.
    Rate,
    /// Bytes per second in messages of 4 KiB to 1 MiB.
    Bandwidth,
    /// What a message costs beside many VIs, contexts, NICs and regions that are idle, and the memory of each.
    Scale,
}

/// The sizes that are asked for, or else the usual ones.
fn sizes(asked: &[u32], usual: &[u32]) -> Vec<u32> {
    if asked.is_empty() { usual.to_vec() } else { asked.to_vec() }
}

impl Bench {
    pub(super) fn execute(self) -> Result<u8> {
        let wanted = |benchmark| self.benchmarks.is_empty() || self.benchmarks.contains(&benchmark);
        let direct = direct::Direct::new(self.effort, self.guests.device.as_deref())?;
        let benchmarks: Vec<_> =
            Benchmark::value_variants().iter().copied().filter(|benchmark| wanted(*benchmark)).collect();
        let mut document =
            Document { machine: Machine::this(), direct: vec![], scale: vec![], guests: vec![] };
        if !self.between_guests {
            document.direct = direct.cases(&benchmarks, &self.sizes, &self.peers)?;
            if wanted(Benchmark::Scale) {
                document.scale = direct.scale(self.most)?;
            }
        }
        if self.between_guests || self.all {
            document.guests = between_guests::measure(&self.guests, self.effort, &benchmarks, &self.sizes)?;
        }
        if let Some(folder) = &self.report {
            report::write(&document, folder)?;
            log::info!("the report is {}", folder.join(report::PAGE).display());
        }
        let text = if self.json {
            format!("{}\n", serde_json::to_string(&document).context("no JSON")?)
        } else {
            let scale: String = document.scale.iter().map(ToString::to_string).collect();
            table::text(&document.direct) + &scale + &table::text_with_gains(&document.guests)
        };
        output::print(text.as_bytes())?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: Bench,
    }

    fn bench(words: &[&str]) -> Result<Bench, clap::Error> {
        Line::try_parse_from(["bench"].iter().chain(words)).map(|line| line.bench)
    }

    #[test]
    fn peers_are_named_or_the_usual_ones() -> Result<(), clap::Error> {
        assert_eq!(bench(&["rate"])?.peers, []);
        assert_eq!(bench(&["--peers"])?.peers, [Peer::Sockets, Peer::Ucx]);
        assert_eq!(bench(&["--peers=dpdk"])?.peers, [Peer::Dpdk]);
        assert_eq!(bench(&["--peers=dpdk,ucx"])?.peers, [Peer::Dpdk, Peer::Ucx]);
        for wrong in [&["--peers=nobody"][..], &["--peers=dpdk", "--guests"]] {
            assert!(bench(wrong).is_err(), "{wrong:?}");
        }
        Ok(())
    }

    #[test]
    fn what_follows_peers_is_a_benchmark() -> Result<(), clap::Error> {
        for words in [["--peers", "rate"], ["--peers=ucx", "rate"]] {
            assert_eq!(bench(&words)?.benchmarks, [Benchmark::Rate]);
        }
        Ok(())
    }
}
