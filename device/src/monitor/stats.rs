//! The cards' counters.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use vianic_abi::nic_memory::Counters;
use zerocopy::IntoBytes as _;

use crate::nic::memory::NicMemory;
use crate::vito::frame::NicAddress;

/// A card to report on.
#[derive(Clone, Debug)]
pub struct Nic {
    /// Its address.
    pub address: NicAddress,
    /// Its memory, which holds its counters.
    pub memory: Arc<NicMemory>,
}

/// All counters of all cards.
pub(super) fn report(nics: &[Nic]) -> Value {
    json!({ "nics": nics.iter().map(stats).collect::<Vec<_>>() })
}

fn stats(nic: &Nic) -> Value {
    json!({ "address": nic.address.to_string(), "counters": counters(&nic.memory.counters()) })
}

fn counters(counters: &Counters) -> Map<String, Value> {
    let values = counters.as_bytes().as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
    Counters::NAMES.iter().map(|name| (*name).to_owned()).zip(values.map(Value::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vianic_abi::nic_memory::Counter;

    #[test]
    fn stats_name_every_counter() {
        let memory = Arc::new(NicMemory::new().expect("NIC memory"));
        memory.count(Counter::doorbells, 3);
        let nics = [Nic { address: NicAddress([2, 0x56, 0x49, 0x41, 0, 1]), memory }];
        let stats = report(&nics);
        let nic = &stats["nics"][0];
        assert_eq!(nic["address"], "02:56:49:41:00:01");
        assert_eq!(nic["counters"]["doorbells"], 3);
        assert_eq!(nic["counters"]["connections"], 0);
        assert_eq!(nic["counters"].as_object().expect("object").len(), Counters::NAMES.len());
    }
}
