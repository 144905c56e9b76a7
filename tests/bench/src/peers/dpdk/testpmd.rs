//! A `testpmd` that runs, and is spoken to at its prompt.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use vianic_tools::bench::beside::Core;

use crate::peers::unpacked::Unpacked;

const PROMPT: &str = "testpmd> ";
/// What it prints when the other end has connected and its rings are ready.
const LINK: &str = "link state change event";
/// How long an answer may take. It takes a second to start, milliseconds else.
const LIMIT: Duration = Duration::from_secs(20);
/// The drivers that are needed; all others would look for devices. The numbers are those of Debian 12's DPDK.
const DRIVERS: &str = "dpdk/pmds-23.0";
/// A bus for virtual devices, memory for packets.
const COMMON: [&str; 2] = ["librte_bus_vdev.so.23", "librte_mempool_ring.so.23"];
/// MiB of memory and packets in it: more than rings and caches hold.
const MEMORY: &str = "64";
const PACKETS: &str = "2048";
/// Lines of what it said before it failed.
const LAST_WORDS: usize = 8;

/// One end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The application's: has the memory and posts to virtqueues.
    Virtio,
    /// The device's: takes from and completes to them.
    Vhost,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::Vhost => "vhost",
        }
    }

    fn driver(self) -> &'static str {
        match self {
            Self::Virtio => "librte_net_virtio.so.23",
            Self::Vhost => "librte_net_vhost.so.23",
        }
    }

    fn device(self, socket: &str) -> String {
        match self {
            Self::Virtio => format!("net_virtio_user0,path={socket}"),
            Self::Vhost => format!("net_vhost0,iface={socket}"),
        }
    }
}

/// A process; killed when dropped. It ends by itself when its standard input is closed.
pub(super) struct Testpmd {
    end: End,
    child: Child,
    commands: ChildStdin,
    /// Its standard output. It would keep most of it to itself if that were a pipe.
    terminal: File,
    /// What it has printed since, if that was read together with what was waited for.
    printed: String,
    /// Its standard error: logs, at any time.
    log: PathBuf,
}

impl Testpmd {
    /// Starts an end on a core; its socket is in `folder`. It takes neither huge pages nor root, and looks for no hardware.
    ///
    /// # Errors
    /// If it doesn't run.
    pub(super) fn start(package: &Unpacked, folder: &Path, end: End, core: Core) -> anyhow::Result<Self> {
        let name = end.name();
        let socket = folder.join("socket");
        let drivers = package.libraries().join(DRIVERS);
        let core = core.number();

        let mut command = package.command("usr/bin/dpdk-testpmd");
        for driver in COMMON.iter().chain([&end.driver()]) {
            command.arg("-d").arg(drivers.join(driver));
        }
        // One thread for the prompt, which sleeps, and one to forward packets.
        command.args(["--lcores", &format!("(0,1)@{core}")]);
        command.args(["--no-huge", "-m", MEMORY, "--no-pci", "--no-telemetry", "--no-shconf"]);
        command.args(["--file-prefix", name]).arg("--vdev").arg(end.device(&socket.to_string_lossy()));
        command.args(["--", "--interactive", "--forward-mode=io", "--port-topology=loop"]);
        command.args(["--total-num-mbufs", PACKETS]);
        // Where it makes a folder of its own.
        command.env("XDG_RUNTIME_DIR", folder);
        Self::spawn(command, end, folder.join(format!("{name}.log")))
    }

    /// Starts a command, and waits for its prompt.
    fn spawn(mut command: Command, end: End, log: PathBuf) -> anyhow::Result<Self> {
        let (terminal, output) = terminal().context("no terminal")?;
        let errors = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::piped()).stdout(output).stderr(errors);
        let mut child = command.spawn().context("cannot start testpmd")?;
        // The command has the other side of the terminal, whose end is seen once nobody has it any more.
        drop(command);
        let commands = child.stdin.take().context("testpmd has no standard input")?;
        let mut testpmd = Self { end, child, commands, terminal, printed: String::new(), log };
        testpmd.read_until(PROMPT)?;
        Ok(testpmd)
    }

    /// Gives a command and waits for the prompt after it. Returns what it printed in between.
    ///
    /// # Errors
    /// If it has ended, or is silent.
    pub(super) fn say(&mut self, command: &str) -> anyhow::Result<String> {
        if let Err(error) = writeln!(self.commands, "{command}") {
            bail!(self.failure(&format!("did not take {command:?} ({error})")));
        }
        self.read_until(PROMPT).with_context(|| format!("after {command:?}"))
    }

    /// Waits until the other end has connected.
    ///
    /// # Errors
    /// If it doesn't.
    pub(super) fn await_link(&mut self) -> anyhow::Result<()> {
        self.read_until(LINK).map(drop)
    }

    /// What it prints before these words, which it must print.
    fn read_until(&mut self, words: &str) -> anyhow::Result<String> {
        let deadline = Instant::now() + LIMIT;
        let mut buffer = [0; 4096];
        loop {
            if let Some((before, after)) = self.printed.split_once(words) {
                let (before, after) = (before.to_owned(), after.to_owned());
                self.printed = after;
                return Ok(before);
            }
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))?;
            match poll(&mut [PollFd::new(&self.terminal, PollFlags::IN)], Some(&left)) {
                Ok(0) => bail!(self.failure(&format!("did not answer for {LIMIT:?}"))),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error).context("cannot wait for testpmd"),
            }
            match self.terminal.read(&mut buffer) {
                Ok(length) if length > 0 => self.printed += &String::from_utf8_lossy(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A terminal that nobody has any more is an error to read.
                _ => bail!(self.failure("ended")),
            }
        }
    }

    /// What is to be said when it does not work.
    fn failure(&self, what: &str) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        failure(self.end.name(), what, &String::from_utf8_lossy(&log))
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A terminal: our side, and the program's.
fn terminal() -> rustix::io::Result<(File, Stdio)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let programs = ioctl_tiocgptpeer(&ours, flags)?;
    Ok((ours.into(), programs.into()))
}

/// The end of a log, and what can be done.
fn failure(end: &str, what: &str, log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n");
    let advice = if last.contains("world-writable") {
        "DPDK takes no drivers from folders that everybody may write: set VIANIC_CACHE to another one"
    } else {
        "leave dpdk out of --peers to measure without it"
    };
    format!("DPDK's testpmd ({end}) {what}; {advice}. Its last words:\n{last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a shell script in place of the program.
    fn start(folder: &Path, script: &str) -> anyhow::Result<Testpmd> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Testpmd::spawn(command, End::Vhost, folder.join("log"))
    }

    #[test]
    fn answers_are_what_is_printed_before_the_next_prompt() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let script = "printf 'testpmd> '; while read -r word; do echo log >&2; echo \"said $word\"; printf 'testpmd> '; done";
        let mut testpmd = start(folder.path(), script)?;
        assert_eq!(testpmd.say("one")?, "said one\r\n");
        assert_eq!(testpmd.say("two")?, "said two\r\n");
        Ok(())
    }

    #[test]
    fn a_link_that_comes_up_at_any_time_is_seen() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let script = "printf 'testpmd> '; echo; echo 'Port 0: link state change event'; read -r word; printf 'testpmd> '";
        let mut testpmd = start(folder.path(), script)?;
        testpmd.await_link()?;
        assert_eq!(testpmd.say("start")?, "\r\n");
        Ok(())
    }

    #[test]
    fn whoever_ends_has_last_words() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let Err(error) = start(folder.path(), "echo 'EAL: no memory' >&2; exit 1") else {
            bail!("it has ended");
        };
        assert!(error.to_string().contains("EAL: no memory"), "{error:#}");
        let mut testpmd = start(folder.path(), "printf 'testpmd> '; read -r word; echo 'EAL: killed' >&2")?;
        let Err(error) = testpmd.say("start") else {
            bail!("it has ended");
        };
        assert!(format!("{error:#}").contains("EAL: killed"), "{error:#}");
        Ok(())
    }

    #[test]
    fn failures_say_what_to_do() {
        let log =
            "EAL: Detected NUMA nodes: 1\n\nEAL: Error, directory path /tmp is world-writable and insecure\n";
        let text = failure("vhost", "ended", log);
        assert!(text.contains("VIANIC_CACHE") && text.contains("path /tmp"), "{text}");
        let text = failure("vhost", "ended", &"EAL: Cannot allocate memory\n".repeat(100));
        assert!(text.contains("leave dpdk out of --peers") && text.lines().count() < 10, "{text}");
    }
}
