//! Connections, client and server.

use std::sync::Arc;
use std::time::Duration;

use vianic_abi::NIC_ADDRESS_LEN;

pub use vianic_abi::MAX_DISCRIMINATOR_LEN;
pub use vianic_abi::command::NetAddress;

use crate::agent::{IncomingRequest, OutgoingRequest};
use crate::context::{Belonging, Context};
use crate::error::{Error, Result};
use crate::handle::{Key, Kind, Pool, Shared};
use crate::vi::{Attempt, ViAttributes, ViId};

static REQUESTS: Pool<Shared<RequestObject>> = Pool::new(Kind::ConnectionRequest);

/// A network address: a NIC, or none for this one, and who at it.
///
/// # Errors
/// [`Error::InvalidParameter`] for a discriminator that is too long.
pub fn net_address(host: Option<[u8; NIC_ADDRESS_LEN]>, discriminator: &[u8]) -> Result<NetAddress> {
    let mut address = NetAddress::default();
    if let Some(host) = host {
        (address.host_len, address.host) = (6, host);
    }
    let place = address.discriminator.get_mut(..discriminator.len());
    place.ok_or(Error::InvalidParameter("the discriminator is too long"))?.copy_from_slice(discriminator);
    address.discriminator_len = u16::try_from(discriminator.len())
        .map_err(|_| Error::InvalidParameter("the discriminator is too long"))?;
    Ok(address)
}

struct RequestObject {
    context: Arc<Context>,
    request: IncomingRequest,
}

/// Names a connection request that has come in, until it is accepted or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub(crate) Key);

impl RequestId {
    pub(crate) fn from_value(value: u64) -> Result<Self> {
        REQUESTS.key(value).map(Self).ok_or(Error::InvalidHandle("connection request"))
    }

    fn object(self) -> Result<Arc<RequestObject>> {
        REQUESTS.get(self.0).ok_or(Error::InvalidHandle("connection request"))
    }

    pub(crate) fn wait(
        context: &Arc<Context>,
        local: &NetAddress,
        timeout: Option<Duration>,
    ) -> Result<Self> {
        let request = context.agent.connect_wait(local, timeout)?;
        let object = RequestObject { context: Arc::clone(context), request };
        let key = REQUESTS.insert(Arc::new(object)).ok_or_else(|| {
            let _ = context.agent.connect_reject(request.connection);
            Error::OutOfResources("no more connection requests")
        })?;
        if !context.belongings.add(Belonging::Request(key)) {
            REQUESTS.remove(key);
            return Err(Error::Closed);
        }
        Ok(Self(key))
    }

    /// Uses the request up.
    pub(crate) fn forget(self) {
        if let Some(object) = REQUESTS.remove(self.0) {
            object.context.belongings.remove(Belonging::Request(self.0));
        }
    }

    /// Who asks.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`] once it is accepted or refused.
    pub fn remote(self) -> Result<NetAddress> {
        Ok(self.object()?.request.remote)
    }

    /// The attributes of the asking VI.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`] once it is accepted or refused.
    pub fn attributes(self) -> Result<ViAttributes> {
        Ok(ViAttributes::of_peer(&self.object()?.request.attributes))
    }

    /// Accepts the request with an Idle VI.
    ///
    /// # Errors
    /// [`Error::InvalidReliabilityLevel`], [`Error::InvalidTransferSize`]: mismatch; the request stays.
    /// [`Error::InvalidState`]: the VI is not Idle; the request stays. [`Error::TimedOut`]: the requester has gone.
    pub fn accept(self, vi: ViId) -> Result<()> {
        let request = self.object()?;
        let object = vi.object()?;
        if !Arc::ptr_eq(&request.context, &object.context) {
            return Err(Error::InvalidParameter("the VI belongs to another NIC handle than the request"));
        }
        object.context.drain();
        object.state.lock().begin_connect(Attempt::Call)?;
        let answer = object.context.agent.connect_accept(request.request.connection, object.number);
        object.state.lock().end_connect(answer.is_ok());
        let answer = answer.map_err(Error::from);
        if matches!(answer, Ok(()) | Err(Error::TimedOut | Error::NicFailed)) {
            self.forget();
        }
        answer
    }

    /// Refuses the request.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`] once it is accepted or refused.
    pub fn reject(self) -> Result<()> {
        let request = self.object()?;
        self.forget();
        Ok(request.context.agent.connect_reject(request.request.connection)?)
    }
}

/// A connection request that has come in; refused when dropped.
#[derive(Debug)]
pub struct ConnectionRequest(RequestId);

impl ConnectionRequest {
    pub(crate) fn new(id: RequestId) -> Self {
        Self(id)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.0
    }
}

impl std::ops::Deref for ConnectionRequest {
    type Target = RequestId;

    fn deref(&self) -> &RequestId {
        &self.0
    }
}

impl Drop for ConnectionRequest {
    fn drop(&mut self) {
        // Accepted already, perhaps.
        let _ = self.0.reject();
    }
}

impl ViId {
    /// Asks for a connection to `remote` and gives the peer's attributes. Of `local` only the discriminator counts.
    ///
    /// # Errors
    /// [`Error::NoMatch`]: nobody waits there. [`Error::Rejected`]. [`Error::NotReachable`]. [`Error::TimedOut`].
    /// [`Error::InvalidState`]: the VI is not Idle. After each the VI is as it was.
    pub fn connect_request(
        self,
        local: &NetAddress,
        remote: &NetAddress,
        timeout: Option<Duration>,
    ) -> Result<ViAttributes> {
        let object = self.object()?;
        if timeout == Some(Duration::ZERO) {
            return Err(Error::InvalidParameter("a connection request needs time"));
        }
        object.context.drain();
        object.state.lock().begin_connect(Attempt::Call)?;
        let request = OutgoingRequest { vi: object.number, local: *local, remote: *remote };
        let answer = object.context.agent.connect_request(&request, timeout);
        object.state.lock().end_connect(answer.is_ok());
        Ok(ViAttributes::of_peer(&answer?))
    }
}
