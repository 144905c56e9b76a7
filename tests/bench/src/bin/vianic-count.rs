//! `vianic-count`: messages whose instructions callgrind counts. It is run by a test.

use clap::Parser;

/// Exchange messages with a card in this thread, for callgrind to count the instructions.
#[derive(Debug, Parser)]
struct Options {
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: u32,
    /// Messages at a time
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    window: u32,
    /// Messages
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    messages: u32,
}

fn main() -> anyhow::Result<()> {
    let Options { size, window, messages } = Options::parse();
    vianic_bench::by_hand::exchange(tempfile::tempdir()?.path(), size, window, messages)
}
