//! UCX over shared memory: active messages and tags, as its own `ucx_perftest` measures them between two processes.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use vianic_images::Progress;
use vianic_tools::bench::beside::Cores;
use vianic_tools::bench::contestant::{Contestant, Quantity, Role, Sample};

use super::unpacked::Unpacked;

/// Messages of a run.
const LATENCY_MESSAGES: u32 = 10_000;
/// Bytes of a run, about.
const STREAM_BYTES: u64 = 32 << 20;
/// No run takes so long.
const LIMIT_SECONDS: &str = "60";
/// How long a server may take to listen.
const START: Duration = Duration::from_secs(10);

/// The program.
#[derive(Clone, Debug)]
pub struct Ucx {
    package: Unpacked,
}

/// A test of `ucx_perftest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Raw active messages of the transport, UCX's lower layer; small ones.
    RawActiveMessages,
    /// Active messages.
    ActiveMessages,
    /// Messages with tags, as MPI has them.
    Tags,
}

impl Ucx {
    /// Unpacks it from Debian's packages into the cache, unless it is there.
    ///
    /// # Errors
    /// If the packages cannot be had.
    pub fn provide(progress: Progress<'_>) -> anyhow::Result<Self> {
        // Debian 13's is built to be started by MPI.
        Ok(Self { package: Unpacked::provide("ucx-utils", "ucx", progress)? })
    }

    fn command(&self, port: u16) -> Command {
        let mut command = Command::new("timeout");
        let test = self.package.command("usr/bin/ucx_perftest");
        command.args(["--kill-after=5", LIMIT_SECONDS]).arg(test.get_program()).args(test.get_args());
        command.args(["-p", &port.to_string()]);
        command.env("UCX_TLS", "posix,self").env("UCX_WARN_UNUSED_ENV_VARS", "n");
        command.stdin(Stdio::null());
        command
    }

    fn serve(&self, port: u16) -> anyhow::Result<Server> {
        let mut command = self.command(port);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Server(command.spawn().context("cannot start ucx_perftest")?))
    }

    /// Runs a client; again while the server does not listen yet, which it has no way to say.
    fn ask(&self, port: u16, arguments: &[String]) -> anyhow::Result<String> {
        let deadline = Instant::now() + START;
        loop {
            let mut client = self.command(port);
            client.arg(Ipv4Addr::LOCALHOST.to_string()).args(arguments);
            let output = client.output().context("cannot start ucx_perftest")?;
            let text = String::from_utf8_lossy(&output.stdout);
            if output.status.success() {
                return Ok(text.into_owned());
            }
            if Instant::now() > deadline {
                let errors = String::from_utf8_lossy(&output.stderr);
                bail!("ucx_perftest failed ({}): {text}{errors}", output.status);
            }
        }
    }
}

/// A server; killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended by itself, if all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A test as a contestant.
pub struct UcxTest {
    ucx: Ucx,
    cores: Cores,
    test: Test,
    quantity: Quantity,
    size: u32,
}

impl UcxTest {
    /// A test of messages of `size` bytes. The window is UCX's own.
    #[must_use]
    pub fn new(ucx: &Ucx, cores: Cores, test: Test, quantity: Quantity, size: u32) -> Self {
        Self { ucx: ucx.clone(), cores, test, quantity, size }
    }

    fn arguments(&self) -> Vec<String> {
        let latency = self.quantity == Quantity::Latency;
        let words: &[&str] = match (self.test, latency) {
            (Test::RawActiveMessages, true) => &["-t", "am_lat", "-d", "memory", "-x", "posix"],
            (Test::RawActiveMessages, false) => &["-t", "am_bw", "-d", "memory", "-x", "posix"],
            (Test::ActiveMessages, true) => &["-t", "ucp_am_lat"],
            (Test::ActiveMessages, false) => &["-t", "ucp_am_bw"],
            (Test::Tags, true) => &["-t", "tag_lat"],
            (Test::Tags, false) => &["-t", "tag_bw"],
        };
        let messages = if latency {
            u64::from(LATENCY_MESSAGES)
        } else {
            (STREAM_BYTES / u64::from(self.size.max(1))).clamp(200, 20_000)
        };
        let mut arguments: Vec<String> = words.iter().map(ToString::to_string).collect();
        arguments.extend(["-s".into(), self.size.to_string(), "-n".into(), messages.to_string()]);
        arguments.extend(["-w".into(), (messages / 10).to_string(), "-v".into()]);
        arguments
    }
}

impl Contestant for UcxTest {
    fn name(&self) -> String {
        match self.test {
            Test::RawActiveMessages => "UCX, raw active messages".into(),
            Test::ActiveMessages => "UCX, active messages".into(),
            Test::Tags => "UCX, tags".into(),
        }
    }

    fn role(&self) -> Role {
        Role::Peer
    }

    /// A run takes half a second, most of it to start.
    fn samples(&self, most: u32) -> u32 {
        most.min(3)
    }

    fn sample(&mut self) -> anyhow::Result<Sample> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?.local_addr()?.port();
        // Processes stay on the core on which they are started.
        self.cores.device.pin()?;
        let server = self.ucx.serve(port);
        self.cores.application.pin()?;
        let _server = server?;
        let text = self.ucx.ask(port, &self.arguments())?;
        result(&text, self.quantity).with_context(|| format!("ucx_perftest printed {text:?}"))
    }
}

/// The last line of figures in CSV, below the line with their names.
fn result(text: &str, quantity: Quantity) -> anyhow::Result<Sample> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("iterations,"));
    let names: Vec<_> = lines.next().context("no line of names")?.split(',').collect();
    let figures: Vec<_> = lines
        .map(str::trim_start)
        .filter(|line| line.starts_with(|first: char| first.is_ascii_digit()))
        .last()
        .context("no line of figures")?
        .split(',')
        .collect();
    let figure = |wanted: &dyn Fn(&str) -> bool| -> anyhow::Result<f64> {
        let place = names.iter().position(|name| wanted(name)).context("a figure is missing")?;
        Ok(figures.get(place).context("a figure is missing")?.trim().parse()?)
    };
    let seconds = match quantity {
        // The median, in microseconds, of one way.
        Quantity::Latency => 2.0 * figure(&|name| name.contains("percentile"))? / 1e6,
        Quantity::Rate | Quantity::Bandwidth => 1.0 / figure(&|name| name == "overall_mr")?,
    };
    ensure!(seconds.is_finite() && seconds > 0.0, "{seconds} s for a message");
    // So many that nothing is lost to whole nanoseconds.
    const MESSAGES: u32 = 1_000_000;
    let time = Duration::from_secs_f64(seconds * f64::from(MESSAGES));
    Ok(Sample { messages: MESSAGES.into(), time, singles: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
iterations,50.0_percentile_lat,avg_lat,overall_lat,avg_bw,overall_bw,avg_mr,overall_mr
[thread 0]1776,0.182,419.195,419.195,0.15,0.15,2386,2386
 20000,0.103,0.141,0.141,431.52,431.52,7070045,7000000
";

    #[test]
    fn latencies_are_there_and_back() {
        let sample = result(OUTPUT, Quantity::Latency).expect("a result");
        assert!((Quantity::Latency.of(&sample, 64) - 206.0).abs() < 0.001);
    }

    #[test]
    fn rates_are_those_of_the_whole_run() {
        let sample = result(OUTPUT, Quantity::Rate).expect("a result");
        assert!((Quantity::Rate.of(&sample, 64) / 7e6 - 1.0).abs() < 1e-6);
        assert!((Quantity::Bandwidth.of(&sample, 64) / 448e6 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn what_is_no_result_is_an_error() {
        assert!(result("", Quantity::Rate).is_err());
        assert!(result("iterations,overall_mr\n", Quantity::Rate).is_err());
        assert!(result("iterations,overall_mr\n100,0\n", Quantity::Rate).is_err());
    }
}
