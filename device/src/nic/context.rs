//! A context: what one opener of the NIC has of the card. Token Table, MCQ, NRA, VIs and completion queues.

use std::collections::VecDeque;

use vianic_abi::completion::{
    Completion, MCQ_ENTRIES_LOG2, MCQ_HEADER_SIZE, Mcq, McqHeader, McqSlot, Producer, PushError,
};
use vianic_abi::token_table::{Acceptor, ENTRIES_LOG2, HEADER_SIZE, Header, Slot, TokenTable};
use vianic_abi::{MAX_CQ, MAX_VI};

use crate::guest_memory::{GuestMemory, NotMemory};
use crate::nic::pacing::{Limits, Pacing};
use crate::nic::vi::Vi;
use crate::shared::{Single, View};

/// Completions that a context's full MCQ may hold back before the context fails.
const MAX_BACKLOG: usize = 1 << 16;

/// Where a context's Token Table and MCQ are.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Guest-physical address of the Token Table.
    pub token_table: u64,
    /// Its entries, as a power of two.
    pub token_table_log2: u8,
    /// Guest-physical address of the MCQ.
    pub mcq: u64,
    /// Its entries, as a power of two.
    pub mcq_log2: u8,
}

/// The two queues, in guest RAM.
#[derive(Debug)]
struct Queues {
    token_header: Single<Header>,
    token_slots: View<Slot>,
    mcq_header: Single<McqHeader>,
    mcq_slots: View<McqSlot>,
}

impl Queues {
    fn new(memory: &GuestMemory, layout: &Layout) -> Result<Self, NotMemory> {
        let bad = |address| NotMemory { address, length: 0 };
        if !ENTRIES_LOG2.contains(&layout.token_table_log2) {
            return Err(bad(layout.token_table));
        }
        if !MCQ_ENTRIES_LOG2.contains(&layout.mcq_log2) {
            return Err(bad(layout.mcq));
        }
        let after = |address: u64, bytes: usize| address.checked_add(bytes as u64).ok_or(bad(address));
        Ok(Self {
            token_header: memory.single(layout.token_table)?,
            token_slots: memory
                .view(after(layout.token_table, HEADER_SIZE)?, 1 << layout.token_table_log2)?,
            mcq_header: memory.single(layout.mcq)?,
            mcq_slots: memory.view(after(layout.mcq, MCQ_HEADER_SIZE)?, 1 << layout.mcq_log2)?,
        })
    }
}

/// A context.
#[derive(Debug)]
pub struct Context {
    layout: Layout,
    queues: Queues,
    acceptor: Acceptor,
    producer: Producer,
    /// Completions for which the MCQ had no room.
    backlog: VecDeque<Completion>,
    /// The controllers of batch and polling.
    pub pacing: Pacing,
    /// Whether its Token Table is polled.
    pub polled: bool,
    /// Set when its owner broke the rules; it is failed at the end of the turn.
    pub broken: Option<&'static str>,
    /// Whether it has been failed.
    pub failed: bool,
    /// VIs by number.
    vis: Vec<Option<Box<Vi>>>,
    /// Completion queues by number; how many work queues report to each.
    cqs: Vec<Option<u32>>,
}

impl Context {
    /// A fresh context.
    ///
    /// # Errors
    /// If its queues are not whole in guest RAM or of no allowed size.
    pub fn new(memory: &GuestMemory, layout: Layout, limits: Limits) -> Result<Self, NotMemory> {
        Ok(Self {
            queues: Queues::new(memory, &layout)?,
            layout,
            acceptor: Acceptor::new(),
            producer: Producer::new(),
            backlog: VecDeque::new(),
            pacing: Pacing::new(limits),
            polled: false,
            broken: None,
            failed: false,
            vis: Vec::new(),
            cqs: Vec::new(),
        })
    }

    /// The guest's memory is mapped anew.
    ///
    /// # Errors
    /// If its queues are no longer whole in guest RAM.
    pub fn remap(&mut self, memory: &GuestMemory) -> Result<(), NotMemory> {
        self.queues = Queues::new(memory, &self.layout)?;
        Ok(())
    }

    /// The Token Table and the card's end of it.
    #[inline]
    pub fn token_table(&mut self) -> (TokenTable<'_>, &mut Acceptor) {
        (TokenTable::new(&self.queues.token_header, &self.queues.token_slots), &mut self.acceptor)
    }

    /// Puts a completion into the MCQ, behind those that wait for room. `Err`: the owner broke the rules.
    ///
    /// # Errors
    /// The reason to fail the context.
    #[inline]
    pub fn report(&mut self, completion: Completion) -> Result<Reported, &'static str> {
        if self.backlog.is_empty() {
            let mcq = Mcq::new(&self.queues.mcq_header, &self.queues.mcq_slots);
            match self.producer.push(mcq, &completion) {
                Ok(()) => return Ok(Reported::InQueue),
                Err(PushError::Corrupt) => return Err("its MCQ's counter is corrupt"),
                Err(PushError::Full) => {}
            }
        }
        if self.backlog.len() == MAX_BACKLOG {
            return Err("its MCQ was never emptied");
        }
        self.backlog.push_back(completion);
        Ok(Reported::HeldBack)
    }

    /// Moves completions that were held back into the MCQ, as far as there is room now. Returns them, so that who waits for
    /// them is notified.
    ///
    /// # Errors
    /// The reason to fail the context.
    pub fn flush_backlog(&mut self) -> Result<Vec<Completion>, &'static str> {
        let mut moved = Vec::new();
        while let Some(completion) = self.backlog.front() {
            let mcq = Mcq::new(&self.queues.mcq_header, &self.queues.mcq_slots);
            match self.producer.push(mcq, completion) {
                Ok(()) => moved.extend(self.backlog.pop_front()),
                Err(PushError::Full) => break,
                Err(PushError::Corrupt) => return Err("its MCQ's counter is corrupt"),
            }
        }
        Ok(moved)
    }

    /// VI number `vi`.
    #[inline]
    pub fn vi(&mut self, vi: u16) -> Option<&mut Vi> {
        self.vis.get_mut(usize::from(vi))?.as_deref_mut()
    }

    /// The numbers of all VIs.
    pub fn vi_numbers(&self) -> Vec<u16> {
        (0..MAX_VI).zip(&self.vis).filter(|(_, vi)| vi.is_some()).map(|(number, _)| number).collect()
    }

    /// Adds a VI. `false`: the number is taken or beyond the card's VIs, or a completion queue does not exist.
    pub fn add_vi(&mut self, number: u16, vi: Vi) -> bool {
        if number >= MAX_VI || self.vi(number).is_some() {
            return false;
        }
        let queues = [vi.send_cq, vi.receive_cq];
        if queues.iter().flatten().any(|cq| self.cq_users(*cq).is_none()) {
            return false;
        }
        for cq in queues.into_iter().flatten() {
            if let Some(users) = self.cq_users(cq) {
                *users += 1;
            }
        }
        if self.vis.len() <= usize::from(number) {
            self.vis.resize_with(usize::from(number) + 1, || None);
        }
        self.vis[usize::from(number)] = Some(Box::new(vi));
        true
    }

    /// Removes a VI.
    pub fn remove_vi(&mut self, number: u16) {
        let Some(vi) = self.vis.get_mut(usize::from(number)).and_then(Option::take) else {
            return;
        };
        for cq in [vi.send_cq, vi.receive_cq].into_iter().flatten() {
            if let Some(users) = self.cq_users(cq) {
                *users -= 1;
            }
        }
    }

    fn cq_users(&mut self, cq: u16) -> Option<&mut u32> {
        self.cqs.get_mut(usize::from(cq))?.as_mut()
    }

    /// Adds a completion queue. `false`: the number is taken or beyond the card's queues.
    pub fn add_cq(&mut self, number: u16) -> bool {
        if number >= MAX_CQ || self.cq_users(number).is_some() {
            return false;
        }
        if self.cqs.len() <= usize::from(number) {
            self.cqs.resize(usize::from(number) + 1, None);
        }
        self.cqs[usize::from(number)] = Some(0);
        true
    }

    /// Removes a completion queue.
    pub fn remove_cq(&mut self, number: u16) -> RemoveCq {
        match self.cq_users(number) {
            None => RemoveCq::Unknown,
            Some(0) => {
                self.cqs[usize::from(number)] = None;
                RemoveCq::Removed
            }
            Some(_) => RemoveCq::InUse,
        }
    }
}

/// Where a completion went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// Into the MCQ.
    InQueue,
    /// Into the backlog of a full MCQ.
    HeldBack,
}

/// What became of removing a completion queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveCq {
    /// It is gone.
    Removed,
    /// There is none of that number.
    Unknown,
    /// A work queue reports to it.
    InUse,
}
