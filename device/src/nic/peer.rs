//! Connections between equals: two requests that ask for each other.
//!
//! A request travels to the card that it is for and waits there as a *visitor*, until its partner comes or it is withdrawn. Both
//! cards know of a pair that fits, so only one of them, the one with the lower address, brings it together: then two
//! requests that cross on their way make one connection. That takes the three steps of any connection, as the visitor may
//! have gone meanwhile; then the request that stayed goes on. Two VIs of one card are connected at once.

use vianic_abi::KERNEL_CONTEXT;
use vianic_abi::command::Connect;

use crate::nic::Card;
use crate::nic::command::Completes;
use crate::nic::completion::ViNumber;
use crate::nic::connect::{MAX_WAITING, discriminator, go_together};
use crate::nic::vi::{Connecting, ViState};
use crate::vito::connection::Connection;
use crate::vito::frame::{ConnectOutcome, ControlFrame, Endpoint, PeerRequest};

/// Whether two requests, each for the other's card, ask for each other.
fn fit(one: &PeerRequest, other: &PeerRequest) -> bool {
    one.from != other.from
        && one.remote.host == other.from.nic.0
        && other.remote.host == one.from.nic.0
        && discriminator(&one.local) == discriminator(&other.remote)
        && discriminator(&one.remote) == discriminator(&other.local)
}

fn number_of(end: Endpoint) -> ViNumber {
    ViNumber { context: end.context, vi: end.vi }
}

impl Card {
    /// CONNECT_PEER.
    pub(super) fn connect_peer(&mut self, tag: u64, connect: Connect) -> Completes {
        let request = match self.begin_connecting(tag, connect) {
            Ok(request) => request,
            Err(status) => return Completes::Now(status),
        };
        let number = number_of(request.from);
        if let Some(vi) = self.vi(number)
            && let ViState::Connecting(connecting) = &mut vi.state
        {
            connecting.peer = Some(request);
        }
        self.peers.push(request.from);
        self.ask_peer(number);
        Completes::Later
    }

    /// A VI's request for a peer, while it waits for its partner.
    fn waiting_for_peer(&mut self, number: ViNumber) -> Option<(Connecting, PeerRequest)> {
        match &self.vi(number)?.state {
            ViState::Connecting(connecting) => Some((*connecting, connecting.peer?)),
            _ => None,
        }
    }

    /// Sends a VI's request to the card that it is for, and looks whether its partner is here already.
    pub(super) fn ask_peer(&mut self, number: ViNumber) {
        let Some((connecting, request)) = self.waiting_for_peer(number) else { return };
        let own = self.core.address;
        if connecting.asked == own {
            if let Some(partner) = self.find_peer(&request) {
                self.join(number, partner);
            }
            return;
        }
        self.core.outbox.push_back(ControlFrame::PeerRequest(request));
        if own < connecting.asked
            && let Some(i) = self.visitors.iter().position(|visitor| fit(&request, visitor))
        {
            let visitor = self.visitors.remove(i);
            self.propose(number, &visitor);
        }
    }

    /// The VI of this card that has waited longest for the peer that makes `request`.
    fn find_peer(&mut self, request: &PeerRequest) -> Option<ViNumber> {
        let mut peers = std::mem::take(&mut self.peers);
        peers.retain(|peer| {
            self.vi(number_of(*peer)).is_some_and(|vi| match &vi.state {
                ViState::Connecting(connecting) | ViState::Meeting { connecting, .. } => {
                    connecting.local == *peer
                }
                _ => false,
            })
        });
        let fits = |peer: &&Endpoint| {
            self.waiting_for_peer(number_of(**peer)).is_some_and(|(_, waiting)| fit(&waiting, request))
        };
        let found = peers.iter().find(fits).copied().map(number_of);
        self.peers = peers;
        found
    }

    /// Connects two VIs of this card.
    fn join(&mut self, one: ViNumber, other: ViNumber) {
        let Some((connecting, request)) = self.waiting_for_peer(one) else { return };
        let Some((other_connecting, other_request)) = self.waiting_for_peer(other) else { return };
        let ends = [(one, connecting, other_request), (other, other_connecting, request)];
        for (number, connecting, partner) in ends {
            match go_together(request.attributes, other_request.attributes) {
                Ok(()) => {
                    let connection = Connection::new(connecting.local, partner.from);
                    self.connected(number, connecting, connection, partner.attributes);
                }
                Err(status) => self.not_connected(number, connecting, status),
            }
        }
    }

    /// Proposes a VI to the visitor whose request fits.
    fn propose(&mut self, number: ViNumber, visitor: &PeerRequest) {
        let Some((connecting, request)) = self.waiting_for_peer(number) else { return };
        let by = connecting.local;
        let outcome = match go_together(request.attributes, visitor.attributes) {
            Ok(()) => {
                if let Some(vi) = self.vi(number) {
                    vi.state = ViState::Meeting {
                        connecting,
                        connection: Connection::new(by, visitor.from),
                        attributes: visitor.attributes,
                    };
                }
                ConnectOutcome::Accepted { by, attributes: request.attributes }
            }
            Err(status) => {
                self.not_connected(number, connecting, status);
                ConnectOutcome::Mismatch { by, status }
            }
        };
        self.core.outbox.push_back(ControlFrame::Reply { to: visitor.from, outcome });
    }

    /// A peer's request has come.
    pub(super) fn peer_requested(&mut self, request: PeerRequest) {
        if self.visitors.iter().any(|visitor| visitor.from == request.from) {
            // It asks again, as a partner of it has gone.
            return;
        }
        if self.core.address < request.from.nic
            && let Some(number) = self.find_peer(&request)
        {
            self.propose(number, &request);
            return;
        }
        let works = self.contexts[usize::from(KERNEL_CONTEXT)].as_ref().is_some_and(|kernel| !kernel.failed);
        let outcome = match works {
            true if self.visitors.len() < MAX_WAITING => {
                self.visitors.push(request);
                return;
            }
            true => ConnectOutcome::NoRoom,
            false => ConnectOutcome::NoMatch,
        };
        self.core.outbox.push_back(ControlFrame::Reply { to: request.from, outcome });
    }

    /// The card takes no part any more: those who wait here wait for nobody.
    pub(super) fn turn_visitors_away(&mut self) {
        for visitor in self.visitors.drain(..) {
            let outcome = ConnectOutcome::NoMatch;
            self.core.outbox.push_back(ControlFrame::Reply { to: visitor.from, outcome });
        }
    }
}
