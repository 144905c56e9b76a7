//! End-to-end tests of vianic: guests with cards, started for one test each.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let fabric = vianic_tests::fabric("two guests see their cards").vms(2).launch()?;
//! fabric.run(0, "vip-info")?;
//! fabric.stop()
//! # }
//! ```
//!
//! Logs and counters of a test that fails are kept in `$VIANIC_ARTIFACTS` (`artifacts/` if not set), in a directory with
//! the test's name.

mod artifacts;
mod c_program;
pub mod coverage;
mod direct;
mod fabric;
mod guest;
mod installation;
mod not_provoked;
mod program;
mod tap;

pub use c_program::CProgram;
pub use direct::{DirectCards, Footprint};
pub use fabric::{Builder, TestFabric, fabric};
pub use guest::{install, nothing_left};
pub use installation::Installation;
pub use program::{example, program};
pub use tap::Report;
pub use vianic;
pub use vianic_guest_agent::{ExitStatus, ModuleState};
