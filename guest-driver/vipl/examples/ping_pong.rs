//! Two VIs of one NIC send a message to and fro.
//!
//! ```sh
//! cargo run -p vipl --example ping_pong -- direct:/tmp/nic0.sock
//! ```

use std::error::Error;
use std::time::Duration;

use vipl::{
    Descriptor, DescriptorPool, MemoryAttributes, NetAddress, Nic, Poll, Queue, RegisteredBuffer,
    ReliabilityLevel, Vi, ViAttributes, Work, net_address,
};

const ROUNDS: u32 = 1000;
const SIZE: usize = 64;
const LIMIT: Option<Duration> = Some(Duration::from_secs(30));

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// One end: a VI, and a buffer whose first half is sent and whose second half receives.
struct End {
    // Dropped before the descriptors' and the buffer's memory.
    vi: Vi,
    descriptors: DescriptorPool,
    buffer: RegisteredBuffer,
}

impl End {
    fn new(nic: &Nic) -> Result<Self> {
        let attributes = ViAttributes {
            reliability: ReliabilityLevel::RELIABLE_DELIVERY,
            max_transfer_size: 4096,
            tag: None,
            rdma_write: false,
            rdma_read: false,
        };
        let end = Self {
            vi: nic.create_vi(&attributes, None, None)?,
            descriptors: DescriptorPool::new(nic, 2, 1, None)?,
            buffer: RegisteredBuffer::new(nic, 2 * SIZE, &MemoryAttributes::default())?,
        };
        // Before there is a connection, so that no message finds the queue empty.
        end.post_receive()?;
        Ok(end)
    }

    fn descriptor(&self) -> Result<Descriptor> {
        self.descriptors.take().ok_or_else(|| "all descriptors are posted".into())
    }

    fn post_receive(&self) -> Result<()> {
        let mut descriptor = self.descriptor()?;
        descriptor.fill(&Work::Receive { segments: &[self.buffer.segment(SIZE, SIZE)?] })?;
        Ok(self.vi.post_receive(descriptor)?)
    }

    fn send(&self, number: u32) -> Result<()> {
        self.buffer.write(0, &number.to_le_bytes());
        let mut descriptor = self.descriptor()?;
        descriptor.fill(&Work::Send { segments: &[self.buffer.segment(0, SIZE)?], immediate: None })?;
        self.vi.post_send(descriptor)?;
        self.completed(Queue::Send)
    }

    fn receive(&self) -> Result<u32> {
        self.completed(Queue::Receive)?;
        let mut number = [0; 4];
        self.buffer.read(SIZE, &mut number);
        self.post_receive()?;
        Ok(u32::from_le_bytes(number))
    }

    /// Waits for the oldest descriptor of a queue.
    fn completed(&self, queue: Queue) -> Result<()> {
        let Poll::Done(descriptor) = self.vi.wait(queue, LIMIT)? else {
            return Err("nothing is posted".into());
        };
        descriptor.outcome().map_err(|status| format!("it completed with {status:?}"))?;
        Ok(())
    }
}

fn serve(nic: &Nic, address: &NetAddress) -> Result<()> {
    let end = End::new(nic)?;
    nic.connect_wait(address, LIMIT)?.accept(end.vi.id())?;
    for _ in 0..ROUNDS {
        let number = end.receive()?;
        end.send(number + 1)?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "nic0".into());
    let nic = Nic::open(&name)?;
    let address = net_address(None, b"ping pong")?;
    let end = End::new(&nic)?;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&nic, &address));
        // Nobody listens at first.
        while let Err(error) = end.vi.connect_request(&address, &address, LIMIT) {
            if !matches!(error, vipl::Error::NoMatch) || server.is_finished() {
                return Err(error.into());
            }
            std::thread::yield_now();
        }
        for round in 0..ROUNDS {
            end.send(round)?;
            let answer = end.receive()?;
            if answer != round + 1 {
                return Err(format!("{answer} came for {round}").into());
            }
        }
        server.join().map_err(|_| "the server has panicked")?
    })?;
    println!("{ROUNDS} round trips");
    Ok(())
}
