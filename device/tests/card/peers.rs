//! Connections between equals.

use crate::harness::{DELIVERY, Fabric, NONE, OK_RECEIVE, PTAG, Process, address};
use proptest::prelude::*;
use vianic_abi::command::{Cancel, ConnectBlock, CreateVi, Opcode, ViAttributes};
use vianic_abi::completion::CompletionKind;
use vianic_abi::descriptor::{Control, DescriptorStatus};
use vianic_abi::status::{ErrorCode, ReliabilityLevel, Status};

/// Two cards with a process each that has VIs 0 to `vis`.
fn fabric(vis: u16) -> (Fabric, [Process; 2]) {
    let mut fabric = Fabric::new(2);
    let processes = [fabric.open(0, 1), fabric.open(1, 1)];
    for process in &processes {
        for vi in 0..vis {
            fabric.create_vi(process, vi, DELIVERY, NONE);
        }
    }
    (fabric, processes)
}

fn other_nic(process: &Process) -> Option<vianic_device::vito::frame::NicAddress> {
    Some(address(if process.port == 0 { 2 } else { 1 }))
}

/// Sends an empty message with immediate data from one VI to the other; whether it came.
fn is_connected(fabric: &mut Fabric, from: (&Process, u16), to: (&Process, u16)) -> bool {
    let receive = fabric.guests[to.0.port].descriptor(to.0.context, vec![]);
    let mut send = fabric.guests[from.0.port].descriptor(from.0.context, vec![]);
    (send.control, send.immediate) = (Control::IMMEDIATE.bits(), 7);
    fabric.post_descriptor(to.0, to.1, true, &receive);
    fabric.post_descriptor(from.0, from.1, false, &send);
    fabric.run();
    fabric.status(from.0.port, &send).0 == DescriptorStatus::DONE
        && fabric.status(to.0.port, &receive).0 == OK_RECEIVE | DescriptorStatus::IMMEDIATE
}

#[test]
fn two_requests_that_ask_for_each_other_meet_in_any_order() {
    for (first, at_once) in [(0, false), (1, false), (0, true), (1, true)] {
        let (mut fabric, processes) = fabric(1);
        let (one, other) = (&processes[first], &processes[1 - first]);
        let (asked, block) = fabric.ask_peer(one, 0, other_nic(one), ("left", "right"));
        if !at_once {
            assert_eq!(fabric.outcome(one.port, asked), None, "it waits");
        }
        let (answered, _) = fabric.ask_peer(other, 0, other_nic(other), ("right", "left"));
        assert_eq!(fabric.outcome(one.port, asked), Some(Status::SUCCESS));
        assert_eq!(fabric.outcome(other.port, answered), Some(Status::SUCCESS));
        let block: ConnectBlock = fabric.guests[one.port].memory.read(block).expect("in RAM");
        assert_eq!(block.attributes.max_transfer_size, 1 << 20);
        assert!(is_connected(&mut fabric, (one, 0), (other, 0)));
        assert!(is_connected(&mut fabric, (other, 0), (one, 0)));
        for guest in &fabric.guests {
            assert_eq!(guest.nic_memory.counters().connections, 1);
        }
    }
}

#[test]
fn two_vis_of_one_card_meet_and_none_meets_itself() {
    let (mut fabric, [process, _]) = fabric(4);
    let own = Some(address(1));
    let (first, _) = fabric.ask_peer(&process, 0, None, ("x", "x"));
    assert_eq!(fabric.outcome(0, first), None, "nobody else asks");
    let (second, _) = fabric.ask_peer(&process, 1, own, ("x", "x"));
    let (third, _) = fabric.ask_peer(&process, 2, own, ("x", "x"));
    assert_eq!(fabric.outcome(0, first), Some(Status::SUCCESS));
    assert_eq!(fabric.outcome(0, second), Some(Status::SUCCESS));
    assert_eq!(fabric.outcome(0, third), None);
    let (fourth, _) = fabric.ask_peer(&process, 3, None, ("x", "x"));
    assert_eq!(fabric.outcome(0, third), Some(Status::SUCCESS));
    assert_eq!(fabric.outcome(0, fourth), Some(Status::SUCCESS));
    assert!(is_connected(&mut fabric, (&process, 0), (&process, 1)));
    assert!(is_connected(&mut fabric, (&process, 3), (&process, 2)));
}

#[test]
fn names_are_compared_crosswise_and_whole() {
    let (mut fabric, [a, b]) = fabric(4);
    let nic = address(2);
    for (vi, names) in [(0, ("x", "y")), (1, ("y", "xx")), (2, ("y", ""))] {
        fabric.ask_peer(&b, vi, Some(address(1)), names);
    }
    let (asked, _) = fabric.ask_peer(&a, 0, Some(nic), ("x", "y"));
    assert_eq!(fabric.outcome(0, asked), None);
    // The right names, for the wrong NIC.
    let (strayed, _) = fabric.ask_peer(&b, 3, Some(nic), ("y", "x"));
    assert_eq!(fabric.outcome(0, asked), None);
    fabric.cancel(1, strayed);
    let (right, _) = fabric.ask_peer(&b, 3, Some(address(1)), ("y", "x"));
    assert_eq!(fabric.outcome(0, asked), Some(Status::SUCCESS));
    assert_eq!(fabric.outcome(1, right), Some(Status::SUCCESS));
}

#[test]
fn the_request_that_has_waited_longest_is_taken() {
    for (early, late) in [(0, 1), (1, 0)] {
        let (mut fabric, processes) = fabric(2);
        let (waiting, coming) = (&processes[early], &processes[late]);
        let tags = [1, 0].map(|vi| {
            let (tag, _) = fabric.ask_peer(waiting, vi, other_nic(waiting), ("x", "x"));
            fabric.run();
            tag
        });
        fabric.ask_peer(coming, 0, other_nic(coming), ("x", "x"));
        assert_eq!(fabric.outcome(waiting.port, tags[0]), Some(Status::SUCCESS));
        assert_eq!(fabric.outcome(waiting.port, tags[1]), None);
    }
}

#[test]
fn attributes_that_differ_are_told_at_both_ends_and_leave_the_vis_idle() {
    let differing = [
        (ReliabilityLevel::RELIABLE_RECEPTION, 1 << 20, Status::INVALID_RELIABILITY_LEVEL),
        (DELIVERY, 4096, Status::INVALID_MTU),
    ];
    for (level, max_transfer_size, status) in differing {
        for first in [0, 1] {
            let (mut fabric, processes) = fabric(2);
            let attributes = ViAttributes { reliability_level: level.0, flags: 0, max_transfer_size };
            let odd = CreateVi {
                context: 1,
                vi: 9,
                send_cq: NONE,
                receive_cq: NONE,
                ptag: PTAG,
                attributes,
                ..CreateVi::default()
            };
            assert_eq!(fabric.command(1, Opcode::CREATE_VI, odd), Status::SUCCESS);
            let ask = |fabric: &mut Fabric, port: usize| {
                let vi = if port == 0 { 0 } else { 9 };
                fabric.ask_peer(&processes[port], vi, other_nic(&processes[port]), ("x", "x")).0
            };
            let asked = ask(&mut fabric, first);
            fabric.run();
            let answered = ask(&mut fabric, 1 - first);
            assert_eq!(fabric.outcome(first, asked), Some(status), "{first}");
            assert_eq!(fabric.outcome(1 - first, answered), Some(status), "{first}");
            // Nothing is left of the two requests.
            let again = ask(&mut fabric, 1);
            assert_eq!(fabric.outcome(1, again), None);
            fabric.cancel(1, again);
            fabric.ask_peer(&processes[1], 0, other_nic(&processes[1]), ("x", "x"));
            let again = ask(&mut fabric, 0);
            assert_eq!(fabric.outcome(0, again), Some(Status::SUCCESS));
        }
    }
}

#[test]
fn attributes_that_differ_are_told_on_one_card_too() {
    let (mut fabric, [process, _]) = fabric(1);
    fabric.create_vi(&process, 1, ReliabilityLevel::UNRELIABLE, NONE);
    let (one, _) = fabric.ask_peer(&process, 0, None, ("x", "x"));
    let (other, _) = fabric.ask_peer(&process, 1, None, ("x", "x"));
    assert_eq!(fabric.outcome(0, one), Some(Status::INVALID_RELIABILITY_LEVEL));
    assert_eq!(fabric.outcome(0, other), Some(Status::INVALID_RELIABILITY_LEVEL));
}

#[test]
fn a_request_that_is_over_is_withdrawn() {
    type End = fn(&mut Fabric, &Process, u64);
    let ends: [(&str, End); 4] = [
        ("cancelled", |fabric, process, tag| fabric.cancel(process.port, tag)),
        ("disconnected", |fabric, process, _| {
            assert_eq!(fabric.target(process, Opcode::DISCONNECT, 0), Status::SUCCESS);
        }),
        ("destroyed", |fabric, process, _| {
            assert_eq!(fabric.target(process, Opcode::DESTROY_VI, 0), Status::SUCCESS);
        }),
        ("its process died", |fabric, process, _| {
            assert_eq!(fabric.target(process, Opcode::DESTROY_CONTEXT, 0), Status::SUCCESS);
        }),
    ];
    for (how, end) in ends {
        for first in [0, 1] {
            let (mut fabric, processes) = fabric(2);
            let (one, other) = (&processes[first], &processes[1 - first]);
            let (asked, _) = fabric.ask_peer(one, 0, other_nic(one), ("x", "x"));
            assert_eq!(fabric.outcome(one.port, asked), None);
            end(&mut fabric, one, asked);
            assert_eq!(fabric.outcome(one.port, asked), Some(Status::CANCELLED), "{how}");
            let (late, _) = fabric.ask_peer(other, 0, other_nic(other), ("x", "x"));
            assert_eq!(fabric.outcome(other.port, late), None, "{how}: nobody is there");
            if how != "its process died" {
                let (again, _) = fabric.ask_peer(one, 1, other_nic(one), ("x", "x"));
                assert_eq!(fabric.outcome(one.port, again), Some(Status::SUCCESS), "{how}");
                assert_eq!(fabric.outcome(other.port, late), Some(Status::SUCCESS), "{how}");
            }
        }
    }
}

#[test]
fn a_request_goes_on_if_its_partner_has_gone_meanwhile() {
    let (mut fabric, [a, b]) = fabric(2);
    let (waiting, _) = fabric.ask_peer(&a, 0, other_nic(&a), ("x", "x"));
    assert_eq!(fabric.outcome(0, waiting), None);
    // Asked and taken back in one turn: the answer finds nobody.
    let (brief, _) = fabric.ask_peer(&b, 0, other_nic(&b), ("x", "x"));
    fabric.submit(1, Opcode::CANCEL, Cancel { tag: brief, ..Cancel::default() });
    assert_eq!(fabric.outcome(1, brief), Some(Status::CANCELLED));
    assert_eq!(fabric.outcome(0, waiting), None);
    let (partner, _) = fabric.ask_peer(&b, 1, other_nic(&b), ("x", "x"));
    assert_eq!(fabric.outcome(1, partner), Some(Status::SUCCESS));
    assert_eq!(fabric.outcome(0, waiting), Some(Status::SUCCESS));
    assert!(is_connected(&mut fabric, (&a, 0), (&b, 1)));
}

#[test]
fn a_partner_that_gives_up_while_it_is_met_breaks_the_connection() {
    let (mut fabric, [a, b]) = fabric(1);
    let (waiting, _) = fabric.ask_peer(&b, 0, other_nic(&b), ("x", "x"));
    assert_eq!(fabric.outcome(1, waiting), None);
    let (brief, _) = fabric.ask_peer(&a, 0, other_nic(&a), ("x", "x"));
    fabric.submit(0, Opcode::CANCEL, Cancel { tag: brief, ..Cancel::default() });
    assert_eq!(fabric.outcome(0, brief), Some(Status::CANCELLED));
    assert_eq!(fabric.outcome(1, waiting), Some(Status::SUCCESS));
    let (error, _) = b.queues.reap().expect("an error");
    assert_eq!((error.kind, error.status), (CompletionKind::ERROR.0, ErrorCode::CONN_LOST.0));
}

#[test]
fn a_nic_without_a_driver_has_no_match_and_one_that_is_not_there_cannot_be_reached() {
    for first in [0, 1] {
        let (mut fabric, processes) = fabric(2);
        let (one, other) = (&processes[first], &processes[1 - first]);
        let (nowhere, _) = fabric.ask_peer(one, 0, Some(address(99)), ("x", "x"));
        assert_eq!(fabric.outcome(one.port, nowhere), Some(Status::NOT_REACHABLE));
        let (waiting, _) = fabric.ask_peer(one, 0, other_nic(one), ("x", "x"));
        assert_eq!(fabric.outcome(one.port, waiting), None);
        fabric.switch.remove(other.port);
        assert_eq!(fabric.outcome(one.port, waiting), Some(Status::NO_MATCH), "its driver has gone");
        let (absent, _) = fabric.ask_peer(one, 0, other_nic(one), ("x", "x"));
        assert_eq!(fabric.outcome(one.port, absent), Some(Status::NO_MATCH));
    }
}

#[test]
fn a_request_waits_for_a_stopped_guest() {
    let (mut fabric, [a, b]) = fabric(1);
    let (waiting, _) = fabric.ask_peer(&b, 0, other_nic(&b), ("x", "x"));
    fabric.run();
    fabric.switch.pause(1);
    let (asked, _) = fabric.ask_peer(&a, 0, other_nic(&a), ("x", "x"));
    assert_eq!(fabric.outcome(0, asked), None);
    assert!(fabric.switch.resume(1).is_some());
    assert_eq!(fabric.outcome(0, asked), Some(Status::SUCCESS));
    assert_eq!(fabric.outcome(1, waiting), Some(Status::SUCCESS));
}

#[test]
fn only_an_idle_vi_asks() {
    let (mut fabric, [a, b]) = fabric(1);
    let (first, _) = fabric.ask_peer(&a, 0, other_nic(&a), ("x", "x"));
    let (second, _) = fabric.ask_peer(&a, 0, other_nic(&a), ("y", "y"));
    assert_eq!(fabric.outcome(0, second), Some(Status::INVALID_STATE));
    let (missing, _) = fabric.ask_peer(&a, 5, other_nic(&a), ("x", "x"));
    assert_eq!(fabric.outcome(0, missing), Some(Status::INVALID_PARAMETER));
    let (_, _) = fabric.ask_peer(&b, 0, other_nic(&b), ("x", "x"));
    assert_eq!(fabric.outcome(0, first), Some(Status::SUCCESS));
    let (connected, _) = fabric.ask_peer(&a, 0, other_nic(&a), ("x", "x"));
    assert_eq!(fabric.outcome(0, connected), Some(Status::INVALID_STATE));
}

/// What is done with one of the VIs of one of the cards.
#[derive(Clone, Copy, Debug)]
enum Act {
    Ask(usize, u16),
    Cancel(usize, u16),
    Step,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..2_usize, 0..5_u16).prop_map(|(port, vi)| Act::Ask(port, vi)),
        1 => (0..2_usize, 0..5_u16).prop_map(|(port, vi)| Act::Cancel(port, vi)),
        1 => Just(Act::Step),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// However requests cross and are taken back: who is connected is connected with exactly one other, and no two are left
    /// that could be.
    #[test]
    fn requests_pair_up(acts in proptest::collection::vec(act(), 1..40)) {
        let (mut fabric, processes) = fabric(5);
        let mut asked: [[Option<u64>; 5]; 2] = Default::default();
        for act in acts {
            match act {
                Act::Ask(port, vi) if asked[port][usize::from(vi)].is_none() => {
                    let process = &processes[port];
                    let (tag, _) = fabric.ask_peer(process, vi, other_nic(process), ("x", "x"));
                    asked[port][usize::from(vi)] = Some(tag);
                }
                Act::Cancel(port, vi) => {
                    // It stays the VI's: what it asks again would only be refused if this came too late.
                    if let Some(tag) = asked[port][usize::from(vi)] {
                        fabric.submit(port, Opcode::CANCEL, Cancel { tag, ..Cancel::default() });
                    }
                }
                Act::Step => {
                    fabric.step();
                }
                Act::Ask(..) => {}
            }
        }
        fabric.run();
        let mut waiting = [0, 0];
        let mut receives = Vec::new();
        let mut sends = Vec::new();
        for (port, process) in processes.iter().enumerate() {
            for (vi, tag) in (0..).zip(asked[port]) {
                let Some(tag) = tag else { continue };
                match fabric.outcome(port, tag) {
                    None => waiting[port] += 1,
                    Some(Status::SUCCESS) => {
                        let receive = fabric.guests[port].descriptor(1, vec![]);
                        fabric.post_descriptor(process, vi, true, &receive);
                        receives.push((port, receive));
                        sends.push((port, vi));
                    }
                    Some(status) => prop_assert_eq!(status, Status::CANCELLED),
                }
            }
        }
        prop_assert!(waiting[0] == 0 || waiting[1] == 0, "{:?} wait for each other", waiting);
        let mut done = 0;
        for (port, vi) in &sends {
            let send = fabric.guests[*port].descriptor(1, vec![]);
            fabric.post_descriptor(&processes[*port], *vi, false, &send);
            fabric.run();
            done += usize::from(fabric.status(*port, &send).0 == DescriptorStatus::DONE);
        }
        // A partner that was cancelled after it had been met leaves a broken connection; the others are whole.
        let came = receives.iter().filter(|(port, receive)| fabric.status(*port, receive).0 == OK_RECEIVE).count();
        prop_assert_eq!(came, done, "each message goes to one VI, and no VI has two peers");
        prop_assert_eq!(done % 2, 0);
    }
}
