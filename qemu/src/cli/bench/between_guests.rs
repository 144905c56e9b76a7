//! Benchmarks between two guests: their NICs beside an ordinary network.

use std::iter::repeat_n;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use vianic::Limit;
use vianic::agent::{ExecOptions, Process};
use vianic::fabric::{Fabric, FabricConfig};
use vianic::network;
use vianic_tools::bench::beside::Cores;
use vianic_tools::bench::cases::Effort;
use vianic_tools::bench::contestant::{Contestant, Quantity, Role, Sample};
use vianic_tools::bench::copies::Pool;
use vianic_tools::bench::result::CaseResult;
use vianic_tools::bench::ring::TokenRing;
use vianic_tools::bench::rounds::{Case, Rounds};
use vianic_tools::bench::statistics::{percentile, sorted};

use super::super::guests::Guests;
use super::super::pair;
use super::super::session::Session;
use super::{Benchmark, sizes};

/// Bytes of the messages.
const LATENCY_SIZES: [u32; 3] = [8, 64, 4096];
const BANDWIDTH_SIZES: [u32; 3] = [65_536, 262_144, 1 << 20];
/// Messages of a sample, one at a time.
const SINGLES: u32 = 300;
/// Bytes of a sample of bandwidth: the card's, and the much slower network's.
const CARD_BYTES: u32 = 64 << 20;
const NETWORK_BYTES: u32 = 4 << 20;
/// And no more messages than that.
const MOST_MESSAGES: u32 = 4096;
/// What fits into one UDP datagram.
const MOST_OF_A_DATAGRAM: u32 = 65_507;
/// Messages of a sample of the limit.
const LIMIT_MESSAGES: u32 = 200;
/// How long a guest may take to bring up its network, and a server to listen.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Where the sockets' server listens.
const PORT: &str = "7";

/// Boots two guests and measures latency and bandwidth, as far as they are wanted.
pub(super) fn measure(
    guests: &Guests,
    effort: Effort,
    benchmarks: &[Benchmark],
    sizes: &[u32],
) -> Result<Vec<CaseResult>> {
    let cores = Cores::take()?;
    let config = FabricConfig { network: true, ..guests.config(2, 1, None)? };
    let session = Session::new(guests.keep_logs.clone())?;
    session.launch(config).and_then(|fabric| {
        let outcome = session.unless_interrupted(&fabric, || {
            let _server = prepare(&fabric)?;
            let (all, rounds) = (effort.rounds, Rounds { rounds: effort.rounds, samples: 1, patience: None });
            let progress = |round| log::info!("measured round {round} of {all} between guests");
            rounds.run(cores, cases(&fabric, cores, benchmarks, sizes), progress)
        });
        session.finish(fabric, outcome)
    })
}

/// Makes sure of the NICs, brings up the network and starts the sockets' server.
fn prepare(fabric: &Fabric) -> Result<Process> {
    fabric.require_nics()?;
    let [_, second] = fabric.vms() else { bail!("there are two guests") };
    for (number, vm) in fabric.vms().iter().enumerate() {
        let options = ExecOptions { limit: READY_LIMIT, ..ExecOptions::default() };
        let output = vm.exec(&["sh", "-c", &network::commands(number)], &options)?;
        ensure!(output.status.success(), "{} has no network: {}", vm.name(), output.stderr());
    }
    let server = second.spawn(&["vip-bench", "serve-sockets", "--port", PORT], &ExecOptions::default())?;
    let limit = Limit::new("the server of sockets to listen", READY_LIMIT);
    second.explain(server.wait_for("listening", &limit))?;
    Ok(server)
}

fn cases<'a>(fabric: &'a Fabric, cores: Cores, benchmarks: &[Benchmark], asked: &[u32]) -> Vec<Case<'a>> {
    let case = |quantity, size, window, ways: &[Way]| {
        let limit = TokenRing::new(cores, quantity, window, LIMIT_MESSAGES);
        let limit = match quantity {
            Quantity::Bandwidth => limit.with_copies(Pool::new(size, window)),
            Quantity::Latency | Quantity::Rate => limit,
        };
        let mut contestants: Vec<Box<dyn Contestant + 'a>> = vec![Box::new(limit)];
        for way in ways {
            contestants.push(Box::new(Between { fabric, way: *way, quantity, size }));
        }
        Case { quantity, size, window, contestants }
    };
    let mut cases = Vec::new();
    if benchmarks.contains(&Benchmark::Latency) {
        let ways = [Way::Card("poll"), Way::Card("block"), Way::Sockets("tcp"), Way::Sockets("udp")];
        let ways = |size| if size <= MOST_OF_A_DATAGRAM { &ways[..] } else { &ways[..3] };
        let sizes = sizes(asked, &LATENCY_SIZES);
        cases.extend(sizes.into_iter().map(|size| case(Quantity::Latency, size, 1, ways(size))));
    }
    if benchmarks.contains(&Benchmark::Bandwidth) {
        let ways = [Way::Card("poll"), Way::Card("block"), Way::Sockets("tcp")];
        let sizes = sizes(asked, &BANDWIDTH_SIZES);
        cases.extend(sizes.into_iter().map(|size| case(Quantity::Bandwidth, size, 16, &ways)));
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

    /// The tools exchange messages that are not measured by themselves.
    fn warm_up(&mut self) -> Result<()> {
        Ok(())
    }

    fn sample(&mut self) -> Result<Sample> {
        let result = match self.way {
            Way::Card(wait) => self.between_cards(wait),
            Way::Sockets(protocol) => self.between_sockets(protocol),
        }?;
        sample_of(self.quantity, &result).with_context(|| format!("a tool printed {result}"))
    }
}

impl Between<'_> {
    fn between_cards(&self, wait: &str) -> Result<Value> {
        match self.quantity {
            Quantity::Latency => {
                let mut options = self.numbers("--iterations", SINGLES);
                options.push("--histogram".to_owned());
                pair::run(self.fabric, "vip-pingpong", wait, &options)
            }
            Quantity::Rate | Quantity::Bandwidth => {
                let messages = (CARD_BYTES / self.size).clamp(1, MOST_MESSAGES);
                pair::run(self.fabric, "vip-bw", wait, &self.numbers("--iterations", messages))
            }
        }
    }

    fn between_sockets(&self, protocol: &str) -> Result<Value> {
        let [first, _] = self.fabric.vms() else { bail!("there are two guests") };
        let (messages, quantity) = match self.quantity {
            Quantity::Latency => (SINGLES, "latency"),
            Quantity::Rate | Quantity::Bandwidth => {
                ((NETWORK_BYTES / self.size).clamp(4, MOST_MESSAGES), "bandwidth")
            }
        };
        let server = format!("{}:{PORT}", network::address(1));
        let mut client = ["vip-bench", "sockets", &server, protocol, quantity].map(str::to_owned).to_vec();
        client.extend(self.numbers("--messages", messages));
        let output = first.exec(&client, &pair::client_limit())?;
        ensure!(output.status.success(), "vip-bench failed: {}", output.stderr());
        pair::result(&output.stdout())
    }

    /// Options of a tool: the size of the messages, and how many.
    fn numbers(&self, how_many: &str, messages: u32) -> Vec<String> {
        ["--size".to_owned(), self.size.to_string(), how_many.to_owned(), messages.to_string()].to_vec()
    }
}

/// What a tool has measured. Latency is the median round trip, as one that the guests' kernels interrupt is no rarity.
fn sample_of(quantity: Quantity, result: &Value) -> Result<Sample> {
    match quantity {
        Quantity::Latency => {
            let counted: Vec<(u64, usize)> = Deserialize::deserialize(&result["round_trips_ns"])?;
            let singles: Vec<u64> =
                counted.into_iter().flat_map(|(single, times)| repeat_n(single, times)).collect();
            let median = percentile(&sorted(singles.iter().map(|single| *single as f64)), 50);
            let seconds = median.context("nothing was measured")? * singles.len() as f64 / 1e9;
            Ok(Sample {
                messages: singles.len() as u64,
                time: Duration::try_from_secs_f64(seconds)?,
                singles,
            })
        }
        Quantity::Rate | Quantity::Bandwidth => Ok(Sample {
            messages: Deserialize::deserialize(&result["messages"])?,
            time: Duration::try_from_secs_f64(Deserialize::deserialize(&result["seconds"])?)?,
            singles: Vec::new(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tools_say_what_they_have_measured() {
        let result = json!({ "round_trips_ns": [[1000, 2], [3000, 1], [9000, 2]] });
        let sample = sample_of(Quantity::Latency, &result).unwrap();
        assert_eq!(sample.singles, [1000, 1000, 3000, 9000, 9000]);
        assert_eq!((sample.messages, sample.time), (5, Duration::from_nanos(15_000)));
        let result = json!({ "messages": 4, "seconds": 0.5 });
        let sample = sample_of(Quantity::Bandwidth, &result).unwrap();
        assert_eq!((sample.messages, sample.time), (4, Duration::from_millis(500)));
        for nothing in [json!({}), json!({ "round_trips_ns": [] }), json!({ "messages": 4, "seconds": -1.0 })]
        {
            assert!(sample_of(Quantity::Latency, &nothing).is_err());
            assert!(sample_of(Quantity::Bandwidth, &nothing).is_err());
        }
    }
}
