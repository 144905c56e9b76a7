//! Tokens: the 64-byte entries of a Token Table's Post_Array (claim 1: descriptors and control-path commands).
//!
//! | word | inline descriptor | indirect descriptor | control command |
//! |---|---|---|---|
//! | 0 | sequence (32), VI (16), kind (8), flags (8) | same | sequence (32), opcode (16), kind (8), 0 |
//! | 1 | descriptor address | descriptor address | tag, returned with the completion |
//! | 2 | descriptor handle (32), control (16), segment count (16) | descriptor handle (32), 0 | parameters |
//! | 3 | immediate (32), length (32) | 0 | parameters |
//! | 4, 5 | segment 0 | 0 | parameters |
//! | 6, 7 | segment 1 | 0 | parameters |

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::descriptor::Segment;
use crate::{open_enum, shared_layout};

/// Bytes of a Post_Array entry.
pub const TOKEN_SIZE: usize = 64;

/// Segments that fit into an inline descriptor.
pub const INLINE_SEGMENTS: u16 = 2;

open_enum! {
    /// What an entry carries.
    TokenKind: u8 {
        /// A descriptor of up to [`INLINE_SEGMENTS`] segments, whole.
        INLINE_DESCRIPTOR = 1,
        /// Address and handle of a descriptor in the application's registered memory.
        INDIRECT_DESCRIPTOR = 2,
        /// A control command; in context 0 only.
        COMMAND = 3,
    }
}

/// Flag: the descriptor is for the VI's receive queue.
pub const TOKEN_RECEIVE: u8 = 0x01;

/// A Post_Array entry as the poster fills it. The sequence word is the protocol's
/// ([`crate::token_table`]), not the poster's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub struct Token {
    /// The entry's index in the table's endless sequence; makes the entry valid.
    pub sequence: u32,
    /// VI number, or a command's [`Opcode`](crate::command::Opcode).
    pub vi: u16,
    /// [`TokenKind`].
    pub kind: u8,
    /// [`TOKEN_RECEIVE`] or 0.
    pub flags: u8,
    /// Virtual address of the descriptor, or a command's tag.
    pub descriptor: u64,
    /// The other six words, by kind.
    pub body: [u64; 6],
}
shared_layout!(Token, TOKEN_SIZE, {
    sequence @ 0, vi @ 4, kind @ 6, flags @ 7, descriptor @ 8, body @ 16,
});

/// The body of an inline descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InlineBody {
    /// Memory handle of the descriptor's own memory, where the completion goes.
    pub descriptor_handle: u32,
    /// Control field, as in [`ControlSegment`](crate::descriptor::ControlSegment).
    pub control: u16,
    /// Segments used.
    pub segment_count: u16,
    /// Immediate data.
    pub immediate: u32,
    /// Length field.
    pub length: u32,
    /// The segments.
    pub segments: [Segment; 2],
}
shared_layout!(InlineBody, 48, {
    descriptor_handle @ 0, control @ 4, segment_count @ 6, immediate @ 8, length @ 12, segments @ 16,
});

/// The body of an indirect descriptor reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IndirectBody {
    /// Memory handle of the region that holds the descriptor.
    pub descriptor_handle: u32,
    /// Zero.
    pub reserved: [u32; 11],
}
shared_layout!(IndirectBody, 48, {
    descriptor_handle @ 0, reserved @ 4,
});

impl Token {
    /// A token of `kind` with a body of 48 bytes.
    #[must_use]
    pub fn new<B: IntoBytes + Immutable>(
        kind: TokenKind,
        vi: u16,
        flags: u8,
        descriptor: u64,
        body: B,
    ) -> Self {
        const { assert!(size_of::<B>() == 48) };
        Self { sequence: 0, vi, kind: kind.0, flags, descriptor, body: words(&body) }
    }

    /// The body as `B`, where it stands.
    #[inline]
    #[must_use]
    pub fn body_ref<B: FromBytes + KnownLayout + Immutable>(&self) -> &B {
        const { assert!(size_of::<B>() == 48 && align_of::<B>() <= align_of::<u64>()) };
        B::ref_from_bytes(self.body.as_bytes()).unwrap_or_else(|_| unreachable!("size and alignment fit"))
    }

    /// The body as `B`.
    #[must_use]
    pub fn body<B: FromBytes>(&self) -> B {
        const { assert!(size_of::<B>() == 48) };
        B::read_from_bytes(self.body.as_bytes()).unwrap_or_else(|_| unreachable!("sizes are equal"))
    }
}

fn words<B: IntoBytes + Immutable>(body: &B) -> [u64; 6] {
    let mut words = [0; 6];
    words.as_mut_bytes().copy_from_slice(body.as_bytes());
    words
}
