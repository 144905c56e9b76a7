//! The `vianic` command: boots QEMU guests with emulated VIA NICs.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
