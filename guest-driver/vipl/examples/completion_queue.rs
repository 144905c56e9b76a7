//! One completion queue for many VIs: each of them receives a message, in whatever order they come.
//!
//! ```sh
//! cargo run -p vipl --example completion_queue -- direct:/tmp/nic0.sock
//! ```

use std::collections::HashSet;
use std::error::Error;
use std::time::Duration;

use vipl::{
    DescriptorPool, Nic, Poll, Queue, QueueEvent, ReliabilityLevel, Vi, ViAttributes, Work, net_address,
};

const PAIRS: u32 = 8;
const LIMIT: Option<Duration> = Some(Duration::from_secs(30));

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ATTRIBUTES: ViAttributes = ViAttributes {
    reliability: ReliabilityLevel::RELIABLE_DELIVERY,
    max_transfer_size: 4096,
    tag: None,
    rdma_write: false,
    rdma_read: false,
};

/// Connects two VIs of the NIC.
fn connect(one: &Vi, other: &Vi, number: u32) -> Result<()> {
    let address = net_address(None, format!("pair {number}").as_bytes())?;
    one.connect_peer_request(&address, &address, LIMIT)?;
    other.connect_peer_request(&address, &address, LIMIT)?;
    one.connect_peer_wait()?;
    other.connect_peer_wait()?;
    Ok(())
}

fn main() -> Result<()> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "nic0".into());
    let nic = Nic::open(&name)?;
    let queue = nic.create_cq()?;
    // Messages without bytes: what is told is their immediate data.
    let descriptors = DescriptorPool::new(&nic, 2 * usize::try_from(PAIRS)?, 0, None)?;
    let mut receivers = Vec::new();
    let mut senders = Vec::new();
    for number in 0..PAIRS {
        let receiver = nic.create_vi(&ATTRIBUTES, None, Some(&queue))?;
        let sender = nic.create_vi(&ATTRIBUTES, None, None)?;
        let mut descriptor = descriptors.take().ok_or("no descriptor is left")?;
        descriptor.fill(&Work::Receive { segments: &[] })?;
        receiver.post_receive(descriptor)?;
        connect(&receiver, &sender, number)?;
        receivers.push(receiver);
        senders.push(sender);
    }
    for (number, sender) in (0..PAIRS).zip(&senders) {
        let mut descriptor = descriptors.take().ok_or("no descriptor is left")?;
        descriptor.fill(&Work::Send { segments: &[], immediate: Some(number) })?;
        sender.post_send(descriptor)?;
    }
    let mut seen = HashSet::new();
    while seen.len() < receivers.len() {
        // The queue says where something has completed; there it is dequeued.
        let QueueEvent { vi, queue: completed } = queue.wait(LIMIT)?;
        assert_eq!(completed, Queue::Receive);
        let receiver = receivers.iter().find(|receiver| receiver.id() == vi).ok_or("an unknown VI")?;
        let Poll::Done(descriptor) = receiver.done(Queue::Receive)? else {
            return Err("the completion queue told of nothing".into());
        };
        descriptor.outcome().map_err(|status| format!("it completed with {status:?}"))?;
        seen.insert(descriptor.immediate().ok_or("no immediate data came")?);
    }
    println!("{} messages from {} VIs", seen.len(), senders.len());
    Ok(())
}
