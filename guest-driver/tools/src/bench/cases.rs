//! The cases that are measured: whom the card meets in each.

use std::time::Duration;

use clap::Args;
use vipl::Nic;

use super::beside::Cores;
use super::bounce::Bounce;
use super::contestant::Quantity;
use super::copies::{Memcpy, Pool};
use super::loopback::{CardUse, Pattern};
use super::ring::TokenRing;
use super::rounds::{Case, Rounds};
use super::socket::{Kind, Looking, Request, SocketPair};

/// Messages of a sample of latency.
const SINGLES: u32 = 200;
/// Messages of a sample of the message rate: samples are short, so that few of them are interrupted.
const STREAM: u32 = 2_000;
/// Bytes of a sample of bandwidth, about.
const BYTES: u32 = 4 << 20;
/// Large messages at once.
const LARGE_WINDOW: u32 = 16;

/// The sockets that a case is measured beside.
///
/// # Errors
/// If there can be no sockets.
pub fn sockets(case: &mut Case<'_>, cores: Cores) -> anyhow::Result<()> {
    let Case { quantity, size, .. } = *case;
    let messages = match quantity {
        Quantity::Latency => SINGLES / 4,
        Quantity::Rate => STREAM,
        Quantity::Bandwidth => (BYTES / size.max(1)).clamp(LARGE_WINDOW, STREAM),
    };
    let request = Request { quantity, size, messages };
    let looks: &[Looking] = match quantity {
        Quantity::Latency => &[Looking::Spinning, Looking::Asleep],
        Quantity::Rate | Quantity::Bandwidth => &[Looking::Asleep],
    };
    for kind in [Kind::Unix, Kind::Tcp] {
        for looking in looks {
            case.contestants.push(Box::new(SocketPair::new(cores, kind, *looking, request)?));
        }
    }
    Ok(())
}

/// How much is measured: options of a command line.
#[derive(Clone, Copy, Debug, Args)]
pub struct Effort {
    /// Rounds; in each, all take turns
    #[arg(long, value_name = "NUMBER", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,

    /// Samples of everybody in each round
    #[arg(long, value_name = "NUMBER", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub samples: u32,

    /// Wait so long in all for moments in which two cores are this machine's alone. Samples of other moments do not
    /// count, unless there are no others
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub patience: u64,
}

impl From<Effort> for Rounds {
    fn from(Effort { rounds, samples, patience }: Effort) -> Self {
        Self { rounds, samples, patience: Some(Duration::from_secs(patience)) }
    }
}

/// One message of `size` bytes at a time.
///
/// # Errors
/// If the NIC has no room for it.
pub fn latency(nic: &Nic, cores: Cores, size: u32) -> anyhow::Result<Case<'_>> {
    let quantity = Quantity::Latency;
    let card = |pattern| CardUse::new(nic, pattern, size, 1, SINGLES);
    Ok(Case {
        quantity,
        size,
        window: 1,
        contestants: vec![
            Box::new(Bounce::new(cores, SINGLES)),
            Box::new(TokenRing::new(cores, quantity, 1, SINGLES)),
            Box::new(TokenRing::new(cores, quantity, 1, SINGLES).with_copies(Pool::new(size, 1))),
            Box::new(card(Pattern::Completion)?),
            Box::new(card(Pattern::Receipt)?),
        ],
    })
}

/// Messages of `size` bytes, `window` at once, counted.
///
/// # Errors
/// If the NIC has no room for it.
pub fn rate(nic: &Nic, cores: Cores, size: u32, window: u32) -> anyhow::Result<Case<'_>> {
    let quantity = Quantity::Rate;
    Ok(Case {
        quantity,
        size,
        window,
        contestants: vec![
            Box::new(TokenRing::new(cores, quantity, window, STREAM)),
            Box::new(CardUse::new(nic, Pattern::Stream, size, window, STREAM)?),
        ],
    })
}

/// Messages of `size` bytes, as many at once as large ones need, by their bytes.
///
/// # Errors
/// If the NIC has no room for it.
pub fn bandwidth(nic: &Nic, cores: Cores, size: u32) -> anyhow::Result<Case<'_>> {
    let quantity = Quantity::Bandwidth;
    let messages = (BYTES / size.max(1)).clamp(LARGE_WINDOW, STREAM);
    let pool = || Pool::new(size, LARGE_WINDOW);
    Ok(Case {
        quantity,
        size,
        window: LARGE_WINDOW,
        contestants: vec![
            Box::new(Memcpy::new(pool(), messages)),
            Box::new(TokenRing::new(cores, quantity, LARGE_WINDOW, messages).with_copies(pool())),
            Box::new(CardUse::new(nic, Pattern::Stream, size, LARGE_WINDOW, messages)?),
        ],
    })
}
