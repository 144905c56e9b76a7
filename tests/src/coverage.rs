//! What the conformance suite covers of what VIPL documents.
//!
//! What must be covered comes from the manual and from `vipl.h`: every return code of every function, every status bit, every code
//! of the error handler and every change of a VI's state, the last three at each reliability level. What is covered comes from the
//! suite's `--list`; that a test shows what it claims there, the suite itself checks whenever it is run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use vianic::workspace;

use crate::not_provoked::NOT_PROVOKED;

/// The reliability levels, as words of the suite name them and as headings do.
const LEVELS: [(&str, &str); 3] = [
    ("unreliable", "Unreliable Delivery"),
    ("delivery", "Reliable Delivery"),
    ("reception", "Reliable Reception"),
];

/// Something to show: a word of the suite, such as `status:DONE`, and the level where it must be shown; none for return codes, which
/// are shown at any.
type Requirement = (String, Option<&'static str>);

/// A line of the suite's `--list`.
struct Test<'a> {
    name: &'a str,
    source: &'a str,
    levels: &'a str,
    roles: &'a str,
    needs: &'a str,
    covers: &'a str,
}

impl<'a> Test<'a> {
    fn read(line: &'a str) -> Result<Self> {
        match line.split('\t').collect::<Vec<_>>()[..] {
            [name, source, levels, roles, needs, covers] => {
                Ok(Self { name, source, levels, roles, needs, covers })
            }
            _ => bail!("no line of --list: {line:?}"),
        }
    }

    /// The levels that the test runs at.
    fn runs_at(&self) -> Result<&'static [&'static str]> {
        match self.levels {
            "once" => Ok(&["delivery"]),
            "reliable" => Ok(&["delivery", "reception"]),
            "each" => Ok(&["unreliable", "delivery", "reception"]),
            other => bail!("{}: no levels: {other}", self.name),
        }
    }

    /// What the test shows, with the levels where. What only other providers show is left out.
    fn shows(&self) -> Result<Vec<(&'a str, &'static str)>> {
        let mut shown = vec![];
        for word in self.covers.split_ascii_whitespace().filter(|word| !word.ends_with('?')) {
            let (word, only) = word.split_once('@').map_or((word, None), |(word, only)| (word, Some(only)));
            let holds = |level: &str| match only {
                None => true,
                Some("reliable") => level != "unreliable",
                Some(only) => only == level,
            };
            let levels: Vec<_> = self.runs_at()?.iter().filter(|level| holds(level)).collect();
            ensure!(
                !levels.is_empty(),
                "{}: {word} holds at a level that the test does not run at",
                self.name
            );
            shown.extend(levels.into_iter().map(|level| (word, *level)));
        }
        Ok(shown)
    }
}

/// The names of the tests that show each requirement.
type Shown<'a> = BTreeMap<Requirement, Vec<&'a str>>;

/// The document about the suite's coverage, from the suite's `--list`.
///
/// # Errors
/// If something is covered by no test and not said to be out of reach, or said to be so and covered after all.
pub fn document(list: &str) -> Result<String> {
    let tests = list.lines().map(Test::read).collect::<Result<Vec<_>>>()?;
    let required = required()?;
    let known: BTreeSet<&str> = required.iter().map(|(word, _)| word.as_str()).collect();
    let mut shown: Shown<'_> = required.iter().map(|requirement| (requirement.clone(), vec![])).collect();
    for test in &tests {
        for (word, level) in test.shows()? {
            ensure!(known.contains(word), "{} covers {word}, which nothing documents", test.name);
            for key in [(word.to_owned(), None), (word.to_owned(), Some(level))] {
                if let Some(names) = shown.get_mut(&key)
                    && !names.contains(&test.name)
                {
                    names.push(test.name);
                }
            }
        }
    }
    let reasons = reasons(&shown)?;
    let missing: Vec<String> = shown
        .iter()
        .filter(|(requirement, names)| names.is_empty() && !reasons.contains_key(*requirement))
        .map(|((word, level), _)| {
            format!("{word}{}", level.map(|level| format!("@{level}")).unwrap_or_default())
        })
        .collect();
    ensure!(missing.is_empty(), "no test covers\n{}", missing.join("\n"));
    Ok(write(&tests, &shown, &reasons))
}

/// Why what is not covered is not.
fn reasons(shown: &Shown<'_>) -> Result<BTreeMap<Requirement, &'static str>> {
    let mut reasons = BTreeMap::new();
    for (word, reason) in NOT_PROVOKED {
        let (word, only) = word.split_once('@').map_or((*word, None), |(word, only)| (word, Some(only)));
        let matching: Vec<_> = shown
            .iter()
            .filter(|((other, level), _)| other == word && (only.is_none() || only == *level))
            .collect();
        ensure!(!matching.is_empty(), "{word} is not documented: why say that it is not provoked?");
        for (requirement, names) in matching {
            ensure!(names.is_empty(), "{requirement:?} is said not to be provoked, but {names:?} cover it");
            reasons.insert(requirement.clone(), *reason);
        }
    }
    Ok(reasons)
}

// What must be covered

fn vipl() -> Result<PathBuf> {
    Ok(workspace::root()?.join("guest-driver/vipl"))
}

fn required() -> Result<Vec<Requirement>> {
    let header = std::fs::read_to_string(vipl()?.join("include/vipl.h"))?;
    let mut required: Vec<Requirement> = vec![];
    for (function, codes) in return_codes(&header)? {
        required.extend(codes.into_iter().map(|code| (format!("{function}:{code}"), None)));
    }
    let each_level = |word: String| LEVELS.map(|(level, _)| (word.clone(), Some(level)));
    required.extend(status_bits(&header).into_iter().map(|bit| format!("status:{bit}")).flat_map(each_level));
    required
        .extend(error_codes(&header)?.into_iter().map(|code| format!("error:{code}")).flat_map(each_level));
    required
        .extend(state_changes()?.into_iter().map(|change| format!("state:{change}")).flat_map(each_level));
    Ok(required)
}

/// The codes that each function documents, from its page.
fn return_codes(header: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let prototypes = header.split("VIP_RETURN ").skip(1).filter_map(|rest| rest.split_once('('));
    let functions: BTreeSet<&str> =
        prototypes.map(|(name, _)| name).filter(|name| name.starts_with("Vip")).collect();
    ensure!(functions.len() > 40, "too few functions in vipl.h: {functions:?}");
    let mut all = BTreeMap::new();
    for function in functions {
        let read =
            |name: &str| std::fs::read_to_string(vipl()?.join("man").join(name)).context(name.to_owned());
        let mut page = read(&format!("{function}.3"))?;
        if let Some(other) = page.strip_prefix(".so man3/") {
            page = read(other.trim_end())?;
        }
        let (_, section) = page.split_once("\n.Sh RETURN VALUES\n").context("no RETURN VALUES")?;
        let section = section.split("\n.Sh ").next().unwrap_or_default();
        let codes = section.lines().filter_map(|line| line.strip_prefix(".It Dv ")).map(str::to_owned);
        all.insert(function.to_owned(), codes.collect());
    }
    Ok(all)
}

/// The bits of a descriptor's status, and its operations.
fn status_bits(header: &str) -> Vec<String> {
    let names = header.lines().filter_map(|line| line.strip_prefix("#define VIP_STATUS_"));
    let names = names.filter_map(|rest| rest.split_once(' ').map(|(name, _)| name.to_owned()));
    names.filter(|name| !name.ends_with("_MASK") && name != "RESERVED").collect()
}

fn error_codes(header: &str) -> Result<Vec<String>> {
    let (before, _) = header.split_once("} VIP_ERROR_CODE;").context("no VIP_ERROR_CODE in vipl.h")?;
    let (_, members) = before.rsplit_once('{').context("no VIP_ERROR_CODE in vipl.h")?;
    let names = members.lines().filter_map(|line| line.trim().strip_prefix("VIP_ERROR_"));
    Ok(names.filter_map(|rest| rest.split_once(' ').map(|(name, _)| name.to_owned())).collect())
}

/// The changes of state in vipl(7), as `Idle-ConnectPending`.
fn state_changes() -> Result<BTreeSet<String>> {
    let page = std::fs::read_to_string(vipl()?.join("man/vipl.7"))?;
    let (_, section) = page.split_once("\n.Ss VI states\n").context("no VI states in vipl(7)")?;
    let table = section.split("\n.El").next().unwrap_or_default();
    let mut changes = BTreeSet::new();
    let mut from = String::new();
    for row in table.lines().filter_map(|line| line.strip_prefix(".It ")).skip(1) {
        let cells: Vec<String> = row.split(" Ta ").map(|cell| cell.replace([' ', '"'], "")).collect();
        let [state, _, next] = &cells[..] else { bail!("vipl(7): {row}") };
        match (state.as_str(), row.contains("VipCreateVi")) {
            ("", true) => from = "create".into(),
            ("", false) => {}
            (state, _) => from = state.into(),
        }
        let next = if next.is_empty() { "destroy" } else { next };
        match from.as_str() {
            "any" => {
                changes.extend(["Idle", "ConnectPending", "Connected"].map(|from| format!("{from}-{next}")))
            }
            from => {
                changes.insert(format!("{from}-{next}"));
            }
        }
    }
    ensure!(changes.len() > 5, "too few changes in vipl(7): {changes:?}");
    Ok(changes)
}

// The document

fn write(tests: &[Test<'_>], shown: &Shown<'_>, reasons: &BTreeMap<Requirement, &'static str>) -> String {
    let mut text = String::from(INTRODUCTION);
    let covered = shown.values().filter(|names| !names.is_empty()).count();
    writeln!(
        text,
        "Of {} things that are documented, {covered} are covered and {} cannot be provoked.\n",
        shown.len(),
        reasons.len()
    )
    .expect("a string takes all");
    text += "## Return codes\n\n| Function | Code | Tests |\n|---|---|---|\n";
    for ((word, level), names) in shown {
        if level.is_none() {
            let (function, code) = word.split_once(':').unwrap_or((word, ""));
            text += &format!("| {function} | {code} | {} |\n", cell(names));
        }
    }
    for (title, kind) in [
        ("Status of descriptors", "status:"),
        ("Codes of the error handler", "error:"),
        ("Changes of a VI's state", "state:"),
    ] {
        text += &format!("\n## {title}\n\n| |");
        LEVELS.iter().for_each(|(_, heading)| text += &format!(" {heading} |"));
        text += "\n|---|---|---|---|\n";
        let words: BTreeSet<&str> = shown.keys().filter_map(|(word, _)| word.strip_prefix(kind)).collect();
        for word in words {
            text += &format!("| {word} |");
            for (level, _) in LEVELS {
                let names = shown.get(&(format!("{kind}{word}"), Some(level))).map_or(&[][..], Vec::as_slice);
                text += &format!(" {} |", cell(names));
            }
            text += "\n";
        }
    }
    text += "\n## Not provoked\n\n| | Why |\n|---|---|\n";
    for (word, reason) in NOT_PROVOKED {
        text += &format!("| {word} | {reason} |\n");
    }
    text += "\n## Tests\n\n| Test | From | Levels | Roles | Needs |\n|---|---|---|---|---|\n";
    for Test { name, source, levels, roles, needs, .. } in tests {
        text += &format!("| {name} | {source} | {levels} | {roles} | {needs} |\n");
    }
    text
}

fn cell(names: &[&str]) -> String {
    if names.is_empty() { "not provoked".to_owned() } else { names.join(", ") }
}

const INTRODUCTION: &str = "# Conformance of VIPL

What the tests of [tests/conformance](../tests/conformance) show of what the [manual](../guest-driver/vipl/man) and
[vipl.h](../guest-driver/vipl/include/vipl.h) document. This page is made from the suite's `--list` by `tests/src/coverage.rs`, and a
test checks that it is current; `VIANIC_UPDATE_DOCS=1 cargo test --workspace --test coverage` makes it again. The suite notes what
a test has seen while it runs. With `--strict`, as this project runs it, a test that has not seen all that it is listed for here has failed.

";
