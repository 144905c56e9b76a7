//! The results of a demo for people.

use std::fmt::Write;

use serde_json::Value;

/// The card's counters in the order in which a message meets them, and what they mean.
const COUNTERS: [(&str, &str); 21] = [
    ("connections", "connections made"),
    ("doorbells", "doorbells rung by the guest"),
    ("fifo_high_water", "Out Post FIFO, most contexts at once"),
    ("polls", "looks at token tables"),
    ("batches", "copy operations that found tokens"),
    ("batch_high_water", "most tokens in one copy operation"),
    ("tokens_inline", "tokens with an inline descriptor"),
    ("tokens_indirect", "tokens that refer to a descriptor"),
    ("tokens_command", "tokens with a control command"),
    ("tokens_refused", "tokens refused"),
    ("sleeps", "times the card went to sleep"),
    ("shadow_hits", "registrations found in the shadow MRT"),
    ("shadow_misses", "registrations fetched from the MRT"),
    ("messages_sent", "messages sent"),
    ("bytes_sent", "bytes sent"),
    ("messages_received", "messages received"),
    ("bytes_received", "bytes received"),
    ("completions", "descriptors completed"),
    ("completion_errors", "descriptors completed with an error, flushed ones too"),
    ("mcq_stalls", "stalls for a full MCQ"),
    ("notifications", "notifications"),
];

/// All tables.
pub(super) fn text(document: &Value) -> String {
    let mut text = String::new();
    measurements(&mut text, document);
    cards(&mut text, &document["stats"]);
    text
}

fn measurements(text: &mut String, document: &Value) {
    let results = &document["results"];
    let accelerator = document["accelerator"].as_str().unwrap_or("-").to_uppercase();
    let mut line = |words: String| writeln!(text, "{words}").unwrap_or_default();
    line(format!("Two guests under {accelerator}, one NIC each, joined by the card process' switch."));
    line(match document["wait"].as_str() {
        Some("block") => "The guests sleep until the card notifies them.".to_owned(),
        _ => "The guests look for messages without pause.".to_owned(),
    });
    line(String::new());

    let latency = &results["latency"];
    let checked = if latency["checked"] == true { ", every byte checked" } else { "" };
    line(format!("Latency (half a round trip, {}{checked})", scope(latency)));
    for (key, name) in
        [("min", "least"), ("p50", "median"), ("p90", "90 %"), ("p99", "99 %"), ("max", "most")]
    {
        line(format!("  {name:<8} {:>14} us", decimal(&latency["latency_us"][key])));
    }
    let rate = &results["message_rate"];
    line(format!("Message rate ({})", scope(rate)));
    line(format!("           {:>14} messages/s", whole(&rate["messages_per_second"])));
    let bandwidth = &results["bandwidth"];
    line(format!("Bandwidth ({})", scope(bandwidth)));
    let megabytes = bandwidth["bytes_per_second"].as_f64().map_or(Value::Null, |bytes| (bytes / 1e6).into());
    line(format!("           {:>14} MB/s", decimal(&megabytes)));
    line(String::new());
}

/// How much was measured.
fn scope(result: &Value) -> String {
    format!("{} bytes, {} times", whole(&result["size"]), whole(&result["iterations"]))
}

fn cards(text: &mut String, stats: &Value) {
    let nics = stats["nics"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut line = |name: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>19}")).collect();
        writeln!(text, "{name:<54}{cells}").unwrap_or_default();
    };
    let of_all = |show: &dyn Fn(&Value) -> String| nics.iter().map(show).collect::<Vec<_>>();
    line("What the cards did", of_all(&|nic| nic["address"].as_str().unwrap_or("-").to_owned()));
    for (counter, name) in COUNTERS {
        line(&format!("  {name}"), of_all(&|nic| whole(&nic["counters"][counter])));
    }
    // Counters that this program does not know, if they have counted anything.
    let mut others: Vec<_> = nics
        .iter()
        .filter_map(|nic| nic["counters"].as_object())
        .flatten()
        .filter(|(name, value)| *value != 0 && COUNTERS.iter().all(|(known, _)| known != name))
        .map(|(name, _)| name)
        .collect();
    others.sort();
    others.dedup();
    for name in others {
        line(&format!("  {}", name.replace('_', " ")), of_all(&|nic| whole(&nic["counters"][name])));
    }
}

/// A number with two decimals, or a dash.
fn decimal(value: &Value) -> String {
    value.as_f64().map_or("-".to_owned(), |number| {
        let text = format!("{number:.2}");
        let (whole, rest) = text.split_once('.').unwrap_or((&text, "00"));
        format!("{}.{rest}", grouped(whole))
    })
}

/// A number without decimals, or a dash.
fn whole(value: &Value) -> String {
    match (value.as_u64(), value.as_f64()) {
        (Some(number), _) => grouped(&number.to_string()),
        (None, Some(number)) => grouped(&format!("{number:.0}")),
        (None, None) => "-".to_owned(),
    }
}

/// Digits in groups of three.
fn grouped(digits: &str) -> String {
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for group in digits.as_bytes()[first..].chunks(3) {
        if !text.is_empty() {
            text.push(',');
        }
        text.extend(group.iter().map(|byte| char::from(*byte)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(whole(&json!(1_234_567)), "1,234,567");
        assert_eq!(whole(&json!(999)), "999");
        assert_eq!(whole(&json!(1000.6)), "1,001");
        assert_eq!(whole(&Value::Null), "-");
        assert_eq!(decimal(&json!(1234.567)), "1,234.57");
        assert_eq!(decimal(&json!("fast")), "-");
    }

    #[test]
    fn the_report_has_every_number_and_survives_missing_ones() {
        let document = json!({
            "accelerator": "tcg",
            "results": {
                "latency": { "size": 64, "iterations": 1000, "checked": true, "latency_us": { "p50": 12.5 } },
                "message_rate": { "messages_per_second": 250_000.4 },
                "bandwidth": { "bytes_per_second": 1.5e9 },
            },
            "stats": { "nics": [
                { "address": "02:56:49:41:00:01", "counters": { "doorbells": 17, "later_counter": 3 } },
                { "address": "02:56:49:41:00:02", "counters": { "doorbells": 4, "unused_counter": 0 } },
            ]},
        });
        let text = text(&document);
        for part in [
            "under TCG",
            "64 bytes, 1,000 times, every byte checked",
            "12.50 us",
            "250,000 messages/s",
            "1,500.00 MB/s",
            "02:56:49:41:00:02",
            "later counter",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!text.contains("unused counter"));
        assert!(super::text(&Value::Null).contains("99 %"));
    }
}
