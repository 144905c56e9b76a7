//! What else one could use, measured beside the card.

use anyhow::Result;
use clap::ValueEnum;
use vianic_bench::peers::dpdk::{self, Dpdk};
use vianic_bench::peers::ucx::{Test, Ucx, UcxTest};
use vianic_tools::bench::beside::Cores;
use vianic_tools::bench::cases;
use vianic_tools::bench::contestant::Quantity;
use vianic_tools::bench::rounds::Case;

/// Raw active messages are for messages that fit into an entry of UCX's queue.
const RAW_MOST: u32 = 64;
/// UCX and sockets have windows of their own; they are compared with the card's at this one.
const PEERS_WINDOW: u32 = 64;

/// A peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Peer {
    /// Unix and TCP sockets.
    Sockets,
    /// UCX over shared memory (Debian's ucx-utils).
    Ucx,
    /// DPDK's vhost-user: packets between two testpmd (Debian's dpdk-dev), for messages of 64 to 1514 bytes.
    Dpdk,
}

/// The peers that are wanted, ready to be measured.
pub(super) struct Peers {
    cores: Cores,
    sockets: bool,
    ucx: Option<Ucx>,
    dpdk: Option<dpdk::Pair>,
}

impl Peers {
    /// Unpacks and starts what is needed for them.
    pub(super) fn provide(wanted: &[Peer], cores: Cores) -> Result<Self> {
        let progress = |step: &str| log::info!("{step}");
        let ucx = wanted.contains(&Peer::Ucx).then(|| Ucx::provide(&progress)).transpose()?;
        let dpdk = wanted.contains(&Peer::Dpdk).then(|| Dpdk::provide(&progress)?.connect(cores));
        Ok(Self { cores, sockets: wanted.contains(&Peer::Sockets), ucx, dpdk: dpdk.transpose()? })
    }

    /// Lets each take part in the cases that it can have a part in.
    pub(super) fn join(&self, cases: &mut [Case<'_>]) -> Result<()> {
        if let Some(pair) = &self.dpdk
            && !cases.iter().any(|case| pair.bouncing(case.size, case.window).is_some())
        {
            log::warn!("DPDK is not measured: no message has the size of a packet");
        }
        cases.iter_mut().try_for_each(|case| self.join_one(case))
    }

    fn join_one(&self, case: &mut Case<'_>) -> Result<()> {
        let Case { quantity, size, window, .. } = *case;
        if quantity != Quantity::Rate || window == PEERS_WINDOW {
            if self.sockets {
                cases::sockets(case, self.cores)?;
            }
            if let Some(ucx) = &self.ucx {
                let raw = (size <= RAW_MOST).then_some(Test::RawActiveMessages);
                for test in raw.into_iter().chain([Test::ActiveMessages, Test::Tags]) {
                    case.contestants.push(Box::new(UcxTest::new(ucx, self.cores, test, quantity, size)));
                }
            }
        }
        if let Some(packets) = self.dpdk.as_ref().and_then(|pair| pair.bouncing(size, window)) {
            case.contestants.push(Box::new(packets));
        }
        Ok(())
    }
}
