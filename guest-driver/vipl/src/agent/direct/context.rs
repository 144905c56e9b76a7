//! One context: what one VipOpenNic made.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use vianic_abi::command::{CreateContext, Opcode, Target};
use vianic_abi::completion::DEFAULT_MCQ_ENTRIES_LOG2;
use vianic_abi::status::Status;
use vianic_abi::token_table::DEFAULT_ENTRIES_LOG2;

use super::context_memory::{TableMemory, context_memory};
use super::link::Link;
use super::objects::Objects;
use crate::agent::AgentError;
use crate::mapping::ContextMemory;

#[derive(Debug)]
pub(super) struct Context {
    link: Arc<Link>,
    pub(super) number: u16,
    pub(super) objects: Mutex<Objects>,
    /// Given back when the card has ended the context.
    tables: Option<TableMemory>,
}

impl Context {
    /// Makes a context and gives its memory.
    pub(super) fn open(link: Arc<Link>) -> Result<(Self, ContextMemory), AgentError> {
        let tables = TableMemory::new(link.ram).ok_or(Status::ERROR_RESOURCE)?;
        let number = link.free_contexts.lock().pop().ok_or(Status::ERROR_RESOURCE)?;
        // Dropping it gives the number back.
        let mut context = Self { link, number, objects: Mutex::default(), tables: None };
        let link = &context.link;
        let memory = context_memory(number, &tables, link.ram, &link.nic_memory, &link.kicks)?;
        for word in link.nic_memory.nra(number) {
            word.store(0, Ordering::Relaxed);
        }
        link.commands.board.open_context(number, tables.token_table.address());
        let create = CreateContext {
            context: number,
            token_table_log2: DEFAULT_ENTRIES_LOG2,
            mcq_log2: DEFAULT_MCQ_ENTRIES_LOG2,
            token_table: tables.token_table.address(),
            mcq: tables.mcq.address(),
            ..CreateContext::default()
        };
        link.commands.run(Opcode::CREATE_CONTEXT, create)?;
        context.tables = Some(tables);
        Ok((context, memory))
    }

    /// The command parameters that name `object` of this context.
    pub(super) fn target(&self, object: u16) -> Target {
        Target { context: self.number, object, ..Target::default() }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let link = &self.link;
        link.commands.board.close_context(self.number);
        if let Some(tables) = self.tables.take() {
            if !link.is_usable() {
                // A card that hangs may still write; one that is dead does not, but nobody can tell.
                tables.keep_for_ever();
                return;
            }
            if let Err(status) = link.commands.run(Opcode::DESTROY_CONTEXT, self.target(0)) {
                log::error!("the card cannot end context {}: {status:?}", self.number);
                tables.keep_for_ever();
                return;
            }
            for region in self.objects.get_mut().regions() {
                if let Err(status) = link.mrt.deregister(region, &*link.commands) {
                    log::error!("region {region:#x} cannot be deregistered: {status:?}");
                }
            }
        }
        link.free_contexts.lock().push(self.number);
    }
}
