//! What a message costs: no system call, no interrupt for who polls, one for who sleeps; nothing at all when idle.

use anyhow::{Context as _, Result};
use vianic_tests::{TestFabric, fabric};

fn attribute(fabric: &TestFabric, name: &str) -> Result<u64> {
    let text = fabric.run(0, &format!("cat /sys/class/misc/vianic0/{name}"))?;
    text.trim().parse().with_context(|| format!("{name}: {text:?}"))
}

/// System calls of a command and its threads, as strace counts them. Giving way to others when a queue has been empty for long
/// is the tool's choice and not counted, nor is reading the clock, which takes a call where the guest's clock is a bad one.
fn system_calls(fabric: &TestFabric, command: &str) -> Result<u64> {
    let summary = fabric.run(
        0,
        &format!("strace -f -c -e trace=!sched_yield,clock_gettime -o /tmp/calls {command} >/dev/null; cat /tmp/calls"),
    )?;
    let total = summary.lines().rfind(|line| line.trim_end().ends_with("total")).context(summary.clone())?;
    total.split_whitespace().nth(3).and_then(|calls| calls.parse().ok()).context(summary.clone())
}

#[test]
fn polling_takes_no_system_call_and_no_interrupt() -> Result<()> {
    let fabric = fabric("polling takes no system call and no interrupt").launch()?;
    let few = system_calls(&fabric, "vip-pingpong --self --iterations 100 --wait poll")?;
    let many = system_calls(&fabric, "vip-pingpong --self --iterations 5000 --wait poll")?;
    // The rest of the program costs the same, give or take what threads and buffers do.
    assert!(many < few + 200, "{few} system calls for 100 round trips, {many} for 5,000");

    // The Kernel Agent's own counters say the same.
    let count = |iterations: u64| -> Result<(u64, u64)> {
        let before = (attribute(&fabric, "ioctls")?, attribute(&fabric, "events")?);
        fabric.run(0, &format!("vip-pingpong --self --iterations {iterations} --wait poll"))?;
        Ok((attribute(&fabric, "ioctls")? - before.0, attribute(&fabric, "events")? - before.1))
    };
    let (few, many) = (count(100)?, count(5_000)?);
    assert!(many.0 < few.0 + 20, "ioctls: {few:?}, {many:?}");
    assert!(many.1 < few.1 + 20, "events: {few:?}, {many:?}");
    fabric.stop()
}

#[test]
fn a_blocking_wait_takes_one_event_and_an_idle_card_no_processor() -> Result<()> {
    let fabric = fabric("a blocking wait takes one event").launch()?;
    // No spinning before the sleep, so that each wait sleeps: one event each at most, for the receives and the sends of
    // both ends of 1,000 round trips and of 100 to warm up, and a few commands.
    let before = [attribute(&fabric, "events")?, attribute(&fabric, "interrupts")?];
    fabric.run(0, "VIANIC_SPIN_US=0 vip-pingpong --self --iterations 1000 --wait block --check")?;
    let events = attribute(&fabric, "events")? - before[0];
    let interrupts = attribute(&fabric, "interrupts")? - before[1];
    assert!((1000..=4 * 1100 + 100).contains(&events), "{events} events");
    assert!(interrupts <= events, "{interrupts} interrupts for {events} events");

    // Idle: the card's thread does not run. The kernel counts its time in ticks.
    let ticks = || -> Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", fabric.card().context("a card")?.pid()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().context("stat")?.split_whitespace().collect();
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    };
    let polls = |fabric: &TestFabric| -> Result<u64> {
        fabric.stats()?["nics"][0]["counters"]["polls"].as_u64().context("polls")
    };
    fabric.run(0, "sleep 1")?;
    let (ticks_before, polls_before) = (ticks()?, polls(&fabric)?);
    fabric.run(0, "sleep 5")?;
    assert_eq!(polls(&fabric)?, polls_before, "an idle card looks at no Token Table");
    assert!(ticks()? - ticks_before <= 2, "an idle card took {} ticks in 5 s", ticks()? - ticks_before);
    fabric.stop()
}
