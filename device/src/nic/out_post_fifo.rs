//! The Out Post FIFO (claims 5 and 8): a bounded FIFO of context numbers. A doorbell says no more than "this context
//! has a new entry"; a context stands in it once.

use std::collections::VecDeque;

use vianic_abi::MAX_CONTEXTS;

/// The FIFO between the doorbells and the Message Unit.
#[derive(Debug)]
pub struct OutPostFifo {
    contexts: VecDeque<u16>,
    waiting: u64,
}

impl OutPostFifo {
    /// An empty FIFO.
    #[must_use]
    pub fn new() -> Self {
        const { assert!(MAX_CONTEXTS <= 64) };
        Self { contexts: VecDeque::with_capacity(usize::from(MAX_CONTEXTS)), waiting: 0 }
    }

    /// A new-entry-posted notification of `context`. One that waits already is not put in twice; a number beyond
    /// the card's contexts is ignored.
    pub fn push(&mut self, context: u16) {
        if context < MAX_CONTEXTS && self.waiting & (1 << context) == 0 {
            self.waiting |= 1 << context;
            self.contexts.push_back(context);
        }
    }

    /// The context that has waited longest.
    pub fn pop(&mut self) -> Option<u16> {
        let context = self.contexts.pop_front()?;
        self.waiting &= !(1 << context);
        Some(context)
    }

    /// Contexts that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.contexts.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.contexts.is_empty()
    }
}

impl Default for OutPostFifo {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_waits_once_and_in_order() {
        let mut fifo = OutPostFifo::new();
        for context in [3, 1, 3, MAX_CONTEXTS, 1, 0] {
            fifo.push(context);
        }
        assert_eq!(fifo.len(), 3);
        assert_eq!([fifo.pop(), fifo.pop(), fifo.pop(), fifo.pop()], [Some(3), Some(1), Some(0), None]);
        fifo.push(3);
        assert_eq!(fifo.pop(), Some(3));
    }
}
