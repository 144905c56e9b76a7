//! One client of the control socket: lines in, lines out, never waiting for it.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use rustix::event::PollFlags;

/// Bytes a line may have.
const MAX_LINE: usize = 256;

/// A connected client.
#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    /// Bytes of a line that is not complete, or lines that wait until the answer before is sent.
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Client {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, input: Vec::new(), output: Vec::new() })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// What to wait for: room for the answer, or else the next line.
    pub(super) fn wants(&self) -> PollFlags {
        if self.output.is_empty() { PollFlags::IN } else { PollFlags::OUT }
    }

    /// Goes on with the client until it makes us wait. False when it is done with.
    pub(super) fn serve(&mut self, answer: impl Fn(&[u8]) -> Vec<u8>) -> bool {
        loop {
            let step = if self.output.is_empty() { self.read_line(&answer) } else { self.write() };
            match step {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    fn read_line(&mut self, answer: impl Fn(&[u8]) -> Vec<u8>) -> io::Result<bool> {
        if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            self.output = answer(&line);
            return Ok(true);
        }
        if self.input.len() >= MAX_LINE {
            return Ok(false);
        }
        let mut bytes = [0; MAX_LINE];
        let length = self.stream.read(&mut bytes)?;
        self.input.extend_from_slice(&bytes[..length]);
        Ok(length > 0)
    }

    fn write(&mut self) -> io::Result<bool> {
        let length = self.stream.write(&self.output)?;
        self.output.drain(..length);
        Ok(length > 0)
    }
}
