//! What guests do in the scenes: sequences of steps, mostly messages that arrive, among all that keeps messages from arriving.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use vianic_abi::NO_CQ;
use vianic_abi::descriptor::Operation;
use vianic_abi::status::ReliabilityLevel;
use vianic_device::vito::connection::SLICE;

/// Two connected VIs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) between: Between,
    pub(crate) level: ReliabilityLevel,
    pub(crate) max_transfer_size: u32,
    /// Of each VI, the completion queues of its send queue and its receive queue.
    pub(crate) cqs: [[u16; 2]; 2],
}

/// Whose the two VIs are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Between {
    Cards,
    ProcessesOfOneCard,
    OneProcess,
}

/// One VI of the scene's pairs, by a number that may go beyond them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End(pub(crate) u16);

impl End {
    /// The VI it is connected with.
    pub(crate) fn peer(self) -> Self {
        Self(self.0 ^ 1)
    }
}

/// A part of one of a process's rooms, or what pretends to be one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) room: Room,
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// The memory that each process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// A few pages, whose addresses are in the MRT entry.
    Pages,
    /// More than a slice, with a page table.
    Large,
    /// As `Pages`, closed to RDMA.
    Closed,
    /// With another protection tag.
    OtherTag,
    /// Registered by another process.
    OtherProcess,
    /// Its second page is not in the guest's RAM.
    Hole,
    /// Not registered.
    Nowhere,
}

impl Room {
    /// All that are registered.
    pub(crate) const REGISTERED: [Self; 6] =
        [Self::Pages, Self::Large, Self::Closed, Self::OtherTag, Self::OtherProcess, Self::Hole];

    /// Bytes.
    pub(crate) fn length(self) -> u32 {
        match self {
            Self::Large => 140_000,
            Self::Hole => 8000,
            _ => 12_000,
        }
    }
}

/// A descriptor to post.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) operation: Operation,
    pub(crate) immediate: Option<u32>,
    /// What an RDMA operation is about at the other end.
    pub(crate) remote: Piece,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) indirect: bool,
    pub(crate) flaw: Flaw,
}

/// What is wrong with a descriptor itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    ReservedControlBit,
    WrongHandle,
    OtherTag,
    Misaligned,
}

/// Who may wait for something, and for what.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    SendQueue(End),
    ReceiveQueue(End),
    CompletionQueue(End),
    Mcq(End),
    Errors(End),
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A message, and before it the room that it takes.
    Message {
        from: End,
        receive: Option<Post>,
        send: Post,
    },
    /// A descriptor for a VI's receive queue or its send queue.
    Post {
        at: End,
        receive: bool,
        post: Post,
    },
    /// More descriptors than a queue holds.
    Flood {
        at: End,
        receive: bool,
        post: Post,
    },
    /// The descriptor that was posted last is deregistered.
    Deregister {
        at: End,
    },
    Arm(Wait),
    Disconnect {
        at: End,
    },
    Reconnect {
        at: End,
    },
    /// The second card's guest is stopped, and goes on.
    Stop,
    GoOn,
    /// The cards run until they have nothing to do.
    Run,
    /// The processes empty their MCQs.
    Reap,
}

/// One pair of VIs, or two.
pub(crate) fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    let between = select(vec![Between::Cards, Between::ProcessesOfOneCard, Between::OneProcess]);
    let level = select(vec![
        ReliabilityLevel::UNRELIABLE,
        ReliabilityLevel::RELIABLE_DELIVERY,
        ReliabilityLevel::RELIABLE_RECEPTION,
    ]);
    let limit = prop_oneof![4 => Just(1 << 20), 1 => Just(3000_u32)];
    let cq = select(vec![NO_CQ, 0, 1]);
    let cqs = [[cq.clone(), cq.clone()], [cq.clone(), cq]];
    let pair = (between, level, limit, cqs).prop_map(|(between, level, max_transfer_size, cqs)| Pair {
        between,
        level,
        max_transfer_size,
        cqs,
    });
    vec(pair, 1..=2)
}

/// What happens to them.
pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..40)
}

fn step() -> impl Strategy<Value = Step> {
    let post = || (end(), any::<bool>(), post(10));
    prop_oneof![
        40 => (end(), message()).prop_map(|(from, (receive, send))| Step::Message { from, receive, send }),
        6 => post().prop_map(|(at, receive, post)| Step::Post { at, receive, post }),
        1 => post().prop_map(|(at, receive, post)| Step::Flood { at, receive, post }),
        2 => end().prop_map(|at| Step::Deregister { at }),
        8 => wait().prop_map(Step::Arm),
        1 => end().prop_map(|at| Step::Disconnect { at }),
        12 => end().prop_map(|at| Step::Reconnect { at }),
        1 => Just(Step::Stop),
        3 => Just(Step::GoOn),
        16 => Just(Step::Run),
        8 => Just(Step::Reap),
    ]
}

fn end() -> impl Strategy<Value = End> + Clone {
    (0..4_u16).prop_map(End)
}

fn wait() -> impl Strategy<Value = Wait> {
    let kinds = vec![Wait::SendQueue, Wait::ReceiveQueue, Wait::CompletionQueue, Wait::Mcq, Wait::Errors];
    (select(kinds), end()).prop_map(|(kind, end): (fn(End) -> Wait, End)| kind(end))
}

/// A message that most often arrives, and room for it if it takes any.
fn message() -> impl Strategy<Value = (Option<Post>, Post)> {
    let surplus = prop_oneof![20 => Just(0_i64), 20 => 1..200_i64, 1 => Just(-1_i64)];
    (post(20), post(20), mostly_sound_piece(20), surplus).prop_map(|(mut receive, send, place, surplus)| {
        let takes_room = match send.operation {
            Operation::SEND_RECEIVE => true,
            operation => operation == Operation::RDMA_WRITE && send.immediate.is_some(),
        };
        let length: i64 = send.pieces.iter().map(|piece| i64::from(piece.length)).sum();
        let length = u32::try_from(length + surplus).unwrap_or_default();
        let room = match place.room {
            Room::Pages if place.offset.saturating_add(length) > Room::Pages.length() => Room::Large,
            room => room,
        };
        receive.operation = Operation::SEND_RECEIVE;
        receive.pieces = vec![Piece { room, length, ..place }];
        (takes_room.then_some(receive), send)
    })
}

/// A descriptor that is right: `odds` to one in each respect.
fn post(odds: u32) -> impl Strategy<Value = Post> {
    let operation = prop_oneof![
        12 => Just(Operation::SEND_RECEIVE),
        2 => Just(Operation::RDMA_WRITE),
        1 => Just(Operation::RDMA_READ),
    ];
    let pieces = prop_oneof![
        12 => vec(mostly_sound_piece(odds), 1),
        1 => vec(mostly_sound_piece(odds), 0),
        2 => vec(mostly_sound_piece(odds), 2),
        1 => vec(mostly_sound_piece(odds), 2..5),
        2 => (slice(), piece()).prop_map(|(slice, piece)| vec![slice, piece]),
    ];
    let flaws = vec![Flaw::ReservedControlBit, Flaw::WrongHandle, Flaw::OtherTag, Flaw::Misaligned];
    let flaw = prop_oneof![odds => Just(Flaw::None), 1 => select(flaws)];
    let immediate = proptest::option::of(any::<u32>());
    let indirect = proptest::bool::weighted(0.1);
    (operation, immediate, mostly_sound_piece(odds), pieces, indirect, flaw).prop_map(
        |(operation, immediate, remote, pieces, indirect, flaw)| Post {
            operation,
            immediate,
            remote,
            pieces,
            indirect,
            flaw,
        },
    )
}

fn mostly_sound_piece(odds: u32) -> impl Strategy<Value = Piece> + Clone {
    prop_oneof![odds => sound_piece(), 1 => piece()]
}

/// A piece that is the process's to use.
fn sound_piece() -> impl Strategy<Value = Piece> + Clone {
    let near = |limit: u32| limit - 2..=limit + 2;
    let small = prop_oneof![Just(0), Just(1), near(64), 2..300_u32];
    let offset = prop_oneof![Just(0), near(4096), 0..7000_u32];
    let pages = prop_oneof![6 => small, 1 => near(4096), 1 => 300..4900_u32];
    let large = prop_oneof![near(4096), near(SLICE), 1..130_000_u32];
    prop_oneof![
        8 => (Just(Room::Pages), offset.clone(), pages),
        1 => (Just(Room::Large), offset, large),
    ]
    .prop_map(|(room, offset, length)| Piece { room, offset, length })
}

/// What is gone when it turns out that the next piece is not the process's.
fn slice() -> impl Strategy<Value = Piece> + Clone {
    Just(Piece { room: Room::Large, offset: 0, length: SLICE })
}

/// Any piece.
fn piece() -> impl Strategy<Value = Piece> + Clone {
    let room = select(vec![
        Room::Pages,
        Room::Closed,
        Room::OtherTag,
        Room::OtherProcess,
        Room::Hole,
        Room::Nowhere,
    ]);
    let offset = prop_oneof![4 => 0..8000_u32, 1 => any::<u32>()];
    let length = prop_oneof![5 => 0..300_u32, 5 => 300..6000_u32, 1 => any::<u32>()];
    (room, offset, length).prop_map(|(room, offset, length)| Piece { room, offset, length })
}
