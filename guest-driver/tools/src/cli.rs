//! What the tools' command lines have in common.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use vipl::{AsyncError, ErrorCode, Nic, ReliabilityLevel};

use crate::address::Peer;

/// Runs a tool: logs to stderr, says what failed, and gives the exit code: 0, or 1 for a failure. Usage errors never
/// come here; they exit with 2.
pub fn run(tool: &str, main: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{tool}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Opens a NIC. That a peer has disconnected is not worth a warning: whoever still waits for it learns it there.
///
/// # Errors
/// If there is none of that name, or it cannot be used.
pub fn open_nic(name: &str) -> anyhow::Result<Nic> {
    let nic = Nic::open(name).with_context(|| format!("cannot open NIC {name}"))?;
    nic.set_error_handler(Some(Arc::new(|error: &AsyncError| match error.code {
        ErrorCode::CONN_LOST => log::debug!("{error:?}"),
        _ => log::warn!("{error:?}"),
    })))?;
    Ok(nic)
}

/// Prints a line at once, also into a pipe.
///
/// # Errors
/// When nobody reads it.
pub fn print_line(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Runs server and client of one process. When one fails the NIC is closed, so that the other ends too.
///
/// # Errors
/// What failed on either side.
pub fn both_sides(
    nic: &Nic,
    server: impl FnOnce() -> anyhow::Result<()> + Send,
    client: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let or_close = |outcome: anyhow::Result<()>| {
        outcome.inspect_err(|_| {
            // The other side may have closed it already.
            let _ = nic.id().close();
        })
    };
    let (server, client) = std::thread::scope(|scope| {
        let server = scope.spawn(|| or_close(server()));
        let client = or_close(client());
        (server.join().unwrap_or_else(|_| Err(anyhow!("panicked"))), client)
    });
    match (server, client) {
        (Ok(()), client) => client.context("client"),
        (server, Ok(())) => server.context("server"),
        (Err(server), Err(client)) => bail!("server: {server:#}; client: {client:#}"),
    }
}

/// How to wait for completions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// Look again and again, without a system call.
    #[default]
    Poll,
    /// Sleep until the card notifies.
    Block,
}

/// A reliability level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Reliability {
    /// Unreliable Delivery.
    Unreliable,
    /// Reliable Delivery.
    #[default]
    Delivery,
    /// Reliable Reception.
    Reception,
}

impl From<Reliability> for ReliabilityLevel {
    fn from(reliability: Reliability) -> Self {
        match reliability {
            Reliability::Unreliable => Self::UNRELIABLE,
            Reliability::Delivery => Self::RELIABLE_DELIVERY,
            Reliability::Reception => Self::RELIABLE_RECEPTION,
        }
    }
}

/// Options of the tools that exchange messages.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Name or address of the server's NIC (vip-info shows addresses), or `self` for this NIC. Without it, be the server
    #[arg(value_name = "ADDRESS")]
    pub peer: Option<Peer>,

    /// NIC: `nic0`, `/dev/vianicN`, or `direct:SOCKET` for a card without a VM
    #[arg(short = 'd', long, value_name = "NAME", default_value = "nic0")]
    pub nic: String,

    /// Discriminator where client and server meet
    #[arg(short = 'p', long, visible_alias = "port", value_name = "TEXT", default_value = "18515", value_parser = discriminator)]
    pub discriminator: String,

    /// How to wait for completions; each side has its own
    #[arg(long, value_enum, default_value_t)]
    pub wait: Wait,

    /// Report completions to a completion queue
    #[arg(long)]
    pub cq: bool,

    /// Reliability level (client)
    #[arg(short = 'r', long, value_enum, default_value_t)]
    pub reliability: Reliability,

    /// How long the client tries while nobody waits for it
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub connect_timeout: Duration,

    /// How long to wait for one message before giving up
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,

    /// Seed of message contents and mixed sizes (client)
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,

    /// Fill every message and check every byte received (client; the server does the same)
    #[arg(long)]
    pub check: bool,

    /// Print one JSON object for each size
    #[arg(long)]
    pub json: bool,
}

fn discriminator(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("it must not be empty".into()),
        length if length > vipl::MAX_DISCRIMINATOR_LEN => {
            Err(format!("it is longer than {} bytes", vipl::MAX_DISCRIMINATOR_LEN))
        }
        _ => Ok(text.into()),
    }
}
