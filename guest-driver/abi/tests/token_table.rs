//! Tokens, and a Token Table on the processor's own atomics.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::array::from_fn;

use proptest::prelude::*;
use vianic_abi::command::{CreateVi, Opcode};
use vianic_abi::descriptor::Segment;
use vianic_abi::mrt::{HANDLE_INDEX_BITS, MAX_GENERATION, MRT_MAX_ENTRIES, handle, handle_index};
use vianic_abi::sync::CacheLine;
use vianic_abi::token::{IndirectBody, InlineBody, TOKEN_RECEIVE, Token, TokenKind};
use vianic_abi::token_table::{Acceptor, Doorbell, Header, NicState, PostError, Poster, Slot, TokenTable};
use zerocopy::{FromBytes, IntoBytes};

struct Memory {
    header: Header,
    slots: Vec<Slot>,
    poster: Poster,
}

impl Memory {
    fn new(entries: usize) -> Self {
        let word = || CacheLine(AtomicU32::new(0));
        Self {
            header: Header {
                last_inserted_entry: word(),
                last_accepted_entry: word(),
                nic_state: word(),
                reserved: word(),
            },
            slots: (0..entries).map(|_| Slot::new(from_fn(|_| AtomicU64::new(0)))).collect(),
            poster: Poster::default(),
        }
    }

    fn table(&self) -> TokenTable<'_> {
        TokenTable::new(&self.header, &self.slots)
    }
}

fn token(number: u64) -> Token {
    Token::new(TokenKind::COMMAND, 1, 0, number, [number; 6])
}

fn post(memory: &Memory, number: u64) -> Result<Doorbell, PostError> {
    memory.poster.post(memory.table(), &token(number), || false)
}

#[test]
fn a_burst_to_a_sleeping_nic_rings_once() {
    let memory = Memory::new(16);
    let rung: Vec<Doorbell> = (0..16).map(|number| post(&memory, number).expect("there is room")).collect();
    assert_eq!(rung[0], Doorbell::Ring);
    assert!(rung[1..].iter().all(|doorbell| *doorbell == Doorbell::NotNeeded));
}

#[test]
fn nobody_rings_at_a_nic_that_polls() {
    let memory = Memory::new(16);
    Acceptor::new().start_polling(memory.table());
    assert!((0..16).all(|number| post(&memory, number) == Ok(Doorbell::NotNeeded)));
}

#[test]
fn a_nic_does_not_fall_asleep_over_an_entry() {
    let memory = Memory::new(4);
    let mut acceptor = Acceptor::new();
    acceptor.start_polling(memory.table());
    assert_eq!(post(&memory, 0), Ok(Doorbell::NotNeeded));
    assert!(!acceptor.fall_asleep(memory.table()));
    assert!(acceptor.next(memory.table()).is_some());
    acceptor.publish(memory.table());
    assert!(acceptor.fall_asleep(memory.table()));
    assert_eq!(post(&memory, 1), Ok(Doorbell::Ring));
}

#[test]
fn a_full_table_takes_nothing_until_entries_are_published_as_accepted() {
    let memory = Memory::new(2);
    let mut acceptor = Acceptor::new();
    for number in 0..2 {
        assert!(post(&memory, number).is_ok());
    }
    assert!(acceptor.next(memory.table()).is_some());
    let mut looks = 0;
    let posted = memory.poster.post(memory.table(), &token(2), || {
        looks += 1;
        if looks == 3 {
            acceptor.publish(memory.table());
        }
        looks < 5
    });
    assert!(posted.is_ok());
    assert_eq!(looks, 3);
    assert_eq!(post(&memory, 3), Err(PostError::GaveUp));
}

#[test]
fn a_closed_table_refuses() {
    let memory = Memory::new(1);
    assert!(post(&memory, 0).is_ok());
    let waiting = memory.poster.post(memory.table(), &token(1), || {
        Acceptor::new().close(memory.table());
        true
    });
    assert_eq!(waiting, Err(PostError::Closed));
    assert_eq!(post(&memory, 2), Err(PostError::Closed));
    assert_eq!(memory.header.nic_state.0.load(Ordering::Relaxed), NicState::CLOSED.0);
}

fn segment() -> impl Strategy<Value = Segment> {
    any::<(u64, u32, u32)>().prop_map(|(address, handle, length)| Segment { address, handle, length })
}

proptest! {
    #[test]
    fn tokens_arrive_as_posted(
        vi: u16, descriptor: u64, descriptor_handle: u32, control: u16, segment_count: u16, immediate: u32, length: u32,
        segments in [segment(), segment()],
    ) {
        let memory = Memory::new(2);
        let mut acceptor = Acceptor::new();
        let inline = InlineBody { descriptor_handle, control, segment_count, immediate, length, segments };
        let indirect = IndirectBody { descriptor_handle, reserved: [0; 11] };
        let create = CreateVi { context: vi, ptag: length, ..CreateVi::default() };
        let posted = [
            Token::new(TokenKind::INLINE_DESCRIPTOR, vi, TOKEN_RECEIVE, descriptor, inline),
            Token::new(TokenKind::INDIRECT_DESCRIPTOR, vi, 0, descriptor, indirect),
            Token::new(TokenKind::COMMAND, Opcode::CREATE_VI.0, 0, descriptor, create),
        ];
        let mut taken = Vec::new();
        for token in &posted {
            prop_assert!(memory.poster.post(memory.table(), token, || false).is_ok());
            taken.push(acceptor.next(memory.table()).expect("it is there"));
            acceptor.publish(memory.table());
        }
        for (index, (taken, posted)) in (1..).zip(taken.iter().zip(&posted)) {
            prop_assert_eq!(*taken, Token { sequence: index, ..*posted });
        }
        prop_assert_eq!(taken[0].body::<InlineBody>(), inline);
        prop_assert_eq!(taken[1].body::<IndirectBody>(), indirect);
        prop_assert_eq!(taken[2].body::<CreateVi>(), create);
    }

    #[test]
    fn a_token_is_its_bytes(bytes in proptest::array::uniform32(any::<u16>())) {
        let token = Token::read_from_bytes(bytes.as_bytes()).expect("64 bytes");
        prop_assert_eq!(token.as_bytes(), bytes.as_bytes());
    }

    #[test]
    fn handles_are_never_0_or_all_ones(index in 0..MRT_MAX_ENTRIES, generation in 1..=MAX_GENERATION) {
        let handle = handle(index, generation);
        prop_assert_ne!(handle, 0);
        prop_assert_ne!(handle, u32::MAX);
        prop_assert_eq!(handle_index(handle), index);
        prop_assert_eq!(handle >> HANDLE_INDEX_BITS, generation);
    }
}

#[test]
fn the_first_and_the_last_handle_are_not_reserved_ones() {
    for index in [0, MRT_MAX_ENTRIES - 1, (1 << HANDLE_INDEX_BITS) - 1] {
        for generation in [1, MAX_GENERATION] {
            assert!(![0, u32::MAX].contains(&handle(index, generation)));
        }
    }
}

#[test]
fn a_table_goes_round_many_times() {
    let memory = Memory::new(4);
    let mut acceptor = Acceptor::new();
    for number in 0..10_000 {
        assert!(post(&memory, number).is_ok());
        let taken = acceptor.next(memory.table()).expect("it is there");
        assert_eq!(taken.descriptor, number);
        assert!(acceptor.next(memory.table()).is_none());
        acceptor.publish(memory.table());
    }
}

/// The poster's side of the overflow; the NIC's side is the same comparison of the same index.
#[test]
fn indices_overflow_without_notice() {
    let memory = Memory::new(4);
    for counter in [&memory.header.last_inserted_entry, &memory.header.last_accepted_entry] {
        counter.0.store(u32::MAX - 1, Ordering::Relaxed);
    }
    assert_eq!(post(&memory, 0), Ok(Doorbell::Ring));
    for number in 1..4 {
        assert_eq!(post(&memory, number), Ok(Doorbell::NotNeeded));
    }
    assert_eq!(post(&memory, 4), Err(PostError::GaveUp));
    assert_eq!(memory.header.last_inserted_entry.0.load(Ordering::Relaxed), 3);
}
