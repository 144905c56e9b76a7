//! The command line.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::Parser;
use log::LevelFilter;
use thiserror::Error;
use vianic_device::nic::pacing::Limits;
use vianic_device::port::faults::Plan;
use vianic_device::vito::frame::NicAddress;

/// The address of the first card that is given none; the next one's is one higher.
const FIRST_ADDRESS: u64 = 0x0256_4941_0001;

/// The vianic card: an intelligent VIA NIC, emulated as a vhost-user device.
///
/// Each socket is one card; all cards of one process are linked with each other. A QEMU 11.1 or later connects to a
/// socket with `-chardev socket,id=c,path=PATH -device
/// vhost-user-test-device-pci,chardev=c,virtio-id=38,num_vqs=63,vq_size=64,config_size=64,page-per-vq=on`, and must share
/// its memory: `-object memory-backend-memfd,id=m,size=SIZE,share=on -machine q35,memory-backend=m`. Without KVM a guest of one
/// processor must have room for another, `-smp 1,maxcpus=2`: QEMU leaves out its memory barriers otherwise.
#[derive(Debug, Parser)]
#[command(name = "vianic-device", version)]
pub(crate) struct Cli {
    /// A card, at a socket that the card makes at PATH. Repeat for more cards.
    #[arg(long, value_name = "PATH", required_unless_present = "print_capabilities")]
    socket_path: Vec<PathBuf>,

    /// The address of the next card that has none yet. Repeat for more cards.
    ///
    /// Six bytes in hexadecimal. Cards without an address have 02:56:49:41:00:01, 02:56:49:41:00:02 ...
    #[arg(long, value_name = "ADDRESS")]
    address: Vec<NicAddress>,

    /// A control socket: it answers the line `stats` with the cards' counters as JSON, and the line `faults` with the faults of
    /// their links, which `faults PLAN` and `faults off` change.
    #[arg(long, value_name = "PATH")]
    pub(crate) stats_path: Option<PathBuf>,

    /// Have the cards' links lose, corrupt and break off messages, by a schedule that the same seed gives again.
    ///
    /// PLAN: seed=NUMBER,drop=RATE,corrupt=RATE,break=RATE, any of them. A RATE is a probability from 0 to 1 for each message, or
    /// next:NUMBER for so many messages. A message that is dropped never arrives, one that is corrupted fails its check, one that breaks
    /// off arrives without its second half. Reliable connections end with it, unreliable ones go on.
    #[arg(long, value_name = "PLAN")]
    pub(crate) faults: Option<Plan>,

    /// Set the limits between which the cards copy and poll by load.
    ///
    /// LIMITS: busy=TIME,spaced=TIME,short=TIME,min-batch=NUMBER,max-batch=NUMBER, any of them. A Token Table in which nothing is found
    /// is polled without pause for `busy` (50us), then with pauses for `spaced` (200us), and is then left to its doorbell; after
    /// `short` (2us) already where other threads want the processor. A copy operation takes from `min-batch` (4) to
    /// `max-batch` (64) entries, more under load. Times have units (us, ms); a batch has 256 entries at most.
    #[arg(long, value_name = "LIMITS")]
    pub(crate) poll: Option<Limits>,

    /// For tests of drivers: have the cards drop registrations from their shadow MRTs at random and drain the MDL as late as they may,
    /// by a schedule that the same SEED gives again.
    #[arg(long, value_name = "SEED", hide = true)]
    pub(crate) hostile: Option<u64>,

    /// Print what this program is, as vhost-user back-end programs do, and end.
    #[arg(long)]
    pub(crate) print_capabilities: bool,

    /// How much to log: off, error, warn, info, debug or trace. RUST_LOG says the same in more detail.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<LevelFilter>,
}

/// A card that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CardOptions {
    /// Where its socket is to be.
    pub(crate) socket: PathBuf,
    /// Its address.
    pub(crate) address: NicAddress,
}

/// A command line that asks for what cannot be.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum CliError {
    #[error(
        "there are {addresses} addresses for {sockets} cards: give at most one --address for each --socket-path"
    )]
    TooManyAddresses { addresses: usize, sockets: usize },
    #[error("two cards have the address {0}: give each card of one fabric an address of its own")]
    SameAddress(NicAddress),
    #[error("{0} is a group address: the first byte of a card's address is even")]
    GroupAddress(NicAddress),
    #[error("{0} is used for two sockets: give each card a path of its own")]
    SamePath(PathBuf),
}

impl Cli {
    /// The cards that are asked for.
    pub(crate) fn cards(&self) -> Result<Vec<CardOptions>, CliError> {
        let sockets = self.socket_path.len();
        if self.address.len() > sockets {
            return Err(CliError::TooManyAddresses { addresses: self.address.len(), sockets });
        }
        let defaults = (FIRST_ADDRESS..).map(default_address).skip(self.address.len());
        let addresses: Vec<NicAddress> = self.address.iter().copied().chain(defaults).take(sockets).collect();
        let mut seen = HashSet::new();
        for address in &addresses {
            if address.0[0] & 1 != 0 {
                return Err(CliError::GroupAddress(*address));
            }
            if !seen.insert(*address) {
                return Err(CliError::SameAddress(*address));
            }
        }
        let mut paths = HashSet::new();
        if let Some(path) = self.socket_path.iter().chain(&self.stats_path).find(|path| !paths.insert(*path))
        {
            return Err(CliError::SamePath(path.clone()));
        }
        let cards = self.socket_path.iter().zip(addresses);
        Ok(cards.map(|(socket, address)| CardOptions { socket: socket.clone(), address }).collect())
    }
}

fn default_address(number: u64) -> NicAddress {
    let [_, _, address @ ..] = number.to_be_bytes();
    NicAddress(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cards(arguments: &[&str]) -> Result<Vec<CardOptions>, CliError> {
        Cli::try_parse_from([&["vianic-device"], arguments].concat()).expect("parses").cards()
    }

    fn addresses(arguments: &[&str]) -> Vec<String> {
        cards(arguments).expect("cards").iter().map(|card| card.address.to_string()).collect()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn cards_have_addresses_of_their_own_by_default() {
        let two = ["--socket-path", "a", "--socket-path", "b"];
        assert_eq!(addresses(&two), ["02:56:49:41:00:01", "02:56:49:41:00:02"]);
        let one_given = ["--socket-path=a", "--socket-path=b", "--address=02:00:00:00:00:0A"];
        assert_eq!(addresses(&one_given), ["02:00:00:00:00:0a", "02:56:49:41:00:02"]);
    }

    #[test]
    fn two_cards_with_one_address_are_refused() {
        let given = "--address=02:56:49:41:00:02";
        let error = cards(&["--socket-path=a", given, "--socket-path=b"]).expect_err("duplicate");
        assert!(matches!(error, CliError::SameAddress(_)));
    }

    #[test]
    fn more_addresses_than_cards_are_refused() {
        let given = ["--socket-path=a", "--address=02:00:00:00:00:01", "--address=02:00:00:00:00:02"];
        assert_eq!(cards(&given), Err(CliError::TooManyAddresses { addresses: 2, sockets: 1 }));
    }

    #[test]
    fn a_group_address_is_refused() {
        let error = cards(&["--socket-path=a", "--address=03:00:00:00:00:01"]).expect_err("group address");
        assert!(matches!(error, CliError::GroupAddress(_)));
    }

    #[test]
    fn a_path_is_used_once() {
        assert_eq!(cards(&["--socket-path=a", "--socket-path=a"]), Err(CliError::SamePath("a".into())));
        assert_eq!(cards(&["--socket-path=a", "--stats-path=a"]), Err(CliError::SamePath("a".into())));
    }

    #[test]
    fn limits_of_polling_are_given_together() {
        let given = ["vianic-device", "--socket-path=a", "--poll=busy=1ms,max-batch=8"];
        let limits = Cli::try_parse_from(given).expect("parses").poll.expect("limits");
        assert_eq!((limits.busy_ns, limits.max_batch), (1_000_000, 8));
        let bad = ["vianic-device", "--socket-path=a", "--poll=busy=soon"];
        let error = Cli::try_parse_from(bad).expect_err("no time").to_string();
        assert!(error.contains("busy=soon: a time is a number with a unit, as in 50us"), "{error}");
    }

    #[test]
    fn a_card_needs_a_socket() {
        assert!(Cli::try_parse_from(["vianic-device"]).is_err());
        assert!(Cli::try_parse_from(["vianic-device", "--print-capabilities"]).is_ok());
    }
}
