//! `vianic-device`: a process of cards.

mod cli;
mod log_output;
mod truncated_memory;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use log::LevelFilter;
use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use cli::Cli;
use vianic_device::engine::{Engine, NicConfig};
use vianic_device::monitor;
use vianic_device::nic::hostility::Hostility;
use vianic_device::nic::memory::NicMemory;
use vianic_device::socket::SocketFile;
use vianic_device::vhost::{DESCRIPTORS_PER_CARD, EngineCard, Server};

/// How long the end of the process waits for the log.
const LOG_LIMIT: Duration = Duration::from_secs(1);

/// Descriptors that the process needs beside those of its cards: log, engine, control socket and its clients.
const OWN_DESCRIPTORS: usize = 64;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.print_capabilities {
        println!("{}", serde_json::json!({ "type": "vianic", "features": [] }));
        return ExitCode::SUCCESS;
    }
    let log = match start_log(cli.log_level) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("vianic-device: cannot start the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = run(&cli);
    if let Err(error) = &result {
        log::error!("{error:#}");
    }
    log.flush(LOG_LIMIT);
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn start_log(level: Option<LevelFilter>) -> std::io::Result<log_output::LogFlush> {
    let (output, flush) = log_output::start()?;
    let mut log = env_logger::Builder::new();
    // What a guest can make that crate say, the card says itself, at a limited rate.
    log.filter_level(LevelFilter::Info).filter_module("virtio_queue", LevelFilter::Off);
    log.parse_default_env();
    if let Some(level) = level {
        log.filter_level(level);
    }
    log.target(env_logger::Target::Pipe(Box::new(output))).init();
    Ok(flush)
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let cards = cli.cards()?;
    reserve_descriptors(cards.len())?;
    // From here on a signal ends the process in order, a second one at once.
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, stopping.clone())
            .context("cannot catch signals")?;
    }
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP, truncated_memory::TELL]).context("cannot catch signals")?;
    truncated_memory::survive()?;

    let mut sockets = Vec::new();
    let mut nics = Vec::new();
    for card in cards {
        sockets.push(SocketFile::bind(&card.socket)?);
        let memory = Arc::new(NicMemory::new().context("cannot make a NIC's memory")?);
        nics.push(monitor::Nic { address: card.address, memory });
    }
    let stats_socket = cli.stats_path.as_deref().map(SocketFile::bind).transpose()?;

    let hostility = cli.hostile.map(Hostility::new);
    let configs = nics.iter().map(|nic| NicConfig {
        address: nic.address,
        memory: nic.memory.clone(),
        limits: cli.poll.unwrap_or_default(),
        hostility: hostility.clone(),
    });
    let engine = Engine::start(configs.collect()).context("cannot start the engine")?;
    if let Some(plan) = cli.faults {
        log::warn!("the links have faults: {plan}");
        (0..nics.len()).for_each(|number| engine.handle().set_faults(number, Some(plan)));
    }
    let mut servers = Vec::new();
    for (number, socket) in sockets.into_iter().enumerate() {
        let card = Arc::new(EngineCard { engine: engine.handle(), nic: number });
        let server = Server::start(socket, card, nics[number].memory.clone());
        servers.push(server.context("cannot serve a card's socket")?);
    }
    let desk = monitor::Desk { nics, engine: engine.handle() };
    let monitor = stats_socket.map(|socket| monitor::Server::start(socket, desk)).transpose();
    let monitor = monitor.context("cannot serve the control socket")?;

    wait_for_end(&mut signals);
    log::info!("stopping");
    stopping.store(true, Ordering::Relaxed);
    if let Some(monitor) = monitor {
        monitor.stop();
    }
    for server in servers {
        server.stop();
    }
    engine.stop();
    Ok(())
}

/// Waits for the signal that ends the process.
fn wait_for_end(signals: &mut Signals) {
    for signal in signals.forever() {
        if signal != truncated_memory::TELL {
            return;
        }
        let replaced = truncated_memory::take_replaced();
        if replaced > 0 {
            log::error!(
                "the file of a guest's memory was truncated while the guest ran: the card sees zeros in {replaced} pages"
            );
        }
    }
}

/// Sees to it that a card whose front end sends all it may does not take the descriptors of another.
fn reserve_descriptors(cards: usize) -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open descriptors")?;
    }
    let needed = OWN_DESCRIPTORS + cards * DESCRIPTORS_PER_CARD;
    if let Some(limit) = limit.current
        && u64::try_from(needed).is_ok_and(|needed| needed > limit)
    {
        bail!("{cards} cards need {needed} open descriptors, and {limit} are allowed: raise `ulimit -Hn`");
    }
    Ok(())
}
