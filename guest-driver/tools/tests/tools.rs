//! The tools as users run them, with real cards.

mod support;

use std::process::{Command, Output, Stdio};
use std::time::Instant;

use serde_json::Value;
use support::{Cards, LIMIT};

fn tool(name: &str) -> Command {
    let path = match name {
        "vip-info" => env!("CARGO_BIN_EXE_vip-info"),
        "vip-pingpong" => env!("CARGO_BIN_EXE_vip-pingpong"),
        "vip-bw" => env!("CARGO_BIN_EXE_vip-bw"),
        "vip-bench" => env!("CARGO_BIN_EXE_vip-bench"),
        "vip-memory" => env!("CARGO_BIN_EXE_vip-memory"),
        other => panic!("no tool {other}"),
    };
    let mut command = Command::new(path);
    for variable in ["VIANIC_NIC", "VIANIC_HOSTS", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[track_caller]
fn run(name: &str, arguments: &[&str]) -> Output {
    tool(name).args(arguments).output().expect("it runs")
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A server on card 1 and a client on card 0; gives what the client prints.
fn between_cards(name: &str, server: &[&str], client: &[&str]) -> String {
    let cards = Cards::start(2);
    let server = tool(name)
        .args(["-d", &cards.name(1)])
        .args(server)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let address = "02:00:00:00:00:02";
    let client = tool(name).args([address, "-d", &cards.name(0)]).args(client).output().expect("it runs");
    let served = server.wait_with_output().expect("it ends");
    let text = succeeds(&client);
    succeeds(&served);
    assert!(String::from_utf8_lossy(&served.stderr).contains("waiting"));
    text
}

#[test]
fn info_shows_attributes_and_counters() {
    let cards = Cards::start(1);
    let text = succeeds(&run("vip-info", &[&cards.name(0), "--counters"]));
    assert!(text.contains("02:00:00:00:00:01") && text.contains("tokens_command:"), "{text}");
    let json: Value =
        serde_json::from_str(&succeeds(&run("vip-info", &["-d", &cards.name(0), "--json", "-c"])))
            .expect("JSON");
    assert_eq!(json[0]["address"], "02:00:00:00:00:01");
    assert_eq!(json[0]["link"], "up");
    assert_eq!(json[0]["max_transfer_size"], 1 << 20);
    assert!(json[0]["counters"]["connections"].is_u64());
}

#[test]
fn info_finds_the_nics_that_the_environment_names() {
    let cards = Cards::start(2);
    let names = format!("{},{}", cards.name(1), cards.name(0));
    let output = tool("vip-info").arg("--json").env("VIANIC_NIC", names).output().expect("it runs");
    let json: Value = serde_json::from_str(&succeeds(&output)).expect("JSON");
    let addresses: Vec<&Value> =
        json.as_array().expect("an array").iter().map(|nic| &nic["address"]).collect();
    assert_eq!(addresses, ["02:00:00:00:00:02", "02:00:00:00:00:01"]);
}

#[test]
fn pingpong_between_cards() {
    let text = between_cards("vip-pingpong", &["--json"], &["--json", "-n", "50", "-s", "1000", "--check"]);
    let [result] = &json_lines(&text)[..] else { panic!("one line: {text}") };
    assert_eq!((&result["tool"], &result["size"]), (&Value::from("vip-pingpong"), &Value::from(1000)));
    assert_eq!((&result["iterations"], &result["checked"]), (&Value::from(50), &Value::from(true)));
    let latency = |name: &str| result["latency_us"][name].as_f64().expect("a number");
    assert!(latency("min") > 0.0 && latency("min") <= latency("p50") && latency("p99") <= latency("max"));
}

#[test]
fn pingpong_on_one_nic_in_all_ways_of_waiting() {
    let cards = Cards::start(1);
    let nic = cards.name(0);
    for options in
        [&[][..], &["--cq"], &["--wait", "block"], &["--wait", "block", "--cq"], &["-r", "reception"]]
    {
        let arguments = [&["--self", "-d", &nic, "-n", "20", "--check", "--json", "--all"], options].concat();
        let results = json_lines(&succeeds(&run("vip-pingpong", &arguments)));
        assert_eq!(results.len(), 22, "{options:?}");
        assert_eq!((&results[0]["size"], &results[21]["size"]), (&Value::from(0), &Value::from(1 << 20)));
    }
}

#[test]
fn pingpong_by_rdma() {
    for rdma in ["write", "read"] {
        for options in [&[][..], &["--cq", "-r", "reception"], &["--wait", "block"]] {
            let arguments = [&["--json", "--all", "-n", "20", "--check", "--rdma", rdma], options].concat();
            let results = json_lines(&between_cards("vip-pingpong", &[], &arguments));
            assert_eq!(results.len(), 22, "{rdma} {options:?}");
            for result in results {
                assert_eq!((&result["rdma"], &result["checked"]), (&Value::from(rdma), &Value::from(true)));
            }
        }
    }
    let cards = Cards::start(1);
    let unreliable = |rdma| {
        ["--self", "-d", &cards.name(0), "-r", "unreliable", "-n", "20", "--rdma", rdma].map(str::to_owned)
    };
    succeeds(&tool("vip-pingpong").args(unreliable("write")).output().expect("it runs"));
    let refused = tool("vip-pingpong").args(unreliable("read")).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no RDMA read"));
}

#[test]
fn a_client_finds_its_server_by_name() {
    let cards = Cards::start(2);
    let hosts = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&hosts, "# the cards\n02:00:00:00:00:02 server.test server\n").expect("written");
    let server = tool("vip-pingpong").args(["-d", &cards.name(1)]).spawn().expect("it runs");
    let client = tool("vip-pingpong")
        .args(["server", "-d", &cards.name(0), "-n", "10", "--check"])
        .env("VIANIC_HOSTS", hosts.path())
        .output()
        .expect("it runs");
    succeeds(&client);
    assert!(server.wait_with_output().expect("it ends").status.success());
    assert!(cards.counters(1).messages_received >= 10);
}

#[test]
fn bandwidth_between_cards() {
    let text = between_cards("vip-bw", &[], &["--json", "-n", "500", "--check"]);
    let [result] = &json_lines(&text)[..] else { panic!("one line: {text}") };
    assert_eq!((&result["size"], &result["iterations"]), (&Value::from(65536), &Value::from(500)));
    assert_eq!(result["bytes"], 500 * 65536);
    assert!(result["bytes_per_second"].as_f64().expect("a number") > 0.0);
    assert!(result["messages_per_second"].as_f64().expect("a number") > 0.0);
}

#[test]
fn bandwidth_of_all_sizes_both_ways() {
    let text =
        between_cards("vip-bw", &["--wait", "block"], &["-a", "-b", "-n", "40", "--json", "--cq", "--check"]);
    let results = json_lines(&text);
    assert_eq!(results.len(), 21);
    assert!(results.iter().all(|result| result["messages"] == 80 && result["bidirectional"] == true));
}

#[test]
fn mixed_sizes_on_one_nic() {
    let cards = Cards::start(1);
    for window in ["1", "3", "256"] {
        let arguments =
            ["--self", "-d", &cards.name(0), "--mixed", "300", "--json", "--seed", "7", "-w", window];
        let [result] = &json_lines(&succeeds(&run("vip-bw", &arguments)))[..] else { panic!("one line") };
        assert_eq!((&result["messages"], &result["checked"]), (&Value::from(600), &Value::from(true)));
        assert_eq!(result["size"], "0-1048576");
    }
}

#[test]
fn a_table_for_people() {
    let cards = Cards::start(1);
    let text = succeeds(&run("vip-bw", &["--self", "-d", &cards.name(0), "-n", "10", "-s", "0"]));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains("messages/s") && lines[1].trim_start().starts_with('0'), "{text}");
}

#[test]
fn failures_exit_with_1_and_say_why() {
    let cards = Cards::start(1);
    let nic = cards.name(0);
    let cases: [(&str, &[&str], &str); 6] = [
        ("vip-info", &["direct:/nonexistent"], "no such NIC"),
        ("vip-pingpong", &["self", "-d", &nic, "--connect-timeout", "1s"], "nobody waits"),
        ("vip-bw", &["02:00:00:00:00:77", "-d", &nic], "no NIC has that address"),
        ("vip-bw", &["no.such.nic", "-d", &nic], "no.such.nic is neither an address"),
        ("vip-pingpong", &["--self", "-d", &nic, "-s", "2000000"], "maximum of 1048576"),
        ("vip-bw", &["-d", "direct:/nonexistent"], "no such NIC"),
    ];
    for (name, arguments, message) in cases {
        let output = run(name, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name} {arguments:?}: {stderr}");
        assert!(stderr.contains(message), "{name} {arguments:?}: {stderr}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let cases: [(&str, &[&str]); 7] = [
        ("vip-info", &["--nonsense"]),
        ("vip-pingpong", &["self", "--self"]),
        ("vip-pingpong", &["-n", "0"]),
        ("vip-pingpong", &["-a", "-s", "5"]),
        ("vip-bw", &["--mixed", "10", "-a"]),
        ("vip-bw", &["-w", "257"]),
        ("vip-bw", &["-p", ""]),
    ];
    for (name, arguments) in cases {
        assert_eq!(run(name, arguments).status.code(), Some(2), "{name} {arguments:?}");
    }
}

#[test]
fn a_server_whose_client_dies_says_so() {
    let cards = Cards::start(2);
    let server =
        tool("vip-pingpong").args(["-d", &cards.name(1)]).stderr(Stdio::piped()).spawn().expect("it runs");
    let client = ["02:00:00:00:00:02", "-d", &cards.name(0), "-n", "1000000000"];
    let mut client = tool("vip-pingpong").args(client).spawn().expect("it runs");
    let deadline = Instant::now() + LIMIT;
    while cards.counters(1).messages_sent < 10 {
        assert!(Instant::now() < deadline, "no exchange");
        std::thread::yield_now();
    }
    client.kill().expect("it ran");
    client.wait().expect("it ends");
    let output = server.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("the peer has gone"), "{stderr}");
}

#[test]
fn the_benchmarks_measure_the_card_beside_its_limit() {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores < 2 {
        return;
    }
    let cards = Cards::start(1);
    for (benchmark, quantity, with_singles) in
        [("latency", "latency", true), ("rate", "rate", false), ("bandwidth", "bandwidth", false)]
    {
        let arguments = [
            benchmark,
            "-d",
            &cards.name(0),
            "-s",
            "64",
            "--rounds",
            "2",
            "--samples",
            "2",
            "--patience",
            "0",
            "--json",
        ];
        let [result] = &json_lines(&succeeds(&run("vip-bench", &arguments)))[..] else { panic!("one line") };
        let [case] = &result.as_array().expect("cases")[..] else { panic!("one case: {result}") };
        assert_eq!((&case["quantity"], &case["size"]), (&Value::from(quantity), &Value::from(64)));
        let outcomes = case["outcomes"].as_array().expect("outcomes");
        let of =
            |role: &str| outcomes.iter().find(|outcome| outcome["role"] == role).expect("one of that role");
        assert_eq!(of("limit")["ratio"]["median"], 1.0);
        assert!(of("card")["ratio"]["median"].as_f64().expect("a number") > 0.0);
        assert_eq!(of("card")["p99_ns"].is_number(), with_singles);
        for outcome in outcomes {
            let samples = ["samples", "dropped"].map(|count| outcome[count].as_u64().expect("a count"));
            assert_eq!(samples.iter().sum::<u64>(), 4, "{outcome}");
        }
    }
}

#[test]
fn the_cost_of_memory_is_measured_beside_other_regions() {
    let cards = Cards::start(1);
    let arguments = ["-d", &cards.name(0), "--live", "1,100", "--samples", "20", "--json"];
    let reports = json_lines(&succeeds(&run("vip-memory", &arguments)));
    assert_eq!(reports.iter().map(|report| &report["live"]).collect::<Vec<_>>(), [1, 100]);
    for report in &reports {
        for what in ["register_ns", "deregister_ns", "post_hit_ns", "post_miss_ns"] {
            assert!(report[what]["median"].as_u64().expect("a time") > 0, "{what}: {report}");
        }
    }
    // Every sample's region was a miss, and a hit.
    let counters = cards.counters(0);
    assert!(counters.shadow_misses >= 2 * (20 + 50) && counters.shadow_hits > counters.shadow_misses);
}
