//! How client and server meet: the client connects and sends what it wants to do, the server prepares and says that it is
//! ready. So only the client needs options.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vipl::{
    Descriptor, DescriptorPool, Error, MemoryAttributes, Nic, NicAddress, Queue, RegisteredBuffer,
    ReliabilityLevel, RemoteMemory, ViAttributes, Work, net_address,
};

use crate::channel::{Channel, Waiting};
use crate::cli::{Common, print_line};
use crate::pattern::Sender;

/// Room for a plan as JSON.
const PLAN_SIZE: usize = 4096;

/// Nobody waits there yet: how long until the client asks again. There is no event to wait for.
const RETRY_AFTER: Duration = Duration::from_millis(10);

#[derive(Serialize, Deserialize)]
struct Hello<P> {
    tool: String,
    version: String,
    plan: P,
    memory: Option<Memory>,
}

/// Memory that one side opens to the other's RDMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    address: u64,
    handle: u32,
}

impl Memory {
    /// A whole buffer, which must be registered for it.
    #[must_use]
    pub fn of(buffer: &RegisteredBuffer) -> Self {
        let RemoteMemory { address, handle } = buffer.as_remote();
        Self { address, handle }
    }

    /// The place `offset` bytes into it.
    #[must_use]
    pub fn at(self, offset: usize) -> RemoteMemory {
        RemoteMemory { address: self.address + offset as u64, handle: self.handle }
    }
}

/// A connection whose sides agree what to do.
#[derive(Debug)]
pub struct Session<P> {
    /// The VI.
    pub channel: Channel,
    /// What to do.
    pub plan: P,
    /// Which side this is.
    pub side: Sender,
    /// What the other side has opened, once the session has started.
    pub peer_memory: Option<Memory>,
    pool: DescriptorPool,
    buffer: RegisteredBuffer,
}

/// One tool's side of the meeting.
#[derive(Clone, Copy, Debug)]
pub struct Meeting<'a> {
    /// The tool's name: client and server must be the same.
    pub tool: &'a str,
    /// Options.
    pub options: &'a Common,
    /// How completions are waited for.
    pub waiting: Waiting,
}

impl Meeting<'_> {
    /// Waits for a client and learns its plan. Post receives, then call [`Session::start`].
    ///
    /// # Errors
    /// If the NIC cannot do it, or the client is none of ours.
    pub fn serve<P: DeserializeOwned>(&self, nic: &Nic) -> anyhow::Result<Session<P>> {
        let local = net_address(None, self.options.discriminator.as_bytes())?;
        let address = NicAddress(nic.registers()?.nic_address);
        eprintln!(
            "{}: waiting for a client at {address}, discriminator {}",
            self.tool, self.options.discriminator
        );
        let request = nic.connect_wait(&local, None).context("cannot wait for a client")?;
        let attributes = request.attributes()?;
        let mut channel = Channel::new(nic, &attributes, self.waiting)?;
        let (pool, buffer) = control_memory(nic)?;
        post_control_receive(&mut channel, &pool, &buffer)?;
        request.accept(channel.vi().id()).context("cannot accept the connection")?;
        let hello = channel.next_of(Queue::Receive).context("no plan came from the client")?;
        let hello: Hello<P> = serde_json::from_slice(&received(&hello, &buffer))
            .with_context(|| format!("the client is not {} of this version", self.tool))?;
        ensure!(
            hello.tool == self.tool && hello.version == env!("CARGO_PKG_VERSION"),
            "the client is {} {}, this is {} {}",
            hello.tool,
            hello.version,
            self.tool,
            env!("CARGO_PKG_VERSION"),
        );
        let (plan, peer_memory) = (hello.plan, hello.memory);
        Ok(Session { channel, plan, side: Sender::Server, peer_memory, pool, buffer })
    }

    /// Connects to a server. Post receives, then call [`Session::start`].
    ///
    /// # Errors
    /// If the connection cannot be made.
    pub fn connect<P: Serialize>(
        &self,
        nic: &Nic,
        host: Option<[u8; 6]>,
        plan: P,
    ) -> anyhow::Result<Session<P>> {
        let (registers, reliability) = (nic.registers()?, ReliabilityLevel::from(self.options.reliability));
        let attributes = ViAttributes {
            reliability,
            max_transfer_size: registers.max_transfer_size,
            tag: None,
            // What is not opened stays closed all the same.
            rdma_write: true,
            rdma_read: registers.rdma_read_levels & reliability.0 != 0,
        };
        let mut channel = Channel::new(nic, &attributes, self.waiting)?;
        let (pool, buffer) = control_memory(nic)?;
        post_control_receive(&mut channel, &pool, &buffer)?;
        let local = net_address(None, format!("{}-{}", self.tool, std::process::id()).as_bytes())?;
        let remote = net_address(host, self.options.discriminator.as_bytes())?;
        let deadline = Instant::now() + self.options.connect_timeout;
        let mut nobody_waited = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            match channel.vi().connect_request(&local, &remote, Some(left)) {
                Ok(_) => break,
                Err(Error::NoMatch) => nobody_waited = true,
                Err(Error::TimedOut) if nobody_waited => {}
                Err(error) => return Err(error).context("cannot connect"),
            }
            ensure!(
                Instant::now() < deadline,
                "nobody waits at that NIC, discriminator {}, for {:?}; start the server: {}",
                self.options.discriminator,
                self.options.connect_timeout,
                self.tool,
            );
            std::thread::sleep(RETRY_AFTER);
        }
        Ok(Session { channel, plan, side: Sender::Client, peer_memory: None, pool, buffer })
    }
}

impl<P: Serialize> Session<P> {
    /// Starts: both sides have posted their receives when it returns, and know what memory the other has opened.
    ///
    /// # Errors
    /// If the other side goes away.
    pub fn start(&mut self, tool: &str, memory: Option<Memory>) -> anyhow::Result<()> {
        match self.side {
            Sender::Client => {
                let hello = Hello {
                    tool: tool.into(),
                    version: env!("CARGO_PKG_VERSION").into(),
                    plan: &self.plan,
                    memory,
                };
                let bytes = serde_json::to_vec(&hello)?;
                self.send(&bytes).context("the plan did not go")?;
                let ready = self.channel.next_of(Queue::Receive).context("the server did not get ready")?;
                self.peer_memory = serde_json::from_slice(&received(&ready, &self.buffer))?;
                Ok(())
            }
            Sender::Server => self.send(&serde_json::to_vec(&memory)?).context("the client has gone"),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        ensure!(bytes.len() <= PLAN_SIZE, "the plan is too long");
        self.buffer.write(PLAN_SIZE, bytes);
        let segment = self.buffer.segment(PLAN_SIZE, bytes.len())?;
        let mut descriptor = self.pool.take().context("no descriptor for the plan")?;
        descriptor.fill(&Work::Send { segments: &[segment], immediate: None })?;
        self.channel.post(Queue::Send, descriptor)?;
        self.channel.next_of(Queue::Send).map(drop)
    }
}

/// The bytes of a message of the session's own.
fn received(message: &Descriptor, buffer: &RegisteredBuffer) -> Vec<u8> {
    let length = message.outcome().map_or(0, |length| length as usize);
    let mut bytes = vec![0; length.min(PLAN_SIZE)];
    buffer.read(0, &mut bytes);
    bytes
}

fn control_memory(nic: &Nic) -> anyhow::Result<(DescriptorPool, RegisteredBuffer)> {
    let pool = DescriptorPool::new(nic, 2, 1, None).context("cannot register descriptors")?;
    let buffer = RegisteredBuffer::new(nic, 2 * PLAN_SIZE, &MemoryAttributes::default())
        .context("cannot register memory")?;
    Ok((pool, buffer))
}

fn post_control_receive(
    channel: &mut Channel,
    pool: &DescriptorPool,
    buffer: &RegisteredBuffer,
) -> anyhow::Result<()> {
    let mut receive = pool.take().context("no descriptor for the plan")?;
    receive.fill(&Work::Receive { segments: &[buffer.segment(0, PLAN_SIZE)?] })?;
    channel.post(Queue::Receive, receive)
}

/// Prints a result: JSON, or a line of a table whose head comes first.
///
/// # Errors
/// When nobody reads it.
pub fn print_result(
    json: bool,
    first: bool,
    head: &str,
    line: &str,
    object: &serde_json::Value,
) -> anyhow::Result<()> {
    if json {
        print_line(&object.to_string())?;
    } else {
        if first {
            print_line(head)?;
        }
        print_line(line)?;
    }
    Ok(())
}
