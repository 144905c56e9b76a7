//! The card without guests, for the direct link.

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

impl Drop for DirectCards {
    fn drop(&mut self) {
        if self.card.is_some() && std::thread::panicking() {
            artifacts::keep_run_dir(self.test, &self.run_dir);
        }
    }
}
