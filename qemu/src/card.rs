//! The card process: `vianic-device`, one NIC for each of its sockets, all on one switch.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::address::Address;
use crate::child::Child;
use crate::error::{CardFailure, Error, Result};
use crate::limit::Limit;
use crate::log_tail;
use crate::run_dir::RunDir;

const READY_LIMIT: Duration = Duration::from_secs(60);
const STATS_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How the card process is started.
#[derive(Debug, Clone)]
pub struct CardConfig {
    /// The `vianic-device` binary.
    pub program: PathBuf,
    /// One NIC with each of these addresses.
    pub addresses: Vec<Address>,
    /// More arguments.
    pub arguments: Vec<String>,
}

/// A running card process. Dropping it kills it.
#[derive(Debug)]
pub struct Card {
    child: Child,
    sockets: Vec<PathBuf>,
    stats: PathBuf,
    log: PathBuf,
    log_writer: Option<JoinHandle<()>>,
    /// Whether we ended it ourselves.
    wanted: Arc<AtomicBool>,
}

impl Card {
    /// Starts it and waits until every NIC's socket can be connected to.
    pub fn launch(config: &CardConfig, run_dir: &RunDir) -> Result<Self> {
        let stats = run_dir.socket("stats.sock")?;
        let log = run_dir.file("card.log");
        let mut command = Command::new(&config.program);
        let mut sockets = Vec::new();
        for (index, address) in config.addresses.iter().enumerate() {
            let socket = run_dir.socket(&format!("nic{index}.sock"))?;
            command.arg("--socket-path").arg(&socket).arg("--address").arg(address.to_string());
            sockets.push(socket);
        }
        command.arg("--stats-path").arg(&stats).args(&config.arguments);
        // Its readiness is said at level info.
        command.env("RUST_LOG", std::env::var_os("VIANIC_DEVICE_LOG").unwrap_or_else(|| "info".into()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());

        let file = File::create(&log).map_err(Error::io(format!("write {}", log.display())))?;
        let mut child = Child::spawn("vianic-device", command)?;
        let stderr = child.stderr().ok_or(Error::CardOutput)?;
        let (sender, lines) = mpsc::channel();
        let log_writer = Some(std::thread::spawn(move || copy_lines(stderr, file, &sender)));
        let wanted = Arc::default();
        let mut card = Self { child, sockets, stats, log, log_writer, wanted };
        match card.wait_ready(&lines) {
            Ok(()) => Ok(card),
            Err(reason) => Err(card.failure(reason)),
        }
    }

    /// The sockets, one for each NIC.
    pub fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Where its log is.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What the card has counted, for each NIC.
    pub fn stats(&self) -> Result<Value> {
        self.query("stats")
    }

    /// The faults of each NIC's link: the plan and what was done, or `null`.
    pub fn faults(&self) -> Result<Value> {
        self.query("faults")
    }

    /// Gives the links of all NICs a plan of faults, as `vianic-device --faults` takes it, or makes them sound (`off`).
    /// It holds for what is sent from now on.
    pub fn set_faults(&self, plan: &str) -> Result<()> {
        self.query(&format!("faults {plan}")).map(drop)
    }

    /// As [`Card::set_faults`], for the link of one NIC.
    pub fn set_faults_of(&self, nic: &Address, plan: &str) -> Result<()> {
        self.query(&format!("faults {nic} {plan}")).map(drop)
    }

    /// Sends one line to the control socket and returns the JSON document that it answers.
    pub fn query(&self, line: &str) -> Result<Value> {
        let failed = || Error::io(format!("ask the card for its {line}"));
        let mut stream = UnixStream::connect(&self.stats).map_err(failed())?;
        stream.set_read_timeout(Some(STATS_LIMIT)).map_err(failed())?;
        stream.set_write_timeout(Some(STATS_LIMIT)).map_err(failed())?;
        stream.write_all(format!("{line}\n").as_bytes()).map_err(failed())?;
        // The connection may stay open for more questions: one document is the answer.
        match serde_json::Deserializer::from_reader(BufReader::new(stream)).into_iter().next() {
            Some(Ok(Value::Object(answer))) if answer.contains_key("error") => {
                Err(Error::CardRefused(answer["error"].as_str().unwrap_or_default().to_owned()))
            }
            Some(Ok(document)) => Ok(document),
            Some(Err(error)) => Err(Error::BadStats(error.to_string())),
            None => Err(Error::BadStats("the card closed the connection".to_owned())),
        }
    }

    /// Asks it to end and waits for that. Its guests must have ended before.
    pub fn stop(mut self) -> Result<()> {
        self.wanted.store(true, Ordering::Relaxed);
        let limit = Limit::new("vianic-device to end after SIGTERM", STOP_LIMIT);
        let status = self.child.terminate().and_then(|()| self.child.wait(&limit));
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                let name = "vianic-device".to_owned();
                Err(self.failure(Error::EndedEarly { name, status: status.to_string() }))
            }
            Err(reason) => Err(self.failure(reason)),
        }
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.wanted.store(true, Ordering::Relaxed);
        self.child.kill().map(drop)
    }

    /// Has `action` called if it ends by itself: it never should.
    pub(crate) fn on_unwanted_end(&self, action: impl FnOnce() + Send + 'static) -> Result<()> {
        let end = self.child.end()?;
        let wanted = Arc::clone(&self.wanted);
        std::thread::spawn(move || {
            let limit = Limit::new("the card process to end", Duration::MAX);
            if end.wait(&limit).is_ok() && !wanted.load(Ordering::Relaxed) {
                action();
            }
        });
        Ok(())
    }

    fn wait_ready(&mut self, lines: &Receiver<String>) -> Result<()> {
        let limit = Limit::new("vianic-device to listen on its sockets", READY_LIMIT);
        let mut expected: Vec<_> =
            self.sockets.iter().map(|socket| format!("listening on {}", socket.display())).collect();
        while !expected.is_empty() {
            match lines.recv_timeout(limit.remaining()?) {
                Ok(line) => expected.retain(|wanted| !line.trim_end().ends_with(wanted.as_str())),
                Err(RecvTimeoutError::Timeout) => return Err(limit.timed_out().into()),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait(&limit)?.to_string();
                    return Err(Error::EndedEarly { name: "vianic-device".to_owned(), status });
                }
            }
        }
        Ok(())
    }

    /// Ends it and reports with its complete log.
    fn failure(&mut self, reason: Error) -> Error {
        let command_line = self.child.command_line().to_owned();
        if let Err(error) = self.child.kill() {
            log::warn!("{error}");
        }
        if let Some(writer) = self.log_writer.take() {
            // It ends with the pipe, and a panic in it would lose nothing but log lines.
            let _ = writer.join();
        }
        Error::Card(Box::new(CardFailure { reason, command_line, log: log_tail::of(&self.log) }))
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.wanted.store(true, Ordering::Relaxed);
    }
}

/// Copies lines to the log and, while somebody waits for readiness, to the channel.
fn copy_lines(from: ChildStderr, mut log: File, lines: &Sender<String>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A bound on what one line may take, whatever the process writes.
        match from.by_ref().take(64 * 1024).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if let Err(error) = log.write_all(&line) {
            log::warn!("writing the card's log: {error}");
        }
        // Nobody listens any more once the card is ready.
        let _ = lines.send(String::from_utf8_lossy(&line).into_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A stand-in for the card: a shell script.
    fn launch(script: &str, run_dir: &RunDir) -> Result<Card> {
        let program = run_dir.file("device.sh");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let addresses = vec![Address::nth(0), Address::nth(1)];
        Card::launch(&CardConfig { program, addresses, arguments: vec![] }, run_dir)
    }

    #[test]
    fn readiness_is_awaited_and_the_end_is_clean() {
        let run_dir = RunDir::new().unwrap();
        // Once it says that it listens, it may be told to end.
        let script = r#"sleep 1000 &
            trap 'kill $!; exit 0' TERM
            for word; do case $word in *nic*.sock) echo "INFO listening on $word" >&2;; esac; done
            wait"#;
        let card = launch(script, &run_dir).unwrap();
        assert_eq!(card.sockets().len(), 2);
        card.stop().unwrap();
    }

    #[test]
    fn an_early_end_is_reported_with_the_log() {
        let run_dir = RunDir::new().unwrap();
        let error = launch("echo no memory left >&2; exit 4", &run_dir).unwrap_err().to_string();
        assert!(error.contains("vianic-device ended early (exit status: 4)"), "{error}");
        assert!(error.contains("no memory left"), "{error}");
        assert!(error.contains("02:56:49:41:00:02"), "{error}");
    }
}
