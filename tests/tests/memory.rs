//! Registered memory: what comes and goes under traffic, what the world does to it, and a machine whose memory changes.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vianic_tests::vianic::Limit;
use vianic_tests::{CProgram, DirectCards, TestFabric, fabric, install, nothing_left};

/// How long memory comes and goes in guests; `VIANIC_CHURN_SECONDS=600` is the long run.
fn churn_seconds() -> Result<u64> {
    const SHORT: u64 = 15;
    match std::env::var("VIANIC_CHURN_SECONDS") {
        Ok(seconds) => seconds.parse().context("VIANIC_CHURN_SECONDS is a number of seconds"),
        Err(_) => Ok(SHORT),
    }
}

/// Rounds do not end at once: the largest regions take a slow guest a while.
fn churn_limit(seconds: u64) -> Limit {
    Limit::new("the regions to come to an end", Duration::from_secs(seconds + 240))
}

fn counter(fabric: &TestFabric, name: &str) -> Result<u64> {
    let stats = fabric.stats()?;
    stats["nics"][0]["counters"][name].as_u64().with_context(|| format!("no counter {name} in {stats}"))
}

/// Has memory come and go, beside what `meanwhile` does.
fn churn(fabric: &TestFabric, seed: u32, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    let program = install(fabric, 0, &CProgram::for_vipl(&["churn.c"])?)?;
    let seconds = churn_seconds()?;
    let process = fabric.start(0, &format!("exec {program} nic0 nic0 {seconds} {seed}"))?;
    meanwhile()?;
    let output = process.collect(&churn_limit(seconds))?;
    ensure!(output.status.success(), "{}\n{}{}", output.status, output.stdout(), output.stderr());
    log::info!("{}", output.stdout());
    for name in ["shadow_hits", "shadow_misses", "page_table_reads", "mdl_drained_validation"] {
        let count = counter(fabric, name)?;
        ensure!(count > 0, "no {name}");
        log::info!("{name}: {count}");
    }
    nothing_left(fabric, 0)
}

#[test]
fn memory_comes_and_goes_under_traffic() -> Result<()> {
    let fabric = fabric("memory comes and goes under traffic").memory_mib(1536).launch()?;
    churn(&fabric, 1, || Ok(()))?;
    fabric.stop()
}

#[test]
fn a_hostile_card_touches_nothing_that_is_not_registered() -> Result<()> {
    let fabric = fabric("a hostile card touches nothing that is not registered")
        .memory_mib(1536)
        .device_argument("--hostile=7")
        .launch()?;
    churn(&fabric, 2, || Ok(()))?;
    ensure!(counter(&fabric, "mdl_drained_command")? > 0, "it has been asked to drain its MDL");
    fabric.stop()
}

#[test]
fn memory_comes_and_goes_over_the_direct_link() -> Result<()> {
    let program = CProgram::for_vipl(&["churn.c"])?;
    let cards = DirectCards::launch("memory comes and goes over the direct link", 2)?;
    let output = Command::new(program.path())
        .args([cards.nic(0), cards.nic(1), "5".into(), "3".into()])
        .env("LD_LIBRARY_PATH", program.libraries())
        .output()?;
    ensure!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    cards.stop()
}

#[test]
fn what_the_world_does_to_registered_memory() -> Result<()> {
    let fabric = fabric("what the world does to registered memory").memory_mib(2560).launch()?;
    let program = install(&fabric, 0, &CProgram::for_vipl(&["upheaval.c"])?)?;
    log::info!("{}", fabric.run(0, &format!("{program} nic0"))?);
    nothing_left(&fabric, 0)?;
    fabric.stop()
}

/// Memory is plugged into the machine, twice: its card sees another memory table each time, in mid-traffic.
#[test]
fn a_machine_gets_more_memory_under_traffic() -> Result<()> {
    let fabric = fabric("a machine gets more memory under traffic")
        .memory_mib(1536)
        .qemu_arguments(["-m", "1536M,slots=4,maxmem=4G"])
        .launch()?;
    let total = || -> Result<u64> {
        let text = fabric.run(0, "sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")?;
        text.trim().parse().context(text)
    };
    let before = total()?;
    churn(&fabric, 4, || {
        for dimm in 0..2 {
            let qmp = fabric.vms()[0].qmp();
            qmp.execute(
                "object-add",
                serde_json::json!({
                    "qom-type": "memory-backend-memfd", "id": format!("more{dimm}"), "size": 256 << 20, "share": true,
                }),
            )?;
            qmp.execute(
                "device_add",
                serde_json::json!({ "driver": "pc-dimm", "id": format!("dimm{dimm}"), "memdev": format!("more{dimm}") }),
            )?;
            // The guest takes it into use; the new memory is as good as any.
            fabric.run(
                0,
                "for block in /sys/devices/system/memory/memory*; do
                     grep -q online $block/state || echo online_movable > $block/state || true
                 done",
            )?;
        }
        Ok(())
    })?;
    let after = total()?;
    ensure!(after >= before + (400 << 10), "{before} kB of memory became {after} kB");
    fabric.stop()
}
