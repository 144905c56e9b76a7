//! Benchmarks between two guests: their NICs beside an ordinary network.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use vianic::Limit;
use vianic::agent::ExecOptions;
use vianic::fabric::{Fabric, FabricConfig};
use vianic::network;
use vianic_tools::bench::beside::Cores;
use vianic_tools::bench::cases::Effort;
use vianic_tools::bench::contestant::{Contestant, Quantity, Role, Sample};
use vianic_tools::bench::result::CaseResult;
use vianic_tools::bench::ring::TokenRing;
use vianic_tools::bench::rounds::{Case, Rounds};

use super::super::guests::Guests;
use super::super::pair;
use super::super::session::Session;
use super::Benchmark;

/// Bytes of the messages.
const LATENCY_SIZES: [u32; 3] = [8, 64, 4096];
const BANDWIDTH_SIZES: [u32; 3] = [4096, 65_536, 1 << 20];
/// Messages of a sample, one at a time.
const SINGLES: u32 = 300;
/// Bytes of a sample of bandwidth: the card's, and the much slower network's.
const CARD_BYTES: u32 = 64 << 20;
const NETWORK_BYTES: u32 = 4 << 20;
/// Messages of a sample of the limit.
const LIMIT_MESSAGES: u32 = 200;
/// How long a guest may take to bring up its network, and a server to listen.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Where the sockets' server listens.
const PORT: &str = "7";

/// Boots two guests and measures latency and bandwidth, as far as they are wanted.
pub(super) fn measure(guests: &Guests, effort: Effort, benchmarks: &[Benchmark]) -> Result<Vec<CaseResult>> {
    let cores = Cores::take()?;
    let config = FabricConfig { network: true, ..guests.config(2, 1, None)? };
    let session = Session::new(guests.keep_logs.clone())?;
    session.launch(config).and_then(|fabric| {
        let outcome = session.unless_interrupted(&fabric, || run(&fabric, cores, effort, benchmarks));
        session.finish(fabric, outcome)
    })
}

fn run(fabric: &Fabric, cores: Cores, effort: Effort, benchmarks: &[Benchmark]) -> Result<Vec<CaseResult>> {
    let [_, second] = fabric.vms() else { bail!("there are two guests") };
    for (number, vm) in fabric.vms().iter().enumerate() {
        let options = ExecOptions { limit: READY_LIMIT, ..ExecOptions::default() };
        let output = vm.exec(&["sh", "-c", &network::commands(number)], &options)?;
        ensure!(output.status.success(), "{} has no network: {}", vm.name(), output.stderr());
    }
    let server = second.spawn(&["vip-bench", "serve-sockets", "--port", PORT], &ExecOptions::default())?;
    let limit = Limit::new("the server of sockets to listen", READY_LIMIT);
    second.explain(server.wait_for("listening", &limit))?;

    let cases = cases(fabric, cores, benchmarks);
    let (all, rounds) = (effort.rounds, Rounds { rounds: effort.rounds, samples: 1 });
    rounds.run(cores, cases, |round| log::info!("measured round {round} of {all} between guests"))
}

fn cases<'a>(fabric: &'a Fabric, cores: Cores, benchmarks: &[Benchmark]) -> Vec<Case<'a>> {
    let case = |quantity, size, window, ways: &[Way]| {
        let limit = TokenRing::new(cores, quantity, window, LIMIT_MESSAGES);
        let mut contestants: Vec<Box<dyn Contestant + 'a>> = vec![Box::new(limit)];
        for way in ways {
            contestants.push(Box::new(Between { fabric, way: *way, quantity, size }));
        }
        Case { quantity, size, window, contestants }
    };
    let mut cases = Vec::new();
    if benchmarks.contains(&Benchmark::Latency) {
        let ways = [Way::Card("poll"), Way::Card("block"), Way::Sockets("tcp"), Way::Sockets("udp")];
        cases.extend(LATENCY_SIZES.map(|size| case(Quantity::Latency, size, 1, &ways)));
    }
    if benchmarks.contains(&Benchmark::Bandwidth) {
        let ways = [Way::Card("poll"), Way::Card("block"), Way::Sockets("tcp")];
        cases.extend(BANDWIDTH_SIZES.map(|size| case(Quantity::Bandwidth, size, 16, &ways)));
    }
    cases
}

/// How messages go from one guest to the other.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// By their cards; completions are waited for in this way.
    Card(&'static str),
    /// By sockets of this protocol, over virtio-net.
    Sockets(&'static str),
}

/// One way as a contestant.
struct Between<'a> {
    fabric: &'a Fabric,
    way: Way,
    quantity: Quantity,
    size: u32,
}

impl Contestant for Between<'_> {
    fn name(&self) -> String {
        match self.way {
            Way::Card("poll") => "card, polling".to_owned(),
            Way::Card(_) => "card, blocking".to_owned(),
            Way::Sockets(protocol) => format!("{} over virtio-net", protocol.to_uppercase()),
        }
    }

    fn role(&self) -> Role {
        match self.way {
            Way::Card(_) => Role::Card,
            Way::Sockets(_) => Role::Peer,
        }
    }

    fn sample(&mut self) -> Result<Sample> {
        let words = |words: &[(&str, u32)]| -> Vec<String> {
            words.iter().flat_map(|(name, number)| [(*name).to_owned(), number.to_string()]).collect()
        };
        match (self.way, self.quantity) {
            (Way::Card(wait), Quantity::Latency) => {
                let options = words(&[("--size", self.size), ("--iterations", SINGLES)]);
                let result = pair::run(self.fabric, "vip-pingpong", wait, &options)?;
                // The tool's figures are for one way.
                let seconds = 2.0 * number(&result["latency_us"]["p50"])? / 1e6;
                Ok(sample(SINGLES, seconds))
            }
            (Way::Card(wait), _) => {
                let messages = (CARD_BYTES / self.size).min(4096);
                let options = words(&[("--size", self.size), ("--iterations", messages)]);
                let result = pair::run(self.fabric, "vip-bw", wait, &options)?;
                Ok(sample(messages, 1.0 / number(&result["messages_per_second"])?))
            }
            (Way::Sockets(protocol), quantity) => {
                let [first, _] = self.fabric.vms() else { bail!("there are two guests") };
                let (messages, name) = match quantity {
                    Quantity::Latency => (SINGLES, "latency"),
                    Quantity::Rate | Quantity::Bandwidth => ((NETWORK_BYTES / self.size).max(4), "bandwidth"),
                };
                let server = format!("{}:{PORT}", network::address(1));
                let mut client: Vec<_> =
                    ["vip-bench", "sockets", &server, protocol, name].map(str::to_owned).to_vec();
                client.extend(words(&[("--size", self.size), ("--messages", messages)]));
                let output = first.exec(&client, &pair::client_limit())?;
                ensure!(output.status.success(), "vip-bench failed: {}", output.stderr());
                let result = pair::result(&output.stdout())?;
                let seconds = match quantity {
                    Quantity::Latency => number(&result["p50_ns"])? / 1e9,
                    Quantity::Rate | Quantity::Bandwidth => number(&result["seconds"])? / f64::from(messages),
                };
                Ok(sample(messages, seconds))
            }
        }
    }
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("{value} is not a number"))
}

/// A sample of messages of which each took so many seconds.
fn sample(messages: u32, seconds: f64) -> Sample {
    let time = Duration::from_secs_f64((seconds * f64::from(messages)).clamp(0.0, 1e6));
    Sample { messages: messages.into(), time, singles: Vec::new() }
}
