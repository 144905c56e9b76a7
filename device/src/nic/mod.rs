//! The card. It knows guest memory, its own memory and its peers' frames; no socket, no thread, no clock.

pub mod command;
pub mod completion;
pub mod connect;
pub mod context;
pub mod discovery;
mod extent;
pub mod host;
pub mod hostility;
pub mod mdl;
pub mod memory;
pub mod message_unit;
pub mod out_post_fifo;
pub mod pacing;
mod page_cache;
pub mod parcel;
pub mod peer;
pub mod rdma_read;
mod registration;
pub mod shadow_mrt;
pub mod transfer;
pub mod vi;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use vianic_abi::attach::AttachRequest;
use vianic_abi::event::{Event, EventKind};
use vianic_abi::mrt::MRT_MAX_ENTRIES;
use vianic_abi::nic_memory::{
    Counter, LinkState, MDL_ENTRIES, REGISTERS_MAGIC, Registers, SHADOW_MRT_ENTRIES,
};
use vianic_abi::status::{ReliabilityLevel, Status};
use vianic_abi::token::Token;
use vianic_abi::{
    ABI_VERSION, KERNEL_CONTEXT, MAX_CONTEXTS, MAX_CQ, MAX_DESCRIPTORS_PER_QUEUE, MAX_DISCRIMINATOR_LEN,
    MAX_SEGMENTS, MAX_TRANSFER_SIZE, MAX_VI,
};
use zerocopy::FromZeros as _;

use crate::guest_memory::{GuestMemory, NotMemory};
use crate::nic::completion::{Events, ViNumber, Waiters};
use crate::nic::connect::{Listener, PendingRequest};
use crate::nic::context::{Context, Layout};
use crate::nic::discovery::Discovery;
use crate::nic::host::Host;
use crate::nic::hostility::Hostility;
use crate::nic::memory::NicMemory;
use crate::nic::out_post_fifo::OutPostFifo;
use crate::nic::pacing::{Limits, Pacing};
use crate::nic::shadow_mrt::{ProtectionFault, Rights, ShadowMrt};
use crate::nic::transfer::Peer;
use crate::nic::vi::ViState;
use crate::rate_limit::warn_limited;
use crate::vito::frame::{ControlFrame, Endpoint, NicAddress, PeerRequest, Ranges};

/// A card with a driver attached.
#[derive(Debug)]
pub struct Card {
    core: Core,
    contexts: Vec<Option<Context>>,
    fifo: OutPostFifo,
    /// Contexts whose Token Tables are polled.
    polled: VecDeque<u16>,
    /// Room for a batch of tokens.
    batch: Vec<Token>,
    listeners: Vec<Listener>,
    requests: HashMap<u32, PendingRequest>,
    discoveries: Vec<Discovery>,
    /// Requests of other cards' VIs for peers here, in the order in which they came.
    visitors: Vec<PeerRequest>,
    /// VIs of this card whose requests wait for peers, in the order in which they asked; and some that no longer do.
    peers: Vec<Endpoint>,
}

/// What all contexts of a card share.
#[derive(Debug)]
pub struct Core {
    address: NicAddress,
    memory: Arc<NicMemory>,
    host: Host,
    shadow: ShadowMrt,
    /// Of every context's copying and polling.
    limits: Limits,
    waiters: Waiters,
    events: Events,
    outbox: VecDeque<ControlFrame>,
    ready: VecDeque<ViNumber>,
    /// Numbers handed out for connections and requests.
    serial: u32,
    /// A context has been found to break the rules since [`Card::fail_broken_contexts`].
    any_broken: bool,
}

impl Core {
    fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1).max(1);
        self.serial
    }

    /// The owner of `context` broke the rules: the context is failed at the end of the turn.
    fn broke_the_rules(&mut self, context: &mut Context, reason: &'static str) {
        context.broken = Some(reason);
        self.any_broken = true;
    }

    /// As [`ShadowMrt::resolve_piece`].
    #[inline]
    fn resolve_piece(
        &mut self,
        rights: Rights,
        what: (u64, u32, u32),
    ) -> Result<Option<u64>, ProtectionFault> {
        self.shadow.resolve_piece((&self.memory, &self.host), rights, what)
    }

    /// As [`ShadowMrt::resolve`].
    fn resolve(
        &mut self,
        rights: Rights,
        what: (u64, u32, u32),
        ranges: &mut Ranges,
    ) -> Result<(), ProtectionFault> {
        self.shadow.resolve((&self.memory, &self.host), rights, what, ranges)
    }
}

/// Levels for which RDMA read works: an answer that got lost is noticed at these only.
pub(crate) const RDMA_READ_LEVELS: u16 =
    ReliabilityLevel::RELIABLE_DELIVERY.0 | ReliabilityLevel::RELIABLE_RECEPTION.0;

/// The registers of a card at `address`.
#[must_use]
pub fn registers(address: NicAddress) -> Registers {
    let levels = [
        ReliabilityLevel::UNRELIABLE,
        ReliabilityLevel::RELIABLE_DELIVERY,
        ReliabilityLevel::RELIABLE_RECEPTION,
    ];
    Registers {
        magic: REGISTERS_MAGIC,
        abi_version: ABI_VERSION,
        link_state: LinkState::UP.0,
        nic_address: address.0,
        reliability_levels: levels.into_iter().fold(0, |mask, level| mask | level.0),
        rdma_read_levels: RDMA_READ_LEVELS,
        max_segments: MAX_SEGMENTS,
        max_contexts: MAX_CONTEXTS.into(),
        max_vi: MAX_VI.into(),
        max_cq: MAX_CQ.into(),
        max_descriptors: MAX_DESCRIPTORS_PER_QUEUE,
        max_transfer_size: MAX_TRANSFER_SIZE,
        native_mtu: MAX_TRANSFER_SIZE,
        max_regions: MRT_MAX_ENTRIES,
        max_discriminator_len: u32::try_from(MAX_DISCRIMINATOR_LEN).unwrap_or_default(),
        shadow_mrt_entries: SHADOW_MRT_ENTRIES,
        mdl_entries: MDL_ENTRIES,
        ..Registers::new_zeroed()
    }
}

impl Card {
    /// A card for a driver that attaches.
    ///
    /// # Errors
    /// The status to answer the driver with.
    pub fn attach(
        address: NicAddress,
        nic_memory: Arc<NicMemory>,
        memory: GuestMemory,
        request: &AttachRequest,
    ) -> Result<Self, Status> {
        if request.abi_version != ABI_VERSION {
            return Err(Status::NOT_SUPPORTED);
        }
        let layout = Layout {
            token_table: request.token_table,
            token_table_log2: request.token_table_log2,
            mcq: request.mcq,
            mcq_log2: request.mcq_log2,
        };
        let refuse = |NotMemory { .. }| Status::INVALID_PARAMETER;
        let kernel_context = Context::new(&memory, layout, Limits::default()).map_err(refuse)?;
        let host = Host::new(memory, request).map_err(refuse)?;
        nic_memory.clear_nra(KERNEL_CONTEXT);
        nic_memory.clear_counters();
        nic_memory.write_registers(&registers(address));
        let mut contexts: Vec<_> = (0..MAX_CONTEXTS).map(|_| None).collect();
        contexts[usize::from(KERNEL_CONTEXT)] = Some(kernel_context);
        let core = Core {
            address,
            shadow: ShadowMrt::new(&nic_memory),
            memory: nic_memory,
            host,
            limits: Limits::default(),
            waiters: Waiters::default(),
            events: Events::default(),
            outbox: VecDeque::new(),
            ready: VecDeque::new(),
            serial: 0,
            any_broken: false,
        };
        let mut card = Self {
            core,
            contexts,
            fifo: OutPostFifo::new(),
            polled: VecDeque::new(),
            batch: Vec::new(),
            listeners: Vec::new(),
            requests: HashMap::new(),
            discoveries: Vec::new(),
            visitors: Vec::new(),
            peers: Vec::new(),
        };
        // The driver may have posted already.
        card.fifo.push(KERNEL_CONTEXT);
        Ok(card)
    }

    /// Makes the card as hard on its Kernel Agent as the rules allow.
    pub fn set_hostility(&mut self, hostility: Hostility) {
        self.core.shadow.set_hostility(hostility);
    }

    /// Copies and polls within these limits, in place of the default ones.
    pub fn set_limits(&mut self, limits: Limits) {
        self.core.limits = limits;
        for context in self.contexts.iter_mut().flatten() {
            context.pacing = Pacing::new(limits);
        }
    }

    /// The guest's memory is mapped anew. A context whose queues are no longer there fails.
    pub fn remap(&mut self, memory: &GuestMemory) {
        let (before, now) = (self.core.host.memory().size(), memory.size());
        self.core.memory.count(Counter::memory_added, now.saturating_sub(before));
        self.core.memory.count(Counter::memory_removed, before.saturating_sub(now));
        if self.core.host.remap(memory.clone()).is_err()
            && let Some(context) = &mut self.contexts[usize::from(KERNEL_CONTEXT)]
        {
            self.core.broke_the_rules(context, "the MRT is no longer in guest memory");
        }
        for context in self.contexts.iter_mut().flatten() {
            if context.remap(memory).is_err() {
                self.core.broke_the_rules(context, "its queues are no longer in guest memory");
            }
        }
        self.fail_broken_contexts();
    }

    /// The memory of the guest it sits in.
    #[must_use]
    pub fn guest_memory(&self) -> &GuestMemory {
        self.core.host.memory()
    }

    /// A doorbell rang: puts the context into the Out Post FIFO.
    pub fn doorbell(&mut self, context: u16) {
        self.core.memory.count(Counter::doorbells, 1);
        self.fifo.push(context);
        self.core.memory.count_max(Counter::fifo_high_water, self.fifo.len() as u64);
    }

    /// After a pause nothing is known of doorbells that rang: looks at every context.
    pub fn look_at_all(&mut self) {
        for (number, context) in (0..MAX_CONTEXTS).zip(&self.contexts) {
            if context.is_some() {
                self.fifo.push(number);
            }
        }
    }

    /// Whether a control frame waits to leave the card.
    #[inline]
    #[must_use]
    pub fn has_control_frames(&self) -> bool {
        !self.core.outbox.is_empty()
    }

    /// The next control frame that leaves the card.
    pub fn next_control_frame(&mut self) -> Option<ControlFrame> {
        self.core.outbox.pop_front()
    }

    /// The next VI that has something to send.
    pub fn next_ready(&mut self) -> Option<ViNumber> {
        let number = self.core.ready.pop_front()?;
        if let Some(vi) =
            self.contexts[usize::from(number.context)].as_mut().and_then(|context| context.vi(number.vi))
        {
            vi.ready = false;
        }
        Some(number)
    }

    /// How many VIs have something to send.
    #[must_use]
    pub fn ready_count(&self) -> usize {
        self.core.ready.len()
    }

    /// Puts a VI back among those that have something to send.
    pub fn make_ready(&mut self, number: ViNumber) {
        if let Some(vi) =
            self.contexts[usize::from(number.context)].as_mut().and_then(|context| context.vi(number.vi))
            && !std::mem::replace(&mut vi.ready, true)
        {
            self.core.ready.push_back(number);
        }
    }

    /// The events that wait for room in the event queue.
    pub fn events(&mut self) -> &mut Events {
        &mut self.core.events
    }

    /// Notifies whoever waits for what was completed since the last time.
    #[inline]
    pub fn notify_waiters(&mut self) {
        self.core.notify_waiters();
    }

    /// Whether there is nothing to do until a doorbell, a frame or a request comes.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.polled.is_empty()
            && self.fifo.is_empty()
            && self.core.ready.is_empty()
            && self.core.outbox.is_empty()
            && self.core.events.is_empty()
            && !self.core.any_broken
    }

    /// Ends everything, for a driver that is gone: the peers are told. Returns what they must be told.
    pub fn detach(mut self) -> Vec<ControlFrame> {
        for context in self.contexts.iter_mut().flatten() {
            // Nothing is written to its memory any more.
            context.broken.get_or_insert("its driver is gone");
        }
        for number in 1..MAX_CONTEXTS {
            self.end_context(number);
        }
        self.turn_visitors_away();
        self.core.outbox.into()
    }

    /// Ends the contexts whose owners broke the rules. Context 0 takes the others with it.
    fn fail_broken_contexts(&mut self) {
        if !std::mem::take(&mut self.core.any_broken) {
            return;
        }
        let broken = |context: &Option<Context>| {
            context.as_ref().is_some_and(|context| context.broken.is_some() && !context.failed)
        };
        if broken(&self.contexts[usize::from(KERNEL_CONTEXT)]) {
            for context in self.contexts.iter_mut().flatten() {
                context.broken.get_or_insert("the Kernel Agent's context failed");
            }
        }
        for number in 0..MAX_CONTEXTS {
            if broken(&self.contexts[usize::from(number)]) {
                self.fail_context(number);
            }
        }
    }

    fn fail_context(&mut self, number: u16) {
        self.end_waits(number);
        if number == KERNEL_CONTEXT {
            self.turn_visitors_away();
        }
        let Some(context) = &mut self.contexts[usize::from(number)] else {
            return;
        };
        warn_limited!(
            "NIC {}: context {number} failed: {}",
            self.core.address,
            context.broken.unwrap_or("for no known reason")
        );
        context.failed = true;
        context.polled = false;
        let (table, acceptor) = context.token_table();
        acceptor.close(table);
        self.core.memory.count(Counter::contexts_broken, 1);
        self.core.events.push(Event { kind: EventKind::CONTEXT_FAILED.0, context: number, nra_word: 0 });
        for vi in context.vi_numbers() {
            self.core.end_connection(context, ViNumber { context: number, vi }, ViState::Error, Peer::Tell);
        }
    }
}
