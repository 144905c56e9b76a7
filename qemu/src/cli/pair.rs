//! A tool in two guests: its server in the second one, its client in the first.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use vianic::Limit;
use vianic::agent::ExecOptions;
use vianic::fabric::Fabric;

/// How long a client may take.
const CLIENT_LIMIT: Duration = Duration::from_secs(300);
/// How long a server may take until it waits for its client, and to end after it.
const SERVER_LIMIT: Duration = Duration::from_secs(60);

/// Runs both sides of a tool, which wait in the given way, and gives the JSON object that the client printed.
pub(super) fn run(fabric: &Fabric, tool: &str, wait: &str, client_options: &[String]) -> Result<Value> {
    let [first, second] = fabric.vms() else { bail!("a pair has two guests") };
    let [address] = fabric.addresses(1) else { bail!("each guest of a pair has one NIC") };
    let server = second.spawn(&[tool, "--json", "--wait", wait], &ExecOptions::default())?;
    let limit = Limit::new(format!("{:?} to wait for its client", server.name()), SERVER_LIMIT);
    second.explain(server.wait_for("waiting", &limit))?;
    let mut client = vec![tool.to_owned(), address.to_string()];
    client.extend(["--json", "--wait", wait].map(str::to_owned));
    client.extend_from_slice(client_options);
    let client = first.exec(&client, &client_limit())?;
    if !client.status.success() {
        let server = server.collect(&Limit::new("the server", Duration::from_secs(2)));
        let server = server.map_or_else(|error| error.to_string(), |output| output.stderr());
        bail!("{tool} failed ({}): {}\nits server: {server}", client.status, client.stderr().trim_end());
    }
    let limit = Limit::new(format!("the server of {tool} to end"), SERVER_LIMIT);
    let ended = second.explain(server.collect(&limit))?;
    ensure!(ended.status.success(), "the server of {tool} failed ({}): {}", ended.status, ended.stderr());
    result(&client.stdout()).with_context(|| format!("{tool} printed {:?}", client.stdout()))
}

/// How a client runs.
pub(super) fn client_limit() -> ExecOptions {
    ExecOptions { limit: CLIENT_LIMIT, ..ExecOptions::default() }
}

/// The JSON object in a tool's output, whatever else it printed.
pub(super) fn result(output: &str) -> Result<Value> {
    let start = output.find('{').context("no JSON object")?;
    let mut documents = serde_json::Deserializer::from_str(&output[start..]).into_iter();
    documents.next().context("no JSON object")?.context("not a JSON object")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_found_among_other_output() {
        assert_eq!(result("connected\n{\"size\": 64}\nbye {\n").unwrap()["size"], 64);
        assert!(result("connected").is_err());
        assert!(result("{\"size\": ").is_err());
    }
}
