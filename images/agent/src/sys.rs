//! System calls that no safe wrapper exists for.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

use std::{io, os::fd::AsRawFd, os::unix::process::CommandExt, process::Command};

use rustix::net::{AddressFamily, SocketType, socket};

/// Sets the loopback interface up.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(io::Error::other)?;
    let request = libc::ifreq {
        ifr_name: {
            let mut name = [0; libc::IFNAMSIZ];
            for (to, from) in name.iter_mut().zip(b"lo") {
                *to = from.cast_signed();
            }
            name
        },
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags },
    };
    // SAFETY: the socket is open and SIOCSIFFLAGS reads one `ifreq`, whose flags and name are set.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a signal to every process but this one.
pub(crate) fn signal_everybody(signal: i32) {
    // SAFETY: takes no pointers. It fails only if there is nobody else, which is as well.
    unsafe { libc::kill(-1, signal) };
}

/// Makes the command lead a session whose terminal is its standard input.
pub(crate) fn lead_session(command: &mut Command) {
    let prepare = || {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        Ok(())
    };
    // SAFETY: runs between fork and exec; it only makes two system calls, and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}
