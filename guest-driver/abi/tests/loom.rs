//! Explores the interleavings, and the stale reads that the memory model allows, of the protocols that cross the
//! guest/device border without a lock.
//!
//! The code under test is generic over its atomics, so this is an ordinary test: no `--cfg loom`. Every model
//! that rests on a fence also runs with [`Unfenced`] atomics and must fail then: that is what shows that the
//! model could find a lost wake-up at all.

#[path = "loom/atomics.rs"]
mod atomics;
#[path = "loom/mcq.rs"]
mod mcq;
#[path = "loom/mdl.rs"]
mod mdl;
#[path = "loom/mrt.rs"]
mod mrt;
#[path = "loom/token_table.rs"]
mod token_table;
#[path = "loom/wake.rs"]
mod wake;

use atomics::{Fenced, Unfenced};

/// Runs `model` through all executions with at most `preemptions` involuntary switches.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}
