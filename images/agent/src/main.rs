//! The guest agent. As the init of a guest it prepares the system, then serves the host; otherwise (as a
//! service in somebody's own image) it only serves.

mod exec;
mod file;
mod init;
mod outbox;
mod port;
mod power;
mod reaper;
mod server;
mod sys;
mod task;
mod terminal;

use std::{fs::File, io::Write, os::fd::AsFd, process::ExitCode};

use anyhow::{Context, bail};
use rustix::process::getpid;
use vianic_guest_agent::ModuleState;

use crate::{outbox::Line, reaper::Reaper, server::Server};

const USAGE: &str = "usage: vianic-guest-agent [--stdio]

Serves the host on the virtio-serial port org.vianic.agent. As process 1 it also is the guest's init.
  --stdio   serve one host on standard input and output instead";

fn main() -> ExitCode {
    let is_init = getpid().is_init();
    std::panic::set_hook(Box::new(|panic| {
        last_words(&format!("panicked: {panic}"));
        // The kernel then reports the death of init on the console and stops.
        std::process::abort();
    }));
    match run(is_init) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            last_words(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(is_init: bool) -> anyhow::Result<()> {
    if is_init {
        let module = init::prepare()?;
        let reaper = Reaper::start()?;
        power::serve_signals(&reaper)?;
        return serve_port(&reaper, is_init, &module);
    }
    match std::env::args().nth(1).as_deref() {
        None => serve_port(&Reaper::start()?, is_init, &ModuleState::Absent),
        Some("--stdio") => serve_stdio(&Reaper::start()?),
        Some("--help") => {
            println!("{USAGE}");
            Ok(())
        }
        Some(other) => bail!("unknown argument {other}\n{USAGE}"),
    }
}

/// Serves one host after the other, for ever.
fn serve_port(reaper: &Reaper, is_init: bool, module: &ModuleState) -> anyhow::Result<()> {
    loop {
        let port = port::open()?;
        let line = Line::new(port.try_clone().context("duplicating the port")?);
        let mut server = Server::new(line, reaper.clone(), is_init, module.clone());
        // Only the loss of the port itself (it was unplugged) ends this.
        if let Err(error) = server.serve(port, server::AtEnd::WaitForNextHost) {
            eprintln!("vianic-guest-agent: lost the port: {error}");
        }
    }
}

fn serve_stdio(reaper: &Reaper) -> anyhow::Result<()> {
    // Duplicates, which commands don't inherit.
    let input = std::io::stdin().as_fd().try_clone_to_owned().context("standard input")?;
    let output = std::io::stdout().as_fd().try_clone_to_owned().context("standard output")?;
    let line = Line::new(File::from(output));
    let mut server = Server::new(line, reaper.clone(), false, ModuleState::Absent);
    server.serve(File::from(input), server::AtEnd::Return).context("serving standard input")?;
    // The last session's commands have been killed, or are about to be.
    reaper.wait_for_all(power::GRACE);
    Ok(())
}

/// Says it where it will be seen: on the console, and in the kernel's log in case that goes elsewhere.
fn last_words(words: &str) {
    eprintln!("vianic-guest-agent: {words}");
    if let Ok(mut log) = File::options().write(true).open("/dev/kmsg") {
        // Best effort: there is nobody left to tell.
        let _ = writeln!(log, "<0>vianic-guest-agent: {words}");
    }
}
