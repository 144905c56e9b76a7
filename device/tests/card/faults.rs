//! Guests that break the rules, and worlds that change: each gets its error, nobody else notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Buffer, DELIVERY, Fabric, NONE, OK_RECEIVE, PTAG, pair};
use vianic_abi::MAX_SEGMENTS;
use vianic_abi::command::Opcode;
use vianic_abi::descriptor::{DescriptorStatus, Segment};
use vianic_abi::event::EventKind;
use vianic_abi::mrt::{MrtEntry, handle};
use vianic_abi::status::{ErrorCode, ReliabilityLevel, Status};
use vianic_abi::token::{InlineBody, Token, TokenKind};
use vianic_device::guest_memory::GuestMemory;
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Fault 13 and 14: handles that do not belong, ranges that do not fit, tags that differ.
#[test]
fn fault_13_14_memory_that_is_not_the_vis_to_use() {
    type Spoil = fn(&Fabric, &mut Buffer);
    let spoil: [(&str, Spoil); 7] = [
        ("never registered", |_, buffer| buffer.handle += 100),
        ("zero", |_, buffer| buffer.handle = 0),
        ("all ones", |_, buffer| buffer.handle = u32::MAX),
        ("one byte too long", |_, buffer| buffer.length += 1),
        ("below the start", |_, buffer| buffer.address -= 1),
        ("address wraps", |_, buffer| buffer.address = u64::MAX - 4),
        ("deregistered", |fabric, buffer| fabric.guests[0].deregister(buffer)),
    ];
    for (what, spoil) in spoil {
        let (mut fabric, a, b) = pair(DELIVERY);
        let mut source = fabric.guests[0].register(1, PTAG, 16, 100);
        // In the shadow already, so that only the MDL can tell.
        let warm = fabric.guests[0].descriptor(1, vec![source.segment()]);
        let target = fabric.guests[1].register(1, PTAG, 0, 200);
        let receive = fabric.guests[1].descriptor(1, vec![target.segment()]);
        fabric.post_descriptor(&b, 0, true, &receive);
        fabric.post_descriptor(&a, 0, false, &warm);
        fabric.run();
        assert_eq!(fabric.status(0, &warm).0, DescriptorStatus::DONE, "{what}");
        spoil(&fabric, &mut source);
        let send = fabric.guests[0].descriptor(1, vec![source.segment()]);
        fabric.post_descriptor(&a, 0, false, &send);
        fabric.run();
        let expected = DescriptorStatus::DONE | DescriptorStatus::PROTECTION_ERROR;
        assert_eq!(fabric.status(0, &send).0, expected, "{what}");
    }
    for (what, context, ptag, fine) in
        [("another tag", 1, 8, false), ("another context", 2, PTAG, false), ("default tag", 1, 0, true)]
    {
        let (mut fabric, a, b) = pair(DELIVERY);
        let source = fabric.guests[0].register(context, ptag, 0, 10);
        let target = fabric.guests[1].register(1, PTAG, 0, 10);
        let receive = fabric.guests[1].descriptor(1, vec![target.segment()]);
        let mut segment = source.segment();
        for length in [10, 0] {
            segment.length = length;
            let send = fabric.guests[0].descriptor(1, vec![segment]);
            fabric.post_descriptor(&b, 0, true, &receive);
            fabric.post_descriptor(&a, 0, false, &send);
            fabric.run();
            assert_eq!(fabric.status(0, &send).0 == DescriptorStatus::DONE, fine, "{what}, {length} bytes");
        }
    }
}

/// Fault 12: sizes beyond the limits.
#[test]
fn fault_12_lengths_beyond_the_limits() {
    let (mut fabric, a, _b) = pair(DELIVERY);
    let source = fabric.guests[0].register(1, PTAG, 0, 1 << 20);
    let mut send =
        fabric.guests[0].descriptor(1, vec![source.segment(), Segment { length: 1, ..source.segment() }]);
    send.indirect = true;
    fabric.post_descriptor(&a, 0, false, &send);
    fabric.run();
    assert_eq!(fabric.status(0, &send).0, DescriptorStatus::DONE | DescriptorStatus::LENGTH_ERROR);

    let (mut fabric, a, _b) = pair(DELIVERY);
    let send = fabric.guests[0].descriptor(1, vec![Segment { length: 4, ..source.segment() }; 253]);
    fabric.post_descriptor(&a, 0, false, &send);
    fabric.run();
    assert_eq!(fabric.status(0, &send).0, DescriptorStatus::DONE | DescriptorStatus::FORMAT_ERROR);
}

/// Fault 17: posts in every state of a VI.
#[test]
fn fault_17_posts_to_a_vi_that_is_not_connected() {
    let mut fabric = Fabric::new(1);
    let process = fabric.open(0, 1);
    fabric.create_vi(&process, 0, DELIVERY, NONE);
    let flushed = DescriptorStatus::DONE | DescriptorStatus::FLUSHED_ERROR;
    let send = fabric.guests[0].descriptor(1, vec![]);
    let receive = fabric.guests[0].descriptor(1, vec![]);
    fabric.post_descriptor(&process, 0, false, &send);
    fabric.post_descriptor(&process, 0, true, &receive);
    fabric.run();
    assert_eq!(fabric.status(0, &send).0, flushed, "a send in Idle");
    assert_eq!(fabric.status(0, &receive).0, DescriptorStatus::empty(), "a receive in Idle waits");
    assert_eq!(fabric.target(&process, Opcode::DISCONNECT, 0), Status::SUCCESS);
    assert_eq!(fabric.status(0, &receive).0, flushed | DescriptorStatus::OP_RECEIVE);
    assert_eq!(fabric.target(&process, Opcode::DISCONNECT, 0), Status::SUCCESS, "twice does no harm");
    assert_eq!(fabric.target(&process, Opcode::DISCONNECT, 77), Status::INVALID_PARAMETER);
}

/// Fault 18: objects that end with descriptors outstanding.
#[test]
fn fault_18_destroy_with_descriptors_outstanding() {
    let (mut fabric, a, b) = pair(DELIVERY);
    let receive = fabric.guests[1].descriptor(1, vec![]);
    fabric.post_descriptor(&b, 0, true, &receive);
    assert_eq!(fabric.target(&b, Opcode::DESTROY_VI, 0), Status::SUCCESS);
    assert_eq!(fabric.target(&b, Opcode::DESTROY_VI, 0), Status::INVALID_PARAMETER, "twice");
    fabric.run();
    let (error, _) = a.queues.reap().expect("an error");
    assert_eq!(error.status, ErrorCode::CONN_LOST.0);
    assert_eq!(fabric.target(&b, Opcode::DESTROY_CONTEXT, 0), Status::SUCCESS);
    assert_eq!(fabric.target(&b, Opcode::DESTROY_CONTEXT, 0), Status::INVALID_PARAMETER);
    let b = fabric.open(1, 1);
    fabric.create_vi(&b, 0, DELIVERY, NONE);
}

/// Faults 42 and 43: a corrupt Token Table, a command in a user's table. Only that context breaks.
#[test]
fn fault_42_43_a_context_that_breaks_the_rules_breaks_alone() {
    let tokens = [
        Token::new(TokenKind::COMMAND, Opcode::DESTROY_CONTEXT.0, 0, 1, [0_u64; 6]),
        Token::new(TokenKind(0), 0, 0, 0, [0_u64; 6]),
        Token::new(TokenKind(0xff), 0, 0, 0, [0_u64; 6]),
    ];
    for token in tokens {
        let (mut fabric, a, b) = pair(DELIVERY);
        let bystander = fabric.open(0, 2);
        fabric.create_vi(&bystander, 0, DELIVERY, NONE);
        fabric.post(0, &a.queues, 1, &token);
        fabric.run();
        let events = fabric.guests[0].events.take();
        assert_eq!(
            events.iter().map(|event| (event.kind, event.context)).collect::<Vec<_>>(),
            [(EventKind::CONTEXT_FAILED.0, 1)]
        );
        assert!(a.queues.post(&token).is_err(), "the table is closed");
        let (error, _) = b.queues.reap().expect("the peer hears of it");
        assert_eq!(error.status, ErrorCode::CONN_LOST.0);
        // The others go on.
        fabric.create_vi(&b, 1, DELIVERY, NONE);
        fabric.connect((&bystander, 0), (&b, 1));
        assert_eq!(fabric.target(&a, Opcode::DESTROY_CONTEXT, 0), Status::SUCCESS);
    }
}

/// Fault 42: the counter of the Token Table says what it likes.
#[test]
fn fault_42_a_wild_last_inserted_entry_does_no_harm() {
    let (mut fabric, a, b) = pair(DELIVERY);
    for wild in [5_u32, u32::MAX, 0] {
        fabric.guests[0].memory.write(a.queues.token_table, &wild).expect("in RAM");
        fabric.switch.running(0).expect("running").doorbell(1);
        fabric.run();
    }
    // An unknown VI in a well-formed token is the poster's error, not the context's end.
    let token = Token::new(TokenKind::INLINE_DESCRIPTOR, 500, 0, 0x40, InlineBody::default());
    fabric.guests[0].memory.write(a.queues.token_table, &0_u32).expect("in RAM");
    fabric.post(0, &a.queues, 1, &token);
    fabric.run();
    assert!(fabric.guests[0].events.take().is_empty());
    drop(b);
}

/// Fault 44: MRT entries that make no sense, page tables outside of RAM.
#[test]
fn fault_44_mrt_entries_that_make_no_sense() {
    let sound = MrtEntry {
        handle: handle(4000, 3),
        ptag: PTAG,
        context: 1,
        page_shift: 12,
        virtual_address: 0x10_0000,
        length: 100,
        page_count: 1,
        ..MrtEntry::default()
    };
    let wild = [
        MrtEntry { length: 0, ..sound },
        MrtEntry { length: u64::MAX, ..sound },
        MrtEntry { virtual_address: u64::MAX - 10, ..sound },
        MrtEntry { page_shift: 0, ..sound },
        MrtEntry { page_shift: 64, ..sound },
        MrtEntry { page_count: 11, length: 11 << 12, ..sound },
        MrtEntry { page_count: 0, ..sound },
        MrtEntry { page_directory: 0xffff_ffff_ffff_fff8, ..sound },
        MrtEntry { page_directory: 8, page_count: 1 << 30, length: 1 << 42, ..sound },
        MrtEntry { pages: [u64::MAX; 10], ..sound },
        MrtEntry { pages: [1 << 60; 10], ..sound },
    ];
    for entry in wild {
        let (mut fabric, a, _b) = pair(DELIVERY);
        fabric.guests[0].write_mrt(4000, &entry);
        let segment = Segment { address: 0x10_0000, handle: sound.handle, length: 50 };
        let send = fabric.guests[0].descriptor(1, vec![segment]);
        fabric.post_descriptor(&a, 0, false, &send);
        fabric.run();
        assert!(!fabric.status(0, &send).0.difference(DescriptorStatus::DONE).is_empty(), "{entry:?}");
    }
}

/// Fault 45: an MDL counter that runs ahead, handles that were never registered.
#[test]
fn fault_45_a_wild_mdl() {
    let (mut fabric, a, b) = pair(DELIVERY);
    for insert in [3, 100_000, 1, u32::MAX] {
        fabric.guests[0].set_mdl_insert(insert);
        let receive = fabric.guests[1].descriptor(1, vec![]);
        let send = fabric.guests[0].descriptor(1, vec![]);
        fabric.post_descriptor(&b, 0, true, &receive);
        fabric.post_descriptor(&a, 0, false, &send);
        fabric.run();
        assert_eq!(fabric.status(0, &send).0, DescriptorStatus::DONE, "{insert}");
    }
}

/// Fault 50: a paused card keeps its messages, a card that is gone loses its connections.
#[test]
fn fault_50_pause_and_resume_lose_nothing_and_a_reset_breaks_connections() {
    let (mut fabric, a, b) = pair(DELIVERY);
    let receive = fabric.guests[1].descriptor(1, vec![]);
    let send = fabric.guests[0].descriptor(1, vec![]);
    fabric.post_descriptor(&b, 0, true, &receive);
    fabric.run();
    fabric.switch.pause(1);
    fabric.post_descriptor(&a, 0, false, &send);
    fabric.run();
    assert_eq!(fabric.status(0, &send).0, DescriptorStatus::empty(), "it waits");
    let memory = fabric.guests[1].memory.clone();
    let card = fabric.switch.resume(1).expect("a paused card");
    card.remap(&memory);
    card.look_at_all();
    fabric.run();
    assert_eq!(fabric.status(0, &send).0, DescriptorStatus::DONE);
    assert_eq!(fabric.status(1, &receive).0, OK_RECEIVE);
    fabric.switch.remove(1);
    fabric.run();
    let (error, _) = a.queues.reap().expect("an error");
    assert_eq!(error.status, ErrorCode::CONN_LOST.0);
}

/// Fault 8: another processor of the guest rewrites an indirect descriptor while the card reads it.
#[test]
fn fault_08_a_descriptor_that_changes_while_it_is_read() {
    let (mut fabric, a, b) = pair(ReliabilityLevel::UNRELIABLE);
    let source = fabric.guests[0].register(1, PTAG, 0, 4096);
    // With room for as many segments as a count may ask for: all can be read, and the descriptor be completed.
    let room = fabric.guests[0].register(1, PTAG, 64, 32 + 16 * u32::from(MAX_SEGMENTS));
    let mut send = fabric.guests[0].descriptor(1, vec![source.segment(); 3]);
    (send.address, send.physical, send.handle) = (room.address, room.physical, room.handle);
    send.indirect = true;
    let stop = AtomicBool::new(false);
    let memory = fabric.guests[0].memory.clone();
    let physical = send.physical;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for wild in (0_u64..).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // Segment count and control, then the segments' handles and lengths.
                for offset in [8, 40, 56, 72] {
                    memory.write(physical + offset, &wild).expect("in RAM");
                }
            }
        });
        // Nobody receives: on an unreliable connection every message that can be read is sent and dropped.
        let mut outcomes = Vec::new();
        while outcomes.len() < 900 || outcomes.iter().all(|outcome| *outcome == DescriptorStatus::DONE) {
            assert!(outcomes.len() < 5_000_000, "nothing wild was ever read");
            fabric.post_descriptor(&a, 0, false, &send);
            fabric.run();
            outcomes.push(fabric.status(0, &send).0);
            while b.queues.reap().is_some() {}
        }
        stop.store(true, Ordering::Relaxed);
        assert!(outcomes.iter().all(|outcome| outcome.contains(DescriptorStatus::DONE)));
        assert!(
            outcomes.iter().any(|outcome| *outcome != DescriptorStatus::DONE),
            "nothing wild was ever read"
        );
    });
    assert!(fabric.guests[0].events.take().is_empty(), "the context has not failed");
}

/// Fault 47: the guest's memory is mapped anew, then taken away, in the middle of a message.
#[test]
fn fault_47_memory_that_is_replaced_and_removed_under_a_transfer() {
    let (mut fabric, a, b) = pair(DELIVERY);
    let size = 1 << 20;
    let source = fabric.guests[0].register(1, PTAG, 0, size);
    let target = fabric.guests[1].register(1, PTAG, 0, size);
    fabric.guests[0].fill(&source, 5);
    for replaced in [true, false] {
        let receive = fabric.guests[1].descriptor(1, vec![target.segment()]);
        let send = fabric.guests[0].descriptor(1, vec![source.segment()]);
        fabric.post_descriptor(&b, 0, true, &receive);
        fabric.post_descriptor(&a, 0, false, &send);
        assert!(fabric.step());
        assert_eq!(fabric.status(0, &send).0, DescriptorStatus::empty(), "in the middle");
        if replaced {
            let same = fabric.guests[0].memory.clone();
            fabric.switch.running(0).expect("running").remap(&same);
            fabric.run();
            assert_eq!(fabric.status(0, &send).0, DescriptorStatus::DONE);
            assert!(fabric.guests[1].holds(&target, size, 5));
        } else {
            let map = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).expect("RAM");
            fabric.switch.running(0).expect("running").remap(&GuestMemory::new(Arc::new(map)));
            fabric.run();
            assert!(fabric.status(1, &receive).0.contains(DescriptorStatus::FLUSHED_ERROR));
            let (error, _) = b.queues.reap().expect("the peer hears of it");
            assert_eq!(error.status, ErrorCode::CONN_LOST.0);
        }
    }
    // The other card goes on.
    fabric.create_vi(&b, 1, DELIVERY, NONE);
    fabric.create_vi(&b, 2, DELIVERY, NONE);
    fabric.connect((&b, 1), (&b, 2));
}

/// Messages of several slices on an unreliable connection, where an error breaks nothing: what comes next is whole again, and nobody
/// hears of a lost connection.
#[test]
fn an_unreliable_message_that_fails_halfway_leaves_the_next_one_alone() {
    let (mut fabric, a, b) = pair(ReliabilityLevel::UNRELIABLE);
    let good = fabric.guests[0].register(1, PTAG, 0, 131_072);
    fabric.guests[0].fill(&good, 4);
    let target = fabric.guests[1].register(1, PTAG, 0, 300_000);
    let lost = Segment { handle: good.handle + 1000, ..good.segment() };
    let receives: Vec<_> = (0..2).map(|_| fabric.guests[1].descriptor(1, vec![target.segment()])).collect();
    for receive in &receives {
        fabric.post_descriptor(&b, 0, true, receive);
    }
    // The second slice cannot be read.
    let halfway = fabric.guests[0].descriptor(1, vec![good.segment(), lost]);
    let next = fabric.guests[0].descriptor(1, vec![Segment { length: 10, ..good.segment() }]);
    for send in [&halfway, &next] {
        fabric.post_descriptor(&a, 0, false, send);
    }
    fabric.run();
    assert_eq!(fabric.status(0, &halfway).0, DescriptorStatus::DONE | DescriptorStatus::PROTECTION_ERROR);
    assert_eq!(fabric.status(0, &next).0, DescriptorStatus::DONE);
    assert_eq!(fabric.status(1, &receives[0]).0, OK_RECEIVE | DescriptorStatus::PARTIAL_ERROR);
    assert_eq!(fabric.status(1, &receives[1]), (OK_RECEIVE, 10));
    // Three slices that nobody receives: dropped, and told of once.
    let large = fabric.guests[0].register(1, PTAG, 0, 300_000);
    let dropped = fabric.guests[0].descriptor(1, vec![large.segment()]);
    fabric.post_descriptor(&a, 0, false, &dropped);
    fabric.run();
    assert_eq!(fabric.status(0, &dropped).0, DescriptorStatus::DONE);
    let errors: Vec<_> =
        std::iter::from_fn(|| b.queues.reap()).map(|(error, _)| ErrorCode(error.status)).collect();
    assert_eq!(errors, [ErrorCode::RECVQ_EMPTY]);
    assert!(a.queues.reap().is_none());
}
