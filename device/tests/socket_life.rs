//! Front ends come and go, well-behaved and not; the process stays as it was.

mod support;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::process::Signal;
use support::device::Device;
use support::front_end::FrontEnd;
use support::raw::{NEED_REPLY, Raw, greeting, message, request, vring, words};
use vianic_abi::status::Status;

/// That the card at socket `number` serves a driver.
#[track_caller]
fn assert_serves(device: &Device, number: usize) {
    let mut front_end = FrontEnd::connect(&device.sockets[number]);
    front_end.start_driver();
    assert_eq!(front_end.attach().status, Status::SUCCESS.0);
}

#[test]
fn a_hundred_front_ends_leave_nothing_behind() {
    let device = Device::start(1);
    let before = device.holdings();
    for _ in 0..100 {
        assert_serves(&device, 0);
    }
    device.wait_for_holdings(before);
}

#[test]
fn a_front_end_may_leave_at_any_byte_of_the_handshake() {
    let device = Device::start(2);
    let before = device.holdings();
    let bytes = greeting().concat();
    for length in 0..bytes.len() {
        let raw = Raw::connect(&device.sockets[0]);
        raw.send(&bytes[..length], &[]);
        raw.finish();
    }
    device.wait_for_holdings(before);
    assert_serves(&device, 0);
    assert_serves(&device, 1);
}

#[test]
fn garbage_at_one_socket_does_not_disturb_the_other() {
    let mut device = Device::start(2);
    let before = device.holdings();
    let mut other = FrontEnd::connect(&device.sockets[1]);
    other.start_driver();
    assert_eq!(other.attach().status, Status::SUCCESS.0);

    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for length in 1..200 {
        let mut byte = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()[3]
        };
        let garbage: Vec<u8> = (0..length).map(|_| byte()).collect();
        let raw = Raw::connect(&device.sockets[0]);
        raw.send(&garbage, &[]);
        raw.finish();
    }
    // Half as bad: a well-formed header before it, of every request there may be.
    for request in 0..64 {
        for length in [0, 1, 8, 40, 4096, 4097] {
            let raw = Raw::connect(&device.sockets[0]);
            raw.send(&greeting().concat(), &[]);
            raw.send(&message(request, NEED_REPLY, &vec![0xa5; length]), &[]);
            raw.finish();
        }
    }

    assert!(device.is_alive());
    assert_eq!(other.attach().status, Status::INVALID_STATE.0, "attached all the time");
    assert_serves(&device, 0);
    drop(other);
    device.wait_for_holdings(before);
}

/// Messages that are wrong in one way each.
fn bad_messages() -> Vec<Vec<u8>> {
    let mut messages = vec![
        message(999, NEED_REPLY, &[]),
        message(request::GET_FEATURES, 0, &[]),
        message(request::GET_FEATURES, 2, &[]),
        message(request::GET_FEATURES, 5, &[]),
        message(request::GET_FEATURES, 0xffff_fff1, &[]),
        message(request::GET_FEATURES, 1, &[0; 8]),
        words(request::SET_FEATURES, &[u64::MAX]),
        words(request::SET_PROTOCOL_FEATURES, &[u64::MAX]),
        words(request::SET_MEM_TABLE, &[0]),
        words(request::SET_MEM_TABLE, &[9]),
        words(request::SET_MEM_TABLE, &[1, 0, 0x1000, 0, 0]),
        words(request::SET_MEM_TABLE, &[u64::MAX]),
        message(request::GET_CONFIG, 1, &[0xffff_ff00_u32, 256, 0].map(u32::to_ne_bytes).concat()),
        message(request::GET_CONFIG, 1, &[0, 0, 0_u32].map(u32::to_ne_bytes).concat()),
        // The header of a message whose payload never comes.
        message(request::SET_FEATURES, 1, &[0; 8])[..15].to_vec(),
    ];
    for queue in [0, 62, 63, 64, 255, 256, u32::MAX] {
        for value in [0, 1, 3, 1025, 65_536, u32::MAX] {
            messages.push(vring(request::SET_VRING_NUM, queue, value));
            messages.push(vring(request::SET_VRING_BASE, queue, value));
            messages.push(vring(request::GET_VRING_BASE, queue, value));
            messages.push(vring(request::SET_VRING_ENABLE, queue, value));
        }
        let queue = u64::from(queue);
        messages.push(words(request::SET_VRING_ADDR, &[queue, 0, 0, 0, 0]));
        messages.push(words(request::SET_VRING_ADDR, &[queue, u64::MAX, u64::MAX, u64::MAX, u64::MAX]));
        for request in [request::SET_VRING_KICK, request::SET_VRING_CALL, request::SET_VRING_ERR] {
            messages.push(words(request, &[queue]));
            messages.push(words(request, &[queue | 0x100]));
        }
    }
    messages
}

#[test]
fn a_bad_message_costs_the_front_end_its_connection_at_most() {
    let mut device = Device::start(1);
    let before = device.holdings();
    for bad in bad_messages() {
        let raw = Raw::connect(&device.sockets[0]);
        raw.send(&greeting().concat(), &[]);
        raw.send(&bad, &[]);
        raw.finish();
        assert!(device.is_alive(), "after {bad:x?}");
    }
    assert_serves(&device, 0);
    device.wait_for_holdings(before);
}

#[test]
fn descriptors_of_all_kinds_and_numbers_are_closed() {
    let mut device = Device::start(1);
    let before = device.holdings();
    let directory = File::open("/").expect("a directory");
    let file = tempfile::tempfile().expect("a file");
    let (socket, _peer) = UnixStream::pair().expect("sockets");
    let (pipe, _writer) = std::io::pipe().expect("a pipe");
    let null = File::open("/dev/null").expect("a device");
    let kinds: [BorrowedFd<'_>; 5] =
        [directory.as_fd(), file.as_fd(), socket.as_fd(), pipe.as_fd(), null.as_fd()];
    let region = [1, 0, 0x1000, 0, 0];
    for kind in kinds {
        for request in 0..48 {
            for count in [1, 2, 33] {
                let raw = Raw::connect(&device.sockets[0]);
                raw.send(&greeting().concat(), &[]);
                let payload: &[u64] = if request == request::SET_MEM_TABLE { &region } else { &[0] };
                raw.send(&words(request, payload), &vec![kind; count]);
                // And as a kick of a queue that runs.
                raw.send(&vring(request::SET_VRING_ENABLE, 0, 1), &[]);
                raw.finish();
            }
        }
        let raw = Raw::connect(&device.sockets[0]);
        raw.send(&greeting().concat(), &[]);
        raw.send(&message(request::SET_BACKEND_REQ_FD, NEED_REPLY, &[]), &[kind]);
        raw.finish();
    }
    assert!(device.is_alive());
    assert_serves(&device, 0);
    device.wait_for_holdings(before);
}

#[test]
fn a_second_front_end_is_refused_while_the_first_lives() {
    let device = Device::start(1);
    let mut first = FrontEnd::connect(&device.sockets[0]);
    first.start_driver();
    let mut second = UnixStream::connect(&device.sockets[0]).expect("connects");
    second.set_read_timeout(Some(support::LIMIT)).expect("limit");
    assert_eq!(second.read(&mut [0]).expect("hung up"), 0);
    device.wait_for_log("refused");
    assert_eq!(first.attach().status, Status::SUCCESS.0, "the first goes on");
    drop(first);
    assert_serves(&device, 0);
}

#[test]
fn a_guest_whose_memory_is_truncated_takes_nobody_with_it() {
    let mut device = Device::start(2);
    let mut other = FrontEnd::connect(&device.sockets[1]);
    other.start_driver();
    assert_eq!(other.attach().status, Status::SUCCESS.0);
    let mut front_end = FrontEnd::connect(&device.sockets[0]);
    front_end.start_driver();
    assert_eq!(front_end.attach().status, Status::SUCCESS.0);

    front_end.ram_file.set_len(0).expect("truncates");
    front_end.kick(1);
    device.wait_for_log("truncated");
    assert!(device.is_alive());
    assert_eq!(other.attach().status, Status::INVALID_STATE.0, "attached all the time");
    drop(front_end);
    assert_serves(&device, 0);
}

#[test]
fn too_few_descriptors_are_noticed_at_the_start() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 500 && exec \"$0\" --socket-path a.sock --socket-path b.sock"]);
    let directory = tempfile::tempdir().expect("temporary directory");
    command.arg(env!("CARGO_BIN_EXE_vianic-device")).current_dir(directory.path());
    let output = command.output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).expect("text");
    assert!(log.contains("2 cards need 704 open descriptors, and 500 are allowed"), "{log}");
}

#[test]
fn a_signal_ends_the_process_in_order() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut device = Device::start_with(2, &["--stats-path", "stats.sock"]);
        let mut front_end = FrontEnd::connect(&device.sockets[0]);
        front_end.start_driver();
        front_end.attach();
        device.signal(signal);
        assert!(device.wait().success());
        assert_eq!(fs::read_dir(device.directory.path()).expect("directory").count(), 0, "sockets removed");
    }
}

#[test]
fn faults_are_planned_at_the_start_and_changed_over_the_control_socket() {
    let plan = "seed=3,drop=0.25";
    let device = Device::start_with(2, &["--stats-path", "stats.sock", "--faults", plan]);
    let socket = UnixStream::connect(device.directory.path().join("stats.sock")).expect("connect");
    let mut socket = BufReader::new(socket);
    let mut ask = |line: &str| -> serde_json::Value {
        socket.get_mut().write_all(line.as_bytes()).expect("write");
        let mut answer = String::new();
        socket.read_line(&mut answer).expect("read");
        serde_json::from_str(&answer).expect("JSON")
    };
    let faults = ask("faults\n");
    for nic in 0..2 {
        assert_eq!(faults["nics"][nic]["faults"]["plan"], "seed=3,drop=0.25,corrupt=0,break=0");
    }
    let faults = ask("faults 02:56:49:41:00:02 off\n");
    assert!(faults["nics"][0]["faults"].is_object());
    assert!(faults["nics"][1]["faults"].is_null());
}

#[test]
fn a_process_that_was_killed_is_no_obstacle() {
    let mut device = Device::start(1);
    device.signal(Signal::KILL);
    device.wait();
    assert!(device.sockets[0].exists());
    device.start_again();
    assert_serves(&device, 0);
}

#[test]
fn a_log_that_is_closed_stops_no_card() {
    let mut device = Device::start(1);
    device.close_log();
    for _ in 0..3 {
        // Each is worth several lines.
        assert_serves(&device, 0);
    }
    device.signal(Signal::TERM);
    assert!(device.wait().success());
}
