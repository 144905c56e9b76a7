//! Control commands: what the Kernel Agent asks of the card through context 0's Token Table.

use vianic_abi::command::{
    Answer, Cancel, Connect, CreateContext, CreateVi, Discover, MrtChunk, Opcode, SetVi, Target,
    VI_RDMA_READ, VI_RDMA_WRITE, ViAttributes,
};
use vianic_abi::status::{ReliabilityLevel, Status};
use vianic_abi::token::Token;
use vianic_abi::{KERNEL_CONTEXT, MAX_CONTEXTS, MAX_TRANSFER_SIZE};

use crate::nic::completion::ViNumber;
use crate::nic::context::{Context, Layout, RemoveCq};
use crate::nic::mdl::Drain;
use crate::nic::vi::{Vi, ViState};
use crate::nic::{Card, RDMA_READ_LEVELS};

/// When a command completes.
pub(super) enum Completes {
    /// Now.
    Now(Status),
    /// When what it waits for has come.
    Later,
}

impl From<Result<(), Status>> for Completes {
    fn from(result: Result<(), Status>) -> Self {
        Self::Now(result.err().unwrap_or(Status::SUCCESS))
    }
}

impl Card {
    /// Handles a control command.
    pub(super) fn command(&mut self, token: &Token) {
        let tag = token.descriptor;
        let completes = match Opcode(token.vi) {
            Opcode::ADD_MRT_CHUNK => self.add_mrt_chunk(token.body()).into(),
            Opcode::DRAIN_MDL => {
                self.core.shadow.drain(&self.core.memory, &self.core.host, Drain::Command);
                Ok(()).into()
            }
            Opcode::CREATE_CONTEXT => self.create_context(&token.body()).into(),
            Opcode::DESTROY_CONTEXT => self.destroy_context(token.body()).into(),
            Opcode::CREATE_CQ => self.create_cq(token.body()).into(),
            Opcode::DESTROY_CQ => self.destroy_cq(token.body()).into(),
            Opcode::CREATE_VI => self.create_vi(&token.body()).into(),
            Opcode::SET_VI => self.set_vi(&token.body()).into(),
            Opcode::DESTROY_VI => self.destroy_vi(token.body()).into(),
            Opcode::LISTEN => self.listen(tag, token.body::<Connect>()),
            Opcode::CONNECT => self.connect(tag, token.body::<Connect>()),
            Opcode::CONNECT_PEER => self.connect_peer(tag, token.body::<Connect>()),
            Opcode::DISCOVER => self.discover(tag, token.body::<Discover>()),
            Opcode::CANCEL => {
                self.cancel(token.body::<Cancel>().tag);
                Ok(()).into()
            }
            Opcode::ACCEPT => self.accept(tag, token.body::<Answer>()),
            Opcode::REJECT => self.reject(token.body::<Answer>()).into(),
            Opcode::DISCONNECT => self.disconnect(token.body()).into(),
            _ => Completes::Now(Status::NOT_SUPPORTED),
        };
        if let Completes::Now(status) = completes {
            self.complete_command(tag, status);
        }
    }

    /// Completes a control command.
    pub(super) fn complete_command(&mut self, tag: u64, status: Status) {
        if let Some(context) = &mut self.contexts[usize::from(KERNEL_CONTEXT)] {
            self.core.complete_command(context, tag, status);
        }
    }

    /// A user context by number, with everything accepted that it has posted until now.
    pub(super) fn user_context(&mut self, number: u16) -> Result<&mut Context, Status> {
        if number == KERNEL_CONTEXT || number >= MAX_CONTEXTS {
            return Err(Status::INVALID_PARAMETER);
        }
        self.accept_posted(number);
        match &mut self.contexts[usize::from(number)] {
            Some(context) if context.broken.is_some() => Err(Status::NIC_FAILED),
            Some(context) => Ok(context),
            None => Err(Status::INVALID_PARAMETER),
        }
    }

    fn add_mrt_chunk(&mut self, chunk: MrtChunk) -> Result<(), Status> {
        let added = self.core.host.add_mrt_chunk(chunk.chunk, chunk.address);
        if added { Ok(()) } else { Err(Status::INVALID_PARAMETER) }
    }

    fn create_context(&mut self, create: &CreateContext) -> Result<(), Status> {
        let CreateContext { context: number, token_table_log2, mcq_log2, token_table, mcq, .. } = *create;
        let free = |context: &Option<Context>| context.is_none();
        if number == KERNEL_CONTEXT || !self.contexts.get(usize::from(number)).is_some_and(free) {
            return Err(Status::INVALID_PARAMETER);
        }
        let layout = Layout { token_table, token_table_log2, mcq, mcq_log2 };
        let context = Context::new(self.core.host.memory(), layout, self.core.limits)
            .map_err(|_| Status::INVALID_PARAMETER)?;
        self.core.memory.clear_nra(number);
        self.contexts[usize::from(number)] = Some(context);
        Ok(())
    }

    fn destroy_context(&mut self, target: Target) -> Result<(), Status> {
        let number = target.context;
        let exists = self.contexts.get(usize::from(number)).is_some_and(Option::is_some);
        if number == KERNEL_CONTEXT || !exists {
            return Err(Status::INVALID_PARAMETER);
        }
        self.end_context(number);
        Ok(())
    }

    fn create_cq(&mut self, target: Target) -> Result<(), Status> {
        let context = self.user_context(target.context)?;
        if context.add_cq(target.object) { Ok(()) } else { Err(Status::INVALID_PARAMETER) }
    }

    fn destroy_cq(&mut self, target: Target) -> Result<(), Status> {
        match self.user_context(target.context)?.remove_cq(target.object) {
            RemoveCq::Removed => Ok(()),
            RemoveCq::Unknown => Err(Status::INVALID_PARAMETER),
            RemoveCq::InUse => Err(Status::INVALID_STATE),
        }
    }

    fn create_vi(&mut self, create: &CreateVi) -> Result<(), Status> {
        check_attributes(create.attributes)?;
        let added = self.user_context(create.context)?.add_vi(create.vi, Vi::new(create));
        if added { Ok(()) } else { Err(Status::INVALID_PARAMETER) }
    }

    fn set_vi(&mut self, set: &SetVi) -> Result<(), Status> {
        let vi = self.user_context(set.context)?.vi(set.vi).ok_or(Status::INVALID_PARAMETER)?;
        if !matches!(vi.state, ViState::Idle) {
            return Err(Status::INVALID_STATE);
        }
        check_attributes(set.attributes)?;
        (vi.attributes, vi.ptag) = (set.attributes, set.ptag);
        Ok(())
    }

    fn destroy_vi(&mut self, target: Target) -> Result<(), Status> {
        let number = ViNumber { context: target.context, vi: target.object };
        self.disconnect(target)?;
        self.user_context(number.context)?.remove_vi(number.vi);
        Ok(())
    }
}

/// Whether a VI may have these attributes.
fn check_attributes(attributes: ViAttributes) -> Result<(), Status> {
    let levels = [
        ReliabilityLevel::UNRELIABLE,
        ReliabilityLevel::RELIABLE_DELIVERY,
        ReliabilityLevel::RELIABLE_RECEPTION,
    ];
    if !levels.contains(&ReliabilityLevel(attributes.reliability_level)) {
        return Err(Status::INVALID_RELIABILITY_LEVEL);
    }
    if attributes.max_transfer_size > MAX_TRANSFER_SIZE {
        return Err(Status::INVALID_MTU);
    }
    let reads = attributes.flags & VI_RDMA_READ != 0;
    if reads && attributes.reliability_level & RDMA_READ_LEVELS == 0 {
        return Err(Status::INVALID_RDMAREAD);
    }
    if attributes.flags & !(VI_RDMA_WRITE | VI_RDMA_READ) != 0 {
        return Err(Status::INVALID_PARAMETER);
    }
    Ok(())
}
