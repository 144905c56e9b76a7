//! Equals that meet write into each other's memory and read it, without a receive posted.
//!
//! ```sh
//! cargo run -p vipl --example rdma -- direct:/tmp/nic0.sock
//! ```

use std::error::Error;
use std::time::Duration;

use vipl::{
    DescriptorPool, MemoryAttributes, Nic, Poll, Queue, RegisteredBuffer, ReliabilityLevel, RemoteMemory, Vi,
    ViAttributes, Work, net_address,
};

const SIZE: usize = 1 << 16;
const LIMIT: Option<Duration> = Some(Duration::from_secs(30));

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Posts work of the send queue and waits until it is done.
fn carry_out(vi: &Vi, descriptors: &DescriptorPool, work: &Work<'_>) -> Result<u32> {
    let mut descriptor = descriptors.take().ok_or("all descriptors are posted")?;
    descriptor.fill(work)?;
    vi.post_send(descriptor)?;
    let Poll::Done(descriptor) = vi.wait(Queue::Send, LIMIT)? else {
        return Err("nothing is posted".into());
    };
    Ok(descriptor.outcome().map_err(|status| format!("it completed with {status:?}"))?)
}

fn main() -> Result<()> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "nic0".into());
    let nic = Nic::open(&name)?;
    let attributes = ViAttributes {
        reliability: ReliabilityLevel::RELIABLE_RECEPTION,
        max_transfer_size: 1 << 20,
        tag: None,
        rdma_write: true,
        rdma_read: true,
    };
    let (here, there) = (nic.create_vi(&attributes, None, None)?, nic.create_vi(&attributes, None, None)?);
    // Each asks for the other; neither is the server.
    let (left, right) = (net_address(None, b"left")?, net_address(None, b"right")?);
    here.connect_peer_request(&left, &right, LIMIT)?;
    there.connect_peer_request(&right, &left, LIMIT)?;
    for vi in [&here, &there] {
        let peer = vi.connect_peer_wait()?;
        assert!(peer.rdma_write && peer.rdma_read, "the peer allows both");
    }

    let open = MemoryAttributes { rdma_write: true, rdma_read: true, ..MemoryAttributes::default() };
    let own = RegisteredBuffer::new(&nic, 2 * SIZE, &MemoryAttributes::default())?;
    let remote = RegisteredBuffer::new(&nic, SIZE, &open)?;
    let descriptors = DescriptorPool::new(&nic, 1, 2, None)?;
    let sent: Vec<u8> = (0..=250).cycle().take(SIZE).collect();
    own.write(0, &sent);

    // In a program of two processes a message would tell the peer's address and handle.
    let place: RemoteMemory = remote.as_remote();
    let write = Work::RdmaWrite { target: place, segments: &[own.segment(0, SIZE)?], immediate: None };
    let written = carry_out(&here, &descriptors, &write)?;
    let read = Work::RdmaRead { source: place, segments: &[own.segment(SIZE, SIZE)?] };
    let fetched = carry_out(&here, &descriptors, &read)?;
    let mut came = vec![0; SIZE];
    own.read(SIZE, &mut came);
    if came != sent {
        return Err("other bytes came back than went".into());
    }
    println!("{written} bytes written, {fetched} read back");

    // From now on the memory is closed to the peer, and the connection breaks on the next attempt.
    remote.set_attributes(&MemoryAttributes::default())?;
    match carry_out(&here, &descriptors, &write) {
        Ok(_) => Err("memory was written that is closed".into()),
        Err(refusal) => {
            println!("closed memory: {refusal}");
            Ok(())
        }
    }
}
