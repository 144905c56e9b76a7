//! DPDK's vhost-user: packets that bounce between the virtio end and the vhost end, each of them DPDK's own `testpmd`.
//!
//! That is the card's own protocol underneath, so it is what one would use instead of the card. Each end forwards whatever comes
//! back to where it came from (`io`), and as many packets as the case has messages under way are let loose between them. A packet
//! that has come back is a message: the application's end posted it, the device's end took it, and posted one in return.

mod answers;
mod testpmd;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use vianic_images::Progress;
use vianic_tools::bench::beside::Cores;
use vianic_tools::bench::contestant::{Contestant, Role, Sample};

use self::testpmd::{End, Testpmd};
use super::unpacked::Unpacked;

/// Bytes of a packet, headers and all, without a checksum.
const SMALLEST: u32 = 64;
const LARGEST: u32 = 1514;
/// Most packets that an end takes and gives at once; DPDK's own choice.
const BURST: u32 = 32;
/// A sample is the median of so many looks ...
const LOOKS: usize = 11;
/// ... this far apart: packets bounce thousands of times, and in most looks nothing else interrupts them. To look takes a tenth of a millisecond itself.
const LOOK: Duration = Duration::from_millis(2);
/// How long all looks may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Asks for an end's counters.
const SHOW: &str = "show port stats 0";

/// The program.
#[derive(Clone, Debug)]
pub struct Dpdk {
    package: Unpacked,
}

impl Dpdk {
    /// Unpacks it from Debian's packages into the cache, unless it is there.
    ///
    /// # Errors
    /// If the packages cannot be had.
    pub fn provide(progress: Progress<'_>) -> anyhow::Result<Self> {
        let package = Unpacked::provide("dpdk-dev", "dpdk", progress);
        Ok(Self { package: package.context("no DPDK; leave dpdk out of --peers to measure without it")? })
    }

    /// Starts both ends, each on its core, and connects them.
    ///
    /// # Errors
    /// If they don't run here.
    pub fn connect(&self, cores: Cores) -> anyhow::Result<Pair> {
        let folder = tempfile::tempdir().context("no folder for DPDK's socket")?;
        // Threads of its own that an end starts stay on the core, too.
        cores.device.pin()?;
        let device = Testpmd::start(&self.package, folder.path(), End::Vhost, cores.device);
        cores.application.pin()?;
        let mut device = device?;
        let application = Testpmd::start(&self.package, folder.path(), End::Virtio, cores.application)?;
        device.await_link()?;
        let ends = Ends { application, device, _folder: folder };
        Ok(Pair(Rc::new(RefCell::new(ends))))
    }
}

/// Both ends, connected.
#[derive(Clone)]
pub struct Pair(Rc<RefCell<Ends>>);

struct Ends {
    application: Testpmd,
    device: Testpmd,
    _folder: tempfile::TempDir,
}

impl Pair {
    /// Packets of `size` bytes, `window` of them bouncing; if packets have such sizes.
    #[must_use]
    pub fn bouncing(&self, size: u32, window: u32) -> Option<Bouncing> {
        (SMALLEST..=LARGEST).contains(&size).then(|| Bouncing { pair: self.clone(), size, window })
    }
}

/// Packets that bounce, as a contestant.
pub struct Bouncing {
    pair: Pair,
    size: u32,
    window: u32,
}

impl Contestant for Bouncing {
    fn name(&self) -> String {
        "DPDK, vhost-user".into()
    }

    fn role(&self) -> Role {
        Role::Peer
    }

    /// A sample takes some 100 ms, most of it to start and to stop.
    fn samples(&self, most: u32) -> u32 {
        most.min(3)
    }

    fn sample(&mut self) -> anyhow::Result<Sample> {
        self.pair.0.borrow_mut().sample(self.size, self.window)
    }
}

impl Ends {
    fn sample(&mut self, size: u32, window: u32) -> anyhow::Result<Sample> {
        let Self { application, device, .. } = self;
        // Half of the packets are at one end while the others are at the other.
        let burst = (window / 2).clamp(1, BURST);
        for end in [&mut *application, &mut *device] {
            end.say(&format!("set burst {burst}"))?;
        }
        application.say(&format!("set txpkts {size}"))?;
        device.say("start")?;
        application.say(&format!("start tx_first {}", window / burst))?;
        let rate = median_rate(application, size)?;
        // In this order, all packets come to rest in the ring that the application's end empties when it starts again.
        let stopped = application.say("stop")?;
        device.say("stop")?;

        let bouncing = answers::under_way(&stopped)?;
        ensure!(bouncing == u64::from(window), "{bouncing} packets were under way in place of {window}");
        Ok(Sample { messages: rate, time: Duration::from_secs(1), singles: Vec::new() })
    }
}

/// Packets that come to an end in a second.
fn median_rate(end: &mut Testpmd, size: u32) -> anyhow::Result<u64> {
    // It tells the rate since the look before.
    end.say(SHOW)?;
    let begin = Instant::now();
    let mut looks = Vec::new();
    while looks.len() < LOOKS {
        // This is the time that is measured; nothing else happens in it.
        std::thread::sleep(LOOK);
        let look = answers::throughput(&end.say(SHOW)?)?;
        // On a busy machine one of the ends may not run for so long, which tells nothing about them.
        looks.extend((look.packets > 0).then_some(look));
        ensure!(begin.elapsed() < LIMIT, "hardly a packet came back for {LIMIT:?}");
    }
    answers::check_size(&looks, size)?;
    looks.sort_by_key(|look| look.packets);
    Ok(looks.get(LOOKS / 2).context("no look")?.packets)
}
