//! What commands print.

use std::io::{self, Write};

use anyhow::{Error, Result};
use signal_hook::consts::SIGPIPE;

use super::exit_code::Interrupted;

/// Writes to standard output at once.
pub(super) fn print(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        // Whoever read our output has seen enough, as in `vianic run -- ls | head -1`.
        io::ErrorKind::BrokenPipe => Interrupted(SIGPIPE).into(),
        _ => Error::new(error).context("cannot write to standard output"),
    })
}
