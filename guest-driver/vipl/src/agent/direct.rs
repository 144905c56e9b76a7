//! The direct link: a NIC without a VM. This process is the card's vhost-user front end, and the Kernel Agent's calls are
//! answered here.
//!
//! Registering memory moves its pages into the guest RAM that the card sees, in place. They stay there until the program
//! unmaps them. What follows from it:
//!
//! * after fork, parent and child share these pages instead of having copies, until the child registers them itself;
//!   a child must open NICs of its own;
//! * a write of another thread to the same *pages* during registration may be lost where the kernel does not let this process
//!   use userfaultfd(2) (neighbours on the page count); where it does, such a write waits;
//! * stacks and shared mappings of files cannot be registered; shared anonymous memory stops being shared with children
//!   that exist already.

mod commands;
mod context;
mod context_memory;
mod events;
mod extents;
mod freeze;
mod front_end;
mod link;
mod maps;
mod moved;
mod moving;
mod mrt;
mod nic_memory;
mod notice_board;
mod objects;
mod peers;
mod ram;
mod shared_memory;
mod stack;
mod vring;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use vianic_abi::command::{
    Answer, Connect, ConnectBlock, CreateVi, Discover, NetAddress, NicList, Opcode, SetVi, ViAttributes,
};
use vianic_abi::mrt::{ACCESS_RDMA_READ, ACCESS_RDMA_WRITE};
use vianic_abi::nic_memory::{nra_cq, nra_work_queue};
use vianic_abi::status::Status;

use self::commands::Outcome;
use self::context::Context;
use self::link::Link;
use self::mrt::RegionAttributes;
use self::notice_board::Woken;
use self::objects::Registered;
use self::peers::Peers;
use crate::agent::{
    Agent, AgentError, IncomingRequest, NewVi, NicInfo, OutgoingRequest, Region, RegionChange,
};
use crate::mapping::ContextMemory;

/// Opens the card behind the vhost-user socket at `socket`.
///
/// # Errors
/// [`AgentError::NoSuchNic`] if nobody listens there, [`AgentError::Unusable`] if it is no card of ours or another
/// front end has it.
pub fn open(socket: &Path) -> Result<Arc<dyn Agent>, AgentError> {
    let link = Link::to(socket)?;
    Ok(Arc::new(DirectAgent {
        peers: Peers::new(Arc::clone(&link.commands)),
        link,
        context: OnceLock::new(),
        waiting: Mutex::default(),
        shut_down: AtomicBool::new(false),
    }))
}

#[derive(Debug)]
struct DirectAgent {
    // Dropped before the link; the context first, which completes all attempts with peers.
    context: OnceLock<Context>,
    peers: Peers,
    link: Arc<Link>,
    /// Tags of the commands that wait for somebody.
    waiting: Mutex<Vec<u64>>,
    shut_down: AtomicBool,
}

impl DirectAgent {
    /// The context, while the card lives: without it there is nothing that it could be told.
    fn context(&self) -> Result<&Context, AgentError> {
        if !self.link.is_usable() {
            return Err(Status::NIC_FAILED.into());
        }
        self.context.get().ok_or(AgentError::Refused(Status::INVALID_STATE))
    }

    fn run_on<B: zerocopy::IntoBytes + zerocopy::Immutable>(
        &self,
        opcode: Opcode,
        body: B,
    ) -> Result<(), AgentError> {
        Ok(self.link.commands.run(opcode, body)?)
    }

    /// Whether a region may allow this to peers.
    fn check_access(&self, access: u16) -> Result<(), Status> {
        if access & !(ACCESS_RDMA_READ | ACCESS_RDMA_WRITE) != 0 {
            return Err(Status::INVALID_PARAMETER);
        }
        if access & ACCESS_RDMA_READ != 0 && self.link.nic_memory.registers().rdma_read_levels == 0 {
            return Err(Status::INVALID_RDMAREAD);
        }
        Ok(())
    }

    /// LISTEN and CONNECT: commands that wait for somebody.
    fn run_connect(
        &self,
        opcode: Opcode,
        vi: u16,
        block: &ConnectBlock,
        timeout: Option<Duration>,
    ) -> Result<ConnectBlock, AgentError> {
        let context = self.context()?.number;
        let commands = &self.link.commands;
        let mut tag = None;
        let outcome = commands.run_until(
            opcode,
            block,
            |block| Connect { context, vi, block, ..Connect::default() },
            deadline(timeout),
            |started| {
                tag = Some(started);
                self.waiting.lock().push(started);
                // Who shuts down after this sees the tag; who did before is seen here.
                if self.shut_down.load(Ordering::SeqCst) {
                    commands.board.interrupt(started);
                }
            },
        );
        if let Some(tag) = tag {
            self.waiting.lock().retain(|waiting| *waiting != tag);
        }
        match outcome? {
            Outcome::Done(Status::SUCCESS, block) => Ok(*block),
            Outcome::Done(status, _) => Err(status.into()),
            Outcome::TimedOut => Err(Status::TIMEOUT.into()),
            Outcome::Interrupted => Err(AgentError::ShutDown),
        }
    }
}

impl Agent for DirectAgent {
    fn query_nic(&self) -> Result<NicInfo, AgentError> {
        if !self.link.is_usable() {
            return Err(Status::NIC_FAILED.into());
        }
        Ok(NicInfo { registers: self.link.nic_memory.registers(), max_register_bytes: self.link.ram.size() })
    }

    fn open_context(&self) -> Result<ContextMemory, AgentError> {
        let (context, memory) = Context::open(Arc::clone(&self.link))?;
        self.context.set(context).map_err(|_| AgentError::Refused(Status::INVALID_STATE))?;
        Ok(memory)
    }

    fn create_ptag(&self) -> Result<u32, AgentError> {
        Ok(self.context()?.objects.lock().create_ptag()?)
    }

    fn destroy_ptag(&self, ptag: u32) -> Result<(), AgentError> {
        Ok(self.context()?.objects.lock().destroy_ptag(ptag)?)
    }

    #[expect(unsafe_code, reason = "the caller promises something about the memory")]
    unsafe fn register_memory(&self, region: &Region) -> Result<u32, AgentError> {
        let context = self.context()?;
        let end = region.address.checked_add(region.length).ok_or(Status::INVALID_PARAMETER)?;
        if region.length == 0 {
            return Err(Status::INVALID_PARAMETER.into());
        }
        self.check_access(region.access)?;
        context.objects.lock().check_ptag(region.ptag)?;
        // SAFETY: the caller vouches for the range.
        let adopted = unsafe { self.link.ram.adopt(region.address..end) }?;
        let attributes = RegionAttributes {
            context: context.number,
            ptag: region.ptag,
            access: region.access,
            virtual_address: region.address as u64,
            length: region.length as u64,
        };
        let mut objects = context.objects.lock();
        // Again: the tag may have been destroyed meanwhile.
        objects.check_ptag(region.ptag)?;
        let handle = self.link.mrt.register(&attributes, adopted, &*self.link.commands)?;
        objects.add_region(
            handle,
            Registered { address: region.address, length: region.length, ptag: region.ptag },
        );
        Ok(handle)
    }

    fn deregister_memory(&self, address: usize, handle: u32) -> Result<(), AgentError> {
        self.context()?.objects.lock().remove_region(address, handle)?;
        Ok(self.link.mrt.deregister(handle, &*self.link.commands)?)
    }

    fn set_memory_attributes(&self, region: &RegionChange) -> Result<(), AgentError> {
        let context = self.context()?;
        self.check_access(region.access)?;
        let mut objects = context.objects.lock();
        objects.check_region(region.address, region.handle)?;
        objects.check_ptag(region.ptag)?;
        self.link.mrt.change(region.handle, region.ptag, region.access, &*self.link.commands)?;
        objects.set_region_ptag(region.handle, region.ptag);
        Ok(())
    }

    fn create_cq(&self) -> Result<u16, AgentError> {
        let context = self.context()?;
        let mut objects = context.objects.lock();
        let cq = objects.free_cq()?;
        self.run_on(Opcode::CREATE_CQ, context.target(cq))?;
        objects.add_cq(cq);
        Ok(cq)
    }

    fn destroy_cq(&self, cq: u16) -> Result<(), AgentError> {
        let context = self.context()?;
        let mut objects = context.objects.lock();
        objects.check_idle_cq(cq)?;
        self.run_on(Opcode::DESTROY_CQ, context.target(cq))?;
        objects.remove_cq(cq);
        self.link.commands.board.fire(context.number, nra_cq(cq));
        Ok(())
    }

    fn create_vi(&self, new: &NewVi) -> Result<u16, AgentError> {
        let context = self.context()?;
        let mut objects = context.objects.lock();
        let vi = objects.free_vi(new)?;
        let create = CreateVi {
            context: context.number,
            vi,
            send_cq: new.send_cq,
            receive_cq: new.receive_cq,
            ptag: new.ptag,
            attributes: new.attributes,
            ..CreateVi::default()
        };
        self.run_on(Opcode::CREATE_VI, create)?;
        objects.add_vi(vi, *new);
        Ok(vi)
    }

    fn set_vi_attributes(&self, vi: u16, attributes: ViAttributes, ptag: u32) -> Result<(), AgentError> {
        let context = self.context()?;
        let mut objects = context.objects.lock();
        objects.check_vi(vi)?;
        objects.check_ptag(ptag)?;
        self.run_on(
            Opcode::SET_VI,
            SetVi { context: context.number, vi, ptag, attributes, ..SetVi::default() },
        )?;
        objects.set_vi_ptag(vi, ptag);
        Ok(())
    }

    fn destroy_vi(&self, vi: u16) -> Result<(), AgentError> {
        let context = self.context()?;
        let mut objects = context.objects.lock();
        objects.check_vi(vi)?;
        self.run_on(Opcode::DESTROY_VI, context.target(vi))?;
        objects.remove_vi(vi);
        self.peers.forget(vi);
        for receive in [false, true] {
            self.link.commands.board.fire(context.number, nra_work_queue(vi, receive));
        }
        Ok(())
    }

    fn connect_wait(
        &self,
        local: &NetAddress,
        timeout: Option<Duration>,
    ) -> Result<IncomingRequest, AgentError> {
        let block = ConnectBlock { local: *local, ..ConnectBlock::default() };
        let block = self.run_connect(Opcode::LISTEN, 0, &block, timeout)?;
        Ok(IncomingRequest {
            connection: block.connection,
            remote: block.remote,
            attributes: block.attributes,
        })
    }

    fn connect_accept(&self, connection: u32, vi: u16) -> Result<(), AgentError> {
        let context = self.context()?;
        context.objects.lock().check_vi(vi)?;
        self.run_on(Opcode::ACCEPT, Answer { context: context.number, vi, connection, ..Answer::default() })
    }

    fn connect_reject(&self, connection: u32) -> Result<(), AgentError> {
        let context = self.context()?.number;
        self.run_on(Opcode::REJECT, Answer { context, connection, ..Answer::default() })
    }

    fn connect_request(
        &self,
        request: &OutgoingRequest,
        timeout: Option<Duration>,
    ) -> Result<ViAttributes, AgentError> {
        self.context()?.objects.lock().check_vi(request.vi)?;
        let block = ConnectBlock { local: request.local, remote: request.remote, ..ConnectBlock::default() };
        Ok(self.run_connect(Opcode::CONNECT, request.vi, &block, timeout)?.attributes)
    }

    fn connect_peer_request(
        &self,
        request: &OutgoingRequest,
        timeout: Option<Duration>,
    ) -> Result<(), AgentError> {
        let context = self.context()?;
        context.objects.lock().check_vi(request.vi)?;
        let block = ConnectBlock { local: request.local, remote: request.remote, ..ConnectBlock::default() };
        self.peers.begin((context.number, request.vi), &block, deadline(timeout))
    }

    fn connect_peer_wait(
        &self,
        vi: u16,
        timeout: Option<Duration>,
    ) -> Result<Option<ViAttributes>, AgentError> {
        self.context()?.objects.lock().check_vi(vi)?;
        if self.shut_down.load(Ordering::SeqCst) {
            return Err(AgentError::ShutDown);
        }
        self.peers.wait(vi, deadline(timeout))
    }

    fn disconnect(&self, vi: u16) -> Result<(), AgentError> {
        let context = self.context()?;
        context.objects.lock().check_vi(vi)?;
        match self.run_on(Opcode::DISCONNECT, context.target(vi)) {
            // An Idle VI has nothing to end.
            Ok(()) | Err(AgentError::Refused(Status::INVALID_STATE)) => {}
            outcome => return outcome,
        }
        self.peers.forget(vi);
        Ok(())
    }

    fn discover(&self, first: u32) -> Result<NicList, AgentError> {
        const WORDS: usize = size_of::<NicList>() / 8;
        let memory = self.link.ram.allocate(size_of::<NicList>() as u64).ok_or(Status::ERROR_RESOURCE)?;
        let discover = Discover { first, list: memory.address(), ..Discover::default() };
        if let Err(error) = self.run_on(Opcode::DISCOVER, discover) {
            // A card that hangs may still write.
            memory.keep_for_ever();
            return Err(error);
        }
        let words: [u64; WORDS] = memory.load(0);
        Ok(zerocopy::transmute!(words))
    }

    fn wait(&self, nra_word: u32, seen: u32, timeout: Option<Duration>) -> Result<u32, AgentError> {
        let context = self.context()?.number;
        if self.shut_down.load(Ordering::SeqCst) {
            return Err(AgentError::ShutDown);
        }
        match self.link.commands.board.wait_for_word(context, nra_word, seen, deadline(timeout)) {
            _ if self.shut_down.load(Ordering::SeqCst) => Err(AgentError::ShutDown),
            Woken::Fired(count) => Ok(count),
            Woken::Failed => Err(Status::NIC_FAILED.into()),
            Woken::TimedOut => Err(Status::TIMEOUT.into()),
        }
    }

    fn shut_down(&self) {
        self.shut_down.store(true, Ordering::SeqCst);
        if let Some(context) = self.context.get() {
            self.link.commands.board.wake_context(context.number);
        }
        for tag in self.waiting.lock().iter() {
            self.link.commands.board.interrupt(*tag);
        }
        self.peers.interrupt();
    }
}

fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}
