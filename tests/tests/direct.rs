//! The direct link: the tools against the card with no machine between them.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vianic_tests::DirectCards;

fn tool(name: &str) -> Result<PathBuf> {
    vianic_tests::program(name)
}

/// Starts a tool as a server and waits until a client can connect.
fn serve(name: &str, nic: &str, options: &[&str]) -> Result<Child> {
    let mut server = Command::new(tool(name)?)
        .args(["--nic", nic])
        .args(options)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut out = BufReader::new(server.stderr.take().context("piped")?);
    let mut line = String::new();
    while !line.contains("waiting") {
        line.clear();
        ensure!(out.read_line(&mut line)? > 0, "{name} ended before it was ready");
    }
    // The rest is small: it fits into the pipe, or is read when the server has ended.
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    Ok(server)
}

fn run(name: &str, nic: &str, options: &[&str]) -> Result<Output> {
    let output = Command::new(tool(name)?).args(["--nic", nic]).args(options).output()?;
    ensure!(
        output.status.success(),
        "{name} {options:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

#[test]
fn a_hundred_thousand_mixed_messages() -> Result<()> {
    let cards = DirectCards::launch("direct link mixed", 2)?;
    let (a, b) = (cards.nic(0), cards.nic(1));
    let mut server = serve("vip-bw", &b, &[])?;
    run("vip-bw", &a, &[&cards.address(1), "--mixed", "50000", "--check"])?;
    ensure!(server.wait()?.success());
    run("vip-bw", &a, &["--self", "--mixed", "50000", "--check"])?;
    for options in [
        &["--all", "--iterations", "30", "--check"][..],
        &["--size", "100", "--iterations", "2000", "--wait", "block", "--check"],
        &["--size", "4000", "--iterations", "2000", "--cq", "--reliability", "reception", "--check"],
        &["--size", "4000", "--iterations", "2000", "--cq", "--wait", "block", "--reliability", "unreliable"],
    ] {
        run("vip-pingpong", &a, &[&["--self"], options].concat())?;
    }
    cards.stop()
}

#[test]
fn a_killed_process_leaves_its_peer_an_error_and_the_card_at_work() -> Result<()> {
    let cards = DirectCards::launch("direct link kill", 2)?;
    let (a, b) = (cards.nic(0), cards.nic(1));
    for kill_server in [true, false] {
        let mut server = serve("vip-bw", &b, &[])?;
        let mut client = Command::new(tool("vip-bw")?)
            .args(["--nic", &a, &cards.address(1), "--iterations", "1000000000"])
            .stderr(Stdio::piped())
            .spawn()?;
        cards.wait_for_counter(1, "messages_received", 1000)?;
        let survivor = if kill_server {
            server.kill()?;
            server.wait()?;
            client
        } else {
            client.kill()?;
            client.wait()?;
            server
        };
        let output = survivor.wait_with_output()?;
        ensure!(!output.status.success(), "it ended well though its peer was killed");
        run("vip-pingpong", &a, &["--self", "--iterations", "100", "--check"])?;
        run("vip-pingpong", &b, &["--self", "--iterations", "100", "--check"])?;
    }
    cards.stop()
}

/// A fault plan that is switched on and off while the card runs.
#[test]
fn a_link_with_faults_breaks_reliable_connections() -> Result<()> {
    let cards = DirectCards::launch("direct link faults", 1)?;
    let nic = cards.nic(0);
    let options = ["--self", "--iterations", "200", "--check"];
    run("vip-pingpong", &nic, &options)?;
    let struck = |kind: &str| -> Result<u64> {
        cards.card()?.faults()?["nics"][0]["faults"][kind].as_u64().with_context(|| format!("no {kind}"))
    };
    for (plan, kind) in
        [("drop=next:1", "dropped"), ("seed=4,corrupt=0.05", "corrupted"), ("break=1", "broken")]
    {
        cards.card()?.set_faults(plan)?;
        let output = Command::new(tool("vip-pingpong")?).args(["--nic", &nic]).args(options).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        // Which side hears of it first, and in what words, is open.
        ensure!(output.status.code() == Some(1), "{plan}: {said}");
        ensure!(struck(kind)? > 0, "{plan}");
    }
    ensure!(cards.card()?.set_faults("drop=7").is_err(), "a plan that cannot be is refused");
    cards.card()?.set_faults("off")?;
    run("vip-pingpong", &nic, &options)?;
    cards.stop()
}

#[test]
fn a_card_that_dies_ends_every_wait() -> Result<()> {
    let mut cards = DirectCards::launch("direct link card dies", 1)?;
    let server = serve("vip-pingpong", &cards.nic(0), &[])?;
    cards.kill()?;
    let output = server.wait_with_output()?;
    ensure!(!output.status.success(), "the server did not notice that its card is gone");
    Ok(())
}

#[test]
fn what_a_user_gets_wrong_is_said() -> Result<()> {
    let cards = DirectCards::launch("direct link errors", 1)?;
    let nic = cards.nic(0);
    let cases: [(&str, &[&str], &str); 4] = [
        ("direct:/nonexistent/card.sock", &["--self"], "/nonexistent/card.sock"),
        (&nic, &["02:00:00:00:00:99", "--connect-timeout", "1s"], "no nic has that address"),
        (&nic, &["self", "--connect-timeout", "1s"], "nobody"),
        (&nic, &["--self", "--size", "99999999"], "99999999"),
    ];
    for (nic, options, expected) in cases {
        let output = Command::new(tool("vip-pingpong")?).args(["--nic", nic]).args(options).output()?;
        let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
        ensure!(
            output.status.code() == Some(1) || output.status.code() == Some(2),
            "{options:?}: {}",
            output.status
        );
        ensure!(said.contains(expected), "{options:?} does not mention {expected}: {said}");
    }
    let info = run("vip-info", &nic, &["--counters"])?;
    ensure!(String::from_utf8_lossy(&info.stdout).contains("02:56:49:41:00:01"));
    cards.stop()
}

#[test]
fn the_examples_run() -> Result<()> {
    let cards = DirectCards::launch("the examples", 1)?;
    for (name, says) in [
        ("ping_pong", "1000 round trips"),
        ("rdma", "65536 bytes written, 65536 read back"),
        ("completion_queue", "8 messages from 8 VIs"),
    ] {
        let output = Command::new(vianic_tests::example(name)?).arg(cards.nic(0)).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && said.contains(says),
            "{name}: {}\n{said}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    cards.stop()
}

#[test]
fn a_short_run_of_every_benchmark_has_a_report() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let device = vianic_tests::program("vianic-device")?;
    let output = Command::new(vianic_tests::program("vianic")?)
        .args([
            "bench",
            "--rounds",
            "1",
            "--samples",
            "1",
            "--patience",
            "0",
            "--most",
            "16",
            "--json",
            "--report",
        ])
        .arg(folder.path())
        .arg("--device")
        .arg(device)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: Value = serde_json::from_slice(&output.stdout)?;
    let cases = results["direct"].as_array().context("cases")?;
    for quantity in ["latency", "rate", "bandwidth"] {
        let case = cases.iter().find(|case| case["quantity"] == quantity).context("a case")?;
        let outcomes = case["outcomes"].as_array().context("outcomes")?;
        let card = outcomes.iter().find(|outcome| outcome["role"] == "card").context("the card")?;
        ensure!(card["ratio"]["median"].as_f64().is_some_and(|ratio| ratio > 0.0), "{card}");
    }
    let scale = results["scale"].as_array().context("scale")?;
    let objects: Vec<_> = scale.iter().filter_map(|result| result["object"].as_str()).collect();
    assert_eq!(objects, ["vis", "contexts", "nics", "regions"]);
    ensure!(scale.iter().all(|result| result["points"].as_array().is_some_and(|points| !points.is_empty())));
    for file in ["report.html", "results.json", "latency.svg", "rate.svg", "bandwidth.svg", "scale.svg"] {
        ensure!(folder.path().join(file).exists(), "{file} is missing");
    }
    Ok(())
}
