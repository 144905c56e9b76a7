//! Runs a command in a guest: `exec SOCKET PROGRAM [ARGUMENT...]`.

use std::{
    env,
    io::{Write, stderr, stdout},
    os::unix::net::UnixStream,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use vianic_guest_agent::{
    Answer, Call, Exec, ExitStatus, FrameReader, FrameWriter, Reply, Request, Stream, greet,
};

/// How long a guest may take to boot.
const BOOT: Duration = Duration::from_secs(120);

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = env::args().skip(1);
    let socket = arguments.next().context("usage: exec SOCKET PROGRAM [ARGUMENT...]")?;
    let stream = UnixStream::connect(&socket).with_context(|| format!("connecting to {socket}"))?;
    stream.set_read_timeout(Some(BOOT))?;
    let mut writer = FrameWriter::new(stream.try_clone()?);
    let mut reader = FrameReader::new(stream.try_clone()?);
    greet(&mut reader, &mut writer, u64::from(std::process::id()))?;
    stream.set_read_timeout(None)?;
    let exec = Exec {
        argv: arguments.collect(),
        env: Vec::new(),
        cwd: None,
        owner: None,
        stdin: false,
        pty: None,
        window: 256 * 1024,
    };
    writer.write(&Call { id: 1, body: Request::Exec(exec) })?;
    while let Some(Answer { body, .. }) = reader.read()? {
        match body {
            Reply::Output(from, bytes) => {
                match from {
                    Stream::Stdout => stdout().write_all(&bytes)?,
                    Stream::Stderr => stderr().write_all(&bytes)?,
                }
                writer.write(&Call { id: 1, body: Request::Credit(u32::try_from(bytes.len())?) })?;
            }
            Reply::Exited(status) => {
                eprintln!("{status}");
                return Ok(match status {
                    ExitStatus::Code(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
                    ExitStatus::Signal(_) => ExitCode::FAILURE,
                });
            }
            Reply::Failed { message, .. } => anyhow::bail!(message),
            _ => {}
        }
    }
    anyhow::bail!("the guest has closed the connection")
}
