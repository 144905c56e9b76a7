//! Frames: postcard messages in COBS, so that a zero byte is the boundary and nothing else. A stream that was
//! cut in mid-frame is in step again after the next zero byte.

use std::io::{self, BufRead, BufReader, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

use crate::MAX_CHUNK;

/// Longest frame accepted: a full chunk, its COBS overhead and room for the rest of the message.
const MAX_FRAME: usize = MAX_CHUNK * 2;

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream failed.
    #[error("reading from the other end: {0}")]
    Io(#[from] io::Error),
    /// A frame was cut short or isn't of this protocol. Reading can go on with the next one.
    #[error("a damaged frame: {0}")]
    Damaged(postcard::Error),
    /// A frame is longer than any of this protocol. Reading can go on with the next one.
    #[error("a frame of more than {MAX_FRAME} bytes")]
    TooLong,
}

/// Reads messages from a byte stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: BufReader<R>,
    frame: Vec<u8>,
    too_long: bool,
}

impl<R: Read> FrameReader<R> {
    /// Reads from `stream`.
    pub fn new(stream: R) -> Self {
        Self { stream: BufReader::with_capacity(MAX_CHUNK, stream), frame: Vec::new(), too_long: false }
    }

    /// The next message; `None` at the end of the stream. After a time-out of the stream, call again: nothing
    /// is lost.
    ///
    /// # Errors
    /// If the stream fails, or with the first damaged frame.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        loop {
            let complete = match self.fill() {
                Ok(complete) => complete,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let too_long = std::mem::take(&mut self.too_long);
            if !complete {
                self.frame.clear();
                return Ok(None);
            }
            if too_long {
                self.frame.clear();
                return Err(FrameError::TooLong);
            }
            if self.frame.is_empty() {
                continue;
            }
            let message = postcard::from_bytes_cobs(&mut self.frame);
            self.frame.clear();
            return message.map(Some).map_err(FrameError::Damaged);
        }
    }

    /// Collects one frame; false if the stream has ended instead.
    fn fill(&mut self) -> io::Result<bool> {
        loop {
            let available = self.stream.fill_buf()?;
            if available.is_empty() {
                return Ok(false);
            }
            let end = available.iter().position(|byte| *byte == 0);
            let part = end.unwrap_or(available.len());
            if self.frame.len() + part > MAX_FRAME {
                self.too_long = true;
                self.frame.clear();
            } else if !self.too_long {
                self.frame.extend_from_slice(&available[..part]);
            }
            self.stream.consume(part + usize::from(end.is_some()));
            if end.is_some() {
                return Ok(true);
            }
        }
    }
}

/// Writes messages to a byte stream.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
}

impl<W: Write> FrameWriter<W> {
    /// Writes to `stream`.
    pub fn new(stream: W) -> Self {
        Self { stream }
    }

    /// Writes one message.
    ///
    /// # Errors
    /// If the stream fails.
    pub fn write<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let frame = postcard::to_stdvec_cobs(message).map_err(io::Error::other)?;
        self.stream.write_all(&frame)?;
        self.stream.flush()
    }

    /// The stream itself.
    pub fn into_inner(self) -> W {
        self.stream
    }

    /// Writes a frame boundary: whatever was cut off before it can't swallow what comes after.
    ///
    /// # Errors
    /// If the stream fails.
    pub fn boundary(&mut self) -> io::Result<()> {
        self.stream.write_all(&[0])?;
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Call, Reply, Request, Stream};

    fn encode(call: &Call) -> Vec<u8> {
        let mut bytes = Vec::new();
        FrameWriter::new(&mut bytes).write(call).unwrap();
        bytes
    }

    #[test]
    fn messages_come_back_in_order() {
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes);
        let answers = [
            Answer { id: 0, body: Reply::Booted },
            Answer { id: 7, body: Reply::Output(Stream::Stderr, vec![0; MAX_CHUNK]) },
            Answer { id: 7, body: Reply::Output(Stream::Stdout, vec![0xff; MAX_CHUNK]) },
            Answer { id: u32::MAX, body: Reply::Failed { errno: Some(2), message: "no".into() } },
        ];
        for answer in &answers {
            writer.write(answer).unwrap();
        }
        let mut reader = FrameReader::new(bytes.as_slice());
        for answer in answers {
            assert_eq!(reader.read::<Answer>().unwrap(), Some(answer));
        }
        assert_eq!(reader.read::<Answer>().unwrap(), None);
    }

    #[test]
    fn a_cut_frame_never_passes_and_never_hides_the_next() {
        let cut = Call { id: 300, body: Request::Data(b"rm\0-rf\0\0/ and more".to_vec()) };
        let next = Call { id: 1, body: Request::Hello { version: 1, session: 0 } };
        let whole = encode(&cut);
        for length in 0..whole.len() - 1 {
            let mut bytes = whole[..length].to_vec();
            bytes.push(0);
            bytes.extend(encode(&next));
            let mut reader = FrameReader::new(bytes.as_slice());
            if length > 0 {
                assert!(matches!(reader.read::<Call>(), Err(FrameError::Damaged(_))), "cut at {length}");
            }
            assert_eq!(reader.read::<Call>().unwrap(), Some(next.clone()), "cut at {length}");
        }
    }

    #[test]
    fn an_endless_frame_is_not_kept() {
        let mut bytes = vec![1; 10 * MAX_FRAME];
        bytes.push(0);
        bytes.extend(encode(&Call { id: 1, body: Request::Ping }));
        let mut reader = FrameReader::new(bytes.as_slice());
        assert!(matches!(reader.read::<Call>(), Err(FrameError::TooLong)));
        assert_eq!(reader.read::<Call>().unwrap(), Some(Call { id: 1, body: Request::Ping }));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(0u8..4, 0..200)) {
            let mut reader = FrameReader::new(bytes.as_slice());
            while !matches!(reader.read::<Call>(), Ok(None)) {}
        }

        #[test]
        fn any_chunk_comes_back(data in proptest::collection::vec(proptest::num::u8::ANY, 0..2000)) {
            let call = Call { id: 5, body: Request::Data(data) };
            let bytes = encode(&call);
            proptest::prop_assert_eq!(FrameReader::new(bytes.as_slice()).read::<Call>().unwrap(), Some(call));
        }
    }
}
