//! The manual in `man/` against `include/vipl.h`, against itself, and against what a terminal shows.
//!
//! A page is of functions that return the same codes, so that its list of codes holds for each of them. A function that is
//! not the first of its page has a file of its own name that includes the page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Widest line of a terminal.
const COLUMNS: usize = 80;

fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// vipl.h without its comments.
fn header() -> String {
    let text = std::fs::read_to_string(crate_dir().join("include/vipl.h")).expect("the header");
    let mut code = String::new();
    for (index, part) in text.split("/*").enumerate() {
        let part = if index == 0 { part } else { part.split_once("*/").expect("a closed comment").1 };
        code += part;
    }
    code
}

/// One blank for any number of them, and none at parentheses.
fn normalised(code: &str) -> String {
    code.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(").replace(" )", ")")
}

/// The functions of vipl.h and their prototypes.
fn prototypes() -> BTreeMap<String, String> {
    let mut prototypes = BTreeMap::new();
    for statement in header().split(';') {
        let statement = normalised(statement.rsplit(['}', '{']).next().unwrap_or_default());
        if let Some((result_and_name, _)) = statement.split_once('(')
            && let Some((_, name)) = result_and_name.rsplit_once(' ')
            && name.starts_with("Vip")
        {
            prototypes.insert(name.into(), statement.clone());
        }
    }
    assert_eq!(prototypes.len(), 46, "the standard's 41 functions and one vendor's five");
    prototypes
}

/// The names in the header that begin with `VIP_`, and the value of each that has a number.
fn constants() -> BTreeMap<String, Option<i64>> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let mut constants = BTreeMap::new();
    for line in header().lines() {
        let words: Vec<&str> = line.trim().trim_end_matches(',').split_whitespace().collect();
        match words[..] {
            ["#define", name, value] | [name, "=", value] if name.starts_with("VIP_") => {
                constants.insert(name.to_owned(), number(value));
            }
            _ => {}
        }
    }
    constants
}

/// The members of `VIP_RETURN`.
fn return_codes() -> BTreeSet<String> {
    let header = header();
    let (before, _) = header.split_once("} VIP_RETURN;").expect("VIP_RETURN");
    let (_, members) = before.rsplit_once('{').expect("an enumeration");
    let codes: BTreeSet<_> = members
        .split(',')
        .filter_map(|member| member.split('=').next())
        .map(|name| name.trim().to_owned())
        .collect();
    assert_eq!(codes.len(), 18, "17 codes and an alias");
    codes
}

struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).expect("a name")
    }

    /// The page that this file includes, if it does nothing else.
    fn included(&self) -> Option<&str> {
        self.text.strip_prefix(".so ").map(|rest| rest.trim_end())
    }

    /// The lines of a section.
    fn section(&self, title: &str) -> Vec<&str> {
        let is_heading = |line: &&str| line.starts_with(".Sh ");
        let mut lines = self.text.lines().skip_while(|line| *line != format!(".Sh {title}"));
        lines.next();
        lines.take_while(|line| !is_heading(line)).collect()
    }

    /// The prototypes in the synopsis, by function.
    fn prototypes(&self) -> BTreeMap<String, String> {
        let mut prototypes = BTreeMap::new();
        let (mut result, mut name, mut arguments) = ("", "", Vec::new());
        for line in self.section("SYNOPSIS") {
            match line.split_once(' ') {
                Some((".Ft", rest)) => result = rest,
                Some((".Fo", rest)) => (name, arguments) = (rest, Vec::new()),
                Some((".Fa", rest)) => arguments.push(rest.trim_matches('"')),
                None if line == ".Fc" => {
                    let prototype = normalised(&format!("{result} {name}({})", arguments.join(", ")));
                    assert!(
                        prototypes.insert(name.to_owned(), prototype).is_none(),
                        "{}: {name} twice",
                        self.name()
                    );
                }
                _ => {}
            }
        }
        prototypes
    }

    /// The codes that the page's functions return.
    fn codes(&self) -> Vec<&str> {
        self.section("RETURN VALUES").iter().filter_map(|line| line.strip_prefix(".It Dv ")).collect()
    }

    /// What the page refers to, as name and section, and where.
    fn references(&self) -> Vec<(String, &str)> {
        self.text
            .lines()
            .filter_map(|line| line.split_once("Xr ").map(|(_, rest)| (rest, line)))
            .map(|(rest, line)| {
                let words: Vec<_> = rest.split_whitespace().take(2).collect();
                (words.join("."), line)
            })
            .collect()
    }

    /// The programs under EXAMPLES.
    fn examples(&self) -> String {
        let mut code = String::new();
        let mut is_code = false;
        for line in self.section("EXAMPLES") {
            match line {
                ".Ed" => is_code = false,
                _ if line.starts_with(".Bd -literal") => is_code = true,
                _ if is_code => code += &(line.replace("\\e", "\\") + "\n"),
                _ => {}
            }
        }
        assert!(!is_code, "{}", self.name());
        code
    }
}

/// All files of the manual.
fn files() -> Vec<Page> {
    let mut files: Vec<_> = std::fs::read_dir(crate_dir().join("man"))
        .expect("the manual")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| Page { text: std::fs::read_to_string(&path).expect("a page"), path })
        .collect();
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

/// The files that are pages, not references to one.
fn pages() -> Vec<Page> {
    files().into_iter().filter(|file| file.included().is_none()).collect()
}

fn mandoc(arguments: &[&str], page: &Page) -> Output {
    let output = Command::new("mandoc").args(arguments).arg(&page.path).output();
    output.unwrap_or_else(|error| panic!("mandoc: {error}; ci/dependencies.sh installs it"))
}

#[test]
fn every_function_has_a_page_with_its_prototype() {
    let mut documented = BTreeMap::new();
    for page in pages() {
        let prototypes = page.prototypes();
        for name in prototypes.keys() {
            let named = [format!(".Nm {name} ,"), format!(".Nm {name}")];
            let names = page.section("NAME");
            assert!(
                named.iter().any(|line| names.contains(&line.as_str())),
                "{} does not name {name}",
                page.name()
            );
        }
        documented.extend(prototypes);
    }
    assert_eq!(documented, prototypes());
}

#[test]
fn every_function_has_a_file_of_its_name() {
    let pages: BTreeMap<String, Page> =
        pages().into_iter().map(|page| (format!("man3/{}", page.name()), page)).collect();
    for function in prototypes().keys() {
        let path = crate_dir().join(format!("man/{function}.3"));
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = Page { path, text };
        let page = match file.included() {
            None => &file,
            Some(included) => {
                pages.get(included).unwrap_or_else(|| panic!("{function}.3 includes {included}"))
            }
        };
        assert!(page.prototypes().contains_key(function), "{} is not about {function}", page.name());
    }
    let functions = prototypes();
    for file in files() {
        if let Some(function) = file.name().strip_suffix(".3") {
            assert!(functions.contains_key(function), "{function} is no function");
        }
    }
}

#[test]
fn titles_are_file_names() {
    for page in pages() {
        let title = page.text.lines().find_map(|line| line.strip_prefix(".Dt ")).expect("a title");
        assert_eq!(title.replace(' ', "."), page.name().to_uppercase());
    }
}

#[test]
fn codes_exist_and_are_listed_once() {
    let codes = return_codes();
    let mut documented = BTreeSet::from(["VIP_ERROR".to_owned()]);
    for page in pages() {
        let listed = page.codes();
        let distinct: BTreeSet<_> = listed.iter().map(|code| (*code).to_owned()).collect();
        assert_eq!(listed.len(), distinct.len(), "{} lists a code twice", page.name());
        assert!(distinct.is_subset(&codes), "{}: {:?}", page.name(), distinct.difference(&codes));
        let returns = page.prototypes().values().any(|prototype| prototype.starts_with("VIP_RETURN "));
        assert_eq!(returns, !listed.is_empty(), "{} of functions that return codes, or not", page.name());
        documented.extend(distinct);
    }
    assert_eq!(documented, codes, "every code is returned by some function");
}

#[test]
fn names_and_values_are_those_of_the_header() {
    let (constants, header) = (constants(), normalised(&header()));
    for page in pages() {
        for line in page.text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            for pair in words.windows(2).filter(|pair| pair[0].ends_with("Dv") && pair[1].starts_with("VIP_"))
            {
                assert!(constants.contains_key(pair[1]), "{}: {line}", page.name());
            }
            if let [".It", "Dv", name, "Pq", value] = words[..] {
                let told = i64::from_str_radix(value.trim_start_matches("0x"), 16).ok();
                assert_eq!(told, constants[name], "{}: {line}", page.name());
            }
            if let Some(member) = line.strip_prefix(".It Fa \"") {
                let member = member.trim_end_matches('"');
                assert!(header.contains(&format!("{member};")), "{}: {member}", page.name());
            }
        }
    }
}

#[test]
fn references_lead_somewhere() {
    let files: BTreeSet<String> = files().iter().map(|file| file.name().to_owned()).collect();
    for page in pages() {
        assert!(page.text.contains("\n.Sh SEE ALSO\n"), "{} stands alone", page.name());
        for (reference, line) in page.references() {
            let ours = reference.to_lowercase().starts_with("vip");
            assert!(!ours || files.contains(&reference), "{}: {line}", page.name());
        }
    }
}

#[test]
fn examples_compile() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut compiled = 0;
    for page in pages() {
        let code = page.examples();
        if code.is_empty() {
            continue;
        }
        let source = dir.path().join(format!("{}.c", page.name()));
        std::fs::write(&source, code).expect("a source");
        let output = Command::new("cc")
            .args(["-std=c89", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-I"])
            .arg(crate_dir().join("include"))
            .arg(&source)
            .output()
            .expect("cc");
        assert!(output.status.success(), "{}: {}", page.name(), String::from_utf8_lossy(&output.stderr));
        compiled += 1;
    }
    assert!(compiled > 0, "no examples found");
}

#[test]
fn mandoc_has_nothing_to_warn_of() {
    for page in pages() {
        let output = mandoc(&["-T", "lint", "-W", "warning"], &page);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
}

#[test]
fn every_page_fits_a_terminal() {
    for page in pages() {
        let output = mandoc(&["-T", "ascii", "-O", "width=78"], &page);
        assert!(output.status.success(), "{}", page.name());
        for line in String::from_utf8(output.stdout).expect("ASCII").lines() {
            // Bold and underlined characters are printed over others.
            let width = line.chars().count() - 2 * line.matches('\u{8}').count();
            assert!(width <= COLUMNS, "{}: {line}", page.name());
        }
    }
}
