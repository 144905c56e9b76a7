//! Messages between guests: whole, in order, from several processes, at every size.

use std::time::Duration;

use anyhow::{Context as _, Result};
use vianic_tests::vianic::Limit;
use vianic_tests::{TestFabric, fabric};

/// Runs a tool between two guests, its server in guest 1; what the client prints.
fn between(fabric: &TestFabric, tool: &str, options: &str) -> Result<String> {
    let limit = Limit::new("the tool", Duration::from_secs(600));
    let server = fabric.start(1, tool)?;
    server.wait_for("waiting", &limit)?;
    let client = fabric.start(0, &format!("{tool} {} {options}", fabric.address(1)?))?;
    let output = client.collect(&limit)?;
    anyhow::ensure!(
        output.status.success(),
        "client: {}\n{}{}",
        output.status,
        output.stdout(),
        output.stderr()
    );
    let served = server.collect(&limit)?;
    anyhow::ensure!(
        served.status.success(),
        "server: {}\n{}{}",
        served.status,
        served.stdout(),
        served.stderr()
    );
    Ok(output.stdout())
}

fn counter(fabric: &TestFabric, nic: usize, name: &str) -> Result<u64> {
    let stats = fabric.stats()?;
    stats["nics"][nic]["counters"][name].as_u64().with_context(|| format!("no counter {name} in {stats}"))
}

#[test]
fn fault_23_a_hundred_thousand_mixed_messages_both_ways_between_two_guests() -> Result<()> {
    let fabric = fabric("a hundred thousand mixed messages between two guests").vms(2).launch()?;
    between(&fabric, "vip-bw", "--mixed 50000 --check")?;
    // Both directions, as the cards counted them, a few of the tool's own on top.
    for nic in 0..2 {
        assert!(counter(&fabric, nic, "messages_received")? >= 50_000);
        assert_eq!(counter(&fabric, nic, "tokens_refused")?, 0);
        assert_eq!(counter(&fabric, nic, "contexts_broken")?, 0);
        for kind in ["tokens_inline", "tokens_command", "doorbells", "shadow_hits", "shadow_misses"] {
            assert!(counter(&fabric, nic, kind)? > 0, "no {kind}");
        }
    }
    // Every size, every way to wait, completion queues.
    between(&fabric, "vip-pingpong", "--all --iterations 50 --check --wait poll")?;
    between(&fabric, "vip-pingpong", "--size 5000 --iterations 500 --check --wait block")?;
    between(&fabric, "vip-pingpong", "--size 100 --iterations 500 --check --wait block --cq")?;
    between(&fabric, "vip-pingpong", "--all --iterations 50 --check --rdma write")?;
    between(&fabric, "vip-pingpong", "--all --iterations 50 --check --rdma read --wait block")?;
    between(&fabric, "vip-bw", "--size 1048576 --iterations 50 --check --reliability reception")?;
    between(&fabric, "vip-bw", "--size 64 --iterations 5000 --check --reliability unreliable")?;
    fabric.stop()
}

#[test]
fn one_guest_with_itself_and_two_processes_at_once() -> Result<()> {
    let fabric = fabric("one guest with itself and two processes at once").memory_mib(1536).launch()?;
    fabric.run(0, "vip-bw --self --mixed 50000 --check")?;
    // Two pairs of processes share the card.
    fabric.run(
        0,
        "set -e
        vip-bw -p one > /tmp/one & vip-bw -p two > /tmp/two &
        vip-bw self -p one --mixed 3000 --check & first=$!
        vip-bw self -p two --mixed 3000 --check
        wait $first; wait",
    )?;
    assert_eq!(
        fabric.run(0, "cat /sys/class/misc/vianic0/contexts /sys/class/misc/vianic0/regions")?,
        "0\n0\n"
    );
    fabric.stop()
}
