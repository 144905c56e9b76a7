//! What one would use without a card: sockets. The same exchanges as the card's, between two threads here or, with
//! [`serve`], between two machines.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::beside::Cores;
use super::contestant::{Contestant, Quantity, Role, Sample, exchanges, one_by_one};

/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// What a client asks of a server, in one line of JSON.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Latency: every message comes back. Else all are taken, and then one byte comes back.
    pub quantity: Quantity,
    /// Bytes of a message.
    pub size: u32,
    /// How many messages.
    pub messages: u32,
}

/// How a socket is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looking {
    /// With system calls that return at once, again and again.
    Spinning,
    /// Asleep in the system call.
    Asleep,
}

/// A connected byte stream.
pub trait Stream: Read + Write + Send {
    /// Chooses how it is waited for.
    ///
    /// # Errors
    /// As the system says.
    fn look(&self, looking: Looking) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn look(&self, looking: Looking) -> io::Result<()> {
        self.set_nonblocking(looking == Looking::Spinning)
    }
}

impl Stream for TcpStream {
    fn look(&self, looking: Looking) -> io::Result<()> {
        self.set_nodelay(true)?;
        self.set_nonblocking(looking == Looking::Spinning)
    }
}

fn receive(stream: &mut dyn Stream, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.read(bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => bytes = &mut bytes[length..],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn send(stream: &mut dyn Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The server's part of one request.
fn answer(stream: &mut dyn Stream, request: Request) -> io::Result<()> {
    let mut message = vec![0; request.size as usize];
    match request.quantity {
        Quantity::Latency => {
            for _ in 0..exchanges(request.messages) {
                receive(stream, &mut message)?;
                send(stream, &message)?;
            }
            Ok(())
        }
        Quantity::Rate | Quantity::Bandwidth => {
            let mut left = u64::from(request.size) * u64::from(request.messages);
            let mut buffer = vec![0; 1 << 18];
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                match stream.read(&mut buffer[..most]) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(length) => left -= length as u64,
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                    Err(error) => return Err(error),
                }
            }
            send(stream, &[1])
        }
    }
}

/// The client's part.
fn ask(stream: &mut dyn Stream, request: Request) -> anyhow::Result<Sample> {
    let mut message = vec![1; request.size as usize];
    match request.quantity {
        Quantity::Latency => one_by_one(request.messages, &mut || {
            send(stream, &message)?;
            Ok(receive(stream, &mut message)?)
        }),
        Quantity::Rate | Quantity::Bandwidth => {
            let begin = Instant::now();
            for _ in 0..request.messages {
                send(stream, &message)?;
            }
            receive(stream, &mut [0])?;
            Ok(Sample { messages: request.messages.into(), time: begin.elapsed(), singles: Vec::new() })
        }
    }
}

/// A kind of socket between two threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A Unix stream.
    Unix,
    /// TCP over the loopback device.
    Tcp,
}

/// Sockets between two threads on two cores.
pub struct SocketPair {
    cores: Cores,
    kind: Kind,
    looking: Looking,
    request: Request,
    ends: [Box<dyn Stream>; 2],
}

impl SocketPair {
    /// Connects two sockets.
    ///
    /// # Errors
    /// As the system says.
    pub fn new(cores: Cores, kind: Kind, looking: Looking, request: Request) -> anyhow::Result<Self> {
        let ends: [Box<dyn Stream>; 2] = match kind {
            Kind::Unix => {
                let (one, other) = UnixStream::pair().context("no Unix sockets")?;
                [Box::new(one), Box::new(other)]
            }
            Kind::Tcp => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no TCP port")?;
                let one = TcpStream::connect(listener.local_addr()?).context("no TCP over loopback")?;
                [Box::new(one), Box::new(listener.accept()?.0)]
            }
        };
        ends.iter().try_for_each(|end| end.look(looking))?;
        Ok(Self { cores, kind, looking, request, ends })
    }
}

impl Contestant for SocketPair {
    fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Unix => "Unix socket",
            Kind::Tcp => "TCP, loopback",
        };
        match self.looking {
            Looking::Spinning => format!("{kind}, spinning"),
            Looking::Asleep => format!("{kind}, blocking"),
        }
    }

    fn role(&self) -> Role {
        Role::Peer
    }

    fn sample(&mut self) -> anyhow::Result<Sample> {
        let [application, device] = &mut self.ends;
        let (request, cores) = (self.request, self.cores);
        let mut answered = Ok(());
        let sample = cores
            .beside(|| answered = answer(device.as_mut(), request), || ask(application.as_mut(), request));
        answered.context("the other end of a socket")?;
        sample
    }
}

/// What is used between machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, without delay.
    Tcp,
    /// UDP; every message is a datagram.
    Udp,
}

/// Serves clients on a port, for ever: TCP connections one after the other, and UDP datagrams, which come back.
///
/// # Errors
/// If the port cannot be used.
pub fn serve(port: u16, ready: impl FnOnce(SocketAddr) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).context("cannot listen on TCP")?;
    let address = listener.local_addr()?;
    let datagrams =
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, address.port())).context("cannot listen on UDP")?;
    std::thread::Builder::new().name("udp".into()).spawn(move || echo(&datagrams))?;
    ready(address)?;
    loop {
        let (mut stream, client) = listener.accept()?;
        // A client that leaves is no reason for the others to go.
        if let Err(error) = serve_one(&mut stream) {
            log::warn!("{client}: {error:#}");
        }
    }
}

fn echo(datagrams: &UdpSocket) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let echoed = datagrams
            .recv_from(&mut buffer)
            .and_then(|(length, client)| datagrams.send_to(&buffer[..length], client));
        if let Err(error) = echoed {
            log::warn!("a datagram was lost: {error}");
        }
    }
}

fn serve_one(stream: &mut TcpStream) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.look(Looking::Asleep)?;
    let mut line = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        receive(stream, &mut byte)?;
        line.extend(byte);
        if line.len() > 4096 {
            bail!("that is no request");
        }
    }
    Ok(answer(stream, serde_json::from_slice(&line)?)?)
}

/// Asks a server.
///
/// # Errors
/// If it cannot be reached, or is silent.
pub fn client(server: SocketAddr, protocol: Protocol, request: Request) -> anyhow::Result<Sample> {
    match protocol {
        Protocol::Tcp => {
            let mut stream =
                TcpStream::connect(server).with_context(|| format!("cannot connect to {server}"))?;
            stream.set_read_timeout(Some(SILENCE))?;
            stream.look(Looking::Asleep)?;
            let line = format!("{}\n", serde_json::to_string(&request)?);
            send(&mut stream, line.as_bytes())?;
            ask(&mut stream, request)
        }
        Protocol::Udp => {
            if request.quantity != Quantity::Latency {
                bail!("UDP is for latency: it may lose what is sent faster than it is received");
            }
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(server)?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            let mut message = vec![1; request.size as usize];
            one_by_one(request.messages, &mut || datagram_there_and_back(&socket, &mut message))
        }
    }
}

/// A datagram that is lost is sent again, which costs its exchange the time that it was waited for.
fn datagram_there_and_back(socket: &UdpSocket, message: &mut [u8]) -> anyhow::Result<()> {
    let deadline = Instant::now() + SILENCE;
    while Instant::now() < deadline {
        socket.send(message)?;
        match socket.recv(message) {
            Ok(_) => return Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("no datagram came back for {SILENCE:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_both_protocols_are_served() {
        let (ready, started) = std::sync::mpsc::channel();
        // It ends with the test's process.
        std::thread::spawn(move || serve(0, |address| Ok(ready.send(address)?)));
        let port = started.recv().expect("a port").port();
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        for quantity in [Quantity::Latency, Quantity::Rate, Quantity::Bandwidth] {
            let request = Request { quantity, size: 100, messages: 10 };
            let sample = client(server, Protocol::Tcp, request).expect("served");
            assert!(sample.messages >= 10);
            assert!(!sample.time.is_zero());
        }
        let request = Request { quantity: Quantity::Latency, size: 100, messages: 10 };
        let sample = client(server, Protocol::Udp, request).expect("served");
        assert!(sample.messages >= 10 && sample.singles.len() as u64 == sample.messages);
        assert!(client(server, Protocol::Udp, Request { quantity: Quantity::Rate, ..request }).is_err());
    }
}
