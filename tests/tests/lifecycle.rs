//! The driver and its machine come and go: unbind, unload, reboot, reset, pause. Fault 50.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vianic_tests::vianic::Limit;
use vianic_tests::{TestFabric, fabric};

const SELF_TEST: &str = "vip-pingpong --self --size 3000 --iterations 200 --check";

fn limit(what: &'static str) -> Limit {
    Limit::new(what, Duration::from_secs(240))
}

fn qmp(fabric: &TestFabric, vm: usize, command: &str, event: &str) -> Result<()> {
    let qmp = fabric.vms()[vm].qmp();
    let mut mark = qmp.mark();
    qmp.execute(command, serde_json::Value::Null)?;
    qmp.wait_event(event, &mut mark, &limit("QEMU's event"))?;
    Ok(())
}

#[test]
fn fault_50_unbind_and_unload() -> Result<()> {
    let fabric = fabric("unbind and unload").launch()?;
    for _ in 0..3 {
        fabric.run(0, SELF_TEST)?;
        fabric.run(
            0,
            "set -e; cd /sys/bus/virtio/drivers/vianic; device=$(ls -d virtio*); echo $device > unbind
             test ! -e /dev/vianic0; echo $device > bind; test -e /dev/vianic0",
        )?;
        fabric.run(0, SELF_TEST)?;
        fabric.run(0, "rmmod vianic && insmod /lib/modules/vianic.ko")?;
    }
    fabric.run(0, SELF_TEST)?;

    // With a file open the module stays, and an unbind under traffic ends the program, not the guest.
    let server = fabric.start(0, "exec vip-bw -p busy")?;
    server.wait_for("waiting", &limit("the server"))?;
    let client = fabric.start(0, "exec vip-bw self -p busy --size 20000 --iterations 100000000")?;
    fabric.run(0, "until [ $(cat /sys/class/misc/vianic0/regions) -ge 4 ]; do sleep 0.1; done")?;
    ensure!(!fabric.try_run(0, "rmmod vianic")?.status.success(), "a module in use was unloaded");
    fabric.run(
        0,
        "cd /sys/bus/virtio/drivers/vianic; device=$(ls -d virtio*); echo $device > unbind; echo $device > bind",
    )?;
    ensure!(!client.collect(&limit("the client"))?.status.success());
    ensure!(!server.collect(&limit("the server"))?.status.success());
    fabric.run(0, SELF_TEST)?;
    fabric.run(0, "test $(cat /sys/class/misc/vianic0/pinned_pages) = 0")?;
    fabric.stop()
}

#[test]
fn fault_50_reboot_and_reset() -> Result<()> {
    let fabric = fabric("reboot and reset").vms(2).launch()?;
    let server = |name: &str| -> Result<_> {
        let server = fabric.start(1, &format!("exec vip-bw -p {name}"))?;
        server.wait_for("waiting", &limit("the server"))?;
        Ok(server)
    };
    for (name, reset) in [("reboot", false), ("reset", true)] {
        // In mid-transfer: guest 1 goes away under guest 0's hands.
        let serving = server(name)?;
        let client = fabric
            .start(0, &format!("exec vip-bw {} -p {name} --iterations 100000000", fabric.address(1)?))?;
        fabric.run(1, "until [ $(cat /sys/class/misc/vianic0/regions) -ge 2 ]; do sleep 0.1; done")?;
        if reset {
            fabric.vms()[1].reset()?
        } else {
            fabric.vms()[1].reboot()?
        }
        drop(serving);
        // The module of the new boot attaches; the old connection is gone for good.
        let output = client.collect(&limit("the client to notice"))?;
        ensure!(!output.status.success(), "the client went on over a reset");
        fabric.run(0, SELF_TEST)?;
        fabric.run(1, SELF_TEST)?;
        let serving = server("again")?;
        fabric.run(0, &format!("vip-bw {} -p again --mixed 500 --check", fabric.address(1)?))?;
        ensure!(serving.collect(&limit("the server"))?.status.success());
    }
    fabric.stop()
}

#[test]
fn fault_38_50_stop_and_continue_lose_nothing() -> Result<()> {
    let fabric = fabric("stop and continue lose nothing").vms(2).launch()?;
    let server = fabric.start(1, "exec vip-bw --wait block")?;
    server.wait_for("waiting", &limit("the server"))?;
    let client = fabric.start(
        0,
        &format!("exec vip-bw {} --mixed 20000 --check --wait block --timeout 100s", fabric.address(1)?),
    )?;
    let received = |fabric: &TestFabric| -> Result<u64> {
        fabric.stats()?["nics"][1]["counters"]["messages_received"].as_u64().context("messages_received")
    };
    let begun = limit("traffic to begin");
    while received(&fabric)? < 100 {
        begun.remaining()?;
        fabric.run(0, "sleep 0.1")?;
    }
    for vm in [1, 0, 1] {
        qmp(&fabric, vm, "stop", "STOP")?;
        // What the other guest has posted waits; it notices nothing but the silence.
        fabric.run(1 - vm, "sleep 1")?;
        qmp(&fabric, vm, "cont", "RESUME")?;
    }
    ensure!(client.collect(&limit("the client"))?.status.success());
    ensure!(server.collect(&limit("the server"))?.status.success());
    for vm in 0..2 {
        fabric.run(vm, SELF_TEST)?;
    }
    fabric.stop()
}
