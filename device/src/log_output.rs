//! Where log lines go: standard error, through a thread of its own, so that a log that nobody reads stops no card.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

/// Lines that may wait for whoever reads the log.
const MAX_WAITING: usize = 1024;

enum Message {
    Lines(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The log's writer.
pub(crate) struct LogOutput {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

/// Waits for the log at the end.
pub(crate) struct LogFlush(SyncSender<Message>);

/// Starts the thread that writes the log.
pub(crate) fn start() -> io::Result<(LogOutput, LogFlush)> {
    let (queue, messages) = mpsc::sync_channel(MAX_WAITING);
    let lost = Arc::new(AtomicU64::new(0));
    let lost_lines = lost.clone();
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_all(&messages, &lost_lines, &mut io::stderr()))?;
    Ok((LogOutput { queue: queue.clone(), lost }, LogFlush(queue)))
}

fn write_all(messages: &Receiver<Message>, lost: &AtomicU64, out: &mut impl Write) {
    for message in messages {
        match message {
            Message::Lines(lines) => {
                // A closed or full log is no reason to stop, and there is nowhere to say so.
                let _ = out.write_all(&lines);
                let left_out = lost.swap(0, Ordering::Relaxed);
                if left_out > 0 {
                    let _ = writeln!(out, "{left_out} log lines were lost: the log was not read fast enough");
                }
            }
            Message::Flush(done) => {
                let _ = done.try_send(());
            }
        }
    }
}

impl Write for LogOutput {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Message::Lines(lines.to_owned())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogFlush {
    /// Waits until what has been logged is written, at most for `limit`.
    pub(crate) fn flush(&self, limit: Duration) {
        let (done, written) = mpsc::sync_channel(1);
        if self.0.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_nobody_reads_loses_lines_and_counts_them() {
        let (queue, messages) = mpsc::sync_channel(2);
        let mut output = LogOutput { queue, lost: Arc::default() };
        for _ in 0..5 {
            output.write_all(b"line\n").expect("never fails");
        }
        let lost = output.lost.clone();
        drop(output);
        let mut written = Vec::new();
        write_all(&messages, &lost, &mut written);
        let written = String::from_utf8(written).expect("text");
        assert_eq!(written, "line\n3 log lines were lost: the log was not read fast enough\nline\n");
    }
}
