//! `vip-info`: what NICs there are.

use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use vianic_tools::cli;
use vianic_tools::info;

/// Show VIA NICs: attributes and counters.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// NIC: `nic0`, `/dev/vianicN`, or `direct:SOCKET` for a card without a VM; all NICs if none is given
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// The same
    #[arg(short = 'd', long = "nic", value_name = "NAME")]
    more_names: Vec<String>,

    /// Show what the card has counted since its reset
    #[arg(short = 'c', long)]
    counters: bool,

    /// Print one JSON array of objects
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    cli::run("vip-info", || show(&options))
}

fn show(options: &Options) -> anyhow::Result<()> {
    let names: Vec<&String> = options.names.iter().chain(&options.more_names).collect();
    let reports = if names.is_empty() {
        info::inspect_all()?
    } else {
        names.iter().map(|name| info::inspect(name)).collect::<anyhow::Result<_>>()?
    };
    if reports.is_empty() {
        bail!("there is no NIC: no /dev/vianicN (is the module vianic loaded?), and VIANIC_NIC names none");
    }
    if options.json {
        let reports: Vec<_> = reports.iter().map(|report| report.json(options.counters)).collect();
        cli::print_line(&serde_json::to_string_pretty(&reports)?)?;
    } else {
        let reports: Vec<_> = reports.iter().map(|report| report.text(options.counters)).collect();
        cli::print_line(reports.join("\n").trim_end())?;
    }
    Ok(())
}
