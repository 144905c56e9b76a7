//! VIPL over the direct link, with real cards.
#![expect(unsafe_code, reason = "registers memory of the test's own")]

mod support;

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use support::{Cards, LIMIT};
use vipl::{
    Descriptor, DescriptorPool, DescriptorStatus, Error, MemoryAttributes, Nic, Poll, Queue,
    RegisteredBuffer, ReliabilityLevel, Vi, ViAttributes, ViState, Work, net_address,
};

const ATTRIBUTES: ViAttributes = ViAttributes {
    reliability: ReliabilityLevel::RELIABLE_DELIVERY,
    max_transfer_size: 65536,
    tag: None,
    rdma_write: false,
    rdma_read: false,
};

fn connect(client: &Vi, server_nic: &Nic, server: &Vi, host: Option<[u8; 6]>, place: &str) {
    let address = net_address(None, place.as_bytes()).expect("an address");
    let remote = net_address(host, place.as_bytes()).expect("an address");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let request = server_nic.connect_wait(&address, Some(LIMIT)).expect("a request");
            request.accept(server.id()).expect("accepted");
        });
        let deadline = Instant::now() + LIMIT;
        loop {
            match client.connect_request(&address, &remote, Some(LIMIT)) {
                Ok(_) => break,
                Err(Error::NoMatch) if Instant::now() < deadline => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    });
}

/// Sends `bytes` from the start of one buffer to the start of another.
fn transfer(
    from: (&Vi, &RegisteredBuffer),
    to: (&Vi, &RegisteredBuffer),
    pools: [&DescriptorPool; 2],
    bytes: usize,
) {
    let mut receive = pools[1].take().expect("a descriptor");
    receive
        .fill(&Work::Receive { segments: &[to.1.segment(0, bytes).expect("in it")] })
        .expect("well-formed");
    to.0.post_receive(receive).expect("posted");
    let mut send = pools[0].take().expect("a descriptor");
    let segments = [from.1.segment(0, bytes).expect("in it")];
    send.fill(&Work::Send { segments: &segments, immediate: Some(9) }).expect("well-formed");
    from.0.post_send(send).expect("posted");
    let received = wait(to.0, Queue::Receive);
    assert_eq!(received.outcome(), Ok(u32::try_from(bytes).expect("small")));
    assert_eq!(received.immediate(), Some(9));
    assert!(wait(from.0, Queue::Send).outcome().is_ok());
}

fn wait(vi: &Vi, queue: Queue) -> Descriptor {
    match vi.wait(queue, Some(LIMIT)).expect("a completion") {
        Poll::Done(descriptor) => descriptor,
        other => panic!("{other:?}"),
    }
}

fn buffer(nic: &Nic, length: usize) -> RegisteredBuffer {
    RegisteredBuffer::new(nic, length, &MemoryAttributes::default()).expect("registered")
}

#[test]
fn handles_of_one_card_are_contexts_of_their_own() {
    let cards = Cards::start(1);
    let nics = [Nic::open(&cards.name(0)).expect("open"), Nic::open(&cards.name(0)).expect("open again")];
    let vis = nics.each_ref().map(|nic| nic.create_vi(&ATTRIBUTES, None, None).expect("a VI"));
    connect(&vis[0], &nics[1], &vis[1], None, "here");
    let buffers = nics.each_ref().map(|nic| buffer(nic, 65536));
    let pools = nics.each_ref().map(|nic| DescriptorPool::new(nic, 4, 2, None).expect("descriptors"));
    for (mark, length) in (1..).zip([0, 1, 4095, 65536]) {
        buffers[0].write(0, &vec![mark; length]);
        transfer((&vis[0], &buffers[0]), (&vis[1], &buffers[1]), [&pools[0], &pools[1]], length);
        let mut got = vec![0; length];
        buffers[1].read(0, &mut got);
        assert!(got.iter().all(|byte| *byte == mark));
    }
}

#[test]
fn rdma_writes_land_in_the_peers_memory() {
    let cards = Cards::start(2);
    let nics = [Nic::open(&cards.name(0)).expect("open"), Nic::open(&cards.name(1)).expect("open")];
    let attributes = ViAttributes { rdma_write: true, ..ATTRIBUTES };
    let vis = nics.each_ref().map(|nic| nic.create_vi(&attributes, None, None).expect("a VI"));
    connect(&vis[0], &nics[1], &vis[1], Some(cards.address(1)), "there");
    let source = buffer(&nics[0], 65536);
    let open = MemoryAttributes { rdma_write: true, ..MemoryAttributes::default() };
    let target = RegisteredBuffer::new(&nics[1], 65536, &open).expect("registered");
    let pools = nics.each_ref().map(|nic| DescriptorPool::new(nic, 4, 2, None).expect("descriptors"));
    source.write(0, &[3; 65536]);

    // Without immediate data: the peer sees it in its memory, the last byte last.
    let mut write = pools[0].take().expect("a descriptor");
    let segments = [source.segment(0, 65536).expect("in it")];
    write
        .fill(&Work::RdmaWrite { target: target.as_remote(), segments: &segments, immediate: None })
        .expect("well-formed");
    vis[0].post_send(write).expect("posted");
    let deadline = Instant::now() + LIMIT;
    let mut last = [0];
    while last != [3] {
        assert!(Instant::now() < deadline, "the write never came");
        target.read(65535, &mut last);
    }
    let mut got = vec![0; 65536];
    target.read(0, &mut got);
    assert!(got.iter().all(|byte| *byte == 3));
    let written = wait(&vis[0], Queue::Send);
    assert_eq!(written.outcome(), Ok(65536));
    assert!(written.status().contains(DescriptorStatus::OP_RDMA_WRITE));

    // With immediate data it takes a receive descriptor.
    let mut receive = pools[1].take().expect("a descriptor");
    receive.fill(&Work::Receive { segments: &[] }).expect("well-formed");
    vis[1].post_receive(receive).expect("posted");
    let mut write = written;
    let segments = [source.segment(0, 10).expect("in it")];
    write
        .fill(&Work::RdmaWrite { target: target.as_remote(), segments: &segments, immediate: Some(7) })
        .expect("well-formed");
    vis[0].post_send(write).expect("posted");
    let received = wait(&vis[1], Queue::Receive);
    assert_eq!(received.immediate(), Some(7));
    assert!(received.status().contains(DescriptorStatus::OP_REMOTE_RDMA_WRITE));
    assert!(wait(&vis[0], Queue::Send).outcome().is_ok());

    // Memory that was not registered for it is refused, and the connection is lost.
    let closed = buffer(&nics[1], 100);
    let mut write = pools[0].take().expect("a descriptor");
    write
        .fill(&Work::RdmaWrite { target: closed.as_remote(), segments: &segments, immediate: None })
        .expect("well-formed");
    vis[0].post_send(write).expect("posted");
    let refused = wait(&vis[0], Queue::Send);
    assert!(refused.status().contains(DescriptorStatus::RDMA_PROTECTION_ERROR), "{:?}", refused.status());
    while vis[0].query().expect("a VI").state != ViState::Error {
        assert!(Instant::now() < deadline, "the VI stays connected");
    }
}

#[test]
fn rdma_reads_bring_the_peers_memory() {
    let cards = Cards::start(2);
    let nics = [Nic::open(&cards.name(0)).expect("open"), Nic::open(&cards.name(1)).expect("open")];
    let levels = ReliabilityLevel::RELIABLE_DELIVERY.0 | ReliabilityLevel::RELIABLE_RECEPTION.0;
    assert_eq!(nics[0].registers().expect("registers").rdma_read_levels, levels);
    let attributes = ViAttributes { rdma_read: true, ..ATTRIBUTES };
    let vis = nics.each_ref().map(|nic| nic.create_vi(&attributes, None, None).expect("a VI"));
    connect(&vis[0], &nics[1], &vis[1], Some(cards.address(1)), "there");
    let open = MemoryAttributes { rdma_read: true, ..MemoryAttributes::default() };
    let source = RegisteredBuffer::new(&nics[1], 65536, &open).expect("registered");
    let room = buffer(&nics[0], 65536);
    source.write(0, &[5; 65536]);
    let pool = DescriptorPool::new(&nics[0], 2, 3, None).expect("descriptors");

    // The peer takes no part in it.
    let mut read = pool.take().expect("a descriptor");
    let segments = [room.segment(32768, 32768).expect("in it"), room.segment(0, 32768).expect("in it")];
    read.fill(&Work::RdmaRead { source: source.as_remote(), segments: &segments }).expect("well-formed");
    vis[0].post_send(read).expect("posted");
    let read = wait(&vis[0], Queue::Send);
    assert_eq!(read.outcome(), Ok(65536));
    assert_eq!(read.status(), DescriptorStatus::DONE | DescriptorStatus::OP_RDMA_READ);
    let mut got = vec![0; 65536];
    room.read(0, &mut got);
    assert!(got.iter().all(|byte| *byte == 5));
    drop(read);

    // Memory that was not registered for it is refused, and the peer hears of it.
    let (sender, errors) = std::sync::mpsc::channel();
    let handler = move |error: &vipl::AsyncError| sender.send(error.code).expect("the test listens");
    nics[1].set_error_handler(Some(std::sync::Arc::new(handler))).expect("a handler");
    let closed = buffer(&nics[1], 100);
    let mut read = pool.take().expect("a descriptor");
    let segments = [room.segment(0, 100).expect("in it")];
    read.fill(&Work::RdmaRead { source: closed.as_remote(), segments: &segments }).expect("well-formed");
    read.set_fence();
    vis[0].post_send(read).expect("posted");
    let refused = wait(&vis[0], Queue::Send);
    assert!(refused.status().contains(DescriptorStatus::RDMA_PROTECTION_ERROR), "{:?}", refused.status());
    let codes = [(); 2].map(|()| errors.recv_timeout(LIMIT).expect("an error"));
    assert_eq!(codes, [vipl::ErrorCode::RDMAR_PROT, vipl::ErrorCode::CONN_LOST]);
    assert_eq!(vis[1].query().expect("a VI").state, ViState::Error);
}

/// What a program gets told when the link fails it: the status of its descriptor, and the target's asynchronous error.
#[test]
fn faults_of_the_link_reach_the_program() {
    use vipl::ErrorCode;
    type Case = (usize, &'static str, bool, &'static [ErrorCode]);
    let cases: [Case; 4] = [
        (0, "drop=next:1", false, &[]),
        (0, "corrupt=next:1", false, &[ErrorCode::RDMAW_DATA]),
        (0, "break=next:1", false, &[ErrorCode::RDMAW_ABORT]),
        (1, "drop=next:1", true, &[ErrorCode::RDMA_TRANSPORT]),
    ];
    for (link, plan, reads, codes) in cases {
        let cards = Cards::start(2);
        let nics = [Nic::open(&cards.name(0)).expect("open"), Nic::open(&cards.name(1)).expect("open")];
        let attributes = ViAttributes { rdma_write: true, rdma_read: true, ..ATTRIBUTES };
        let vis = nics.each_ref().map(|nic| nic.create_vi(&attributes, None, None).expect("a VI"));
        connect(&vis[0], &nics[1], &vis[1], Some(cards.address(1)), "there");
        let (sender, errors) = std::sync::mpsc::channel();
        let handler = move |error: &vipl::AsyncError| sender.send(error.code).expect("the test listens");
        nics[1].set_error_handler(Some(std::sync::Arc::new(handler))).expect("a handler");
        let open = MemoryAttributes { rdma_write: true, rdma_read: true, ..MemoryAttributes::default() };
        let theirs = RegisteredBuffer::new(&nics[1], 1000, &open).expect("registered");
        let mine = buffer(&nics[0], 1000);
        let segments = [mine.segment(0, 1000).expect("in it")];
        let pool = DescriptorPool::new(&nics[0], 1, 2, None).expect("descriptors");
        let mut descriptor = pool.take().expect("a descriptor");
        let work = if reads {
            Work::RdmaRead { source: theirs.as_remote(), segments: &segments }
        } else {
            Work::RdmaWrite { target: theirs.as_remote(), segments: &segments, immediate: None }
        };
        descriptor.fill(&work).expect("well-formed");
        cards.faults(link, plan);
        vis[0].post_send(descriptor).expect("posted");
        let failed = wait(&vis[0], Queue::Send).status();
        assert!(failed.contains(DescriptorStatus::TRANSPORT_ERROR), "{plan}: {failed:?}");
        for code in [codes, &[ErrorCode::CONN_LOST]].concat() {
            assert_eq!(errors.recv_timeout(LIMIT), Ok(code), "{plan}");
        }
        assert_eq!(vis[1].query().expect("a VI").state, ViState::Error);
    }
}

#[test]
fn one_buffer_serves_two_cards() {
    let cards = Cards::start(2);
    let nics = [Nic::open(&cards.name(0)).expect("open"), Nic::open(&cards.name(1)).expect("open")];
    let vis = nics.each_ref().map(|nic| nic.create_vi(&ATTRIBUTES, None, None).expect("a VI"));
    connect(&vis[0], &nics[1], &vis[1], Some(cards.address(1)), "there");
    // Memory of the program's own, from its heap, registered with both.
    let mut heap = vec![0_u8; 100_000];
    let address = heap.as_mut_ptr().expose_provenance();
    let handles = nics.each_ref().map(|nic| {
        let attributes = MemoryAttributes::default();
        // SAFETY: deregistered below, before the vector is dropped; nothing is received there.
        unsafe { nic.id().register_memory(address, heap.len(), &attributes) }.expect("registered")
    });
    // SAFETY: as above.
    let again = unsafe { nics[0].id().register_memory(address + 1, 50, &MemoryAttributes::default()) };
    let again = again.expect("registered twice");
    assert!(again != handles[0]);
    heap[0] = 1;
    assert_eq!(heap[99_999], 0);
    let buffers = nics.each_ref().map(|nic| buffer(nic, 4096));
    let pools = nics.each_ref().map(|nic| DescriptorPool::new(nic, 4, 2, None).expect("descriptors"));
    buffers[0].write(0, b"between cards");
    transfer((&vis[0], &buffers[0]), (&vis[1], &buffers[1]), [&pools[0], &pools[1]], 13);
    nics[0].id().deregister_memory(address + 1, again).expect("deregistered");
    for (nic, handle) in nics.iter().zip(handles) {
        nic.id().deregister_memory(address, handle).expect("deregistered");
        assert!(nic.id().deregister_memory(address, handle).is_err());
    }
}

#[test]
fn every_part_of_a_large_buffer_is_found() {
    let cards = Cards::start(1);
    let nic = Nic::open(&cards.name(0)).expect("open");
    let vis = [(); 2].map(|()| nic.create_vi(&ATTRIBUTES, None, None).expect("a VI"));
    connect(&vis[0], &nic, &vis[1], None, "large");
    let buffers = [(); 2].map(|()| buffer(&nic, 5 << 20));
    let pool = DescriptorPool::new(&nic, 2, 2, None).expect("descriptors");
    // Across pages, and across the large pages that such a buffer is described with.
    let mib = 1 << 20;
    for (number, offset) in
        (1_u8..).zip([0_usize, 4090, mib - 100, 2 * mib - 7, 4 * mib - 4999, 5 * mib - 5000])
    {
        buffers[0].write(offset, &[number; 5000]);
        let mut receive = pool.take().expect("a descriptor");
        receive
            .fill(&Work::Receive { segments: &[buffers[1].segment(offset, 5000).expect("in it")] })
            .expect("well-formed");
        vis[1].post_receive(receive).expect("posted");
        let mut send = pool.take().expect("a descriptor");
        let segments = [(offset, 3000), (offset + 3000, 2000)]
            .map(|(at, length)| buffers[0].segment(at, length).expect("in it"));
        send.fill(&Work::Send { segments: &segments, immediate: None }).expect("well-formed");
        vis[0].post_send(send).expect("posted");
        assert_eq!(wait(&vis[1], Queue::Receive).outcome(), Ok(5000));
        assert_eq!(wait(&vis[0], Queue::Send).outcome(), Ok(5000));
        let mut got = [0; 5000];
        buffers[1].read(offset, &mut got);
        assert_eq!(got, [number; 5000]);
    }
}

#[test]
fn connection_calls_end_in_time_and_with_their_handle() {
    let cards = Cards::start(1);
    let nic = Nic::open(&cards.name(0)).expect("open");
    let vi = nic.create_vi(&ATTRIBUTES, None, None).expect("a VI");
    let here = net_address(None, b"nobody").expect("an address");
    let short = Some(Duration::from_millis(1));
    assert!(matches!(nic.connect_wait(&here, Some(Duration::ZERO)), Err(Error::TimedOut)));
    assert!(matches!(nic.connect_wait(&here, short), Err(Error::TimedOut)));
    assert!(matches!(vi.connect_request(&here, &here, short), Err(Error::NoMatch)));
    let elsewhere = net_address(Some([2, 0, 0, 0, 0, 99]), b"nobody").expect("an address");
    assert!(matches!(vi.connect_request(&here, &elsewhere, short), Err(Error::NotReachable)));
    assert_eq!(vi.query().expect("it lives").state, ViState::Idle);

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| nic.connect_wait(&here, None));
        // The request is seen, and not answered.
        let request = loop {
            match vi.connect_request(&here, &here, short) {
                Err(Error::NoMatch) => std::thread::yield_now(),
                other => break other,
            }
        };
        assert!(matches!(request, Err(Error::TimedOut)));
        let request = waiting.join().expect("no panic").expect("a request");
        assert!(matches!(request.accept(vi.id()), Err(Error::TimedOut)));
        assert_eq!(vi.query().expect("it lives").state, ViState::Idle);

        let cq = nic.create_cq().expect("a CQ");
        let listening = scope.spawn(|| nic.connect_wait(&here, None));
        let receiving = scope.spawn(move || cq.wait(None));
        std::thread::yield_now();
        nic.id().close().expect("it was open");
        assert!(matches!(listening.join().expect("no panic"), Err(Error::Closed | Error::InvalidHandle(_))));
        assert!(matches!(receiving.join().expect("no panic"), Err(Error::Closed | Error::InvalidHandle(_))));
    });
}

#[test]
fn waits_end_when_the_card_dies_and_a_new_one_can_be_opened() {
    let mut cards = Cards::start(1);
    let nic = Nic::open(&cards.name(0)).expect("open");
    let vis = [(); 2].map(|()| nic.create_vi(&ATTRIBUTES, None, None).expect("a VI"));
    connect(&vis[0], &nic, &vis[1], None, "here");
    let pool = DescriptorPool::new(&nic, 1, 1, None).expect("descriptors");
    let mut receive = pool.take().expect("a descriptor");
    receive.fill(&Work::Receive { segments: &[] }).expect("well-formed");
    vis[1].post_receive(receive).expect("posted");
    let here = net_address(None, b"nobody").expect("an address");
    std::thread::scope(|scope| {
        let listening = scope.spawn(|| nic.connect_wait(&here, None));
        let receiving = scope.spawn(|| vis[1].wait(Queue::Receive, None));
        cards.kill();
        assert!(matches!(listening.join().expect("no panic"), Err(Error::NicFailed)));
        // The descriptor comes back as flushed, or the wait fails.
        match receiving.join().expect("no panic") {
            Ok(Poll::Done(descriptor)) => assert!(descriptor.outcome().is_err()),
            other => assert!(matches!(other, Err(Error::NicFailed)), "{other:?}"),
        }
    });
    assert!(nic.create_vi(&ATTRIBUTES, None, None).is_err());
    assert!(matches!(Nic::open(&cards.name(0)), Err(Error::InvalidHandle(_))));
    let others = Cards::start(1);
    let other = Nic::open(&others.name(0)).expect("open");
    buffer(&other, 8192);
}

#[test]
fn a_card_serves_one_front_end_and_then_the_next() {
    let cards = Cards::start(1);
    let stranger = UnixStream::connect(cards.socket(0)).expect("the card listens");
    assert!(Nic::open(&cards.name(0)).is_err());
    drop(stranger);
    let deadline = Instant::now() + LIMIT;
    while let Err(error) = Nic::open(&cards.name(0)) {
        assert!(Instant::now() < deadline, "{error}");
    }
}

#[test]
fn what_is_no_card_is_refused() {
    let cards = Cards::start(0);
    assert!(matches!(Nic::open(&cards.name(7)), Err(Error::InvalidHandle(_))));
    std::fs::write(cards.socket(8), "").expect("a file");
    assert!(matches!(Nic::open(&cards.name(8)), Err(Error::InvalidHandle(_))));
}

#[test]
fn memory_that_comes_and_goes_does_not_pile_up() {
    let cards = Cards::start(1);
    let nic = Nic::open(&cards.name(0)).expect("open");
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
        let line = status.lines().find(|line| line.starts_with("RssShmem:")).expect("a line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
    };
    let before = resident();
    for _ in 0..200 {
        buffer(&nic, 4 << 20).write(0, &[1; 4 << 20]);
    }
    // 800 MiB have been registered, 4 at a time.
    assert!(resident() < before + 300, "{} MiB more", resident() - before);
}

/// Runs a test in a process of its own, where no other test disturbs it. `true`: this is that process.
fn alone(test: &str) -> bool {
    if std::env::var_os("VIANIC_TEST_ALONE").is_some() {
        return true;
    }
    let exe = std::env::current_exe().expect("this program");
    let status =
        std::process::Command::new(exe).args(["--exact", test]).env("VIANIC_TEST_ALONE", "1").status();
    assert!(status.expect("it runs").success());
    false
}

#[test]
fn a_child_after_fork_has_nics_of_its_own() {
    if !alone("a_child_after_fork_has_nics_of_its_own") {
        return;
    }
    let cards = Cards::start(2);
    let nic = Nic::open(&cards.name(0)).expect("open");
    let mut memory = vec![1_u8; 1 << 20];
    let address = memory.as_mut_ptr().expose_provenance();
    let register = |nic: &Nic| {
        // SAFETY: the vector lives until the process ends; nothing is received there.
        unsafe { nic.id().register_memory(address, 1 << 20, &MemoryAttributes::default()) }
    };
    let handle = register(&nic).expect("registered");
    // SAFETY: the child goes on with this thread alone, and ends without returning.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert!(matches!(nic.create_vi(&ATTRIBUTES, None, None), Err(Error::InvalidHandle(_))));
            let own = Nic::open(&cards.name(1)).expect("open");
            register(&own).expect("registered");
            memory[500_000] = 2;
            let buffers = [buffer(&own, 10_000), buffer(&own, 10_000)];
            buffers[0].write(0, &[3; 10_000]);
            drop(buffers);
            // What the child drops must not be taken from its parent.
            drop(nic);
        }));
        // SAFETY: ends the process at once, as its other threads are its parent's.
        unsafe { libc::_exit(i32::from(outcome.is_err())) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child failed");
    // The child registered the memory itself: from then on its writes are its own.
    assert!(memory.iter().all(|byte| *byte == 1));
    nic.id().deregister_memory(address, handle).expect("deregistered");
    let vis = [(); 2].map(|()| nic.create_vi(&ATTRIBUTES, None, None).expect("a VI"));
    connect(&vis[0], &nic, &vis[1], None, "still here");
}

/// Descriptors and threads of this process.
fn footprint() -> (usize, usize) {
    let count =
        |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).expect("/proc is mounted").count();
    (count("fd"), count("task"))
}

#[test]
fn opening_and_closing_leaves_nothing_behind() {
    if !alone("opening_and_closing_leaves_nothing_behind") {
        return;
    }
    let cards = Cards::start(1);
    let round = || {
        let nics = [(); 3].map(|()| Nic::open(&cards.name(0)).expect("open"));
        let vi = nics[0].create_vi(&ATTRIBUTES, None, None).expect("a VI");
        let _buffers = nics.each_ref().map(|nic| buffer(nic, 100_000));
        drop(vi);
    };
    // The guest RAM of the process stays.
    round();
    let settled = || {
        // The card closes its own descriptors when it has seen the link hang up.
        let deadline = Instant::now() + LIMIT;
        let mut last = footprint();
        while Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            let now = footprint();
            if now == last {
                break;
            }
            last = now;
        }
        last
    };
    let before = settled();
    for _ in 0..20 {
        round();
    }
    assert_eq!(settled(), before);
}
