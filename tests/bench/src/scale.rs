//! What a message costs beside many objects that are idle, and what memory each of them takes.

mod objects;
mod process;

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use vianic_abi::MAX_CONTEXTS;
use vianic_tools::bench::beside::Cores;
use vianic_tools::bench::contestant::{Quantity, Role};
use vianic_tools::bench::loopback::{CardUse, Pattern};
use vianic_tools::bench::result::{CaseResult, Outcome};
use vianic_tools::bench::ring::TokenRing;
use vianic_tools::bench::rounds::{Case, Rounds};
use vianic_tools::bench::statistics::Spread;
use vianic_tools::cli::open_nic;
use vipl::Nic;

use self::objects::Objects;
use self::process::Usage;

/// Bytes of the messages.
const SIZE: u32 = 64;
/// Messages at once, for the rate.
const WINDOW: u32 = 64;
/// Messages of a sample, one at a time and many at once.
const MESSAGES: [u32; 2] = [200, 2_000];
/// How long an idle card is watched.
const IDLE: Duration = Duration::from_secs(5);

/// What there are many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Object {
    /// VIs of the context that is used.
    Vis,
    /// Contexts of the NIC that is used.
    Contexts,
    /// NICs of the card process, with a driver each.
    Nics,
    /// Registered regions of the process, of a page each.
    Regions,
}

impl Object {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Vis, Self::Contexts, Self::Nics, Self::Regions];

    /// Their name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vis => "VIs",
            Self::Contexts => "contexts",
            Self::Nics => "NICs",
            Self::Regions => "regions",
        }
    }

    /// What to know about their number.
    #[must_use]
    pub fn note(self) -> Option<String> {
        (self == Self::Contexts).then(|| {
            format!(
                "a NIC has {MAX_CONTEXTS} contexts, {} of them for programs: context 0 is the Kernel Agent's",
                MAX_CONTEXTS - 1
            )
        })
    }

    /// How many there are, step by step, those of the two cases that are measured counted. `most` is for a short run.
    fn counts(self, most: u32) -> Vec<u32> {
        let counts: &[u32] = match self {
            Self::Vis => &[4, 16, 128, 512, 1024],
            Self::Contexts => &[1, 4, 16, 61],
            Self::Nics => &[1, 4, 16, 32],
            Self::Regions => &[6, 100, 1_000, 10_000, 100_000],
        };
        counts
            .iter()
            .copied()
            .enumerate()
            .filter(|(step, count)| *step == 0 || *count <= most)
            .map(|(_, count)| count)
            .collect()
    }
}

/// The card process, and how its NICs are opened.
#[derive(Clone, Debug)]
pub struct Target {
    /// Names of NICs that nobody has open.
    pub nics: Vec<String>,
    /// Its process id.
    pub pid: u32,
}

/// NICs that scale is measured with.
pub const NICS: usize = 32;

/// One kind of object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScaleResult {
    /// Which.
    pub object: Object,
    /// Step by step.
    pub points: Vec<Point>,
    /// Bytes that the card process took for each one more; none if there never were more.
    pub card_bytes: Option<f64>,
    /// Bytes that this process took for each one more.
    pub application_bytes: Option<f64>,
    /// The card process with all of them, idle.
    pub idle: Idle,
}

/// A process that has nothing to do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Idle {
    /// Seconds of the clock.
    pub seconds: f64,
    /// Nanoseconds of processor time.
    pub processor_ns: u64,
}

impl Idle {
    /// Processor time by the time of the clock.
    #[must_use]
    pub fn percent(&self) -> f64 {
        self.processor_ns as f64 / 1e9 / self.seconds * 100.0
    }
}

/// So many objects.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    /// How many.
    pub count: u32,
    /// From post to completion in nanoseconds; and by the limit of the same round.
    pub latency: Measured,
    /// Messages per second; and by the limit of the same round.
    pub rate: Measured,
}

/// A figure of the card.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The figure.
    pub figure: Spread,
    /// By that of the limit.
    pub ratio: Spread,
}

/// Measures with more and more objects of one kind, at most `most`.
///
/// # Errors
/// If the card has no room for them, or cannot be measured.
pub fn measure(
    object: Object,
    target: &Target,
    cores: Cores,
    rounds: Rounds,
    most: u32,
) -> anyhow::Result<ScaleResult> {
    let nic = open_nic(target.nics.first().context("the card has no NIC")?)?;
    let counts = object.counts(most);
    // All points of all kinds wait no longer together than one measurement would.
    let points = u32::try_from(counts.len() * Object::ALL.len())?;
    let rounds = Rounds { patience: rounds.patience.map(|patience| patience / points), ..rounds };
    let first = *counts.first().context("no counts")?;
    let mut objects = Objects::new(object, &nic, target, first);
    let [card, application] = [Usage::of(target.pid)?, Usage::of(std::process::id())?];
    let mut points = Vec::new();
    for count in counts {
        objects.grow(count)?;
        let results = rounds.run(cores, cases(&nic, cores)?, |_| {})?;
        let [latency, rate] = results.as_slice() else { anyhow::bail!("two cases have two results") };
        points.push(Point { count, latency: figure_of(latency)?, rate: figure_of(rate)? });
    }
    let more = objects.count() - first;
    let bytes = |before: Usage, pid: u32| anyhow::Ok(each(Usage::of(pid)?.bytes_since(before), more));
    let (card_bytes, application_bytes) = (bytes(card, target.pid)?, bytes(application, std::process::id())?);
    let before = process::processor_ns(target.pid)?;
    std::thread::sleep(IDLE);
    let processor_ns = process::processor_ns(target.pid)?.saturating_sub(before);
    let idle = Idle { seconds: IDLE.as_secs_f64(), processor_ns };
    Ok(ScaleResult { object, points, card_bytes, application_bytes, idle })
}

/// Of `bytes`, what each of so many objects took. Where there are none, the bytes are of something else.
fn each(bytes: f64, objects: u32) -> Option<f64> {
    (objects > 0).then(|| bytes / f64::from(objects))
}

/// Bytes, if there are any to be told, for people.
#[must_use]
pub fn bytes(bytes: Option<f64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.0}"))
}

fn cases(nic: &Nic, cores: Cores) -> anyhow::Result<Vec<Case<'_>>> {
    let [single, stream] = MESSAGES;
    [(Quantity::Latency, Pattern::Completion, 1, single), (Quantity::Rate, Pattern::Stream, WINDOW, stream)]
        .into_iter()
        .map(|(quantity, pattern, window, messages)| {
            Ok(Case {
                quantity,
                size: SIZE,
                window,
                contestants: vec![
                    Box::new(TokenRing::new(cores, quantity, window, messages)),
                    Box::new(CardUse::new(nic, pattern, SIZE, window, messages)?),
                ],
            })
        })
        .collect()
}

fn figure_of(case: &CaseResult) -> anyhow::Result<Measured> {
    let outcome: &Outcome = case.of_role(Role::Card).next().context("the card was not measured")?;
    let missing = "no round has samples of both card and limit that count: measure more rounds";
    Ok(Measured { figure: outcome.figure.context(missing)?, ratio: outcome.ratio.context(missing)? })
}

impl ScaleResult {
    /// By how much a message costs more with most objects than with fewest, one at a time and many at once: 1.0 is the same.
    #[must_use]
    pub fn growth(&self) -> Option<[f64; 2]> {
        let (first, last) = (self.points.first()?, self.points.last()?);
        Some([
            last.latency.ratio.median / first.latency.ratio.median,
            first.rate.ratio.median / last.rate.ratio.median,
        ])
    }
}

impl fmt::Display for ScaleResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.object.name();
        writeln!(f, "{name:<12} {:>10} {:>9} {:>10} {:>9}", "ns", "x limit", "M/s", "x limit")?;
        for Point { count, latency, rate } in &self.points {
            let (ns, per_second) = (latency.figure.median, rate.figure.median / 1e6);
            let (latency, rate) = (latency.ratio.median, rate.ratio.median);
            writeln!(f, "{count:>12} {ns:>10.0} {latency:>9.3} {per_second:>10.2} {rate:>9.3}")?;
        }
        let Self { card_bytes, application_bytes, idle, .. } = self;
        writeln!(
            f,
            "  each takes {} bytes in the card and {} in the program",
            bytes(*card_bytes),
            bytes(*application_bytes)
        )?;
        if let Some(note) = self.object.note() {
            writeln!(f, "  {note}")?;
        }
        writeln!(f, "  idle, the card takes {:.6} % of a processor\n", idle.percent())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_begin_with_the_least_and_end_with_what_is_asked_for() {
        assert_eq!(Object::Vis.counts(128), [4, 16, 128]);
        assert_eq!(Object::Vis.counts(0), [4]);
        assert_eq!(Object::Regions.counts(u32::MAX).last(), Some(&100_000));
        // All but the Kernel Agent's.
        let most = u32::from(MAX_CONTEXTS) - 1;
        assert_eq!(Object::Contexts.counts(u32::MAX).last(), Some(&most));
    }

    #[test]
    fn growth_is_of_the_cost_of_a_message() {
        let measured = |ratio| {
            let spread = Spread { low: ratio, median: ratio, high: ratio };
            Measured { figure: spread, ratio: spread }
        };
        let point = |count, latency, rate| Point { count, latency: measured(latency), rate: measured(rate) };
        let result = ScaleResult {
            object: Object::Vis,
            points: vec![point(1, 2.0, 0.2), point(10, 3.0, 0.1)],
            card_bytes: each(4096.0, 0),
            application_bytes: each(4096.0, 4),
            idle: Idle { seconds: 1.0, processor_ns: 0 },
        };
        assert_eq!(result.growth(), Some([1.5, 2.0]));
        let text = result.to_string();
        assert!(text.contains("each takes - bytes in the card and 1024 in the program"), "{text}");
        assert!(!text.contains("Kernel Agent"), "{text}");
        let text = ScaleResult { object: Object::Contexts, ..result }.to_string();
        assert!(text.contains("61 of them for programs"), "{text}");
    }
}
