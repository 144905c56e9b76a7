//! How a host begins a session.

use std::io::{self, Read, Write};

use crate::{Answer, Call, FrameError, FrameReader, FrameWriter, PROTOCOL_VERSION, Reply, Request};

/// Why no session could begin.
#[derive(Debug, thiserror::Error)]
pub enum GreetError {
    /// The stream failed, or its time-out passed.
    #[error("greeting the guest agent: {0}")]
    Io(#[from] io::Error),
    /// The stream ended.
    #[error("the guest closed the connection before its agent answered")]
    Closed,
    /// The agent in the image is of another version.
    #[error(
        "the guest agent speaks version {guest} of the protocol, this host version {PROTOCOL_VERSION}: \
         put the agent of this release into the image"
    )]
    Version {
        /// The guest's version.
        guest: u32,
    },
}

/// Begins a session. Whatever an earlier session left in the stream is dropped. May be called before the
/// guest has booted: it then waits, for as long as the stream's read time-out allows.
///
/// # Errors
/// If the stream fails or ends, or the agent is of another version.
pub fn greet<R: Read, W: Write>(
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
    session: u64,
) -> Result<(), GreetError> {
    writer.boundary()?;
    writer.write(&Call { id: 0, body: Request::Hello { version: PROTOCOL_VERSION, session } })?;
    loop {
        match reader.read::<Answer>() {
            Ok(Some(Answer { body: Reply::Hello { version, session: echoed }, .. })) if echoed == session => {
                if version != PROTOCOL_VERSION {
                    return Err(GreetError::Version { guest: version });
                }
                return Ok(());
            }
            // Left over from an earlier session.
            Ok(Some(_)) | Err(FrameError::Damaged(_) | FrameError::TooLong) => {}
            Ok(None) => return Err(GreetError::Closed),
            Err(FrameError::Io(error)) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(version: u32) -> Vec<u8> {
        let mut stream = b"the rest of a frame".to_vec();
        let mut writer = FrameWriter::new(&mut stream);
        writer.boundary().unwrap();
        writer.write(&Answer { id: 0, body: Reply::Hello { version, session: 1 } }).unwrap();
        writer.write(&Answer { id: 0, body: Reply::Hello { version, session: 2 } }).unwrap();
        writer.write(&Answer { id: 1, body: Reply::Pong }).unwrap();
        stream
    }

    #[test]
    fn leftovers_are_dropped() {
        let stream = answers(PROTOCOL_VERSION);
        let mut reader = FrameReader::new(stream.as_slice());
        greet(&mut reader, &mut FrameWriter::new(io::sink()), 2).unwrap();
        assert_eq!(reader.read().unwrap(), Some(Answer { id: 1, body: Reply::Pong }));
    }

    #[test]
    fn another_version_is_named() {
        let stream = answers(77);
        let mut reader = FrameReader::new(stream.as_slice());
        let error = greet(&mut reader, &mut FrameWriter::new(io::sink()), 2).unwrap_err();
        assert!(matches!(error, GreetError::Version { guest: 77 }));
    }

    #[test]
    fn a_closed_stream_is_told() {
        let mut reader = FrameReader::new(io::empty());
        let error = greet(&mut reader, &mut FrameWriter::new(io::sink()), 2).unwrap_err();
        assert!(matches!(error, GreetError::Closed));
    }
}
