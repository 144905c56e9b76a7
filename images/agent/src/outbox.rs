//! The way out: one stream that all tasks of a session write to.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use vianic_guest_agent::{Answer, FrameWriter, Reply};

/// The stream to the host, whoever that is at the time.
#[derive(Clone)]
pub(crate) struct Line {
    shared: Arc<Shared>,
}

struct Shared {
    writer: Mutex<FrameWriter<Box<dyn Write + Send>>>,
    /// Number of the session that may write. Not under the lock, so that a session can be ended while one of
    /// its tasks waits in a write.
    session: AtomicU64,
}

/// The session that this outbox belonged to is over.
#[derive(Debug)]
pub(crate) struct Closed;

impl Line {
    pub(crate) fn new(stream: impl Write + Send + 'static) -> Self {
        let writer = Mutex::new(FrameWriter::new(Box::new(stream) as Box<dyn Write + Send>));
        Self { shared: Arc::new(Shared { writer, session: AtomicU64::new(0) }) }
    }

    /// Ends the session before and begins another.
    pub(crate) fn next_session(&self) -> Outbox {
        let session = self.shared.session.fetch_add(1, Ordering::Relaxed) + 1;
        Outbox { line: self.clone(), session }
    }

    /// Ends the session: what its tasks still want to say is dropped.
    pub(crate) fn end_session(&self) {
        self.shared.session.fetch_add(1, Ordering::Relaxed);
    }

    /// Says something outside any session. A virtio-serial port takes it only once a host is connected, so
    /// this is also how to wait for one.
    pub(crate) fn say(&self, body: Option<Reply>) -> io::Result<()> {
        let mut writer = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.boundary()?;
        body.map_or(Ok(()), |body| writer.write(&Answer { id: 0, body }))
    }
}

/// What the tasks of one session write to.
#[derive(Clone)]
pub(crate) struct Outbox {
    line: Line,
    session: u64,
}

impl Outbox {
    /// Sends an answer; waits while the host doesn't read.
    pub(crate) fn send(&self, id: u32, body: Reply) -> Result<(), Closed> {
        let shared = &self.line.shared;
        let mut writer = shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.session.load(Ordering::Relaxed) != self.session {
            return Err(Closed);
        }
        writer.write(&Answer { id, body }).map_err(|_| Closed)
    }
}
