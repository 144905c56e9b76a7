//! The life of a driver, as a card hears of it.

mod support;

use std::mem;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use support::LIMIT;
use support::front_end::{FrontEnd, MapAnswer};
use tempfile::TempDir;
use vhost::VhostBackend as _;
use vhost::vhost_user::VhostUserFrontend as _;
use vianic_abi::attach::AttachRequest;
use vianic_abi::event::{Event, EventKind};
use vianic_abi::status::Status;
use vianic_device::engine::HostSide;
use vianic_device::guest_memory::GuestMemory;
use vianic_device::nic::memory::NicMemory;
use vianic_device::socket::SocketFile;
use vianic_device::vhost::{Card, Server};

/// A card that remembers what it was told.
struct TestCard {
    calls: Mutex<Vec<&'static str>>,
    /// What a driver gave it to reach the guest with.
    hosts: Sender<HostSide>,
}

impl TestCard {
    fn heard(&self, call: &'static str) {
        self.calls.lock().expect("calls").push(call);
    }
}

impl Card for TestCard {
    fn attach(&self, _request: AttachRequest, host: HostSide) -> Status {
        self.heard("attach");
        let _ = self.hosts.send(host);
        Status::SUCCESS
    }

    fn pause(&self) {
        self.heard("pause");
    }

    fn resume(&self, host: HostSide) {
        self.heard("resume");
        let _ = self.hosts.send(host);
    }

    fn reset(&self) {
        self.heard("reset");
    }

    fn update_memory(&self, _memory: GuestMemory) {
        self.heard("update_memory");
    }

    fn event_buffers(&self) {
        // How often depends on how the kicks fall together.
    }
}

struct Fixture {
    card: Arc<TestCard>,
    hosts: Receiver<HostSide>,
    server: Server,
    directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (hosts, receiver) = channel();
        let card = Arc::new(TestCard { calls: Mutex::default(), hosts });
        let socket = SocketFile::bind(&directory.path().join("nic.sock")).expect("socket");
        let memory = Arc::new(NicMemory::new().expect("NIC memory"));
        let server = Server::start(socket, card.clone(), memory).expect("server");
        Self { card, hosts: receiver, server, directory }
    }

    fn connect(&self, answer: MapAnswer) -> FrontEnd {
        FrontEnd::connect_with(&self.directory.path().join("nic.sock"), answer)
    }

    /// What the card has heard since this was asked last.
    fn calls(&self) -> Vec<&'static str> {
        mem::take(&mut *self.card.calls.lock().expect("calls"))
    }

    #[track_caller]
    fn host(&self) -> HostSide {
        self.hosts.recv_timeout(LIMIT).expect("the card is given the guest")
    }
}

#[test]
fn queues_that_go_on_resume_the_driver_and_queues_that_begin_anew_reset_it() {
    let fixture = Fixture::new();
    let mut front_end = fixture.connect(MapAnswer::Yes);
    front_end.start_driver();
    assert_eq!(front_end.attach().status, 0);
    fixture.host();
    assert_eq!(fixture.calls(), ["update_memory", "attach"]);

    let bases = front_end.stop_queues();
    assert_eq!(fixture.calls(), ["pause"], "once, and before the front end has its answer");
    front_end.start_queues(&bases);
    fixture.host();
    assert_eq!(fixture.calls(), ["update_memory", "resume"]);

    front_end.stop_queues();
    front_end.start_driver();
    assert_eq!(front_end.attach().status, 0);
    fixture.host();
    assert_eq!(fixture.calls(), ["pause", "update_memory", "reset", "attach"]);

    front_end.frontend.reset_device().expect("reset");
    assert_eq!(fixture.calls(), ["reset"]);
}

#[test]
fn a_front_end_that_leaves_resets_its_card_and_the_next_is_served() {
    let fixture = Fixture::new();
    for _ in 0..3 {
        let mut front_end = fixture.connect(MapAnswer::Yes);
        front_end.start_driver();
        assert_eq!(front_end.attach().status, 0);
    }
    fixture.server.stop();
    let calls = fixture.card.calls.lock().expect("calls");
    assert_eq!(*calls, ["update_memory", "attach", "reset"].repeat(3));
}

#[test]
fn each_context_has_the_doorbell_of_its_queue() {
    let fixture = Fixture::new();
    let mut front_end = fixture.connect(MapAnswer::Yes);
    front_end.start_driver();
    front_end.attach();
    let host = fixture.host();
    assert_eq!(host.doorbells.len(), 62);
    for context in 0..62_u16 {
        front_end.kick(context + 1);
        support::wait_until("the doorbell rings", || host.doorbells[usize::from(context)].read().is_ok());
    }
    // Context 0's may: the attach request was a kick, too.
    assert!(host.doorbells[1..].iter().all(|doorbell| doorbell.read().is_err()), "no other rings");
}

#[test]
fn events_reach_the_guest_and_stop_with_the_queues() {
    let fixture = Fixture::new();
    let mut front_end = fixture.connect(MapAnswer::Yes);
    front_end.start_driver();
    front_end.attach();
    let mut host = fixture.host();
    let event = Event { kind: EventKind::NOTIFY.0, context: 3, nra_word: 7 };
    assert!(!host.events.push(event), "no buffers yet");
    front_end.offer_event_buffers(2);
    assert!(host.events.push(event));
    host.events.notify();
    assert_eq!(front_end.calls[0].read().expect("an interrupt"), 1);
    assert_eq!(front_end.used(0), 1);
    front_end.stop_queues();
    assert!(!host.events.push(event));
    assert_eq!(front_end.used(0), 1);
}

#[test]
fn an_attach_request_waits_for_nic_memory_and_survives_a_pause() {
    let fixture = Fixture::new();
    let (word, words) = channel();
    let mut front_end = fixture.connect(MapAnswer::After(words));
    front_end.start_driver();
    front_end.request_attach(&FrontEnd::attach_request());
    let first = front_end.mapped.recv_timeout(LIMIT).expect("asked to map");
    assert_eq!({ first.request.shmid }, 0);

    // While the front end has not answered, the queues can be stopped and started.
    let bases = front_end.stop_queues();
    assert_eq!(bases[1], 0, "the request is still on the queue");
    front_end.start_queues(&bases);
    assert_eq!(front_end.used(1), 0);
    assert!(!fixture.calls().contains(&"attach"));

    // The mapping asked for before the pause, and the one asked for after it.
    for _ in 0..4 {
        word.send(()).expect("the front end answers");
    }
    assert_eq!(front_end.attach_reply(0).status, 0);
}

#[test]
fn the_memory_table_may_change_under_a_driver() {
    let fixture = Fixture::new();
    let mut front_end = fixture.connect(MapAnswer::Yes);
    front_end.start_driver();
    front_end.attach();
    fixture.calls();
    front_end.set_memory();
    assert_eq!(fixture.calls(), ["update_memory"]);
    let mut events = fixture.host().events;
    front_end.offer_event_buffers(1);
    assert!(events.push(Event { kind: EventKind::NOTIFY.0, context: 0, nra_word: 0 }));
    assert_eq!(front_end.used(0), 1);
}

#[test]
fn a_driver_that_sets_up_fewer_queues_has_the_doorbells_of_those() {
    let fixture = Fixture::new();
    let mut front_end = fixture.connect(MapAnswer::Yes);
    front_end.start_queues(&[0; 3]);
    assert_eq!(front_end.attach().status, 0);
    let host = fixture.host();
    assert_eq!(host.doorbells.len(), 62);
    front_end.kick(2);
    support::wait_until("the doorbell rings", || host.doorbells[1].read().is_ok());
    assert_eq!(front_end.frontend.get_vring_base(1).expect("base"), 1);
}
