//! `vip-bw`: as many messages as the NIC takes.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::json;
use vipl::Nic;

use crate::channel::Waiting;
use crate::cli::{Common, Wait};
use crate::flow::{Flow, Streams, Totals};
use crate::session::{Meeting, Session, print_result};
use crate::sizes::Sizes;

/// The tool's name.
pub const TOOL: &str = "vip-bw";

/// What a client wants to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Message sizes.
    pub sizes: Sizes,
    /// Messages in each direction that has any.
    pub messages: u64,
    /// From the client only, or from both sides.
    pub both_ways: bool,
    /// Most messages under way in one direction.
    pub window: u32,
    /// Whether every byte is checked.
    pub check: bool,
    /// Seed of sizes and contents.
    pub seed: u64,
    /// Another plan follows, over a connection of its own.
    pub more: bool,
}

impl Plan {
    fn streams(&self) -> Streams {
        let Self { sizes, messages, both_ways, window, check, seed, more: _ } = *self;
        Streams { sizes, messages, both_ways, window, check, seed }
    }
}

/// Serves one client: all of its plans.
///
/// # Errors
/// When the exchange fails or a byte is wrong.
pub fn serve(nic: &Nic, options: &Common) -> anyhow::Result<()> {
    loop {
        let mut session = meeting(options).serve::<Plan>(nic)?;
        exchange(nic, &mut session)?;
        if !session.plan.more {
            return Ok(());
        }
    }
}

/// Runs plans, one after the other, against the server at `host`, or at this NIC.
///
/// # Errors
/// When the exchange fails or a byte is wrong.
pub fn run(nic: &Nic, options: &Common, host: Option<[u8; 6]>, plans: Vec<Plan>) -> anyhow::Result<()> {
    let head =
        format!("{:>9} {:>11} {:>7} {:>12} {:>14}", "bytes", "messages", "window", "MB/s", "messages/s");
    for (index, plan) in plans.into_iter().enumerate() {
        let mut session = meeting(options).connect(nic, host, plan)?;
        let (totals, seconds) = exchange(nic, &mut session)?;
        let plan = &session.plan;
        let window = plan.streams().window();
        let bytes_per_second = totals.bytes as f64 / seconds;
        let messages_per_second = totals.messages as f64 / seconds;
        let size = match plan.sizes {
            Sizes::Fixed(size) => json!(size),
            Sizes::Mixed { max } => json!(format!("0-{max}")),
        };
        let line = format!(
            "{:>9} {:>11} {window:>7} {:>12.2} {messages_per_second:>14.0}",
            size.to_string().trim_matches('"'),
            totals.messages,
            bytes_per_second / 1e6,
        );
        let object = json!({
            "tool": TOOL, "size": size, "iterations": plan.messages, "checked": plan.check,
            "bidirectional": plan.both_ways, "window": window, "messages": totals.messages, "bytes": totals.bytes,
            "seconds": seconds, "messages_per_second": messages_per_second, "bytes_per_second": bytes_per_second,
        });
        print_result(options.json, index == 0, &head, &line, &object)?;
    }
    Ok(())
}

fn meeting(options: &Common) -> Meeting<'_> {
    // Blocking on sends and receives at once takes a completion queue.
    let cq = options.cq || options.wait == Wait::Block;
    Meeting { tool: TOOL, options, waiting: Waiting { wait: options.wait, cq, limit: options.timeout } }
}

/// One plan: what has gone, and how many seconds it took until both sides knew.
fn exchange(nic: &Nic, session: &mut Session<Plan>) -> anyhow::Result<(Totals, f64)> {
    let mut flow = Flow::new(nic, &mut session.channel, session.side, session.plan.streams())?;
    session.start(TOOL, None)?;
    let begin = Instant::now();
    let totals = flow.run(&mut session.channel)?;
    let seconds = begin.elapsed().as_secs_f64();
    // The card writes to the flow's memory until the connection has ended.
    session.channel.vi().disconnect()?;
    Ok((totals, seconds))
}
