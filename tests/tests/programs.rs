//! C programs: the Kernel Agent's calls without VIPL, and VIPL as old programs use it.

use std::process::Command;

use anyhow::{Result, ensure};
use vianic_tests::{CProgram, DirectCards, Report, fabric, install, nothing_left};

#[test]
fn fault_41_the_kernel_agents_calls() -> Result<()> {
    let program = CProgram::for_kernel_agent(&[
        "kernel_agent.c",
        "kernel_agent_attributes.c",
        "kernel_agent_calls.c",
        "kernel_agent_connections.c",
        "kernel_agent_memory.c",
        "kernel_agent_peers.c",
        "kernel_agent_processes.c",
        "tap.c",
    ])?;
    let fabric = fabric("the kernel agent's calls").launch()?;
    let path = install(&fabric, 0, &program)?;
    let output = fabric.try_run(0, path)?;
    // With what it skipped.
    log::info!("{}", output.stdout());
    Report::read(&output.stdout())?;
    ensure!(output.status.success(), "{}\n{}{}", output.status, output.stdout(), output.stderr());
    nothing_left(&fabric, 0)?;
    fabric.run(0, "vip-pingpong --self --iterations 100 --check && rmmod vianic")?;
    fabric.stop()
}

#[test]
fn an_old_style_program_runs_over_the_direct_link() -> Result<()> {
    let program = CProgram::for_vipl(&["old_style.c"])?;
    let cards = DirectCards::launch("old-style program over the direct link", 1)?;
    let output = Command::new(program.path())
        .arg(cards.nic(0))
        .env("LD_LIBRARY_PATH", program.libraries())
        .output()?;
    ensure!(
        output.status.success(),
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    cards.stop()
}

#[test]
fn an_old_style_program_runs_in_a_guest() -> Result<()> {
    let program = CProgram::for_vipl(&["old_style.c"])?;
    let fabric = fabric("old-style program in a guest").memory_mib(512).launch()?;
    let path = install(&fabric, 0, &program)?;
    fabric.run(0, &format!("{path} VINIC0"))?;
    nothing_left(&fabric, 0)?;
    fabric.stop()
}

#[test]
fn a_child_over_the_direct_link_has_no_right_to_its_parents_nic() -> Result<()> {
    let program = CProgram::for_vipl(&["fork.c"])?;
    let cards = DirectCards::launch("a child over the direct link", 3)?;
    // Such a card serves one process.
    let output = Command::new(program.path())
        .args([cards.nic(0), cards.nic(1), cards.nic(2)])
        .env("LD_LIBRARY_PATH", program.libraries())
        .output()?;
    ensure!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    cards.stop()
}

#[test]
fn a_child_in_a_guest_has_no_right_to_its_parents_nic() -> Result<()> {
    let program = CProgram::for_vipl(&["fork.c"])?;
    let fabric = fabric("a child in a guest").memory_mib(512).launch()?;
    let path = install(&fabric, 0, &program)?;
    fabric.run(0, &format!("{path} nic0 nic0 nic0"))?;
    nothing_left(&fabric, 0)?;
    fabric.stop()
}
