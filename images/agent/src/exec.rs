//! Commands: one thread each, which moves bytes between the command and the host as their windows allow.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fd::OwnedFd,
    io::{Errno, ioctl_fionbio},
    process::{Pid, Signal},
};
use vianic_guest_agent::{Exec, ExitStatus, INPUT_WINDOW, MAX_CHUNK, Reply, Stream, WindowSize};

use crate::{
    reaper::{Parent, Reaper},
    task::{Overrun, Speaker, Task, failed},
    terminal,
};

/// A command that was asked for.
pub(crate) struct ExecTask {
    reaper: Reaper,
    /// Variables for the command, which the request may replace.
    environment: &'static [(&'static str, &'static str)],
    control: Arc<Control>,
}

/// What others tell the thread of a command.
struct Control {
    state: Mutex<State>,
    /// Wakes the thread from its poll.
    wake: OwnedFd,
}

#[derive(Default)]
struct State {
    pid: Option<Pid>,
    input: VecDeque<u8>,
    input_ended: bool,
    credit: u64,
    resize: Option<WindowSize>,
    cancelled: bool,
    exited: Option<ExitStatus>,
}

impl Control {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        // Can fail only if the counter is full, and then the thread is being woken anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Forgets that the thread was to be woken.
    fn take_wakes(&self) -> io::Result<()> {
        match rustix::io::read(&self.wake, &mut [0; 8]) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parent for Control {
    fn exited(&self, status: ExitStatus) {
        self.change(|state| state.exited = Some(status));
    }
}

impl ExecTask {
    pub(crate) fn new(
        reaper: Reaper,
        environment: &'static [(&'static str, &'static str)],
    ) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { reaper, environment, control: Arc::new(Control { state: Mutex::default(), wake }) })
    }

    /// Runs the command to its end.
    pub(crate) fn run(&self, exec: Exec, speaker: &Speaker) -> Reply {
        let program = exec.argv.first().cloned().unwrap_or_default();
        let mut pipes = match self.start(&exec, speaker) {
            Ok(pipes) => pipes,
            Err(error) => {
                self.kill();
                return failed(&format!("running {program}"), &error);
            }
        };
        match pipes.carry(self, speaker) {
            Ok(status) => Reply::Exited(status),
            Err(error) => {
                self.kill();
                failed(&format!("carrying the output of {program}"), &error)
            }
        }
    }

    fn start(&self, exec: &Exec, speaker: &Speaker) -> io::Result<Pipes> {
        let Some((program, arguments)) = exec.argv.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program was named"));
        };
        let mut command = Command::new(program);
        command.args(arguments).envs(self.environment.iter().copied());
        command.envs(exec.env.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &exec.cwd {
            command.current_dir(folder);
        }
        if let Some((user, group)) = exec.owner {
            command.uid(user).gid(group);
        }
        let master = match exec.pty {
            Some(size) => Some(terminal::attach(&mut command, size)?),
            None => {
                command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
                command.stdin(if exec.stdin { Stdio::piped() } else { Stdio::null() });
                None
            }
        };
        let parent = Arc::clone(&self.control) as Arc<dyn Parent>;
        let (mut child, pid) = self.reaper.spawn(&mut command, parent)?;
        {
            let mut state = self.control.lock();
            state.pid = Some(pid);
            state.credit += u64::from(exec.window);
        }
        speaker.say(Reply::Started { pid: pid.as_raw_nonzero().get() });
        // The command holds the terminal's ends too; these must go for its end to be seen.
        drop(command);
        if let Some(master) = master {
            ioctl_fionbio(&master, true)?;
            let reader = File::from(master.try_clone()?);
            return Ok(Pipes {
                input: Some(File::from(master)),
                outputs: [Some((Stream::Stdout, reader)), None],
                terminal: true,
            });
        }
        let file = |pipe: Option<OwnedFd>| pipe.map(File::from);
        let input = file(child.stdin.take().map(Into::into));
        if let Some(input) = &input {
            ioctl_fionbio(input, true)?;
        }
        let stdout = file(child.stdout.take().map(Into::into)).map(|pipe| (Stream::Stdout, pipe));
        let stderr = file(child.stderr.take().map(Into::into)).map(|pipe| (Stream::Stderr, pipe));
        Ok(Pipes { input, outputs: [stdout, stderr], terminal: false })
    }

    fn kill(&self) {
        let pid = self.control.lock().pid;
        if let Some(pid) = pid {
            self.reaper.signal(pid, Signal::KILL);
        }
    }
}

impl Task for ExecTask {
    fn data(&self, bytes: Vec<u8>) -> Result<(), Overrun> {
        let mut result = Ok(());
        self.control.change(|state| {
            let waiting = state.input.len() + bytes.len();
            if u32::try_from(waiting).is_ok_and(|waiting| waiting <= INPUT_WINDOW) {
                state.input.extend(bytes);
            } else {
                result = Err(Overrun);
            }
        });
        result
    }

    fn end(&self) {
        self.control.change(|state| state.input_ended = true);
    }

    fn credit(&self, bytes: u32) {
        self.control.change(|state| state.credit = state.credit.saturating_add(u64::from(bytes)));
    }

    fn signal(&self, signal: i32) {
        let pid = self.control.lock().pid;
        if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(signal)) {
            self.reaper.signal(pid, signal);
        }
    }

    fn resize(&self, size: WindowSize) {
        self.control.change(|state| state.resize = Some(size));
    }

    fn cancel(&self) {
        self.control.change(|state| state.cancelled = true);
        // If it is only being started, its thread kills it.
        self.kill();
    }
}

/// This side of the command's standard streams.
struct Pipes {
    input: Option<File>,
    outputs: [Option<(Stream, File)>; 2],
    terminal: bool,
}

impl Pipes {
    /// Carries bytes until the command has ended and its output is sent.
    fn carry(&mut self, task: &ExecTask, speaker: &Speaker) -> io::Result<ExitStatus> {
        let mut killed = false;
        loop {
            // Before the look at what has changed: whatever changes after that look wakes the next wait.
            task.control.take_wakes()?;
            let (exited, credit, write) = {
                let mut state = task.control.lock();
                if let Some(size) = state.resize.take()
                    && let (true, Some(input)) = (self.terminal, &self.input)
                {
                    terminal::resize(input, size)?;
                }
                if state.cancelled && !killed {
                    killed = true;
                    drop(state);
                    task.kill();
                    continue;
                }
                if let (true, Some(status)) = (state.cancelled, state.exited) {
                    return Ok(status);
                }
                let write = !state.input.is_empty() || state.input_ended;
                (state.exited, state.credit, write)
            };
            let ready = self.wait(task, exited.is_some(), credit > 0, write)?;
            if let (Some(status), false) = (exited, ready.output) {
                return Ok(status);
            }
            if ready.input {
                self.feed(task, speaker)?;
            }
            if credit > 0 && ready.output {
                self.fetch(task, speaker)?;
            } else if exited.is_some() {
                // Output is left, but the host has no room for it yet.
                poll_retry(&mut [PollFd::new(&task.control.wake, PollFlags::IN)], None)?;
            }
        }
    }

    /// Waits until there is something to do. Once the command has ended it only looks: what it has written
    /// is there already, and a background process that holds the pipe isn't waited for.
    fn wait(&mut self, task: &ExecTask, exited: bool, credit: bool, write: bool) -> io::Result<Ready> {
        let wake = &task.control.wake;
        let mut fds = vec![PollFd::new(wake, PollFlags::IN)];
        // Looks at outputs without credit only at the end. (An idle entry would report a hang-up for ever.)
        let outputs = self.outputs.iter().flatten().filter(|_| credit || exited);
        fds.extend(outputs.map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN)));
        let first_input = fds.len();
        fds.extend(self.input.iter().filter(|_| write).map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll_retry(&mut fds, exited.then_some(&now))?;
        let ready = Ready {
            output: fds[1..first_input].iter().any(|fd| fd.revents().contains(PollFlags::IN)),
            input: fds[first_input..].iter().any(|fd| !fd.revents().is_empty()),
        };
        // Hung up with nothing left to read. (An output that wasn't looked at has no entry.)
        let mut over = fds[1..first_input]
            .iter()
            .map(|fd| !fd.revents().is_empty() && !fd.revents().contains(PollFlags::IN))
            .collect::<Vec<_>>()
            .into_iter();
        for output in &mut self.outputs {
            if output.is_some() && over.next() == Some(true) {
                *output = None;
            }
        }
        Ok(ready)
    }

    /// Gives the command its input.
    fn feed(&mut self, task: &ExecTask, speaker: &Speaker) -> io::Result<()> {
        let Some(input) = &mut self.input else { return Ok(()) };
        let (chunk, ended) = {
            let state = task.control.lock();
            (state.input.as_slices().0.to_vec(), state.input_ended)
        };
        let taken = if chunk.is_empty() {
            0
        } else {
            match input.write(&chunk) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The command doesn't want any more: the rest goes nowhere.
                Err(_) => chunk.len(),
            }
        };
        let mut state = task.control.lock();
        state.input.drain(..taken);
        let finished = ended && state.input.is_empty();
        drop(state);
        if taken > 0 {
            speaker.say(Reply::Credit(u32::try_from(taken).unwrap_or(u32::MAX)));
        }
        if finished {
            if self.terminal {
                // A terminal has no end of input, only a character for it (control-D).
                match input.write(&[4]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    _ => task.control.lock().input_ended = false,
                }
                return Ok(());
            }
            self.input = None;
        }
        Ok(())
    }

    /// Sends what the command has written, one chunk of each stream.
    fn fetch(&mut self, task: &ExecTask, speaker: &Speaker) -> io::Result<()> {
        for output in &mut self.outputs {
            let Some((stream, pipe)) = output else { continue };
            let credit = usize::try_from(task.control.lock().credit).unwrap_or(usize::MAX);
            let mut ready = [PollFd::new(&*pipe, PollFlags::IN)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            if credit == 0 || poll_retry(&mut ready, Some(&now))? == 0 {
                continue;
            }
            let mut buffer = vec![0; MAX_CHUNK.min(credit)];
            let length = match pipe.read(&mut buffer) {
                Ok(length) => length,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) =>
                {
                    continue;
                }
                // A terminal whose last user has gone.
                Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => 0,
                Err(error) => return Err(error),
            };
            if length == 0 {
                *output = None;
                continue;
            }
            buffer.truncate(length);
            task.control.lock().credit -= u64::try_from(length).unwrap_or(u64::MAX);
            if !speaker.say(Reply::Output(*stream, buffer)) {
                task.cancel();
            }
        }
        Ok(())
    }
}

struct Ready {
    output: bool,
    input: bool,
}

fn poll_retry(fds: &mut [PollFd<'_>], limit: Option<&Timespec>) -> io::Result<usize> {
    loop {
        match poll(fds, limit) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}
