use super::*;
use std::thread::JoinHandle;
use vianic_guest_agent::{Answer, Call, FrameReader, FrameWriter, PROTOCOL_VERSION};

/// A guest's end of the stream, for a test to play the agent.
struct FakeGuest {
    reader: FrameReader<UnixStream>,
    writer: FrameWriter<UnixStream>,
}

impl FakeGuest {
    fn call(&mut self) -> Call {
        loop {
            let call: Call = self.reader.read().unwrap().expect("the host hung up");
            match call.body {
                Request::Credit(_) | Request::Cancel => {}
                _ => return call,
            }
        }
    }

    fn answer(&mut self, id: u32, body: Reply) {
        self.writer.write(&Answer { id, body }).unwrap();
    }

    fn greet(&mut self, version: u32) {
        let call = self.call();
        let Request::Hello { session, .. } = call.body else { panic!("no greeting but {call:?}") };
        self.answer(call.id, Reply::Hello { version, session });
    }
}

fn limit() -> Limit {
    Limit::new("the fake guest", Duration::from_secs(20))
}

/// Runs `play` as the guest.
fn agent(play: impl FnOnce(FakeGuest) + Send + 'static) -> (Agent, JoinHandle<()>) {
    let (host, guest) = UnixStream::pair().unwrap();
    let guest =
        FakeGuest { reader: FrameReader::new(guest.try_clone().unwrap()), writer: FrameWriter::new(guest) };
    (Agent::new(host).unwrap(), std::thread::spawn(move || play(guest)))
}

#[test]
fn output_and_status_come_back() {
    let (agent, guest) = agent(|mut guest| {
        guest.greet(PROTOCOL_VERSION);
        let Call { id, body: Request::Exec(exec) } = guest.call() else { panic!("no command") };
        assert_eq!(exec.argv, ["cat", "-"]);
        assert!(exec.stdin);
        guest.answer(id, Reply::Started { pid: 5 });
        loop {
            match guest.call().body {
                Request::Data(bytes) => guest.answer(id, Reply::Output(Stream::Stdout, bytes)),
                Request::End => break,
                other => panic!("{other:?}"),
            }
        }
        guest.answer(id, Reply::Output(Stream::Stderr, b"done".to_vec()));
        guest.answer(id, Reply::Exited(ExitStatus::Code(3)));
    });
    agent.wait_ready(&limit()).unwrap();
    let options = ExecOptions { stdin: Some(b"hello".to_vec()), ..ExecOptions::default() };
    let output = agent.exec(&["cat", "-"], &options).unwrap();
    assert_eq!(output.stdout(), "hello");
    assert_eq!(output.stderr(), "done");
    assert_eq!(output.status, ExitStatus::Code(3));
    guest.join().unwrap();
}

#[test]
fn a_guest_that_boots_again_loses_its_requests_and_is_greeted() {
    let (agent, guest) = agent(|mut guest| {
        guest.greet(PROTOCOL_VERSION);
        let lost = guest.call().id;
        guest.answer(0, Reply::Booted);
        // Of the session before: must not reach anybody.
        guest.answer(lost, Reply::Exited(ExitStatus::Code(0)));
        guest.greet(PROTOCOL_VERSION);
        let id = guest.call().id;
        guest.answer(id, Reply::Done);
        assert!(guest.reader.read::<Call>().unwrap().is_none());
    });
    agent.wait_ready(&limit()).unwrap();
    let before = agent.boots();
    let error = agent.exec(&["true"], &ExecOptions::default()).unwrap_err();
    assert!(matches!(error, Error::AgentGone(_)), "{error}");
    agent.wait_boot(before, &limit()).unwrap();
    agent.power_off(&limit()).unwrap();
    drop(agent);
    guest.join().unwrap();
}

#[test]
fn a_refused_file_is_an_error_with_the_reason() {
    let (agent, guest) = agent(|mut guest| {
        guest.greet(PROTOCOL_VERSION);
        let id = guest.call().id;
        guest.answer(id, Reply::Failed { errno: Some(30), message: "read-only file system".into() });
        while guest.reader.read::<Call>().unwrap().is_some() {}
    });
    agent.wait_ready(&limit()).unwrap();
    // More than the input window: the sender waits for credit that never comes.
    let error = agent.write_file("/proc/x", 0o644, &vec![0; 1 << 20], &limit()).unwrap_err();
    assert_eq!(error.to_string(), "the guest agent could not write /proc/x: read-only file system");
    drop(agent);
    guest.join().unwrap();
}

#[test]
fn another_version_of_the_agent_is_named() {
    let (agent, guest) = agent(|mut guest| guest.greet(PROTOCOL_VERSION + 1));
    let error = agent.wait_ready(&limit()).unwrap_err().to_string();
    assert!(error.contains("version"), "{error}");
    guest.join().unwrap();
}

#[test]
fn a_silent_guest_is_given_up() {
    let (agent, _guest) = agent(|mut guest| {
        guest.greet(PROTOCOL_VERSION);
        while guest.reader.read::<Call>().unwrap().is_some() {}
    });
    agent.wait_ready(&limit()).unwrap();
    let options = ExecOptions { limit: Duration::from_millis(10), ..ExecOptions::default() };
    let error = agent.exec(&["sleep", "9"], &options).unwrap_err().to_string();
    assert_eq!(error, "gave up waiting for the command \"sleep 9\" to end after 10ms");
}
