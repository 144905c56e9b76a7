//! A front end and a driver meet the real process.

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;

use support::device::Device;
use support::front_end::{FrontEnd, MapAnswer};
use support::wait_until;
use vhost::vhost_user::VhostUserFrontend as _;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vianic_abi::ABI_VERSION;
use vianic_abi::attach::{AttachReply, AttachRequest};
use vianic_abi::nic_memory::{REGISTERS_MAGIC, REGISTERS_SIZE, REQUESTS_SIZE, SHM_REGISTERS, SHM_REQUESTS};
use vianic_abi::status::Status;

fn reply(status: Status) -> AttachReply {
    AttachReply { status: status.0, abi_version: ABI_VERSION }
}

#[test]
fn a_driver_attaches_goes_through_a_pause_and_gives_way_to_the_next() {
    let device = Device::start_with(1, &["--stats-path", "stats.sock"]);
    let mut front_end = FrontEnd::connect(&device.sockets[0]);

    assert_eq!(front_end.frontend.get_queue_num().expect("queues"), 63);
    let shared = front_end.frontend.get_shmem_config().expect("shared memory");
    assert_eq!(shared.nregions, 2);
    assert_eq!(shared.memory_sizes[..3], [REGISTERS_SIZE, REQUESTS_SIZE, 0]);
    let flags = VhostUserConfigFlags::WRITABLE;
    let (_, config) = front_end.frontend.get_config(0, 64, flags, &[0; 64]).expect("configuration space");
    assert_eq!(&config[..12], [&b"VNIC"[..], &ABI_VERSION.to_le_bytes(), &62_u32.to_le_bytes()].concat());
    front_end.frontend.set_config(0, flags, &[0xff; 64]).expect("a write is ignored");
    assert_eq!(front_end.frontend.get_config(0, 64, flags, &[0; 64]).expect("configuration space").1, config);

    front_end.start_driver();
    let [registers, requests] = front_end.nic_memory();
    let described = |mapped: &support::front_end::Mapped| {
        let request = mapped.request;
        (request.shmid, request.fd_offset, request.shm_offset, request.len, request.flags)
    };
    assert_eq!(described(&registers), (SHM_REGISTERS, 0, 0, REGISTERS_SIZE, 0));
    assert_eq!(described(&requests), (SHM_REQUESTS, REGISTERS_SIZE, 0, REQUESTS_SIZE, 1));
    let mut magic = [0; 8];
    registers.file.read_exact_at(&mut magic, 0).expect("registers");
    assert_eq!(u64::from_le_bytes(magic), REGISTERS_MAGIC);

    front_end.offer_event_buffers(3);
    assert_eq!(front_end.attach(), reply(Status::SUCCESS));
    assert_eq!(front_end.attach(), reply(Status::INVALID_STATE), "attached already");
    let other = AttachRequest { abi_version: ABI_VERSION + 1, ..FrontEnd::attach_request() };
    front_end.request_attach(&other);
    assert_eq!(front_end.attach_reply(2), reply(Status::NOT_SUPPORTED));

    // A pause: the queues go on where they stopped, and so does the driver.
    let bases = front_end.stop_queues();
    assert_eq!(bases[1], 3);
    front_end.start_queues(&bases);
    front_end.nic_memory();
    assert_eq!(front_end.attach(), reply(Status::INVALID_STATE), "still attached");

    // A reset: the attach queue starts from its beginning.
    front_end.stop_queues();
    front_end.start_driver();
    front_end.nic_memory();
    assert_eq!(front_end.attach(), reply(Status::SUCCESS));

    // The doorbells reach the card.
    let mut stats =
        BufReader::new(UnixStream::connect(device.directory.path().join("stats.sock")).expect("stats"));
    wait_until("the doorbell counts", || {
        front_end.kick(1);
        stats.get_mut().write_all(b"stats\n").expect("asks");
        let mut line = String::new();
        stats.read_line(&mut line).expect("answers");
        let stats: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        stats["nics"][0]["counters"]["doorbells"].as_u64() > Some(0)
    });
}

#[test]
fn without_nic_memory_a_driver_is_told() {
    let device = Device::start(1);
    let mut front_end = FrontEnd::connect_with(&device.sockets[0], MapAnswer::No);
    front_end.start_driver();
    assert_eq!(front_end.attach(), reply(Status::ERROR_RESOURCE));
    device.wait_for_log("QEMU 11.1");
}

#[test]
fn a_guest_whose_memory_is_not_shared_is_noticed() {
    let device = Device::start(1);
    // QEMU has none to tell of then: it agrees on the features, and that is all.
    drop(FrontEnd::connect(&device.sockets[0]));
    device.wait_for_log("share=on");
}
