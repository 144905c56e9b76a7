//! The page.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use vianic_tools::bench::contestant::Role;
use vianic_tools::bench::result::{CaseResult, Outcome};
use vianic_tools::bench::statistics::Spread;
use vianic_tools::bench::table;

use crate::document::Document;
use crate::scale::{ScaleResult, bytes};

const STYLE: &str = "
body { font: 15px/1.4 sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .15em .7em; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
tr.card { font-weight: bold; } tr.limit, tr.bound { color: #555; }
svg { max-width: 100%; height: auto; }";

/// The page, with the plots in it.
pub(super) fn page(document: &Document, plots: &[String]) -> String {
    let machine = &document.machine;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "vianic: measured" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "vianic, measured" }
                p {
                    (machine.processor) ", " (machine.processors) " processors, Linux " (machine.kernel) ". "
                    "Figures are medians of rounds, with the least and the most; ratios are to the limit that was "
                    "measured in the same round. Method and traps: docs/performance.md."
                }
                @for plot in plots { figure { (PreEscaped(plot)) } }
                (cases("Over the direct link", &document.direct, |_| html! {}))
                @if !document.scale.is_empty() { (scale(&document.scale)) }
                (cases("In two guests", &document.guests, gains))
            }
        }
    }
    .into_string()
}

fn cases(title: &str, cases: &[CaseResult], after: impl Fn(&CaseResult) -> Markup) -> Markup {
    html! {
        @if !cases.is_empty() { h2 { (title) } }
        @for case in cases {
            table {
                tr {
                    th { (table::title(case)) }
                    th { (case.quantity.shown().0) } th { "of rounds" } th { "p99 [ns]" }
                    th { "x limit" } th { "of rounds" } th { "samples" } th { "dropped" }
                }
                @for outcome in &case.outcomes { (row(case, outcome)) }
            }
            (after(case))
        }
    }
}

fn gains(case: &CaseResult) -> Markup {
    html! { ul { @for gain in case.gains() { li { (table::gain(case.quantity, &gain)) } } } }
}

fn row(case: &CaseResult, outcome: &Outcome) -> Markup {
    let class = match outcome.role {
        Role::Limit => "limit",
        Role::Bound => "bound",
        Role::Card => "card",
        Role::Peer => "peer",
    };
    let figure = outcome.figure.map(|figure| figure.by(case.quantity.shown().1));
    html! {
        tr class=(class) {
            td { (outcome.name) }
            (spread(figure, table::figure))
            td { @if let Some(p99) = outcome.p99_ns { (table::figure(p99)) } }
            (spread(outcome.ratio, |ratio| format!("{ratio:.3}")))
            td { (outcome.samples) } td { (outcome.dropped) }
        }
    }
}

fn spread(spread: Option<Spread>, show: impl Fn(f64) -> String) -> Markup {
    html! {
        @match spread {
            Some(spread) => { td { (show(spread.median)) } td { (show(spread.low)) "-" (show(spread.high)) } }
            None => { td { "-" } td { "-" } }
        }
    }
}

fn scale(results: &[ScaleResult]) -> Markup {
    html! {
        h2 { "Beside many objects" }
        table {
            tr {
                th { "objects" } th { "number" } th { "ns" } th { "x limit" } th { "M/s" } th { "x limit" }
                th { "bytes in the card" } th { "in the program" } th { "processor time idle" }
            }
            @for result in results {
                @for (number, point) in result.points.iter().enumerate() {
                    tr {
                        td { (result.object.name()) } td { (point.count) }
                        td { (table::figure(point.latency.figure.median)) }
                        td { (format!("{:.3}", point.latency.ratio.median)) }
                        td { (table::figure(point.rate.figure.median / 1e6)) }
                        td { (format!("{:.3}", point.rate.ratio.median)) }
                        @if number + 1 == result.points.len() {
                            td { (bytes(result.card_bytes)) }
                            td { (bytes(result.application_bytes)) }
                            td { (format!("{:.6} %", result.idle.percent())) }
                        }
                    }
                }
            }
        }
        @for note in results.iter().filter_map(|result| result.object.note()) { p { (note) } }
    }
}
