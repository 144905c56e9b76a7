//! The switch inside a device process: its cards sit in its ports, and it carries their frames. A message between two of
//! its cards is copied once, from one guest's memory to the other's.

use crate::guest_memory::GuestMemory;
use crate::nic::Card;
use crate::nic::completion::ViNumber;
use crate::nic::transfer::turn_budget;
use crate::port::faults::{Fault, Faults, Plan};
use crate::vito::frame::{
    Condition, ConnectOutcome, ControlFrame, DataFrame, Delivery, Frame, NicAddress, Parcel, PeerRequest,
    ReadRequest, ReadResponse, Slice,
};

/// What a message costs of a VI's budget besides its bytes, so that small ones take turns too.
const MESSAGE_COST: usize = 4096;

/// Control frames carried in one turn; what is left waits for the next.
const FRAMES_PER_TURN: usize = 4096;

/// A port of the switch.
#[derive(Debug)]
pub struct Port {
    address: NicAddress,
    occupant: Occupant,
    /// Control frames for a paused card.
    parked: Vec<ControlFrame>,
    /// VIs of this card whose peers are on paused cards.
    held: Vec<ViNumber>,
    /// Whether it is in the switch's list of ports that may have something to do.
    awake: bool,
    /// What its link does to messages that leave the card.
    faults: Option<Box<Faults>>,
}

/// What is in a port.
#[derive(Debug)]
pub enum Occupant {
    /// A card without a driver.
    Empty,
    /// A card at work.
    Running(Box<Card>),
    /// A card whose guest is stopped. It keeps its state; nothing of its guest is touched.
    Paused(Box<Card>),
}

impl Port {
    #[inline]
    fn card(&mut self) -> Option<&mut Card> {
        match &mut self.occupant {
            Occupant::Running(card) => Some(card),
            Occupant::Paused(_) | Occupant::Empty => None,
        }
    }
}

/// The cards at the two ends of a connection.
enum Ends<'a> {
    /// It is one card.
    Same(&'a mut Card),
    /// They are two.
    Two {
        /// The one that sends.
        from: &'a mut Card,
        /// The one that receives.
        to: &'a mut Card,
    },
}

impl Ends<'_> {
    #[inline]
    fn from(&mut self) -> &mut Card {
        match self {
            Self::Same(card) | Self::Two { from: card, .. } => card,
        }
    }

    #[inline]
    fn place(&mut self, parcel: &Parcel) -> Option<()> {
        match self {
            Self::Same(card) => card.place_parcel(parcel, None),
            Self::Two { from, to } => to.place_parcel(parcel, Some(from.guest_memory())),
        }
    }
}

/// The switch.
#[derive(Debug)]
pub struct Switch {
    ports: Vec<Port>,
    /// Ports whose cards may have something to do. The others cost nothing, however many they are.
    awake: Vec<usize>,
}

impl Switch {
    /// A switch with a port for each address.
    #[must_use]
    pub fn new(addresses: impl IntoIterator<Item = NicAddress>) -> Self {
        let port = |address| Port {
            address,
            occupant: Occupant::Empty,
            parked: Vec::new(),
            held: Vec::new(),
            awake: false,
            faults: None,
        };
        Self { ports: addresses.into_iter().map(port).collect(), awake: Vec::new() }
    }

    /// Puts a card into an empty port.
    pub fn insert(&mut self, port: usize, card: Card) {
        self.ports[port].occupant = Occupant::Running(Box::new(card));
        self.wake(port);
    }

    /// The card in a port, if it is at work. Whatever is done with it may give it something to do: it counts as awake until
    /// [`put_to_rest`](Self::put_to_rest) finds that it did not.
    pub fn running(&mut self, port: usize) -> Option<&mut Card> {
        self.wake(port);
        self.ports[port].card()
    }

    #[inline]
    fn wake(&mut self, port: usize) {
        if !std::mem::replace(&mut self.ports[port].awake, true) {
            self.awake.push(port);
        }
    }

    /// The `n`th port whose card may have something to do.
    #[must_use]
    pub fn awake(&self, n: usize) -> Option<usize> {
        self.awake.get(n).copied()
    }

    /// Forgets the cards that have nothing to do, until somebody asks for them.
    pub fn put_to_rest(&mut self) {
        self.awake.retain(|&port| {
            let port = &mut self.ports[port];
            port.awake = port.card().is_some_and(|card| !card.is_at_rest());
            port.awake
        });
    }

    /// The number of ports.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ports.len()
    }

    /// Whether there are no ports.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Gives a port's link a plan of faults from its beginning, or makes it sound.
    pub fn set_faults(&mut self, port: usize, plan: Option<Plan>) {
        self.ports[port].faults = plan.map(|plan| Box::new(Faults::new(plan, port)));
    }

    /// The faults of a port's link.
    #[must_use]
    pub fn faults(&self, port: usize) -> Option<&Faults> {
        self.ports[port].faults.as_deref()
    }

    /// Whether a port has no card with a driver.
    #[must_use]
    pub fn is_vacant(&self, port: usize) -> bool {
        matches!(self.ports[port].occupant, Occupant::Empty)
    }

    /// A card's guest is stopped.
    pub fn pause(&mut self, port: usize) {
        let occupant = &mut self.ports[port].occupant;
        *occupant = match std::mem::replace(occupant, Occupant::Empty) {
            Occupant::Running(card) | Occupant::Paused(card) => Occupant::Paused(card),
            Occupant::Empty => Occupant::Empty,
        };
    }

    /// A card's guest runs again. `None`: there is no paused card.
    pub fn resume(&mut self, port: usize) -> Option<&mut Card> {
        let occupant = &mut self.ports[port].occupant;
        match std::mem::replace(occupant, Occupant::Empty) {
            Occupant::Paused(card) => *occupant = Occupant::Running(card),
            other => {
                *occupant = other;
                return None;
            }
        }
        for frame in std::mem::take(&mut self.ports[port].parked) {
            self.carry(frame);
        }
        self.release_held();
        self.notify_waiters();
        self.running(port)
    }

    /// A card's driver is gone: its peers lose their connections.
    pub fn remove(&mut self, port: usize) {
        let occupant = std::mem::replace(&mut self.ports[port].occupant, Occupant::Empty);
        let parked = std::mem::take(&mut self.ports[port].parked);
        self.ports[port].held.clear();
        if let Occupant::Running(card) | Occupant::Paused(card) = occupant {
            for frame in card.detach().into_iter().chain(parked) {
                self.carry(frame);
            }
        }
        self.release_held();
        self.notify_waiters();
    }

    /// Carries what the cards have to say to each other: control frames first, then from each VI with something to send
    /// no more than its budget. Whether anything moved.
    pub fn exchange(&mut self) -> bool {
        let mut moved = self.carry_control_frames();
        let mut n = 0;
        while let Some(port) = self.awake(n) {
            n += 1;
            let ready = self.ports[port].card().map_or(0, |card| card.ready_count());
            for _ in 0..ready {
                let Some(number) = self.ports[port].card().and_then(Card::next_ready) else {
                    break;
                };
                self.transmit(port, number);
                moved = true;
            }
        }
        moved |= self.carry_control_frames();
        self.notify_waiters();
        moved
    }

    #[inline(always)]
    fn carry_control_frames(&mut self) -> bool {
        self.has_control_frames() && self.carry_waiting_control_frames()
    }

    #[cold]
    fn carry_waiting_control_frames(&mut self) -> bool {
        let mut carried = 0;
        let mut n = 0;
        while carried < FRAMES_PER_TURN
            && let Some(port) = self.awake(n)
        {
            match self.ports[port].card().and_then(Card::next_control_frame) {
                Some(frame) => {
                    carried += 1;
                    self.carry(frame);
                }
                None => n += 1,
            }
        }
        carried > 0
    }

    #[inline(always)]
    fn has_control_frames(&self) -> bool {
        let has = |port: &usize| match &self.ports[*port].occupant {
            Occupant::Running(card) => card.has_control_frames(),
            Occupant::Paused(_) | Occupant::Empty => false,
        };
        self.awake.iter().any(has)
    }

    /// Has the cards notify whoever waits for what was completed.
    fn notify_waiters(&mut self) {
        let mut n = 0;
        while let Some(port) = self.awake(n) {
            n += 1;
            if let Some(card) = self.ports[port].card() {
                card.notify_waiters();
            }
        }
    }

    /// Sends from one VI until it has nothing more or its budget is used up.
    fn transmit(&mut self, port: usize, number: ViNumber) {
        let mut budget = turn_budget();
        loop {
            self.carry_parcels(port, number, &mut budget);
            if budget == 0 {
                break;
            }
            match self.carry_frame(port, number) {
                Some(moved) => spend(&mut budget, moved),
                None => return,
            }
        }
        if let Some(card) = self.running(port) {
            card.make_ready(number);
        }
    }

    /// Carries messages of a VI as long as they are in one piece, their receivers wait for them, the link does nothing to them and the
    /// budget lasts.
    fn carry_parcels(&mut self, port: usize, number: ViNumber, budget: &mut usize) {
        if self.ports[port].faults.is_some() {
            return;
        }
        let Some(mut parcel) = self.ports[port].card().and_then(|card| card.next_parcel(number)) else {
            return;
        };
        let Some(to) = self.locate(parcel.to.nic) else { return };
        let Some(mut ends) = self.ends(port, to) else { return };
        while ends.place(&parcel).is_some() {
            spend(budget, parcel.bytes.length);
            // A VI has one peer: the next one goes the same way.
            match ends.from().parcel_placed(number, &parcel) {
                Some(next) if *budget > 0 => parcel = next,
                _ => return,
            }
        }
    }

    /// The cards at work in two ports, or in one.
    fn ends(&mut self, from: usize, to: usize) -> Option<Ends<'_>> {
        if from == to {
            return self.ports[from].card().map(Ends::Same);
        }
        self.wake(to);
        let [from, to] = self.ports.get_disjoint_mut([from, to]).ok()?;
        Some(Ends::Two { from: from.card()?, to: to.card()? })
    }

    /// Carries the next frame of a VI. How many bytes it moves; `None`: there is no frame, or its receiver's card is paused.
    fn carry_frame(&mut self, port: usize, number: ViNumber) -> Option<usize> {
        let frame = self.running(port)?.next_frame(number)?;
        let to = self.locate(frame.to().nic);
        if to.is_some_and(|to| matches!(self.ports[to].occupant, Occupant::Paused(_))) {
            self.ports[port].held.push(number);
            return None;
        }
        let moved = frame.slice().length as usize;
        match frame {
            Frame::Data(frame) => self.carry_data((port, number), to, frame),
            Frame::ReadRequest(request) => self.carry_read((port, number), to, &request),
        }
        Some(moved)
    }

    /// Carries a slice from the VI at `from` to the card in port `to`.
    fn carry_data(&mut self, from: (usize, ViNumber), to: Option<usize>, mut frame: DataFrame) {
        let (port, number) = from;
        let condition = match self.strike(port, frame.slice) {
            None => Some(Condition::Whole),
            Some(Fault::Drop) => None,
            Some(Fault::Corrupt) => Some(Condition::Corrupt),
            Some(Fault::Break(length)) => {
                frame.payload.truncate(length);
                Some(Condition::Cut)
            }
        };
        let delivery = match (to.and_then(|to| self.card_and_source(to, port)), condition) {
            (Some((card, source)), Some(condition)) => card.place(&frame, condition, source),
            (Some(_), None) => Delivery::Lost,
            (None, _) => Delivery::NotConnected,
        };
        if let Some(card) = self.running(port) {
            card.delivered(number, &frame, delivery);
        }
    }

    /// Carries a request of the VI at `from` to the card in port `to`, and what that answers back.
    fn carry_read(&mut self, from: (usize, ViNumber), to: Option<usize>, request: &ReadRequest) {
        let (port, number) = from;
        // A request that is damaged in any way is a request that is lost.
        let lost = self.strike(port, request.slice).is_some();
        let response = match to.filter(|_| !lost) {
            Some(to) => self.serve_read(to, request),
            None if lost => ReadResponse::Lost,
            None => ReadResponse::NotConnected,
        };
        // Without a card that answered there are no bytes to be anywhere.
        let from = to.filter(|to| self.running(*to).is_some()).unwrap_or(port);
        if let Some((card, source)) = self.card_and_source(port, from) {
            card.take_read(number, request, response, source);
        }
    }

    /// Has the card in `port` answer a request, and carries the answer over its link.
    fn serve_read(&mut self, port: usize, request: &ReadRequest) -> ReadResponse {
        let response = self.running(port).map(|card| card.serve_read(request));
        let mut payload = match response {
            Some(ReadResponse::Data(payload)) => payload,
            Some(refusal) => return refusal,
            None => return ReadResponse::NotConnected,
        };
        let response = match self.strike(port, request.slice) {
            None => return ReadResponse::Data(payload),
            Some(Fault::Drop | Fault::Corrupt) => ReadResponse::Lost,
            Some(Fault::Break(length)) => {
                payload.truncate(length);
                ReadResponse::Cut(payload)
            }
        };
        if let Some(card) = self.running(port) {
            card.answer_lost(request);
        }
        response
    }

    /// The card at work in port `to`, and the memory of the guest of the one in port `from`, unless that is the same card.
    #[inline]
    fn card_and_source(&mut self, to: usize, from: usize) -> Option<(&mut Card, Option<&GuestMemory>)> {
        if to == from {
            return self.running(to).map(|card| (card, None));
        }
        self.wake(to);
        let [to, from] = self.ports.get_disjoint_mut([to, from]).ok()?;
        let source = from.card()?.guest_memory();
        Some((to.card()?, Some(source)))
    }

    /// What the link of a port does to a message that leaves its card.
    #[inline]
    fn strike(&mut self, port: usize, slice: Slice) -> Option<Fault> {
        self.ports[port].faults.as_mut()?.strike(slice)
    }

    /// Delivers a control frame, or answers for who is not there.
    fn carry(&mut self, frame: ControlFrame) {
        let Some(destination) = frame.destination() else {
            return self.answer(&frame);
        };
        let port = self.locate(destination);
        port.into_iter().for_each(|port| self.wake(port));
        match port.map(|port| &mut self.ports[port]) {
            Some(Port { occupant: Occupant::Running(card), .. }) => card.receive(frame),
            Some(Port { occupant: Occupant::Paused(_), parked, .. }) => parked.push(frame),
            Some(Port { occupant: Occupant::Empty, .. }) => {
                self.answer_for_absent(frame, ConnectOutcome::NoMatch)
            }
            None => self.answer_for_absent(frame, ConnectOutcome::NotReachable),
        }
    }

    /// Answers a frame that is for the fabric.
    fn answer(&mut self, frame: &ControlFrame) {
        if let ControlFrame::Discover { by, number } = *frame {
            let has_driver = |port: &&Port| !matches!(port.occupant, Occupant::Empty);
            let mut nics: Vec<_> = self.ports.iter().filter(has_driver).map(|port| port.address).collect();
            nics.sort_unstable();
            self.carry(ControlFrame::Discovered { to: by, number, nics });
        }
    }

    fn answer_for_absent(&mut self, frame: ControlFrame, outcome: ConnectOutcome) {
        match frame {
            ControlFrame::Request { from, .. } | ControlFrame::PeerRequest(PeerRequest { from, .. }) => {
                self.carry(ControlFrame::Reply { to: from, outcome })
            }
            ControlFrame::Reply { outcome: ConnectOutcome::Accepted { by, .. }, .. } => {
                self.carry(ControlFrame::Confirm { to: by, connected: false });
            }
            ControlFrame::Reply { .. }
            | ControlFrame::Confirm { .. }
            | ControlFrame::Withdraw { .. }
            | ControlFrame::Discover { .. }
            | ControlFrame::Discovered { .. }
            | ControlFrame::Disconnect { .. } => {}
        }
    }

    fn locate(&self, address: NicAddress) -> Option<usize> {
        self.ports.iter().position(|port| port.address == address)
    }

    /// A card that was paused is not any more: who waited for it goes on.
    fn release_held(&mut self) {
        for n in 0..self.ports.len() {
            let port = &mut self.ports[n];
            if port.held.is_empty() {
                continue;
            }
            if let Occupant::Running(card) | Occupant::Paused(card) = &mut port.occupant {
                for number in port.held.drain(..) {
                    card.make_ready(number);
                }
            }
            self.wake(n);
        }
    }
}

/// A message of `moved` bytes has used some of a budget.
#[inline]
fn spend(budget: &mut usize, moved: usize) {
    *budget = budget.saturating_sub(MESSAGE_COST + moved);
}
