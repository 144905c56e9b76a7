//! A client of QEMU's machine protocol (QMP): commands, replies and events.

use std::collections::{HashMap, VecDeque};
use std::io::{BufReader, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::limit::Limit;

/// How long QEMU may take to answer a command. Commands that take long answer at once and report by event.
const REPLY_LIMIT: Duration = Duration::from_secs(60);

/// How many events are kept for callers that ask later.
const EVENTS_KEPT: usize = 4096;

/// One event, such as `STOP` or `GUEST_PANICKED`.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// Its data; `Null` if it has none.
    pub data: Value,
}

/// A connection to one QEMU. All methods may be called from several threads.
pub struct Qmp {
    writer: Mutex<Box<dyn Write + Send>>,
    shared: Arc<Shared>,
    greeting: Value,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    greeting: Option<Value>,
    next_id: u64,
    replies: HashMap<u64, Result<Value, String>>,
    events: VecDeque<Event>,
    /// How many events have been forgotten.
    forgotten: usize,
    closed: Option<String>,
}

/// A position in the sequence of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(usize);

/// Every kind of line that QEMU sends.
#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Greeting {
        #[serde(rename = "QMP")]
        qmp: Value,
    },
    Reply {
        #[serde(rename = "return")]
        value: Value,
        id: u64,
    },
    Refusal {
        error: Refusal,
        id: u64,
    },
    Event {
        event: String,
        #[serde(default)]
        data: Value,
    },
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

impl std::fmt::Debug for Qmp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Qmp").field("version", &self.version()).finish_non_exhaustive()
    }
}

impl Qmp {
    /// Takes over a connection: waits for the greeting and enters command mode.
    pub fn connect(
        reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
        limit: &Limit,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let for_reader = Arc::clone(&shared);
        std::thread::spawn(move || for_reader.read_all(reader));
        let greeting = shared.wait(limit, |state| state.greeting.take())?;
        let qmp = Self { writer: Mutex::new(Box::new(writer)), shared, greeting };
        qmp.execute("qmp_capabilities", Value::Null)?;
        Ok(qmp)
    }

    /// QEMU's version, as it says in its greeting.
    pub fn version(&self) -> String {
        let version = &self.greeting["version"];
        let number = |part: &str| version["qemu"][part].as_u64().unwrap_or_default();
        format!("{}.{}.{}", number("major"), number("minor"), number("micro"))
    }

    /// Runs a command and returns its answer. `Null` stands for no arguments.
    pub fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let id = {
            let mut state = self.shared.lock();
            state.next_id += 1;
            state.next_id
        };
        let mut message = json!({ "execute": command, "id": id });
        if !arguments.is_null() {
            message["arguments"] = arguments;
        }
        let line = format!("{message}\n");
        log::trace!("qmp: {}", line.trim_end());
        {
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer
                .write_all(line.as_bytes())
                .and_then(|()| writer.flush())
                .map_err(|e| Error::QmpBroken(format!("{command} could not be sent: {e}")))?;
        }
        let limit = Limit::new(format!("QEMU's answer to {command}"), REPLY_LIMIT);
        self.shared
            .wait(&limit, |state| state.replies.remove(&id))?
            .map_err(|message| Error::QmpRefused { command: command.to_owned(), message })
    }

    /// The present end of the sequence of events.
    pub fn mark(&self) -> Mark {
        let state = self.shared.lock();
        Mark(state.forgotten + state.events.len())
    }

    /// Waits for the first event called `name` after `mark`, and moves the mark past it.
    pub fn wait_event(&self, name: &str, mark: &mut Mark, limit: &Limit) -> Result<Event> {
        self.shared.wait(limit, |state| {
            let first = mark.0.saturating_sub(state.forgotten);
            let (index, event) =
                state.events.iter().enumerate().skip(first).find(|(_, event)| event.name == name)?;
            *mark = Mark(state.forgotten + index + 1);
            Some(event.clone())
        })
    }

    /// All events so far that are still kept, the oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.shared.lock().events.iter().cloned().collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `pick` finds what it wants, the connection ends or the limit passes.
    fn wait<T>(&self, limit: &Limit, mut pick: impl FnMut(&mut State) -> Option<T>) -> Result<T> {
        let mut state = self.lock();
        loop {
            if let Some(found) = pick(&mut state) {
                return Ok(found);
            }
            if let Some(reason) = &state.closed {
                return Err(Error::QmpBroken(reason.clone()));
            }
            let left = limit.remaining()?;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn read_all(&self, reader: impl Read) {
        let mut reason = "QEMU closed it".to_owned();
        for message in serde_json::Deserializer::from_reader(BufReader::new(reader)).into_iter() {
            match message {
                Ok(message) => self.accept(message),
                Err(error) if error.is_eof() => break,
                Err(error) => {
                    reason = error.to_string();
                    break;
                }
            }
        }
        self.lock().closed = Some(reason);
        self.changed.notify_all();
    }

    fn accept(&self, message: Message) {
        let mut state = self.lock();
        match message {
            Message::Greeting { qmp } => state.greeting = Some(qmp),
            Message::Reply { value, id } => {
                state.replies.insert(id, Ok(value));
            }
            Message::Refusal { error, id } => {
                state.replies.insert(id, Err(error.desc));
            }
            Message::Event { event, data } => {
                log::debug!("qmp event {event} {data}");
                if state.events.len() == EVENTS_KEPT {
                    state.events.pop_front();
                    state.forgotten += 1;
                }
                state.events.push_back(Event { name: event, data });
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;
    use std::os::unix::net::UnixStream;
    use std::thread::JoinHandle;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 3, "minor": 1, "major": 11},
        "package": "Debian"}, "capabilities": ["oob"]}}"#;

    /// A server that greets, then answers each command with what `answer` says.
    fn serve(answer: impl Fn(&str, u64) -> String + Send + 'static) -> (Result<Qmp>, JoinHandle<()>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            writer.write_all(GREETING.as_bytes()).unwrap();
            for line in BufReader::new(theirs).lines() {
                let command: Value = serde_json::from_str(&line.unwrap()).unwrap();
                let id = command["id"].as_u64().unwrap();
                let text = match command["execute"].as_str().unwrap() {
                    "qmp_capabilities" => format!(r#"{{"return": {{}}, "id": {id}}}"#),
                    "hang_up" => return,
                    other => answer(other, id),
                };
                // In two pieces, as a stream socket may deliver it.
                let (head, tail) = text.as_bytes().split_at(text.len() / 2);
                writer.write_all(head).unwrap();
                writer.write_all(tail).unwrap();
                writer.write_all(b"\r\n").unwrap();
            }
        });
        let limit = Limit::new("the fake server", Duration::from_secs(20));
        (Qmp::connect(ours.try_clone().unwrap(), ours, &limit), server)
    }

    #[test]
    fn replies_refusals_and_events_are_told_apart() {
        let (qmp, _server) = serve(|command, id| match command {
            "query-status" => format!(
                r#"{{"timestamp": {{"seconds": 1}}, "event": "STOP"}}{{"return": {{"running": false}}, "id": {id}}}"#
            ),
            _ => format!(r#"{{"error": {{"class": "CommandNotFound", "desc": "no such"}}, "id": {id}}}"#),
        });
        let qmp = qmp.unwrap();
        assert_eq!(qmp.version(), "11.1.3");
        let mut mark = qmp.mark();
        assert_eq!(qmp.execute("query-status", Value::Null).unwrap()["running"], false);
        let error = qmp.execute("dance", json!({"to": "music"})).unwrap_err().to_string();
        assert_eq!(error, "QMP command dance failed: no such");
        let limit = Limit::new("STOP", Duration::from_secs(20));
        assert_eq!(qmp.wait_event("STOP", &mut mark, &limit).unwrap().data, Value::Null);
        let short = Limit::new("another STOP", Duration::from_millis(10));
        assert!(matches!(qmp.wait_event("STOP", &mut mark, &short), Err(Error::TimedOut(_))));
        assert_eq!(qmp.mark(), mark);
    }

    #[test]
    fn a_closed_connection_ends_every_wait() {
        let (qmp, server) = serve(|_, _| String::new());
        let error = qmp.unwrap().execute("hang_up", Value::Null).unwrap_err();
        assert!(matches!(error, Error::QmpBroken(_)), "{error}");
        server.join().unwrap();
    }

    #[test]
    fn garbage_is_reported() {
        let (qmp, _server) = serve(|_, _| "this is not JSON".to_owned());
        let error = qmp.unwrap().execute("anything", Value::Null).unwrap_err();
        assert!(matches!(error, Error::QmpBroken(_)), "{error}");
    }
}
