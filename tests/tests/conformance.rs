//! The conformance suite in its settings: both roles on one NIC, on two NICs, and in two guests.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use vianic_tests::vianic::Limit;
use vianic_tests::{CProgram, DirectCards, Report, fabric, install, nothing_left};

/// Tests that this provider must skip, wherever they run: those of RDMA read at the level that has none, and the one that
/// is for NICs without it.
const SKIPPED: [&str; 6] = [
    "rdma/a_read_fetches_its_bytes_and_no_others/unreliable",
    "rdma/a_read_scatters/unreliable",
    "rdma/the_owner_decides_who_reads/unreliable",
    "rdma/a_fence_waits_for_reads/unreliable",
    "rdma/a_read_where_there_is_none_fails/delivery",
    "rdma/a_read_where_there_is_none_fails/reception",
];

/// No test has failed, and none was skipped that could have been made.
fn judge(report: &str) -> Result<()> {
    let report = Report::read(report)?;
    for (name, why) in report.skipped {
        ensure!(SKIPPED.contains(&name.as_str()), "{name} was skipped: {why}");
    }
    Ok(())
}

/// Guests are slow: fewer connections there than natively.
const IN_GUESTS: &str = "--cycles 350";

fn over_the_direct_link(test: &'static str, nics: u16, options: &[&str]) -> Result<()> {
    let suite = CProgram::conformance_suite()?;
    let cards = DirectCards::launch(test, nics)?;
    let output = Command::new(suite.path())
        .args((0..usize::from(nics)).map(|nic| cards.nic(nic)))
        .args(options)
        .env("LD_LIBRARY_PATH", suite.libraries())
        .output()?;
    judge(&String::from_utf8_lossy(&output.stdout))?;
    ensure!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    cards.stop()
}

#[test]
fn one_nic_over_the_direct_link() -> Result<()> {
    over_the_direct_link("conformance on one NIC", 1, &[])
}

#[test]
fn two_nics_over_the_direct_link() -> Result<()> {
    // Registering until there is no more room takes long, and knows no second NIC.
    over_the_direct_link("conformance on two NICs", 2, &["--skip", "regions_can_be_exhausted"])
}

#[test]
fn one_guest() -> Result<()> {
    let suite = CProgram::conformance_suite()?;
    let fabric = fabric("conformance in a guest").launch()?;
    let path = install(&fabric, 0, &suite)?;
    let output = fabric.start(0, &format!("exec {path} {IN_GUESTS} VINIC0"))?.collect(&limit())?;
    judge(&output.stdout())?;
    ensure!(output.status.success(), "{}\n{}", output.status, output.stderr());
    nothing_left(&fabric, 0)?;
    fabric.stop()
}

#[test]
fn two_guests() -> Result<()> {
    let suite = CProgram::conformance_suite()?;
    let fabric = fabric("conformance between guests").vms(2).launch()?;
    let mut path = "";
    for vm in 0..2 {
        path = install(&fabric, vm, &suite)?;
    }
    let server = fabric.start(1, &format!("exec {path} --serve VINIC0"))?;
    server.wait_for("waiting", &limit())?;
    let output = fabric
        .start(0, &format!("exec {path} {IN_GUESTS} --peer {} VINIC0", fabric.address(1)?))?
        .collect(&limit())?;
    judge(&output.stdout())?;
    ensure!(output.status.success(), "{}\n{}", output.status, output.stderr());
    let served = server.collect(&limit())?;
    ensure!(served.status.success(), "{}\n{}", served.status, served.stderr());
    for vm in 0..2 {
        nothing_left(&fabric, vm)?;
    }
    fabric.stop()
}

fn limit() -> Limit {
    Limit::new("the suite", Duration::from_secs(600))
}
