//! Processes and machines that die in mid-traffic: the card goes on serving the others, nothing stays behind.

use std::time::Duration;

use anyhow::{Result, ensure};
use vianic_tests::vianic::Limit;
use vianic_tests::{TestFabric, fabric};

fn limit(what: &'static str) -> Limit {
    Limit::new(what, Duration::from_secs(240))
}

/// Traffic from guest 0 to a server in guest 1 that goes on for ever.
fn traffic(fabric: &TestFabric, name: &str, wait: &str) -> Result<[vianic_tests::vianic::agent::Process; 2]> {
    let server = fabric.start(1, &format!("exec vip-bw -p {name} --wait {wait}"))?;
    server.wait_for("waiting", &limit("the server"))?;
    let client = fabric.start(
        0,
        &format!("exec vip-bw {} -p {name} --wait {wait} --iterations 1000000000", fabric.address(1)?),
    )?;
    Ok([client, server])
}

/// Waits until so many messages have been received by a card since it was asked first.
fn flowing(fabric: &TestFabric, nic: usize) -> Result<()> {
    let received = || -> Result<u64> {
        let stats = fabric.stats()?;
        Ok(stats["nics"][nic]["counters"]["messages_received"].as_u64().unwrap_or(0))
    };
    let first = received()?;
    let flowing = limit("traffic to flow");
    while received()? < first + 200 {
        flowing.remaining()?;
        fabric.run(0, "sleep 0.1")?;
    }
    Ok(())
}

#[test]
fn a_killed_process_leaves_nothing_behind() -> Result<()> {
    let fabric = fabric("a killed process leaves nothing behind").vms(2).launch()?;
    for (killed, wait) in [(0, "poll"), (1, "poll"), (0, "block"), (1, "block")] {
        let bystanders = traffic(&fabric, "bystanders", "block")?;
        let victims = traffic(&fabric, "victims", wait)?;
        flowing(&fabric, 1)?;
        victims[killed].signal(9);
        let [client, server] = victims;
        for process in [client, server] {
            let output = process.collect(&limit("the victim and its peer to end"))?;
            ensure!(!output.status.success(), "it ended well though its peer was killed");
        }
        // The others have noticed nothing.
        flowing(&fabric, 1)?;
        let [client, server] = bystanders;
        client.signal(15);
        client.collect(&limit("the bystander"))?;
        server.collect(&limit("the bystander's server"))?;
        for vm in 0..2 {
            fabric.run(
                vm,
                "cd /sys/class/misc/vianic0
                 i=0; until [ $(cat pinned_pages) = 0 -a $(cat pending_unpins) = 0 ]; do
                     i=$((i + 1)); [ $i -lt 300 ] || exit 1; sleep 0.1
                 done
                 test $(cat contexts) = 0 && test $(cat regions) = 0",
            )?;
        }
    }
    fabric.stop()
}

/// Fault 22: a machine is gone from one moment to the next.
#[test]
fn fault_22_a_killed_machine_breaks_its_connections_only() -> Result<()> {
    let fabric = fabric("a killed machine breaks its connections only").vms(2).launch()?;
    let [client, server] = traffic(&fabric, "mixed", "poll")?;
    flowing(&fabric, 1)?;
    fabric.vms()[1].kill()?;
    drop(server);
    let output = client.collect(&limit("the survivor to notice"))?;
    ensure!(!output.status.success());
    ensure!(
        output.stderr().to_lowercase().contains("connection"),
        "the error does not say that the connection is lost: {}",
        output.stderr()
    );
    fabric.run(0, "vip-bw --self --mixed 1000 --check")?;
    // Its NIC is still on the fabric, but nobody is there.
    let output = fabric.try_run(0, &format!("vip-bw {} --connect-timeout 1s", fabric.address(1)?))?;
    ensure!(!output.status.success());
    fabric.stop()
}
