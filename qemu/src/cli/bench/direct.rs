//! Benchmarks over the direct link: this process on one core, the card on another.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vianic::address::Address;
use vianic::card::{Card, CardConfig};
use vianic::run_dir::RunDir;
use vianic::workspace;
use vianic_bench::scale::{self, NICS, Object, ScaleResult, Target};
use vianic_tools::bench::beside::Cores;
use vianic_tools::bench::cases::{self, Effort};
use vianic_tools::bench::result::CaseResult;
use vianic_tools::bench::rounds::{Case, Rounds};
use vianic_tools::cli::open_nic;
use vipl::Nic;

use super::peers::{Peer, Peers};
use super::{Benchmark, sizes};

/// The benchmarks, to be run.
pub(super) struct Direct {
    cores: Cores,
    rounds: Rounds,
    device: PathBuf,
}

impl Direct {
    /// Looks for two cores and the card's program.
    pub(super) fn new(effort: Effort, device: Option<&Path>) -> Result<Self> {
        Ok(Self { cores: Cores::take()?, rounds: effort.into(), device: workspace::device(device)? })
    }

    /// Measures latency, rate and bandwidth, as far as they are wanted.
    pub(super) fn cases(
        &self,
        benchmarks: &[Benchmark],
        sizes: &[u32],
        peers: &[Peer],
    ) -> Result<Vec<CaseResult>> {
        if benchmarks.iter().all(|benchmark| *benchmark == Benchmark::Scale) {
            return Ok(vec![]);
        }
        let peers = Peers::provide(peers, self.cores)?;
        self.with_card(1, |card| {
            let nic = open_nic(card.nics.first().context("the card has no socket")?)?;
            let mut cases = Vec::new();
            for benchmark in benchmarks {
                cases.extend(self.cases_of(*benchmark, sizes, &nic)?);
            }
            peers.join(&mut cases)?;
            let rounds = self.rounds.rounds;
            self.rounds.run(self.cores, cases, |round| log::info!("measured round {round} of {rounds}"))
        })
    }

    fn cases_of<'a>(&self, benchmark: Benchmark, asked: &[u32], nic: &'a Nic) -> Result<Vec<Case<'a>>> {
        let cores = self.cores;
        match benchmark {
            Benchmark::Latency => sizes(asked, &[8, 64, 256, 1024, 4096, 16_384, 65_536])
                .into_iter()
                .map(|size| cases::latency(nic, cores, size))
                .collect(),
            Benchmark::Rate => {
                [1, 16, 64, 256].into_iter().map(|window| cases::rate(nic, cores, 64, window)).collect()
            }
            Benchmark::Bandwidth => sizes(asked, &[4096, 16_384, 65_536, 262_144, 1 << 20])
                .into_iter()
                .map(|size| cases::bandwidth(nic, cores, size))
                .collect(),
            Benchmark::Scale => Ok(vec![]),
        }
    }

    /// Measures with many objects, a card process for each kind of them.
    pub(super) fn scale(&self, most: u32) -> Result<Vec<ScaleResult>> {
        let measure = |object: Object| {
            log::info!("measuring with many {}", object.name());
            let nics = if object == Object::Nics { NICS } else { 1 };
            self.with_card(nics, |card| scale::measure(object, card, self.cores, self.rounds, most))
        };
        Object::ALL.into_iter().map(measure).collect()
    }

    /// Starts a card with so many NICs on the other core, and stays on this one meanwhile.
    fn with_card<T>(&self, nics: usize, work: impl FnOnce(&Target) -> Result<T>) -> Result<T> {
        let run_dir = RunDir::new()?;
        let addresses = (0..u16::MAX).map(Address::nth).take(nics).collect();
        let config = CardConfig { program: self.device.clone(), addresses, arguments: vec![] };
        // Whatever is started from here stays where it is started.
        self.cores.device.pin()?;
        let card = Card::launch(&config, &run_dir)?;
        self.cores.application.pin()?;
        let nics = card.sockets().iter().map(|socket| format!("direct:{}", socket.display())).collect();
        let result = work(&Target { nics, pid: card.pid() })?;
        card.stop()?;
        self.cores.unpin()?;
        Ok(result)
    }
}
