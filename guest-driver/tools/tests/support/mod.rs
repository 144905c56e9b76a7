//! Real cards, in this process, behind their sockets.
#![allow(dead_code, clippy::allow_attributes, reason = "each test program uses a part of it")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vianic_abi::nic_memory::Counters;
use vianic_device::engine::{Engine, NicConfig};
use vianic_device::nic::memory::NicMemory;
use vianic_device::nic::pacing::Limits;
use vianic_device::socket::SocketFile;
use vianic_device::vhost::{EngineCard, Server};
use vianic_device::vito::frame::NicAddress;

/// How long a test waits for what must happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Cards that are linked with each other.
pub(crate) struct Cards {
    engine: Option<Engine>,
    servers: Vec<Server>,
    memories: Vec<Arc<NicMemory>>,
    directory: tempfile::TempDir,
}

impl Cards {
    pub(crate) fn start(count: u8) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let nics: Vec<NicConfig> = (1..=count)
            .map(|number| NicConfig {
                address: NicAddress([2, 0, 0, 0, 0, number]),
                memory: Arc::new(NicMemory::new().expect("NIC memory")),
                limits: Limits::default(),
                hostility: None,
            })
            .collect();
        let engine = Engine::start(nics.clone()).expect("an engine");
        let memories = nics.iter().map(|nic| Arc::clone(&nic.memory)).collect();
        let mut cards = Self { engine: Some(engine), servers: Vec::new(), memories, directory };
        for (number, nic) in nics.into_iter().enumerate() {
            let socket = SocketFile::bind(&cards.socket(number)).expect("a socket");
            let engine = cards.engine.as_ref().expect("it runs").handle();
            let card = Arc::new(EngineCard { engine, nic: number });
            cards.servers.push(Server::start(socket, card, nic.memory).expect("a server"));
        }
        cards
    }

    pub(crate) fn socket(&self, number: usize) -> PathBuf {
        self.directory.path().join(format!("nic{number}.sock"))
    }

    /// The name of card `number` for VIPL.
    pub(crate) fn name(&self, number: usize) -> String {
        format!("direct:{}", self.socket(number).display())
    }

    /// Gives the link of card `number` a plan of faults.
    pub(crate) fn faults(&self, number: usize, plan: &str) {
        let plan = plan.parse().expect("a plan");
        self.engine.as_ref().expect("it runs").handle().set_faults(number, Some(plan));
    }

    /// What card `number` has counted.
    pub(crate) fn counters(&self, number: usize) -> Counters {
        self.memories[number].counters()
    }

    /// The address of card `number`.
    pub(crate) fn address(&self, number: usize) -> [u8; 6] {
        [2, 0, 0, 0, 0, u8::try_from(number + 1).expect("a few")]
    }

    /// All cards go away, as if their process had died.
    pub(crate) fn kill(&mut self) {
        for server in self.servers.drain(..) {
            server.stop();
        }
        if let Some(engine) = self.engine.take() {
            engine.stop();
        }
    }
}

impl Drop for Cards {
    fn drop(&mut self) {
        self.kill();
    }
}
