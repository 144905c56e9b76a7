//! Files to and from the guest.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
};

use rustix::fs::OFlags;
use vianic_guest_agent::{INPUT_WINDOW, MAX_CHUNK, Reply, Stream, Window};

use crate::task::{Overrun, Speaker, Task, failed};

/// Opening must not wait for another process, as it would with a FIFO.
fn no_wait() -> i32 {
    OFlags::NONBLOCK.bits().cast_signed()
}

/// A file that the host reads.
pub(crate) struct ReadTask {
    window: Window,
}

impl ReadTask {
    pub(crate) fn new(window: u32) -> Self {
        Self { window: Window::new(window) }
    }

    pub(crate) fn run(&self, path: &str, speaker: &Speaker) -> Reply {
        self.send(path, speaker)
            .map_or_else(|error| failed(&format!("reading {path}"), &error), |()| Reply::Done)
    }

    fn send(&self, path: &str, speaker: &Speaker) -> io::Result<()> {
        let mut file = File::options().read(true).custom_flags(no_wait()).open(path)?;
        let mut buffer = vec![0; MAX_CHUNK];
        while let Some(credit) = self.window.take(MAX_CHUNK) {
            let length = file.read(&mut buffer[..credit])?;
            if length == 0 {
                return Ok(());
            }
            self.window.grant(u32::try_from(credit - length).unwrap_or(0));
            if !speaker.say(Reply::Output(Stream::Stdout, buffer[..length].to_vec())) {
                break;
            }
        }
        Err(io::Error::other("cancelled"))
    }
}

impl Task for ReadTask {
    fn credit(&self, bytes: u32) {
        self.window.grant(bytes);
    }

    fn cancel(&self) {
        self.window.close();
    }
}

/// A file that the host writes.
pub(crate) struct WriteTask {
    inbox: Sender<Input>,
    /// Bytes in the inbox.
    waiting: AtomicUsize,
}

pub(crate) enum Input {
    Data(Vec<u8>),
    End,
    Cancel,
}

impl WriteTask {
    pub(crate) fn new() -> (Self, Receiver<Input>) {
        let (sender, inbox) = channel();
        (Self { inbox: sender, waiting: AtomicUsize::new(0) }, inbox)
    }

    pub(crate) fn run(&self, path: &str, mode: u32, inbox: &Receiver<Input>, speaker: &Speaker) -> Reply {
        self.receive(Path::new(path), mode, inbox, speaker)
            .map_or_else(|error| failed(&format!("writing {path}"), &error), |()| Reply::Done)
    }

    fn receive(&self, path: &Path, mode: u32, inbox: &Receiver<Input>, speaker: &Speaker) -> io::Result<()> {
        let mut target = Target::open(path, mode)?;
        for input in inbox {
            match input {
                Input::Data(bytes) => {
                    target.file.write_all(&bytes)?;
                    self.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
                    speaker.say(Reply::Credit(u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
                }
                Input::End => return target.keep(),
                Input::Cancel => break,
            }
        }
        Err(io::Error::other("cancelled"))
    }

    fn put(&self, input: Input) {
        // If nobody takes it any more, the task is over and has said so.
        let _ = self.inbox.send(input);
    }
}

impl Task for WriteTask {
    fn data(&self, bytes: Vec<u8>) -> Result<(), Overrun> {
        let waiting = self.waiting.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
        if u32::try_from(waiting).is_ok_and(|waiting| waiting <= INPUT_WINDOW) {
            self.put(Input::Data(bytes));
            return Ok(());
        }
        Err(Overrun)
    }

    fn end(&self) {
        self.put(Input::End);
    }

    fn cancel(&self) {
        self.put(Input::Cancel);
    }
}

/// Where the bytes go.
struct Target {
    file: File,
    /// A new file's name until it is complete, and the one it gets then.
    rename: Option<(PathBuf, PathBuf)>,
}

impl Target {
    fn open(path: &Path, mode: u32) -> io::Result<Self> {
        // Through a link, as an ordinary write would go.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        if fs::metadata(&path).is_ok_and(|old| !old.is_file() || is_virtual(&path)) {
            let file = File::options().write(true).custom_flags(no_wait()).open(&path)?;
            return Ok(Self { file, rename: None });
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file"));
        };
        fs::create_dir_all(folder)?;
        let mut part = name.to_os_string();
        part.push(".part");
        let part = folder.join(part);
        let file = File::options().write(true).create(true).truncate(true).mode(mode).open(&part)?;
        let target = Self { file, rename: Some((part, path)) };
        // Whatever the umask is.
        target.file.set_permissions(Permissions::from_mode(mode))?;
        Ok(target)
    }

    fn keep(mut self) -> io::Result<()> {
        if let Some((part, path)) = self.rename.take() {
            fs::rename(&part, path).inspect_err(|_| remove(&part))?;
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some((part, _)) = &self.rename {
            remove(part);
        }
    }
}

/// Files in these trees are the kernel's: they can be written, but not replaced.
fn is_virtual(path: &Path) -> bool {
    path.starts_with("/proc") || path.starts_with("/sys")
}

fn remove(part: &Path) {
    if let Err(error) = fs::remove_file(part) {
        eprintln!("vianic-guest-agent: removing {}: {error}", part.display());
    }
}
