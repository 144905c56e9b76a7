//! NICs.

mod name;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use vianic_abi::command::{NetAddress, NicList};
use vianic_abi::nic_memory::{Counters, LinkState, Registers};

use crate::agent::Agent;
use crate::async_error::ErrorHandler;
use crate::connect::{ConnectionRequest, RequestId};
use crate::context::Context;
use crate::cq::{CompletionQueue, CqId};
use crate::error::{Error, Result};
use crate::handle::{Key, Kind, Pool, Shared};
use crate::memory::{ProtectionTag, TagId};
use crate::name_service::NameService;
use crate::nic_address::NicAddress;
use crate::settings::Settings;
use crate::vi::{Vi, ViAttributes, ViId};

static NICS: Pool<Shared<NicObject>> = Pool::new(Kind::Nic);

/// Entries that a completion queue may be asked to have room for.
pub const MAX_CQ_ENTRIES: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct NicObject {
    pub(crate) name: String,
    pub(crate) context: Arc<Context>,
    /// The name service, while a C program has it initialised.
    pub(crate) names: Mutex<Option<Arc<NameService>>>,
}

/// Names an open NIC. It may outlive it: then every call says [`Error::InvalidHandle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NicId(pub(crate) Key);

impl NicId {
    pub(crate) fn from_value(value: u64) -> Result<Self> {
        NICS.key(value).map(Self).ok_or(Error::InvalidHandle("NIC"))
    }

    pub(crate) fn open(name: &str) -> Result<Self> {
        Self::open_agent(name, name::open(name)?, Settings::from_environment())
    }

    pub(crate) fn open_agent(name: &str, agent: Arc<dyn Agent>, settings: Settings) -> Result<Self> {
        let (key, slot) = NICS.take().ok_or(Error::OutOfResources("no more NIC handles"))?;
        let context = Context::open(Self(key), agent, settings).inspect_err(|_| NICS.give_back(key))?;
        slot.put(key, Arc::new(NicObject { name: name.into(), context, names: Mutex::default() }));
        Ok(Self(key))
    }

    pub(crate) fn object(self) -> Result<Arc<NicObject>> {
        NICS.get(self.0).ok_or(Error::InvalidHandle("NIC"))
    }

    pub(crate) fn context(self) -> Result<Arc<Context>> {
        Ok(Arc::clone(&self.object()?.context))
    }

    pub(crate) fn start_name_service(self) -> Result<NameService> {
        Ok(NameService::start(NicAddress(self.context()?.info.registers.nic_address))?)
    }

    /// The NICs of the fabric whose drivers are attached, this one counted, in the order of their addresses.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`]; [`Error::NicFailed`].
    pub fn discover(self) -> Result<Vec<NicAddress>> {
        let context = self.context()?;
        let mut found = Vec::new();
        loop {
            let first = u32::try_from(found.len()).unwrap_or(u32::MAX);
            let NicList { total, count, nics } = context.agent.discover(first)?;
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            found.extend(nics.iter().take(count).map(|nic| NicAddress(nic.address)));
            // The fabric may have changed meanwhile.
            if count == 0 || u32::try_from(found.len()).is_ok_and(|found| found >= total) {
                return Ok(found);
            }
        }
    }

    /// Closes the NIC handle: ends everything that belongs to it, and every wait.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`].
    pub fn close(self) -> Result<()> {
        NICS.remove(self.0).ok_or(Error::InvalidHandle("NIC"))?.context.close();
        Ok(())
    }
}

/// An open NIC; closed when dropped, with everything that was made of it.
#[derive(Debug)]
pub struct Nic(NicId);

impl Nic {
    /// Opens the NIC of that name: `direct:SOCKET`, `/dev/vianicN`, or a generic name such as `nic0`.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`] if there is no such NIC, [`Error::OutOfResources`] if it has no room for another process.
    pub fn open(name: &str) -> Result<Self> {
        NicId::open(name).map(Self)
    }

    /// Opens a NIC whose Kernel Agent is at hand.
    ///
    /// # Errors
    /// As the agent's.
    pub fn with_agent(name: &str, agent: Arc<dyn Agent>) -> Result<Self> {
        NicId::open_agent(name, agent, Settings::from_environment()).map(Self)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> NicId {
        self.0
    }

    /// What the NIC is: its registers when it was opened.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`] after [`NicId::close`].
    pub fn registers(&self) -> Result<Registers> {
        Ok(self.0.context()?.info.registers)
    }

    /// What the card has counted so far.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`] after [`NicId::close`].
    pub fn counters(&self) -> Result<Counters> {
        Ok(self.0.context()?.memory.counters())
    }

    /// The port's link now.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`] after [`NicId::close`].
    pub fn link_state(&self) -> Result<LinkState> {
        Ok(self.0.context()?.memory.link_state())
    }

    /// Makes a protection tag.
    ///
    /// # Errors
    /// [`Error::OutOfResources`].
    pub fn create_tag(&self) -> Result<ProtectionTag> {
        TagId::create(&self.0.context()?).map(ProtectionTag::new)
    }

    /// Makes a completion queue; it grows as it needs to.
    ///
    /// # Errors
    /// [`Error::OutOfResources`].
    pub fn create_cq(&self) -> Result<CompletionQueue> {
        CqId::create(&self.0.context()?, 1).map(CompletionQueue::new)
    }

    /// Makes a VI, Idle, whose work queues report to completion queues or not.
    ///
    /// # Errors
    /// [`Error::OutOfResources`]; what is wrong with the attributes.
    pub fn create_vi(
        &self,
        attributes: &ViAttributes,
        send_cq: Option<&CompletionQueue>,
        receive_cq: Option<&CompletionQueue>,
    ) -> Result<Vi> {
        let context = self.0.context()?;
        let (send_cq, receive_cq) = (send_cq.map(CompletionQueue::id), receive_cq.map(CompletionQueue::id));
        ViId::create(&context, attributes, send_cq, receive_cq).map(Vi::new)
    }

    /// Waits for a connection request at `local`, of which only the discriminator counts. A time-out of zero looks
    /// once; `None` never comes.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::Closed`].
    pub fn connect_wait(&self, local: &NetAddress, timeout: Option<Duration>) -> Result<ConnectionRequest> {
        RequestId::wait(&self.0.context()?, local, timeout).map(ConnectionRequest::new)
    }

    /// Starts the name service: reads the hosts file as it is now.
    ///
    /// # Errors
    /// [`Error::NameService`] if the file cannot be read or is malformed.
    pub fn start_name_service(&self) -> Result<NameService> {
        self.0.start_name_service()
    }

    /// Sets what is done about asynchronous errors, on a thread of the library. `None`: they are logged.
    ///
    /// # Errors
    /// [`Error::OutOfResources`] if there can be no thread.
    pub fn set_error_handler(&self, handler: Option<Arc<ErrorHandler>>) -> Result<()> {
        self.0.context()?.set_error_handler(handler)
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        // Closed by its name already, perhaps.
        let _ = self.0.close();
    }
}
