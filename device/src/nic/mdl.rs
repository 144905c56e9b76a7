//! The card's end of the Memory Deregistration List (claims 2, 16 and 19): why it is drained, and what that counts as. The
//! protocol itself is [`vianic_abi::mdl`].

use vianic_abi::mdl::{Drainer, Forget};
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

impl Drain {
    /// What `handles` forgotten for this reason count as. A Kernel Agent that asks with the list full asks because it is.
    fn counter(self, handles: u32) -> Counter {
        match self {
            Self::Idle => Counter::mdl_drained_idle,
            Self::Validation => Counter::mdl_drained_validation,
            Self::Command if handles >= MDL_ENTRIES => Counter::mdl_drained_full,
            Self::Command => Counter::mdl_drained_command,
        }
    }
}

/// The card's end of the list.
#[derive(Debug, Default)]
pub struct DeregistrationList {
    drainer: Drainer,
    /// How often registrations were forgotten.
    epoch: u64,
}

impl DeregistrationList {
    /// Forgets all registrations whose handles the Kernel Agent has put in, so that what is still known may be trusted.
    #[inline(always)]
    pub fn forget(&mut self, nic_memory: &NicMemory, host: &Host, why: Drain) {
        if self.drainer.is_behind(host.mdl_insert()) {
            self.forget_waiting(nic_memory, host, why);
        }
    }

    /// Counts the times that registrations were forgotten.
    #[inline]
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether no registration that was good in `epoch` has been deregistered since.
    #[inline]
    #[must_use]
    pub fn is_current(&self, host: &Host, epoch: u64) -> bool {
        self.epoch == epoch && !self.drainer.is_behind(host.mdl_insert())
    }

    #[cold]
    fn forget_waiting(&mut self, nic_memory: &NicMemory, host: &Host, why: Drain) {
        let handles = self.drainer.forget(nic_memory.mdl(host.mdl_insert()), |what| match what {
            Forget::Handle(handle) => shadow_mrt::forget(nic_memory, handle),
            Forget::Everything => shadow_mrt::clear(nic_memory),
        });
        self.epoch += 1;
        nic_memory.count(why.counter(handles), handles.into());
        nic_memory.count_max(Counter::mdl_high_water, handles.into());
    }

    /// Tells the Kernel Agent that it may unpin what has been forgotten. No message may be under way: what it found before
    /// something was forgotten would still be in use.
    #[inline]
    pub fn let_go(&mut self, nic_memory: &NicMemory, host: &Host) {
        self.drainer.let_go(nic_memory.mdl(host.mdl_insert()));
    }
}
