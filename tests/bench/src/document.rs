//! All results of a run, as they are written to JSON.

use std::fs;

use serde::{Deserialize, Serialize};
use vianic_tools::bench::result::CaseResult;

use crate::scale::ScaleResult;

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// Where it ran.
    pub machine: Machine,
    /// Over the direct link.
    pub direct: Vec<CaseResult>,
    /// Over the direct link, with more and more objects.
    pub scale: Vec<ScaleResult>,
    /// In two guests.
    pub guests: Vec<CaseResult>,
}

/// A machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Its processor's name.
    pub processor: String,
    /// How many processors this process may use.
    pub processors: usize,
    /// The kernel.
    pub kernel: String,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        // What cannot be read is only not shown.
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            processor: model.map(|(_, name)| name.trim().to_owned()).unwrap_or_else(|| "unknown".to_owned()),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}
