//! Equals that meet: many at once, between processes over the direct link and between guests.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vianic_tests::vianic::Limit;
use vianic_tests::{CProgram, DirectCards, fabric, install, nothing_left};

const STORM: &str = "256";

#[test]
fn a_storm_over_the_direct_link() -> Result<()> {
    let program = CProgram::for_vipl(&["peers.c"])?;
    let cards = DirectCards::launch("a storm of peers over the direct link", 2)?;
    let start = |nic: usize, other: usize| {
        Command::new(program.path())
            .args([&cards.nic(nic), &cards.address(other), STORM])
            .env("LD_LIBRARY_PATH", program.libraries())
            .stderr(Stdio::piped())
            .spawn()
    };
    let sides = [start(0, 1)?, start(1, 0)?];
    for side in sides {
        let output = side.wait_with_output()?;
        ensure!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    cards.stop()
}

#[test]
fn a_storm_between_two_guests_that_killed_processes_take_no_part_in() -> Result<()> {
    let program = CProgram::for_vipl(&["peers.c"])?;
    let fabric = fabric("a storm of peers between two guests").vms(2).launch()?;
    let limit = || Limit::new("the peers", Duration::from_secs(240));
    let path = install(&fabric, 0, &program)?;
    install(&fabric, 1, &program)?;
    let line = |vm: usize, options: &str| -> Result<String> {
        Ok(format!("exec {path} nic0 {} {STORM} {options}", fabric.address(1 - vm)?))
    };
    for round in 0..2 {
        // Their requests wait in the other guest's card when they die.
        for vm in [round, 1 - round] {
            let victim = fabric.start(vm, &line(vm, "hang")?)?;
            victim.wait_for("asked", &limit())?;
            victim.signal(9);
            victim.collect(&limit())?;
            nothing_left(&fabric, vm)?;
        }
        let sides =
            [fabric.start(round, &line(round, "")?)?, fabric.start(1 - round, &line(1 - round, "")?)?];
        for side in sides {
            let output = side.collect(&limit())?;
            ensure!(output.status.success(), "{}\n{}", output.status, output.stderr());
        }
    }
    for vm in 0..2 {
        nothing_left(&fabric, vm)?;
        let stats = fabric.stats()?;
        let made = stats["nics"][vm]["counters"]["connections"].as_u64().context("no counter")?;
        ensure!(made == 512, "{made} connections at NIC {vm}");
    }
    fabric.stop()
}
