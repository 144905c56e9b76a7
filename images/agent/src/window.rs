//! A sender's window: how many bytes it may still send.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Counts the bytes that a sender may still send, and lets it wait for more.
#[derive(Debug)]
pub struct Window {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    credit: usize,
    closed: bool,
}

impl Window {
    /// A window with `credit` bytes.
    #[must_use]
    pub fn new(credit: u32) -> Self {
        Self {
            state: Mutex::new(State { credit: usize_from(credit), closed: false }),
            changed: Condvar::new(),
        }
    }

    /// The peer has made room for `bytes` more.
    pub fn grant(&self, bytes: u32) {
        let mut state = self.lock();
        state.credit = state.credit.saturating_add(usize_from(bytes));
        self.changed.notify_all();
    }

    /// Takes up to `most` bytes of credit; waits while there is none. `None` once the window is closed.
    pub fn take(&self, most: usize) -> Option<usize> {
        let mut state = self.lock();
        while state.credit == 0 && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return None;
        }
        let taken = most.min(state.credit);
        state.credit -= taken;
        Some(taken)
    }

    /// Nothing may be sent any more; wakes whoever waits.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn usize_from(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_granted_is_taken() {
        let window = Window::new(10);
        assert_eq!(window.take(4), Some(4));
        assert_eq!(window.take(100), Some(6));
        window.grant(3);
        assert_eq!(window.take(100), Some(3));
    }

    #[test]
    fn a_waiting_sender_is_woken() {
        let window = Window::new(0);
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| (window.take(8), window.take(8)));
            window.grant(5);
            window.close();
            let (first, second) = sender.join().unwrap();
            assert!(first == Some(5) || first.is_none());
            assert_eq!(second, None);
        });
    }
}
