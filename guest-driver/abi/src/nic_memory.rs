//! NIC memory: what the card keeps on board and shows to the guest as two virtio shared-memory regions, and
//! the virtio configuration space.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{MAX_CONTEXTS, MAX_CQ, MAX_VI, NIC_ADDRESS_LEN, open_enum, shared_layout};

/// Shared-memory region 0: registers, counters, shadow MRT. Read-only to the guest.
pub const SHM_REGISTERS: u8 = 0;
/// Shared-memory region 1: Notification Request Areas and the MDL. Writable by the guest.
pub const SHM_REQUESTS: u8 = 1;

/// Bytes of region 0. QEMU puts both regions into one PCI BAR, so the sum of their sizes must be a power of two.
pub const REGISTERS_SIZE: u64 = 0x20_0000;
/// Bytes of region 1.
pub const REQUESTS_SIZE: u64 = 0x20_0000;

/// Offset of [`Counters`] in region 0.
pub const COUNTERS_OFFSET: u64 = 0x1000;
/// Offset of the shadow MRT in region 0.
pub const SHADOW_MRT_OFFSET: u64 = 0x1_0000;
/// Entries of the shadow MRT, each of [`MRT_ENTRY_SIZE`](crate::mrt::MRT_ENTRY_SIZE) bytes.
pub const SHADOW_MRT_ENTRIES: u32 = 4096;

/// Bytes of one context's Notification Request Area: [`NRA_WORDS`] words of 32 bits.
pub const NRA_SIZE: u64 = 0x4000;
/// Words of one Notification Request Area.
pub const NRA_WORDS: u32 = 4096;
/// NRA word of the MCQ: the next entry of any kind notifies.
pub const NRA_MCQ: u32 = 0;
/// NRA word of asynchronous errors: the next one notifies.
pub const NRA_ERRORS: u32 = 1;
/// A word that the card never looks at. Under its number the Kernel Agent counts how often any word of the context has
/// fired, so that one thread can wait for many queues.
pub const NRA_ANY: u32 = 2;
/// First NRA word of the completion queues: CQ number n has word `NRA_CQ + n`.
pub const NRA_CQ: u32 = 1024;
/// First NRA word of the work queues: VI number n has `NRA_VI + 2n` (send) and `NRA_VI + 2n + 1` (receive).
pub const NRA_VI: u32 = 2048;

/// Offset of the Memory Deregistration List in region 1: a ring of [`MDL_ENTRIES`] memory handles.
pub const MDL_OFFSET: u64 = 0x10_0000;
/// Entries of the Memory Deregistration List, 32 bits each.
pub const MDL_ENTRIES: u32 = 4096;

const _: () = {
    assert!(NRA_SIZE == NRA_WORDS as u64 * 4);
    assert!(MAX_CONTEXTS as u64 * NRA_SIZE <= MDL_OFFSET);
    assert!(MDL_OFFSET + MDL_ENTRIES as u64 * 4 <= REQUESTS_SIZE);
    assert!(NRA_CQ + MAX_CQ as u32 <= NRA_VI);
    assert!(NRA_VI + 2 * MAX_VI as u32 <= NRA_WORDS);
    assert!(
        SHADOW_MRT_OFFSET + SHADOW_MRT_ENTRIES as u64 * crate::mrt::MRT_ENTRY_SIZE as u64 <= REGISTERS_SIZE
    );
    assert!((REGISTERS_SIZE + REQUESTS_SIZE).is_power_of_two());
    assert!(COUNTERS_OFFSET + size_of::<Counters>() as u64 <= SHADOW_MRT_OFFSET);
};

/// Offset of a context's Notification Request Area in region 1.
#[must_use]
pub const fn nra_offset(context: u16) -> u64 {
    context as u64 * NRA_SIZE
}

/// NRA word of completion queue `cq`.
#[must_use]
pub const fn nra_cq(cq: u16) -> u32 {
    NRA_CQ + cq as u32
}

/// NRA word of a work queue of `vi`.
#[must_use]
pub const fn nra_work_queue(vi: u16, receive: bool) -> u32 {
    NRA_VI + 2 * vi as u32 + receive as u32
}

/// `Registers::magic` of a card that is ready: the bytes "VIANIC01".
pub const REGISTERS_MAGIC: u64 = u64::from_le_bytes(*b"VIANIC01");

open_enum! {
    /// The port's link.
    LinkState: u32 {
        /// No connection can be made.
        DOWN = 0,
        /// Connected to a fabric.
        UP = 1,
    }
}

/// The registers, at the start of region 0.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Registers {
    /// [`REGISTERS_MAGIC`] once the card is ready, 0 before.
    pub magic: u64,
    /// [`ABI_VERSION`](crate::ABI_VERSION) of the card.
    pub abi_version: u32,
    /// [`LinkState`].
    pub link_state: u32,
    /// The port's address.
    pub nic_address: [u8; NIC_ADDRESS_LEN],
    /// OR of [`ReliabilityLevel`](crate::status::ReliabilityLevel)s.
    pub reliability_levels: u16,
    /// Levels for which RDMA read works, in the same form.
    pub rdma_read_levels: u16,
    /// Most segments of a descriptor.
    pub max_segments: u16,
    /// Contexts, the Kernel Agent's counted.
    pub max_contexts: u32,
    /// VIs of a context.
    pub max_vi: u32,
    /// Completion queues of a context.
    pub max_cq: u32,
    /// Descriptors outstanding on a work queue.
    pub max_descriptors: u32,
    /// Bytes of a message.
    pub max_transfer_size: u32,
    /// Bytes that travel as one unit.
    pub native_mtu: u32,
    /// Memory regions.
    pub max_regions: u32,
    /// Bytes of a discriminator.
    pub max_discriminator_len: u32,
    /// Entries of the shadow MRT.
    pub shadow_mrt_entries: u32,
    /// Entries of the MDL.
    pub mdl_entries: u32,
    /// Zero.
    pub reserved: [u32; 15],
    /// MDL entries that the card has let go of, since reset; alone on its cache line.
    pub mdl_drained: u32,
    /// Zero.
    pub reserved2: [u32; 15],
}
shared_layout!(Registers, 192, {
    magic @ 0, abi_version @ 8, link_state @ 12, nic_address @ 16, reliability_levels @ 22, rdma_read_levels @ 24, max_segments @ 26, max_contexts @ 28, max_vi @ 32, max_cq @ 36, max_descriptors @ 40, max_transfer_size @ 44, native_mtu @ 48, max_regions @ 52, max_discriminator_len @ 56, shadow_mrt_entries @ 60, mdl_entries @ 64, reserved @ 68, mdl_drained @ 128, reserved2 @ 132,
});

macro_rules! counters {
    ($($(#[$meta:meta])* $name:ident,)+) => {
        /// What the card counts, since reset; 64-bit words at [`COUNTERS_OFFSET`] of region 0. The card only adds.
        #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct Counters {
            $($(#[$meta])* pub $name: u64,)+
        }

        impl $crate::layout::Layout for Counters {
            const NAME: &'static str = "Counters";
            const FIELDS: &'static [$crate::layout::Field] = &[
                $($crate::layout::field::<Counters, _>(stringify!($name), core::mem::offset_of!(Counters, $name), |s| &s.$name),)+
            ];
        }

        impl Counters {
            /// The counters' names, in their order.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];
        }

        /// A counter's place among the words of [`Counters`].
        #[expect(missing_docs, non_camel_case_types, reason = "named and described as the fields of Counters")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter { $($name,)+ }
    };
}

counters! {
    /// Tokens accepted that carried an inline descriptor.
    tokens_inline,
    /// Tokens accepted that carried an indirect descriptor reference.
    tokens_indirect,
    /// Tokens accepted that carried a control command.
    tokens_command,
    /// Tokens refused: unknown kind, a command outside context 0.
    tokens_refused,
    /// Doorbells taken from the guest.
    doorbells,
    /// Most contexts that stood in the Out Post FIFO at once.
    fifo_high_water,
    /// Times the card looked at a Token Table.
    polls,
    /// Copy operations that found at least one valid entry.
    batches,
    /// Most entries taken by one copy operation.
    batch_high_water,
    /// Times a context's Token Table was left to the doorbell.
    sleeps,
    /// Registrations found in the shadow MRT.
    shadow_hits,
    /// Registrations fetched from the MRT.
    shadow_misses,
    /// Shadow entries that gave way to another registration.
    shadow_evictions,
    /// Lines of eight page addresses read from page tables of large regions.
    page_table_reads,
    /// Handles let go while idle.
    mdl_drained_idle,
    /// Handles let go before a registration was trusted.
    mdl_drained_validation,
    /// Handles let go because the Kernel Agent asked while there was room.
    mdl_drained_command,
    /// Handles let go because the Kernel Agent asked when the list was full.
    mdl_drained_full,
    /// Most handles that were found in the list at once.
    mdl_high_water,
    /// Messages that left a send queue, RDMA reads counted.
    messages_sent,
    /// Bytes that went to peers, also those that peers read by RDMA.
    bytes_sent,
    /// Messages placed in receive descriptors, or in memory by RDMA.
    messages_received,
    /// Bytes that came from peers, also those read from them by RDMA.
    bytes_received,
    /// Descriptors completed without error.
    completions,
    /// Descriptors completed with an error, flushed ones counted.
    completion_errors,
    /// Times a completion found its MCQ full.
    mcq_stalls,
    /// Notifications put on the event queue.
    notifications,
    /// Asynchronous errors reported.
    async_errors,
    /// Contexts broken by their owners.
    contexts_broken,
    /// Connections made.
    connections,
    /// Bytes of host memory that were plugged in while a driver was attached.
    memory_added,
    /// Bytes of host memory that were unplugged while a driver was attached.
    memory_removed,
    /// Copy operations that found one valid entry.
    batches_1,
    /// Copy operations that found 2 or 3.
    batches_2,
    /// Copy operations that found 4 to 7.
    batches_4,
    /// Copy operations that found 8 to 15.
    batches_8,
    /// Copy operations that found 16 to 31.
    batches_16,
    /// Copy operations that found 32 to 63.
    batches_32,
    /// Copy operations that found 64 to 127.
    batches_64,
    /// Copy operations that found 128 to 255.
    batches_128,
    /// Copy operations that found 256.
    batches_256,
    /// Nanoseconds in which the card was polled without pause; each of these three is counted when another state begins.
    busy_ns,
    /// Nanoseconds in which the card was polled with pauses.
    spaced_ns,
    /// Nanoseconds in which the card waited for a doorbell or for its peers.
    asleep_ns,
}

/// `ConfigSpace::magic`: the bytes "VNIC".
pub const CONFIG_MAGIC: u32 = u32::from_le_bytes(*b"VNIC");

/// The virtio configuration space: what a driver reads before it binds. Read-only.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConfigSpace {
    /// [`CONFIG_MAGIC`].
    pub magic: u32,
    /// [`ABI_VERSION`](crate::ABI_VERSION) of the card.
    pub abi_version: u32,
    /// Contexts, the Kernel Agent's counted.
    pub contexts: u32,
    /// Zero.
    pub reserved: [u32; 13],
}
shared_layout!(ConfigSpace, 64, {
    magic @ 0, abi_version @ 4, contexts @ 8, reserved @ 12,
});
