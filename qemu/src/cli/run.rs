//! `vianic run`.

use std::io::{self, Write};
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use signal_hook::consts::{SIGINT, SIGWINCH};
use vianic::agent::{ExecOptions, Process, ProcessEvent};
use vianic::fabric::Fabric;
use vianic::{Error, Limit};
use vianic_guest_agent::Stream;

use super::console::{self, RawMode};
use super::exit_code::{self, Interrupted};
use super::guests::Guests;
use super::session::{Event, Session};
use super::values::{self, Copy, Start};
use super::{copy, output};

/// How long a COMMAND may take if the user does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

const EXAMPLES: &str = "\
Examples:
  vianic run                                     A shell in a guest; leave it with `exit`
  vianic run --vms 2 --vm 2                      Two guests, a shell in the second one
  vianic run -- vip-info                         One command
  vianic run --copy build/my-test -- /root/my-test
                                                 A program of yours
  vianic run --copy tests:/root/tests -- sh -c 'cd /root/tests && ./all'
  vianic run --vms 2 --start 2:vip-pingpong -- sh -c 'vip-pingpong $VIANIC_VM2'
                                                 A server in guest 2, its client in guest 1
  vianic run --timeout 5m --keep-logs artifacts -- make check
                                                 As a CI system would
  echo uname -a | vianic run -q                  A script from standard input

Every NIC has an address: 02:56:49:41:00:01 is the first of guest 1, and so on. Commands in the guests find
their own guest's number in $VIANIC_VM, and the addresses of guest N's NICs in $VIANIC_VM<N>.
";

/// Boots guests whose NICs share a switch. Runs COMMAND in one of them, or opens a shell there.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n{}", exit_code::HELP))]
pub(super) struct Run {
    /// How many guests.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = values::guests)]
    vms: usize,
    /// How many NICs in each guest.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = values::cards)]
    cards: usize,
    /// The guest in which COMMAND or the shell runs.
    #[arg(long, value_name = "I", default_value_t = 1)]
    vm: usize,
    /// Copy a file or directory into every guest, to /root if not told where (repeatable).
    #[arg(long = "copy", value_name = "HOST[:GUEST]", value_parser = values::copy)]
    copies: Vec<Copy>,
    /// Start a shell command in a guest before COMMAND; its output comes on standard error (repeatable).
    #[arg(long = "start", value_name = "VM:COMMAND", value_parser = values::start)]
    starts: Vec<Start>,
    /// How long booting and COMMAND may take together; 10m with a COMMAND, else no limit.
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    guests: Guests,
    /// The command and its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Run {
    pub(super) fn execute(self) -> Result<u8> {
        ensure!(
            self.vm >= 1 && self.vm <= self.vms && self.starts.iter().all(|start| start.vm <= self.vms),
            "the guests are numbered from 1 to {} (see --vms)",
            self.vms
        );
        let timeout = self.timeout.or((!self.command.is_empty()).then_some(DEFAULT_TIMEOUT));
        let config = self.guests.config(self.vms, self.cards, timeout)?;
        let session = Session::new(self.guests.keep_logs.clone())?;
        let limit = timeout.map(|timeout| Limit::new("the run to end (--timeout)", timeout));
        session.launch(config).and_then(|fabric| {
            let outcome = self.inside(&session, &fabric, limit.as_ref());
            session.finish(fabric, outcome)
        })
    }

    /// The command line after the dashes.
    #[cfg(test)]
    pub(super) fn command(&self) -> &[String] {
        &self.command
    }

    /// What happens while the guests run.
    fn inside(&self, session: &Session, fabric: &Fabric, limit: Option<&Limit>) -> Result<u8> {
        for vm in fabric.vms() {
            self.copies.iter().try_for_each(|copy| copy::into_guest(vm, copy))?;
        }
        for start in &self.starts {
            start_in_background(fabric, start)?;
        }
        let vm = &fabric.vms()[self.vm - 1];
        let interactive = self.command.is_empty() && console::is_interactive();
        let mut options = ExecOptions { env: environment(fabric, self.vm), ..ExecOptions::default() };
        options.stdin = Some(Vec::new());
        let argv = if self.command.is_empty() {
            vec!["/bin/sh".to_owned(), "-l".to_owned()]
        } else {
            self.command.clone()
        };
        if interactive {
            options.pty = Some(console::window_size());
            let terminal = std::env::var("TERM").unwrap_or_else(|_| "linux".to_owned());
            options.env.push(("TERM".to_owned(), terminal));
            log::info!("this is guest {}; `exit` ends the run", self.vm);
        }
        let process = vm.spawn(&argv, &options)?;
        let raw = interactive.then(RawMode::enter).transpose().context("cannot use the terminal")?;
        let handle = process.handle();
        let input = process.handle();
        std::thread::spawn(move || {
            if let Err(error) = input.send_all(&mut io::stdin().lock()) {
                log::warn!("reading standard input: {error}");
                input.end();
            }
        });
        pump(process, session.sender());
        let mut interrupted = false;
        let outcome = loop {
            match session.next(limit) {
                Ok(Event::Process(Ok(ProcessEvent::Exited(status)))) => {
                    break Ok(exit_code::of_status(status));
                }
                Ok(Event::Process(Ok(ProcessEvent::Output(stream, bytes)))) => {
                    if let Err(error) = show(stream, &bytes) {
                        break Err(error);
                    }
                }
                Ok(Event::Process(Ok(ProcessEvent::Started(_))) | Event::Launched(_) | Event::Done) => {}
                Ok(Event::Process(Err(error))) | Err(error) => {
                    break Err(vm.explain::<u8>(Err(error)).unwrap_err().into());
                }
                Ok(Event::Signal(SIGWINCH)) => handle.resize(console::window_size()),
                // The first interrupt is for the command, which may want to clean up.
                Ok(Event::Signal(SIGINT)) if !interrupted => {
                    interrupted = true;
                    handle.signal(SIGINT);
                }
                Ok(Event::Signal(signal)) => break Err(Interrupted(signal).into()),
            }
        };
        drop(raw);
        outcome
    }
}

/// What commands find in their environment.
fn environment(fabric: &Fabric, vm: usize) -> Vec<(String, String)> {
    let addresses = |vm| fabric.addresses(vm).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let mut variables = vec![("VIANIC_VM".to_owned(), vm.to_string())];
    variables.extend((0..fabric.vms().len()).map(|vm| (format!("VIANIC_VM{}", vm + 1), addresses(vm))));
    variables
}

/// Moves a process' events into the session's queue.
fn pump(process: Process, events: Sender<Event>) {
    std::thread::spawn(move || {
        // The session has the limit that counts.
        let limit = Limit::new("the command", Duration::MAX);
        loop {
            let event = process.next(&limit);
            let last = !matches!(event, Ok(ProcessEvent::Started(_) | ProcessEvent::Output(..)));
            if events.send(Event::Process(event)).is_err() || last {
                return;
            }
        }
    });
}

fn start_in_background(fabric: &Fabric, start: &Start) -> Result<(), Error> {
    let vm = &fabric.vms()[start.vm - 1];
    let options = ExecOptions { env: environment(fabric, start.vm), ..ExecOptions::default() };
    let process = vm.spawn(&["/bin/sh", "-c", start.command.as_str()], &options)?;
    let name = vm.name().to_owned();
    std::thread::spawn(move || {
        let limit = Limit::new("the command in the background", Duration::MAX);
        let mut lines = Lines::default();
        let show = |line: &str| eprintln!("[{name}] {line}");
        loop {
            match process.next(&limit) {
                Ok(ProcessEvent::Started(_)) => {}
                Ok(ProcessEvent::Output(_, bytes)) => lines.add(&bytes, show),
                Ok(ProcessEvent::Exited(status)) => {
                    lines.end(show);
                    if !status.success() {
                        log::warn!("{name}: {:?} ended with {status}", process.name());
                    }
                    return;
                }
                // The run is over, or its own command reports the same.
                Err(error) => {
                    lines.end(show);
                    return log::debug!("{name}: {error}");
                }
            }
        }
    });
    Ok(())
}

/// Puts lines together from pieces.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn add(&mut self, bytes: &[u8], mut show: impl FnMut(&str)) {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            show(String::from_utf8_lossy(&line).trim_end());
        }
    }

    fn end(&mut self, mut show: impl FnMut(&str)) {
        if !self.rest.is_empty() {
            show(&String::from_utf8_lossy(&self.rest));
            self.rest.clear();
        }
    }
}

fn show(stream: Stream, bytes: &[u8]) -> Result<()> {
    match stream {
        Stream::Stdout => output::print(bytes),
        Stream::Stderr => io::stderr().lock().write_all(bytes).context("cannot write to standard error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for piece in ["server", ": waiting\r\nfor", "\n\nit"] {
            lines.add(piece.as_bytes(), |line| seen.push(line.to_owned()));
        }
        lines.end(|line| seen.push(line.to_owned()));
        assert_eq!(seen, ["server: waiting", "for", "", "it"]);
    }
}
