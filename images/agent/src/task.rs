//! The requests under way in a session.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use vianic_guest_agent::{Reply, WindowSize};

use crate::outbox::Outbox;

/// Most requests under way at once.
const MOST: usize = 512;

/// A request that goes on for a while. What doesn't concern it is ignored: the host may not know yet that the
/// request is over.
pub(crate) trait Task: Send + Sync {
    /// Input from the host.
    fn data(&self, _bytes: Vec<u8>) -> Result<(), Overrun> {
        Ok(())
    }
    /// No more input.
    fn end(&self) {}
    /// More output may be sent.
    fn credit(&self, _bytes: u32) {}
    /// A signal for the command.
    fn signal(&self, _signal: i32) {}
    /// Another size of terminal.
    fn resize(&self, _size: WindowSize) {}
    /// Stop.
    fn cancel(&self);
}

/// The host has sent more than its window allows.
#[derive(Debug)]
pub(crate) struct Overrun;

/// The tasks of one session.
#[derive(Clone)]
pub(crate) struct Tasks {
    map: Arc<Mutex<HashMap<u32, Arc<dyn Task>>>>,
    outbox: Outbox,
}

impl Tasks {
    pub(crate) fn new(outbox: Outbox) -> Self {
        Self { map: Arc::default(), outbox }
    }

    pub(crate) fn get(&self, id: u32) -> Option<Arc<dyn Task>> {
        self.lock().get(&id).cloned()
    }

    /// Registers a task and runs it in a thread of its own. The reply that `run` returns ends the request.
    pub(crate) fn start<T: Task + 'static>(
        &self,
        id: u32,
        task: Arc<T>,
        run: impl FnOnce(&T, &Speaker) -> Reply + Send + 'static,
    ) {
        let mut map = self.lock();
        let refusal = if map.contains_key(&id) {
            Some(format!("request {id} is still under way"))
        } else if map.len() >= MOST {
            Some(format!("more than {MOST} requests at once"))
        } else {
            map.insert(id, Arc::clone(&task) as Arc<dyn Task>);
            None
        };
        drop(map);
        let speaker = Speaker { outbox: self.outbox.clone(), id };
        if let Some(message) = refusal {
            speaker.say(Reply::Failed { errno: None, message });
            return;
        }
        let tasks = self.clone();
        let thread_speaker = speaker.clone();
        let thread = std::thread::Builder::new().name(format!("request-{id}")).spawn(move || {
            let last = run(&task, &thread_speaker);
            // First out of the map: once the host has the last reply it may use the id again.
            tasks.lock().remove(&id);
            thread_speaker.say(last);
        });
        if let Err(error) = thread {
            self.lock().remove(&id);
            speaker.say(failed("starting a thread", &error));
        }
    }

    /// Stops all tasks.
    pub(crate) fn cancel_all(&self) {
        for task in self.lock().values() {
            task.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<dyn Task>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a task answers.
#[derive(Clone)]
pub(crate) struct Speaker {
    outbox: Outbox,
    id: u32,
}

impl Speaker {
    /// Sends a reply; false if the session is over.
    pub(crate) fn say(&self, body: Reply) -> bool {
        self.outbox.send(self.id, body).is_ok()
    }
}

/// The reply to a request that the system refused.
pub(crate) fn failed(what: &str, error: &std::io::Error) -> Reply {
    Reply::Failed { errno: error.raw_os_error(), message: format!("{what}: {error}") }
}
