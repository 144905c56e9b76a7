//! Reports in the Test Anything Protocol.

use anyhow::{Context as _, Result, ensure};

/// What a program reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many tests passed.
    pub passed: usize,
    /// The names of the tests that could not be made, and why.
    pub skipped: Vec<(String, String)>,
}

impl Report {
    /// Reads a report: a plan that is kept, and no test that failed.
    ///
    /// # Errors
    /// With the failed tests and what is said of them.
    pub fn read(text: &str) -> Result<Self> {
        let mut report = Self::default();
        let mut failures = String::new();
        let mut plan = None;
        let mut explains_failure = false;
        for line in text.lines() {
            if let Some(count) = line.strip_prefix("1..") {
                plan = Some(count.parse::<usize>().context("the plan")?);
            } else if let Some(test) = line.strip_prefix("ok ") {
                explains_failure = false;
                let name = test.split_once(" - ").map_or(test, |(_, name)| name);
                match name.split_once(" # SKIP ") {
                    Some((name, why)) => report.skipped.push((name.to_owned(), why.to_owned())),
                    None => report.passed += 1,
                }
            } else if line.starts_with("not ok ") || line.starts_with("Bail out!") {
                explains_failure = true;
                failures += line;
                failures += "\n";
            } else if explains_failure && line.starts_with('#') {
                failures += line;
                failures += "\n";
            }
        }
        ensure!(failures.is_empty(), "{failures}");
        ensure!(
            report.passed > 0 && plan == Some(report.passed + report.skipped.len()),
            "the program did not come to its end:\n{text}"
        );
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn a_report_is_read() {
        let report =
            Report::read("TAP version 13\nok 1 - a\nok 2 - b # SKIP no NIC\n1..2\n# all\n").expect("good");
        assert_eq!(report.passed, 1);
        assert_eq!(report.skipped, [("b".to_owned(), "no NIC".to_owned())]);
        for bad in ["", "ok 1 - a\n", "ok 1 - a\n1..2\n", "ok 1 - a\nnot ok 2 - b\n# why\n1..2\n", "1..0\n"] {
            assert!(Report::read(bad).is_err(), "{bad}");
        }
        let error = Report::read("not ok 1 - b\n# why\nok 2 - c\n# not this\n1..2\n").expect_err("it failed");
        assert_eq!(error.to_string(), "not ok 1 - b\n# why\n");
    }
}
