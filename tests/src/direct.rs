//! The card without guests, for the direct link.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use vianic::address::Address;
use vianic::card::{Card, CardConfig};
use vianic::limit::Limit;
use vianic::run_dir::RunDir;

use crate::{artifacts, program};

/// How long a counter may take to get somewhere.
const COUNTER_LIMIT: Duration = Duration::from_secs(120);

/// A card process whose NICs are opened as `direct:SOCKET`. Keeps its log if it is dropped before
/// [`DirectCards::stop`].
#[derive(Debug)]
pub struct DirectCards {
    test: &'static str,
    run_dir: RunDir,
    addresses: Vec<Address>,
    /// Present until `stop`.
    card: Option<Card>,
}

impl DirectCards {
    /// Starts a card process with so many NICs on one switch.
    ///
    /// # Errors
    /// If it does not start.
    pub fn launch(test: &'static str, nics: u16) -> Result<Self> {
        let run_dir = RunDir::new()?;
        let addresses: Vec<Address> = (0..nics).map(Address::nth).collect();
        let config =
            CardConfig { program: program::device()?, addresses: addresses.clone(), arguments: vec![] };
        let card = Card::launch(&config, &run_dir)?;
        Ok(Self { test, run_dir, addresses, card: Some(card) })
    }

    /// The card process.
    ///
    /// # Errors
    /// If it has been stopped.
    pub fn card(&self) -> Result<&Card> {
        self.card.as_ref().context("the card has been stopped")
    }

    /// The name to open a NIC by.
    ///
    /// # Panics
    /// If there is no such NIC.
    #[must_use]
    pub fn nic(&self, nic: usize) -> String {
        let sockets = self.card.as_ref().map(Card::sockets).unwrap_or_default();
        format!("direct:{}", sockets[nic].display())
    }

    /// The names of all NICs.
    #[must_use]
    pub fn nics(&self) -> Vec<String> {
        (0..self.addresses.len()).map(|nic| self.nic(nic)).collect()
    }

    /// Gives the link of one NIC a plan of faults.
    ///
    /// # Errors
    /// If the plan is wrong.
    ///
    /// # Panics
    /// If there is no such NIC.
    pub fn set_faults_of(&self, nic: usize, plan: &str) -> Result<()> {
        Ok(self.card()?.set_faults_of(&self.addresses[nic], plan)?)
    }

    /// What the card process takes now, once it has let go of what its clients had. It is asked until two answers are the same.
    ///
    /// # Errors
    /// If it has ended.
    pub fn footprint(&self) -> Result<Footprint> {
        let process = PathBuf::from(format!("/proc/{}", self.card()?.pid()));
        let limit = Limit::new("the card to come to rest", COUNTER_LIMIT);
        let mut before = Footprint::read(&process)?;
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let now = Footprint::read(&process)?;
            if now == before {
                return Ok(now);
            }
            before = now;
            limit.remaining()?;
        }
    }

    /// A NIC's address.
    ///
    /// # Panics
    /// If there is no such NIC.
    #[must_use]
    pub fn address(&self, nic: usize) -> String {
        self.addresses[nic].to_string()
    }

    /// Waits until a NIC's counter has grown by `more`.
    ///
    /// # Errors
    /// If it does not, within a limit.
    pub fn wait_for_counter(&self, nic: usize, name: &str, more: u64) -> Result<()> {
        let value = || -> Result<u64> {
            let stats = self.card()?.stats()?;
            stats["nics"][nic]["counters"][name].as_u64().with_context(|| format!("no counter {name}"))
        };
        let limit = Limit::new(format!("{name} to grow"), COUNTER_LIMIT);
        let first = value()?;
        while value()? < first + more {
            limit.remaining()?;
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Kills the card process, as a crash would.
    ///
    /// # Errors
    /// If it has ended before.
    pub fn kill(&mut self) -> Result<()> {
        match &mut self.card {
            Some(card) => Ok(card.kill()?),
            None => bail!("the card has been stopped"),
        }
    }

    /// Ends the card process, which must end cleanly.
    ///
    /// # Errors
    /// If it does not.
    pub fn stop(mut self) -> Result<()> {
        match self.card.take() {
            Some(card) => Ok(card.stop()?),
            None => Ok(()),
        }
    }
}

/// What a process takes of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Open files.
    pub files: usize,
    /// Bytes of memory of its own.
    pub memory: u64,
}

impl Footprint {
    fn read(process: &Path) -> Result<Self> {
        let files = std::fs::read_dir(process.join("fd"))?.count();
        let status = std::fs::read_to_string(process.join("status"))?;
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
        let kibibytes: u64 = memory.trim().trim_end_matches(" kB").parse().context("RssAnon")?;
        Ok(Self { files, memory: kibibytes * 1024 })
    }
}

impl Drop for DirectCards {
    fn drop(&mut self) {
        if self.card.is_some() && std::thread::panicking() {
            artifacts::keep_run_dir(self.test, &self.run_dir);
        }
    }
}
