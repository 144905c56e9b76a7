//! `vianic bench` between guests, with the least effort: that everything is measured, not how good it is.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vianic_tests::program;

/// What must be measured in each case.
const WAYS: [(&str, &[&str]); 2] = [
    ("latency", &["card, polling", "card, blocking", "TCP over virtio-net", "UDP over virtio-net"]),
    ("bandwidth", &["card, polling", "card, blocking", "TCP over virtio-net"]),
];

#[test]
fn cards_and_sockets_are_measured_in_the_same_guests() -> Result<()> {
    let report = tempfile::tempdir()?;
    let output = Command::new(program("vianic")?)
        .args([
            "bench",
            "latency",
            "bandwidth",
            // Over the direct link before: that pins this process, which guests must not inherit.
            "--all",
            "--cpus",
            "1",
            "--rounds",
            "1",
            "--samples",
            "1",
            "--patience",
            "0",
            "--json",
            "--size",
            "4096",
        ])
        .arg("--device")
        .arg(program("vianic-device")?)
        .arg("--report")
        .arg(report.path())
        .output()?;
    ensure!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(document["direct"].as_array().map(Vec::len), Some(WAYS.len()), "{document:#}");
    let cases = document["guests"].as_array().context("no cases")?;
    assert_eq!(cases.len(), WAYS.len(), "{document:#}");
    for (case, (quantity, ways)) in cases.iter().zip(WAYS) {
        assert_eq!(case["quantity"], quantity);
        assert_eq!(case["size"], 4096);
        let outcome = |name: &str| {
            let outcomes = case["outcomes"].as_array().context("no outcomes")?;
            outcomes
                .iter()
                .find(|outcome| outcome["name"] == name)
                .with_context(|| format!("no {name}: {case}"))
        };
        for way in ways {
            let figure = |key: &str| -> Result<f64> {
                outcome(way)?[key]["median"].as_f64().with_context(|| format!("{way} has no {key}: {case}"))
            };
            ensure!(figure("figure")? > 0.0 && figure("ratio")? > 0.0, "{way}: {case}");
            if quantity == "latency" {
                outcome(way)?["p99_ns"].as_f64().with_context(|| format!("{way} has no p99: {case}"))?;
            }
        }
    }
    let page = std::fs::read_to_string(report.path().join("report.html"))?;
    for part in ["card, blocking", "times lower than the latency of TCP", "times the bandwidth of TCP"] {
        ensure!(page.contains(part), "the report does not say {part:?}");
    }
    Ok(())
}
