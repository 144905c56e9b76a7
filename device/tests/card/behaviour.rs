//! What the card does for guests that keep the rules.

use crate::harness::{Buffer, DELIVERY, Fabric, NONE, OK_RECEIVE, PTAG, address, pair};
use vianic_abi::command::{Answer, ConnectBlock, Opcode};
use vianic_abi::completion::CompletionKind;
use vianic_abi::descriptor::{Control, DescriptorStatus, Segment};
use vianic_abi::event::EventKind;
use vianic_abi::nic_memory::{NRA_ERRORS, nra_cq, nra_work_queue};
use vianic_abi::status::{ErrorCode, ReliabilityLevel, Status};

#[test]
fn a_message_arrives_whole_for_every_size_around_the_page_and_slice_limits() {
    let (mut fabric, a, b) = pair(DELIVERY);
    let sizes = [0, 1, 63, 4095, 4096, 4097, 10 * 4096, 10 * 4096 + 1, 11 * 4096, 131_072, 131_073, 1 << 20];
    for (seed, size) in (1..).zip(sizes) {
        let source = Buffer { length: size, ..fabric.guests[0].register(1, PTAG, 5, size.max(1)) };
        let target = Buffer { length: size, ..fabric.guests[1].register(1, PTAG, 2048, size.max(1)) };
        fabric.guests[0].fill(&source, seed);
        let receive = fabric.guests[1].descriptor(1, vec![target.segment()]);
        let send = fabric.guests[0].descriptor(1, vec![source.segment()]);
        fabric.post_descriptor(&b, 0, true, &receive);
        fabric.post_descriptor(&a, 0, false, &send);
        fabric.run();
        assert_eq!(fabric.status(1, &receive), (OK_RECEIVE, size), "{size}");
        assert_eq!(fabric.status(0, &send), (DescriptorStatus::DONE, size), "{size}");
        assert!(fabric.guests[1].holds(&target, size, seed), "{size}");
    }
}

#[test]
fn segments_are_gathered_and_scattered_inline_and_indirect() {
    let (mut fabric, a, b) = pair(DELIVERY);
    for (seed, pieces, indirect) in [(1, 1, true), (2, 2, false), (3, 2, true), (4, 7, true), (5, 252, true)]
    {
        let cut = |whole: &Buffer| -> Vec<Segment> {
            let step = whole.length / pieces;
            (0..pieces)
                .map(|i| {
                    let length = if i + 1 == pieces { whole.length - i * step } else { step };
                    Segment { address: whole.address + u64::from(i * step), length, ..whole.segment() }
                })
                .collect()
        };
        let source = fabric.guests[0].register(1, PTAG, 100, 20_000);
        let target = fabric.guests[1].register(1, PTAG, 3000, 20_000);
        fabric.guests[0].fill(&source, seed);
        let mut receive = fabric.guests[1].descriptor(1, vec![target.segment()]);
        let mut send = fabric.guests[0].descriptor(1, cut(&source));
        (receive.indirect, send.indirect) = (indirect, indirect);
        fabric.post_descriptor(&b, 0, true, &receive);
        fabric.post_descriptor(&a, 0, false, &send);
        fabric.run();
        assert_eq!(fabric.status(1, &receive), (OK_RECEIVE, 20_000), "{pieces}");
        assert!(fabric.guests[1].holds(&target, 20_000, seed), "{pieces}");
    }
    let counters = fabric.guests[0].nic_memory.counters();
    assert!(counters.tokens_inline >= 1 && counters.tokens_indirect >= 4 && counters.tokens_command >= 3);
}

#[test]
fn immediate_data_travels_and_is_left_alone_when_none_came() {
    let (mut fabric, a, b) = pair(DELIVERY);
    for immediate in [None, Some(0xdead_beef)] {
        let receive = fabric.guests[1].descriptor(1, vec![]);
        fabric.guests[1].memory.write(receive.physical + 20, &7_u32).expect("in RAM");
        let mut send = fabric.guests[0].descriptor(1, vec![]);
        if let Some(data) = immediate {
            (send.control, send.immediate) = (Control::IMMEDIATE.bits(), data);
        }
        fabric.post_descriptor(&b, 0, true, &receive);
        fabric.post_descriptor(&a, 0, false, &send);
        fabric.run();
        let (status, length) = fabric.status(1, &receive);
        assert_eq!(length, 0);
        assert_eq!(status.contains(DescriptorStatus::IMMEDIATE), immediate.is_some());
        assert_eq!(fabric.guests[1].memory.read::<u32>(receive.physical + 20), Ok(immediate.unwrap_or(7)));
    }
}

#[test]
fn a_nic_connects_to_itself() {
    let mut fabric = Fabric::new(1);
    let process = fabric.open(0, 3);
    fabric.create_vi(&process, 0, DELIVERY, NONE);
    fabric.create_vi(&process, 9, DELIVERY, NONE);
    fabric.connect((&process, 0), (&process, 9));
    let source = fabric.guests[0].register(3, PTAG, 0, 300_000);
    let target = fabric.guests[0].register(3, PTAG, 0, 300_000);
    fabric.guests[0].fill(&source, 9);
    let receive = fabric.guests[0].descriptor(3, vec![target.segment()]);
    let send = fabric.guests[0].descriptor(3, vec![source.segment()]);
    fabric.post_descriptor(&process, 9, true, &receive);
    fabric.post_descriptor(&process, 0, false, &send);
    fabric.run();
    assert_eq!(fabric.status(0, &receive), (OK_RECEIVE, 300_000));
    assert!(fabric.guests[0].holds(&target, 300_000, 9));
}

#[test]
fn completions_go_through_the_mcq_with_their_queue_and_cq() {
    let mut fabric = Fabric::new(2);
    let (a, b) = (fabric.open(0, 1), fabric.open(1, 1));
    for (process, cq) in [(&a, 5), (&b, 6)] {
        assert_eq!(fabric.target(process, Opcode::CREATE_CQ, cq), Status::SUCCESS);
        fabric.create_vi(process, 0, DELIVERY, cq);
    }
    fabric.connect((&a, 0), (&b, 0));
    let receive = fabric.guests[1].descriptor(1, vec![]);
    let send = fabric.guests[0].descriptor(1, vec![]);
    fabric.post_descriptor(&b, 0, true, &receive);
    fabric.post_descriptor(&a, 0, false, &send);
    fabric.run();
    let (completion, _) = b.queues.reap().expect("a completion");
    assert_eq!((completion.cq, completion.flags, completion.vi), (6, 1, 0));
    assert_eq!((completion.descriptor, completion.kind), (receive.address, CompletionKind::DESCRIPTOR.0));
    assert_eq!(completion.status, OK_RECEIVE.bits());
    let (completion, _) = a.queues.reap().expect("a completion");
    assert_eq!((completion.cq, completion.flags, completion.descriptor), (5, 0, send.address));
    assert_eq!(fabric.target(&a, Opcode::DESTROY_CQ, 5), Status::INVALID_STATE, "a VI uses it");
}

#[test]
fn an_armed_word_notifies_once_and_an_unarmed_one_never() {
    let (mut fabric, a, b) = pair(DELIVERY);
    let word = nra_work_queue(0, true);
    let mut notified = Vec::new();
    for armed in [false, true, false] {
        if armed {
            fabric.guests[1].nic_memory.nra_word(1, word).store(1, std::sync::atomic::Ordering::Relaxed);
        }
        for _ in 0..2 {
            let receive = fabric.guests[1].descriptor(1, vec![]);
            let send = fabric.guests[0].descriptor(1, vec![]);
            fabric.post_descriptor(&b, 0, true, &receive);
            fabric.post_descriptor(&a, 0, false, &send);
            fabric.run();
        }
        notified.push(fabric.guests[1].events.take().len());
    }
    assert_eq!(notified, [0, 1, 0]);
}

#[test]
fn an_mcq_that_is_not_emptied_holds_completions_back_and_loses_none() {
    let mut fabric = Fabric::new(1);
    let process = fabric.open(0, 1);
    assert_eq!(fabric.target(&process, Opcode::CREATE_CQ, 0), Status::SUCCESS);
    fabric.create_vi(&process, 0, DELIVERY, 0);
    // Sends on an unconnected VI complete at once.
    let mut posted = Vec::new();
    for _ in 0..200 {
        let send = fabric.guests[0].descriptor(1, vec![]);
        fabric.post_descriptor(&process, 0, false, &send);
        fabric.run();
        posted.push(send.address);
    }
    let mut reaped = Vec::new();
    while let Some((completion, stalled)) = process.queues.reap() {
        reaped.push(completion.descriptor);
        if stalled {
            fabric.switch.running(0).expect("running").doorbell(1);
            fabric.run();
        }
    }
    assert_eq!(reaped, posted);
    assert!(fabric.guests[0].nic_memory.counters().mcq_stalls > 0);
    assert_eq!(
        fabric.guests[0].nic_memory.nra_word(1, nra_cq(0)).load(std::sync::atomic::Ordering::Relaxed),
        0
    );
}

#[test]
fn a_disconnect_flushes_both_ends_and_breaks_the_other() {
    let (mut fabric, a, b) = pair(DELIVERY);
    let receives: Vec<_> = (0..3).map(|_| fabric.guests[1].descriptor(1, vec![])).collect();
    for receive in &receives {
        fabric.post_descriptor(&b, 0, true, receive);
    }
    assert_eq!(fabric.target(&a, Opcode::DISCONNECT, 0), Status::SUCCESS);
    fabric.run();
    for receive in &receives {
        assert!(fabric.status(1, receive).0.contains(DescriptorStatus::FLUSHED_ERROR));
    }
    let (error, _) = b.queues.reap().expect("an error");
    assert_eq!((error.kind, error.status), (CompletionKind::ERROR.0, ErrorCode::CONN_LOST.0));
    assert!(a.queues.reap().is_none(), "who disconnects hears nothing of it");
    // In Error a receive is flushed at once; after a disconnect the VI can be used again.
    let receive = fabric.guests[1].descriptor(1, vec![]);
    fabric.post_descriptor(&b, 0, true, &receive);
    fabric.run();
    assert!(fabric.status(1, &receive).0.contains(DescriptorStatus::FLUSHED_ERROR));
    assert_eq!(fabric.target(&b, Opcode::DISCONNECT, 0), Status::SUCCESS);
    fabric.connect((&b, 0), (&a, 0));
}

#[test]
fn without_a_receive_descriptor_each_level_does_as_it_must() {
    let levels = [
        (ReliabilityLevel::UNRELIABLE, DescriptorStatus::DONE),
        (DELIVERY, DescriptorStatus::DONE | DescriptorStatus::TRANSPORT_ERROR),
        (
            ReliabilityLevel::RELIABLE_RECEPTION,
            DescriptorStatus::DONE | DescriptorStatus::REMOTE_DESCRIPTOR_ERROR,
        ),
    ];
    for (level, expected) in levels {
        let (mut fabric, a, b) = pair(level);
        fabric.guests[1].nic_memory.nra_word(1, NRA_ERRORS).store(1, std::sync::atomic::Ordering::Relaxed);
        let send = fabric.guests[0].descriptor(1, vec![]);
        fabric.post_descriptor(&a, 0, false, &send);
        fabric.run();
        assert_eq!(fabric.status(0, &send).0, expected, "{level:?}");
        let (error, _) = b.queues.reap().expect("an error");
        assert_eq!(error.status, ErrorCode::RECVQ_EMPTY.0, "{level:?}");
        let events = fabric.guests[1].events.take();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].kind, events[0].nra_word), (EventKind::NOTIFY.0, NRA_ERRORS));
    }
}

#[test]
fn a_receive_descriptor_that_is_too_small_does_at_each_level_as_it_must() {
    let levels = [
        (ReliabilityLevel::UNRELIABLE, DescriptorStatus::empty()),
        (DELIVERY, DescriptorStatus::TRANSPORT_ERROR),
        (ReliabilityLevel::RELIABLE_RECEPTION, DescriptorStatus::REMOTE_DESCRIPTOR_ERROR),
    ];
    for (level, error) in levels {
        let (mut fabric, a, b) = pair(level);
        let source = fabric.guests[0].register(1, PTAG, 0, 100);
        let target = fabric.guests[1].register(1, PTAG, 0, 99);
        let receives: Vec<_> =
            (0..2).map(|_| fabric.guests[1].descriptor(1, vec![target.segment()])).collect();
        for receive in &receives {
            fabric.post_descriptor(&b, 0, true, receive);
        }
        let send = fabric.guests[0].descriptor(1, vec![source.segment()]);
        fabric.post_descriptor(&a, 0, false, &send);
        fabric.run();
        assert_eq!(fabric.status(1, &receives[0]).0, OK_RECEIVE | DescriptorStatus::LENGTH_ERROR);
        assert_eq!(fabric.status(0, &send).0, DescriptorStatus::DONE | error, "{level:?}");
        let flushed = fabric.status(1, &receives[1]).0.contains(DescriptorStatus::FLUSHED_ERROR);
        assert_eq!(flushed, !error.is_empty(), "{level:?}");
        let codes: Vec<_> =
            std::iter::from_fn(|| b.queues.reap()).map(|(error, _)| ErrorCode(error.status)).collect();
        assert_eq!(codes, if flushed { vec![ErrorCode::CONN_LOST] } else { vec![] }, "{level:?}");
    }
}

#[test]
fn connecting_ends_as_it_should() {
    let mut fabric = Fabric::new(2);
    let (a, b) = (fabric.open(0, 1), fabric.open(1, 1));
    fabric.create_vi(&a, 0, DELIVERY, NONE);
    fabric.create_vi(&b, 0, ReliabilityLevel::UNRELIABLE, NONE);
    fabric.create_vi(&b, 1, DELIVERY, NONE);
    let to = |n| Some(address(n));

    let (tag, _) = fabric.request(&a, 0, to(2), "nobody");
    assert_eq!(fabric.outcome(0, tag), Some(Status::NO_MATCH));
    let (tag, _) = fabric.request(&a, 0, to(9), "nobody");
    assert_eq!(fabric.outcome(0, tag), Some(Status::NOT_REACHABLE));

    // Rejected.
    let (listen, block) = fabric.listen(&b, "x");
    let (tag, _) = fabric.request(&a, 0, to(2), "x");
    assert_eq!(fabric.outcome(1, listen), Some(Status::SUCCESS));
    assert_eq!(fabric.outcome(0, tag), None, "it waits for an answer");
    let connection = |fabric: &Fabric, block| {
        fabric.guests[1].memory.read::<ConnectBlock>(block).expect("in RAM").connection
    };
    let answer = |connection, vi| Answer { context: 1, vi, connection, ..Answer::default() };
    let first = connection(&fabric, block);
    assert_eq!(fabric.command(1, Opcode::ACCEPT, answer(first, 0)), Status::INVALID_RELIABILITY_LEVEL);
    assert_eq!(fabric.outcome(0, tag), None, "a mismatch leaves the request pending");
    assert_eq!(fabric.command(1, Opcode::REJECT, answer(first, 0)), Status::SUCCESS);
    assert_eq!(fabric.outcome(0, tag), Some(Status::REJECT));
    assert_eq!(
        fabric.command(1, Opcode::REJECT, answer(first, 0)),
        Status::INVALID_PARAMETER,
        "answered already"
    );

    // The asking side goes away.
    let (listen, block) = fabric.listen(&b, "y");
    let (tag, _) = fabric.request(&a, 0, to(2), "y");
    assert_eq!(fabric.outcome(1, listen), Some(Status::SUCCESS));
    fabric.cancel(0, tag);
    assert_eq!(fabric.outcome(0, tag), Some(Status::CANCELLED));
    assert_eq!(fabric.command(1, Opcode::ACCEPT, answer(connection(&fabric, block), 1)), Status::TIMEOUT);

    // A listener that is taken back is not found any more.
    let (listen, _) = fabric.listen(&b, "z");
    fabric.run();
    fabric.cancel(1, listen);
    assert_eq!(fabric.outcome(1, listen), Some(Status::CANCELLED));
    let (tag, _) = fabric.request(&a, 0, to(2), "z");
    assert_eq!(fabric.outcome(0, tag), Some(Status::NO_MATCH));

    // After all this the VI connects.
    fabric.connect((&a, 0), (&b, 1));
}
