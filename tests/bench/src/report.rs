//! The report: plots and tables of a run, as files.

mod html;
mod plot;
mod plots;

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::document::Document;

/// The page with everything.
pub const PAGE: &str = "report.html";
/// The results.
pub const RESULTS: &str = "results.json";

/// Writes the report of a run to a folder: a page, the results as JSON, and each plot as an SVG file.
///
/// # Errors
/// If the folder cannot be written.
pub fn write(document: &Document, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let mut drawn = Vec::new();
    for (name, plot) in plots::of(document) {
        let svg = plot.svg()?;
        write(&format!("{name}.svg"), &svg)?;
        drawn.push(svg);
    }
    write(RESULTS, &format!("{}\n", serde_json::to_string_pretty(document)?))?;
    write(PAGE, &html::page(document, &drawn))
}

#[cfg(test)]
mod tests {
    use vianic_tools::bench::contestant::{Quantity, Role};
    use vianic_tools::bench::result::{CaseResult, Outcome};
    use vianic_tools::bench::statistics::Spread;

    use super::*;
    use crate::document::Machine;
    use crate::scale::{Idle, Measured, Object, Point, ScaleResult};

    fn outcome(name: &str, role: Role, figure: f64) -> Outcome {
        Outcome {
            name: name.into(),
            role,
            figure: Spread::of([figure]),
            ratio: Spread::of([figure / 100.0]),
            p99_ns: None,
            rounds: vec![Some(figure)],
            samples: 1,
            dropped: 0,
        }
    }

    fn case(quantity: Quantity, size: u32, window: u32) -> CaseResult {
        let outcomes = vec![
            outcome("the limit", Role::Limit, 100.0),
            outcome("the <card>", Role::Card, 200.0 + f64::from(size)),
            outcome("a peer", Role::Peer, 2.0 * (200.0 + f64::from(size))),
        ];
        CaseResult { quantity, size, window, outcomes }
    }

    fn document() -> Document {
        let measured = Measured {
            figure: Spread { low: 1.0, median: 2.0, high: 3.0 },
            ratio: Spread { low: 1.0, median: 2.0, high: 3.0 },
        };
        let points = [1, 1000].map(|count| Point { count, latency: measured, rate: measured });
        Document {
            machine: Machine { processor: "A & B".into(), processors: 2, kernel: "6".into() },
            direct: vec![
                case(Quantity::Latency, 64, 1),
                case(Quantity::Latency, 4096, 1),
                case(Quantity::Rate, 64, 1),
                case(Quantity::Rate, 64, 64),
                case(Quantity::Bandwidth, 65536, 16),
            ],
            scale: vec![ScaleResult {
                object: Object::Regions,
                points: points.to_vec(),
                card_bytes: Some(64.0),
                application_bytes: None,
                idle: Idle { seconds: 5.0, processor_ns: 1000 },
            }],
            guests: vec![case(Quantity::Latency, 8, 1)],
        }
    }

    #[test]
    fn a_report_has_plots_tables_and_the_results() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        write(&document(), folder.path())?;
        let read = |name: &str| fs::read_to_string(folder.path().join(name));
        for plot in ["latency", "rate", "bandwidth", "scale", "guests-latency"] {
            let svg = read(&format!("{plot}.svg"))?;
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{plot}");
        }
        assert!(!folder.path().join("guests-bandwidth.svg").exists(), "nothing to draw");
        let page = read(PAGE)?;
        for part in ["A &amp; B", "the &lt;card&gt;", "regions", "4096"] {
            assert!(page.contains(part), "{part} is missing");
        }
        assert_eq!(page.matches("2.00 times").count(), 1, "of the guests");
        assert_eq!(page.matches("<svg").count(), 5);
        let again: Document = serde_json::from_str(&read(RESULTS)?)?;
        assert_eq!(again.direct.len(), 5);
        Ok(())
    }

    #[test]
    fn an_empty_run_has_an_empty_report() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let nothing = Document { direct: vec![], scale: vec![], guests: vec![], ..document() };
        write(&nothing, folder.path())
    }
}
