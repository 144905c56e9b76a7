//! Connections between equals.

use std::time::Duration;

use parking_lot::Mutex;
use vianic_abi::command::NetAddress;
use vianic_abi::status::Status;

use crate::agent::{AgentError, OutgoingRequest};
use crate::error::{Error, Result};
use crate::vi::{Attempt, ViAttributes, ViId, ViObject};

/// What became of an attempt with a peer, until the program is told. It comes here if somebody else looks at the VI first.
/// Held while the Kernel Agent is asked without waiting.
#[derive(Debug, Default)]
pub(crate) struct Untold(Mutex<Option<Result<ViAttributes>>>);

impl Untold {
    /// The program does not want to know any more.
    pub(crate) fn forget(&self) {
        *self.0.lock() = None;
    }
}

impl ViObject {
    /// Looks whether an attempt with a peer has ended. A connection that is made shows in the VI's state from now on; a failure does
    /// when the program has been told.
    pub(crate) fn look_for_peer(&self) -> Result<()> {
        let mut untold = self.untold.0.lock();
        if untold.is_some() || !self.state.lock().awaits_peer() {
            return Ok(());
        }
        match self.context.agent.connect_peer_wait(self.number, Some(Duration::ZERO)) {
            // Nothing yet, or another thread is being told, or the VI is going.
            Ok(None)
            | Err(AgentError::Refused(
                Status::INVALID_STATE | Status::INVALID_PARAMETER | Status::CANCELLED,
            )) => {}
            Ok(Some(attributes)) => {
                self.state.lock().end_connect(true);
                *untold = Some(Ok(ViAttributes::of_peer(&attributes)));
            }
            Err(AgentError::Refused(status)) => *untold = Some(Err(AgentError::Refused(status).into())),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Tells the program what became of an attempt with a peer. `None`: nothing is known yet.
    fn tell(&self) -> Result<Option<ViAttributes>> {
        let outcome = self.untold.0.lock().take();
        match outcome {
            Some(Ok(attributes)) => Ok(Some(attributes)),
            Some(Err(error)) => {
                self.state.lock().end_connect(false);
                Err(error)
            }
            None if self.state.lock().awaits_peer() => Ok(None),
            None => Err(self.no_attempt()),
        }
    }

    fn no_attempt(&self) -> Error {
        if self.context.is_closed() {
            // It went with the NIC handle.
            return Error::Closed;
        }
        if self.context.has_failed() {
            // No attempt tells of it, but it is what the program wants to know.
            return Error::NicFailed;
        }
        Error::InvalidState("no attempt with a peer is under way")
    }
}

impl ViId {
    /// Begins to connect the VI with one whose own request asks for it: each is made for the other's NIC, and what is `local` to the
    /// one is `remote` to the other, of which only the discriminators are compared. Returns at once; the time counts from here.
    ///
    /// # Errors
    /// [`Error::InvalidState`]: the VI is not Idle. [`Error::InvalidParameter`]: no time. [`Error::OutOfResources`].
    pub fn connect_peer_request(
        self,
        local: &NetAddress,
        remote: &NetAddress,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let object = self.object()?;
        if timeout == Some(Duration::ZERO) {
            return Err(Error::InvalidParameter("a connection request needs time"));
        }
        object.context.drain();
        object.state.lock().begin_connect(Attempt::Peer)?;
        object.untold.forget();
        let request = OutgoingRequest { vi: object.number, local: *local, remote: *remote };
        let begun = object.context.agent.connect_peer_request(&request, timeout);
        if begun.is_err() {
            object.state.lock().end_connect(false);
        }
        Ok(begun?)
    }

    /// What became of the VI's attempt with a peer: the peer's attributes. `None`: it goes on. Whatever became of it is told
    /// once; after a failure the VI is Idle.
    ///
    /// # Errors
    /// [`Error::TimedOut`]: no partner came. [`Error::InvalidReliabilityLevel`], [`Error::InvalidTransferSize`]: one came
    /// that differs, and is told the same. [`Error::NoMatch`]: the NIC has no driver. [`Error::NotReachable`].
    /// [`Error::InvalidState`]: there is no attempt, or it was told already.
    pub fn connect_peer_done(self) -> Result<Option<ViAttributes>> {
        let object = self.object()?;
        object.look_for_peer()?;
        object.tell()
    }

    /// Waits for what becomes of the VI's attempt with a peer, at most for the time that it was given.
    ///
    /// # Errors
    /// As [`connect_peer_done`](Self::connect_peer_done); [`Error::Closed`].
    pub fn connect_peer_wait(self) -> Result<ViAttributes> {
        let object = self.object()?;
        loop {
            if let Some(attributes) = object.tell()? {
                return Ok(attributes);
            }
            match object.context.agent.connect_peer_wait(object.number, None) {
                Ok(None) => {}
                Ok(Some(attributes)) => {
                    object.state.lock().end_connect(true);
                    return Ok(ViAttributes::of_peer(&attributes));
                }
                // Another thread has looked: what it found is kept for the program, or it was told. Or the VI is going.
                Err(AgentError::Refused(
                    Status::INVALID_STATE | Status::INVALID_PARAMETER | Status::CANCELLED,
                )) => {
                    return object.tell()?.ok_or_else(|| object.no_attempt());
                }
                Err(error @ AgentError::Refused(_)) => {
                    object.state.lock().end_connect(false);
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
