//! Finds and opens the virtio-serial port that the host listens on.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::Context;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with},
};
use vianic_guest_agent::PORT_NAME;

const PORTS: &str = "/sys/class/virtio-ports";

/// Opens the port; waits until there is one.
pub(crate) fn open() -> anyhow::Result<File> {
    // Listens before it looks: a port's name arrives some time after the port.
    let events = device_events().context("listening for devices")?;
    let mut told = false;
    loop {
        if let Some(path) = find(Path::new(PORTS)) {
            let opened = File::options().read(true).write(true).open(&path);
            return opened.with_context(|| format!("opening {}", path.display()));
        }
        // Says once what it is waiting for, and goes on waiting: the port may be plugged in at any time.
        if !wait(&events, !told).context("waiting for devices")? {
            told = true;
            eprintln!(
                "vianic-guest-agent: waiting for a virtio-serial port named {PORT_NAME} \
                 (QEMU: -device virtserialport,name={PORT_NAME},chardev=...)"
            );
        }
    }
}

fn find(ports: &Path) -> Option<PathBuf> {
    fs::read_dir(ports).ok()?.flatten().find_map(|port| {
        let name = fs::read_to_string(port.path().join("name")).ok()?;
        (name.trim_end() == PORT_NAME).then(|| Path::new("/dev").join(port.file_name()))
    })
}

fn device_events() -> rustix::io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(netlink::KOBJECT_UEVENT),
    )?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, 1))?;
    Ok(socket)
}

/// Waits for the next device event; false if none has come in ten seconds and `limited`.
fn wait(events: &OwnedFd, limited: bool) -> rustix::io::Result<bool> {
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(events, PollFlags::IN)], limited.then_some(&limit)) {
            Ok(0) => return Ok(false),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    // What they say doesn't matter, and if some were lost (NOBUFS) neither.
    let mut event = [0; 4096];
    while !matches!(recv(events, &mut event, RecvFlags::empty()), Err(Errno::AGAIN)) {}
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_known_by_its_name() {
        let ports = tempfile::tempdir().unwrap();
        for (port, name) in [("vport0p1", "org.qemu.guest_agent.0\n"), ("vport0p2", "org.vianic.agent\n")] {
            fs::create_dir(ports.path().join(port)).unwrap();
            fs::write(ports.path().join(port).join("name"), name).unwrap();
        }
        fs::create_dir(ports.path().join("vport0p3")).unwrap();
        assert_eq!(find(ports.path()), Some(PathBuf::from("/dev/vport0p2")));
        assert_eq!(find(&ports.path().join("none")), None);
    }
}
