//! Serves one host after the other: sessions, and which task a call is for.

use std::{
    io::{self, Read},
    sync::Arc,
};

use vianic_guest_agent::{
    Call, FrameError, FrameReader, Info, ModuleState, PROTOCOL_VERSION, Reply, Request,
};

use crate::{
    exec::ExecTask,
    file::{ReadTask, WriteTask},
    outbox::{Line, Outbox},
    power::{self, Stop},
    reaper::Reaper,
    task::{Overrun, Tasks, failed},
};

/// What commands of an init find in their environment: the kernel gives it next to nothing.
const INIT_ENVIRONMENT: [(&str, &str); 5] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"),
    ("HOME", "/root"),
    ("USER", "root"),
    ("LANG", "C.UTF-8"),
    ("TERM", "linux"),
];

/// What to do when the host closes its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtEnd {
    Return,
    WaitForNextHost,
}

pub(crate) struct Server {
    line: Line,
    reaper: Reaper,
    is_init: bool,
    module: ModuleState,
    session: Option<Session>,
}

struct Session {
    outbox: Outbox,
    tasks: Tasks,
}

impl Server {
    pub(crate) fn new(line: Line, reaper: Reaper, is_init: bool, module: ModuleState) -> Self {
        Self { line, reaper, is_init, module, session: None }
    }

    /// Serves what `source` brings.
    pub(crate) fn serve(&mut self, source: impl Read, at_end: AtEnd) -> io::Result<()> {
        let mut reader = FrameReader::new(source);
        self.line.say(Some(Reply::Booted))?;
        loop {
            match reader.read::<Call>() {
                Ok(Some(call)) => self.handle(call),
                Ok(None) => {
                    self.end_session();
                    if at_end == AtEnd::Return {
                        return Ok(());
                    }
                    self.line.say(None)?;
                }
                // Either the rest of what an earlier host sent, or this one isn't to be trusted.
                Err(error @ (FrameError::Damaged(_) | FrameError::TooLong)) => {
                    self.refuse_session(&error.to_string());
                }
                Err(FrameError::Io(error)) => {
                    self.end_session();
                    return Err(error);
                }
            }
        }
    }

    fn end_session(&mut self) {
        if let Some(session) = self.session.take() {
            self.line.end_session();
            session.tasks.cancel_all();
        }
    }

    /// Ends the session because its host has broken the protocol, and says so.
    fn refuse_session(&mut self, why: &str) {
        if let Some(session) = &self.session {
            // A closed session needs no explanation any more.
            let _ = session.outbox.send(
                0,
                Reply::Failed { errno: None, message: format!("the session was ended by the agent: {why}") },
            );
            self.end_session();
        }
    }

    fn handle(&mut self, Call { id, body }: Call) {
        if let Request::Hello { version, session } = body {
            self.greet(id, version, session);
            return;
        }
        // Without a greeting it's left over from an earlier session.
        let Some(Session { outbox, tasks }) = &self.session else { return };
        let answer = |reply| {
            // If the session has just ended, nobody wants the answer.
            let _ = outbox.send(id, reply);
        };
        let task = || tasks.get(id);
        match body {
            Request::Hello { .. } => {}
            Request::Ping => answer(Reply::Pong),
            Request::Info => answer(Reply::Info(self.info())),
            Request::Exec(exec) => match ExecTask::new(self.reaper.clone(), self.environment()) {
                Ok(new) => tasks.start(id, Arc::new(new), move |task, speaker| task.run(exec, speaker)),
                Err(error) => answer(failed("preparing a command", &error)),
            },
            Request::WriteFile { path, mode } => {
                let (new, inbox) = WriteTask::new();
                tasks.start(id, Arc::new(new), move |task, speaker| task.run(&path, mode, &inbox, speaker));
            }
            Request::ReadFile { path, window } => {
                let new = ReadTask::new(window);
                tasks.start(id, Arc::new(new), move |task, speaker| task.run(&path, speaker));
            }
            Request::Data(bytes) => {
                if let Some(Err(Overrun)) = task().map(|task| task.data(bytes)) {
                    self.refuse_session("more data was sent than its window allows");
                }
            }
            Request::End => drop(task().map(|task| task.end())),
            Request::Credit(bytes) => drop(task().map(|task| task.credit(bytes))),
            Request::Signal(signal) => drop(task().map(|task| task.signal(signal))),
            Request::Resize(size) => drop(task().map(|task| task.resize(size))),
            Request::Cancel => drop(task().map(|task| task.cancel())),
            Request::PowerOff => {
                answer(Reply::Done);
                power::stop(Stop::PowerOff, self.is_init, &self.reaper);
            }
            Request::Reboot => {
                answer(Reply::Done);
                power::stop(Stop::Reboot, self.is_init, &self.reaper);
            }
        }
    }

    fn greet(&mut self, id: u32, version: u32, session: u64) {
        self.end_session();
        let outbox = self.line.next_session();
        // If this can't be sent the host is gone, and reading will show that.
        let _ = outbox.send(id, Reply::Hello { version: PROTOCOL_VERSION, session });
        if version == PROTOCOL_VERSION {
            self.session = Some(Session { tasks: Tasks::new(outbox.clone()), outbox });
        }
    }

    /// What commands find in their environment besides what the agent's own has.
    fn environment(&self) -> &'static [(&'static str, &'static str)] {
        if self.is_init { &INIT_ENVIRONMENT } else { &[] }
    }

    fn info(&self) -> Info {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        Info { kernel, init: self.is_init, module: self.module.clone() }
    }
}
