//! A context's memory, out of guest RAM and NIC memory.
#![expect(unsafe_code, reason = "lends parts of long-lived mappings")]

use std::sync::Arc;

use vianic_abi::completion::{DEFAULT_MCQ_ENTRIES_LOG2, mcq_size};
use vianic_abi::doorbell_queue;
use vianic_abi::nic_memory::{NRA_SIZE, nra_offset};
use vianic_abi::token_table::{DEFAULT_ENTRIES_LOG2, table_size};
use vmm_sys_util::eventfd::EventFd;

use super::events::kick;
use super::nic_memory::NicMemory;
use super::ram::{Extent, Ram, in_memory};
use super::shared_memory::SharedMemory;
use crate::agent::AgentError;
use crate::mapping::{ContextMemory, ContextParts, Doorbell, Mapping, REGISTERS_MAP_SIZE};

/// The guest RAM of a context's Token Table and MCQ.
#[derive(Debug)]
pub(super) struct TableMemory {
    pub(super) token_table: Extent,
    pub(super) mcq: Extent,
}

impl TableMemory {
    pub(super) fn new(ram: &'static Ram) -> Option<Self> {
        Some(Self {
            token_table: ram.allocate(table_size(DEFAULT_ENTRIES_LOG2) as u64)?,
            mcq: ram.allocate(mcq_size(DEFAULT_MCQ_ENTRIES_LOG2) as u64)?,
        })
    }

    /// The card may still use it.
    pub(super) fn keep_for_ever(self) {
        self.token_table.keep_for_ever();
        self.mcq.keep_for_ever();
    }
}

/// The memory of `context`, whose tables are in `tables`.
pub(super) fn context_memory(
    context: u16,
    tables: &TableMemory,
    ram: &'static Ram,
    nic_memory: &Arc<NicMemory>,
    kicks: &Arc<Vec<EventFd>>,
) -> Result<ContextMemory, AgentError> {
    // The extents outlive the context: who holds its memory holds the agent that has them.
    let in_ram = |extent: &Extent| {
        part(ram.memory(), in_memory(extent.address()), in_memory(extent.length()), nic_memory)
    };
    let (nra, nra_length) = (in_memory(nra_offset(context)), in_memory(NRA_SIZE));
    let kicks = Arc::clone(kicks);
    let queue = usize::from(doorbell_queue(context));
    ContextMemory::new(ContextParts {
        context,
        token_table: in_ram(&tables.token_table),
        token_table_log2: DEFAULT_ENTRIES_LOG2,
        mcq: in_ram(&tables.mcq),
        mcq_log2: DEFAULT_MCQ_ENTRIES_LOG2,
        nra: part(nic_memory.requests_area(), nra, nra_length, nic_memory),
        registers: part(nic_memory.registers_area(), 0, REGISTERS_MAP_SIZE, nic_memory),
        doorbell: Doorbell::Call(Box::new(move || kick(&kicks[queue]))),
    })
}

/// A part of guest RAM, which lives as long as the process, or of NIC memory, which lives as long as `nic_memory`.
fn part(memory: &SharedMemory, offset: usize, length: usize, nic_memory: &Arc<NicMemory>) -> Mapping {
    assert!(offset + length <= memory.length());
    // SAFETY: within the memory, as just asserted, which stays mapped as said above, and which is accessed through
    // atomics only.
    unsafe { Mapping::part_of(memory.base().add(offset), length, Arc::clone(nic_memory) as _) }
}
