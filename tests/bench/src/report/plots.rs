//! What is plotted.

use vianic_tools::bench::contestant::{Quantity, Role};
use vianic_tools::bench::result::CaseResult;

use super::plot::{Axis, Line, Plot};
use crate::document::Document;
use crate::scale::ScaleResult;

/// The plots of a run, each with the name of its file.
pub(super) fn of(document: &Document) -> Vec<(&'static str, Plot)> {
    let bytes = Axis { title: "bytes of a message", show: count };
    let by_size = |case: &CaseResult| case.size;
    let [direct, guests] = [&document.direct, &document.guests];
    let mut plots = vec![
        (
            "latency",
            cases("One message at a time, over the direct link", direct, Quantity::Latency, bytes, by_size),
        ),
        (
            "rate",
            cases(
                "Messages of 64 bytes, over the direct link",
                direct,
                Quantity::Rate,
                Axis { title: "messages under way", show: count },
                |case| case.window,
            ),
        ),
        (
            "bandwidth",
            cases("Many messages at once, over the direct link", direct, Quantity::Bandwidth, bytes, by_size),
        ),
        ("scale", scale(&document.scale)),
        (
            "guests-latency",
            cases(
                "One message at a time, there and back between guests",
                guests,
                Quantity::Latency,
                bytes,
                by_size,
            ),
        ),
        (
            "guests-bandwidth",
            cases("Many messages at once, between guests", guests, Quantity::Bandwidth, bytes, by_size),
        ),
    ];
    plots.retain(|(_, plot)| plot.lines.iter().any(|line| !line.points.is_empty()));
    plots
}

/// The cases of one quantity: a line for each contestant.
fn cases(
    title: &str,
    cases: &[CaseResult],
    quantity: Quantity,
    x: Axis,
    place: impl Fn(&CaseResult) -> u32,
) -> Plot {
    let mut lines: Vec<Line> = Vec::new();
    for case in cases.iter().filter(|case| case.quantity == quantity) {
        for outcome in &case.outcomes {
            let Some(figure) = outcome.figure else { continue };
            let point = (f64::from(place(case)), figure.by(quantity.shown().1).median);
            match lines.iter_mut().find(|line| line.name == outcome.name) {
                Some(line) => line.points.push(point),
                None => {
                    lines.push(Line { name: outcome.name.clone(), role: outcome.role, points: vec![point] })
                }
            }
        }
    }
    let y = match quantity {
        Quantity::Latency => Axis { title: "nanoseconds", show: count },
        Quantity::Rate => Axis { title: "million messages per second", show: count },
        Quantity::Bandwidth => Axis { title: "MB per second", show: count },
    };
    Plot { title: title.to_owned(), x, y, lines }
}

/// What a message costs beside many objects, by what it costs beside few.
fn scale(results: &[ScaleResult]) -> Plot {
    let lines = results.iter().filter_map(|result| {
        let first = result.points.first()?.latency.ratio.median;
        let points = result.points.iter();
        let points = points.map(|point| (f64::from(point.count), point.latency.ratio.median / first));
        Some(Line { name: result.object.name().to_owned(), role: Role::Peer, points: points.collect() })
    });
    Plot {
        title: "One message at a time, beside many objects that are idle".to_owned(),
        x: Axis { title: "objects", show: count },
        y: Axis { title: "cost, by that beside the fewest", show: count },
        lines: lines.collect(),
    }
}

/// A number in few characters: 64, 4 K, 1 M.
fn count(number: f64) -> String {
    const UNITS: [(f64, &str); 2] = [(1024.0 * 1024.0, " Mi"), (1024.0, " Ki")];
    let binary = |(unit, name): (f64, &str)| {
        (number >= unit && number % unit == 0.0).then(|| format!("{}{name}", number / unit))
    };
    UNITS.into_iter().find_map(binary).unwrap_or_else(|| {
        let text = format!("{number:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [64.0, 4096.0, 1_048_576.0, 1000.0, 0.25].map(count),
            ["64", "4 Ki", "1 Mi", "1000", "0.25"]
        );
    }
}
