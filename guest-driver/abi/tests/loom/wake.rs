//! What stands for an eventfd, or for an interrupt: a wake-up that is kept until somebody sleeps. A sleeper that
//! is never woken is a deadlock, which the model checker reports.

use loom::sync::{Condvar, Mutex};

pub(crate) struct Wake {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Wake {
    pub(crate) fn new() -> Self {
        Self { count: Mutex::new(0), changed: Condvar::new() }
    }

    pub(crate) fn wake(&self) {
        *self.count.lock().expect("nobody panics") += 1;
        self.changed.notify_one();
    }

    /// Sleeps until woken, and takes all wake-ups, as a read of an eventfd does.
    pub(crate) fn sleep(&self) {
        let mut count = self.count.lock().expect("nobody panics");
        while *count == 0 {
            count = self.changed.wait(count).expect("nobody panics");
        }
        *count = 0;
    }
}

/// What stands for a poster's back-off: it lasts until the NIC has accepted something more.
pub(crate) struct Progress {
    steps: Mutex<usize>,
    changed: Condvar,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { steps: Mutex::new(0), changed: Condvar::new() }
    }

    pub(crate) fn step(&self) {
        *self.steps.lock().expect("nobody panics") += 1;
        self.changed.notify_all();
    }

    /// Waits until there have been more than `seen` steps, and notes how many there are.
    pub(crate) fn wait_beyond(&self, seen: &mut usize) {
        let mut steps = self.steps.lock().expect("nobody panics");
        while *steps == *seen {
            steps = self.changed.wait(steps).expect("nobody panics");
        }
        *seen = *steps;
    }
}
