//! Finding the NICs of the fabric.

use vianic_abi::command::{Discover, NIC_LIST_ENTRIES, NicEntry, NicList};
use vianic_abi::status::Status;
use zerocopy::FromZeros as _;

use crate::nic::Card;
use crate::nic::command::Completes;
use crate::nic::connect::MAX_WAITING;
use crate::nic::memory::usize_of;
use crate::vito::frame::{ControlFrame, NicAddress};

/// A DISCOVER command that waits for the fabric's answer.
#[derive(Clone, Copy, Debug)]
pub struct Discovery {
    tag: u64,
    number: u32,
    parameters: Discover,
}

impl Card {
    /// DISCOVER.
    pub(super) fn discover(&mut self, tag: u64, parameters: Discover) -> Completes {
        if self.discoveries.len() == MAX_WAITING {
            return Completes::Now(Status::ERROR_RESOURCE);
        }
        let number = self.core.next_serial();
        self.discoveries.push(Discovery { tag, number, parameters });
        self.core.outbox.push_back(ControlFrame::Discover { by: self.core.address, number });
        Completes::Later
    }

    /// The fabric has answered.
    pub(super) fn discovered(&mut self, number: u32, nics: &[NicAddress]) {
        let waiting = self.discoveries.iter().position(|discovery| discovery.number == number);
        let Some(Discovery { tag, parameters, .. }) = waiting.map(|i| self.discoveries.remove(i)) else {
            return;
        };
        let list = list(nics, usize_of(parameters.first));
        let written = self.core.host.memory().write(parameters.list, &list);
        self.complete_command(tag, written.map_or(Status::INVALID_PARAMETER, |()| Status::SUCCESS));
    }
}

/// The NICs from the one numbered `first` on, as many as a list holds.
fn list(nics: &[NicAddress], first: usize) -> NicList {
    let mut list = NicList::new_zeroed();
    let told = nics.iter().skip(first).take(NIC_LIST_ENTRIES);
    for (entry, nic) in list.nics.iter_mut().zip(told) {
        *entry = NicEntry { address: nic.0, reserved: 0 };
        list.count += 1;
    }
    list.total = u32::try_from(nics.len()).unwrap_or(u32::MAX);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_nics_than_a_list_holds_take_several() {
        let nics: Vec<_> = (0..100).map(|n| NicAddress([2, 0, 0, 0, 0, n])).collect();
        for (first, count) in [(0, 64), (64, 36), (99, 1), (100, 0), (usize::MAX, 0)] {
            let list = list(&nics, first);
            assert_eq!((list.total, list.count), (100, count), "{first}");
            let told = list.nics.iter().take(usize_of(count)).map(|entry| NicAddress(entry.address));
            assert!(told.eq(nics.iter().skip(first).take(NIC_LIST_ENTRIES).copied()));
        }
    }
}
