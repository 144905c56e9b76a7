//! The states of a VI as VIPL knows them.
//!
//! | state | event | next |
//! |---|---|---|
//! | Idle | a connection is asked for or accepted | Connect Pending |
//! | Connect Pending with a peer | VipDisconnect | Disconnecting, then Idle |
//! | Connect Pending | it is made | Connected; Error if it was lost meanwhile |
//! | Connect Pending | it is not made | Idle |
//! | Connected | the card reports it lost | Error |
//! | Connected, Error | VipDisconnect | Disconnecting, then Idle |
//! | Idle | VipSetViAttributes | Changing, then Idle |
//! | Idle | VipDestroyVi | Gone |
//!
//! The card's report of a loss can overtake the Kernel Agent's answer that the connection is made.

use vianic_abi::status::{ErrorCode, ReliabilityLevel};

use crate::error::{Error, Result};

/// What a program sees: `VIP_VI_STATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViState {
    /// Not connected.
    Idle,
    /// Connected.
    Connected,
    /// A connection has been asked for.
    ConnectPending,
    /// The connection is lost.
    Error,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Idle,
    /// Idle, while its attributes are being changed.
    Changing,
    ConnectPending {
        attempt: Attempt,
        lost: bool,
    },
    Connected,
    Error,
    Disconnecting,
    Gone,
}

/// How a connection is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// By a call that waits, of a client or a server.
    Call,
    /// With a peer; it goes on until the program has been told what became of it.
    Peer,
}

/// What VipDisconnect has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disconnect {
    Nothing,
    Ask,
}

impl State {
    pub(crate) fn seen_by_program(self) -> ViState {
        match self {
            Self::Idle | Self::Changing | Self::Gone => ViState::Idle,
            Self::ConnectPending { .. } => ViState::ConnectPending,
            Self::Connected => ViState::Connected,
            Self::Error | Self::Disconnecting => ViState::Error,
        }
    }

    pub(crate) fn begin_connect(&mut self, attempt: Attempt) -> Result<()> {
        match self {
            Self::Idle => {
                *self = Self::ConnectPending { attempt, lost: false };
                Ok(())
            }
            Self::Gone => Err(Error::InvalidHandle("VI")),
            _ => Err(Error::InvalidState("the VI is not Idle")),
        }
    }

    /// Whether an attempt with a peer has not been told to have ended.
    pub(crate) fn awaits_peer(self) -> bool {
        matches!(self, Self::ConnectPending { attempt: Attempt::Peer, .. })
    }

    pub(crate) fn end_connect(&mut self, made: bool) {
        if let Self::ConnectPending { lost, .. } = *self {
            *self = match (made, lost) {
                (false, _) => Self::Idle,
                (true, false) => Self::Connected,
                (true, true) => Self::Error,
            };
        }
    }

    pub(crate) fn begin_change(&mut self) -> Result<()> {
        match self {
            Self::Idle => {
                *self = Self::Changing;
                Ok(())
            }
            Self::Gone => Err(Error::InvalidHandle("VI")),
            _ => Err(Error::InvalidState("the VI is not Idle")),
        }
    }

    pub(crate) fn end_change(&mut self) {
        if *self == Self::Changing {
            *self = Self::Idle;
        }
    }

    /// The card reports an asynchronous error. `true`: the program wants to hear of it.
    pub(crate) fn error(&mut self, code: ErrorCode, reliability: ReliabilityLevel) -> bool {
        match self {
            Self::Disconnecting | Self::Gone => return false,
            Self::Idle | Self::Changing => return code != ErrorCode::CONN_LOST,
            // Other codes may be about a descriptor posted before there was a connection to lose.
            Self::ConnectPending { lost, .. } => *lost |= code == ErrorCode::CONN_LOST,
            Self::Connected if breaks_connection(code, reliability) => *self = Self::Error,
            Self::Connected | Self::Error => {}
        }
        true
    }

    /// The whole context has failed.
    pub(crate) fn context_failed(&mut self) {
        if *self != Self::Gone {
            *self = Self::Error;
        }
    }

    pub(crate) fn begin_disconnect(&mut self) -> Result<Disconnect> {
        match self {
            Self::Idle | Self::Changing | Self::Disconnecting => Ok(Disconnect::Nothing),
            Self::Connected | Self::Error | Self::ConnectPending { attempt: Attempt::Peer, .. } => {
                *self = Self::Disconnecting;
                Ok(Disconnect::Ask)
            }
            Self::ConnectPending { attempt: Attempt::Call, .. } => {
                Err(Error::InvalidState("a connection is being made"))
            }
            Self::Gone => Err(Error::InvalidHandle("VI")),
        }
    }

    pub(crate) fn end_disconnect(&mut self, done: bool) {
        if *self == Self::Disconnecting {
            *self = if done { Self::Idle } else { Self::Error };
        }
    }

    pub(crate) fn destroy(&mut self) -> Result<()> {
        match self {
            Self::Idle => {
                *self = Self::Gone;
                Ok(())
            }
            Self::Gone => Err(Error::InvalidHandle("VI")),
            _ => Err(Error::OutOfResources("the VI is not Idle: disconnect it first")),
        }
    }
}

/// Whether the card has broken a connection when it reports `code`.
fn breaks_connection(code: ErrorCode, reliability: ReliabilityLevel) -> bool {
    match code {
        ErrorCode::RECVQ_EMPTY
        | ErrorCode::RDMAW_PROT
        | ErrorCode::RDMAW_DATA
        | ErrorCode::RDMAW_ABORT
        | ErrorCode::RDMAR_PROT => reliability != ReliabilityLevel::UNRELIABLE,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELIABLE: ReliabilityLevel = ReliabilityLevel::RELIABLE_DELIVERY;

    #[test]
    fn a_loss_may_overtake_the_connection() {
        let mut state = State::Idle;
        state.begin_connect(Attempt::Call).unwrap();
        assert!(state.error(ErrorCode::CONN_LOST, RELIABLE));
        assert_eq!(state.seen_by_program(), ViState::ConnectPending);
        state.end_connect(true);
        assert_eq!(state, State::Error);
    }

    #[test]
    fn a_failed_connect_leaves_the_vi_idle() {
        let mut state = State::Idle;
        state.begin_connect(Attempt::Call).unwrap();
        assert!(state.begin_connect(Attempt::Call).is_err());
        state.end_connect(false);
        assert_eq!(state, State::Idle);
        state.begin_connect(Attempt::Call).unwrap();
    }

    #[test]
    fn disconnecting_hides_the_loss_that_it_causes() {
        let mut state = State::Connected;
        assert_eq!(state.begin_disconnect().unwrap(), Disconnect::Ask);
        assert!(!state.error(ErrorCode::CONN_LOST, RELIABLE));
        assert_eq!(state.begin_disconnect().unwrap(), Disconnect::Nothing);
        state.end_disconnect(true);
        assert_eq!(state, State::Idle);
        assert_eq!(state.begin_disconnect().unwrap(), Disconnect::Nothing);
        assert!(!state.error(ErrorCode::CONN_LOST, RELIABLE));
    }

    #[test]
    fn an_attempt_with_a_peer_can_be_given_up_and_one_of_a_call_cannot() {
        let mut state = State::Idle;
        state.begin_connect(Attempt::Peer).unwrap();
        assert!(state.awaits_peer());
        assert_eq!(state.seen_by_program(), ViState::ConnectPending);
        assert!(matches!(state.destroy(), Err(Error::OutOfResources(_))));
        assert_eq!(state.begin_disconnect().unwrap(), Disconnect::Ask);
        state.end_connect(true);
        assert_eq!(state, State::Disconnecting, "too late");
        state.end_disconnect(true);
        state.begin_connect(Attempt::Call).unwrap();
        assert!(!state.awaits_peer());
        assert!(matches!(state.begin_disconnect(), Err(Error::InvalidState(_))));
    }

    #[test]
    fn nothing_else_begins_while_attributes_change() {
        let mut state = State::Idle;
        state.begin_change().unwrap();
        assert_eq!(state.seen_by_program(), ViState::Idle);
        assert!(matches!(state.begin_connect(Attempt::Call), Err(Error::InvalidState(_))));
        assert!(matches!(state.begin_change(), Err(Error::InvalidState(_))));
        assert!(matches!(state.destroy(), Err(Error::OutOfResources(_))));
        assert_eq!(state.begin_disconnect().unwrap(), Disconnect::Nothing);
        state.end_change();
        assert_eq!(state, State::Idle);
        state = State::Connected;
        assert!(matches!(state.begin_change(), Err(Error::InvalidState(_))));
        state.end_change();
        assert_eq!(state, State::Connected);
    }

    #[test]
    fn only_an_idle_vi_is_destroyed_and_once() {
        let mut state = State::Error;
        assert!(matches!(state.destroy(), Err(Error::OutOfResources(_))));
        state = State::Idle;
        state.destroy().unwrap();
        assert!(matches!(state.destroy(), Err(Error::InvalidHandle("VI"))));
        state.context_failed();
        assert_eq!(state, State::Gone);
    }

    #[test]
    fn an_empty_receive_queue_breaks_reliable_connections_only() {
        let mut state = State::Connected;
        assert!(state.error(ErrorCode::RECVQ_EMPTY, ReliabilityLevel::UNRELIABLE));
        assert_eq!(state, State::Connected);
        assert!(state.error(ErrorCode::RECVQ_EMPTY, RELIABLE));
        assert_eq!(state, State::Error);
    }

    #[test]
    fn a_bad_descriptor_is_reported_and_breaks_only_what_is_there() {
        let mut state = State::Idle;
        assert!(state.error(ErrorCode::POST_DESC, RELIABLE));
        assert_eq!(state, State::Idle);
        state.begin_connect(Attempt::Call).unwrap();
        assert!(state.error(ErrorCode::POST_DESC, RELIABLE));
        state.end_connect(true);
        assert_eq!(state, State::Connected);
        assert!(state.error(ErrorCode::POST_DESC, RELIABLE));
        assert_eq!(state, State::Error);
    }
}
