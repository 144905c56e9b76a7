//! Results as a table for people.

use std::fmt::Write as _;

use super::contestant::Quantity;
use super::result::{CaseResult, Gain, Outcome};
use super::statistics::Spread;

/// The table of all cases.
#[must_use]
pub fn text(cases: &[CaseResult]) -> String {
    lines(cases, |_| String::new())
}

/// The same, and with each case how much better the card is than its peers.
#[must_use]
pub fn text_with_gains(cases: &[CaseResult]) -> String {
    lines(cases, |case| {
        case.gains().map(|gain| format!("  {}\n", self::gain(case.quantity, &gain))).collect()
    })
}

/// How much better the card is than a peer.
#[must_use]
pub fn gain(quantity: Quantity, Gain { card, peer, times }: &Gain<'_>) -> String {
    let better = match quantity {
        Quantity::Latency => "lower than the latency",
        Quantity::Rate => "the rate",
        Quantity::Bandwidth => "the bandwidth",
    };
    let [low, median, high] = [times.low, times.median, times.high].map(figure);
    format!("{}: {median} times {better} of {} ({low}-{high} in the rounds)", card.name, peer.name)
}

fn lines(cases: &[CaseResult], after: impl Fn(&CaseResult) -> String) -> String {
    let mut text = String::new();
    for case in cases {
        let (unit, _) = case.quantity.shown();
        let title = title(case);
        let _ = writeln!(
            text,
            "{title:<44} {:>10} {:>17} {:>10} {:>8} {:>13} {:>8}",
            unit, "of rounds", "p99[ns]", "x limit", "of rounds", "samples"
        );
        for outcome in &case.outcomes {
            let _ = writeln!(text, "{}", line(case.quantity, outcome));
        }
        text += &after(case);
        text.push('\n');
    }
    text
}

/// What a case is about.
#[must_use]
pub fn title(case: &CaseResult) -> String {
    format!("{}, {} bytes, window {}", name(case.quantity), case.size, case.window)
}

fn name(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Latency => "Latency",
        Quantity::Rate => "Rate",
        Quantity::Bandwidth => "Bandwidth",
    }
}

fn line(quantity: Quantity, outcome: &Outcome) -> String {
    let (figure, range) = columns(outcome.figure.map(|figure| figure.by(quantity.shown().1)), figure);
    let (ratio, ratios) = columns(outcome.ratio, |ratio| format!("{ratio:.3}"));
    let p99 = outcome.p99_ns.map_or("-".into(), |p99| format!("{p99:.0}"));
    let dropped = if outcome.dropped > 0 { format!(" -{}", outcome.dropped) } else { String::new() };
    format!(
        "  {:<42} {figure:>10} {range:>17} {p99:>10} {ratio:>8} {ratios:>13} {:>8}{dropped}",
        outcome.name, outcome.samples
    )
}

fn columns(spread: Option<Spread>, show: impl Fn(f64) -> String) -> (String, String) {
    spread.map_or(("-".into(), "-".into()), |spread| {
        (show(spread.median), format!("{}-{}", show(spread.low), show(spread.high)))
    })
}

/// A figure with about three digits.
#[must_use]
pub fn figure(figure: f64) -> String {
    let decimals = if figure < 10.0 {
        2
    } else if figure < 100.0 {
        1
    } else {
        0
    };
    format!("{figure:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contestant::Role;

    #[test]
    fn gains_are_told_in_words() {
        let outcome = |name: &str, role, round| Outcome {
            name: name.into(),
            role,
            figure: None,
            ratio: None,
            p99_ns: None,
            rounds: vec![Some(round)],
            samples: 1,
            dropped: 0,
        };
        let outcomes = vec![outcome("card", Role::Card, 50.0), outcome("TCP", Role::Peer, 600.0)];
        let case = CaseResult { quantity: Quantity::Latency, size: 64, window: 1, outcomes };
        let cases = [case];
        let told = "  card: 12.0 times lower than the latency of TCP (12.0-12.0 in the rounds)\n";
        assert!(text_with_gains(&cases).contains(told), "{}", text_with_gains(&cases));
        assert!(!text(&cases).contains("times"));
    }

    #[test]
    fn figures_are_shown_in_the_unit_that_people_read() {
        let outcome = Outcome {
            name: "card".into(),
            role: Role::Card,
            figure: Spread::of([4_000_000.0, 5_250_000.0, 6_000_000.0]),
            ratio: Spread::of([0.1, 0.15]),
            p99_ns: None,
            rounds: vec![],
            samples: 30,
            dropped: 2,
        };
        let case = CaseResult { quantity: Quantity::Rate, size: 64, window: 16, outcomes: vec![outcome] };
        let text = text(&[case]);
        for part in ["Rate, 64 bytes, window 16", "5.25", "4.00-6.00", "0.125", "30 -2", "M/s"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
