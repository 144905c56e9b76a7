//! `vianic-sides`: what a message costs the application and the card, each by itself.

use std::time::Duration;

use clap::Parser;
use vianic_bench::sides::{Sides, measure};
use vianic_tools::bench::statistics::Spread;

/// Measure what a message costs the application on one core and the card on another, while the other one waits.
///
/// Who costs more is who keeps the message rate down. For instructions in place of nanoseconds: vianic-count under callgrind.
#[derive(Debug, Parser)]
struct Options {
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: u32,
    /// Messages at a time (repeatable)
    #[arg(long, value_name = "NUMBER", default_values_t = [1, 16, 64, 256], value_parser = clap::value_parser!(u32).range(1..=1024))]
    window: Vec<u32>,
    /// Samples
    #[arg(long, value_name = "NUMBER", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// Wait so long for moments in which two cores are this machine's alone
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    patience: u64,
}

fn main() -> anyhow::Result<()> {
    let Options { size, window, samples, patience } = Options::parse();
    println!("{size} bytes, ns of a message, median (least-most)");
    println!("{:>6}  {:>20}  {:>20}  {:>20}  counted", "window", "post", "card", "take");
    for window in window {
        let patience = Duration::from_secs(patience);
        let Sides { post, card, take, counted } =
            measure(tempfile::tempdir()?.path(), (size, window), samples, patience)?;
        let [post, card, take] = [post, card, take].map(show);
        println!("{window:>6}  {post:>20}  {card:>20}  {take:>20}  {counted} of {samples}");
    }
    Ok(())
}

fn show(Spread { low, median, high }: Spread) -> String {
    format!("{median:.0} ({low:.0}-{high:.0})")
}
