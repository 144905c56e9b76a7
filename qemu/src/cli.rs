//! The command line of `vianic`.

mod bench;
mod console;
mod copy;
mod demo;
mod doctor;
mod exit_code;
mod guests;
mod image;
mod output;
mod pair;
mod run;
mod session;
mod values;

use std::io::Write;
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  vianic run                                 A guest with a NIC, and a shell in it
  vianic run -- vip-info                     Runs vip-info in a guest; its exit status is vianic's
  vianic run --copy ./my-test -- /root/my-test --fast
                                             Runs your program in a guest
  vianic demo                                Two guests measure their NICs against each other
  vianic bench latency                       The card beside the limits of this machine
  vianic doctor                              Says what vianic has found on this machine

The first run downloads Debian packages (QEMU and a kernel, 100 MB) into the cache and builds the guest
image; later runs start at once. Nothing is installed, and no root is needed.";

/// Boots QEMU guests with emulated Virtual Interface Architecture (VIA) NICs.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, after_long_help = EXAMPLES)]
struct Vianic {
    #[command(subcommand)]
    command: Command,
    /// Say only what went wrong.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more: QEMU's command line and events; twice: every monitor command.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot guests whose NICs share a switch; run a command in one, or open a shell.
    Run(Box<run::Run>),
    /// Let two guests measure latency and bandwidth between their NICs.
    Demo(demo::Demo),
    /// Measure the card beside the limits of this machine.
    Bench(bench::Bench),
    /// Build the guest image, or show where it is.
    Image(image::Image),
    /// Say what was found on this machine, and what is missing.
    Doctor(doctor::Doctor),
}

/// Runs the command that the user typed.
pub(crate) fn main() -> ExitCode {
    let vianic = Vianic::parse();
    start_log(vianic.quiet, vianic.verbose);
    let outcome = match vianic.command {
        Command::Run(run) => run.execute(),
        Command::Demo(demo) => demo.execute(),
        Command::Bench(bench) => bench.execute(),
        Command::Image(image) => image.execute(),
        Command::Doctor(doctor) => doctor.execute(),
    };
    ExitCode::from(outcome.unwrap_or_else(|error| {
        if let Some(words) = exit_code::describe(&error) {
            eprintln!("vianic: {words}");
        }
        exit_code::of_error(&error)
    }))
}

fn start_log(quiet: bool, verbose: u8) {
    let level = match (quiet, verbose) {
        (true, _) => log::LevelFilter::Warn,
        (false, 0) => log::LevelFilter::Info,
        (false, 1) => log::LevelFilter::Debug,
        (false, _) => log::LevelFilter::Trace,
    };
    env_logger::Builder::new()
        .filter_level(level)
        .parse_env("VIANIC_LOG")
        .format(|out, record| match record.level() {
            log::Level::Info => writeln!(out, "vianic: {}", record.args()),
            level => writeln!(out, "vianic: {}: {}", level.as_str().to_lowercase(), record.args()),
        })
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Vianic::command().debug_assert();
    }

    #[test]
    fn everything_after_the_dashes_is_the_command() {
        let vianic = Vianic::try_parse_from(["vianic", "run", "--vms", "2", "--", "ls", "-q"]).unwrap();
        let Command::Run(run) = vianic.command else { panic!("not run") };
        assert_eq!(run.command(), ["ls", "-q"]);
        assert!(!vianic.quiet);
    }
}
