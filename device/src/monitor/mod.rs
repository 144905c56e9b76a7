//! The control socket: a line asks, a line of JSON answers.
//!
//! * `stats` → `{"nics":[{"address":"02:56:49:41:00:01","counters":{"doorbells":3,...}}]}`
//! * `faults` → `{"nics":[{"address":"02:56:49:41:00:01","faults":null}]}`, or, where a link has a plan,
//!   `"faults":{"plan":"seed=1,drop=0.01,corrupt=0,break=0","dropped":2,"corrupted":0,"broken":0}`
//! * `faults PLAN`, `faults off`, `faults ADDRESS PLAN`, `faults ADDRESS off` → as `faults`, once the links of all NICs, or of the
//!   one, are so
//! * what it does not know → `{"error":"..."}`

mod client;
mod faults;
mod server;
mod stats;

use serde_json::{Value, json};

use crate::engine::EngineHandle;

pub use server::Server;
pub use stats::Nic;

/// What the control socket answers from.
#[derive(Debug)]
pub struct Desk {
    /// The cards, by number.
    pub nics: Vec<Nic>,
    /// The engine that runs them.
    pub engine: EngineHandle,
}

impl Desk {
    /// The answer to a line.
    fn answer(&self, line: &[u8]) -> Value {
        let line = String::from_utf8_lossy(line);
        let mut words = line.split_ascii_whitespace();
        let answer = match words.next() {
            Some("stats") if words.next().is_none() => {
                self.engine.settle_times();
                Ok(stats::report(&self.nics))
            }
            Some("faults") => faults::command(self, &words.collect::<Vec<_>>()),
            _ => Err(format!("unknown command {:?}; known: stats, faults", line.trim())),
        };
        answer.unwrap_or_else(|error| json!({ "error": error }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;

    #[test]
    fn what_is_not_known_is_an_error() {
        let engine = Engine::start(Vec::new()).expect("an engine");
        let desk = Desk { nics: Vec::new(), engine: engine.handle() };
        for line in [&b"\xff\"reboot"[..], b"", b"stats all", b"STATS"] {
            let error = desk.answer(line)["error"].clone();
            assert!(error.as_str().expect("text").contains("known: stats"), "{error}");
        }
        engine.stop();
    }
}
