//! Stopping the guest.

use std::{io, process::Command, time::Duration};

use rustix::system::{RebootCommand, reboot};
use signal_hook::{
    consts::{SIGTERM, SIGUSR1, SIGUSR2},
    iterator::Signals,
};

use crate::{reaper::Reaper, sys};

/// How long processes have to end by themselves before they are killed.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// How to stop.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    PowerOff,
    Reboot,
}

/// Stops the guest; as a service, asks its init to.
pub(crate) fn stop(how: Stop, is_init: bool, reaper: &Reaper) {
    let (command, program) = match how {
        Stop::PowerOff => (RebootCommand::PowerOff, "poweroff"),
        Stop::Reboot => (RebootCommand::Restart, "reboot"),
    };
    if !is_init {
        // Who waits for it is the init it talks to; this process will be ended by that.
        if let Err(error) = Command::new(program).spawn() {
            eprintln!("vianic-guest-agent: running {program}: {error}");
        }
        return;
    }
    sys::signal_everybody(libc::SIGTERM);
    // Stopped processes don't see it otherwise.
    sys::signal_everybody(libc::SIGCONT);
    reaper.wait_for_all(GRACE);
    sys::signal_everybody(libc::SIGKILL);
    rustix::fs::sync();
    if let Err(error) = reboot(command) {
        eprintln!("vianic-guest-agent: {program}: {error}");
    }
}

/// Obeys the signals that `poweroff`, `halt` and `reboot` of busybox send to their init.
pub(crate) fn serve_signals(reaper: &Reaper) -> io::Result<()> {
    let mut signals = Signals::new([SIGUSR1, SIGUSR2, SIGTERM])?;
    let reaper = reaper.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in &mut signals {
            let how = if signal == SIGTERM { Stop::Reboot } else { Stop::PowerOff };
            stop(how, true, &reaper);
        }
    })?;
    Ok(())
}
