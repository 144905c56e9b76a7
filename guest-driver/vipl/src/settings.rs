//! What the environment says about how the library behaves. The names of files and NICs are read where they are used.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `VIANIC_NIC` | NICs that the generic names (`nic0`, `VINIC0`, `clanvi0`, `via_lo` ...) mean, separated by commas | `/dev/vianicN` |
//! | `VIANIC_LOG` | how much programs in C see of the log, on standard error: `off`, `error` ... `trace` | `warn` |
//! | `VIANIC_RAM_GIB` | over the direct link: address space for registered memory, in GiB | 64 |
//! | `VIANIC_EAGER_DEREGISTRATION` | `1`, over the direct link: deregistration waits for the card, to be compared with | off |
//! | `VIANIC_SPIN_US` | most microseconds that a wait looks busily before it sleeps; it looks as long as has paid lately | 500 |
//! | `VIANIC_HOSTS` | the hosts file of the [name service](crate::name_service) | `/etc/vianic/hosts` |
//! | `VIANIC_STRICT` | `1`: a VI with descriptors on its queues cannot be destroyed | off |

use std::time::Duration;

/// More than a sleep and a wake-up on both sides take in a guest without KVM: two sides that sleep for each other learn that
/// they need not.
const DEFAULT_SPIN: Duration = Duration::from_micros(500);

/// More would be no spin.
const MAX_SPIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// The most that a wait looks busily before it sleeps.
    pub(crate) spin: Duration,
    /// A VI with descriptors on its queues cannot be destroyed.
    pub(crate) strict: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { spin: DEFAULT_SPIN, strict: false }
    }
}

impl Settings {
    pub(crate) fn from_environment() -> Self {
        let spin = match std::env::var("VIANIC_SPIN_US") {
            Err(_) => DEFAULT_SPIN,
            Ok(text) => match text.parse() {
                Ok(microseconds) => Duration::from_micros(microseconds).min(MAX_SPIN),
                Err(_) => {
                    log::warn!("VIANIC_SPIN_US is not a number of microseconds: {text:?}");
                    DEFAULT_SPIN
                }
            },
        };
        Self { spin, strict: std::env::var("VIANIC_STRICT").is_ok_and(|value| value == "1") }
    }
}
