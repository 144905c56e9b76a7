//! A stream of messages in each direction of a connection, with credits: nobody sends a message for which the peer has no
//! receive posted.
//!
//! Both sides know from the plan how many messages come, and how long each is. A side that has taken some messages and
//! posted their receives anew sends a credit message: no bytes, and their number as immediate data. A side that has
//! received everything and whose messages have all gone sends a last message, and ends when it has the peer's.

use std::collections::VecDeque;
use std::iter::Peekable;

use anyhow::{Context as _, bail, ensure};
use vipl::{Descriptor, DescriptorPool, LocalSegment, MemoryAttributes, Nic, Queue, RegisteredBuffer, Work};

use crate::channel::Channel;
use crate::pattern::{Message, Sender};
use crate::sizes::Sizes;

/// Registered memory of one direction; it bounds the window of long messages.
const MEMORY_LIMIT: u64 = 64 << 20;

/// Immediate data: what a message without data says.
const CREDIT: u32 = 0x0100_0000;
const LAST: u32 = 0x0200_0000;
const COUNT: u32 = 0x00ff_ffff;

/// What goes over a connection.
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    /// How long the messages are.
    pub sizes: Sizes,
    /// Messages in each direction that has any.
    pub messages: u64,
    /// Only from the client, or from both.
    pub both_ways: bool,
    /// Most messages under way in one direction.
    pub window: u32,
    /// Whether every byte is checked.
    pub check: bool,
    /// Seed of sizes and contents.
    pub seed: u64,
}

/// What has gone over a connection, seen from one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages sent and received.
    pub messages: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl Streams {
    /// The window, as large as memory allows.
    #[must_use]
    pub fn window(&self) -> u32 {
        let slot = u64::from(self.sizes.max()).max(1);
        let fit = u32::try_from(MEMORY_LIMIT / slot / 2).unwrap_or(u32::MAX);
        self.window.min(fit.max(2))
    }

    /// Receives that are posted for data: while one window is under way, another is acknowledged.
    fn depth(&self) -> u32 {
        2 * self.window()
    }

    /// Messages that one credit message gives back.
    fn batch(&self) -> u32 {
        (self.window() / 2).max(1)
    }

    /// Most messages without data that the peer may have sent and this side not taken: credits, and the last.
    fn notes(&self) -> u32 {
        self.depth().div_ceil(self.batch()) + 1
    }

    fn messages_from(&self, sender: Sender) -> u64 {
        if self.both_ways || sender == Sender::Client { self.messages } else { 0 }
    }
}

/// What a posted send carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Data { slot: usize },
    Note,
}

/// One side of the streams. Receives are posted when it is made; then the session may start.
pub struct Flow {
    streams: Streams,
    side: Sender,
    pool: DescriptorPool,
    outgoing: RegisteredBuffer,
    incoming: RegisteredBuffer,
    slot_size: usize,
    free_slots: Vec<usize>,
    /// What is on the send queue, in order.
    sends: VecDeque<Sent>,
    /// The slots of the receive queue, in order.
    receives: VecDeque<usize>,
    credits: u32,
    /// Messages taken that the peer has no credit for yet.
    owed: u32,
    notes: VecDeque<u32>,
    totals: Totals,
    bytes: Vec<u8>,
    expected: Vec<u8>,
}

impl Flow {
    /// Registers memory and posts the receives.
    ///
    /// # Errors
    /// If the NIC has no room for it.
    pub fn new(nic: &Nic, channel: &mut Channel, side: Sender, streams: Streams) -> anyhow::Result<Self> {
        let max = streams.sizes.max() as usize;
        let limit = nic.registers()?.max_transfer_size as usize;
        ensure!(max <= limit, "messages of {max} bytes are longer than the NIC's maximum of {limit}");
        let window = streams.window() as usize;
        let receives = (streams.depth() + streams.notes()) as usize;
        let slot_size = max.max(1).next_multiple_of(64);
        // A side that gets no data gets messages without bytes only.
        let receive_size = if streams.messages_from(side.peer()) > 0 { slot_size } else { 0 };
        let memory = "cannot register memory (a smaller --window needs less)";
        let attributes = MemoryAttributes::default();
        let outgoing = RegisteredBuffer::new(nic, window * slot_size, &attributes).context(memory)?;
        let incoming =
            RegisteredBuffer::new(nic, (receives * receive_size).max(1), &attributes).context(memory)?;
        let descriptors = window + receives + streams.notes() as usize;
        let mut flow = Self {
            streams,
            side,
            pool: DescriptorPool::new(nic, descriptors, 1, None).context(memory)?,
            outgoing,
            incoming,
            slot_size,
            free_slots: (0..window).collect(),
            sends: VecDeque::new(),
            receives: VecDeque::new(),
            credits: streams.depth(),
            owed: 0,
            notes: VecDeque::new(),
            totals: Totals::default(),
            bytes: vec![0; max],
            expected: Vec::with_capacity(max),
        };
        for slot in 0..receives {
            let mut receive = flow.descriptor()?;
            receive.fill(&Work::Receive {
                segments: &[flow.incoming.segment(slot * receive_size, receive_size)?],
            })?;
            flow.post_receive(channel, receive, slot)?;
        }
        Ok(flow)
    }

    /// Exchanges all messages.
    ///
    /// # Errors
    /// When the exchange fails or a byte is wrong.
    pub fn run(&mut self, channel: &mut Channel) -> anyhow::Result<Totals> {
        let (streams, side) = (self.streams, self.side);
        let to_send = streams.messages_from(side);
        let to_receive = streams.messages_from(side.peer());
        let sizes = |sender, count| streams.sizes.of(streams.seed, sender).zip(0..count).peekable();
        let mut outgoing = sizes(side, to_send);
        let mut incoming = sizes(side.peer(), to_receive);
        let (mut last_sent, mut last_received) = (false, false);
        loop {
            self.send_data(channel, &mut outgoing)?;
            let all_done = outgoing.peek().is_none() && incoming.peek().is_none();
            if all_done && self.sends.is_empty() && self.notes.is_empty() && !last_sent {
                self.notes.push_back(LAST);
                last_sent = true;
            }
            self.send_notes(channel)?;
            if last_sent && last_received {
                // The peer may end the connection now, which flushes the receives: only what was sent still counts.
                while !self.sends.is_empty() {
                    channel.next_of(Queue::Send)?;
                    self.sent()?;
                }
                return Ok(self.totals);
            }
            match channel.next_completion()? {
                (Queue::Send, _) => self.sent()?,
                (Queue::Receive, descriptor) => match descriptor.immediate() {
                    None => self.take_data(channel, descriptor, &mut incoming)?,
                    Some(note) => {
                        match note & !COUNT {
                            CREDIT => self.credits += note & COUNT,
                            LAST => last_received = true,
                            _ => bail!("a message came with immediate data {note:#x}, which means nothing"),
                        }
                        self.repost(channel, descriptor)?;
                    }
                },
            }
        }
    }

    fn send_data(
        &mut self,
        channel: &mut Channel,
        sizes: &mut Peekable<impl Iterator<Item = (u32, u64)>>,
    ) -> anyhow::Result<()> {
        while self.credits > 0 && !self.free_slots.is_empty() && sizes.peek().is_some() {
            let (Some((size, number)), Some(slot)) = (sizes.next(), self.free_slots.pop()) else { break };
            let offset = slot * self.slot_size;
            if self.streams.check {
                let bytes = &mut self.bytes[..size as usize];
                Message { seed: self.streams.seed, sender: self.side, number }.fill(bytes);
                self.outgoing.write(offset, bytes);
            }
            self.credits -= 1;
            let segment = self.outgoing.segment(offset, size as usize)?;
            self.send(channel, &[segment], None, Sent::Data { slot })?;
            self.count(size);
        }
        Ok(())
    }

    fn send_notes(&mut self, channel: &mut Channel) -> anyhow::Result<()> {
        // Bounded, as the descriptors are; the others wait for these to go.
        while self.sends.iter().filter(|sent| **sent == Sent::Note).count() < self.streams.notes() as usize {
            let Some(note) = self.notes.pop_front() else { break };
            self.send(channel, &[], Some(note), Sent::Note)?;
        }
        Ok(())
    }

    fn send(
        &mut self,
        channel: &mut Channel,
        segments: &[LocalSegment],
        immediate: Option<u32>,
        sent: Sent,
    ) -> anyhow::Result<()> {
        let mut descriptor = self.descriptor()?;
        descriptor.fill(&Work::Send { segments, immediate })?;
        channel.post(Queue::Send, descriptor)?;
        self.sends.push_back(sent);
        Ok(())
    }

    fn sent(&mut self) -> anyhow::Result<()> {
        match self.sends.pop_front().context("a send completed that was not posted")? {
            Sent::Data { slot } => self.free_slots.push(slot),
            Sent::Note => {}
        }
        Ok(())
    }

    fn take_data(
        &mut self,
        channel: &mut Channel,
        descriptor: Descriptor,
        sizes: &mut Peekable<impl Iterator<Item = (u32, u64)>>,
    ) -> anyhow::Result<()> {
        let (size, number) = sizes.next().context("more messages came than the plan says")?;
        let length = descriptor.outcome().unwrap_or(0);
        ensure!(length == size, "message {number} has {length} bytes instead of {size}");
        if self.streams.check {
            let slot = *self.receives.front().context("a receive completed that was not posted")?;
            let bytes = &mut self.bytes[..size as usize];
            self.incoming.read(slot * self.slot_size, bytes);
            let message = Message { seed: self.streams.seed, sender: self.side.peer(), number };
            message.check(bytes, &mut self.expected)?;
        }
        self.count(size);
        self.repost(channel, descriptor)?;
        self.owed += 1;
        if self.owed == self.streams.batch() {
            self.notes.push_back(CREDIT | std::mem::take(&mut self.owed));
        }
        Ok(())
    }

    fn count(&mut self, size: u32) {
        self.totals.messages += 1;
        self.totals.bytes += u64::from(size);
    }

    fn repost(&mut self, channel: &mut Channel, descriptor: Descriptor) -> anyhow::Result<()> {
        let slot = self.receives.pop_front().context("a receive completed that was not posted")?;
        self.post_receive(channel, descriptor, slot)
    }

    fn post_receive(
        &mut self,
        channel: &mut Channel,
        receive: Descriptor,
        slot: usize,
    ) -> anyhow::Result<()> {
        channel.post(Queue::Receive, receive)?;
        self.receives.push_back(slot);
        Ok(())
    }

    fn descriptor(&self) -> anyhow::Result<Descriptor> {
        self.pool.take().context("no descriptor is free")
    }
}
