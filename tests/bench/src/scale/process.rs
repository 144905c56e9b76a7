//! What a process takes, as the kernel counts it.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;

/// Memory of a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    bytes: f64,
}

impl Usage {
    /// Now: its anonymous pages, and those of shared memory that it has touched.
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Self::parse(&status).with_context(|| format!("{path} has no figures"))
    }

    fn parse(status: &str) -> Option<Self> {
        let kilobytes = |name| -> Option<f64> {
            status.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?.parse().ok()
        };
        Some(Self { bytes: (kilobytes("RssAnon:")? + kilobytes("RssShmem:")?) * 1024.0 })
    }

    /// How much more it is than before; not less than nothing.
    pub(super) fn bytes_since(self, before: Self) -> f64 {
        (self.bytes - before.bytes).max(0.0)
    }
}

/// Nanoseconds that the threads of a process have run on a processor.
pub(super) fn processor_ns(pid: u32) -> anyhow::Result<u64> {
    let tasks = PathBuf::from(format!("/proc/{pid}/task"));
    let mut sum = 0;
    for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {}", tasks.display()))? {
        // A thread may have ended since.
        if let Ok(schedstat) = fs::read_to_string(task?.path().join("schedstat")) {
            let first = schedstat.split_whitespace().next().and_then(|first| first.parse::<u64>().ok());
            sum += first.context("schedstat has no figures")?;
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted() {
        let status =
            "Name:\tx\nVmRSS:\t 9 kB\nRssAnon:\t     100 kB\nRssFile:\t 5 kB\nRssShmem:\t      28 kB\n";
        let usage = Usage::parse(status).expect("figures");
        assert_eq!(usage, Usage { bytes: 131_072.0 });
        assert!(Usage::parse("RssAnon:\t1 kB\n").is_none());
    }

    #[test]
    fn a_process_that_works_takes_time() {
        let pid = std::process::id();
        let before = processor_ns(pid).expect("figures");
        while processor_ns(pid).expect("figures") == before {}
    }
}
