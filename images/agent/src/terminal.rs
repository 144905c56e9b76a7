//! Terminals for interactive commands.

use std::{
    io,
    process::{Command, Stdio},
};

use rustix::{
    fd::{AsFd, OwnedFd},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use vianic_guest_agent::WindowSize;

use crate::sys;

/// Gives the command a terminal of its own; returns the other side of it.
pub(crate) fn attach(command: &mut Command, size: WindowSize) -> io::Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let terminal = ioctl_tiocgptpeer(&master, flags)?;
    resize(&master, size)?;
    command
        .stdin(Stdio::from(terminal.try_clone()?))
        .stdout(Stdio::from(terminal.try_clone()?))
        .stderr(Stdio::from(terminal));
    sys::lead_session(command);
    Ok(master)
}

/// Tells the terminal its window's size.
pub(crate) fn resize(master: impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(master, size)?)
}
