//! The control socket's thread.

use std::io;
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Desk;
use super::client::Client;
use crate::one_shot::OneShot;
use crate::rate_limit::warn_limited;
use crate::socket::SocketFile;

/// Clients served at a time; one more takes the place of the oldest.
const MAX_CLIENTS: usize = 32;

/// How long to leave new clients waiting when the system is out of descriptors.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The control socket.
#[derive(Debug)]
pub struct Server {
    stop: OneShot,
    thread: JoinHandle<()>,
}

impl Server {
    /// Answers at the socket from `desk`.
    ///
    /// # Errors
    /// If the system is out of descriptors or threads.
    pub fn start((file, listener): (SocketFile, UnixListener), desk: Desk) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let stop = OneShot::new()?;
        let monitor = Monitor { listener, stop: stop.clone(), desk };
        let thread = thread::Builder::new().name("monitor".to_owned()).spawn(move || {
            monitor.run();
            drop(file);
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends; the socket file is removed.
    pub fn stop(self) {
        self.stop.raise();
        if self.thread.join().is_err() {
            log::error!("the control socket's thread had panicked");
        }
    }
}

struct Monitor {
    listener: UnixListener,
    stop: OneShot,
    desk: Desk,
}

impl Monitor {
    fn run(&self) {
        let mut clients: Vec<Client> = Vec::new();
        let mut out_of_descriptors = false;
        loop {
            let door = if out_of_descriptors { PollFlags::empty() } else { PollFlags::IN };
            let limit = out_of_descriptors.then(|| Timespec::try_from(RETRY_AFTER).ok()).flatten();
            let mut events = vec![PollFd::new(&self.stop, PollFlags::IN), PollFd::new(&self.listener, door)];
            events.extend(clients.iter().map(|client| PollFd::new(client.stream(), client.wants())));
            match poll(&mut events, limit.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    log::error!("the control socket is closed: cannot wait: {error}");
                    return;
                }
            }
            let ready: Vec<bool> = events.iter().map(|event| !event.revents().is_empty()).collect();
            if ready[0] {
                return;
            }
            let mut client_ready = ready[2..].iter();
            clients.retain_mut(|client| {
                !client_ready.next().is_some_and(|ready| *ready) || client.serve(|line| self.answer(line))
            });
            out_of_descriptors = false;
            if ready[1] {
                match self.listener.accept().and_then(|(stream, _)| Client::new(stream)) {
                    Ok(client) => clients.push(client),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => {
                        warn_limited!("the control socket cannot take a client: {error}");
                        out_of_descriptors = true;
                    }
                }
            }
            if clients.len() > MAX_CLIENTS {
                clients.remove(0);
            }
        }
    }

    fn answer(&self, line: &[u8]) -> Vec<u8> {
        let mut answer = self.desk.answer(line).to_string().into_bytes();
        answer.push(b'\n');
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;

    fn server() -> (Server, PathBuf, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("stats.sock");
        // An engine without cards, which has ended: nothing is asked of it.
        let engine = Engine::start(Vec::new()).expect("an engine");
        let desk = Desk { nics: Vec::new(), engine: engine.handle() };
        engine.stop();
        let server = Server::start(SocketFile::bind(&path).expect("bind"), desk).expect("start");
        (server, path, directory)
    }

    fn ask(client: &mut BufReader<UnixStream>, question: &[u8]) -> String {
        client.get_mut().write_all(question).expect("write");
        let mut answer = String::new();
        client.read_line(&mut answer).expect("read");
        answer
    }

    fn connect(path: &PathBuf) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(path).expect("connect"))
    }

    #[test]
    fn lines_are_answered_in_order() {
        let (server, path, _directory) = server();
        let mut client = connect(&path);
        assert_eq!(ask(&mut client, b"stats\n"), "{\"nics\":[]}\n");
        assert!(ask(&mut client, b"nonsense\nstats\n").contains("nonsense"));
        assert_eq!(ask(&mut client, b""), "{\"nics\":[]}\n");
        server.stop();
        assert!(!path.exists());
    }

    #[test]
    fn a_client_that_does_not_read_or_never_ends_its_line_keeps_nobody_waiting() {
        let (server, path, _directory) = server();
        let mut slow = UnixStream::connect(&path).expect("connect");
        slow.set_nonblocking(true).expect("nonblocking");
        while slow.write(&b"stats\n".repeat(1000)).is_ok() {}
        let mut endless = UnixStream::connect(&path).expect("connect");
        // The server hangs up after a while.
        while endless.write_all(&[b'x'; 100]).is_ok() {}
        assert_eq!(ask(&mut connect(&path), b"stats\n"), "{\"nics\":[]}\n");
        server.stop();
    }

    #[test]
    fn the_oldest_client_makes_room() {
        let (server, path, _directory) = server();
        let mut first = connect(&path);
        ask(&mut first, b"stats\n");
        let mut others: Vec<_> = (0..MAX_CLIENTS).map(|_| connect(&path)).collect();
        for client in &mut others {
            assert_eq!(ask(client, b"stats\n"), "{\"nics\":[]}\n");
        }
        assert_eq!(first.read_line(&mut String::new()).expect("hung up"), 0);
        server.stop();
    }
}
