//! The conformance suite in its settings: both roles on one NIC, on two NICs, and in two guests.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use vianic_tests::vianic::Limit;
use vianic_tests::{CProgram, DirectCards, Report, fabric, install, nothing_left};

/// Tests that this provider must skip, wherever they run: it reads by RDMA.
const SKIPPED: [&str; 2] =
    ["rdma/a_read_where_there_is_none_fails/delivery", "rdma/a_read_where_there_is_none_fails/reception"];

/// No test has failed, and none was skipped that could have been made.
fn judge(report: &str) -> Result<()> {
    let report = Report::read(report)?;
    for (name, why) in report.skipped {
        ensure!(SKIPPED.contains(&name.as_str()), "{name} was skipped: {why}");
    }
    Ok(())
}

/// Guests are slow: fewer connections there than natively.
const IN_GUESTS: &str = "--strict --cycles 350";

/// Runs the suite over the direct link, on all NICs of a card process.
fn run(suite: &CProgram, cards: &DirectCards, options: &[&str]) -> Result<()> {
    let output = Command::new(suite.path())
        .args(cards.nics())
        .arg("--strict")
        .args(options)
        .env("LD_LIBRARY_PATH", suite.libraries())
        .output()?;
    judge(&String::from_utf8_lossy(&output.stdout))?;
    ensure!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn over_the_direct_link(test: &'static str, nics: u16, options: &[&str]) -> Result<()> {
    let suite = CProgram::conformance_suite()?;
    let cards = DirectCards::launch(test, nics)?;
    run(&suite, &cards, options)?;
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
fn links_with_faults() -> Result<()> {
    let suite = CProgram::conformance_suite()?;
    let cards = DirectCards::launch("conformance with faults", 2)?;
    for fault in ["drop", "corrupt", "break"] {
        cards.card()?.set_faults(&format!("{fault}=1"))?;
        run(&suite, &cards, &["--link", fault])?;
    }
    cards.card()?.set_faults("off")?;
    cards.set_faults_of(1, "drop=1")?;
    run(&suite, &cards, &["--link", "answer"])?;
    cards.card()?.set_faults("off")?;
    // Over the direct link a NIC's driver is the program that has it open.
    run(&suite, &cards, &["--link", "absent"])?;
    cards.stop()
}

/// Each test of a failure kills its card.
#[test]
fn nics_that_fail() -> Result<()> {
    let suite = CProgram::conformance_suite()?;
    let list = suite.list()?;
    let mut tests = vec![];
    for line in list.lines() {
        if let [name, _, levels, _, "fail", _] = line.split('\t').collect::<Vec<_>>()[..] {
            match levels {
                "once" => tests.push(name.to_owned()),
                _ => tests
                    .extend(["unreliable", "delivery", "reception"].map(|level| format!("{name}/{level}"))),
            }
        }
    }
    ensure!(!tests.is_empty(), "no tests of failures in\n{list}");
    for test in tests {
        let cards = DirectCards::launch("conformance of a NIC that fails", 1)?;
        let kill = format!("kill -9 {}", cards.card()?.pid());
        run(&suite, &cards, &["--only", &test, "--fail", &kill])?;
    }
    Ok(())
}

/// What the card holds for connections that are over: nothing.
#[test]
fn connections_leave_nothing_in_the_card() -> Result<()> {
    let suite = CProgram::conformance_suite()?;
    let cards = DirectCards::launch("what connections leave in the card", 2)?;
    let mut footprints = vec![];
    for _ in 0..2 {
        run(&suite, &cards, &["--only", "scale/", "--cycles", "1000"])?;
        footprints.push(cards.footprint()?);
    }
    let [before, after] = footprints[..] else { bail!("two runs") };
    ensure!(after.files == before.files, "{before:?}, then {after:?}");
    ensure!(after.memory <= before.memory + MAX_GROWTH, "{before:?}, then {after:?}");
    cards.stop()
}

/// Bytes by which the memory of a process may grow with use: what allocators keep.
const MAX_GROWTH: u64 = 1 << 20;

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
