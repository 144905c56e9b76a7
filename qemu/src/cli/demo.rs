//! `vianic demo`.

mod report;

use std::num::NonZero;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;
use vianic::fabric::Fabric;

use super::guests::Guests;
use super::session::Session;
use super::{output, pair};

/// A processor in each guest, and a thread of the card for each of them.
const POLLERS: usize = 4;

/// Lets two guests measure latency, message rate and bandwidth between their NICs, and shows what the cards did.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  vianic demo --iterations 100000 --json > result.json

Exit status: 0 if everything was measured; else as of `vianic run`, see there.")]
pub(super) struct Demo {
    /// Bytes of a message for latency and message rate.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: u32,
    /// Bytes of a message for bandwidth.
    #[arg(long, value_name = "BYTES", default_value_t = 32768)]
    large_size: u32,
    /// Messages of each measurement.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    iterations: u32,
    /// How the guests wait for messages: auto polls if this machine has a processor for everyone who does.
    #[arg(long, value_enum, default_value = "auto")]
    wait: Wait,
    /// Print one JSON document instead of tables.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    guests: Guests,
}

/// How the guests wait for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wait {
    Auto,
    Poll,
    Block,
}

impl Wait {
    /// The tools' word for it on a machine with this many processors.
    fn word(self, processors: usize) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Block => "block",
            // With fewer, whoever polls keeps the one that it waits for from running.
            Self::Auto if processors >= POLLERS => "poll",
            Self::Auto => "block",
        }
    }
}

/// One measurement.
struct Measurement {
    wait: &'static str,
    tool: &'static str,
    size: u32,
    iterations: u32,
    check: bool,
}

impl Measurement {
    /// The client's options.
    fn options(&self) -> Vec<String> {
        let mut options = vec!["--size".to_owned(), self.size.to_string()];
        options.extend(["--iterations".to_owned(), self.iterations.to_string()]);
        if self.check {
            options.push("--check".to_owned());
        }
        options
    }
}

impl Demo {
    pub(super) fn execute(self) -> Result<u8> {
        let config = self.guests.config(2, 1, None)?;
        let session = Session::new(self.guests.keep_logs.clone())?;
        session.launch(config).and_then(|fabric| {
            let outcome = session.unless_interrupted(&fabric, || self.measure(&fabric));
            session.finish(fabric, outcome)
        })
    }

    fn measure(&self, fabric: &Fabric) -> Result<u8> {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let wait = self.wait.word(processors);
        let iterations = self.iterations;
        let measurement = |tool, size, check| Measurement { wait, tool, size, iterations, check };
        let mut results = Vec::new();
        for (what, measurement) in [
            ("latency", measurement("vip-pingpong", self.size, true)),
            ("message_rate", measurement("vip-bw", self.size, false)),
            ("bandwidth", measurement("vip-bw", self.large_size, false)),
        ] {
            log::info!("measuring {}", what.replace('_', " "));
            let result = pair::run(fabric, measurement.tool, measurement.wait, &measurement.options())?;
            results.push((what.to_owned(), result));
        }
        let document = json!({
            "accelerator": fabric.decision().accelerator,
            "qemu": fabric.qemu().version,
            "wait": wait,
            "results": results.into_iter().collect::<serde_json::Map<_, _>>(),
            "stats": fabric.stats()?,
        });
        let text = if self.json { format!("{document:#}\n") } else { report::text(&document) };
        output::print(text.as_bytes())?;
        Ok(0)
    }
}

impl Measurement {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_what_to_measure() {
        let measurement =
            Measurement { wait: "block", tool: "vip-pingpong", size: 64, iterations: 10, check: true };
        assert_eq!(measurement.options().join(" "), "--size 64 --iterations 10 --check");
    }

    #[test]
    fn guests_poll_only_where_there_are_processors_for_it() {
        assert_eq!(Wait::Auto.word(2), "block");
        assert_eq!(Wait::Auto.word(8), "poll");
        assert_eq!(Wait::Poll.word(2), "poll");
    }
}
