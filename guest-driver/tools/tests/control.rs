//! Over the direct link with real cards: equals that meet, attributes that change, the NICs of the fabric.

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{Cards, LIMIT};
use vipl::{
    DescriptorPool, DescriptorStatus, Error, MemoryAttributes, Nic, Poll, Queue, RegisteredBuffer,
    ReliabilityLevel, Vi, ViAttributes, ViState, Work, net_address,
};

const ATTRIBUTES: ViAttributes = ViAttributes {
    reliability: ReliabilityLevel::RELIABLE_DELIVERY,
    max_transfer_size: 1 << 20,
    tag: None,
    rdma_write: true,
    rdma_read: false,
};
const SHORT: Duration = Duration::from_millis(50);

fn vi(nic: &Nic) -> Vi {
    nic.create_vi(&ATTRIBUTES, None, None).expect("a VI")
}

fn ask(vi: &Vi, host: u8, name: &str, timeout: Option<Duration>) {
    let local = net_address(None, name.as_bytes()).expect("an address");
    let remote = net_address(Some([2, 0, 0, 0, 0, host]), name.as_bytes()).expect("an address");
    vi.connect_peer_request(&local, &remote, timeout).expect("an attempt");
}

fn meet(one: &Vi, other: &Vi, hosts: [u8; 2]) {
    ask(one, hosts[1], "meet", Some(LIMIT));
    ask(other, hosts[0], "meet", Some(LIMIT));
    assert_eq!(one.connect_peer_wait().expect("they meet"), ATTRIBUTES);
    assert_eq!(other.connect_peer_wait().expect("they meet"), ATTRIBUTES);
}

#[test]
fn peers_meet_on_two_cards_and_on_one() {
    let cards = Cards::start(2);
    let nics = [0, 1].map(|number| Nic::open(&cards.name(number)).expect("a NIC"));
    for (one, other) in [(0, 1), (1, 0), (0, 0)] {
        let vis = [vi(&nics[one]), vi(&nics[other])];
        let hosts = [one, other].map(|number| u8::try_from(number + 1).expect("few"));
        meet(&vis[0], &vis[1], hosts);
        assert_eq!(vis[0].query().expect("a VI").state, ViState::Connected);
        vis[0].disconnect().expect("it ends");
        while vis[1].query().expect("a VI").state == ViState::Connected {
            std::thread::yield_now();
        }
    }
}

#[test]
fn an_attempt_ends_with_its_time_whether_anybody_waits_or_not() {
    let cards = Cards::start(2);
    let nics = [0, 1].map(|number| Nic::open(&cards.name(number)).expect("a NIC"));
    let (lapsed, later, late) = (vi(&nics[0]), vi(&nics[0]), vi(&nics[1]));
    ask(&lapsed, 2, "lapsed", Some(Duration::from_millis(1)));
    ask(&later, 2, "later", Some(SHORT));
    assert!(matches!(later.connect_peer_wait(), Err(Error::TimedOut)));
    // The time of the first was over before.
    ask(&late, 1, "lapsed", Some(SHORT));
    assert!(matches!(late.connect_peer_wait(), Err(Error::TimedOut)));
    assert_eq!(lapsed.query().expect("a VI").state, ViState::ConnectPending);
    assert!(matches!(lapsed.connect_peer_done(), Err(Error::TimedOut)));
    assert_eq!(lapsed.query().expect("a VI").state, ViState::Idle);
    meet(&lapsed, &late, [1, 2]);
}

#[test]
fn attempts_are_withdrawn() {
    let cards = Cards::start(2);
    let nics = [0, 1].map(|number| Nic::open(&cards.name(number)).expect("a NIC"));
    let (given_up, dropped, late) = (vi(&nics[0]), vi(&nics[0]), vi(&nics[1]));
    for vi in [&given_up, &dropped] {
        ask(vi, 2, "gone", None);
        assert!(vi.connect_peer_done().expect("it goes on").is_none());
    }
    given_up.disconnect().expect("it is given up");
    assert!(matches!(given_up.connect_peer_done(), Err(Error::InvalidState(_))));
    drop(dropped);
    ask(&late, 1, "gone", Some(SHORT));
    assert!(matches!(late.connect_peer_wait(), Err(Error::TimedOut)));
    // Closing the NIC ends a wait, and what waits at the other card.
    let waiting = vi(&nics[0]);
    ask(&waiting, 2, "closed", None);
    let id = waiting.id();
    let wait = std::thread::spawn(move || id.connect_peer_wait());
    ask(&late, 1, "closing", None);
    let [closed, open] = nics;
    closed.id().close().expect("it closes");
    let ended = wait.join().expect("no panic").expect_err("nobody came");
    assert!(matches!(ended, Error::Closed | Error::InvalidHandle(_)), "{ended:?}");
    drop((waiting, given_up, closed));
    // The driver goes with the last handle.
    assert!(matches!(late.connect_peer_wait(), Err(Error::NoMatch)));
    drop((late, open));
}

#[test]
fn a_nic_without_a_driver_has_no_match_and_an_unknown_one_cannot_be_reached() {
    let cards = Cards::start(2);
    let nic = Nic::open(&cards.name(0)).expect("a NIC");
    let alone = vi(&nic);
    for (host, is_expected) in [
        (2, (|error| matches!(error, Error::NoMatch)) as fn(&Error) -> bool),
        (99, |error| matches!(error, Error::NotReachable)),
    ] {
        ask(&alone, host, "nobody", None);
        assert!(is_expected(&alone.connect_peer_wait().expect_err("nobody")), "{host}");
    }
}

#[test]
fn a_storm_of_peers_meets() {
    const COUNT: usize = 256;
    let cards = Cards::start(2);
    let sides = [0, 1].map(|number| Arc::new(Nic::open(&cards.name(number)).expect("a NIC")));
    let threads = sides.clone().map(|nic| {
        std::thread::spawn(move || {
            let other = 3 - nic.registers().expect("open").nic_address[5];
            let vis: Vec<Vi> = (0..COUNT).map(|_| vi(&nic)).collect();
            for (number, vi) in vis.iter().enumerate() {
                ask(vi, other, &format!("storm {number}"), Some(LIMIT));
            }
            for vi in &vis {
                vi.connect_peer_wait().expect("they meet");
            }
            vis
        })
    });
    let vis = threads.map(|thread| thread.join().expect("no panic"));
    for number in [0, 1] {
        assert_eq!(sides[number].counters().expect("open").connections, COUNT as u64);
    }
    drop(vis);
}

#[test]
fn the_card_goes_by_the_attributes_that_memory_and_vi_have_now() {
    let cards = Cards::start(2);
    let nics = [0, 1].map(|number| Nic::open(&cards.name(number)).expect("a NIC"));
    let open = MemoryAttributes { rdma_write: true, ..MemoryAttributes::default() };
    let source = RegisteredBuffer::new(&nics[0], 4096, &MemoryAttributes::default()).expect("memory");
    let target = RegisteredBuffer::new(&nics[1], 4096, &MemoryAttributes::default()).expect("memory");
    let pool = DescriptorPool::new(&nics[0], 1, 2, None).expect("descriptors");
    let write = |vi: &Vi| {
        let mut descriptor = pool.take().expect("one is free");
        let segments = [source.segment(0, 64).expect("in the buffer")];
        let work = Work::RdmaWrite { target: target.as_remote(), segments: &segments, immediate: None };
        descriptor.fill(&work).expect("it is well made");
        vi.post_send(descriptor).expect("it is posted");
        match vi.wait(Queue::Send, Some(LIMIT)).expect("it completes") {
            Poll::Done(descriptor) => descriptor.outcome(),
            other => panic!("nothing posted: {other:?}"),
        }
    };
    // What the card has in its shadow MRT is never what it goes by.
    for (allowed, vi_allows) in [(true, true), (true, true), (false, true), (true, false)] {
        let vis = [vi(&nics[0]), vi(&nics[1])];
        target.set_attributes(&open).expect("registered");
        vis[1].set_attributes(&ViAttributes { rdma_write: vi_allows, ..ATTRIBUTES }).expect("Idle");
        ask(&vis[0], 2, "meet", Some(LIMIT));
        ask(&vis[1], 1, "meet", Some(LIMIT));
        assert_eq!(vis[0].connect_peer_wait().expect("they meet").rdma_write, vi_allows);
        vis[1].connect_peer_wait().expect("they meet");
        assert!(matches!(vis[1].set_attributes(&ATTRIBUTES), Err(Error::InvalidState(_))));
        if vi_allows {
            assert_eq!(write(&vis[0]), Ok(64), "it fills the shadow MRT");
        }
        if !allowed {
            target.set_attributes(&MemoryAttributes::default()).expect("registered");
        }
        let outcome = write(&vis[0]);
        if allowed && vi_allows {
            assert_eq!(outcome, Ok(64));
        } else {
            let status = outcome.expect_err("it is not allowed");
            assert!(status.contains(DescriptorStatus::RDMA_PROTECTION_ERROR), "{status:?}");
        }
    }
}

#[test]
fn a_nic_is_on_the_fabric_while_a_program_has_it_open() {
    let cards = Cards::start(3);
    let addresses = |nic: &Nic| -> Vec<u8> {
        nic.id().discover().expect("a NIC").iter().map(|address| address.0[5]).collect()
    };
    let second = Nic::open(&cards.name(1)).expect("a NIC");
    assert_eq!(addresses(&second), [2]);
    let third = Nic::open(&cards.name(2)).expect("a NIC");
    let first = Nic::open(&cards.name(0)).expect("a NIC");
    assert_eq!(addresses(&second), [1, 2, 3]);
    drop(third);
    // The card hears of it when the connection ends.
    while addresses(&first) != [1, 2] {
        std::thread::yield_now();
    }
}
