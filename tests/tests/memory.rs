//! Registered memory: what comes and goes under traffic, what the world does to it, and a machine whose memory changes.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use vianic_tests::vianic::Limit;
use vianic_tests::vianic::agent::Process;
use vianic_tests::vianic::qmp::{Mark, Qmp};
use vianic_tests::{CProgram, DirectCards, ExitStatus, TestFabric, fabric, install, nothing_left};

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

/// Waits until the card has received so many more messages.
fn let_flow(fabric: &TestFabric, messages: u64) -> Result<()> {
    let limit = Limit::new("messages to flow", Duration::from_secs(240));
    let end = counter(fabric, "messages_received")? + messages;
    while counter(fabric, "messages_received")? < end {
        limit.remaining()?;
    }
    Ok(())
}

/// Starts a program that has memory come and go for so many seconds, or until the end of its input if 0, and waits until it does.
fn start_churn(fabric: &TestFabric, program: &str, seconds: u64, seed: u64) -> Result<(Process, String)> {
    let process = fabric.start(0, &format!("exec {program} nic0 nic0 {seconds} {seed}"))?;
    let said = process.wait_for("under way", &churn_limit(0))?;
    Ok((process, said))
}

/// Has memory come and go for so many seconds, or, if 0, as long as what happens `meanwhile`, which is given the program.
fn churn(
    fabric: &TestFabric,
    seconds: u64,
    seed: u64,
    meanwhile: impl FnOnce(&str) -> Result<()>,
) -> Result<()> {
    let program = install(fabric, 0, &CProgram::for_vipl(&["churn.c"])?)?;
    let (process, _) = start_churn(fabric, program, seconds, seed)?;
    meanwhile(program)?;
    process.handle().end();
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
    churn(&fabric, churn_seconds()?, 1, |_| Ok(()))?;
    fabric.stop()
}

#[test]
fn a_hostile_card_touches_nothing_that_is_not_registered() -> Result<()> {
    let fabric = fabric("a hostile card touches nothing that is not registered")
        .memory_mib(1536)
        .device_argument("--hostile=7")
        .launch()?;
    churn(&fabric, churn_seconds()?, 2, |_| Ok(()))?;
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
    let program = install(&fabric, 0, &CProgram::for_vipl(&["upheaval.c", "loopback.c"])?)?;
    log::info!("{}", fabric.run(0, &format!("{program} nic0"))?);
    nothing_left(&fabric, 0)?;
    fabric.stop()
}

/// Processes die in the middle of it, with transfers in flight both ways: their peers lose their connections and nothing else, others
/// notice nothing, and nothing is left.
#[test]
fn killed_processes_harm_nobody_and_leave_nothing() -> Result<()> {
    /// How many messages the card receives between the moment at which all are under way, and the kill.
    const MOMENTS: [u64; 4] = [0, 61, 17, 140];
    let fabric = fabric("killed processes harm nobody and leave nothing").memory_mib(2560).launch()?;
    let kills = usize::try_from(churn_seconds()? / 4)? + 1;
    churn(&fabric, 0, 5, |program| {
        for (seed, (victim, moment)) in
            (100..).zip(["server", "client"].iter().cycle().zip(MOMENTS.iter().cycle())).take(kills)
        {
            let (victims, said) = start_churn(&fabric, program, 0, seed)?;
            let pid =
                said.split_whitespace().skip_while(|word| word != victim).nth(1).context(said.clone())?;
            let_flow(&fabric, *moment)?;
            fabric.run(0, &format!("kill -9 {pid}"))?;
            let output =
                victims.collect(&Limit::new("the victim's peer to end", Duration::from_secs(240)))?;
            // It has noticed, and found its memory whole.
            ensure!(output.status == ExitStatus::Code(3), "{}\n{}", output.status, output.stderr());
        }
        Ok(())
    })?;
    fabric.stop()
}

/// A disk for swap, and a balloon that takes memory from the guest: what is registered stays where it is, what is beside it goes.
#[test]
fn registered_memory_stays_in_a_guest_that_runs_out_of_memory() -> Result<()> {
    const MIB: u64 = 1 << 20;
    const MEMORY: u64 = 512 * MIB;
    /// What the balloon leaves: the memory that is not registered does not fit in.
    const LEFT: u64 = 256 * MIB;
    let disk = tempfile::NamedTempFile::new()?;
    disk.as_file().set_len(256 * MIB)?;
    let fabric = fabric("registered memory stays in a guest that runs out of memory")
        .qemu_arguments(["-device", "virtio-balloon-pci,id=balloon"])
        .qemu_arguments(["-device", "virtio-blk-pci,drive=disk", "-blockdev"])
        .qemu_arguments([format!("driver=file,node-name=disk,filename={}", disk.path().display())])
        .launch()?;
    fabric.run(0, "modprobe -a virtio_blk virtio_balloon && mkswap /dev/vda && swapon /dev/vda")?;
    let sources = ["pressure.c", "loopback.c"];
    let program = install(&fabric, 0, &CProgram::for_vipl(&sources)?)?;
    let process = fabric.start(0, &format!("exec {program} nic0"))?;
    let swapped = |line: &str| -> Result<u64> {
        process.handle().send(line.as_bytes());
        let limit = Limit::new("where the pages are", Duration::from_secs(240));
        let said = process.wait_for("in the swap", &limit)?;
        log::info!("{}", said.trim());
        said.split_whitespace().next().and_then(|count| count.parse().ok()).context(said)
    };
    ensure!(swapped("look\n")? == 0);
    inflate(fabric.vms()[0].qmp(), MEMORY, LEFT)?;
    ensure!(swapped("look\n")? > 0, "the balloon has pushed nothing out");
    inflate(fabric.vms()[0].qmp(), LEFT, MEMORY)?;
    // The kernel may keep a page or two that are in use.
    ensure!(swapped("out\n")? > 7_500, "of 8192 pages, the kernel has kept many");
    process.handle().end();
    let output = process.collect(&Limit::new("the check of all bytes", Duration::from_secs(240)))?;
    ensure!(output.status.success(), "{}\n{}", output.status, output.stderr());
    log::info!("{}", output.stdout());
    nothing_left(&fabric, 0)?;
    fabric.stop()
}

/// Has the balloon leave the guest so much memory, which had more or less before.
fn inflate(qmp: &Qmp, before: u64, left: u64) -> Result<()> {
    let limit = Limit::new("the balloon", Duration::from_secs(240));
    let mut mark = qmp.mark();
    qmp.execute("balloon", json!({ "value": left }))?;
    let mut now = before;
    while now != left {
        now = qmp.wait_event("BALLOON_CHANGE", &mut mark, &limit)?.data["actual"]
            .as_u64()
            .context("the event says how much there is")?;
    }
    Ok(())
}

/// Memory is plugged into the machine, twice, and unplugged again: its card sees another memory table each time, in mid-traffic.
/// Registered memory is moved out of what can be unplugged when it is registered, so that it can be.
#[test]
fn a_machine_gets_more_memory_and_loses_it_under_traffic() -> Result<()> {
    const MODULE: u64 = 256 << 20;
    let fabric = fabric("a machine gets more memory and loses it under traffic")
        .memory_mib(1536)
        .qemu_arguments(["-m", "1536M,slots=4,maxmem=4G"])
        .launch()?;
    let total = || -> Result<u64> {
        let text = fabric.run(0, "sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")?;
        text.trim().parse().context(text)
    };
    let before = total()?;
    let qmp = fabric.vms()[0].qmp();
    let wait = |event: &str, is_it: &dyn Fn(&Value) -> bool, mark: &mut Mark| -> Result<()> {
        let limit = Limit::new(format!("the event {event}"), Duration::from_secs(120));
        while !is_it(&qmp.wait_event(event, mark, &limit)?.data) {}
        Ok(())
    };
    fabric.run(0, "echo online_movable > /sys/devices/system/memory/auto_online_blocks")?;
    churn(&fabric, 0, 4, |_| {
        let had = [counter(&fabric, "memory_added")?, counter(&fabric, "memory_removed")?];
        for module in ["first", "second"] {
            let mut mark = qmp.mark();
            let memory = format!("{module}-memory");
            qmp.execute(
                "object-add",
                json!({ "qom-type": "memory-backend-memfd", "id": memory, "size": MODULE, "share": true }),
            )?;
            qmp.execute("device_add", json!({ "driver": "pc-dimm", "id": module, "memdev": memory }))?;
            let in_use = |data: &Value| data["info"]["device"] == module && data["info"]["status"] == 0;
            wait("ACPI_DEVICE_OST", &in_use, &mut mark)?;
        }
        let more = total()?;
        ensure!(more >= before + (400 << 10), "{before} kB of memory became {more} kB");
        // Regions are made from it.
        let_flow(&fabric, 500)?;
        for module in ["second", "first"] {
            let mut mark = qmp.mark();
            qmp.execute("device_del", json!({ "id": module }))?;
            wait("DEVICE_DELETED", &|data| data["device"] == module, &mut mark)?;
            qmp.execute("object-del", json!({ "id": format!("{module}-memory") }))?;
        }
        let added = counter(&fabric, "memory_added")? - had[0];
        let removed = counter(&fabric, "memory_removed")? - had[1];
        let both = 2 * MODULE;
        ensure!(added == both && removed == both, "the card saw {added} bytes come and {removed} go");
        // Regions go on without it.
        let_flow(&fabric, 100)
    })?;
    let after = total()?;
    ensure!(after == before, "{before} kB of memory became {after} kB");
    fabric.stop()
}
