//! What takes long says so; what is done in a second stays silent.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// How long work may go on before it is mentioned.
const PATIENCE: Duration = Duration::from_secs(1);

/// Mentions steps of long work. The work is over when this is dropped.
pub(crate) struct Progress {
    steps: Mutex<Sender<String>>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let (steps, receiver) = mpsc::channel();
        std::thread::spawn(move || mention(&receiver, PATIENCE, |step| log::info!("{step}")));
        Self { steps: Mutex::new(steps) }
    }

    /// A step begins, and the one before it is done.
    pub(crate) fn step(&self, step: &str) {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        // The thread ends only with this sender.
        let _ = steps.send(step.to_owned());
    }
}

/// Shows every step that has not been followed by another one or by the end in time.
fn mention(steps: &Receiver<String>, patience: Duration, show: impl Fn(&str)) {
    while let Ok(mut step) = steps.recv() {
        loop {
            match steps.recv_timeout(patience) {
                Ok(next) => step = next,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    show(&step);
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn quick_work_is_silent() {
        let (sender, steps) = mpsc::channel();
        sender.send("one".to_owned()).unwrap();
        sender.send("two".to_owned()).unwrap();
        drop(sender);
        mention(&steps, Duration::MAX, |step| panic!("{step} was mentioned"));
    }

    #[test]
    fn long_work_is_mentioned_once() {
        let (sender, steps) = mpsc::channel();
        sender.send("quick".to_owned()).unwrap();
        sender.send("long".to_owned()).unwrap();
        let sender = RefCell::new(Some(sender));
        let shown = RefCell::new(Vec::new());
        mention(&steps, Duration::ZERO, |step| {
            shown.borrow_mut().push(step.to_owned());
            if step == "long" {
                sender.take();
            }
        });
        assert_eq!(shown.into_inner().last().map(String::as_str), Some("long"));
    }
}
