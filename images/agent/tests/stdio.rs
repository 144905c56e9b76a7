//! Talks to a real agent over its standard streams.

use std::{
    collections::HashMap,
    io::{BufReader, Write},
    os::unix::fs::PermissionsExt,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use vianic_guest_agent::{
    Answer, Call, Exec, ExitStatus, FrameReader, FrameWriter, INPUT_WINDOW, MAX_CHUNK, Reply, Request,
    Stream, WindowSize, greet,
};

struct Host {
    agent: Child,
    writer: Option<FrameWriter<ChildStdin>>,
    reader: FrameReader<BufReader<ChildStdout>>,
}

impl Host {
    fn start() -> Self {
        let mut host = Self::start_silent();
        host.greet(1);
        host
    }

    fn start_silent() -> Self {
        let mut agent = Command::new(env!("CARGO_BIN_EXE_vianic-guest-agent"))
            .arg("--stdio")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let writer = Some(FrameWriter::new(agent.stdin.take().unwrap()));
        let reader = FrameReader::new(BufReader::new(agent.stdout.take().unwrap()));
        Self { agent, writer, reader }
    }

    fn greet(&mut self, session: u64) {
        greet(&mut self.reader, self.writer.as_mut().unwrap(), session).unwrap();
    }

    fn call(&mut self, id: u32, body: Request) {
        self.writer.as_mut().unwrap().write(&Call { id, body }).unwrap();
    }

    fn answer(&mut self) -> Answer {
        self.reader.read().unwrap().expect("the agent has closed its output")
    }

    /// Reads until the request is over; grants what it reads.
    fn finish(&mut self, id: u32) -> (Vec<u8>, Vec<u8>, Reply) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            let answer = self.answer();
            assert_eq!(answer.id, id, "{answer:?}");
            if answer.body.is_final() {
                return (stdout, stderr, answer.body);
            }
            if let Reply::Output(stream, bytes) = answer.body {
                self.call(id, Request::Credit(u32::try_from(bytes.len()).unwrap()));
                match stream {
                    Stream::Stdout => stdout.extend(bytes),
                    Stream::Stderr => stderr.extend(bytes),
                }
            }
        }
    }

    fn started(&mut self, id: u32) -> i32 {
        match self.answer() {
            Answer { id: answered, body: Reply::Started { pid } } if answered == id => pid,
            other => panic!("{other:?}"),
        }
    }

    /// Closes the host's end and waits for the agent's.
    fn close(mut self) {
        drop(self.writer.take());
        while let Ok(Some(_)) = self.reader.read::<Answer>() {}
        assert!(self.agent.wait().unwrap().success());
    }
}

fn shell(script: &str) -> Exec {
    Exec {
        argv: vec!["sh".into(), "-c".into(), script.into()],
        env: vec![],
        cwd: None,
        owner: None,
        stdin: false,
        pty: None,
        window: 64 * 1024,
    }
}

#[test]
fn a_command_has_output_and_status() {
    let mut host = Host::start();
    let mut exec = shell("echo $WORD; pwd; cat; echo oops >&2; exit 3");
    exec.env.push(("WORD".into(), "hello".into()));
    exec.cwd = Some("/usr".into());
    host.call(9, Request::Exec(exec));
    let (stdout, stderr, last) = host.finish(9);
    assert_eq!(String::from_utf8(stdout).unwrap(), "hello\n/usr\n");
    assert_eq!(stderr, b"oops\n");
    assert_eq!(last, Reply::Exited(ExitStatus::Code(3)));
    host.close();
}

#[test]
fn a_missing_program_is_named() {
    let mut host = Host::start();
    let mut exec = shell("");
    exec.argv = vec!["/no/such/program".into()];
    host.call(1, Request::Exec(exec.clone()));
    let Reply::Failed { errno, message } = host.finish(1).2 else { panic!() };
    assert_eq!(errno, Some(2));
    assert!(message.contains("/no/such/program"), "{message}");
    exec.argv = vec![];
    host.call(1, Request::Exec(exec));
    assert!(matches!(host.finish(1).2, Reply::Failed { errno: None, .. }));
    host.close();
}

#[test]
fn input_is_carried_in_its_window() {
    let mut host = Host::start();
    let mut exec = shell("wc -c; exec <&-; sleep 0");
    exec.stdin = true;
    host.call(1, Request::Exec(exec));
    host.started(1);
    let total = 3 * usize::try_from(INPUT_WINDOW).unwrap();
    let (mut sent, mut window) = (0, usize::try_from(INPUT_WINDOW).unwrap());
    while sent < total {
        let length = MAX_CHUNK.min(window).min(total - sent);
        if length == 0 {
            let Reply::Credit(credit) = host.answer().body else { panic!() };
            window += usize::try_from(credit).unwrap();
            continue;
        }
        host.call(1, Request::Data(vec![0; length]));
        sent += length;
        window -= length;
    }
    host.call(1, Request::End);
    let (stdout, _, last) = host.finish(1);
    assert_eq!(String::from_utf8(stdout).unwrap().trim(), total.to_string());
    assert_eq!(last, Reply::Exited(ExitStatus::Code(0)));
    host.close();
}

#[test]
fn output_stays_in_its_window() {
    let mut host = Host::start();
    let mut exec = shell("head -c 5000 /dev/zero");
    exec.window = 1000;
    host.call(1, Request::Exec(exec));
    host.started(1);
    let mut received = 0;
    while received < 1000 {
        let Reply::Output(Stream::Stdout, bytes) = host.answer().body else { panic!() };
        received += bytes.len();
    }
    assert_eq!(received, 1000);
    // Another request is served meanwhile, and nothing more of the first comes before it.
    host.call(2, Request::Ping);
    assert_eq!(host.answer(), Answer { id: 2, body: Reply::Pong });
    host.call(1, Request::Credit(1000));
    let (stdout, _, last) = host.finish(1);
    assert_eq!(stdout.len(), 4000);
    assert_eq!(last, Reply::Exited(ExitStatus::Code(0)));
    host.close();
}

#[test]
fn commands_run_at_once_and_take_signals() {
    let mut host = Host::start();
    for id in 1..=20 {
        let mut exec = shell("cat");
        exec.stdin = true;
        host.call(id, Request::Exec(exec));
    }
    for _ in 1..=20 {
        assert!(matches!(host.answer().body, Reply::Started { .. }));
    }
    for id in 1..=20 {
        host.call(id, Request::Signal(15));
    }
    let mut ends = HashMap::new();
    while ends.len() < 20 {
        let answer = host.answer();
        ends.insert(answer.id, answer.body);
    }
    assert!(ends.values().all(|end| *end == Reply::Exited(ExitStatus::Signal(15))), "{ends:?}");
    host.close();
}

#[test]
fn a_background_process_does_not_hold_the_answer() {
    let mut host = Host::start();
    host.call(1, Request::Exec(shell("cat /dev/zero | sleep 1000 & echo $!")));
    let (stdout, _, last) = host.finish(1);
    assert_eq!(last, Reply::Exited(ExitStatus::Code(0)));
    host.call(2, Request::Exec(shell(&format!("kill {}", String::from_utf8(stdout).unwrap().trim()))));
    assert_eq!(host.finish(2).2, Reply::Exited(ExitStatus::Code(0)));
    host.close();
}

#[test]
fn a_new_greeting_ends_the_commands_before_it() {
    let mut host = Host::start();
    host.call(1, Request::Exec(shell("exec sleep 1000")));
    let pid = host.started(1);
    // The old host vanishes in mid-frame.
    host.writer.as_mut().unwrap().write(&Call { id: 2, body: Request::Ping }).unwrap();
    host.greet(2);
    // Its command is gone, sooner or later: the kill was sent before the greeting was answered.
    host.call(1, Request::Exec(shell(&format!("while kill -0 {pid} 2>/dev/null; do :; done"))));
    assert_eq!(host.finish(1).2, Reply::Exited(ExitStatus::Code(0)));
    host.close();
}

#[test]
fn without_a_greeting_nothing_is_done() {
    let mut host = Host::start_silent();
    host.call(1, Request::Ping);
    host.greet(5);
    host.call(2, Request::Ping);
    assert_eq!(host.answer(), Answer { id: 2, body: Reply::Pong });
    host.close();
}

#[test]
fn damage_ends_the_session() {
    let mut host = Host::start();
    host.call(1, Request::Exec(shell("exec sleep 1000")));
    host.started(1);
    // A frame of nonsense.
    let mut raw = host.writer.take().unwrap().into_inner();
    raw.write_all(&[0xff, 0xff, 0]).unwrap();
    host.writer = Some(FrameWriter::new(raw));
    assert!(matches!(host.answer(), Answer { id: 0, body: Reply::Failed { .. } }));
    host.greet(3);
    host.close();
}

#[test]
fn too_much_input_ends_the_session() {
    let mut host = Host::start();
    let mut exec = shell("exec sleep 1000");
    exec.stdin = true;
    host.call(1, Request::Exec(exec));
    host.started(1);
    for _ in 0..=(usize::try_from(INPUT_WINDOW).unwrap() + 64 * 1024) / MAX_CHUNK {
        host.call(1, Request::Data(vec![0; MAX_CHUNK]));
    }
    loop {
        match host.answer() {
            Answer { id: 1, body: Reply::Credit(_) } => {}
            Answer { id: 0, body: Reply::Failed { message, .. } } => {
                assert!(message.contains("window"), "{message}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    host.close();
}

#[test]
fn files_go_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/file");
    let name = path.to_str().unwrap().to_string();
    let mut host = Host::start();
    host.call(1, Request::WriteFile { path: name.clone(), mode: 0o4751 });
    host.call(1, Request::Data(b"first ".to_vec()));
    host.call(1, Request::Data(b"second".to_vec()));
    assert!(!path.exists());
    host.call(1, Request::End);
    assert_eq!(host.finish(1).2, Reply::Done);
    assert_eq!(std::fs::read(&path).unwrap(), b"first second");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o4751);

    host.call(2, Request::ReadFile { path: name.clone(), window: 4 });
    assert_eq!(host.finish(2), (b"first second".to_vec(), vec![], Reply::Done));

    host.call(3, Request::WriteFile { path: name, mode: 0o600 });
    host.call(3, Request::Data(b"half".to_vec()));
    host.call(3, Request::Cancel);
    assert!(matches!(host.finish(3).2, Reply::Failed { .. }));
    assert_eq!(std::fs::read(&path).unwrap(), b"first second");
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

    host.call(4, Request::ReadFile { path: "/no/such/file".into(), window: 4 });
    assert!(matches!(host.finish(4).2, Reply::Failed { errno: Some(2), .. }));
    host.call(5, Request::WriteFile { path: "/dev/null".into(), mode: 0o600 });
    host.call(5, Request::Data(b"away".to_vec()));
    host.call(5, Request::End);
    assert_eq!(host.finish(5).2, Reply::Done);
    host.close();
}

#[test]
fn a_terminal_is_one() {
    let mut host = Host::start();
    let mut exec =
        shell("test -t 0 && test -t 2 && stty size && read line && stty size && cat && echo $line");
    exec.pty = Some(WindowSize { rows: 5, columns: 33 });
    host.call(1, Request::Exec(exec));
    host.started(1);
    let mut text = Vec::new();
    while !text.ends_with(b"\n") {
        let Reply::Output(Stream::Stdout, bytes) = host.answer().body else { panic!() };
        text.extend(bytes);
    }
    assert_eq!(text, b"5 33\r\n");
    host.call(1, Request::Resize(WindowSize { rows: 6, columns: 44 }));
    host.call(1, Request::Data(b"word\n".to_vec()));
    host.call(1, Request::End);
    let (stdout, _, last) = host.finish(1);
    assert_eq!(String::from_utf8(stdout).unwrap(), "word\r\n6 44\r\nword\r\n");
    assert_eq!(last, Reply::Exited(ExitStatus::Code(0)));
    host.close();
}

#[test]
fn when_the_host_goes_its_commands_go() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut host = Host::start();
    host.call(
        1,
        Request::Exec(shell(&format!("exec 3<>{0}; echo ready; sleep 1000 3<{0} >{0}", fifo.display()))),
    );
    host.started(1);
    assert!(matches!(host.answer().body, Reply::Output(..)));
    let reader = std::fs::File::open(&fifo).unwrap();
    host.close();
    // The end of the fifo comes when its last writer, the command, is gone.
    assert_eq!(std::io::read_to_string(reader).unwrap(), "");
}
