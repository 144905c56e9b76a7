//! The Memory Deregistration List (claims 2, 16 and 19): the Kernel Agent puts handles in and goes on; the card lets go of
//! them when it is idle, and always before it trusts a registration.

use vianic_abi::nic_memory::{Counter, MDL_ENTRIES};

use crate::nic::host::Host;
use crate::nic::memory::NicMemory;
use crate::nic::shadow_mrt;

/// Why the list is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Nothing else to do.
    Idle,
    /// A registration is about to be trusted.
    Validation,
    /// The Kernel Agent asks.
    Command,
}

/// The card's end of the list.
#[derive(Debug, Default)]
pub struct Mdl {
    drained: u32,
}

impl Mdl {
    /// Lets go of all handles that the Kernel Agent has put in.
    #[inline]
    pub fn drain(&mut self, nic_memory: &NicMemory, host: &Host, why: Drain) {
        let insert = host.mdl_insert();
        if insert != self.drained {
            self.let_go(nic_memory, insert, why);
        }
    }

    #[cold]
    fn let_go(&mut self, nic_memory: &NicMemory, insert: u32, why: Drain) {
        let waiting = insert.wrapping_sub(self.drained);
        if waiting > MDL_ENTRIES {
            // The counter ran ahead of the ring (or backwards): handles were overwritten before they were read, so nothing
            // that the card remembers can be trusted.
            shadow_mrt::clear(nic_memory);
        } else {
            for i in 0..waiting {
                shadow_mrt::forget(nic_memory, nic_memory.mdl_entry(self.drained.wrapping_add(i)));
            }
        }
        self.drained = insert;
        nic_memory.publish_mdl_drained(insert);
        let counter = match why {
            Drain::Idle => Counter::mdl_drained_idle,
            Drain::Validation => Counter::mdl_drained_validation,
            Drain::Command => Counter::mdl_drained_command,
        };
        nic_memory.count(counter, u64::from(waiting.min(MDL_ENTRIES)));
    }
}
