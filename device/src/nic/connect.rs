//! Making and ending connections: the commands about them, and the frames.

use vianic_abi::command::{Answer, Connect, ConnectBlock, NetAddress, Target, ViAttributes};
use vianic_abi::nic_memory::Counter;
use vianic_abi::status::{ErrorCode, Status};
use vianic_abi::{MAX_DISCRIMINATOR_LEN, NIC_ADDRESS_LEN};

use crate::nic::Card;
use crate::nic::command::Completes;
use crate::nic::completion::ViNumber;
use crate::nic::transfer::Peer;
use crate::nic::vi::{Connecting, Vi, ViState};
use crate::rate_limit::warn_limited;
use crate::vito::connection::Connection;
use crate::vito::frame::{ConnectOutcome, ControlFrame, Endpoint, NicAddress, PeerRequest};

/// Bytes of a host address.
const HOST_LEN: u16 = 6;
const _: () = assert!(HOST_LEN as usize == NIC_ADDRESS_LEN);

/// LISTEN commands, requests and peers' requests, each, that a card keeps at once.
pub(super) const MAX_WAITING: usize = 4096;

/// A LISTEN command that waits for a request.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    tag: u64,
    context: u16,
    block: u64,
    local: NetAddress,
}

/// A request that a listener has been told of and has not answered.
#[derive(Clone, Copy, Debug)]
pub struct PendingRequest {
    context: u16,
    from: Endpoint,
    attributes: ViAttributes,
    /// The asking side has taken it back.
    gone: bool,
}

/// Whether two VIs may be connected.
pub(super) fn go_together(one: ViAttributes, other: ViAttributes) -> Result<(), Status> {
    if one.reliability_level != other.reliability_level {
        return Err(Status::INVALID_RELIABILITY_LEVEL);
    }
    if one.max_transfer_size != other.max_transfer_size {
        return Err(Status::INVALID_MTU);
    }
    Ok(())
}

fn is_valid(address: &NetAddress) -> bool {
    [0, HOST_LEN].contains(&address.host_len)
        && usize::from(address.discriminator_len) <= MAX_DISCRIMINATOR_LEN
}

pub(super) fn discriminator(address: &NetAddress) -> &[u8] {
    &address.discriminator[..usize::from(address.discriminator_len).min(MAX_DISCRIMINATOR_LEN)]
}

impl Card {
    fn connect_block(&self, address: u64) -> Result<ConnectBlock, Status> {
        self.core.host.memory().read(address).map_err(|_| Status::INVALID_PARAMETER)
    }

    /// LISTEN.
    pub(super) fn listen(&mut self, tag: u64, listen: Connect) -> Completes {
        let listener = self.user_context(listen.context).map(|_| ()).and_then(|()| {
            let ConnectBlock { local, .. } = self.connect_block(listen.block)?;
            if !is_valid(&local) {
                return Err(Status::INVALID_PARAMETER);
            }
            if self.listeners.len() == MAX_WAITING {
                return Err(Status::ERROR_RESOURCE);
            }
            Ok(Listener { tag, context: listen.context, block: listen.block, local })
        });
        match listener {
            Ok(listener) => {
                self.listeners.push(listener);
                Completes::Later
            }
            Err(status) => Completes::Now(status),
        }
    }

    /// CONNECT.
    pub(super) fn connect(&mut self, tag: u64, connect: Connect) -> Completes {
        match self.try_connect(tag, connect) {
            Ok(()) => Completes::Later,
            Err(status) => Completes::Now(status),
        }
    }

    fn try_connect(&mut self, tag: u64, connect: Connect) -> Result<(), Status> {
        let PeerRequest { from, attributes, local, remote } = self.begin_connecting(tag, connect)?;
        self.core.outbox.push_back(ControlFrame::Request { from, attributes, local, remote });
        Ok(())
    }

    /// An Idle VI begins to connect; what it asks.
    pub(super) fn begin_connecting(&mut self, tag: u64, connect: Connect) -> Result<PeerRequest, Status> {
        let mut block = self.connect_block(connect.block)?;
        if !is_valid(&block.local) || !is_valid(&block.remote) {
            return Err(Status::INVALID_PARAMETER);
        }
        let own_address = self.core.address;
        if block.remote.host_len == 0 {
            block.remote.host = own_address.0;
        }
        block.remote.host_len = HOST_LEN;
        block.local.host = own_address.0;
        block.local.host_len = HOST_LEN;
        let serial = self.core.next_serial();
        let vi = self.user_context(connect.context)?.vi(connect.vi).ok_or(Status::INVALID_PARAMETER)?;
        if !matches!(vi.state, ViState::Idle) {
            return Err(Status::INVALID_STATE);
        }
        let from = Endpoint { nic: own_address, context: connect.context, vi: connect.vi, serial };
        let asked = NicAddress(block.remote.host);
        vi.state =
            ViState::Connecting(Connecting { tag, block: connect.block, local: from, asked, peer: None });
        Ok(PeerRequest { from, attributes: vi.attributes, local: block.local, remote: block.remote })
    }

    /// CANCEL: completes the LISTEN, CONNECT, CONNECT_PEER or ACCEPT of that tag if it still waits.
    pub(super) fn cancel(&mut self, tag: u64) {
        if let Some(i) = self.listeners.iter().position(|listener| listener.tag == tag) {
            self.listeners.remove(i);
            self.complete_command(tag, Status::CANCELLED);
            return;
        }
        let waiting = self.vis().into_iter().find(|number| {
            self.vi(*number).is_some_and(|vi| match &vi.state {
                ViState::Connecting(connecting) | ViState::Meeting { connecting, .. } => {
                    connecting.tag == tag
                }
                ViState::Accepting { tag: accept, .. } => *accept == tag,
                _ => false,
            })
        });
        if let Some(number) = waiting {
            self.stop_connecting(number, ViState::Idle);
        }
    }

    /// Ends a VI's attempt to connect; its command completes.
    fn stop_connecting(&mut self, number: ViNumber, state: ViState) {
        let Some(vi) = self.vi(number) else { return };
        let withdraw = |Connecting { local, asked, .. }: &Connecting| ControlFrame::Withdraw {
            from: *local,
            nic: *asked,
        };
        let disconnect = |connection: &Connection| ControlFrame::Disconnect { to: connection.peer };
        let (tag, frames) = match &vi.state {
            ViState::Connecting(connecting) => (connecting.tag, [Some(withdraw(connecting)), None]),
            ViState::Meeting { connecting, connection, .. } => {
                (connecting.tag, [Some(disconnect(connection)), Some(withdraw(connecting))])
            }
            ViState::Accepting { tag, connection } => (*tag, [Some(disconnect(connection)), None]),
            ViState::Idle | ViState::Connected(_) | ViState::Error => return,
        };
        vi.state = state;
        self.core.outbox.extend(frames.into_iter().flatten());
        self.complete_command(tag, Status::CANCELLED);
    }

    /// ACCEPT.
    pub(super) fn accept(&mut self, tag: u64, answer: Answer) -> Completes {
        match self.try_accept(tag, answer) {
            Ok(()) => Completes::Later,
            Err(status) => Completes::Now(status),
        }
    }

    fn try_accept(&mut self, tag: u64, answer: Answer) -> Result<(), Status> {
        let request = self.request(answer)?;
        let local_nic = self.core.address;
        let serial = self.core.next_serial();
        let vi = self.user_context(answer.context)?.vi(answer.vi).ok_or(Status::INVALID_PARAMETER)?;
        if !matches!(vi.state, ViState::Idle) {
            return Err(Status::INVALID_STATE);
        }
        if request.gone {
            self.requests.remove(&answer.connection);
            return Err(Status::TIMEOUT);
        }
        go_together(vi.attributes, request.attributes)?;
        let local = Endpoint { nic: local_nic, context: answer.context, vi: answer.vi, serial };
        vi.state = ViState::Accepting { tag, connection: Connection::new(local, request.from) };
        let outcome = ConnectOutcome::Accepted { by: local, attributes: vi.attributes };
        self.requests.remove(&answer.connection);
        self.core.outbox.push_back(ControlFrame::Reply { to: request.from, outcome });
        Ok(())
    }

    /// REJECT.
    pub(super) fn reject(&mut self, answer: Answer) -> Result<(), Status> {
        let request = self.request(answer)?;
        self.requests.remove(&answer.connection);
        if !request.gone {
            let outcome = ConnectOutcome::Rejected;
            self.core.outbox.push_back(ControlFrame::Reply { to: request.from, outcome });
        }
        Ok(())
    }

    fn request(&self, answer: Answer) -> Result<PendingRequest, Status> {
        let request = self.requests.get(&answer.connection).copied();
        request.filter(|request| request.context == answer.context).ok_or(Status::INVALID_PARAMETER)
    }

    /// DISCONNECT.
    pub(super) fn disconnect(&mut self, target: Target) -> Result<(), Status> {
        let number = ViNumber { context: target.context, vi: target.object };
        self.user_context(number.context)?.vi(number.vi).ok_or(Status::INVALID_PARAMETER)?;
        self.stop_connecting(number, ViState::Idle);
        if let Some(context) = &mut self.contexts[usize::from(number.context)] {
            self.core.end_connection(context, number, ViState::Idle, Peer::Tell);
        }
        Ok(())
    }

    /// Ends a context: its waiting commands, its requests, its VIs, and the context itself.
    pub(super) fn end_context(&mut self, number: u16) {
        self.end_waits(number);
        let Some(mut context) = self.contexts[usize::from(number)].take() else {
            return;
        };
        for vi in context.vi_numbers() {
            if let Some(vi) = context.vi(vi)
                && let ViState::Connected(connection) = &vi.state
            {
                self.core.outbox.push_back(ControlFrame::Disconnect { to: connection.peer });
            }
        }
        self.polled.retain(|polled| *polled != number);
        self.core.memory.clear_nra(number);
    }

    /// Ends what a context waits for and what waits for it.
    pub(super) fn end_waits(&mut self, number: u16) {
        for listener in
            self.listeners.extract_if(.., |listener| listener.context == number).collect::<Vec<_>>()
        {
            self.complete_command(listener.tag, Status::CANCELLED);
        }
        for (_, request) in
            self.requests.extract_if(|_, request| request.context == number).collect::<Vec<_>>()
        {
            if !request.gone {
                let outcome = ConnectOutcome::NoMatch;
                self.core.outbox.push_back(ControlFrame::Reply { to: request.from, outcome });
            }
        }
        for vi in self.vis().into_iter().filter(|vi| vi.context == number) {
            self.stop_connecting(vi, ViState::Idle);
        }
    }

    fn vis(&self) -> Vec<ViNumber> {
        let numbers = |(context, c): (u16, &Option<super::Context>)| {
            c.as_ref().map(|c| c.vi_numbers().into_iter().map(move |vi| ViNumber { context, vi }))
        };
        (0..).zip(&self.contexts).filter_map(numbers).flatten().collect()
    }

    pub(super) fn vi(&mut self, number: ViNumber) -> Option<&mut Vi> {
        self.contexts.get_mut(usize::from(number.context))?.as_mut()?.vi(number.vi)
    }

    /// A control frame came from a peer.
    pub fn receive(&mut self, frame: ControlFrame) {
        match frame {
            ControlFrame::Request { from, attributes, local, remote } => {
                self.requested(from, attributes, local, &remote)
            }
            ControlFrame::PeerRequest(request) => self.peer_requested(request),
            ControlFrame::Reply { to, outcome } => self.answered(to, outcome),
            ControlFrame::Confirm { to, connected } => self.confirmed(to, connected),
            ControlFrame::Withdraw { from, .. } => {
                self.visitors.retain(|visitor| visitor.from != from);
                for request in self.requests.values_mut().filter(|request| request.from == from) {
                    request.gone = true;
                }
            }
            ControlFrame::Discovered { number, nics, .. } => self.discovered(number, &nics),
            // The fabric has answered it.
            ControlFrame::Discover { .. } => {}
            ControlFrame::Disconnect { to } => self.disconnected(to),
        }
    }

    fn requested(
        &mut self,
        from: Endpoint,
        attributes: ViAttributes,
        local: NetAddress,
        remote: &NetAddress,
    ) {
        while let Some(i) =
            self.listeners.iter().position(|listener| discriminator(&listener.local) == discriminator(remote))
            && self.requests.len() < MAX_WAITING
        {
            let listener = self.listeners.remove(i);
            let connection = self.core.next_serial();
            let block =
                ConnectBlock { local: listener.local, remote: local, attributes, connection, reserved: 0 };
            if self.core.host.memory().write(listener.block, &block).is_err() {
                self.complete_command(listener.tag, Status::INVALID_PARAMETER);
                continue;
            }
            let request = PendingRequest { context: listener.context, from, attributes, gone: false };
            self.requests.insert(connection, request);
            self.complete_command(listener.tag, Status::SUCCESS);
            return;
        }
        let outcome = ConnectOutcome::NoMatch;
        self.core.outbox.push_back(ControlFrame::Reply { to: from, outcome });
    }

    fn answered(&mut self, to: Endpoint, outcome: ConnectOutcome) {
        if let ConnectOutcome::Mismatch { by, .. } = outcome {
            self.visitors.retain(|visitor| visitor.from != by);
        }
        let number = ViNumber { context: to.context, vi: to.vi };
        let connecting = self.vi(number).and_then(|vi| match vi.state {
            ViState::Connecting(connecting) if connecting.local == to => Some(connecting),
            _ => None,
        });
        let Some(connecting) = connecting else {
            if let ConnectOutcome::Accepted { by, .. } = outcome {
                self.core.outbox.push_back(ControlFrame::Confirm { to: by, connected: false });
            }
            return;
        };
        let status = match outcome {
            ConnectOutcome::Accepted { by, attributes } => {
                self.visitors.retain(|visitor| visitor.from != by);
                self.core.outbox.push_back(ControlFrame::Confirm { to: by, connected: true });
                self.connected(number, connecting, Connection::new(to, by), attributes);
                return;
            }
            ConnectOutcome::Rejected => Status::REJECT,
            ConnectOutcome::Mismatch { status, .. } => status,
            ConnectOutcome::NoRoom => Status::ERROR_RESOURCE,
            ConnectOutcome::NoMatch => Status::NO_MATCH,
            ConnectOutcome::NotReachable => Status::NOT_REACHABLE,
        };
        self.not_connected(number, connecting, status);
    }

    /// A VI's request is over: it is connected with a VI of these attributes.
    pub(super) fn connected(
        &mut self,
        number: ViNumber,
        connecting: Connecting,
        connection: Connection,
        attributes: ViAttributes,
    ) {
        let address = connecting.block + std::mem::offset_of!(ConnectBlock, attributes) as u64;
        // A block that the Kernel Agent took away meanwhile loses it the peer's attributes, no more.
        if self.core.host.memory().write(address, &attributes).is_err() {
            warn_limited!("NIC {}: a connection's block is no longer in guest memory", self.core.address);
        }
        self.core.memory.count(Counter::connections, 1);
        if let Some(vi) = self.vi(number) {
            vi.state = ViState::Connected(connection);
        }
        self.complete_command(connecting.tag, Status::SUCCESS);
    }

    /// A VI's request is over, without a connection.
    pub(super) fn not_connected(&mut self, number: ViNumber, connecting: Connecting, status: Status) {
        if let Some(vi) = self.vi(number) {
            vi.state = ViState::Idle;
        }
        self.complete_command(connecting.tag, status);
    }

    fn confirmed(&mut self, to: Endpoint, connected: bool) {
        let number = ViNumber { context: to.context, vi: to.vi };
        let Some(vi) = self.vi(number) else { return };
        match std::mem::replace(&mut vi.state, ViState::Idle) {
            ViState::Accepting { tag, connection } if connection.local == to => {
                if connected {
                    vi.state = ViState::Connected(connection);
                    self.core.memory.count(Counter::connections, 1);
                }
                self.complete_command(tag, if connected { Status::SUCCESS } else { Status::TIMEOUT });
            }
            ViState::Meeting { connecting, connection, attributes } if connection.local == to => {
                if connected {
                    self.connected(number, connecting, connection, attributes);
                } else {
                    vi.state = ViState::Connecting(connecting);
                    self.ask_peer(number);
                }
            }
            other => vi.state = other,
        }
    }

    fn disconnected(&mut self, to: Endpoint) {
        let number = ViNumber { context: to.context, vi: to.vi };
        let Some(vi) = self.vi(number) else { return };
        match &vi.state {
            ViState::Connected(connection) if connection.local == to => {
                // What this side has posted until now belongs to the lost connection.
                self.accept_posted(number.context);
                let written = self.connection(number).is_some_and(|connection| connection.is_being_written());
                if let Some(context) = &mut self.contexts[usize::from(number.context)] {
                    self.core.end_connection(context, number, ViState::Error, Peer::Knows);
                    if written {
                        self.core.report_error(context, number, ErrorCode::RDMAW_ABORT, 0);
                    }
                    self.core.report_error(context, number, ErrorCode::CONN_LOST, 0);
                }
            }
            ViState::Connecting(connecting) if connecting.local == to => {
                let tag = connecting.tag;
                vi.state = ViState::Idle;
                self.complete_command(tag, Status::REJECT);
            }
            _ => {}
        }
    }
}
